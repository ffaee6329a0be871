"""What the length of a text changes in its scores: fitted on scores of unseen rows, bounded, the same on all threads."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import csv
from scipy.sparse import csc_array, csr_array

from flash.text.classification.backbones.linear.evidence import Evidence, evidence_units, fit_evidence
from flash.text.classification.backbones.linear.fitting import LinearSolver
from flash.text.classification.backbones.linear.model import Linear, LinearConfig
from flash.text.classification.scores.calibration import fit_calibration
from flash.text.classification.scores.outputs import Calibration, to_probabilities
from flash.text.classification.scores.threshold_tuning import choose_thresholds

Doubles = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
ONE_EACH = np.array([0.5, 0.5])


def sigmoid(logits: Doubles) -> Doubles:
    """Probabilities."""
    probabilities: Doubles = 1 / (1 + np.exp(-logits))
    return probabilities


def rows(count: int, labels: int, wrong: float, seed: int = 0) -> tuple[Singles, Singles, Doubles]:
    """Logits (N, L), targets drawn by them, and lengths (N, 2); those of short texts are `wrong` times too large."""
    generator = np.random.default_rng(seed)
    lengths = np.exp(generator.normal(size=count)).repeat(2).reshape(count, 2)
    logits = generator.normal(-1, 2, (count, labels))
    targets = generator.random((count, labels)) < sigmoid(logits)
    told = np.where(lengths[:, :1] < 1, logits * wrong, logits)
    return told.astype(np.float32), targets.astype(np.float32), lengths


def loss(logits: npt.NDArray[np.floating], targets: Singles) -> float:
    """The mean cross-entropy of a cell, in nats."""
    return float(np.mean(np.logaddexp(0, logits) - targets * logits))


def fitted(scores: Singles, targets: Singles, lengths: Doubles, threads: int = 1) -> Evidence:
    found = fit_evidence(
        scores,
        csc_array(targets),
        lengths,
        ONE_EACH,
        calibration=Calibration.identity(scores.shape[1]),
        threads=threads,
    )
    assert found is not None
    return found


def test_scores_of_short_texts_that_are_too_sure_are_put_right() -> None:
    scores, targets, lengths = rows(20_000, 3, wrong=1.5)
    amounts = lengths @ ONE_EACH
    found = fitted(scores, targets, lengths)
    enough = amounts > found.places[5]  # of the others, nothing is believed
    true = np.where(amounts[:, np.newaxis] < 1, scores / 1.5, scores)
    before, after, best = (
        loss(fit_calibration(each, csr_array(targets), multi_label=True).apply(each)[enough], targets[enough])
        for each in (scores, found.apply(amounts, scores), true)
    )
    assert best < after < before
    assert before - after > (before - best) / 2


@pytest.mark.parametrize(("count", "most"), [(200, 0.35), (20_000, 0.05)])
def test_scores_that_are_right_stay(count: int, most: float) -> None:
    """Whatever chance says of 200 rows, the prior keeps within a third of a standard deviation."""
    scores, targets, lengths = rows(count, 5, wrong=1.0)
    slope, shift, _ = fitted(scores, targets, lengths).by_label
    assert np.abs(slope).max() < most
    assert np.abs(shift).max() < most


def test_a_label_with_few_texts_keeps_its_scores() -> None:
    scores, targets, lengths = rows(5000, 2, wrong=2.0)
    targets[:, 1] = 0
    targets[:9, 1] = 1
    slope, shift, _ = fitted(scores, targets, lengths).by_label
    assert slope[0] != 0 != shift[0]
    assert slope[1] == shift[1] == 0


def test_rows_that_are_not_known_count_nowhere() -> None:
    scores, targets, lengths = rows(2000, 1, wrong=1.5)
    unknown = np.concatenate([targets, np.full((700, 1), np.nan, np.float32)])
    more = np.concatenate([scores, scores[:700]]), np.concatenate([lengths, lengths[:700]])
    few, many = fitted(scores, targets, lengths), fitted(more[0], unknown, more[1])
    assert many.by_label[2] == pytest.approx(few.by_label[2], rel=1e-5)
    np.testing.assert_allclose(many.by_label[:2], few.by_label[:2], atol=0.02)  # u has other quantiles


def test_no_number_of_threads_changes_it() -> None:
    scores, targets, lengths = rows(3000, 9, wrong=1.3)
    one, four = (fitted(scores, targets, lengths, threads) for threads in (1, 4))
    assert one.by_label.tobytes() == four.by_label.tobytes()
    assert one.places.tobytes() == four.places.tobytes()


@settings(deadline=None, max_examples=30)
@given(wrong=st.sampled_from([0.02, 1.0, 50.0]), amount=st.floats(1e-3, 1e3), seed=st.integers(0, 50))
def test_texts_of_the_same_length_keep_their_order(wrong: float, amount: float, seed: int) -> None:
    scores, targets, lengths = rows(300, 2, wrong, seed)
    found = fitted(scores, targets, lengths)
    ladder = np.linspace(-20, 20, 41, dtype=np.float32).repeat(2).reshape(41, 2)
    changed = found.apply(np.full(41, amount), ladder)
    assert np.all(np.diff(changed, axis=0) >= 0)
    assert amount < 0.5 or np.all(np.diff(changed, axis=0) > 0)


def test_less_evidence_is_nearer_to_the_base_rate() -> None:
    scores, targets, lengths = rows(3000, 2, wrong=1.0)
    found = fitted(scores, targets, lengths)
    enough = float(found.places[5])
    assert np.mean(lengths @ ONE_EACH < enough) == pytest.approx(0.05, abs=0.005)
    amounts = enough * np.array([0.0, 0.1, 0.3, 0.6, 1.0])
    changed = found.apply(amounts, np.full((5, 2), 4, np.float32))
    assert np.all(np.diff(changed, axis=0) > 0)
    assert sigmoid(changed[0]) == pytest.approx(targets.mean(axis=0), abs=1e-3)


def test_evidence_of_words_or_characters_alone() -> None:
    lengths = np.array([[2.0, 10.0], [4.0, 30.0]])
    assert evidence_units(lengths, 0.5).tolist() == pytest.approx([0.5 / 3, 0.5 / 20])
    assert evidence_units(lengths * [1, 0], 0.5).tolist() == pytest.approx([1 / 3, 0])
    assert evidence_units(lengths * 0, 0.5).tolist() == [0, 0]
    nothing = np.zeros((2, 1), np.float32), csc_array((2, 1), dtype=np.float32), lengths * 0, ONE_EACH
    assert fit_evidence(*nothing) is None


# ---- in the model ------------------------------------------------------------------------------------------------


def notes(count: int) -> tuple[pa.Array, csr_array]:
    """Sentences of a few dozen words, and two labels that some of the words tell."""
    generator = np.random.default_rng(0)
    hot = generator.random((count, 2)) < [0.3, 0.1]
    texts = []
    for row in hot:
        words = generator.choice(["we", "are", "here", "and", "there", "with", "them", "today"], 20).tolist()
        words += ["late"] * int(row[0] or generator.random() < 0.1) + ["lost"] * int(row[1])
        texts.append(" ".join(generator.permutation(words)))
    return pa.array(texts, pa.large_string()), csr_array(hot.astype(np.float32))


def solved(texts: pa.Array, targets: csr_array, config: LinearConfig) -> tuple[Linear, LinearSolver]:
    model = Linear(targets.shape[1], config, threads=1)
    solver = LinearSolver(model, texts, targets)
    while not solver.converged:
        solver.step()
    return model, solver


@pytest.mark.parametrize("text", ["", " ", "?", "zxqv", "你好", "😀", "y"])
def test_a_text_that_training_knows_nothing_of_has_the_base_rates(text: str) -> None:
    texts, targets = notes(600)
    model, solver = solved(texts, targets, LinearConfig(buckets=2**14))
    calibration = fit_calibration(solver.held_out, targets[solver.held_out_rows], multi_label=True)
    found = to_probabilities(calibration.apply(model.logits(pa.array([text]))), multi_label=True)[0]
    assert found == pytest.approx(np.asarray(targets.mean(axis=0)), abs=0.05)
    known = to_probabilities(calibration.apply(model.logits(texts)), multi_label=True)
    assert known.max() > 0.9  # and others are told apart


def test_a_model_of_before_predicts_as_it_did() -> None:
    """Its file has none of the three arrays; its rows have length one."""
    texts, targets = notes(200)
    old, _ = solved(texts, targets, LinearConfig(buckets=2**14, length_slope=1.0, folds=0))
    arrays = old.arrays()
    assert arrays["norms"].tolist() == [[0, 1], [0, 1]]
    assert not arrays["evidence"].any()
    named = ("buckets", "idf", "weight", "scale", "bias")
    read = Linear(2, LinearConfig(buckets=2**14))
    read.load_arrays({name: arrays[name] for name in named})
    assert read.logits(texts).tobytes() == old.logits(texts).tobytes()


def test_without_folds_only_rows_are_normalised() -> None:
    model, _ = solved(*notes(200), LinearConfig(buckets=2**14, folds=0))
    assert model.arrays()["norms"][:, 1].tolist() == pytest.approx([0.8, 0.8])
    assert not model.arrays()["evidence"].any()


# ---- genuine data ------------------------------------------------------------------------------------------------

HARMLESS = [
    "hi", "hello there", "good evening", "thanks a lot", "thank you", "you", "they", "she", "me", "a", "the", "ok",
    "no problem", "welcome to Wikipedia", "happy birthday", "I am Jewish", "Muslim", "I am a woman", "black", "deaf people",
]  # fmt: skip
RUDE = ["fuck you", "you are an idiot", "you suck", "stupid moron", "piece of shit", "what an asshole"]
NOTHING = ["", "x", "?", "1", "zxqwv", "of the and to", "привет", "你好", "مرحبا", "😀"]


def test_short_comments_of_jigsaw(shared_data: Path) -> None:
    """Trained on 16,000 comments, nearly none of which is shorter than 20 characters."""
    names = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]
    options = csv.ParseOptions(newlines_in_values=True)
    table = csv.read_csv(shared_data / "jigsaw_toxic_comments" / "train.csv", parse_options=options)
    targets = csr_array(np.stack([table[name].to_numpy() for name in names], axis=1).astype(np.float32))
    texts = table["comment_text"]
    model = Linear(6)
    solver = LinearSolver(model, texts, targets)
    while not solver.converged:
        solver.step()
    truth = targets[solver.held_out_rows]
    calibration = fit_calibration(solver.held_out, truth, multi_label=True)
    unseen = to_probabilities(calibration.apply(solver.held_out), multi_label=True)
    thresholds = choose_thresholds(unseen, truth, ("macro_f1",) * 6).thresholds

    def labelled(some: list[str]) -> list[str]:
        logits = model.logits(pa.array(some, pa.large_string()))
        applies = to_probabilities(calibration.apply(logits), multi_label=True) >= thresholds
        return [text for text, row in zip(some, applies, strict=True) if row.any()]

    assert len(labelled(HARMLESS)) <= 1
    assert labelled(RUDE) == RUDE
    assert labelled(NOTHING) == []
    lengths = np.array([len(text) for text in texts.take(solver.held_out_rows).to_pylist()])
    found = truth.toarray()
    for low, high in ((0, 40), (40, 80), (80, 160), (160, 320), (320, 640), (640, 10**6)):
        part = (lengths >= low) & (lengths < high)
        for label in np.flatnonzero(found[part].sum(axis=0) >= 50):
            mean = unseen[part, label].astype(np.float64)
            error = float(np.sqrt((mean * (1 - mean)).sum())) / part.sum()
            assert abs(mean.mean() - found[part, label].mean()) < max(0.01, 1.96 * error)
