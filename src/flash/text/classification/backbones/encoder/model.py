"""A Hugging Face encoder as a network: from tokens to features to logits, by hub id or folder.

A checkpoint whose head has exactly the wanted labels keeps its head; any other gets pooling over its tokens and a new
head. Imports torch, but transformers only when an encoder is created.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from flash.core.errors import CheckpointError, FlashError, RemoteCodeError
from flash.core.extras import require
from flash.text.classification.backbones.encoder import architecture as parts
from flash.text.classification.backbones.encoder import loading
from flash.text.classification.backbones.encoder.hub import find_files
from flash.text.classification.backbones.encoder.weight_shapes import Shapes, build, check_counts

RAREST = 1e-4
"""Lower limit of the base rates from which a new head's bias is set; 1 minus it is the upper limit."""


@dataclass(frozen=True)
class EncoderConfig:
    """The options of an encoder beside `max_length`: plain values, which are saved in the model file."""

    pooling: Literal["auto", "mean", "cls", "max", "last", "model"] = "auto"
    """How a new head combines tokens: mean, max, cls (the first), last, model (the architecture's own head), or auto.
    `"auto"` is the pooling of a sentence-transformers folder, else `"last"` for a decoder, in which only the last token
    depends on all others, else `"mean"`. `"model"` is the complete head that transformers has for the architecture,
    required for an export to transformers; its layers start with random weights if the checkpoint lacks them."""
    dropout: float = 0.1
    """Dropout rate before a new head. At least 0 and below 1."""
    long_text: Literal["truncate", "window"] = "truncate"
    """Texts longer than max_length: truncate, or window to read them in overlapping windows."""
    window_pooling: Literal["max", "mean"] = "max"
    """Pooling of window logits: max or mean."""
    window_overlap: float = 0.25
    """Overlap of consecutive windows, as a share of max_length. From 0 to 0.9."""
    revision: str | None = None
    """Branch, tag or commit of a hub id. None for its main branch."""
    trust_remote_code: bool = False
    """Whether to run the encoder's own Python code."""

    def __post_init__(self) -> None:
        kinds = get_type_hints(EncoderConfig)
        expected = {
            "dropout": (_is_number(self.dropout) and 0 <= self.dropout < 1, "0 or more and below 1"),
            "window_overlap": (
                _is_number(self.window_overlap) and 0 <= self.window_overlap <= 0.9,
                "0 to 0.9",
            ),
            "revision": (
                self.revision is None or (isinstance(self.revision, str) and self.revision != ""),
                "None, or a branch, tag or commit",
            ),
            "trust_remote_code": (isinstance(self.trust_remote_code, bool), "True or False"),
        }
        for field in fields(self):
            value = getattr(self, field.name)
            if get_origin(kinds[field.name]) is Literal:
                words = get_args(kinds[field.name])
                expected[field.name] = (value in words, f"one of {', '.join(words)}")
            holds, wanted = expected[field.name]
            if not holds:
                raise FlashError(f"option {field.name} of an encoder is {value!r}; expected {wanted}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class Encoder(nn.Module):
    """An encoder and its head; created by `from_pretrained` and `from_content`.

    Attributes:
        labels: names of the columns of the logits.
        config: the options.
        tokenizer: the encoder's fast tokenizer, with a pad token.
        model: the model without the head; computes the features.
        head: `Linear(H, L)`, the last layer.
        kept_head: whether the head is the checkpoint's own.
        pooling: pooling before a new head, never "auto"; None with a kept head, for which the model does the pooling.
        whole: whether the model is a classifier of transformers without its last layer: pooling is None or "model".
        new_layers: names of layers, apart from the head, that are random until they are trained.
        most_tokens: maximum number of tokens, special tokens included; None if the model has no limit.
        note: one sentence on the head, for the user.
        own_labels: label names of the checkpoint's own head, in any order; empty if unknown.
        source: the hub id or folder with the encoder's own Python code; None for an architecture of transformers.
    """

    model: Any
    head: nn.Linear

    def __init__(
        self,
        model: Any,
        head: nn.Linear,
        tokenizer: Any,
        labels: Sequence[str],
        config: EncoderConfig,
        *,
        pooling: str | None,
        note: str,
        source: str | None = None,
        new_layers: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.model, self.head, self.tokenizer = model, head, tokenizer
        self.labels, self.config = tuple(labels), config
        self.pooling, self.note, self.kept_head = pooling, note, pooling is None
        self.whole, self.new_layers = pooling in (None, "model"), tuple(new_layers)
        self.dropout = nn.Dropout(0.0 if self.whole else config.dropout)
        self.most_tokens = parts.count_positions(model)
        self.source = source
        self.own_labels: tuple[str, ...] = ()
        self._may_be_empty = tokenizer.num_special_tokens_to_add() == 0

    @classmethod
    def from_pretrained(
        cls, name: str | Path, labels: Sequence[str], config: EncoderConfig = EncoderConfig()
    ) -> "Encoder":
        """Load an encoder from a folder or the hub, in evaluation mode, in float32.

        The head is kept if the checkpoint has exactly these labels, in any order; its rows are reordered to `labels`.
        A new head's weights are drawn from torch's random generator.

        Raises:
            FlashError: the files cannot be found or used.
        """
        require("transformers", "transformers")
        trust = config.trust_remote_code
        folder = find_files(name, config.revision, trust)
        part = loading.encoder_folder(folder, name)
        model_config = loading.load_config(part, name, trust)
        own_labels = tuple(model_config.id2label.values())
        tokenizer = loading.load_tokenizer(part, name, trust)
        model_config.pad_token_id = tokenizer.pad_token_id
        kept = parts.load_with_head(part, name, model_config, labels, trust)
        pooling: str | None = None
        new: Sequence[str] = ()
        if kept is not None:
            model, head = kept
            parts.run_probe(model, tokenizer, name)
            note = (
                f"the head of {str(name)!r} is kept, since it has these {len(labels)} labels: matched by name"
            )
        elif config.pooling == "model":
            model, head, new = parts.load_with_new_head(part, name, model_config, labels, trust)
            parts.run_probe(model, tokenizer, name)
            pooling = config.pooling
            also = f", in which {', '.join(new)} {'is' if len(new) == 1 else 'are'} new too" if new else ""
            why = parts.why_new(model_config, labels)
            note = f"{str(name)!r} gets a new head of its own architecture{also}: {why}"
        else:
            model = parts.load_without_head(part, name, model_config, trust)
            probe = parts.run_probe(model, tokenizer, name)
            pooling = config.pooling
            if pooling == "auto":
                found = loading.sentence_pooling(folder, name)
                pooling = found or ("last" if parts.is_causal(probe) else "mean")
            head = parts.new_head(probe.shape[-1], len(labels))
            note = f"{str(name)!r} gets a new head, with {pooling} pooling: {parts.why_new(model_config, labels)}"
        source = None if type(model).__module__.startswith("transformers.") else str(name)
        made = cls(
            model, head, tokenizer, labels, config, pooling=pooling, note=note, source=source, new_layers=new
        )
        made.own_labels = own_labels
        made.name_labels(labels)
        return made.eval()

    def name_labels(self, labels: Sequence[str]) -> None:
        """Rename the columns of the logits."""
        self.labels = tuple(labels)
        self.model.config.id2label = dict(enumerate(labels))
        self.model.config.label2id = {label: index for index, label in enumerate(labels)}

    def content(self) -> dict[str, Any]:
        """Return, as plain values, all that restores the encoder except weights (`state_dict`) and options."""
        return {
            "model": loading.config_content(self.model.config),
            "tokenizer": loading.tokenizer_content(self.tokenizer),
            "pooling": self.pooling,
            "features": self.head.in_features,
            "head_bias": self.head.bias is not None,
            "note": self.note,
            "source": self.source,
        }

    @classmethod
    def from_content(
        cls,
        content: Mapping[str, Any],
        labels: Sequence[str],
        config: EncoderConfig = EncoderConfig(),
        *,
        shapes: Shapes | None = None,
        trust_remote_code: bool = False,
    ) -> "Encoder":
        """Restore an encoder, with random weights until `load_state_dict`; reads no file.

        Args:
            content: result of the method `content`.
            labels: names of the columns of the logits.
            config: the encoder's options.
            shapes: shapes of the weights that will be loaded, by name; they are compared before anything is built.
            trust_remote_code: whether the encoder's own code may be downloaded and run again. The option of the same
                name does not count, because it comes from the model file.

        Raises:
            CheckpointError: the content is damaged.
            RemoteCodeError: the encoder needs Python code that is not trusted, or that has moved.
        """
        require("transformers", "transformers")
        from transformers import AutoModel, AutoModelForSequenceClassification

        if content.get("source") is not None and not trust_remote_code:
            raise RemoteCodeError(
                f"this model has an architecture of its own, whose Python code is in {content['source']!r}; read it, and "
                "if you trust it, load the model with trust_remote_code=True (--trust_remote_code)"
            )
        try:
            if shapes is not None:
                check_counts(content["model"], shapes)
            if content["source"] is None:
                model_config = loading.config_from(content["model"])
            else:
                model_config = _own_config(content["source"], config.revision)
                model_config.update(dict(content["model"]))
            whole = content["pooling"] in (None, "model")
            auto_class: Any = AutoModelForSequenceClassification if whole else AutoModel

            def make() -> tuple[Any, nn.Linear]:
                model = auto_class.from_config(
                    deepcopy(model_config), dtype=torch.float32, trust_remote_code=trust_remote_code
                )
                model = parts.detach_head(model, len(labels))[0] if whole else parts.encoder_part(model)
                return model, nn.Linear(content["features"], len(labels), bias=content["head_bias"])

            with loading.quiet():
                model, head = make() if shapes is None else build(make, shapes)
            tokenizer = loading.tokenizer_from(content["tokenizer"])
            if not whole and content["pooling"] not in parts.POOLINGS:
                raise ValueError(f"pooling is {content['pooling']!r}")
            return cls(
                model,
                head,
                tokenizer,
                labels,
                config,
                pooling=content["pooling"],
                note=content["note"],
                source=content["source"],
            ).eval()
        except FlashError:
            raise
        except Exception as error:  # a hostile file can cause any error
            raise CheckpointError(
                f"the model file's encoder cannot be made: {loading.first_line(error)}; copy or save the file again"
            ) from error

    def features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the input of the head, (B, H), before dropout.

        Args:
            input_ids: (B, T) int64; a text's tokens first, then padding.
            attention_mask: (B, T), nonzero for tokens.
        """
        mask = attention_mask.long()
        if (
            self._may_be_empty
        ):  # read a text without tokens as one pad token: attention to nothing would be NaN
            if input_ids.shape[1] == 0:
                input_ids = input_ids.new_full((len(input_ids), 1), self.tokenizer.pad_token_id)
                mask = torch.zeros_like(input_ids)
            mask = torch.cat([mask[:, :1] | (mask.sum(1, keepdim=True) == 0), mask[:, 1:]], dim=1)
        output = self.model(input_ids=input_ids, attention_mask=mask)
        if self.whole:
            logits: torch.Tensor = output.logits  # without its last layer, the model's logits are features
            return logits
        return parts.POOLINGS[str(self.pooling)](output.last_hidden_state, mask)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return logits (B, L); arguments as for `features`."""
        logits: torch.Tensor = self.head(self.dropout(self.features(input_ids, attention_mask)))
        return logits

    def layers(self) -> list[list[nn.Parameter]]:
        """Return all parameters, each once: embeddings, then the blocks from the first on, then the head.

        Layers between the last block and the head (a final norm, a kept head's dense layer) belong to the last block.
        """
        blocks = [list(block.parameters()) for block in parts.find_blocks(self.model)]
        in_blocks = {id(parameter) for block in blocks for parameter in block}
        embeddings: list[nn.Parameter] = []
        last = embeddings
        for name, parameter in self.model.named_parameters():
            if id(parameter) in in_blocks:
                last = blocks[-1]
            else:
                (embeddings if "embed" in name else last).append(parameter)
        return [embeddings, *blocks, list(self.head.parameters())]

    def check_strategy(self, strategy: str) -> None:
        """Check that a finetuning strategy trains all new layers.

        Raises:
            FlashError: the strategy would leave new layers apart from the head random.
        """
        if self.new_layers and strategy in ("freeze", "lora"):
            new = ", ".join(self.new_layers)
            raise FlashError(
                f"the strategy {strategy!r} would leave {new} random, which this encoder's weights do not hold and "
                "pooling='model' needs; pass strategy='no_freeze', or another pooling"
            )

    def start_bias(self, base_rates: npt.NDArray[np.floating[Any]], *, multi_label: bool = True) -> None:
        """Initialise a new head's bias from the base rates of the labels; a kept head keeps its bias.

        Args:
            base_rates: (L,) share of the texts per label, from 0 to 1.
            multi_label: sigmoid or softmax.
        """
        self.new_layers = ()  # called at the start of training, in which they are trained
        if self.kept_head or self.head.bias is None:  # GPT-2's own head has no bias
            return
        rates = np.clip(np.asarray(base_rates, np.float64), RAREST, 1 - RAREST)
        with torch.no_grad():
            odds = rates / (1 - rates) if multi_label else rates
            self.head.bias.copy_(torch.from_numpy(np.log(odds)))


def _own_config(source: str, revision: str | None) -> Any:
    """Load the configuration of an architecture whose trusted Python code comes with the encoder `source`."""
    try:
        return loading.load_config(find_files(source, revision, True), source, True)
    except FlashError as error:
        raise RemoteCodeError(
            f"this model needs the Python code that came with {source!r}, and {error}; it has to be where it was"
        ) from error
