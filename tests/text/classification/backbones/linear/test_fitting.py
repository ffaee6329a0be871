"""The linear backbone's fit beside SciPy's and scikit-learn's optimum, its stages, folds, resume and errors."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pytest
from scipy.optimize import minimize
from scipy.sparse import csc_array, csr_array
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.svm import LinearSVC

from flash.core.errors import DataError, FlashError
from flash.text.classification.backbones.linear import reference
from flash.text.classification.backbones.linear.features import Texts
from flash.text.classification.backbones.linear.fitting import SMALL_FOLDS, LinearSolver
from flash.text.classification.backbones.linear.held_out import (
    GRID,
    MIDDLE,
    calibrated_loss,
    fold_of_each,
)
from flash.text.classification.backbones.linear.label_blocks import LabelBlocks, relative_costs
from flash.text.classification.backbones.linear.model import Linear, LinearConfig
from flash.text.classification.scores.calibration import fit_calibration
from flash.text.classification.scores.outputs import to_probabilities

SMALL = LinearConfig(buckets=2**12, C=1.0, folds=0)
FLOATS = replace(SMALL, quantize=False)
EXACT = replace(FLOATS, tolerance=1e-5, max_passes=2000)
FOLDS = replace(SMALL, folds=4)
AUTO = replace(SMALL, C="auto", folds=4)
WORDS = ["good", "bad", "Ugly", "häst", "시간", "!!!", "👍🏽", "don't", "x", "toolong"]


def sample(count: int, labels: int, seed: int = 0, noise: float = 0.1) -> tuple[pa.Array, csr_array]:
    """Random texts; label j applies where word j % 10 occurs, with some noise."""
    generator = np.random.default_rng(seed)
    drawn = generator.random((count, len(WORDS))) < 0.3
    texts = [" ".join(np.array(WORDS)[row]) for row in drawn]
    targets = drawn[:, np.arange(labels) % len(WORDS)] ^ (generator.random((count, labels)) < noise)
    return pa.array(texts, pa.large_string()), csr_array(targets.astype(np.float32))


def clean_sample(count: int, labels: int) -> tuple[pa.Array, csr_array]:
    """Texts of 20 of 200 words; label j applies where word j occurs."""
    drawn = np.random.default_rng(0).integers(0, 200, (count, 20))
    texts = [" ".join(f"w{word}" for word in row) for row in drawn]
    targets = np.stack([(drawn == label).any(axis=1) for label in range(labels)], axis=1)
    return pa.array(texts, pa.large_string()), csr_array(targets.astype(np.float32))


def partly_known(targets: csr_array) -> csr_array:
    """The same targets, of which each label but the first knows another share."""
    dense = targets.toarray()
    unknown = np.linspace(0, 0.7, dense.shape[1])
    dense[np.random.default_rng(3).random(dense.shape) < unknown] = np.nan
    return csr_array(dense)


def fit(
    texts: Texts, targets: csr_array, config: LinearConfig = SMALL, *, threads: int | None = 1, seed: int = 0
) -> tuple[Linear, LinearSolver]:
    model = Linear(targets.shape[1], config, threads=threads)
    return model, run(LinearSolver(model, texts, targets, seed=seed))


def run(solver: LinearSolver) -> LinearSolver:
    """Step to the end."""
    while not solver.converged:
        solver.step()
    return solver


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


def optimum(
    rows: npt.NDArray[np.float64], targets: npt.NDArray[np.float64], without: float, having: float
) -> npt.NDArray[np.float64]:
    """The weights (F + 1,) at the minimum of one label's primal objective, by L-BFGS."""
    found = minimize(
        reference.objective_reference,
        np.zeros(rows.shape[1]),
        args=(rows, targets, np.array([without, having])),
        jac=True,
        method="L-BFGS-B",
        options={"ftol": 1e-13, "gtol": 1e-6, "maxiter": 5000, "maxfun": 10000},
    )
    weight: npt.NDArray[np.float64] = found.x
    return weight


