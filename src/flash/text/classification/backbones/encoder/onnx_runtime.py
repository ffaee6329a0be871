"""An exported encoder as a backbone: predicts by onnxruntime and the tokenizer alone.

Imports neither torch nor transformers, and onnxruntime only when a folder is loaded; of the project the errors,
`extras`, the batches and what a model file holds.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flash.core.errors import CheckpointError
from flash.core.extras import require
from flash.core.threads import in_threads
from flash.text.classification.backbones.linear.features import Texts
from flash.text.classification.batching import cheapest_batches, tokenize
from flash.text.classification.checkpoint.export_folder import damaged

GRAPH, TOKENIZER = "model.onnx", "tokenizer.json"
"""The files of an ONNX export beside its settings: the network, and its tokenizer."""
INPUTS, OUTPUT = ("input_ids", "attention_mask"), "logits"
PREDICT_ROWS = 32
"""Rows a batch when texts are scored, at most."""
OVERHEAD = 8
"""What a run of onnxruntime costs beside its tokens, in tokens: measured with MiniLM in 8 bits."""
SPIN, SPINS_BRIEFLY = 20, (1, 26)
"""Microseconds that threads look for work before they sleep, and the first onnxruntime that can be told so."""
SLOWER = ["SkipLayerNormFusion"]
"""What onnxruntime would make of a graph that takes longer: its sum and norm in one take four times as long as both."""
MOST_TWICE = 2**30
"""Bytes of an export up to which its network may be in memory a second time."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ExportedTokenizer:
    """What `batching.tokenize` asks of a tokenizer.

    Attributes:
        backend_tokenizer: of the package tokenizers.
        pad_token_id: the number of the token that batches are padded with.
        truncation_side: which end of a long text is cut.
        all_special_tokens: tokens that are one token of any tokenizer.
        between: the ids between two fields of a text; None in an older export, whose texts have one.
        sep_token_id: none that is known here.
        eos_token_id: the same.
    """

    backend_tokenizer: Any
    pad_token_id: int
    truncation_side: str
    all_special_tokens: list[str]
    between: list[int] | None = None
    sep_token_id: int | None = None
    eos_token_id: int | None = None


class OnnxBackbone:
    """An exported encoder.

    Args:
        session: of onnxruntime, with the inputs `INPUTS` (B, T) int64 and the output `OUTPUT` (B, L) float32.
        tokenizer: the encoder's.
        settings: what `read_settings` gave.
        another: makes a session of the same network that computes in one thread; None for none.
    """

    def __init__(
        self,
        session: Any,
        tokenizer: ExportedTokenizer,
        settings: Mapping[str, Any],
        another: Callable[[], Any] | None = None,
    ) -> None:
        self.session, self.tokenizer = session, tokenizer
        self._another = another
        self._single: Any = None
        self.labels, self.max_length = settings["labels"], settings["max_length"]
        self.options = settings["backbone_options"]

    @classmethod
    def load(cls, folder: str | Path, settings: Mapping[str, Any]) -> "OnnxBackbone":
        """The backbone of a folder that `export` wrote.

        Raises:
            CheckpointError: its network or its tokenizer is missing, damaged, or another model's.
            MissingExtraError: onnxruntime or tokenizers is not installed.
        """
        runtime, tokenizers = require("onnxruntime", "onnx"), require("tokenizers", "onnx")
        runtime.disable_telemetry_events()  # all but that it was imported, for which the commands have a variable
        folder = Path(folder)
        for name in (GRAPH, TOKENIZER):
            if not (folder / name).is_file():
                raise damaged(folder, f"it lacks {name}")
        graph = (folder / GRAPH).resolve()
        try:
            session = _session(runtime, graph, 0)
        except Exception as error:  # of a kind of its own for each thing that can be wrong with a graph
            raise damaged(folder, f"onnxruntime cannot read its {GRAPH} ({first_words(error)})") from error
        found = (
            sorted(value.name for value in session.get_inputs()),
            [(value.name, value.shape[-1:]) for value in session.get_outputs()],
        )
        if found != (sorted(INPUTS), [(OUTPUT, [len(settings["labels"])])]):
            raise damaged(
                folder, f"its {GRAPH} is another model's, not of these {len(settings['labels'])} labels"
            )
        try:
            backend = tokenizers.Tokenizer.from_file(str(folder / TOKENIZER))
        except Exception as error:  # the package raises nothing more precise
            raise damaged(folder, f"its {TOKENIZER} cannot be read ({first_words(error)})") from error
        stored = settings["tokenizer"]
        tokenizer = ExportedTokenizer(
            backend,
            stored["pad_id"],
            stored["truncation_side"],
            stored["special_tokens"],
            stored.get("between"),
        )
        weighs = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        another = (
            partial(_session, runtime, graph, 1) if weighs <= MOST_TWICE and (cpu_count() or 1) > 1 else None
        )
        return cls(session, tokenizer, settings, another)

    def logits(self, texts: Texts) -> Floats:
        """(N, L) float32, uncalibrated.

        Raises:
            CheckpointError: the network cannot compute what its settings ask for.
        """
        tokens = tokenize(
            texts.combine_chunks() if hasattr(texts, "combine_chunks") else texts,
            self.tokenizer,
            max_length=self.max_length,
            long_text=self.options["long_text"],
            overlap=self.options["window_overlap"],
        )
        logits = np.empty((len(tokens), len(self.labels)), np.float32)
        batches = cheapest_batches(tokens.lengths, PREDICT_ROWS, OVERHEAD)
        session, threads = self._session_for(len(batches))

        def fill(rows: npt.NDArray[np.int64]) -> None:
            batch = dict(zip(INPUTS, tokens.arrays(rows), strict=True))
            try:
                logits[rows] = session.run([OUTPUT], batch)[0]
            except Exception as error:  # as above
                raise CheckpointError(
                    f"onnxruntime cannot compute the exported model ({first_words(error)}); export it again"
                ) from error

        in_threads(threads, fill, batches)
        return tokens.pooled(logits, self.options["window_pooling"])

    def _session_for(self, batches: int) -> tuple[Any, int | None]:
        """What computes so many batches, and how many of them at a time; None for one a processor.

        One batch is divided among the processors. Several are not: each has one, as threads that share a small batch
        wait for each other (thirty texts of any length took a quarter longer).
        """
        if batches < 2 or self._another is None:
            return self.session, 1
        if self._single is None:
            self._single = self._another()
        return self._single, None


def _session(runtime: Any, graph: Path, threads: int) -> Any:
    """A session of a network on so many threads; 0 for one a processor."""
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors; its warnings are of how it runs a graph
    options.intra_op_num_threads = threads
    # Threads that look for work a little before they sleep let a text take a quarter less time. Threads that look for
    # it without an end keep processors busy: where others compute too, a text took three times as long, a batch nearly
    # twice.
    spins = _version(runtime) >= SPINS_BRIEFLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spins else "0")
    if spins:
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN))
    return runtime.InferenceSession(
        str(graph), options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOWER
    )


def _version(runtime: Any) -> tuple[int, ...]:
    """Its first two numbers."""
    return tuple(map(int, re.findall(r"\d+", runtime.__version__)[:2]))


def first_words(error: BaseException) -> str:
    """The first line of an error's words without colours, or its kind if it has none."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines()
    return next((line.strip() for line in lines if line.strip()), type(error).__name__)[:200]
