"""Detect label names that look like mistakes: spelling variants of one name, words for a missing value, or texts."""

import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pyarrow as pa

from flash.core.errors import DataError, shortened
from flash.text.classification.reading.mistakes import some_of
from flash.text.classification.reading.source import Source

MISSING_VALUES = frozenset({"none", "nan", "null", "<na>", "na", "n/a", "#n/a", "-", "--", "?"})
"""Words for a missing value, in lower case."""
SAMPLE, FEWEST = 1_000, 100  # rows that are sampled to detect texts, and the minimum for a decision
MOST_ONCE, WORDS = 0.9, 5  # texts: minimum share of values that occur once, and mean number of words


def refuse_texts(source: Source, field: str, column: pa.Array, delimiter: str | None) -> None:
    """Raise an error if a sample of the target column looks like texts instead of labels.

    Args:
        source: the source, for the message.
        field: the target column.
        column: its cells, text.
        delimiter: separator of the names in a cell; None if each cell is one name.

    Raises:
        DataError: nearly every name occurs in a single row, and names are as long as sentences.
    """
    rows = np.unique(np.linspace(0, max(len(column) - 1, 0), SAMPLE, dtype=np.int64))
    cells = column.take(pa.array(rows)).to_pylist() if len(column) >= FEWEST else []
    counts = Counter(
        name for cell in cells for name in (cell.split(delimiter) if delimiter else [cell]) if name.strip()
    )
    words = sum(len(name.split()) for name in counts)
    if counts and words >= WORDS * len(counts) and list(counts.values()).count(1) >= MOST_ONCE * len(counts):
        raise DataError(
            f"{source.name}: column {field!r} holds texts rather than labels ({source.where(0)}: "
            f"{shortened(column[0].as_py(), 60)!r}): nearly every name stands in one row alone and has "
            f"{words // len(counts)} words; check that target_fields= names the column of labels, or pass labels=[...] if "
            f"these are names ({source.counting})"
        )


def warn_of_odd_names(source: Source, field: str, names: Sequence[str], *, stacklevel: int) -> None:
    """Warn about spelling variants of one name, and about names that are words for a missing value."""
    by_case = _alike(names, _without_case)
    on_screen = _alike([same[0] for same in _groups(names, _without_case)], _on_screen)
    missing = [repr(name) for name in names if name.lower() in MISSING_VALUES]
    found = []
    if by_case:
        found.append(
            f"labels differ only by case or spaces: {some_of(['/'.join(map(repr, same)) for same in by_case])}"
        )
    if on_screen:
        shown = ["/".join(map(ascii, same)) for same in on_screen]
        found.append(f"labels look the same and are written with different characters: {some_of(shown)}")
    if missing:
        found.append(f"labels are named like a missing value: {some_of(missing)}")
    if found:
        warnings.warn(
            f"{source.name}: in column {field!r} {', and '.join(found)}; correct the cells unless this is meant",
            UserWarning,
            stacklevel=stacklevel + 1,
        )


def written_otherwise(values: Iterable[str], names: Sequence[str]) -> str:
    """Describe the first value that differs from a name only by case, spaces or look-alike characters; "" if none does."""
    known = {_on_screen(name): name for name in reversed(names)}
    for value in values:
        name = known.get(_on_screen(value))
        if name is not None:
            return (
                f"; {value!a} is the label {name!a} but for case, spaces or characters that look the same: "
                "write it as the label"
            )
    return ""


def _alike(names: Sequence[str], key: Callable[[str], str]) -> list[list[str]]:
    return [same for same in _groups(names, key) if len(same) > 1]


def _groups(names: Sequence[str], key: Callable[[str], str]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return list(groups.values())


def _without_case(name: str) -> str:
    return " ".join(name.casefold().split())


def _on_screen(name: str) -> str:
    """Normalise what the eye cannot see: Unicode form, width of characters, zero-width characters, case and spaces."""
    if name.isascii():
        return _without_case(name)
    visible = [one for one in name if unicodedata.category(one) != "Cf"]
    return _without_case(unicodedata.normalize("NFC", "".join(map(_of_usual_width, visible))))


def _of_usual_width(character: str) -> str:
    form = unicodedata.decomposition(character).partition(" ")[0]
    return (
        unicodedata.normalize("NFKC", character) if form in ("<wide>", "<narrow>", "<noBreak>") else character
    )