@pytest.mark.parametrize(
    ("options", "without", "having"),
    [
        ({}, [1, 1, 1], [1, 1, 1]),
        ({"bias": 0.0}, [1, 1, 1], [1, 1, 1]),
        ({"bias": 3.0, "C": 10.0}, [10, 10, 10], [10, 10, 10]),
        ({"pos_weight": 3}, [1, 1, 1], [3, 3, 3]),
        ({"pos_weight": (0.5, 2.0, 7.0)}, [1, 1, 1], [0.5, 2, 7]),
        ({"label_weight": 0.5, "C": 4}, [2, 2, 2], [2, 2, 2]),
        ({"label_weight": (1, 2, 3), "pos_weight": (3, 1, 0.1)}, [1, 2, 3], [3, 2, 0.3]),
    ],
)
@pytest.mark.parametrize("soft", [False, True])
def test_the_optimum_is_that_of_the_primal_objective(
    options: dict[str, Any], without: list[float], having: list[float], soft: bool
) -> None:
    texts, targets = sample(60, 3)
    if soft:
        targets = csr_array(np.random.default_rng(1).random((60, 3)).round(1).astype(np.float32))
    model, solver = fit(texts, targets, replace(EXACT, **options))
    rows, truth, margins = dense_rows(solver), targets.toarray().astype(np.float64), model.logits(texts)
    for label in range(3):
        weight = optimum(rows, truth[:, label], without[label], having[label])
        expected = reference.scores_reference(rows, weight)
        np.testing.assert_allclose(margins[:, label], expected, atol=1e-3)


def test_balanced_costs_make_both_sides_count_alike() -> None:
    texts, targets = sample(60, 3)
    truth = targets.toarray()
    truth[truth == 0] = np.float32(0.25)  # soft: nearer to no than to yes
    positives = (truth >= 0.5).sum(axis=0)
    weights = tuple(float((60 - count) / count) for count in positives)
    balanced, given = (
        fit(texts, csr_array(truth), replace(EXACT, pos_weight=weight))[0] for weight in ("balanced", weights)
    )
    assert balanced.logits(texts).tobytes() == given.logits(texts).tobytes()
    assert min(weights) > 1.2


@pytest.mark.parametrize("weight", [1.0, 4.0])
def test_the_optimum_is_scikit_learns(weight: float) -> None:
    """With a large constant feature it hardly costs anything to move the margin's start, which LinearSVC has at 0."""
    texts, targets = sample(60, 3)
    model, solver = fit(texts, targets, replace(EXACT, bias=10.0, pos_weight=weight))
    matrix = dense_rows(solver)[:, :-1]
    for label in range(3):
        oracle = LinearSVC(
            loss="squared_hinge",
            dual=False,
            intercept_scaling=10.0,
            class_weight={0: 1, 1: weight},
            tol=1e-8,
            max_iter=10_000,
        ).fit(matrix, targets.toarray()[:, label])
        np.testing.assert_allclose(model.logits(texts)[:, label], oracle.decision_function(matrix), atol=0.02)


def test_the_loss_is_the_mean_squared_hinge() -> None:
    texts, targets = sample(50, 1)
    solver = LinearSolver(Linear(1, EXACT), texts, targets)
    assert solver.step() > 0.3  # far from the optimum, where nothing is known yet
    last = 0.0
    while not solver.converged:
        last = solver.step()
    signs = 2 * targets.toarray() - 1
    expected = np.mean(np.maximum(0, 1 - signs * solver.model.logits(texts).astype(np.float64)) ** 2)
    assert last == pytest.approx(expected, abs=1e-4)
    assert solver.step() == last  # nothing more is done
    assert solver.passes > 5


@pytest.mark.parametrize(
    "config", [AUTO, FOLDS, replace(SMALL, max_passes=4)], ids=["auto", "folds", "plain"]
)
def test_threads_change_nothing(config: LinearConfig) -> None:
    texts, targets = sample(300, 23)
    results = [fit(texts, targets, config, threads=threads) for threads in (1, 2, 4, None)]
    for model, solver in results[1:]:
        assert same(model.arrays(), results[0][0].arrays())
        assert same(solver.state(), results[0][1].state())
        assert solver.held_out.tobytes() == results[0][1].held_out.tobytes()
        assert model.logits(texts).tobytes() == results[0][0].logits(texts).tobytes()
    again = [results[0][0], Linear(23, config, threads=3)]
    again[1].load_arrays({name: array.copy() for name, array in results[0][0].arrays().items()})
    first, second = (run(LinearSolver(model, texts, targets)) for model in again)  # from the weights it has
    assert same(second.state(), first.state()) == (config is not AUTO)  # of which the first chose its options


