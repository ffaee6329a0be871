"""Choose the fastest floating-point precision: measured for a CPU, known for a GPU.

CPU flags are not enough: some CPUs announce bfloat16 and multiply its matrices more slowly than float32. Imports only
errors of the project, and torch lazily.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from flash.core.errors import FlashError, unknown_name

OF_PREDICTION = {
    "auto": None,
    "32": False,
    "bf16": True,
    "32-true": False,
    "bf16-mixed": True,
    "bf16-true": True,
}
"""Precision names, including Lightning's, and whether they mean bfloat16; None if it is to be measured."""


def check_precision(precision: str | int) -> str:
    """Check the name of a precision for prediction.

    Raises:
        FlashError: an unknown name.
    """
    if str(precision) not in OF_PREDICTION:
        raise FlashError(unknown_name("precision", str(precision), OF_PREDICTION))
    return str(precision)


@dataclass(frozen=True)
class Choice:
    """A precision and the reason for it.

    Attributes:
        bfloat16: whether matrices are multiplied in bfloat16, otherwise in float32.
        reason: completes a sentence that starts with the precision.
        measured: whether a measurement decided.
    """

    bfloat16: bool
    reason: str
    measured: bool = False

    @property
    def sentence(self) -> str:
        """The message about the precision of a prediction."""
        name = "bfloat16" if self.bfloat16 else "float32"
        return f"the encoder predicts in {name}, as {self.reason}; precision='32' always gives float32"


FASTER = 1.2
"""Minimum speedup of bfloat16 over float32 that justifies its rounding."""
MOST_MATRICES = 3  # number of shapes measured; the others have few multiplications
SLENDER = 16  # a larger ratio of rows to columns is an embedding table, which is not multiplied
ROUNDS = 5  # per precision, alternating, so that other load slows both
OPERATIONS = 1e8  # multiplications per product; some hundred microseconds
HOPELESS = 1.5  # stop if bfloat16 is this many times as slow after two rounds

Matrices = Mapping[tuple[int, int], int]
_measured: dict[tuple[Any, ...], float] = {}  # cache of speedups by shapes and number of threads


def matrices_of(shapes: Iterable[Sequence[int]]) -> dict[tuple[int, int], int]:
    """The weight shapes with the most multiplications, and the number of weights of each.

    >>> matrices_of([(30522, 384), (384, 384), (384, 384), (1536, 384), (384,)])
    {(384, 384): 2, (1536, 384): 1}

    Args:
        shapes: of all weights of a network, including embeddings and biases.
    """
    counts = Counter(
        (int(shape[0]), int(shape[1]))
        for shape in shapes
        if len(shape) == 2 and 0 < max(shape) <= SLENDER * min(shape)
    )
    costly = sorted(counts.items(), key=lambda item: (-item[1] * item[0][0] * item[0][1], item[0]))
    return dict(sorted(costly[:MOST_MATRICES]))


def measured_choice(matrices: Matrices) -> Choice:
    """The precision for matrices of these shapes on a CPU; measured once per process, in some milliseconds.

    Args:
        matrices: from `matrices_of`.
    """
    if not matrices:
        return Choice(False, "it has no large matrices")
    speedup = measured_speedup(matrices)
    found = f"{speedup:.2f} times as fast as float32 here, measured at the encoder's shapes"
    if speedup >= FASTER:
        return Choice(True, f"bfloat16 is {found}", measured=True)
    return Choice(False, f"bfloat16 is {found}, and {FASTER} is wanted", measured=True)


def measured_speedup(matrices: Matrices) -> float:
    """The speedup of bfloat16 over float32 on this CPU, over all matrices."""
    import torch

    key = (*matrices.items(), torch.get_num_threads())
    if key not in _measured:
        with torch.inference_mode():
            times = [(count, _product_times(*shape)) for shape, count in matrices.items()]
        single, half = (sum(count * pair[i] for count, pair in times) for i in (0, 1))
        _measured[key] = single / half
    return _measured[key]


def _product_times(outputs: int, inputs: int) -> tuple[float, float]:
    """Minimum seconds of the product of a batch and one weight, in float32 and in bfloat16."""
    import torch

    rows = int(min(1024, max(32, OPERATIONS // (outputs * inputs))))
    pairs = [  # ones, because random numbers would advance the user's generator
        (torch.ones(rows, inputs, dtype=kind), torch.ones(outputs, inputs, dtype=kind))
        for kind in (torch.float32, torch.bfloat16)
    ]
    best = [float("inf"), float("inf")]
    for number in range(ROUNDS + 1):
        for i, (texts, weight) in enumerate(pairs):
            start = perf_counter()
            torch.nn.functional.linear(texts, weight)
            if number:  # the first product is a warm-up
                best[i] = min(best[i], perf_counter() - start)
        if number > 1 and best[1] > HOPELESS * best[0]:
            break
    return best[0], best[1]


def predicts_in_bfloat16(precision: str, matrices: Matrices) -> Choice:
    """Whether to predict in bfloat16 on a CPU; with "auto", if it is measured to be faster.

    Args:
        precision: from `check_precision`.
        matrices: of the encoder.
    """
    asked = OF_PREDICTION[precision]
    return measured_choice(matrices) if asked is None else Choice(asked, "it was asked for")


def precision_of_accelerator(accelerator: Any = "auto") -> tuple[str, str] | None:
    """Lightning's precision for an accelerator, and the reason as the end of a sentence; None for a CPU.

    bfloat16 has float32's range, so that training needs no loss scaling; "mixed" keeps the weights in float32.

    Args:
        accelerator: as for the trainer: `"auto"`, `"cpu"`, `"gpu"`, `"cuda"`, `"mps"` or a Lightning object.
    """
    import torch

    name = accelerator if isinstance(accelerator, str) else type(accelerator).__name__.lower()
    if name in ("auto", "gpu", "cuda", "cudaaccelerator") and torch.cuda.is_available():
        gpu = torch.cuda.get_device_name()
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16-mixed", f"{gpu} multiplies bfloat16 matrices in hardware"
        return "16-mixed", f"{gpu} multiplies float16 matrices in hardware, and no bfloat16"
    if name in ("cpu", "cpuaccelerator") or (name == "auto" and not torch.backends.mps.is_available()):
        return None
    return "32-true", f"nothing faster is known for the accelerator {name!r}"
