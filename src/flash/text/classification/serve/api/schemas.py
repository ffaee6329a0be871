"""Pydantic models of the request and response bodies, for validation and for the OpenAPI document."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag
from typing_extensions import TypeAliasType

Probability = Annotated[float, Field(ge=0, le=1)]
Text = TypeAliasType("Text", str | dict[str, str | None])
"""A text: a string or, for a model that reads several fields, an object. The OpenAPI document shows the model's form."""
TextInList = TypeAliasType("TextInList", Text | list[str | None])
"""A text in a list of texts: it may also be a list of its fields in order."""


class Model(BaseModel):
    """Base of the schemas; strict, so that a number is not accepted as a text."""

    model_config = ConfigDict(strict=True, frozen=True)


# ---- our own ----------------------------------------------------------------------------------------------------


class ClassifyRequest(Model):
    """Texts to classify."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"texts": ["You are wonderful", "You absolute turnip"], "top_k": 3}]},
    )

    texts: list[TextInList] = Field(
        description="The texts; the results have the same order. For a model that reads several fields (see "
        "input_fields of /info), a text is an object with these fields, or a list of their values in order."
    )
    threshold: Probability | dict[str, Probability] | None = Field(
        default=None,
        description="The probability from which on a label applies, instead of the model's own thresholds: one number, "
        "or one per named label.",
    )
    top_k: int | None = Field(
        default=None, ge=1, description="Return the scores of the k most probable labels only."
    )
    labels: list[str] | None = Field(default=None, min_length=1, description="Only these labels.")


class ClassifyResult(Model):
    """The result of one text."""

    labels: list[str] = Field(description="The labels that apply, the most probable first.")
    scores: dict[str, Probability] = Field(description="Probability by label, the highest first.")


class ClassifyResponse(Model):
    """One result per text."""

    model: str
    results: list[ClassifyResult]


# ---- Lightning Flash --------------------------------------------------------------------------------------------


class FlashInputs(Model):
    """The texts in a request of Flash's clients."""

    data: Text | list[TextInList]


class FlashPayload(Model):
    """Envelope of `FlashInputs`."""

    inputs: FlashInputs


class FlashRequest(Model):
    """The request of Flash's clients."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"session": "UUID", "payload": {"inputs": {"data": "You absolute turnip"}}}]
        }
    )

    session: str | None = Field(default=None, description="Returned unchanged; generated if missing.")
    payload: FlashPayload


class FlashResult(Model):
    """The outputs in a response to Flash's clients."""

    outputs: Any = Field(
        description="For one text, by default, a dict of label to probability; for a list of texts, a list of these."
    )


class FlashResponse(Model):
    """The response to Flash's clients."""

    session: str
    result: FlashResult


class Alive(Model):
    """The response of a running server."""

    alive: bool = True


# ---- Text Embeddings Inference and Hugging Face's inference -------------------------------------------------------


class InferenceParameters(Model):
    """The parameters of Hugging Face's client."""

    top_k: int | None = Field(default=None, ge=1)
    function_to_apply: Literal["sigmoid", "softmax", "none"] | None = Field(
        default=None,
        description="Function from logits to scores; by default the one that the model was trained with.",
    )


class InferenceRequest(Model):
    """The request of clients of Text Embeddings Inference and of Hugging Face's inference."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "You absolute turnip"}]})

    inputs: Text | list[TextInList] = Field(
        description="A text or a list of texts; [[text], [text]] is a list of two texts. For a model that reads several "
        "fields, a text is an object with these fields or, in a list of texts, a list of their values in order."
    )
    raw_scores: bool = Field(default=False, description="Return logits instead of probabilities.")
    truncate: bool | None = Field(
        default=None, description="false: a text longer than max_length is refused instead of truncated."
    )
    parameters: InferenceParameters | None = None


class LabelScore(Model):
    """A label and its score."""

    label: str
    score: float


def _kind_of(body: Any) -> str:
    known = body if isinstance(body, dict) else {}
    return "flash" if "payload" in known or isinstance(body, FlashRequest) else "inference"


PredictRequest = Annotated[
    Annotated[FlashRequest, Tag("flash")] | Annotated[InferenceRequest, Tag("inference")],
    Discriminator(_kind_of),
]
"""Flash's request if the body has `payload`, otherwise an inference request."""

PredictResponse = FlashResponse | list[LabelScore] | list[list[LabelScore]]


# ---- OpenAI's moderation ------------------------------------------------------------------------------------------


class ModerationPart(Model):
    """A part of one input."""

    type: str = Field(description='Only "text" is supported.')
    text: str | None = None


class ModerationRequest(Model):
    """The request of clients of OpenAI's moderation."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"input": ["You absolute turnip"]}]})

    input: str | list[str] | list[ModerationPart] = Field(
        description="A text, a list of texts, or the parts of one text, which are joined by line ends; for a model that "
        "reads several fields, one part per field, in order."
    )
    model: str | None = Field(
        default=None, description="Ignored: there is one model, and the response names it."
    )


class ModerationResult(Model):
    """The result of one text."""

    flagged: bool = Field(description="Whether any label applies.")
    categories: dict[str, bool] = Field(description="Whether a label applies, by the model's thresholds.")
    category_scores: dict[str, Probability]
    category_applied_input_types: dict[str, list[Literal["text"]]]


class ModerationResponse(Model):
    """The response in OpenAI's shape."""

    id: str
    model: str
    results: list[ModerationResult]


class OneModel(Model):
    """A model in OpenAI's shape."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="Time of loading, in seconds since 1970.")
    owned_by: str = "flash"


class ModelList(Model):
    """The list of models, with one entry."""

    object: Literal["list"] = "list"
    data: list[OneModel]


# ---- about the server ---------------------------------------------------------------------------------------------


class Status(Model):
    """The server's status."""

    status: Literal["ok", "stopping"]


class InfoLabel(Model):
    """A label and its threshold."""

    label: str
    threshold: Probability | None = Field(
        description="The probability from which on the label applies; null if each text gets its most probable label."
    )


class Limits(Model):
    """The limits of a request."""

    max_texts: int = Field(description="Maximum number of texts.")
    max_text_length: int = Field(description="Maximum number of characters per text.")
    max_body: int = Field(description="Maximum size of the body in bytes.")


class Info(Model):
    """The model, its labels, the limits and the versions."""

    model: str
    backbone: str = Field(description='"linear", "encoder" or "onnx".')
    multi_label: bool = Field(description="true: any number of labels applies to a text; false: exactly one.")
    labels: list[InfoLabel]
    input_fields: list[str] | None = Field(
        description="The text columns that the model was trained on; with several, each text has these fields."
    )
    max_length: int | None = Field(description="Number of tokens that are read per text; null for all.")
    limits: Limits
    workers: int
    version: str = Field(description="Version of the library.")
    python: str


class Reloaded(Model):
    """The response after the model was reloaded."""

    status: Literal["ok"] = "ok"
    message: str


class Problem(Model):
    """An error."""

    message: str = Field(description="Error message for people.")
    type: str
    param: str | None = None
    code: str = Field(description="Error code for programs.")


class ProblemResponse(Model):
    """An error response."""

    error: Problem


class InferenceProblem(Model):
    """An error response, for Flash's and Hugging Face's clients."""

    error: str
    error_type: str
