"""Whether another distribution that owns a package `flash` is installed, whose files and ours overwrite each other's.

Imports only the standard library's `os` and `sys`: reading all metadata by `importlib.metadata` takes longer than the
command line takes to answer.
"""

import os
import sys
from collections.abc import Iterator

OTHERS = {"flash": "flash", "lightning_flash": "lightning-flash"}
"""Distributions with a package of that name, as folders of metadata spell them and as pip does."""
ENDINGS = (".dist-info", ".egg-info")


def other_owners(*, thorough: bool = False) -> list[str]:
    """Names of other installed distributions with a package `flash`, as pip spells them, sorted.

    Args:
        thorough: look also into distributions whose name says nothing, at what packages they have at their top.
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
    """What is wrong, and what to type.

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
        except OSError:  # a path that is not there, or may not be read
            continue


def _has_flash(folder: str) -> bool:
    try:
        with open(os.path.join(folder, "top_level.txt"), encoding="utf-8") as file:  # noqa: PTH118, PTH123
            return "flash" in file.read().split()
    except (OSError, ValueError):
        return False
