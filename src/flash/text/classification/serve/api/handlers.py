"""The endpoint handlers: from each protocol's body to texts, and from scores to each protocol's response.

Responses are plain dicts and lists; tests check them against `schemas`, so that no request pays for validation. A
handler returns its response or a function that makes it, which runs in another thread for a large response.
"""

import platform
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypeAlias
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from flash.core.errors import DataError, FlashError, unknown_name
from flash.core.version import __version__
from flash.text.classification.reading.fields import joined_text
from flash.text.classification.scores.outputs import to_probabilities
from flash.text.classification.scores.thresholds import resolve_thresholds
from flash.text.classification.serve.api import schemas
from flash.text.classification.serve.problems import ProblemError, stopping
from flash.text.classification.serve.served_model import Floats, Scores, ServedModel
from flash.text.classification.serve.service import Service, place_of

Gone = Callable[[], Awaitable[None]]
TextValue: TypeAlias = str | dict[str, str | None] | list[str | None]
VALUE = itemgetter(1)
MANY_CELLS = 5_000  # probabilities from which on a response is large


@dataclass
class Call:
    """A request as its handler sees it.

    Attributes:
        service: the state that the endpoints share.
        body: the validated body; None if the endpoint has none.
        gone: returns once the client has disconnected.
        path: the requested path.
        texts: number of texts, for the log.
        long: whether making the response takes long enough to delay other requests.
        shown: the texts themselves, if they are logged.
    """

    service: Service
    body: Any
    gone: Gone
    path: str
    texts: int = 0
    long: bool = False
    shown: Sequence[str] | None = None

    async def scores(self, given: Sequence[Any], param: str, *, whole: bool = False) -> Scores:
        """Compute the scores of the texts; with `whole`, a text that would be truncated is an error.

        `param` is the name of the texts in the body; it ends with `[]` for a list.
        """
        self.texts = len(given)
        texts = joined_texts(given, self.service.model.predictor.input_fields, param)
        if self.service.options.log_texts:
            self.shown = texts
        scores = await self.service.scores(texts, param, self.gone, whole=whole)
        self.long = scores.probabilities.size > MANY_CELLS
        return scores


def joined_texts(given: Sequence[TextValue], fields: Sequence[str] | None, param: str) -> Sequence[str]:
    """Return each text as one string; several fields are joined.

    Raises:
        ProblemError: a text does not have the fields that the model reads.
    """
    if fields is None or len(fields) < 2:
        if all(type(text) is str for text in given):
            return given  # type: ignore[return-value]
        fields = fields or ("text",)
    texts = []
    for index, text in enumerate(given):
        place = place_of(param, index)
        try:
            texts.append(joined_text(text, place, fields))
        except DataError as error:
            raise ProblemError(422, "wrong_fields", str(error), param=place) from None
    return texts


# ---- Lightning Flash, Text Embeddings Inference, Hugging Face ----------------------------------------------------


async def predict(call: Call) -> Any:
    """Answer in the body's protocol: a body with `payload` is Flash's, any other Text Embeddings Inference's."""
    if isinstance(call.body, schemas.FlashRequest):
        return await _flash(call, call.body)
    return await _inference(call, call.body, nested=call.body.parameters is not None)


async def infer(call: Call) -> Any:
    """Like `predict`, for Hugging Face's client, which expects a list of results even for a single text."""
    if isinstance(call.body, schemas.FlashRequest):
        return await _flash(call, call.body)
    return await _inference(call, call.body, nested=True)


async def _flash(call: Call, body: schemas.FlashRequest) -> Any:
    data = body.payload.inputs.data
    name = "payload.inputs.data"
    alone = not isinstance(data, list)
    scores = await (call.scores(data, f"{name}[]") if isinstance(data, list) else call.scores([data], name))
    call.long |= callable(call.service.options.output)  # the user's own function

    def made() -> Any:
        outputs = scores.model.outputs(scores, call.service.options.output)
        return {
            "session": str(uuid4()) if body.session is None else body.session,
            "result": {"outputs": outputs[0] if alone else outputs},
        }

    return made


async def _inference(call: Call, body: schemas.InferenceRequest, *, nested: bool) -> Any:
    alone, fields = not isinstance(body.inputs, list), call.service.model.predictor.input_fields
    texts: Sequence[Any] = body.inputs if isinstance(body.inputs, list) else [body.inputs]
    if fields is None or len(fields) < 2:
        texts = [_single(item) for item in texts]
    name = "inputs" if alone else "inputs[]"
    scores = await call.scores(texts, name, whole=body.truncate is False)
    parameters = body.parameters or schemas.InferenceParameters()
    labels = scores.model.labels

    def made() -> Any:
        values = scores.probabilities
        if body.raw_scores or parameters.function_to_apply == "none":
            values = scores.logits
        elif parameters.function_to_apply is not None:
            values = to_probabilities(scores.logits, parameters.function_to_apply == "sigmoid")
        answers = [
            [{"label": labels[column], "score": score} for column, score in row]
            for row in sorted_rows(values, parameters.top_k)
        ]
        return answers[0] if alone and not nested else answers

    return made


def _single(item: TextValue) -> TextValue | None:
    """Unwrap `[text]`, the form of a single text in a batch."""
    if not isinstance(item, list):
        return item
    if len(item) != 1:
        raise ProblemError(
            422,
            "not_one_text",
            f"an entry of inputs has {len(item)} texts; expected one, as this model reads no pairs",
            param="inputs",
        )
    return item[0]


def sorted_rows(values: Floats, top: int | None = None) -> list[list[tuple[int, float]]]:
    """Return (column, value) pairs for each row of (N, L), the highest value first, at most `top` of them."""
    # Python's sort: NumPy's releases the GIL around every sort, which costs more than sorting a short row
    return [sorted(enumerate(row), key=VALUE, reverse=True)[:top] for row in values.tolist()]