def test_growth_of_scores_goes_from_the_bias_alone() -> None:
    """In calibrated logits it is one number, less for a label with few positives; to a softmax it is all the same."""
    texts, targets = clean_sample(600, 10)
    models = []
    for multi_label in (True, False):
        model = Linear(10, replace(FLOATS, folds=2), threads=1)
        solver = run(LinearSolver(model, texts, targets, multi_label=multi_label))
        models.append(model.arrays())
    assert (models[0]["weight"] == models[1]["weight"]).all()
    calibration = fit_calibration(solver.held_out, targets[solver.held_out_rows], multi_label=True)
    growth = (models[1]["bias"] - models[0]["bias"]) * calibration.scale
    positives = targets.sum(axis=0)
    number = growth * (positives + 200) / positives
    assert number[0] != 0
    np.testing.assert_allclose(number, number[0], rtol=0.05)


def test_no_growth_is_followed_where_many_texts_are_alike() -> None:
    """All rows of one text are in one part, which then has about as many rows as a fold, or more."""
    texts, targets = clean_sample(300, 4)
    alike = pa.concat_arrays([texts.slice(0, 200), pa.array(["n/a"] * 100, pa.large_string())])
    targets = csr_array(np.vstack([targets[:200].toarray(), np.zeros((100, 4), np.float32)]))
    rows = LinearSolver(Linear(4, replace(FLOATS, folds=3)), alike, targets).rows
    parts = [fold_of_each(rows, SMALL_FOLDS, seed) for seed in range(40)]
    [seed, *_] = [seed for seed, part in enumerate(parts) if part is not None and part[-1] == 0]
    biases = []
    for multi_label in (True, False):
        model = Linear(4, replace(FLOATS, folds=3), threads=1)
        run(LinearSolver(model, alike, targets, seed=seed, multi_label=multi_label))
        biases.append(model.arrays()["bias"])
    assert np.isfinite(biases[0]).all()
    assert (biases[0] == biases[1]).all()


def test_the_seed_is_the_order_of_rows_and_the_folds() -> None:
    texts, targets = sample(80, 2)
    for config in (replace(SMALL, max_passes=2), FOLDS):
        results = [fit(texts, targets, config, seed=seed) for seed in (1, 1, 2)]
        (first, again, other) = [{**model.arrays(), "scores": solver.held_out} for model, solver in results]
        assert same(first, again)
        assert not same(first, other)
    (one, _), (other_one, _) = (fit(texts, targets, EXACT, seed=seed) for seed in (1, 2))
    np.testing.assert_allclose(one.logits(texts), other_one.logits(texts), atol=1e-3)


def test_resume_at_every_step_equals_uninterrupted() -> None:
    texts, whole = sample(210, 5)
    for config, targets in ((AUTO, whole), (FOLDS, whole), (SMALL, whole), (AUTO, partly_known(whole))):
        first = LinearSolver(Linear(5, config), texts, targets, seed=5)
        states = [first.state()]
        while not first.converged:
            first.step()
            states.append(first.state())
        for state in states:
            resumed_model = Linear(5, config)
            resumed = LinearSolver(resumed_model, texts, targets)  # the seed comes with the state
            resumed.load_state(state)
            assert resumed.passes == state["passes"]
            assert same(resumed.state(), state)  # and the state was a copy
            run(resumed)
            assert same(resumed.state(), states[-1])
            assert same(resumed_model.arrays(), first.model.arrays())
            assert resumed_model.config == first.model.config
            assert resumed.held_out.tobytes() == first.held_out.tobytes()
    assert states[-1]["passes"] > 3


