"""Which floating-point precision a machine computes fastest in.

Imports nothing of the project; torch only when asked.
"""

from collections.abc import Mapping
from typing import Any, cast


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
