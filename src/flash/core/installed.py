"""Detect other installed distributions with a package `flash`, whose files and ours overwrite each other.

Imports only `os` and `sys`: reading all metadata with `importlib.metadata` would take longer than the command itself.
"""

import os
import sys
from collections.abc import Iterator

OTHERS = {"flash": "flash", "lightning_flash": "lightning-flash"}
"""Distributions with a package `flash`: the name of the metadata folder, and the name for pip."""
ENDINGS = (".dist-info", ".egg-info")


def other_owners(*, thorough: bool = False) -> list[str]:
    """Sorted pip names of other installed distributions with a package `flash`.

    Args:
        thorough: also inspect the top-level packages of all other distributions.
    """
    found = set()
    for entry in _metadata():
        name = entry.name.removesuffix(".dist-info").removesuffix(".egg-info").partition("-")[0].lower()
        if name in OTHERS:
            found.add(OTHERS[name])
        elif thorough and name != "flash_multilabel" and _has_flash(entry.path):
            found.add(name.replace("_", "-"))
    return sorted(found)


def owners_sentence(names: list[str]) -> str:
    """The warning about other distributions, with the command that removes them.

    >>> owners_sentence(["lightning-flash"]).partition(":")[0]
    'lightning-flash is installed beside flash-multilabel'
    """
    those = " and ".join(names)
    return (
        f"{those} {'is' if len(names) == 1 else 'are'} installed beside flash-multilabel: each has a package named flash, "
        f"and they overwrite each other's files; type: pip uninstall {' '.join(names)}, then install flash-multilabel "
        "again with pip install --force-reinstall --no-deps"
    )


def _metadata() -> "Iterator[os.DirEntry[str]]":
    for folder in dict.fromkeys(sys.path):
        if os.path.basename(folder) not in ("site-packages", "dist-packages"):  # noqa: PTH119  (pathlib is slower)
            continue
        try:
            with os.scandir(folder) as entries:
                yield from (entry for entry in entries if entry.name.endswith(ENDINGS))
        except OSError:  # missing or unreadable
            continue


def _has_flash(folder: str) -> bool:
    try:
        with open(os.path.join(folder, "top_level.txt"), encoding="utf-8") as file:  # noqa: PTH118, PTH123
            return "flash" in file.read().split()
    except (OSError, ValueError):
        return False
