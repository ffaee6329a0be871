"""Which floating-point precision a machine computes fastest in.

Imports nothing of the project but its errors; torch only when asked.
"""

from collections.abc import Mapping
from typing import Any, cast

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


def predicts_in_bfloat16(precision: str) -> bool:
    """Whether a processor predicts in bfloat16; with "auto", if it multiplies such matrices in hardware."""
    asked = OF_PREDICTION[precision]
    return fastest_precision("cpu")[0] == "bf16-mixed" if asked is None else asked


def fastest_precision(accelerator: Any = "auto") -> tuple[str, str]:
    """Lightning's name of the precision that suits the hardware, and why, as the end of a sentence.

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
        if any(_instructions().get(key) for key in ("amx_bf16", "avx512_bf16", "bf16")):
            return "bf16-mixed", "this processor multiplies bfloat16 matrices in hardware"
        return "32-true", "this processor is not known to multiply bfloat16 matrices in hardware"
    return "32-true", f"nothing faster is known for the accelerator {name!r}"


def _instructions() -> Mapping[str, Any]:
    """What the processor can, by name; empty where torch is too old to tell."""
    import torch

    ask = getattr(torch.cpu, "get_capabilities", None)
    return {} if ask is None else cast(Mapping[str, Any], ask())
