"""The classifiers that `linear.py` measures: ours, and its peers as their users would call them.

Each function of `METHODS` imports what it needs and returns the two steps that are timed: `fit` from a Parquet
file to a saved model, and `load` from the saved model to a function of texts. Imports nothing of these at the top.
"""

import json
import pickle
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# LibMultiLabel's own, of its rcv1 example: a bias, which its functions leave out unless told, ranks far better.
LIBLINEAR = "-s 2 -B 1 -e 0.0001 -q"
Scores = Callable[[list[str]], np.ndarray]  # N texts to (N, L), columns in the order of `Columns.labels`
Loaded = tuple[Scores, np.ndarray | None]  # and (L,) thresholds of its own, reached by `score >= threshold`


@dataclass(frozen=True)
class Columns:
    """Where a file has its texts and targets, and the L labels in the order of all score columns."""

    text: str
    targets: str | list[str]  # one column of names with commas between, or 0/1 columns
    labels: list[str]

    @classmethod
    def of(cls, folder: Path) -> "Columns":
        """Those of the files in this folder."""
        return cls(**json.loads((folder / "columns.json").read_text()))


@dataclass(frozen=True)
class Method:
    """What is timed: a fit of (file, new folder) that returns the path of the model, and loading that path."""

    fit: Callable[[Path, Path], Path]
    load: Callable[[Path], Loaded]


def read(file: Path, columns: Columns) -> tuple[list[str], list[list[str]]]:
    """Texts and the names of the labels of each, by pandas."""
    import pandas as pd

    frame = pd.read_parquet(file)
    if isinstance(columns.targets, str):
        names = [cell.split(",") if cell else [] for cell in frame[columns.targets]]
    else:
        positive = frame[columns.targets].to_numpy() == 1
        names = [[columns.targets[label] for label in np.flatnonzero(row)] for row in positive]
    return frame[columns.text].tolist(), names


def matrix(names: Sequence[Sequence[str]], labels: list[str]) -> np.ndarray:
    """(N, L) 0/1, other names left out; int32, since with int8 OneVsRestClassifier breaks above 127 labels."""
    index = {label: column for column, label in enumerate(labels)}
    targets = np.zeros((len(names), len(labels)), "int32")
    for row, found in enumerate(names):
        targets[row, [index[name] for name in found if name in index]] = 1
    return targets


def flash_linear(columns: Columns, **options: Any) -> Method:
    """Ours through the public interface, with the thresholds that the fit chooses by itself."""
    import flash
    from flash.text import TextClassificationData, TextClassifier
    from flash.text.classification.predictor import Predictor

    def fit(file: Path, folder: Path) -> Path:
        data = TextClassificationData.from_parquet(columns.text, columns.targets, train_file=str(file))
        model = TextClassifier(labels=data.labels, multi_label=True, **options)
        quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = flash.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=folder, **quiet)
        trainer.finetune(model, datamodule=data)
        trainer.save_checkpoint(folder / "model.pt")
        return folder / "model.pt"

    def load(path: Path) -> Loaded:
        predictor = Predictor.load(path)
        order = [predictor.labels.index(label) for label in columns.labels]
        return lambda texts: predictor.probabilities(texts)[:, order], predictor.thresholds[order]

    return Method(fit, load)


def flash_global(columns: Columns) -> Method:
    """Ours with the threshold for all labels that micro-F1 asks for, to see what those of their own give."""
    return flash_linear(columns, threshold_objective="micro_f1")


def flash_plain(columns: Columns) -> Method:
    """Ours without what needs scores of unseen rows: the middle regularisation, no calibration, thresholds of 0.5."""
    return flash_linear(columns, folds=0, thresholds=0.5)


def flash_floats(columns: Columns) -> Method:
    """Ours with weights as the fit left them, in place of 8 bits each."""
    return flash_linear(columns, quantize=False)


def linear_svc(columns: Columns) -> Method:
    """scikit-learn's linear support vector machines on words and characters."""
    from sklearn.svm import LinearSVC

    return _scikit_learn(columns, LinearSVC)


def linear_svc_words(columns: Columns) -> Method:
    """The same on words alone."""
    from sklearn.svm import LinearSVC

    return _scikit_learn(columns, LinearSVC, characters=False)


def logistic_regression(columns: Columns) -> Method:
    """scikit-learn with the same loss as ours."""
    from sklearn.linear_model import LogisticRegression

    return _scikit_learn(columns, lambda: LogisticRegression(C=10, solver="liblinear"))


def _scikit_learn(columns: Columns, make: Callable[[], Any], characters: bool = True) -> Method:
    """TF-IDF of words 1-2 and of characters 2-5 inside words, and one classifier a label."""
    import pandas  # noqa: F401  # so that its import is not timed
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline, make_union

    def fit(file: Path, folder: Path) -> Path:
        texts, names = read(file, columns)
        parts = [TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)]
        if characters:
            parts.append(TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2))
        pipeline = make_pipeline(make_union(*parts), OneVsRestClassifier(make()))
        pipeline.fit(texts, matrix(names, columns.labels))
        with (folder / "model.pickle").open("wb") as stream:
            pickle.dump(pipeline, stream, pickle.HIGHEST_PROTOCOL)
        return folder / "model.pickle"

    def load(path: Path) -> Loaded:
        with path.open("rb") as stream:
            return pickle.load(stream).decision_function, None

    return Method(fit, load)