def test_a_model_that_has_its_c_resumes_among_its_folds() -> None:
    texts, targets = sample(210, 5)
    first = LinearSolver(Linear(5, AUTO), texts, targets)
    while first.model.config.C == "auto":
        first.step()
    resumed = LinearSolver(Linear(5, first.model.config), texts, targets)
    resumed.load_state(first.state())
    assert run(resumed).held_out.tobytes() == run(first).held_out.tobytes()


def test_a_loaded_state_shows_in_the_logits() -> None:
    texts, targets = sample(40, 3)
    model, solver = fit(texts, targets)
    other = Linear(3, SMALL)
    LinearSolver(other, texts, targets).load_state(solver.state())
    assert other.logits(texts).tobytes() == model.logits(texts).tobytes()


def test_data_get_the_c_that_suits_them() -> None:
    texts, clean = clean_sample(600, 6)
    noise = (np.random.default_rng(1).random((600, 6)) < 0.3).astype(np.float32)
    results = {}
    for name, targets in {"clean": clean, "noise": csr_array(noise)}.items():
        solver = LinearSolver(Linear(6, AUTO), texts, targets)
        tried = [solver.C]
        while solver.model.config.C == "auto":
            assert np.isnan(solver.held_out).all()
            solver.step()
            tried.append(solver.C)
        assert np.all(tried[0] == np.float32(GRID[0]))
        assert np.all(np.isin(tried, GRID))
        assert (tried[-1] == solver.model.config.C).all()
        results[name] = solver.model.config.C, {float(value) for value in np.unique(tried)}
        assert np.isfinite(run(solver).held_out).all()
    assert results["clean"] == (GRID[-1], set(GRID))
    assert results["noise"] == (GRID[0], set(GRID[:2]))  # it stops where it gets no better


def test_labels_with_a_c_of_their_own() -> None:
    texts, targets = sample(80, 3)
    own, _ = fit(texts, targets, replace(FLOATS, C=(0.125, 0.3, 4)))
    for label, C in enumerate((0.125, 0.3, 4.0)):
        alone, _ = fit(texts, targets[:, [label]], replace(FLOATS, C=C))
        assert alone.logits(texts)[:, 0].tobytes() == own.logits(texts)[:, label].tobytes()
    assert own.config.C == (0.125, 0.3, 4)  # as it was given


@pytest.mark.parametrize("config", [AUTO, replace(AUTO, folds=0)])
def test_few_rows_or_no_folds_take_the_middle_c(config: LinearConfig) -> None:
    texts, targets = sample(100 if config.folds else 300, 3)
    auto, given = (fit(texts, targets, replace(config, C=c)) for c in ("auto", MIDDLE))
    assert auto[0].config.C == "auto"  # with more rows, it can still be chosen
    assert (np.float32(MIDDLE) == auto[1].C).all()
    assert same(auto[0].arrays(), given[0].arrays())
    assert auto[1].passes == given[1].passes


@pytest.mark.parametrize("config", [AUTO, FOLDS, replace(FOLDS, folds=10, C=0.125)])
def test_held_out_scores_have_not_seen_their_row(config: LinearConfig) -> None:
    generator = np.random.default_rng(0)
    truth = generator.random(400) < 0.5
    texts = pa.array([f"common unique{i} rare{i}" for i in range(400)])
    targets = csr_array(truth[:, None].astype(np.float32))
    model, solver = fit(texts, targets, replace(config, char_ngrams=(0, 0), buckets=2**20), seed=1)
    assert roc_auc_score(truth, model.logits(texts)[:, 0]) == 1.0
    folds = fold_of_each(solver.rows, config.folds, 1)
    assert folds is not None
    for fold in range(config.folds):  # across folds, the share of the label in the others tells it apart
        rows = folds == fold
        assert np.ptp(solver.held_out[rows]) < 1e-4  # as of a text with "common" only


