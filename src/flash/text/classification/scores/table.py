"""Format an `Evaluation` as plain text for a terminal, a log file or a pipe. Imports neither torch nor lightning.

Apart from the label names, the table is ASCII, so that it works in every terminal and encoding.
"""

import math
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from flash.text.classification.scores.by_length import MIN_ROWS
from flash.text.classification.scores.in_words import few_positives_sentence, has_few_positives, in_words
from flash.text.classification.scores.metrics import PER_LABEL, Evaluation

WIDTH = 80
SHOW_ALL_UP_TO = 60
MOST_FREQUENT = 20
LOWEST_F1 = 10
JOINERS = "\u200c\u200d"  # invisible, but needed to write words and emoji in several scripts


def format_table(evaluation: Evaluation, *, title: str, notes: Sequence[str] = ()) -> str:
    """Return the table: overall metrics, one line per label, remarks, and an explanation in words.

    Up to 60 labels are shown in label order. If there are more, the table shows the 20 most frequent labels and, of the
    others with positives, the 10 with the lowest F1; a line says how to get all labels.

    Args:
        evaluation: the metrics, shown with three decimals (macro averages of calibration: four), "-" if undefined. The
            column "raw" is shown if probabilities before calibration were evaluated too; if some targets are unknown,
            it is replaced by "known", the number of rows with a known target. Calibration by text length is shown above
            the labels if lengths were evaluated.
        title: what was evaluated, such as "Validation".
        notes: sentences below the table, before the explanation in words.

    Returns:
        Lines without trailing spaces, joined by newlines, without one at the end.
    """
    sections = _choose_labels(evaluation)
    shown = np.concatenate([rows for _, rows in sections])
    cells = {int(row): _label_cells(evaluation, int(row)) for row in shown}
    header = ["support", "threshold", "P", "R", "F1", "AP", "AUC", "ECE"]
    if evaluation.partly_known:
        header = ["known", "support", "thresh", *header[2:]]
    elif evaluation.uncalibrated_brier is not None:
        # a shorter header makes room for one more column and still leaves 14 characters for the label
        header = ["support", "thresh", *header[2:], "raw"]
    columns = zip(header, ["", "", *["0.000"] * (len(header) - 2)], *cells.values(), strict=True)
    widths = [max(map(len, column)) for column in columns]
    names = {row: _printable(evaluation.labels[row]) for row in cells}
    room = max(WIDTH - sum(widths) - 2 * len(widths), 12)
    name_width = min(max(map(_display_width, ["micro average", *names.values()])), room)
    rule = "-" * (name_width + sum(widths) + 2 * len(widths))

    def shown_name(label: str) -> str:
        return _shorten(_printable(label), 30)

    lines = _wrap(f"{_printable(title)}: {_describe(evaluation)}", WIDTH)
    lines += [rule, *_overall(evaluation), *_by_length(evaluation), ""]
    lines += [_line("label", header, name_width, widths), rule]
    for place, (heading, rows) in enumerate(sections):
        lines += [""] if place else []
        lines += [heading] if heading else []
        lines += [_line(names[int(row)], cells[int(row)], name_width, widths) for row in rows]
    lines.append(rule)
    for sentence in [*_remarks(evaluation, len(cells)), *notes, *in_words(evaluation, shown_name)]:
        lines += _wrap(_printable(sentence), WIDTH)
    return "\n".join(line.rstrip() for line in lines)


def _choose_labels(evaluation: Evaluation) -> list[tuple[str, NDArray[np.intp]]]:
    """Return headings, and the columns of the labels to show below each."""
    count = len(evaluation.labels)
    if count <= SHOW_ALL_UP_TO:
        return [("", np.arange(count))]
    by_support = np.argsort(-evaluation.support, kind="stable")
    frequent, others = by_support[:MOST_FREQUENT], by_support[MOST_FREQUENT:]
    others = others[evaluation.support[others] > 0]
    # stable: among equally low F1 values, the label with the larger support comes first
    lowest = others[np.argsort(evaluation.f1[others], kind="stable")[:LOWEST_F1]]
    sections = [(f"The {len(frequent)} most frequent labels:", frequent)]
    if lowest.size:
        sections.append((f"The {len(lowest)} lowest F1 values of the others:", lowest))
    return sections


def _describe(evaluation: Evaluation) -> str:
    """Return the numbers of rows and labels."""
    one_each = "" if evaluation.multi_label else ", one per row"
    return f"{_count(evaluation.rows, 'row')}, {_count(len(evaluation.labels), 'label')}{one_each}"


def _overall(evaluation: Evaluation) -> list[str]:
    """Return the lines above the labels: averages over labels, and metrics of whole rows."""
    micro = [_number(getattr(evaluation, f"micro_{name}")) for name in PER_LABEL[:3]]
    macro = [_number(getattr(evaluation, f"macro_{name}")) for name in PER_LABEL[:5]]
    return [
        _line("", ["precision", "recall", "F1"], 13, [9, 7, 7]),
        _line("micro average", micro, 13, [9, 7, 7]),
        _line("macro average", macro[:3], 13, [9, 7, 7]),
        "",
        f"macro average precision (mAP)  {macro[3]:>5}   subset accuracy  {evaluation.subset_accuracy:.3f}",
        f"macro ROC AUC                  {macro[4]:>5}   Hamming loss     {evaluation.hamming_loss:.3f}",
        f"macro expected calibration error (ECE)  {_compared(evaluation, 'expected_calibration_error')}",
        f"macro Brier score                       {_compared(evaluation, 'brier')}",
    ]


