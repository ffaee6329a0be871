"""Import optional dependencies, or name the pip command that installs them."""

import re
from importlib import import_module
from types import ModuleType

from flash.core.errors import MissingExtraError

DISTRIBUTION = "flash-multilabel"


def requires(distribution: str) -> list[str] | None:
    """The requirements in the metadata of an installed distribution."""
    from importlib import metadata  # slow to import, and needed only if the module is missing

    return metadata.requires(distribution)


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or name the pip command that installs it.

    Args:
        module: the name to import, such as `"datasets"`.
        extra: the extra of this project that installs it. The package metadata is the single list of extras,
            and the command names the extra's own requirements, so that it works from any folder.

    Raises:
        MissingExtraError: `module` is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise  # installed, but one of its own dependencies is missing: keep the original error
        marker = re.compile(rf"""extra\s*==\s*["']{re.escape(extra)}["']""")
        needs = [line.split(";")[0].strip() for line in requires(DISTRIBUTION) or [] if marker.search(line)]
        if not needs:
            raise LookupError(f"{extra!r} is not an extra of {DISTRIBUTION}") from error
        command = "pip install " + " ".join(f'"{need}"' for need in needs)
        raise MissingExtraError(
            f"this needs the package {module!r} (extra {extra!r}), which is not installed; type: {command}"
        ) from error