@pytest.mark.parametrize("config", [FOLDS, replace(FOLDS, bias=0.5, pos_weight=3.0)])
def test_held_out_scores_are_those_of_a_fit_without_the_fold(config: LinearConfig) -> None:
    texts, targets = clean_sample(300, 2)
    model, solver = fit(texts, targets, replace(config, char_ngrams=(0, 0)))
    folds = fold_of_each(solver.rows, 4, 0)
    rows, truth = dense_rows(solver), targets.toarray().astype(np.float64)
    assert folds is not None
    exact = np.zeros((300, 2))
    for fold in range(4):
        for label in range(2):
            inside, outside = folds == fold, folds != fold
            positive = 1.0 if config.pos_weight == 1 else 3.0
            weight = optimum(rows[outside], truth[outside, label], 1.0, positive)
            exact[inside, label] = reference.scores_reference(rows[inside], weight)
    error = np.sqrt(np.mean((solver.state()["held_out"] - exact) ** 2))  # before they are mixed
    seen = np.sqrt(np.mean((model.logits(texts) - exact) ** 2))
    assert error < 0.1
    assert seen > 4 * error  # the scores of the rows' own fit are further away


def test_identical_texts_share_a_fold() -> None:
    numbers = np.random.default_rng(0).integers(0, 100, 1000)
    texts = [f"text {i}" if at % 3 else f"  TEXT  {i} " for at, i in enumerate(numbers)]  # one to the model
    targets = csr_array((numbers % 2).astype(np.float32)[:, np.newaxis])
    rows = LinearSolver(Linear(1, replace(SMALL, buckets=2**16)), pa.array(texts), targets).rows
    folds = fold_of_each(rows, 5, seed=3)
    assert folds is not None
    of_number = dict(zip(numbers.tolist(), folds.tolist(), strict=True))
    assert [of_number[number] for number in numbers.tolist()] == folds.tolist()
    assert np.bincount(list(of_number.values())).tolist() == [20] * 5
    again, other = fold_of_each(rows, 5, seed=3), fold_of_each(rows, 5, seed=4)
    assert again is not None
    assert again.tolist() == folds.tolist()
    assert other is not None
    assert other.tolist() != folds.tolist()


@pytest.mark.parametrize(("different", "folds"), [(1, 2), (3, 4), (4, 4), (50, 0)])
def test_held_out_scores_need_as_many_texts_as_folds(different: int, folds: int) -> None:
    texts = pa.array([f"text{i % different}" for i in range(250)])
    targets = csr_array((np.arange(250) % 3 == 0).astype(np.float32)[:, None])
    for C in (1.0, "auto"):
        config = replace(SMALL, folds=folds, C=C)
        _, solver = fit(texts, targets, config)
        known = 250 if folds and different >= folds else 0
        assert solver.held_out.shape == (known, 1)
        assert np.isfinite(solver.held_out).all()


@pytest.mark.parametrize("config", [SMALL, replace(FOLDS, folds=10)])
def test_a_second_fit_starts_from_the_weights_of_the_first(config: LinearConfig) -> None:
    texts, targets = sample(500, 6)
    model, _ = fit(texts.slice(0, 450), targets[:450], config)
    scratch, cold = fit(texts, targets, config)
    warm = run(LinearSolver(model, texts, targets, seed=7))
    assert warm.passes < cold.passes
    np.testing.assert_allclose(model.logits(texts), scratch.logits(texts), atol=0.3)
    assert len(model.arrays()["idf"]) == len(scratch.arrays()["idf"])
    done = run(LinearSolver(model, texts, targets, seed=8))  # nothing new to learn
    assert done.passes <= warm.passes
    exact, _ = fit(texts, targets, EXACT)
    model.config = EXACT
    run(LinearSolver(model, texts, targets, seed=9))
    np.testing.assert_allclose(model.logits(texts), exact.logits(texts), atol=2e-3)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_second_fit_of_one_sided_labels(value: float) -> None:
    texts, targets = sample(50, 3)
    one_sided = csr_array(np.full((50, 3), value, np.float32))
    model, _ = fit(texts, one_sided, EXACT)
    before = model.logits(texts)
    again = run(LinearSolver(model, texts, one_sided, seed=1))
    np.testing.assert_allclose(model.logits(texts), before, atol=1e-3)
    assert again.passes < 20
    run(LinearSolver(model, texts, targets))  # and from there to others
    np.testing.assert_allclose(model.logits(texts), fit(texts, targets, EXACT)[0].logits(texts), atol=1e-3)