def _by_length(evaluation: Evaluation) -> list[str]:
    """Return the lines about calibration by text length; empty if it was not evaluated."""
    bins = evaluation.calibration_by_length
    if not bins:
        return []
    names, rows = [one.name for one in bins], [f"{one.rows:,}" for one in bins]
    errors = [one.expected_calibration_error for one in bins]
    shown = ["-" if math.isnan(error) else f"{error:.4f}" for error in errors]
    widths = [max(map(len, cells)) for cells in zip(names, rows, shown, strict=True)]
    lines = {"characters": names, "rows": rows, "macro ECE": shown}
    return ["", *(_line(name, cells, 13, widths) for name, cells in lines.items())]


def _compared(evaluation: Evaluation, name: str) -> str:
    """Format a macro average, and its value before calibration if known."""
    after, before = (getattr(evaluation, f"macro_{kind}{name}") for kind in ("", "uncalibrated_"))
    if math.isnan(after):
        return "     -"
    return f"{after:.4f}" + ("" if math.isnan(before) else f" ({before:.4f} before calibration)")


def _label_cells(evaluation: Evaluation, row: int) -> list[str]:
    """Format the numbers of one label."""
    threshold = float(evaluation.thresholds[row])
    shown = _number(threshold) if evaluation.multi_label else "argmax"
    if 0 < threshold < 0.0005:
        shown = "<0.001"  # 0.000 would mean "always"
    names = [*PER_LABEL[:5], "expected_calibration_error"]
    if evaluation.uncalibrated_brier is not None and not evaluation.partly_known:
        names.append("uncalibrated_expected_calibration_error")
    values = [_number(float(evaluation.label_values(name)[row])) for name in names]
    known = [f"{evaluation.known[row]:,}"] if evaluation.partly_known else []
    few = has_few_positives(evaluation)
    mark = ("*" if few[row] else " ") if few.any() else ""
    return [*known, f"{evaluation.support[row]:,}{mark}", shown, *values]


def _remarks(evaluation: Evaluation, shown: int) -> list[str]:
    """Return sentences that explain columns, and labels that are hidden or have undefined values."""
    raw = "; raw: uncalibrated"
    if evaluation.uncalibrated_brier is None or evaluation.partly_known:
        raw = ""
    sentences = [f"ECE: gap between probability and how often it comes true{raw}."]
    if evaluation.calibration_by_length:
        sentences.append(
            f"characters: ECE by text length; lengths with fewer than {MIN_ROWS} rows are not shown."
        )
    if evaluation.partly_known:
        sentences.append("known: rows where the label's target is known, the only ones that count for it.")
    if few := few_positives_sentence(evaluation):
        sentences.append(few)
    hidden = len(evaluation.labels) - shown
    if hidden:
        sentences.append(
            f"{hidden:,} more {'label is' if hidden == 1 else 'labels are'} not shown; all are in "
            "`flash evaluate MODEL FILE --json` and in Python's `evaluation.to_dict()`."
        )
    for names, what, where in (
        (evaluation.without_positives, "positive", "the macro averages"),
        (evaluation.without_negatives, "negative", "the macro ROC AUC"),
    ):
        if names:
            listed = ", ".join(_shorten(_printable(name), 30) for name in names[:5])
            more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
            sentences.append(
                f"{_count(len(names), 'label')} {'has' if len(names) == 1 else 'have'} no {what} rows here "
                f"({listed}{more}): shown with -, left out of {where}."
            )
    return sentences


def _line(name: str, cells: Iterable[str], name_width: int, widths: Iterable[int]) -> str:
    """Format a line: a left-aligned name, by its width on a terminal, and right-aligned cells."""
    name = _shorten(name, name_width)
    numbers = (f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
    return name + " " * (name_width - _display_width(name)) + "".join(numbers)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _printable(text: str) -> str:
    """Escape newlines, control characters and direction marks."""
    if text.isprintable():
        return text
    return "".join(
        mark if mark.isprintable() or mark in JOINERS else mark.encode("unicode_escape").decode("ascii")
        for mark in text
    )


def _display_width(text: str) -> int:
    """Return a text's width in terminal columns: two per East Asian wide character, none per combining mark."""
    if text.isascii():
        return len(text)
    return sum(_mark_width(mark) for mark in text)


def _mark_width(mark: str) -> int:
    if mark in JOINERS or unicodedata.category(mark) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(mark) in ("W", "F") else 1


def _shorten(text: str, width: int) -> str:
    """Shorten a text to at most `width` columns, with three dots at the end."""
    if _display_width(text) <= width:
        return text
    kept, used = "", 3
    for mark in text:
        used += _mark_width(mark)
        if used > width:
            break
        kept += mark
    return kept.rstrip() + "..."


def _wrap(text: str, width: int) -> list[str]:
    """Wrap a text to lines of at most `width` columns; longer words, such as paths, are not broken."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and _display_width(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
