"""The table of endpoints: path, request and response. The routes and the OpenAPI document both follow it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter

from flash.text.classification.serve.api import handlers, schemas
from flash.text.classification.serve.api.handlers import Call


@dataclass(frozen=True)
class Endpoint:
    """One endpoint.

    Attributes:
        method: HTTP method.
        path: without parameters.
        summary: one line for the API reference.
        tag: its section in the API reference.
        answer: the handler; returns a JSON value, or a function that makes it, or raises `ProblemError`.
        response: schema of the response.
        request: schema of the body; None if there is no body.
        problems: error statuses that it may return.
        open: whether it works without an API key.
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
        "Compatible with Lightning Flash's server and with Text Embeddings Inference; the body decides which",
        "Other clients",
        handlers.predict,
        _PREDICTED,
        _PREDICT,
        OF_TEXTS,
    ),
    Endpoint(
        "POST",
        "/v1/moderations",
        "Compatible with OpenAI's moderation; flagged by the model's thresholds",
        "Other clients",
        handlers.moderate,
        TypeAdapter(schemas.ModerationResponse),
        TypeAdapter(schemas.ModerationRequest),
        OF_TEXTS,
    ),
    Endpoint(
        "POST",
        "/",
        "Compatible with Hugging Face's inference: a list of scores per text, also for a single text",
        "Other clients",
        handlers.infer,
        _PREDICTED,
        _PREDICT,
        OF_TEXTS,
    ),
    Endpoint(
        "GET",
        "/v1/models",
        "The model, in the form of OpenAI's list of models",
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
        "Whether the server runs",
        "The server",
        handlers.health,
        TypeAdapter(schemas.Status),
        open=True,
    ),
    Endpoint(
        "GET",
        "/ready",
        "Whether the model is loaded and the server accepts requests",
        "The server",
        handlers.ready,
        TypeAdapter(schemas.Status),
        problems=(503,),
        open=True,
    ),
    Endpoint(
        "GET",
        "/flashserve/alive",
        "Whether the server runs, for Lightning Flash's clients",
        "Other clients",
        handlers.alive,
        TypeAdapter(schemas.Alive),
        open=True,
    ),
    Endpoint(
        "POST",
        "/admin/reload",
        "Reload the model's file in every worker; the old model stays if loading fails",
        "The server",
        handlers.reload,
        TypeAdapter(schemas.Reloaded),
        problems=(401, 403, 409),
    ),
)