def test_a_second_fit_has_not_seen_the_held_out_rows_either() -> None:
    truth = np.random.default_rng(0).random(400) < 0.5
    texts = pa.array([f"common unique{i} rare{i}" for i in range(400)])
    targets = csr_array(truth[:, None].astype(np.float32))
    config = replace(AUTO, char_ngrams=(0, 0), buckets=2**20)
    model, _ = fit(texts, targets, config)
    model.config = config  # choose again
    solver = run(LinearSolver(model, texts, targets))
    folds = fold_of_each(solver.rows, 4, 0)
    assert folds is not None
    assert all(np.ptp(solver.held_out[folds == fold]) < 1e-4 for fold in range(4))


@pytest.mark.parametrize("C", [1e-6, 1e6])
def test_an_extreme_c_stays_finite(C: float) -> None:
    texts, targets = sample(250, 3)
    config = replace(FOLDS, C=C, max_passes=20)
    config = replace(config, pos_weight=C, label_weight=C)
    model, solver = fit(texts, targets, config)
    assert np.isfinite(model.logits(texts)).all()
    assert np.isfinite(solver.held_out).all()


def test_the_loss_to_choose_by_is_the_cross_entropy_of_calibrated_scores() -> None:
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(300, 3)).astype(np.float32)
    targets = csr_array((scores + generator.normal(size=scores.shape) > 1).astype(np.float32))
    logits = fit_calibration(scores, targets, multi_label=True).apply(scores)
    probabilities = to_probabilities(logits, True).astype(np.float64)
    expected = [log_loss(targets.toarray()[:, k], probabilities[:, k]) for k in range(3)]
    assert calibrated_loss(scores, targets) == pytest.approx(np.mean(expected), rel=1e-5)
    soft = csr_array(targets.toarray() * np.float32(0.75))
    again = fit_calibration(scores, soft, multi_label=True).apply(scores).astype(np.float64)
    cells = np.logaddexp(0, again) - soft.toarray() * again
    assert calibrated_loss(scores, soft) == pytest.approx(cells.mean(), rel=1e-5)


def test_states_that_do_not_fit() -> None:
    texts, targets = sample(220, 3)
    for config in (SMALL, AUTO):
        state = LinearSolver(Linear(3, config), texts, targets).state()
        others = [
            LinearSolver(Linear(3, config), texts.slice(1), targets[1:]),
            LinearSolver(Linear(3, config), texts, targets[::-1]),
            LinearSolver(Linear(3, replace(config, C=0.5)), texts, targets),
            LinearSolver(Linear(3, replace(config, C=GRID[0])), texts, targets),
            LinearSolver(Linear(3, replace(config, label_weight=2.0)), texts, targets),
            LinearSolver(Linear(3, replace(config, folds=3)), texts, targets),
        ]
        if config is SMALL:  # of 1.0, which "auto" would not be at
            others.append(LinearSolver(Linear(3, replace(config, C="auto")), texts, targets))
        for solver in others:
            before = solver.state()
            with pytest.raises(
                FlashError, match="belongs to other texts, targets or options; resume with the"
            ):
                solver.load_state(state)
            assert same(solver.state(), before)
    finished = fit(texts, targets)[1].state()
    with pytest.raises(FlashError, match="belongs to other texts, targets or options"):
        LinearSolver(Linear(3, replace(SMALL, C="auto")), texts, targets).load_state(finished)
    solver = LinearSolver(Linear(3, SMALL), texts, targets)
    with pytest.raises(FlashError, match=r"the solver's state lacks duals; give what state\(\) returned"):
        solver.load_state({name: value for name, value in finished.items() if name != "duals"})
    with pytest.raises(
        FlashError, match=r"solver state's arrays do not fit: bias is float32 \(2,\), expected"
    ):
        solver.load_state({**finished, "bias": np.zeros(2, np.float32)})


