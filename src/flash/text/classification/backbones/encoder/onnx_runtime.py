"""An exported encoder as a backbone: predicts with onnxruntime and tokenizers only.

Imports neither torch nor transformers, and onnxruntime only when a folder is loaded.
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
"""The files of an ONNX export beside its settings: the network and its tokenizer."""
INPUTS, OUTPUT = ("input_ids", "attention_mask"), "logits"
PREDICT_ROWS = 32
"""Maximum number of rows per batch."""
OVERHEAD = 8
"""Fixed cost of a run of onnxruntime, in tokens, measured with MiniLM in int8."""
SPIN, SPINS_BRIEFLY = 20, (1, 26)
"""Microseconds for which idle threads spin before they sleep, and the first onnxruntime with that option."""
SLOWER = ["SkipLayerNormFusion"]
"""Graph optimizations that make it slower: the fused sum and norm takes four times as long as both separately."""
MOST_TWICE = 2**30
"""Maximum size of an export, in bytes, of which a second copy may be loaded into memory."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ExportedTokenizer:
    """A tokenizer with the attributes that `batching.tokenize` needs.

    Attributes:
        backend_tokenizer: a tokenizer of the package tokenizers.
        pad_token_id: id of the pad token.
        truncation_side: the end at which a long text is truncated.
        all_special_tokens: the special tokens.
        between: token ids between two fields of a text; None in an older export, whose texts have one field.
        sep_token_id: always None.
        eos_token_id: always None.
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
        session: session of onnxruntime, with the inputs `INPUTS` (B, T) int64 and the output `OUTPUT` (B, L) float32.
        tokenizer: the encoder's tokenizer.
        settings: result of `read_settings`.
        another: creates a single-threaded session of the same network; None if there should be none.
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
        """Load a folder that `export` wrote.

        Raises:
            CheckpointError: the network or the tokenizer is missing, damaged, or belongs to another model.
            MissingExtraError: onnxruntime or tokenizers is not installed.
        """
        runtime, tokenizers = require("onnxruntime", "onnx"), require("tokenizers", "onnx")
        runtime.disable_telemetry_events()  # except the import itself, for which the commands set a variable
        folder = Path(folder)
        for name in (GRAPH, TOKENIZER):
            if not (folder / name).is_file():
                raise damaged(folder, f"it lacks {name}")
        graph = (folder / GRAPH).resolve()
        try:
            session = _session(runtime, graph, 0)
        except Exception as error:  # onnxruntime has an exception class for each kind of problem
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
        """Return (N, L) float32 logits, uncalibrated.

        Raises:
            CheckpointError: onnxruntime cannot compute the network.
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
        """Return the session for a number of batches, and how many to compute in parallel; None for one per processor.

        A single batch is computed by all processors together. Several batches are computed by one processor each,
        because threads that share a small batch wait for each other (thirty texts took a quarter longer).
        """
        if batches < 2 or self._another is None:
            return self.session, 1
        if self._single is None:
            self._single = self._another()
        return self._single, None


def _session(runtime: Any, graph: Path, threads: int) -> Any:
    """Create a session with a number of threads; 0 for one per processor."""
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors only; warnings are about how a graph is run
    options.intra_op_num_threads = threads
    # Spinning briefly before sleeping made a text a quarter faster. Spinning without a limit keeps processors busy: with
    # other load on the machine, a text took three times as long, a batch nearly twice.
    spins = _version(runtime) >= SPINS_BRIEFLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spins else "0")
    if spins:
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN))
    return runtime.InferenceSession(
        str(graph), options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOWER
    )


def _version(runtime: Any) -> tuple[int, ...]:
    """Return major and minor version."""
    return tuple(map(int, re.findall(r"\d+", runtime.__version__)[:2]))


def first_words(error: BaseException) -> str:
    """Return the first line of an error's message without colour codes, or its type if it has none."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines()
    return next((line.strip() for line in lines if line.strip()), type(error).__name__)[:200]
