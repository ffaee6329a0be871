"""The floor under `encoder.py`: how many operations an encoder needs, how fast the machine multiplies, where time goes.

Operations are additions and multiplications, counted from the encoder's configuration: its linear layers and the two
products of attention, and nothing else (embeddings, norms, activations, the pooled vector's layers: about a hundredth).
A backward pass takes twice those of a forward pass. Imports nothing heavy at the top.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

Numbers: TypeAlias = dict[str, float]

BATCH, LENGTH = 32, 128
RATE_SECONDS = 1.0
MATRIX = {"cpu": 1024, "cuda": 8192}
PROFILED_ROWS = 256

GROUPS: dict[str, tuple[str, ...]] = {  # of torch's operators, by their names without "aten::"
    "matrix multiplies": (
        "mm",
        "addmm",
        "bmm",
        "baddbmm",
        "linear",
        "matmul",
        "_addmm_activation",
        "mkldnn_linear*",
        "mkldnn::_linear*",
    ),
    "fused attention": (
        "*scaled_dot_product*",
        "_flash_attention*",
        "_efficient_attention*",
        "_cudnn_attention*",
    ),
    "norms, activations": ("*layer_norm*", "gelu*", "tanh*", "*softmax*"),
    "dropout": ("*dropout*", "bernoulli*", "div_", "mul"),
    "sums": ("add", "add_", "sum"),
    "copies": ("copy_", "_to_copy", "clone", "cat", "fill_", "zero_", "new_zeros", "empty*"),
    "embeddings": ("*embedding*", "index_select", "index", "gather"),
    "optimiser": (
        "lerp_",
        "addcmul_",
        "addcdiv_",
        "sqrt",
        "mul_",
        "_foreach_*",
        "_fused_*",
        "linalg_vector_norm",
    ),
}


@dataclass(frozen=True)
class Shape:
    """An encoder's layers, and the widths of their states and of their feed-forward parts."""

    layers: int
    hidden: int
    inner: int

    @classmethod
    def of(cls, folder: str) -> "Shape":
        """That of a folder of transformers."""
        config = json.loads((Path(folder) / "config.json").read_text())
        return cls(config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"])

    @property
    def linear(self) -> float:
        """Operations of a token in the linear layers, forward: four of H x H and two of H x I a block."""
        return 2.0 * self.layers * (4 * self.hidden**2 + 2 * self.hidden * self.inner)

    @property
    def attention(self) -> float:
        """Operations of a token in attention, forward, for each token of its row."""
        return 2.0 * self.layers * 2 * self.hidden

    def operations(self, lengths: np.ndarray) -> float:
        """Of a forward pass over rows of these lengths."""
        return float((lengths * (self.linear + self.attention * lengths.astype(float))).sum())


# ---- what is computed ----------------------------------------------------------------------------------------------

Order: TypeAlias = Callable[[np.ndarray, list[str]], list[np.ndarray]]


def in_order(order: np.ndarray) -> list[np.ndarray]:
    """Batches of rows in this order."""
    return [order[start : start + BATCH] for start in range(0, len(order), BATCH)]


def by_length(shuffle: bool) -> Order:
    """Ours."""

    def batches(lengths: np.ndarray, texts: list[str]) -> list[np.ndarray]:
        from flash.text.classification.batching import length_batches

        return length_batches(lengths, BATCH, shuffle=shuffle, seed=0, epoch=0)

    return batches


BATCHES: dict[str, Order] = {
    "by length, shuffled": by_length(shuffle=True),
    "by length": by_length(shuffle=False),
    "random": lambda lengths, texts: in_order(np.random.default_rng(0).permutation(len(texts))),
    "as given": lambda lengths, texts: in_order(np.arange(len(texts))),
    "by characters": lambda lengths, texts: in_order(
        np.argsort([-len(text) for text in texts], kind="stable")
    ),
}


def count_work(encoder: str, texts: list[str], batches: str, passes: int) -> Numbers:
    """Rows, tokens, the share of a batch that is padding, and operations: those for tokens, and those executed.

    Args:
        encoder: a folder of transformers.
        texts: the rows.
        batches: one of `BATCHES`; of "random", those of one order.
        passes: 1 for a forward pass, 3 with the backward pass.
    """
    import pyarrow as pa
    from transformers import AutoTokenizer

    from flash.text.classification.batching import tokenize

    tokenizer = AutoTokenizer.from_pretrained(encoder)
    lengths = tokenize(pa.array(texts, pa.large_string()), tokenizer, max_length=LENGTH).lengths
    padded = np.empty_like(lengths)
    for rows in BATCHES[batches](lengths, texts):
        padded[rows] = lengths[rows].max()
    shape = Shape.of(encoder)
    return {
        "rows": len(texts),
        "tokens": int(lengths.sum()),
        "padding": float(1 - lengths.sum() / padded.sum()),
        "useful": passes * shape.operations(lengths),
        "executed": passes * shape.operations(padded),
    }


def operations_sentence(encoder: str, work: Numbers) -> str:
    """What was counted, in words, for rows of the mean length and of the mean padded length of `work`."""
    shape = Shape.of(encoder)
    mean = work["tokens"] / work["rows"]
    padded = mean / (1 - work["padding"])
    each = [
        f"{(shape.linear + shape.attention * length) * length / 1e9:.2f} GFLOP for a row of {length:.1f} tokens ({what})"
        for length, what in ((mean, "the mean"), (padded, "with padding"))
    ]
    return (
        f"Forward, a token takes {shape.linear / 1e6:.1f} MFLOP in linear layers and {shape.attention / 1e3:.1f} kFLOP in "
        f"attention for each token of its row: {', '.join(each)}; training takes three times that."
    )


# ---- how fast the machine is, and where time goes ------------------------------------------------------------------


def measure_rates(device: str) -> dict[str, Any]:
    """Operations a second of `torch.matmul` in float32 and bfloat16, and what computes."""
    import torch
    import transformers

    rates = {
        name: matmul_rate(torch.zeros(MATRIX[device], MATRIX[device], dtype=dtype, device=device) + 0.5)
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }
    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return {**rates, **versions, "size": MATRIX[device], "threads": torch.get_num_threads(), "gpu": gpu}


def matmul_rate(matrix: Any) -> float:
    """Operations a second of a square matrix times itself."""
    import torch

    out = torch.empty_like(matrix)
    rounds, batch = 0, 20 if matrix.is_cuda else 1
    for _ in range(3):
        torch.matmul(matrix, matrix, out=out)
    start = time.perf_counter()
    while (seconds := time.perf_counter() - start) < RATE_SECONDS:
        for _ in range(batch):
            torch.matmul(matrix, matrix, out=out)
        if matrix.is_cuda:
            torch.cuda.synchronize()
        rounds += batch
    return float(rounds * 2.0 * len(matrix) ** 3 / seconds)


def profile_training(case: Any) -> Numbers:
    """Shares of the time of an epoch of ours over a few rows."""
    from encoder_training import WARM_ROWS, fit_flash

    fit_flash(case, WARM_ROWS)
    return shares_of_time(
        case.device, lambda profiler: fit_flash(case, PROFILED_ROWS, watch=profiler)[-1].wall
    )


def profile_prediction(case: Any) -> Numbers:
    """Shares of the time of a prediction of ours."""
    from encoder_prediction import checkpoint, move
    from encoder_training import Clock

    from flash.text.classification.predictor import Predictor

    predictor = Predictor.load(checkpoint(case), precision=case.precision)
    move(case, predictor)
    texts, _ = case.read("measure", PROFILED_ROWS)
    predictor.probabilities(texts)

    def predict(profiler: Any) -> float:
        with profiler, Clock(case.device) as clock:
            predictor.probabilities(texts)
        return clock.wall

    return shares_of_time(case.device, predict)


def shares_of_time(device: str, work: Callable[[Any], float]) -> Numbers:
    """What part of the seconds that `work` answers each of `GROUPS` took: of the processor, or of a GPU's kernels.

    Args:
        device: cpu or cuda.
        work: enters the profiler that it is given.
    """
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
    profiler = profile(activities=activities)
    seconds = work(profiler)
    shares = dict.fromkeys(GROUPS, 0.0)
    for event in profiler.key_averages():
        if event.device_type != DeviceType.CPU:
            continue  # the kernels, which their operators count too
        spent = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        name = event.key.removeprefix("aten::")
        group = next((g for g, names in GROUPS.items() if any(fnmatchcase(name, n) for n in names)), None)
        if group is not None:
            shares[group] += spent / 1e6 / seconds
    return {**shares, "the rest": 1 - sum(shares.values())}
