"""Errors that a user can fix. Imports nothing of the project.

Every message says what was found and where, what was expected, and what to do next. The command line
prints such an error as one sentence and exits with 2; any other exception is a bug of ours.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches

LONGEST_NAME = 200  # characters of a quoted name; finding similar names takes quadratic time
MOST_NAMES = 10  # listed in a message; some label sets have thousands


_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Control characters, line separators, direction marks and invisible characters."""


def visible(words: str) -> str:
    r"""Escape control characters and invisible characters for a terminal or a log.

    >>> print(visible("a\x1b[31m\nb\u202e"))
    a\x1b[31m\nb\u202e
    """
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), words)


class FlashError(ValueError):
    """A mistake that the user can fix; control characters in its message are escaped."""

    def __str__(self) -> str:
        return visible(super().__str__())


class DataError(FlashError):
    """A file, column, text or target that cannot be read as asked."""


class CheckpointError(FlashError):
    """A model file that is truncated, foreign, or of a newer format."""


class DownloadError(FlashError):
    """A download or an archive that could not be completed safely."""


class BrokenStepError(FlashError):
    """A training step whose loss or gradients are not finite; all processes raise it at the same step."""


class RemoteCodeError(FlashError):
    """Python code of an encoder that is not allowed to run, or is missing."""


class MovedNameError(FlashError, ImportError):
    """A name of Lightning Flash that does not exist here; the message gives the replacement."""


class MissingExtraError(FlashError, ImportError):
    """An optional dependency that is not installed; the message holds the pip command."""


def shortened(words: str, longest: int = 40) -> str:
    """The start of a text, for quoting it in a message."""
    return words if len(words) <= longest else f"{words[:longest].rstrip()}..."


def listed(names: Iterable[str]) -> str:
    """List names in a message: the first ten, and the number of the others.

    >>> listed(["text", "labels"])
    'text, labels'
    """
    names = list(names)
    more = f", and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    return ", ".join(shortened(name, 60) for name in names[:MOST_NAMES]) + more


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """A message for a name that is not in `known`: the closest name, then the known ones, the closest first.

    >>> unknown_name("backbone", "lineer", ["linear"])
    "unknown backbone 'lineer'; did you mean 'linear'? Known: linear"
    """
    known = list(known)
    name = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."
    close = get_close_matches(name, known, n=MOST_NAMES) or get_close_matches(
        name.lower(), known, n=MOST_NAMES
    )
    hint = f"; did you mean {close[0]!r}?" if close else "."
    if len(known) > MOST_NAMES:  # of a few, their own order is easier to read
        known = list(dict.fromkeys([*close, *known]))
    return f"unknown {kind} {name!r}{hint} Known: {listed(known) or 'none'}"
