import unicodedata
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flash.text.classification.scores.metrics import Evaluation, evaluate
from flash.text.classification.scores.table import format_table


def columns(text: str) -> int:
    """The terminal columns of a line, the slow and obvious way."""
    marks = [
        mark for mark in text if unicodedata.category(mark) not in ("Mn", "Me") and mark not in "\u200c\u200d"
    ]
    return len(marks) + sum(unicodedata.east_asian_width(mark) in "WF" for mark in marks)


def some_evaluation(labels: list[str], **options: Any) -> Evaluation:
    """Two rows, in which every label has a positive and a negative."""
    targets = np.array([np.ones(len(labels)), np.zeros(len(labels))])
    options = {"thresholds": [0.5] * len(labels), "multi_label": True, **options}
    return evaluate(np.abs(targets - 0.25), targets, labels=labels, **options)


def test_golden_multi_label() -> None:
    targets = [[1, 1, 0, 1], [1, 0, 0, 1], [1, 0, 0, 1], [0, 0, 0, 1]]
    scores = [[0.9, 0.2, 0.6, 0.9], [0.8, 0.1, 0.1, 0.9], [0.3, 0.2, 0.1, 0.9], [0.5, 0.3, 0.2, 0.1]]
    labels = ["toxic", "모욕", "threat\n", "a label name longer than any column"]
    evaluation = evaluate(scores, targets, labels=labels, thresholds=[0.5, 0.5, 0.5, 1e-4], multi_label=True)
    table = format_table(evaluation, title="Validation", notes=["Thresholds: tuned on these rows."])
    assert table.split("\n") == [
        "Validation: 4 rows, 4 labels",
        "--------------------------------------------------------------------------------",
        "               precision   recall       F1",
        "micro average      0.750    0.750    0.750",
        "macro average      0.556    0.556    0.556",
        "",
        "macro average precision (mAP)  0.750   subset accuracy  0.250",
        "macro ROC AUC                  0.583   Hamming loss     0.250",
        "macro expected calibration error (ECE)  0.3083",
        "macro Brier score                       0.2008",
        "",
        "label               support  threshold      P      R     F1     AP    AUC    ECE",
        "--------------------------------------------------------------------------------",
        "toxic                    3*      0.500  0.667  0.667  0.667  0.917  0.667  0.375",
        "모욕                     1*      0.500  0.000  0.000  0.000  0.333  0.500  0.250",
        "threat\\n                 0       0.500      -      -      -      -      -      -",
        "a label name lo...       4*     <0.001  1.000  1.000  1.000  1.000      -  0.300",
        "--------------------------------------------------------------------------------",
        "ECE: gap between probability and how often it comes true.",
        "* fewer than 10 positive rows: one of them more or less changes recall by more",
        "than 0.1, so that these numbers mean little.",
        "1 label has no positive rows here (threat\\n): shown with -, left out of the",
        "macro averages.",
        "1 label has no negative rows here (a label name longer than an...): shown with",
        "-, left out of the macro ROC AUC.",
        "Thresholds: tuned on these rows.",
        "Of 3 rows flagged as toxic, 2 were right; 2 of the 3 toxic rows were found.",
        "No row was flagged as 모욕; the one 모욕 row was not found.",
        "Of 4 rows flagged as a label name longer than an..., 4 were right; 4 of the 4 a",
        "label name longer than an... rows were found.",
    ]


def test_golden_single_label() -> None:
    evaluation = evaluate(
        [[0.8, 0.2], [0.4, 0.6], [0.7, 0.3]],
        [[1, 0], [0, 1], [0, 1]],
        labels=["ham", "spam"],
        thresholds=None,
        multi_label=False,
    )
    assert format_table(evaluation, title="Test").split("\n") == [
        "Test: 3 rows, 2 labels, one per row",
        "---------------------------------------------------------------------------",
        "               precision   recall       F1",
        "micro average      0.667    0.667    0.667",
        "macro average      0.750    0.750    0.667",
        "",
        "macro average precision (mAP)  1.000   subset accuracy  0.667",
        "macro ROC AUC                  1.000   Hamming loss     0.333",
        "macro expected calibration error (ECE)  0.4333",
        "macro Brier score                       0.2300",
        "",
        "label          support  threshold      P      R     F1     AP    AUC    ECE",
        "---------------------------------------------------------------------------",
        "ham                 1*     argmax  0.500  1.000  0.667  1.000  1.000  0.433",
        "spam                2*     argmax  1.000  0.500  0.667  1.000  1.000  0.433",
        "---------------------------------------------------------------------------",
        "ECE: gap between probability and how often it comes true.",
        "* fewer than 10 positive rows: one of them more or less changes recall by more",
        "than 0.1, so that these numbers mean little.",
        "Of 2 rows flagged as ham, 1 was right; the one ham row was found.",
        "The one row flagged as spam was right; 1 of the 2 spam rows was found.",
    ]


