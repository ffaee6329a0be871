"""Which floating-point precision a machine computes fastest in: for a processor measured, for a GPU known.

What a processor says of itself does not decide: there are some whose flags name bfloat16 and which multiply such
matrices more slowly than those of float32. Imports nothing of the project but its errors; torch only when asked.
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
"""Names of precisions that predictions can have, Lightning's among them, and whether that is bfloat16; None: it depends."""


def check_precision(precision: str | int) -> str:
    """The name of a prediction's precision.

    Raises:
        FlashError: there is none of that name.
    """
    if str(precision) not in OF_PREDICTION:
        raise FlashError(unknown_name("precision", str(precision), OF_PREDICTION))
    return str(precision)


@dataclass(frozen=True)
class Choice:
    """A precision, and why it was chosen.

    Attributes:
        bfloat16: whether matrices are multiplied in bfloat16, otherwise in float32.
        reason: the end of a sentence that begins with the precision.
        measured: whether a measurement decided.
    """

    bfloat16: bool
    reason: str
    measured: bool = False

    @property
    def sentence(self) -> str:
        """What a user is told of a prediction's precision."""
        name = "bfloat16" if self.bfloat16 else "float32"
        return f"the encoder predicts in {name}, as {self.reason}; precision='32' always gives float32"


FASTER = 1.2
"""How many times as fast as float32 bfloat16 has to be: what it gains beyond that pays for its rounding."""
MOST_MATRICES = 3  # shapes that are measured; the others have few multiplications
SLENDER = 16  # times as many rows as columns: a table of embeddings, which no text is multiplied with
ROUNDS = 5  # of each precision, in turn, so that a neighbour on the machine slows both
OPERATIONS = 1e8  # multiplications in one product; some hundred microseconds
HOPELESS = 1.5  # times as slow after two rounds: no need to look further

Matrices = Mapping[tuple[int, int], int]
_measured: dict[tuple[Any, ...], float] = {}  # of this process, by shapes and number of threads


def matrices_of(shapes: Iterable[Sequence[int]]) -> dict[tuple[int, int], int]:
    """The shapes of the weights with the most multiplications, and how many weights have each.

    >>> matrices_of([(30522, 384), (384, 384), (384, 384), (1536, 384), (384,)])
    {(384, 384): 2, (1536, 384): 1}

    Args:
        shapes: of a network's weights, those of embeddings and biases included.
    """
    counts = Counter(
        (int(shape[0]), int(shape[1]))
        for shape in shapes
        if len(shape) == 2 and 0 < max(shape) <= SLENDER * min(shape)
    )
    costly = sorted(counts.items(), key=lambda item: (-item[1] * item[0][0] * item[0][1], item[0]))
    return dict(sorted(costly[:MOST_MATRICES]))


def measured_choice(matrices: Matrices) -> Choice:
    """What a processor computes a network of such matrices in; measured in some milliseconds, once per process.

    Args:
        matrices: shapes, and how many weights have each, as `matrices_of` gives them.
    """
    if not matrices:
        return Choice(False, "it has no large matrices")
    speedup = measured_speedup(matrices)
    found = f"{speedup:.2f} times as fast as float32 here, measured at the encoder's shapes"
    if speedup >= FASTER:
        return Choice(True, f"bfloat16 is {found}", measured=True)
    return Choice(False, f"bfloat16 is {found}, and {FASTER} is wanted", measured=True)


def measured_speedup(matrices: Matrices) -> float:
    """How many times as fast as float32 this processor multiplies in bfloat16, over all of `matrices`."""
    import torch

    key = (*matrices.items(), torch.get_num_threads())
    if key not in _measured:
        with torch.inference_mode():
            times = [(count, _product_times(*shape)) for shape, count in matrices.items()]
        single, half = (sum(count * pair[i] for count, pair in times) for i in (0, 1))
        _measured[key] = single / half
    return _measured[key]


def _product_times(outputs: int, inputs: int) -> tuple[float, float]:
    """Seconds of the fastest product of a batch and one weight in float32, and in bfloat16."""
    import torch

    rows = int(min(1024, max(32, OPERATIONS // (outputs * inputs))))
    pairs = [  # ones: random numbers would move the user's generator
        (torch.ones(rows, inputs, dtype=kind), torch.ones(outputs, inputs, dtype=kind))
        for kind in (torch.float32, torch.bfloat16)
    ]
    best = [float("inf"), float("inf")]
    for number in range(ROUNDS + 1):
        for i, (texts, weight) in enumerate(pairs):
            start = perf_counter()
            torch.nn.functional.linear(texts, weight)
            if number:  # the first product prepares the library
                best[i] = min(best[i], perf_counter() - start)
        if number > 1 and best[1] > HOPELESS * best[0]:
            break
    return best[0], best[1]


def predicts_in_bfloat16(precision: str, matrices: Matrices) -> Choice:
    """Whether a processor predicts in bfloat16; with "auto", where that is measured to be faster.

    Args:
        precision: as `check_precision` gives it.
        matrices: of the encoder.
    """
    asked = OF_PREDICTION[precision]
    return measured_choice(matrices) if asked is None else Choice(asked, "it was asked for")


def precision_of_accelerator(accelerator: Any = "auto") -> tuple[str, str] | None:
    """Lightning's name of the precision of a GPU or the like, and why, as the end of a sentence; None for a processor.

    bfloat16 keeps float32's range, so that training needs no loss scaling; "mixed" keeps the weights in float32.

    Args:
        accelerator: as given to the trainer: `"auto"`, `"cpu"`, `"gpu"`, `"cuda"`, `"mps"` or an object of Lightning's.
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