# ---- ours --------------------------------------------------------------------------------------------------------


async def classify(call: Call) -> Any:
    """Labels and scores of texts."""
    body: schemas.ClassifyRequest = call.body
    # check the arguments before the model computes anything
    _columns(call.service.model, body.labels)
    _thresholds(call.service.model, body.threshold)
    scores = await call.scores(body.texts, "texts[]")
    model = scores.model  # a reload may have changed the model since the check
    columns, thresholds = _columns(model, body.labels), _thresholds(model, body.threshold)

    def made() -> Any:
        decided = model.decided(scores.probabilities, thresholds)[:, columns].tolist()
        names = [model.labels[column] for column in columns]
        rows = sorted_rows(scores.probabilities[:, columns])
        results = [
            {
                "labels": [names[column] for column, _ in row if applies[column]],
                "scores": {names[column]: score for column, score in row[: body.top_k]},
            }
            for row, applies in zip(rows, decided, strict=True)
        ]
        return {"model": model.name, "results": results}

    return made


def _columns(model: ServedModel, asked: Sequence[str] | None) -> list[int]:
    labels = model.labels
    if asked is None:
        return list(range(len(labels)))
    place = {label: column for column, label in enumerate(labels)}
    for label in asked:
        if label not in place:
            raise ProblemError(422, "unknown_label", unknown_name("label", label, labels), param="labels")
    return [place[label] for label in dict.fromkeys(asked)]


def _thresholds(model: ServedModel, asked: float | dict[str, float] | None) -> NDArray[np.float32]:
    if asked is not None and not model.multi_label:
        raise ProblemError(
            422,
            "no_thresholds",
            "threshold decides nothing here: this model gives each text its one most probable label; leave it out",
            param="threshold",
        )
    try:
        return resolve_thresholds(asked, model.labels, model.thresholds)
    except FlashError as error:
        raise ProblemError(422, "wrong_threshold", str(error), param="threshold") from None


# ---- OpenAI ------------------------------------------------------------------------------------------------------


async def moderate(call: Call) -> Any:
    """Which labels apply, in the shape of OpenAI's moderation."""
    body: schemas.ModerationRequest = call.body
    texts = _inputs(body.input, call.service.model.predictor.input_fields)
    scores = await call.scores(texts, "input[]" if texts == body.input else "input")
    model = scores.model

    def made() -> Any:
        decided = model.decided(scores.probabilities).tolist()
        kinds = {label: ["text"] for label in model.labels}
        results = [
            {
                "flagged": any(applies),
                "categories": dict(zip(model.labels, applies, strict=True)),
                "category_scores": dict(zip(model.labels, row, strict=True)),
                "category_applied_input_types": kinds,
            }
            for applies, row in zip(decided, scores.probabilities.tolist(), strict=True)
        ]
        return {"id": f"modr-{uuid4().hex}", "model": model.name, "results": results}

    return made


def _inputs(value: str | Sequence[Any], fields: Sequence[str] | None) -> list[Any]:
    """Return the texts of `input`; a list of parts is one text, or the fields of one text."""
    if isinstance(value, str):
        return [value]
    if not value or isinstance(value[0], str):
        return list(value)
    parts = []
    for index, part in enumerate(value):
        if part.type != "text" or part.text is None:
            raise ProblemError(
                422,
                "not_a_text",
                f'input[{index}] is of type {part.type!r}; expected {{"type": "text", "text": ...}}: this model reads '
                "texts only",
                param=f"input[{index}]",
            )
        parts.append(part.text)
    return [parts] if len(fields or ()) > 1 else ["\n".join(parts)]


async def models(call: Call) -> Any:
    """The one model."""
    model = call.service.model
    return {
        "object": "list",
        "data": [{"id": model.name, "object": "model", "created": model.loaded, "owned_by": "flash"}],
    }


# ---- about the server --------------------------------------------------------------------------------------------


async def health(call: Call) -> Any:
    """The server runs."""
    return {"status": "ok"}


async def alive(call: Call) -> Any:
    """The server runs, for Flash's clients."""
    return {"alive": True}


async def ready(call: Call) -> Any:
    """The server accepts requests."""
    if not call.service.ready:
        raise stopping()
    return {"status": "ok"}


async def info(call: Call) -> Any:
    """Model, labels, thresholds, limits and versions."""
    service, model = call.service, call.service.model
    thresholds = model.thresholds.tolist() if model.multi_label else [None] * len(model.labels)
    return {
        "model": model.name,
        "backbone": model.backbone,
        "multi_label": model.multi_label,
        "labels": [
            {"label": label, "threshold": threshold}
            for label, threshold in zip(model.labels, thresholds, strict=True)
        ],
        "input_fields": model.predictor.input_fields,
        "max_length": model.max_length,
        "limits": {
            "max_texts": service.options.max_texts,
            "max_text_length": service.options.max_text_length,
            "max_body": service.options.max_body,
        },
        "workers": service.options.workers,
        "version": __version__,
        "python": platform.python_version(),
    }


async def reload(call: Call) -> Any:
    """Reload the model in every worker."""
    service = call.service
    if not service.options.api_keys:
        raise ProblemError(
            403,
            "no_key",
            "a server without API keys does not reload its model over HTTP; start it with --api_key, or send it SIGHUP",
        )
    try:
        message = await service.reload()
    except FlashError as error:
        raise ProblemError(409, "reload_refused", str(error)) from None
    service.reloaded()
    others = service.options.workers - 1
    more = f"; {others} more {'worker loads' if others == 1 else 'workers load'} it now" if others else ""
    return {"status": "ok", "message": message + more}