def one_vs_rest(columns: Columns) -> Method:
    """LibMultiLabel's `train_1vsrest` on its own features."""
    return _libmultilabel(columns, "train_1vsrest", thresholds=None)


def thresholding(columns: Columns) -> Method:
    """LibMultiLabel's `train_thresholding`, which chooses by cross-validation from where on a label applies."""
    above_zero = np.full(len(columns.labels), np.nextafter(0, 1))
    return _libmultilabel(columns, "train_thresholding", thresholds=above_zero)


def _libmultilabel(columns: Columns, trainer: str, thresholds: np.ndarray | None) -> Method:
    import libmultilabel.linear as lml  # type: ignore[import-not-found, import-untyped, unused-ignore]
    import libmultilabel.linear.linear as module  # type: ignore[import-not-found, import-untyped, unused-ignore]
    import pandas  # noqa: F401  # so that its import is not timed

    class Numpy:
        """NumPy as version 0.10 of the package means it: its `np.sum(y, 2)` is the sum of each column."""

        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

        @staticmethod
        def sum(values: Any, axis: int | None = None) -> Any:
            return np.asarray(values.sum(axis=0)) if axis == 2 else np.sum(values, axis)

    module.np = Numpy()

    def fit(file: Path, folder: Path) -> Path:
        texts, names = read(file, columns)
        data = {"data_format": "txt", "train": {"x": texts, "y": names}, "classes": columns.labels}
        preprocessor = lml.Preprocessor()
        rows = preprocessor.fit_transform(data)["train"]
        np.random.seed(0)  # the folds of its cross-validation
        model = getattr(lml, trainer)(rows["y"], rows["x"], options=LIBLINEAR, verbose=False)
        lml.save_pipeline(str(folder), preprocessor, model)
        return folder / "linear_pipeline.pickle"

    def load(path: Path) -> Loaded:
        preprocessor, model = lml.load_pipeline(str(path))

        def scores(texts: list[str]) -> np.ndarray:
            rows = preprocessor.transform(
                {"data_format": "txt", "test": {"x": texts, "y": [[] for _ in texts]}}
            )
            values: np.ndarray = model.predict_values(rows["test"]["x"])
            return values

        return scores, thresholds

    return Method(fit, load)


def fasttext_ova(columns: Columns) -> Method:
    """FastText with one binary loss a label; pairs of words, no characters inside words.

    The better of two settings tried on a fifth of the Reuters rows (which favours it there, since the rows measured
    overlap with them): with characters (minn=2, maxn=5) training took five times as long, and the best micro-F1 was
    0.75 instead of 0.81. It reads tokens as they stand: they are put in lower case and punctuation is set off.
    """
    import fasttext  # type: ignore[import-not-found, import-untyped, unused-ignore]
    import pandas  # noqa: F401  # so that its import is not timed

    def line(text: str) -> str:
        return " ".join(re.findall(r"\w+|[^\w\s]", text.lower())) + "\n"

    def fit(file: Path, folder: Path) -> Path:
        texts, names = read(file, columns)
        index = {label: f"__label__{column}" for column, label in enumerate(columns.labels)}
        with (folder / "train.txt").open("w") as stream:
            for text, found in zip(texts, names, strict=True):
                # A line without a label would be skipped: such rows get one of their own, which is not scored.
                stream.write(" ".join(map(index.__getitem__, found)) or "__label__none")
                stream.write(f" {line(text)}")
        options = {
            "loss": "ova",
            "wordNgrams": 2,
            "lr": 0.5,
            "epoch": 25,
            "dim": 100,
            "thread": 2,
            "verbose": 0,
        }
        fasttext.train_supervised(str(folder / "train.txt"), **options).save_model(str(folder / "model.bin"))
        return folder / "model.bin"

    def load(path: Path) -> Loaded:
        model = fasttext.load_model(str(path)).f  # its wrapper fails for one text under NumPy 2, and for a
        # list it repeats the probability of the first label

        def scores(texts: list[str]) -> np.ndarray:
            values = np.zeros((len(texts), len(columns.labels)))
            for row, text in enumerate(texts):
                for probability, label in model.predict(line(text), -1, 0.0, "strict"):
                    if label != "__label__none":
                        values[row, int(label.removeprefix("__label__"))] = probability
            return values

        return scores, None

    return Method(fit, load)


METHODS: dict[str, Callable[[Columns], Method]] = {
    "flash": flash_linear,
    "flash-floats": flash_floats,
    "flash-global": flash_global,
    "flash-plain": flash_plain,
    "svc": linear_svc,
    "svc-words": linear_svc_words,
    "logistic": logistic_regression,
    "1vsrest": one_vs_rest,
    "thresholding": thresholding,
    "fasttext": fasttext_ova,
}
TITLES = {
    "flash": "flash linear",
    "flash-floats": "flash linear, quantize=False (weights of 32 bits)",
    "flash-global": "flash linear, one threshold for all labels",
    "flash-plain": "flash linear, folds=0 (no calibration, no thresholds)",
    "svc": "scikit-learn LinearSVC, words and characters",
    "svc-words": "scikit-learn LinearSVC, words",
    "logistic": "scikit-learn LogisticRegression(C=10), words and characters",
    "1vsrest": "LibMultiLabel train_1vsrest",
    "thresholding": "LibMultiLabel train_thresholding",
    "fasttext": "fastText ova, words",
}
PACKAGES = {
    "sklearn": "scikit-learn",
    "libmultilabel": "libmultilabel",
    "fasttext": "fasttext-wheel",
    "pandas": "pandas",
}
