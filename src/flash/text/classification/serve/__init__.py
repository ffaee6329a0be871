"""Labels over HTTP: one server, several protocols, on any model of ours.

Imports nothing until it is used; nothing here imports lightning, and only an encoder's checkpoint imports torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flash.text.classification.serve.options import ServeOptions
    from flash.text.classification.serve.run import running, serve

__all__ = ["ServeOptions", "running", "serve"]


def __getattr__(name: str) -> Any:
    if name == "ServeOptions":
        from flash.text.classification.serve.options import ServeOptions

        return ServeOptions
    if name in ("running", "serve"):
        from flash.text.classification.serve import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
