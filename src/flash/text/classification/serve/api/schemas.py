"""The bodies of requests and answers, as Pydantic models: what is checked, and what the OpenAPI document says."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag
from typing_extensions import TypeAliasType

Probability = Annotated[float, Field(ge=0, le=1)]
Text = TypeAliasType("Text", str | dict[str, str | None])
"""A text; of a model that reads several fields, an object with these. The OpenAPI document has the model's own form."""
TextInList = TypeAliasType("TextInList", Text | list[str | None])
"""The same where it stands in a list: there it may also be a list of the fields' texts in order."""


class Model(BaseModel):
    """Strict: a number is no text."""

    model_config = ConfigDict(strict=True, frozen=True)


# ---- our own ----------------------------------------------------------------------------------------------------


class ClassifyRequest(Model):
    """Texts to classify."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"texts": ["You are wonderful", "You absolute turnip"], "top_k": 3}]},
    )

    texts: list[TextInList] = Field(
        description="The texts; their order is that of the results. Of a model that reads several fields (see "
        "input_fields of /info) each is an object with these, or a list of their texts in order."
    )
    threshold: Probability | dict[str, Probability] | None = Field(
        default=None,
        description="From which probability on a label applies, in place of the model's own thresholds: one number, or "
        "one for each label named.",
    )
    top_k: int | None = Field(default=None, ge=1, description="Only the scores of so many labels a text.")
    labels: list[str] | None = Field(default=None, min_length=1, description="Only these labels.")


class ClassifyResult(Model):
    """What applies to one text."""

    labels: list[str] = Field(description="The labels that apply, the most probable first.")
    scores: dict[str, Probability] = Field(description="Probability by label, the highest first.")


class ClassifyResponse(Model):
    """One result a text."""

    model: str
    results: list[ClassifyResult]


# ---- Lightning Flash --------------------------------------------------------------------------------------------


class FlashInputs(Model):
    """Where Flash's clients put a text."""

    data: Text | list[TextInList]


class FlashPayload(Model):
    """Envelope of `FlashInputs`."""

    inputs: FlashInputs


class FlashRequest(Model):
    """What Flash's clients send."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"session": "UUID", "payload": {"inputs": {"data": "You absolute turnip"}}}]
        }
    )

    session: str | None = Field(default=None, description="Comes back as it is; made up if it is not there.")
    payload: FlashPayload


class FlashResult(Model):
    """What Flash's clients read."""

    outputs: Any = Field(
        description="Of one text by default a dict of label to probability; of a list of texts, a list of them."
    )


class FlashResponse(Model):
    """The answer to Flash's clients."""

    session: str
    result: FlashResult


class Alive(Model):
    """The answer of a server that runs."""

    alive: bool = True


# ---- Text Embeddings Inference and Hugging Face's inference -------------------------------------------------------


class InferenceParameters(Model):
    """What Hugging Face's client may ask for."""

    top_k: int | None = Field(default=None, ge=1)
    function_to_apply: Literal["sigmoid", "softmax", "none"] | None = Field(
        default=None,
        description="What makes scores of logits; unless given, what the model was trained with.",
    )


class InferenceRequest(Model):
    """What clients of Text Embeddings Inference and of Hugging Face's inference send."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "You absolute turnip"}]})

    inputs: Text | list[TextInList] = Field(
        description="A text, or texts; [[text], [text]] is one a text. Of a model that reads several fields a text is an "
        "object with these, or in a list of texts a list of theirs in order."
    )
    raw_scores: bool = Field(default=False, description="Logits in place of probabilities.")
    truncate: bool | None = Field(
        default=None, description="false: a text that the model would cut is refused, in place of cut."
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
"""Either: told apart by `payload`."""

PredictResponse = FlashResponse | list[LabelScore] | list[list[LabelScore]]


# ---- OpenAI's moderation ------------------------------------------------------------------------------------------


class ModerationPart(Model):
    """A part of one input."""

    type: str = Field(description='"text"; nothing else can be read.')
    text: str | None = None


class ModerationRequest(Model):
    """What clients of OpenAI's moderation send."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"input": ["You absolute turnip"]}]})

    input: str | list[str] | list[ModerationPart] = Field(
        description="A text, or texts, or the parts of one text, which are joined by line ends; a model that reads "
        "several fields takes one part for each, in order."
    )
    model: str | None = Field(
        default=None, description="Any name: there is one model, and the answer names it."
    )


class ModerationResult(Model):
    """What applies to one text."""

    flagged: bool = Field(description="Whether any label applies.")
    categories: dict[str, bool] = Field(description="Whether a label applies, by the model's thresholds.")
    category_scores: dict[str, Probability]
    category_applied_input_types: dict[str, list[Literal["text"]]]


class ModerationResponse(Model):
    """The answer in OpenAI's shape."""

    id: str
    model: str
    results: list[ModerationResult]


class OneModel(Model):
    """A model in OpenAI's shape."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="When it was loaded, in seconds since 1970.")
    owned_by: str = "flash"


class ModelList(Model):
    """The models there are: one."""

    object: Literal["list"] = "list"
    data: list[OneModel]


# ---- about the server ---------------------------------------------------------------------------------------------


class Status(Model):
    """Alive, or ready."""

    status: Literal["ok", "stopping"]


class InfoLabel(Model):
    """A label."""

    label: str
    threshold: Probability | None = Field(
        description="From which probability on it applies; none where each text has its most probable label."
    )


class Limits(Model):
    """What a request may be."""

    max_texts: int = Field(description="Texts.")
    max_text_length: int = Field(description="Characters of a text.")
    max_body: int = Field(description="Bytes.")


class Info(Model):
    """What answers here."""

    model: str
    backbone: str = Field(description='"linear", "encoder" or "onnx".')
    multi_label: bool = Field(description="Whether any number of labels applies to a text, or exactly one.")
    labels: list[InfoLabel]
    input_fields: list[str] | None = Field(
        description="The columns of texts that it was trained on; with several, each text has these fields."
    )
    max_length: int | None = Field(description="Tokens of a text that are read; null for all.")
    limits: Limits
    workers: int
    version: str = Field(description="Of the library.")
    python: str


class Reloaded(Model):
    """A model was exchanged."""

    status: Literal["ok"] = "ok"
    message: str


class Problem(Model):
    """Why there is no answer."""

    message: str = Field(description="A sentence for people.")
    type: str
    param: str | None = None
    code: str = Field(description="A word for programs.")


class ProblemResponse(Model):
    """An error response."""

    error: Problem


class InferenceProblem(Model):
    """An error response, for Flash's and Hugging Face's clients."""

    error: str
    error_type: str
