"""The linear backbone: its features beside scikit-learn, its predictions, options and the words of its errors."""

import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pytest
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.preprocessing import normalize

from flash.core.errors import DataError, FlashError
from flash.text.classification.backbones.linear import model as linear
from flash.text.classification.backbones.linear import reference
from flash.text.classification.backbones.linear.fitting import LinearSolver
from flash.text.classification.backbones.linear.model import Linear, LinearConfig

SMALL = LinearConfig(buckets=2**12, C=1.0, folds=0)
AUTO = LinearConfig(buckets=2**12, folds=2)
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


def dense_rows(solver: LinearSolver) -> npt.NDArray[np.float64]:
    """The training rows (N, F + 1), the constant feature last."""
    rows, model = solver.rows, solver.model
    shape = (len(rows.ends), len(model.arrays()["idf"]))
    matrix = csr_array((rows.values, rows.features, np.concatenate([[0], rows.ends])), shape=shape).toarray()
    return np.hstack([matrix, np.full((shape[0], 1), model.config.bias)]).astype(np.float64)


@pytest.mark.parametrize("kinds", [("word",), ("character",), ("word", "character")])
def test_rows_are_scikit_learns_tfidf(kinds: tuple[str, ...]) -> None:
    """Words and characters, these with idf to the power 1.5, are two such matrices of length 1 / sqrt(2) each."""
    texts, targets = sample(40, 2)
    grams = (2 if "word" in kinds else 0, *((2, 5) if "character" in kinds else (0, 0)))
    config = replace(SMALL, word_ngrams=grams[0], char_ngrams=grams[1:], length_slope=1.0)
    solver = LinearSolver(Linear(2, config), texts, targets)
    counts = np.zeros((40, SMALL.buckets))
    for row, text in enumerate(texts.to_pylist()):
        for bucket, times in reference.count_reference(text.lower(), grams, SMALL.buckets).items():
            counts[row, bucket] = times
    buckets = solver.model.arrays()["buckets"]
    expected = np.zeros((40, len(buckets)))
    for kind in (0, 1):
        own = np.flatnonzero(buckets % 2 == kind)
        if len(own):
            transformer = TfidfTransformer(sublinear_tf=True, norm=None).fit(counts[:, buckets[own]])
            transformer.idf_ **= 1.5 if kind == 1 else 1.0
            tfidf = normalize(transformer.transform(counts[:, buckets[own]]))
            expected[:, own] = tfidf.toarray() / np.sqrt(len(kinds))
    assert np.mean(np.linalg.norm(expected, axis=1) > 0.99) > 0.9  # one text has no tokens
    np.testing.assert_allclose(dense_rows(solver)[:, :-1], expected, atol=1e-6)
    documents = (counts > 0).sum(axis=0)
    assert set(buckets.tolist()) == set(np.flatnonzero(documents).tolist())
    assert np.all(np.diff(documents[buckets]) <= 0)


def test_logits_are_the_references() -> None:
    texts, targets = sample(30, 3)
    model, _ = fit(texts, targets)
    unseen = ["good ugly never-seen 시간 시간 시간", "", "\x00", "!!!"]
    expected = [reference.logits_reference(t, (2, 2, 5), SMALL.buckets, 0.5, model.arrays()) for t in unseen]
    np.testing.assert_allclose(model.logits(pa.array(unseen)), expected, atol=1e-5)


def test_a_text_does_not_depend_on_its_batch() -> None:
    texts, targets = sample(600, 7)
    model, _ = fit(texts, targets)
    mixed = pa.chunked_array([texts, pa.array(["y" * 20_000, "", "good"], pa.large_string())])
    whole = model.logits(mixed)
    for row in (0, 255, 256, 599, 600, 601, 602):
        assert model.logits(mixed.slice(row, 1)).tobytes() == whole[row].tobytes()
    assert model.logits(mixed.slice(100, 333)).tobytes() == whole[100:433].tobytes()


def test_it_learns_scripts_symbols_and_lengths() -> None:
    texts = ["좋은 시간", "나쁜 시간", "hyvää huomenta", "huono huomenta", "!!!", "👍👍", "?", "w" * 5000]
    targets = csr_array(np.eye(8, dtype=np.float32))
    model, _ = fit(pa.array(texts), targets, replace(SMALL, C=100.0))
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


