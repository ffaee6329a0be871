"""Batches that are scored together: every row's own score, in order, whatever the batches and the processes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flash.core.errors import DataError
from flash.text import TextClassificationData, TextClassifier
from flash.text.classification import windows
from flash.text.classification.windows import Lookahead, ScoreBuffer

LABELS = ["animal", "fruit", "tool"]


class Scorer:
    """A text's score is its number; remembers how many texts it was given at a time, of batches of what size."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def __call__(self, texts: pa.Array, batch_size: int) -> np.ndarray:
        self.asked.append((len(texts), batch_size))
        return np.array([[float(text)] for text in texts.to_pylist()], np.float32).reshape(-1, 1)


def numbered(count: int) -> pa.Array:
    return pa.array(map(str, range(count)), pa.large_string())


@settings(deadline=None)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=12))
def test_kept_rows_come_back_in_order(sizes: list[int]) -> None:
    texts, score, kept = numbered(sum(sizes)), Scorer(), ScoreBuffer()
    ends = np.cumsum(sizes).tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "WINDOW", 10)
        for end, size in zip(ends, sizes, strict=True):
            kept.add(texts[end - size : end], np.arange(end - size, end)[:, None], score)
        assert len(kept) == len(sizes)
        scores, targets, lengths = kept.take(score)
    np.testing.assert_array_equal(scores, np.arange(ends[-1])[:, None])
    np.testing.assert_array_equal(targets, scores)
    assert lengths.tolist() == [len(str(number)) for number in range(ends[-1])]
    assert all(rows < 10 + max(sizes) and size <= max(sizes) for rows, size in score.asked)
    assert len(kept) == 0


def test_kept_rows_are_scored_by_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "WINDOW", 10)
    texts, score, kept = numbered(25), Scorer(), ScoreBuffer()
    for start in range(0, 25, 4):
        kept.add(texts[start : start + 4], np.zeros((len(texts[start : start + 4]), 1)), score)
    assert score.asked == [(12, 4), (12, 4)]
    kept.take(score)
    assert score.asked == [(12, 4), (12, 4), (1, 1)]


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 3), st.sampled_from([np.inf, 100]))
def test_rows_ahead_have_their_own_scores(count: int, size: int, processes: int, batches: float) -> None:
    texts = numbered(count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "WINDOW", 10)
        for process in range(min(processes, count)):
            ahead, score = Lookahead(), Scorer()
            rows = np.arange(process, count, processes)
            for index, start in enumerate(range(0, len(rows), size)):
                batch = rows[start : start + size]
                found = ahead.scores(batch, texts, batches - index, score)
                np.testing.assert_array_equal(found, batch[:, None])
            if processes == 1 or min(size, len(rows)) > 1:  # one row alone does not tell the next
                assert sum(rows for rows, _ in score.asked) == len(rows)  # none twice


@pytest.mark.parametrize("order", [[3, 1, 2, 0], [0, 0, 1, 2], [2, 3, 0, 1], [0, 2, 1, 3]])
def test_rows_in_no_order(order: list[int]) -> None:
    ahead, score = Lookahead(), Scorer()
    for start in (0, 2):
        batch = np.array(order[start : start + 2])
        np.testing.assert_array_equal(ahead.scores(batch, numbered(4), np.inf, score), batch[:, None])


def test_no_more_rows_than_are_asked_for() -> None:
    ahead, score = Lookahead(), Scorer()
    ahead.scores(np.arange(3), numbered(50), 2, score)
    assert score.asked == [(6, 3)]


def test_the_rows_of_another_data_set() -> None:
    ahead, score = Lookahead(), Scorer()
    one, other = numbered(4), pa.array(["10", "11"], pa.large_string())
    ahead.scores(np.arange(2), one, 2, score)
    assert ahead.scores(np.arange(2), other, 1, score).tolist() == [[10], [11]]


def test_an_empty_batch() -> None:
    assert Lookahead().scores(np.zeros(0, np.int64), numbered(2), 1, Scorer()).shape == (0, 1)


# in a trainer


@pytest.fixture
def encoder(
    tmp_path: Path, make_bert: Callable[..., Path], as_if_trained: Callable[[Any], TextClassifier]
) -> TextClassifier:
    """A classifier around a small BERT with random weights."""
    torch.manual_seed(1)
    folder = make_bert(tmp_path / "encoder")
    return as_if_trained(TextClassifier(backbone=str(folder), labels=LABELS, multi_label=True, max_length=16))


def seen_by(model: TextClassifier, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts its backbone is given at a time, from now on."""
    asked: list[int] = []
    compute: Any = model.backbone.logits

    def logits(texts: Any, *rest: Any) -> np.ndarray:
        asked.append(len(texts))
        found: np.ndarray = compute(texts, *rest)
        return found

    monkeypatch.setattr(model.backbone, "logits", logits)
    return asked


@pytest.mark.parametrize(("limit", "rows"), [(None, 50), (3, 21)])
def test_a_trainer_predicts_many_batches_at_once(
    limit: Any, rows: int, encoder: TextClassifier, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"row {index} {'zebra ' * (index % 9)}" for index in range(50)]
    expected = encoder(texts).numpy()[:rows]
    data = TextClassificationData.from_lists(predict_data=texts, batch_size=7)
    asked = seen_by(encoder, monkeypatch)
    found = make_trainer(limit_predict_batches=limit).predict(encoder, datamodule=data, output="logits")
    assert [len(batch) for batch in found] == [min(7, rows - start) for start in range(0, rows, 7)]
    np.testing.assert_allclose(np.concatenate(found), expected, rtol=1e-5, atol=1e-6)
    assert asked == [rows]


def test_other_weights_have_other_scores(encoder: TextClassifier, make_trainer: Any) -> None:
    data = TextClassificationData.from_lists(predict_data=["a zebra", "a banana"], batch_size=1)
    trainer: Any = make_trainer()
    first = trainer.predict(encoder, datamodule=data, output="logits")
    assert isinstance(encoder.backbone, torch.nn.Module)
    with torch.no_grad():
        for parameter in encoder.backbone.parameters():
            parameter.add_(0.1)
    assert not np.allclose(first, trainer.predict(encoder, datamodule=data, output="logits"))


def test_validation_scores_all_rows_at_once_in_the_trainers_precision(
    encoder: TextClassifier, make_data: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data(labels=LABELS, batch_size=5)
    asked = seen_by(encoder, monkeypatch)
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        (found,) = make_trainer(precision=precision).validate(encoder, datamodule=data)
        losses.append(found["val_loss"])
    assert asked == [len(data.val_dataset)] * 2
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_the_sanity_check_scores_its_rows(
    encoder: TextClassifier, make_data: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data(labels=LABELS, batch_size=5)
    asked = seen_by(encoder, monkeypatch)
    make_trainer(num_sanity_val_steps=2).fit(encoder, datamodule=data)
    assert asked == [10, len(data.val_dataset)]


def test_rows_of_other_labels_are_refused_before_they_are_scored(
    encoder: TextClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = seen_by(encoder, monkeypatch)
    batch = {"texts": numbered(2), "targets": torch.zeros(2, 5)}
    with pytest.raises(DataError, match="the val rows have 5 labels and the model 3"):
        encoder._keep(batch, "val", 0)
    assert not asked