def test_texts_that_come_several_times_are_no_reason_for_confidence() -> None:
    """Each has words of its own, which some rows share and no other fold has."""
    generator = np.random.default_rng(0)
    truth = generator.random(2_500) < 0.5
    heard = np.where(generator.random(2_500) < 0.2, ~truth, truth)
    words = [f"{'miaow' if cat else 'woof'} own{i} only{i}" for i, cat in enumerate(heard)]
    texts = pa.array(words[:2_000] * 5)
    targets = csr_array(np.tile(truth[:2_000], 5).astype(np.float32)[:, np.newaxis])
    model, solver = fit(texts, targets, replace(FOLDS, char_ngrams=(0, 0), buckets=2**16))
    assert len(model.arrays()["idf"]) > 4_000
    new = model.logits(pa.array(words[2_000:]))[:, 0] * np.where(heard[2_000:], 1, -1)
    held_out = solver.held_out[:, 0] * np.tile(np.where(heard[:2_000], 1, -1), 5)
    assert held_out.mean() == pytest.approx(new.mean(), rel=0.25)


def test_held_out_rows_score_as_new_texts_do() -> None:
    """Numbers that a row alone has are no part of a new text's row: they must not make held-out margins smaller."""
    generator = np.random.default_rng(1)
    cats = generator.random(500) < 0.5
    heard = np.where(generator.random(500) < 0.2, ~cats, cats)
    words = [
        f"{'miaow' if cat else 'woof'} {number}"
        for cat, number in zip(heard, generator.permutation(500), strict=True)
    ]
    texts, targets = pa.array(words, pa.large_string()), csr_array(np.float32(np.stack([cats, ~cats], 1)))
    model = Linear(2, replace(FOLDS, C=0.125))
    solver = LinearSolver(model, texts.slice(0, 350), targets[:350])
    while not solver.converged:
        solver.step()
    sign = np.where(heard, 1, -1)
    held_out = np.mean(solver.held_out[:, 0] * sign[:350])
    new = np.mean(model.logits(texts.slice(350))[:, 0] * sign[350:])
    assert held_out == pytest.approx(new, rel=0.15)


# ---- targets that are not known: each label is fitted as on the rows where its own is


@pytest.mark.parametrize("weight", [1.0, "balanced"])
def test_the_optimum_is_that_of_the_known_rows(weight: Any) -> None:
    texts, whole = sample(80, 4)
    targets = partly_known(whole)
    model, solver = fit(texts, targets, replace(EXACT, pos_weight=weight))
    rows, truth, margins = dense_rows(solver), targets.toarray().astype(np.float64), model.logits(texts)
    for label in range(4):
        known = ~np.isnan(truth[:, label])
        positives = truth[known, label].sum()
        having = (known.sum() - positives) / positives if weight == "balanced" else 1.0
        expected = reference.scores_reference(rows, optimum(rows[known], truth[known, label], 1.0, having))
        np.testing.assert_allclose(margins[:, label], expected, atol=1e-3)


def test_a_pass_is_bit_for_bit_that_of_the_known_rows() -> None:
    texts, whole = sample(120, 5)
    targets = csc_array(partly_known(whole))
    model = Linear(5, FLOATS, threads=2)
    rows = model.fit_features(texts, csc_array(whole))
    together, costs = LabelBlocks(model, rows, targets), relative_costs(FLOATS, targets)
    orders = [np.random.default_rng(number).permutation(120) for number in range(4)]
    for order in orders:
        together.run_pass(order, costs, 0.01)
    for label in range(5):
        alone = Linear(1, FLOATS)
        alone.fit_features(texts, csc_array(whole)[:, [label]])
        arrays = {**alone.arrays(), **{name: model.arrays()[name] for name in ("buckets", "idf", "scale")}}
        arrays["weight"] = np.zeros((len(arrays["idf"]), 1), np.float32)
        alone.load_arrays(arrays)
        dense = targets[:, [label]].toarray()
        known = np.flatnonzero(~np.isnan(dense[:, 0]))
        own = LabelBlocks(alone, rows, csc_array(np.nan_to_num(dense)))
        for order in orders:
            own.run_pass(order[np.isin(order, known)], costs[:, [label]], 0.01)
        for name in ("duals", "weight", "bias", "violations"):
            np.testing.assert_array_equal(together.gather(name)[..., [label]], own.gather(name))


