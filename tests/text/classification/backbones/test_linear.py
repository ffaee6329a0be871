"""The linear backbone beside scikit-learn, its promises of determinism, and the words of its errors."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pytest
from scipy.sparse import csr_array
from scipy.special import expit
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

from flash.core.errors import DataError, FlashError
from flash.text.classification.backbones import linear, reference
from flash.text.classification.backbones.linear import Linear, LinearConfig, LinearSolver, labels_a_block

SMALL = LinearConfig(buckets=2**12)
EXACT = replace(SMALL, tolerance=1e-6, max_passes=1000)
WORDS = ["good", "bad", "Ugly", "häst", "시간", "!!!", "👍🏽", "don't", "x", "toolong"]


def sample(count: int, labels: int, seed: int = 0) -> tuple[pa.Array, csr_array]:
    """Random texts; label j applies where word j % 10 occurs, with some noise."""
    generator = np.random.default_rng(seed)
    drawn = generator.random((count, len(WORDS))) < 0.3
    texts = [" ".join(np.array(WORDS)[row]) for row in drawn]
    targets = drawn[:, np.arange(labels) % len(WORDS)] ^ (generator.random((count, labels)) < 0.1)
    return pa.array(texts, pa.large_string()), csr_array(targets.astype(np.float32))


def fit(
    texts: pa.Array,
    targets: csr_array,
    config: LinearConfig = SMALL,
    *,
    threads: int | None = 1,
    seed: int = 0,
) -> tuple[Linear, LinearSolver]:
    model = Linear(targets.shape[1], config, threads=threads)
    solver = LinearSolver(model, texts, targets, seed=seed)
    while not solver.converged:
        solver.step()
    return model, solver


def same(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    return left.keys() == right.keys() and all(
        np.asarray(left[name]).tobytes() == np.asarray(right[name]).tobytes() for name in left
    )


def dense_rows(solver: LinearSolver) -> npt.NDArray[np.float64]:
    """The training rows (N, F + 1), the constant feature last."""
    rows, model = solver.rows, solver.model
    shape = (len(rows.ends), len(model.arrays()["idf"]))
    matrix = csr_array((rows.values, rows.features, np.concatenate([[0], rows.ends])), shape=shape).toarray()
    return np.hstack([matrix, np.full((shape[0], 1), model.config.bias)]).astype(np.float64)


def test_the_optimum_is_scikit_learns() -> None:
    texts, targets = sample(60, 3)
    model, solver = fit(texts, targets, EXACT)
    matrix = dense_rows(solver)
    for label in range(3):
        oracle = LogisticRegression(
            C=EXACT.regularization, fit_intercept=False, tol=1e-10, max_iter=10_000
        ).fit(matrix, targets.toarray()[:, label])
        found = np.append(model.arrays()["weight"][:, label], model.arrays()["bias"][label])
        np.testing.assert_allclose(found, oracle.coef_[0], atol=2e-4)
        np.testing.assert_allclose(model.logits(texts)[:, label], oracle.decision_function(matrix), atol=5e-4)


@pytest.mark.parametrize("bias", [0.0, 1.0, 3.0])
def test_soft_targets_reach_the_optimum(bias: float) -> None:
    texts, _ = sample(50, 1)
    soft = np.random.default_rng(1).random((50, 2)).astype(np.float32)
    model, solver = fit(texts, csr_array(soft), replace(EXACT, bias=bias))
    matrix, logits = dense_rows(solver), model.logits(texts).astype(np.float64)
    gradient_is_zero = EXACT.regularization * matrix.T @ (soft - expit(logits))
    np.testing.assert_allclose(model.arrays()["weight"], gradient_is_zero[:-1], atol=5e-4)
    np.testing.assert_allclose(model.arrays()["bias"], gradient_is_zero[-1] * bias, atol=5e-4)


def test_the_loss_is_the_mean_cross_entropy() -> None:
    texts, targets = sample(50, 5)
    model, solver = fit(texts, targets, EXACT)
    loss = LinearSolver(Linear(5, SMALL), texts, targets).step()
    assert loss > 0.3  # far from the optimum, where nothing is known yet
    p, t = expit(model.logits(texts).astype(np.float64)), targets.toarray()
    solver._violations[:] = 1.0  # one more pass, at the optimum
    assert solver.step() == pytest.approx(-np.mean(t * np.log(p) + (1 - t) * np.log1p(-p)), abs=1e-4)


def test_rows_are_scikit_learns_tfidf() -> None:
    texts, targets = sample(40, 2)
    solver = LinearSolver(Linear(2, SMALL), texts, targets)
    counts = np.zeros((40, SMALL.buckets))
    for row, text in enumerate(texts.to_pylist()):
        for bucket, times in reference.count_reference(text.lower(), (2, 2, 5), SMALL.buckets).items():
            counts[row, bucket] = times
    buckets = solver.model.arrays()["buckets"]
    expected = TfidfTransformer(sublinear_tf=True).fit_transform(counts[:, buckets]).toarray()
    np.testing.assert_allclose(dense_rows(solver)[:, :-1], expected, atol=1e-6)
    documents = (counts > 0).sum(axis=0)
    assert set(buckets.tolist()) == set(np.flatnonzero(documents).tolist())
    assert np.all(np.diff(documents[buckets]) <= 0)


def test_logits_are_the_references() -> None:
    texts, targets = sample(30, 3)
    model, _ = fit(texts, targets)
    unseen = ["good ugly never-seen 시간 시간 시간", "", "\x00", "!!!"]
    expected = [reference.logits_reference(t, (2, 2, 5), SMALL.buckets, model.arrays()) for t in unseen]
    np.testing.assert_allclose(model.logits(pa.array(unseen)), expected, atol=1e-5)


def test_threads_change_nothing() -> None:
    texts, targets = sample(700, 40)
    config = replace(SMALL, max_passes=4)
    results = [fit(texts, targets, config, threads=threads) for threads in (1, 2, 4, None)]
    logits = [model.logits(texts) for model, _ in results]
    for (model, solver), found in zip(results[1:], logits[1:], strict=True):
        assert same(model.arrays(), results[0][0].arrays())
        assert same(solver.state(), results[0][1].state())
        assert found.tobytes() == logits[0].tobytes()


def test_the_seed_is_the_order_of_rows() -> None:
    texts, targets = sample(50, 2)
    config = replace(SMALL, max_passes=2)
    (first, _), (again, _), (other, _) = (fit(texts, targets, config, seed=seed) for seed in (1, 1, 2))
    assert same(first.arrays(), again.arrays())
    assert not same(first.arrays(), other.arrays())


def test_a_text_does_not_depend_on_its_batch() -> None:
    texts, targets = sample(600, 7)
    model, _ = fit(texts, targets)
    mixed = pa.chunked_array([texts, pa.array(["y" * 20_000, "", "good"], pa.large_string())])
    whole = model.logits(mixed)
    for row in (0, 255, 256, 599, 600, 601, 602):
        assert model.logits(mixed.slice(row, 1)).tobytes() == whole[row].tobytes()
    assert model.logits(mixed.slice(100, 333)).tobytes() == whole[100:433].tobytes()


@pytest.mark.parametrize("done", [0, 1, 3])
def test_resume_equals_uninterrupted(done: int) -> None:
    texts, targets = sample(80, 20)
    model, solver = fit(texts, targets, seed=5)
    first = LinearSolver(Linear(20, SMALL), texts, targets, seed=5)
    for _ in range(done):
        first.step()
    state = first.state()
    first.step()  # the state is a copy
    resumed_model = Linear(20, SMALL)
    resumed = LinearSolver(resumed_model, texts, targets)
    resumed.load_state(state)
    assert resumed.passes == done
    while not resumed.converged:
        resumed.step()
    assert same(resumed.state(), solver.state())
    assert same(resumed_model.arrays(), model.arrays())


def test_a_loaded_state_shows_in_the_logits() -> None:
    texts, targets = sample(40, 3)
    model, solver = fit(texts, targets)
    other = Linear(3, SMALL)
    LinearSolver(other, texts, targets).load_state(solver.state())
    assert other.logits(texts).tobytes() == model.logits(texts).tobytes()


@pytest.mark.parametrize("labels", [1, 6, 30])
@pytest.mark.parametrize(
    "texts",
    [
        ["one"],
        [""],
        ["", "", ""],
        ["same"] * 5,
        ["!!!", "👍", "한", "\x00", "a", " "],
        ["z" * 100_000, "ok"],
    ],
    ids=["one", "one empty", "all empty", "duplicates", "odd", "long"],
)
@pytest.mark.parametrize("value", [0.0, 1.0, 0.5])
def test_degenerate_data_gives_finite_logits(texts: list[str], labels: int, value: float) -> None:
    targets = csr_array(np.full((len(texts), labels), value, dtype=np.float32))
    model, solver = fit(pa.array(texts), targets)
    logits = model.logits(pa.array([*texts, "unseen 새로운"]))
    assert logits.shape == (len(texts) + 1, labels)
    assert logits.dtype == np.float32
    assert np.all(np.isfinite(logits))
    assert solver.passes < 100
    side = np.sign(logits[: len(texts)])
    assert np.all(side == np.sign(value - 0.5)) or np.allclose(logits, 0, atol=1e-5)


def test_it_learns_scripts_symbols_and_lengths() -> None:
    texts = ["좋은 시간", "나쁜 시간", "hyvää huomenta", "huono huomenta", "!!!", "👍👍", "?", "w" * 5000]
    targets = csr_array(np.eye(8, dtype=np.float32))
    model, _ = fit(pa.array(texts), targets, replace(SMALL, regularization=100.0))
    assert model.logits(pa.array(texts)).argmax(axis=1).tolist() == list(range(8))
    similar = ["좋은시간!", "HYVÄÄ", "!!", "👍", "wwww"]
    assert model.logits(pa.array(similar)).argmax(axis=1).tolist() == [0, 2, 4, 5, 7]


def test_an_unfitted_model_says_nothing() -> None:
    model = Linear(3)
    logits = model.logits(pa.array(["a", "b"]))
    assert logits.tolist() == [[0.0] * 3] * 2
    assert model.logits(pa.array([], pa.large_string())).shape == (0, 3)
    assert model.arrays()["weight"].shape == (0, 3)


def test_rare_features_are_dropped_from_many_texts_only() -> None:
    many = pa.array([f"common {'unique' if i == 0 else ''}" for i in range(linear.FEW_TEXTS)])
    few = many.slice(0, 10)
    words = replace(SMALL, char_ngrams=(0, 0), word_ngrams=1, buckets=2**20)
    features = [
        len(fit(texts, csr_array(np.ones((len(texts), 1), np.float32)), words)[0].arrays()["idf"])
        for texts in (many, few)
    ]
    assert features == [1, 2]


def test_huge_label_sets_keep_the_most_frequent_features(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, targets = sample(50, 4)
    everything = LinearSolver(Linear(4, SMALL), texts, targets).model.arrays()["buckets"]
    monkeypatch.setattr(linear, "MOST_WEIGHT_BYTES", 4 * 4 * 20)
    kept = fit(texts, targets)[0].arrays()["buckets"]
    assert kept.tolist() == everything[:20].tolist()


def test_loaded_arrays_may_be_read_only_maps(tmp_path: Path) -> None:
    texts, targets = sample(40, 3)
    model, _ = fit(texts, targets)
    for name, array in model.arrays().items():
        np.save(tmp_path / f"{name}.npy", array)
    maps = {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in model.arrays()}
    loaded = Linear(3, SMALL)
    loaded.load_arrays(maps)
    assert loaded.arrays()["weight"] is maps["weight"]
    assert loaded.logits(texts).tobytes() == model.logits(texts).tobytes()


def test_arrays_that_do_not_fit() -> None:
    texts, targets = sample(40, 3)
    arrays = fit(texts, targets)[0].arrays()
    with pytest.raises(
        FlashError,
        match=r"the model's arrays do not fit: weight is float32 \(\d+, 3\), expected float32 \(\d+, 2\)",
    ):
        Linear(2, SMALL).load_arrays(arrays)
    with pytest.raises(FlashError, match=r"idf is float64 \(\d+,\), expected float32"):
        Linear(3, SMALL).load_arrays({**arrays, "idf": arrays["idf"].astype(np.float64)})
    with pytest.raises(FlashError, match="arrays do not fit: buckets is missing; idf is"):
        Linear(3, SMALL).load_arrays({name: arrays[name] for name in ("idf", "weight", "bias")})
    with pytest.raises(
        FlashError, match=r"buckets holds \d+ to \d+; expected 0 to 63: load it with the options"
    ):
        Linear(3, LinearConfig(buckets=64)).load_arrays(arrays)


def test_states_that_do_not_fit() -> None:
    texts, targets = sample(40, 3)
    state = LinearSolver(Linear(3, SMALL), texts, targets).state()
    other_texts = LinearSolver(Linear(3, SMALL), texts.slice(1), targets[1:])
    other_targets = LinearSolver(Linear(3, SMALL), texts, targets[::-1])
    other_options = LinearSolver(Linear(3, replace(SMALL, regularization=1.0)), texts, targets)
    for solver in (other_texts, other_targets, other_options):
        with pytest.raises(
            FlashError, match="belongs to other texts, targets or options; resume with the data"
        ):
            solver.load_state(state)
    solver = LinearSolver(Linear(3, SMALL), texts, targets)
    with pytest.raises(FlashError, match=r"the solver's state lacks duals; give what state\(\) returned"):
        solver.load_state({name: value for name, value in state.items() if name != "duals"})
    with pytest.raises(
        FlashError, match=r"solver state's arrays do not fit: bias is float32 \(2,\), expected"
    ):
        solver.load_state({**state, "bias": np.zeros(2, np.float32)})


def test_training_data_that_does_not_fit() -> None:
    texts, targets = sample(5, 3)
    with pytest.raises(
        DataError, match=r"4 texts with targets of shape \(5, 3\) for 3 labels; expected targets"
    ):
        LinearSolver(Linear(3), texts.slice(1), targets)
    with pytest.raises(DataError, match=r"5 texts with targets of shape \(5, 3\) for 2 labels"):
        LinearSolver(Linear(2), texts, targets)
    with pytest.raises(DataError, match=r"0 texts .* at least one of each"):
        LinearSolver(Linear(3), texts.slice(0, 0), targets[:0])
    with pytest.raises(DataError, match=r"targets lie between .* and 2\.0; expected 0 to 1"):
        LinearSolver(Linear(3), texts, targets * np.float32(2))
    with pytest.raises(DataError, match="targets lie between nan and nan"):
        LinearSolver(Linear(3), texts, targets * np.float32(np.nan))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"buckets": 1000}, "option buckets of the linear backbone is 1000; expected a power of two"),
        ({"buckets": 32}, "power of two from 64"),
        ({"word_ngrams": -1}, "option word_ngrams of the linear backbone is -1; expected 0 or more"),
        (
            {"char_ngrams": (3, 2)},
            r"option char_ngrams of the linear backbone is \(3, 2\); expected \(shortest",
        ),
        ({"char_ngrams": (0, 0), "word_ngrams": 0}, r"\(0, 0\) if word_ngrams is not 0"),
        ({"min_texts": 0}, "option min_texts of the linear backbone is 0; expected 1 or more"),
        (
            {"regularization": 0.0},
            r"option regularization of the linear backbone is 0\.0; expected a number",
        ),
        ({"bias": -1.0}, r"option bias of the linear backbone is -1\.0; expected 0 or more"),
        ({"tolerance": 1.0}, r"option tolerance of the linear backbone is 1\.0; expected between 0 and 1"),
        ({"max_passes": 0}, "option max_passes of the linear backbone is 0; expected 1 or more"),
    ],
)
def test_options_that_mean_nothing(options: dict[str, Any], words: str) -> None:
    with pytest.raises(FlashError, match=words):
        LinearConfig(**options)


def test_options_survive_a_round_trip() -> None:
    config = LinearConfig(char_ngrams=(1, 3), bias=0.0)
    assert LinearConfig(**asdict(config)) == config
    assert LinearConfig(**{**asdict(config), "char_ngrams": [1, 3]}) == config


@pytest.mark.parametrize("labels", [1, 4, 16, 17, 90, 10_000])
def test_blocks_are_narrow_enough_to_share_and_wide_enough_to_pay(labels: int) -> None:
    assert 4 <= labels_a_block(labels) <= 64
    assert -(-labels // labels_a_block(labels)) >= min(3, -(-labels // 4))


def test_a_prediction_calls_few_functions() -> None:
    texts, targets = sample(40, 3)
    model, _ = fit(texts, targets)
    called: list[str] = []

    def note(frame: Any, event: str, _: Any) -> None:
        if event == "call" and "/flash/text/" in frame.f_code.co_filename.replace("\\", "/"):
            called.append(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        model.logits(texts)
    finally:
        sys.setprofile(None)
    # From Python 3.13 on, the profiler does not hear of compiled functions; up to 3.11, a comprehension is one.
    named = [name for name in called if name not in ("logits_of_texts", "<listcomp>")]
    assert named == ["logits", "in_threads", "fill", "text_buffers"]
    assert called.count("logits_of_texts") == (sys.version_info < (3, 13))


def test_prediction_imports_no_torch_and_no_scipy() -> None:
    code = (
        # numba itself imports this, with which SciPy before 1.16 imports scipy.sparse.
        "import sys, scipy.linalg.cython_lapack; before = set(sys.modules);"
        "import flash.text.classification.backbones.linear as linear, pyarrow as pa;"
        "linear.Linear(2).logits(pa.array(['a']));"
        "print([name for name in ('torch', 'lightning', 'scipy.sparse') if name in set(sys.modules) - before])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_jigsaw(shared_data: Path) -> None:
    columns = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]
    table = pa.csv.read_csv(
        shared_data / "jigsaw_toxic_comments" / "train.csv",
        parse_options=pa.csv.ParseOptions(newlines_in_values=True),
    )
    order = np.random.default_rng(0).permutation(len(table))
    held_out, train = np.sort(order[:1600]), np.sort(order[1600:])
    targets = np.stack([table[name].to_numpy() for name in columns], axis=1).astype(np.float32)
    texts = table["comment_text"]
    model, solver = fit(texts.take(train), csr_array(targets[train]), LinearConfig(), threads=None)
    logits = model.logits(texts.take(held_out))
    assert solver.passes < 30
    assert roc_auc_score(targets[held_out], logits, average="macro") > 0.97
    assert average_precision_score(targets[held_out], logits, average="macro") > 0.61