def test_rare_labels_keep_what_two_of_their_texts_share() -> None:
    count = 2 * linear.FEW_TEXTS
    texts = [f"common word{i // 2}" for i in range(count)]  # each word occurs in two texts
    targets = np.zeros((count, 3), np.float32)
    targets[:, 0] = 1  # frequent: its words are too rare to be features
    targets[[0, 1, 2, 5], 1] = 1  # rare: shares word0 twice, word1 and word2 once
    targets[8:10, 2] = 0.7
    words = replace(SMALL, char_ngrams=(0, 0), word_ngrams=1, buckets=2**20)
    model = Linear(3, words)
    solver = LinearSolver(model, pa.array(texts), csr_array(targets))
    used = set(model.arrays()["buckets"].tolist())
    expected = ["common", "word0", "word4"]
    assert used == {reference.bucket_reference("word", (word,), 2**20) for word in expected}
    assert np.diff(solver.rows.ends, prepend=0)[:12].tolist() == [2, 2] + [1] * 6 + [2, 2, 1, 1]


def test_a_stored_zero_is_no_label() -> None:
    texts = pa.array([f"common word{i // 2}" for i in range(linear.FEW_TEXTS)])
    targets = csr_array(np.ones((linear.FEW_TEXTS, 1), np.float32))
    targets.data[5:] = 0
    plain = targets.copy()
    plain.eliminate_zeros()
    config = replace(SMALL, pos_weight="balanced")
    stored, expected = (fit(texts, given, config)[0] for given in (targets, plain))
    assert stored.logits(texts).tobytes() == expected.logits(texts).tobytes()
    assert targets.nnz == linear.FEW_TEXTS  # the caller's matrix is as it was


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


def test_quantized_weights_give_almost_the_same_logits() -> None:
    texts, targets = sample(300, 5)
    (rounded, _), (exact, _) = (
        fit(texts, targets, replace(SMALL, quantize=quantize)) for quantize in (True, False)
    )
    assert rounded.arrays()["weight"].dtype == np.int8
    assert exact.arrays()["weight"].dtype == np.float32
    again = rounded.arrays()["weight"].tobytes()
    rounded.quantize()
    assert rounded.arrays()["weight"].tobytes() == again
    weight = rounded.arrays()["weight"] * rounded.arrays()["scale"][:, np.newaxis]
    largest = np.abs(exact.arrays()["weight"]).max(axis=1, keepdims=True)
    assert (np.abs(weight - exact.arrays()["weight"]) <= largest / 253).all()
    rounded_logits, exact_logits = rounded.logits(texts), exact.logits(texts)
    assert (rounded_logits != exact_logits).any()
    assert np.abs(rounded_logits - exact_logits).max() < 0.01 * np.abs(exact_logits).max()


def test_weights_of_nothing_are_quantized_to_nothing() -> None:
    texts, targets = sample(50, 2)
    model = Linear(2, SMALL)
    LinearSolver(model, texts, targets)  # its weights are 0
    model.arrays()["weight"][0] = 1e-38, -1e-38
    model.quantize()
    assert not model.arrays()["weight"].any()
    assert (model.arrays()["scale"] == 1).all()
    assert model.logits(texts).tolist() == [[0.0, 0.0]] * 50


def test_arrays_that_do_not_fit() -> None:
    texts, targets = sample(40, 3)
    arrays = fit(texts, targets)[0].arrays()
    with pytest.raises(
        FlashError,
        match=r"the model's arrays do not fit: weight is int8 \(\d+, 3\), expected int8 \(\d+, 2\)",
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
            {"C": 0.0},
            r"option C of the linear backbone is 0\.0; expected a number from 1e-6 to 1e6, or 'auto'",
        ),
        ({"C": 1e7}, "expected a number from 1e-6 to 1e6"),
        ({"C": float("nan")}, "is nan; expected a number from 1e-6"),
        ({"C": "best"}, "is 'best'; expected a number from 1e-6 to 1e6, or 'auto'"),
        ({"C": (1.0, 0.0)}, r"is \(1\.0, 0\.0\); expected a number from 1e-6 to 1e6"),
        ({"C": (1.0, True)}, r"is \(1\.0, True\); expected a value such as 'auto'"),
        ({"pos_weight": "auto"}, "is 'auto'; expected numbers from 1e-6 to 1e6, or 'balanced'"),
        ({"pos_weight": ()}, r"option pos_weight of the linear backbone is \(\); expected numbers"),
        ({"pos_weight": (1.0, -1.0)}, r"is \(1\.0, -1\.0\); expected numbers from 1e-6 to 1e6"),
        ({"pos_weight": (1.0, "2")}, "expected a value such as 1.0"),
        ({"label_weight": 0}, "option label_weight of the linear backbone is 0; expected numbers from 1e-6"),
        ({"label_weight": "balanced"}, "is 'balanced'; expected a value such as 1.0"),
        ({"folds": 1}, "option folds of the linear backbone is 1; expected 0, or 2 to 100"),
        ({"folds": 101}, "expected 0, or 2 to 100"),
        ({"folds": True}, "is True; expected a value such as 3"),
        ({"bias": -1.0}, r"option bias of the linear backbone is -1\.0; expected 0 to 1e6"),
        ({"tolerance": 1.0}, r"option tolerance of the linear backbone is 1\.0; expected between 0 and 1"),
        ({"max_passes": 0}, "option max_passes of the linear backbone is 0; expected 1 or more"),
    ],
)
def test_options_that_mean_nothing(options: dict[str, Any], words: str) -> None:
    with pytest.raises(FlashError, match=words):
        LinearConfig(**options)


