"""The endpoints: where each is, what it takes and gives. The routes and the OpenAPI document both follow this table."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter

from flash.text.classification.serve.api import handlers, schemas
from flash.text.classification.serve.api.handlers import Call


@dataclass(frozen=True)
class Endpoint:
    """One of the server's answers.

    Attributes:
        method: of HTTP.
        path: without parameters.
        summary: a line on what it does.
        tag: what it goes with in the documentation.
        answer: does it; gives a JSON value, or raises `ProblemError`.
        response: what the answer is like.
        request: what the body is like; None where there is none.
        problems: statuses beside 200 that it answers.
        open: whether it needs no API key.
    """

    method: Literal["GET", "POST"]
    path: str
    summary: str
    tag: str
    answer: Callable[[Call], Awaitable[Any]]
    response: TypeAdapter[Any]
    request: TypeAdapter[Any] | None = None
    problems: tuple[int, ...] = ()
    open: bool = False


OF_TEXTS = (400, 401, 408, 413, 422, 500, 501, 503, 504)
_PREDICT = TypeAdapter[Any](schemas.PredictRequest)
_PREDICTED = TypeAdapter[Any](schemas.PredictResponse)

ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/classify",
        "Labels and their probabilities for texts",
        "Classification",
        handlers.classify,
        TypeAdapter(schemas.ClassifyResponse),
        TypeAdapter(schemas.ClassifyRequest),
        OF_TEXTS,
    ),
    Endpoint(
        "POST",
        "/predict",
        "As Lightning Flash's server, or as Text Embeddings Inference: the body tells which",
        "Other clients",
        handlers.predict,
        _PREDICTED,
        _PREDICT,
        OF_TEXTS,
    ),
    Endpoint(
        "POST",
        "/v1/moderations",
        "As OpenAI's moderation; flagged by the model's thresholds",
        "Other clients",
        handlers.moderate,
        TypeAdapter(schemas.ModerationResponse),
        TypeAdapter(schemas.ModerationRequest),
        OF_TEXTS,
    ),
    Endpoint(
        "POST",
        "/",
        "As Hugging Face's inference: a list of scores for each text, also for one",
        "Other clients",
        handlers.infer,
        _PREDICTED,
        _PREDICT,
        OF_TEXTS,
    ),
    Endpoint(
        "GET",
        "/v1/models",
        "The model, as OpenAI's clients ask for it",
        "Other clients",
        handlers.models,
        TypeAdapter(schemas.ModelList),
        problems=(401,),
    ),
    Endpoint(
        "GET",
        "/info",
        "Labels, thresholds, limits and versions",
        "The server",
        handlers.info,
        TypeAdapter(schemas.Info),
        problems=(401,),
    ),
    Endpoint(
        "GET",
        "/health",
        "Whether it runs",
        "The server",
        handlers.health,
        TypeAdapter(schemas.Status),
        open=True,
    ),
    Endpoint(
        "GET",
        "/ready",
        "Whether its model is loaded, and requests are welcome",
        "The server",
        handlers.ready,
        TypeAdapter(schemas.Status),
        problems=(503,),
        open=True,
    ),
    Endpoint(
        "GET",
        "/flashserve/alive",
        "Whether it runs, as Lightning Flash's clients ask",
        "Other clients",
        handlers.alive,
        TypeAdapter(schemas.Alive),
        open=True,
    ),
    Endpoint(
        "POST",
        "/admin/reload",
        "Load the model's file again, in every worker; the old one stays if the new one is bad",
        "The server",
        handlers.reload,
        TypeAdapter(schemas.Reloaded),
        problems=(401, 403, 409),
    ),
)
