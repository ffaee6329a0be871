"""How good the models of `encoder.py --quality` are: ours, its export, and transformers' `Trainer`.

Each function of `QUALITY` takes a `Case` whose rows to measure chose nothing, runs in a process of its own, and
answers numbers. Imports nothing heavy at the top, and nothing of the project.
"""

from functools import partial
from pathlib import Path

import numpy as np
from encoder_prediction import int8_export
from encoder_training import Case, Methods, Numbers, fit_flash, fit_trainer, tokenized
from linear import decided, ranking

EPOCHS = 3


def quality_flash(case: Case) -> Numbers:
    """Ours with its defaults, saved for `quality_int8`."""
    trainer, _, clock = fit_flash(case, epochs=EPOCHS, equal=False)
    path = Path(case.folder) / "model.pt"
    trainer.save_checkpoint(path, weights_only=True)
    return {"seconds": clock.wall, **quality_of_predictor(case, path)}


def quality_int8(case: Case) -> Numbers:
    """The model of `quality_flash`, exported with weights of 8 bits."""
    return quality_of_predictor(case, int8_export(case))


def quality_of_predictor(case: Case, path: Path) -> Numbers:
    """Scores of a model that was trained without validation rows, so that it is not calibrated yet."""
    from flash.text.classification.predictor import Predictor

    predictor = Predictor.load(path, precision=case.precision)
    texts, targets = case.read("measure")
    order = [predictor.labels.index(label) for label in case.columns.labels]
    return qualities(predictor.logits(texts)[:, order], texts, targets)


def quality_trainer(case: Case, equal: bool = False) -> Numbers:
    """`Trainer` with its defaults but for the size of a batch, or with ours."""
    trainer, tokenizer, clock = fit_trainer(case, epochs=EPOCHS, equal=equal)
    texts, targets = case.read("measure")
    logits = trainer.predict(tokenized(tokenizer, texts, targets)).predictions
    return {"seconds": clock.wall, **qualities(np.asarray(logits, np.float32), texts, targets)}


def qualities(logits: np.ndarray, texts: list[str], targets: np.ndarray) -> Numbers:
    """Average precision and ROC AUC of (N, L) scores; F1 by thresholds of each half of the rows on the other."""
    above = np.empty_like(logits)
    first, second = halves(texts, targets)
    for chosen, measured in ((first, second), (second, first)):
        above[measured] = above_threshold(logits, targets, chosen)[measured]
    zeros = np.zeros(logits.shape[1], np.float32)
    return {**ranking(targets, logits), **decided(targets, above, [zeros])}


def halves(texts: list[str], targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two stratified halves of the rows; identical texts stay together."""
    from scipy.sparse import csr_array

    from flash.text.classification.targets.stratified_split import stratified_split

    _, groups = np.unique(np.array(texts, object), return_inverse=True)
    return stratified_split(csr_array(targets), 0.5, groups=groups, seed=0)


def above_threshold(logits: np.ndarray, targets: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(N, L) probabilities less their thresholds, both made on the rows `chosen`."""
    from flash.text.classification.scores.calibration import fit_calibration
    from flash.text.classification.scores.outputs import to_probabilities
    from flash.text.classification.scores.threshold_tuning import choose_thresholds

    calibration = fit_calibration(logits[chosen], targets[chosen], multi_label=True)
    probabilities = to_probabilities(calibration.apply(logits), multi_label=True)
    return probabilities - choose_thresholds(probabilities[chosen], targets[chosen]).thresholds


QUALITY: Methods = {
    "flash": quality_flash,
    "int8": quality_int8,
    "trainer": quality_trainer,
    "trainer-equal": partial(quality_trainer, equal=True),
}