def test_golden_before_calibration() -> None:
    targets = np.array([[1, 0], [0, 1], [1, 1], [0, 1]])
    evaluation = evaluate(
        np.abs(targets - 0.25),
        targets,
        labels=["identity_hate", "a long label name"],
        thresholds=[0.5, 0.5],
        multi_label=True,
        uncalibrated=np.abs(targets - 0.4),
    )
    assert format_table(evaluation, title="Test").split("\n")[6:] == [
        "macro average precision (mAP)  1.000   subset accuracy  1.000",
        "macro ROC AUC                  1.000   Hamming loss     0.000",
        "macro expected calibration error (ECE)  0.2500 (0.4000 before calibration)",
        "macro Brier score                       0.0625 (0.1600 before calibration)",
        "",
        "label           support  thresh      P      R     F1     AP    AUC    ECE    raw",
        "--------------------------------------------------------------------------------",
        "identity_hate        2*   0.500  1.000  1.000  1.000  1.000  1.000  0.250  0.400",
        "a long labe...       3*   0.500  1.000  1.000  1.000  1.000  1.000  0.250  0.400",
        "--------------------------------------------------------------------------------",
        "ECE: gap between probability and how often it comes true; raw: uncalibrated.",
        "* fewer than 10 positive rows: one of them more or less changes recall by more",
        "than 0.1, so that these numbers mean little.",
        "Of 2 rows flagged as identity_hate, 2 were right; 2 of the 2 identity_hate rows",
        "were found.",
        "Of 3 rows flagged as a long label name, 3 were right; 3 of the 3 a long label",
        "name rows were found.",
    ]


def test_nothing_defined() -> None:
    evaluation = evaluate([[0.1]], [[0]], labels=["a"], thresholds=[0.5], multi_label=True)
    lines = format_table(evaluation, title="Test").split("\n")
    assert lines[0] == "Test: 1 row, 1 label"
    assert lines[4] == "macro average          -        -        -"
    assert lines[6].startswith("macro average precision (mAP)      -   subset accuracy  1.000")
    assert lines[7].startswith("macro ROC AUC                      -   Hamming loss     0.000")
    assert lines[8] == "macro expected calibration error (ECE)       -"
    assert lines[9] == "macro Brier score                            -"


@settings(max_examples=100)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=8), st.booleans())
def test_every_name_keeps_to_its_column(labels: list[str], raw: bool) -> None:
    options = {"uncalibrated": np.full((2, len(labels)), 0.5)} if raw else {}
    lines = format_table(some_evaluation(labels, **options), title="Test").split("\n")
    assert all(columns(line) <= 80 for line in lines)
    assert all(mark.isprintable() or mark in "\u200c\u200d" for line in lines for mark in line)
    first = 13
    assert len({columns(line) for line in lines[first : first + len(labels)]}) == 1
    assert set(lines[first + len(labels)]) == {"-"}


def test_ascii_names_make_an_ascii_table() -> None:
    labels = ["x" * 50, "bell\a", "tab\t"]
    table = format_table(some_evaluation(labels), title="Test")
    assert table.isascii()
    assert "bell\\x07" in table
    assert "tab\\t" in table
    assert "x" * 15 + "..." in table


def test_notes_wrap_but_paths_stay_whole() -> None:
    path = "/data/" + "long" * 30 + ".pt"
    table = format_table(some_evaluation(["a"]), title="Test", notes=[f"{'word ' * 20}saved to {path}"])
    assert path in table.split("\n")


@pytest.fixture(scope="module")
def many() -> Evaluation:
    """100 labels: label j has 200 - j positives up to j = 94, the last 5 none; 40 to 59 are never found."""
    targets = np.zeros((300, 100))
    for column in range(95):
        targets[: 200 - column, column] = 1
    scores = targets * 0.8
    scores[:, 40:60] = 0.1
    labels = [f"n{column}" for column in range(100)]
    return evaluate(scores, targets, labels=labels, thresholds=np.full(100, 0.5), multi_label=True)


def test_many_labels(many: Evaluation) -> None:
    lines = format_table(many, title="Test").split("\n")
    start = lines.index("The 20 most frequent labels:")
    assert [line.split()[0] for line in lines[start + 1 : start + 21]] == [
        f"n{column}" for column in range(20)
    ]
    assert lines[start + 21] == ""
    assert lines[start + 22] == "The 10 lowest F1 values of the others:"
    shown = [line.split()[0] for line in lines[start + 23 : start + 33]]
    assert shown == [f"n{column}" for column in range(40, 50)]
    assert lines[start + 34 :] == [
        "ECE: gap between probability and how often it comes true.",
        "70 more labels are not shown; all are in `flash evaluate MODEL FILE --json` and",
        "in Python's `evaluation.to_dict()`.",
        "5 labels have no positive rows here (n95, n96, n97, n98, n99): shown with -,",
        "left out of the macro averages.",
        "Highest F1: of 106 rows flagged as n94, 106 were right; 106 of the 106 n94 rows",
        "were found.",
        "Lowest F1: no row was flagged as n40; 0 of the 160 n40 rows were found.",
    ]


def test_many_undefined_labels_are_counted() -> None:
    labels = [f"n{column}" for column in range(1234)]
    evaluation = evaluate(
        np.zeros((1, 1234)), np.zeros((1, 1234)), labels=labels, thresholds=[0.5] * 1234, multi_label=True
    )
    table = format_table(evaluation, title="Test")
    assert "lowest F1" not in table
    assert "1,214 more labels are not shown;" in table
    assert "1,234 labels have no positive rows here (n0, n1, n2, n3, n4 and 1,229 more)" in table


def test_sixty_labels_are_all_shown_in_order() -> None:
    labels = [f"n{column}" for column in range(60)]
    lines = format_table(some_evaluation(labels), title="Test").split("\n")
    assert [line.split()[0] for line in lines[13:73]] == labels
    assert "not shown" not in "".join(lines)


def test_thousands_are_grouped() -> None:
    evaluation = evaluate(
        np.full((1500, 1), 0.9), np.ones((1500, 1)), labels=["a"], thresholds=[0.5], multi_label=True
    )
    table = format_table(evaluation, title="Test")
    assert table.startswith("Test: 1,500 rows, 1 label\n")
    assert "\na                1,500      0.500  1.000" in table