def test_the_loss_is_the_mean_over_the_known_cells() -> None:
    texts, whole = sample(60, 4)
    targets = partly_known(whole)
    solver = LinearSolver(Linear(4, EXACT, threads=2), texts, targets)
    run(solver)
    dense = targets.toarray().astype(np.float64)
    known = ~np.isnan(dense)
    margins = solver.model.logits(texts).astype(np.float64)
    # in the last pass only some labels still move: of those it is the mean
    last = np.mean(np.maximum(0, 1 - (2 * dense - 1) * margins)[known] ** 2)
    fresh = LinearSolver(Linear(4, EXACT), texts, targets)
    first = fresh.step()
    assert 0 < last < first


def test_held_out_scores_are_those_of_a_fit_of_the_known_rows_without_the_fold() -> None:
    texts, whole = clean_sample(400, 3)
    targets = partly_known(whole)
    _, solver = fit(texts, targets, replace(FOLDS, char_ngrams=(0, 0)))
    folds = fold_of_each(solver.rows, 4, 0)
    rows, truth = dense_rows(solver), targets.toarray().astype(np.float64)
    assert folds is not None
    found = solver.state()["held_out"]
    for label in range(3):
        known = ~np.isnan(truth[:, label])
        exact = np.zeros(400)
        for fold in range(4):
            outside = (folds != fold) & known
            weight = optimum(rows[outside], truth[outside, label], 1.0, 1.0)
            exact[folds == fold] = reference.scores_reference(rows[folds == fold], weight)
        assert np.sqrt(np.mean((found[known, label] - exact[known]) ** 2)) < 0.1


def test_nothing_of_an_unknown_row_is_learnt() -> None:
    """Its text is there, for the features; whether its label applies changes nothing."""
    texts, whole = sample(300, 3)
    dense = whole.toarray()
    dense[:, 2] = np.nan  # a label of which nothing is known
    dense[0, 2] = 0
    model, solver = fit(texts, csr_array(dense), replace(FOLDS, quantize=False))
    arrays = model.arrays()
    assert np.abs(arrays["weight"][:, :2]).max() > 0.1
    assert np.isfinite(solver.held_out).all()
    again, _ = fit(texts, csr_array(dense), replace(FOLDS, quantize=False), threads=3)
    assert same(model.arrays(), again.arrays())


@pytest.mark.parametrize("config", [AUTO, FOLDS])
def test_threads_change_nothing_where_targets_are_unknown(config: LinearConfig) -> None:
    texts, whole = sample(300, 23)
    results = [fit(texts, partly_known(whole), config, threads=threads) for threads in (1, 4)]
    assert same(results[0][0].arrays(), results[1][0].arrays())
    assert results[0][1].held_out.tobytes() == results[1][1].held_out.tobytes()


def test_a_second_fit_with_unknown_targets_ends_where_the_first_does() -> None:
    texts, whole = sample(100, 3)
    targets = partly_known(whole)
    model, first = fit(texts, targets, EXACT)
    before = model.logits(texts)
    second = run(LinearSolver(model, texts, targets, seed=1))
    np.testing.assert_allclose(model.logits(texts), before, atol=2e-3)
    assert second.passes < first.passes
    duals = second.state()["duals"]
    assert (duals[np.isnan(targets.toarray())] == 0).all()


def test_the_loss_to_choose_by_is_that_of_the_known_cells() -> None:
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(300, 3)).astype(np.float32)
    targets = partly_known(csr_array((scores + generator.normal(size=scores.shape) > 1).astype(np.float32)))
    probabilities = to_probabilities(fit_calibration(scores, targets, multi_label=True).apply(scores), True)
    known = ~np.isnan(targets.toarray())
    expected = log_loss(targets.toarray()[known], probabilities[known].astype(np.float64))
    assert calibrated_loss(scores, targets) == pytest.approx(expected, rel=1e-5)


def test_targets_out_of_range_are_refused_beside_unknown_ones() -> None:
    texts, _ = sample(2, 1)
    with pytest.raises(DataError, match=r"targets lie between -1\.0 and 1\.0; expected 0 to 1"):
        LinearSolver(
            Linear(3, SMALL), texts, csr_array(np.array([[1, np.nan, -1], [0, 1, np.nan]], np.float32))
        )
