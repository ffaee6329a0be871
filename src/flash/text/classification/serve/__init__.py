"""The HTTP server: several protocols for one model of any backbone.

Submodules are imported on first use. None imports lightning, and torch is imported only to load an encoder checkpoint.
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
