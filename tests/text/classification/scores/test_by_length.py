"""Calibration in bins of text length: the numbers of the rows in each bin alone, and what the table shows of them."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_array

from flash.core.errors import FlashError
from flash.text.classification.scores import metrics
from flash.text.classification.scores.by_length import LengthBin, text_lengths
from flash.text.classification.scores.metrics import Evaluation, evaluate
from flash.text.classification.scores.table import format_table

BINS = [(0, 40), (40, 100), (100, 200), (200, 500), (500, 1000), (1000, None)]
OPTIONS: dict[str, Any] = {"labels": "abcd", "thresholds": [0.5] * 4, "multi_label": True}
Floats = NDArray[np.float32]


def case(unknown: float = 0) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Probabilities, targets that are more often positive, and lengths; the last label has no positive short text."""
    random = np.random.default_rng(3)
    lengths = np.concatenate([random.integers(0, 40, 450), random.integers(39, 102, 700), [1000] * 299])
    scores = random.random((len(lengths), 4)).astype(np.float32) ** 2
    targets = (random.random(scores.shape) < np.sqrt(scores)).astype(np.float32)
    targets[lengths < 40, 3] = 0
    targets[random.random(scores.shape) < unknown] = np.nan
    order = random.permutation(len(lengths))
    return scores[order], targets[order], lengths[order]


def by_hand(scores: Floats, targets: Floats) -> tuple[float, float]:
    """The two numbers of a bin, label by label, of the rows where the label's target is known."""
    errors, gaps = [], []
    for column in range(scores.shape[1]):
        known = ~np.isnan(targets[:, column])
        own, truth = scores[known, column], targets[known, column]
        if truth.sum():
            alone = evaluate(own[:, None], truth[:, None], labels="a", thresholds=[0.5], multi_label=True)
            errors.append(alone.expected_calibration_error[0])
            gaps.append(abs(own.mean(dtype=np.float64) - truth.mean(dtype=np.float64)))
    return float(np.mean(errors)), float(np.mean(gaps))


@pytest.mark.parametrize("form", [np.asarray, csr_array])
@pytest.mark.parametrize("unknown", [0, 0.3])
@pytest.mark.parametrize("block_cells", [1, 2**22])
def test_a_bin_has_the_numbers_of_its_rows_alone(
    form: Any, unknown: float, block_cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "BLOCK_CELLS", block_cells)
    scores, targets, lengths = case(unknown)
    found = evaluate(scores, form(targets), lengths=lengths, **OPTIONS).calibration_by_length
    expected = []
    for start, stop in BINS:
        rows = (lengths >= start) & (lengths < (stop or np.inf))
        if rows.sum() >= 300:
            expected.append((start, stop, rows.sum(), *by_hand(scores[rows], targets[rows])))
    assert found is not None
    assert [(one.start, one.stop) for one in found] == BINS[
        :2
    ]  # a few rows of 100, and 299 of 1,000 characters
    for one, (_, _, rows, error, gap) in zip(found, expected, strict=True):
        assert one.rows == rows
        assert one.expected_calibration_error == pytest.approx(error, rel=1e-9)
        assert one.mean_gap == pytest.approx(gap, rel=1e-6)
        assert 0.05 < one.mean_gap <= one.expected_calibration_error


def test_the_edges_of_the_bins() -> None:
    lengths = np.repeat([0, 39, 40, 99, 100, 199, 200, 499, 500, 999, 1000, 5000], 150)
    targets = np.ones((len(lengths), 1))
    found = evaluate(
        targets * 0.75, targets, labels="a", thresholds=[0.5], multi_label=True, lengths=lengths
    ).calibration_by_length
    assert found == tuple(LengthBin(start, stop, 300, 0.25, 0.25) for start, stop in BINS)


def test_one_bin_alone_compares_nothing() -> None:
    scores, targets, lengths = case()
    alone = evaluate(scores, targets, lengths=np.where(lengths < 40, 1000, lengths), **OPTIONS)
    assert alone.calibration_by_length is not None
    assert len(alone.calibration_by_length) == 2
    none = evaluate(scores, targets, lengths=np.where(lengths < 40, 50, lengths), **OPTIONS)
    assert none.calibration_by_length == ()
    assert none.to_dict()["calibration_by_length"] == []
    assert "characters" not in format_table(none, title="Test")


def test_lengths_change_no_other_number() -> None:
    scores, targets, lengths = case()
    without, found = (evaluate(scores, targets, lengths=given, **OPTIONS) for given in (None, lengths))
    assert without.calibration_by_length is None
    assert {**found.to_dict(), "calibration_by_length": None} == without.to_dict()
    assert found.scalars("val") == without.scalars("val")


def test_single_label() -> None:
    scores, targets, lengths = case()
    scores /= scores.sum(axis=1, keepdims=True)
    targets = np.eye(4, dtype=np.float32)[targets.argmax(axis=1)]
    options = {**OPTIONS, "multi_label": False, "thresholds": None}
    found = evaluate(scores, targets, lengths=lengths, **options).calibration_by_length
    assert found is not None
    error, gap = by_hand(scores[lengths < 40], targets[lengths < 40])
    assert found[0].expected_calibration_error == pytest.approx(error)
    assert found[0].mean_gap == pytest.approx(gap)


@pytest.fixture
def two_bins() -> Evaluation:
    """1,000 short texts without a positive row, and 400 long ones."""
    targets = np.zeros((1400, 1))
    targets[1000:1200] = 1
    lengths = np.repeat([10, 2000], [1000, 400])
    scores = np.full((1400, 1), 0.25)
    return evaluate(scores, targets, labels="a", thresholds=[0.5], multi_label=True, lengths=lengths)


def test_to_dict(two_bins: Evaluation) -> None:
    found = two_bins.to_dict()["calibration_by_length"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found == [
        {"from": 0, "below": 40, "rows": 1000, "expected_calibration_error": None, "mean_gap": None},
        {"from": 1000, "below": None, "rows": 400, "expected_calibration_error": 0.25, "mean_gap": 0.25},
    ]


def test_the_table(two_bins: Evaluation) -> None:
    lines = format_table(two_bins, title="Test").split("\n")
    assert lines[9:16] == [
        "macro Brier score                       0.1339",
        "",
        "characters      0-39  1,000+",
        "rows           1,000     400",
        "macro ECE          -  0.2500",
        "",
        "label          support  threshold      P      R     F1     AP    AUC    ECE",
    ]
    place = lines.index("ECE: gap between probability and how often it comes true.")
    assert (
        lines[place + 1] == "characters: ECE by text length; lengths with fewer than 300 rows are not shown."
    )


def test_six_bins_keep_to_the_width() -> None:
    lengths = np.repeat([0, 40, 100, 200, 500, 1000], 1_000)
    targets = np.ones((len(lengths), 1))
    found = evaluate(targets, targets, labels="a", thresholds=[0.5], multi_label=True, lengths=lengths)
    lines = format_table(found, title="Test").split("\n")
    assert "characters       0-39   40-99  100-199  200-499  500-999  1,000+" in lines
    assert max(map(len, lines)) <= 79


def test_one_length_per_row() -> None:
    with pytest.raises(FlashError, match=r"^lengths have shape \(3,\); expected one for each of 2 rows$"):
        evaluate([[0.5]] * 2, [[1]] * 2, labels="a", thresholds=[0.5], multi_label=True, lengths=[1, 2, 3])


def test_lengths_are_of_characters() -> None:
    texts = pa.array(["", "naïve", "모욕", "two\x1ffields"], pa.large_string())
    assert text_lengths(texts).tolist() == [0, 5, 2, 10]