def test_options_survive_a_round_trip() -> None:
    config = LinearConfig(char_ngrams=(1, 3), bias=0.0, pos_weight=(1, 2.5), label_weight=(3.0,))
    config = replace(config, C=(0.125, 1))
    assert LinearConfig(**asdict(config)) == config
    lists = {
        "char_ngrams": [1, 3],
        "pos_weight": [1, 2.5],
        "label_weight": [3.0],
        "C": [0.125, 1],
    }
    assert LinearConfig(**{**asdict(config), **lists}) == config
    assert LinearConfig(pos_weight="balanced", C=2).C == 2


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
    assert named == ["logits", "fill", "text_buffers"]
    assert called.count("logits_of_texts") == (sys.version_info < (3, 13))


def test_prediction_imports_no_torch_and_no_scipy() -> None:
    code = (
        # numba itself imports this, with which SciPy before 1.16 imports scipy.sparse.
        "import sys, scipy.linalg.cython_lapack; before = set(sys.modules);"
        "import flash.text.classification.backbones.linear.model as linear, pyarrow as pa;"
        "linear.Linear(2).logits(pa.array(['a']));"
        "print([name for name in ('torch', 'lightning', 'scipy.sparse') if name in set(sys.modules) - before])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("labels", [1, 6, 30])
@pytest.mark.parametrize(
    "texts",
    [["one"], [""], ["", "", ""], ["same"] * 5, ["!!!", "👍", "한", "\x00", "a", " "], ["z" * 100_000, "ok"]],
    ids=["one", "one empty", "all empty", "duplicates", "odd", "long"],
)
@pytest.mark.parametrize("value", [0.0, 1.0, 0.5, 0.8])
def test_degenerate_data_gives_finite_logits(texts: list[str], labels: int, value: float) -> None:
    targets = csr_array(np.full((len(texts), labels), value, dtype=np.float32))
    model, solver = fit(pa.array(texts), targets, AUTO)
    logits = model.logits(pa.array([*texts, "unseen 새로운"]))
    assert logits.shape == (len(texts) + 1, labels)
    assert logits.dtype == np.float32
    assert np.all(np.isfinite(logits))
    assert np.all(np.isfinite(solver.held_out))
    assert solver.passes < 100
    if value in (0.0, 0.5):  # nothing moves the margin from where it starts, or a millionth of a row
        np.testing.assert_allclose(logits, -1.0, atol=1e-4)
    else:
        assert np.all(logits > -0.9)


def test_labels_with_one_side_only_beside_others() -> None:
    texts, targets = sample(300, 3)
    truth = targets.toarray()
    truth[:, 0], truth[:, 1] = 0, 1
    model, solver = fit(texts, csr_array(truth), replace(AUTO, folds=4))
    assert np.all(model.logits(texts)[:, 0] == -1)
    assert np.all(solver.held_out[:, 0] == -1)
    assert np.all(model.logits(texts)[:, 1] > 0)
    assert np.isfinite(solver.held_out).all()


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
    with pytest.raises(DataError, match="1 of 5 texts are null"):
        LinearSolver(Linear(3), pa.array(["a", None, "b", "c", "d"]), targets)
    with pytest.raises(DataError, match="texts are of type int64; expected strings"):
        LinearSolver(Linear(3), pa.array(range(5)), targets)
    with pytest.raises(
        FlashError, match="pos_weight has 2 numbers and the model 3 labels; pass one per label"
    ):
        LinearSolver(Linear(3, replace(SMALL, pos_weight=(1.0, 2.0))), texts, targets)
    configs = {
        "C": replace(SMALL, C=(1.0, 2.0)),
        "label_weight": replace(SMALL, label_weight=(1.0, 2.0)),
    }
    for name, config in configs.items():
        with pytest.raises(
            FlashError, match=f"option {name} of the linear backbone has 2 numbers for 3 labels"
        ):
            LinearSolver(Linear(3, config), texts, targets)


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
    assert solver.passes < 60
    for rows, scores in ((held_out, logits), (train, solver.held_out)):
        assert roc_auc_score(targets[rows], scores, average="macro") > 0.97
        assert average_precision_score(targets[rows], scores, average="macro") > 0.6
