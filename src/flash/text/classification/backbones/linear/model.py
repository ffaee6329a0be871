"""The linear backbone: hashed n-grams, TF-IDF, and one linear classifier per label; `fitting` trains it.

Word n-grams and in-word character n-grams of the normalised text are hashed into buckets; a bucket that training has seen
is a feature with an inverse document frequency and one weight per label. Imports neither torch nor lightning; the
compiled loops are imported on use.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from flash.core.errors import FlashError
from flash.core.threads import in_threads
from flash.text.classification.backbones.linear.features import (
    CHUNK,
    Rows,
    Texts,
    choose_features,
    count_grams,
    text_buffers,
    weigh_grams,
    word_share_for,
)

if TYPE_CHECKING:  # scipy.sparse is slow to import, and prediction needs none of it
    from scipy.sparse import csc_array

MANY_TEXTS = 20_000  # of so many, one has to have a feature
FEW_TEXTS = 1000  # with fewer, a feature of a single text may be all there is to learn from
MOST_WEIGHT_BYTES = 2**31
MOST_BUCKETS = 2**24
"""A file of 2 kB can ask for any number of buckets, and each takes 4 bytes of memory."""
MOST_COST = 1e6
"""What multiplies costs is up to this, and down to its inverse, so that no product leaves float32."""
RARE = 50
"""A label with fewer texts is rare."""
PREDICTS = ("idf", "norms", "weight", "scale", "bias", "evidence", "evidence_by_label")
"""The arrays that the compiled loop takes, in its order."""
NUMBERS = object()
"""Stands for a tuple of any number of numbers."""


@dataclass(frozen=True)
class LinearConfig:
    """The options of the linear backbone: plain values, a part of the model file."""

    word_ngrams: int = 2
    """Maximum length of word n-grams; 0 for none."""
    char_ngrams: tuple[int, int] = (2, 5)
    """Character n-gram lengths; `(0, 0)` for none. The shortest and the longest, within a word and its boundaries."""
    buckets: int = 4_194_304
    """Hash buckets for n-grams, a power of two. Words and characters get half each."""
    word_share: float | Literal["auto"] = "auto"
    """Weight of words against characters, or auto. Between 0 and 1: the share of words in the squared norm of a text's
    row; `"auto"` is 0.5 for little training text, up to 0.8 for much."""
    length_slope: float = 0.8
    """Slope of pivoted length normalization. Above 0 and up to 1: a row is divided by
    this much of its own norm and, for the rest, by the mean norm of training texts, so that short texts are not
    inflated."""
    min_texts: int = 3
    """Minimum document frequency of an n-gram. A feature also needs one training text in 20,000, or two texts of a rare
    label (one with fewer than 50 texts); below 1,000 training texts, every n-gram is a feature."""
    C: float | Literal["auto"] | tuple[float, ...] = "auto"
    """Inverse regularization strength: a number, a list, or auto. As in scikit-learn's LinearSVC, C weighs the training
    loss against half the squared norm of a label's weights, and is above 0; `"auto"` is the smallest of 0.125, 0.25, 0.5,
    1 and 2 of which the next is not clearly better on held-out rows."""
    pos_weight: float | Literal["balanced"] | tuple[float, ...] | None = None
    """Weight of positives in the loss: a number, one per label, or balanced. `"balanced"` is, for each label, the number
    of texts without it over the number of texts with it; None is 1. `TextClassifier` also takes a dict by label."""
    label_weight: float | tuple[float, ...] = 1.0
    """Factor of C: a number, or one per label."""
    folds: int = 3
    """Cross-validation folds; 0 for none. They give held-out scores of the training rows, on which calibration and
    thresholds are fitted."""
    bias: float = 1.0
    """Value of the constant feature; 0 for no bias. Its weight is regularized like any other."""
    tolerance: float = 0.3
    """Maximum gradient at convergence. It is that of a dual variable, in units of the margin."""
    max_passes: int = 100
    """Maximum passes over the training rows."""
    quantize: bool = True
    """Whether to round weights to 8 bits after the fit. Each feature has one scale; file and memory shrink to a fourth."""

    def __post_init__(self) -> None:
        for name in ("char_ngrams", "C", "pos_weight", "label_weight"):
            if isinstance(getattr(self, name), list):  # a model file gives one
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for field in fields(self):
            value = getattr(self, field.name)
            kinds = (*OTHER_KINDS.get(field.name, ()), field.default)
            if not any(is_alike(value, kind) for kind in kinds):
                example = kinds[0] if field.default is None else field.default
                raise FlashError(
                    f"option {field.name} of the linear backbone is {value!r}; expected a value such as {example!r}"
                )
        shortest, longest = self.char_ngrams
        weights = {
            name: np.atleast_1d(
                1.0 if value is None or isinstance(value, str) else np.asarray(value, np.float64)
            )
            for name in ("C", "pos_weight", "label_weight")
            for value in [getattr(self, name)]
        }
        positive = {
            name: bool(value.size) and bool(np.all((value >= 1 / MOST_COST) & (value <= MOST_COST)))
            for name, value in weights.items()
        }
        rules = {
            "word_ngrams": (self.word_ngrams >= 0, "0 or more"),
            "char_ngrams": (
                1 <= shortest <= longest or (shortest, longest) == (0, 0) != (self.word_ngrams, 0),
                "(shortest, longest) with 1 <= shortest <= longest, or (0, 0) if word_ngrams is not 0",
            ),
            "buckets": (
                64 <= self.buckets <= MOST_BUCKETS and self.buckets & (self.buckets - 1) == 0,
                f"a power of two from 64 to {MOST_BUCKETS}",
            ),
            "word_share": (
                isinstance(self.word_share, str) or 0.01 <= self.word_share <= 0.99,
                "a number from 0.01 to 0.99, or 'auto'",
            ),
            "length_slope": (0.01 <= self.length_slope <= 1, "a number from 0.01 to 1"),
            "min_texts": (self.min_texts >= 1, "1 or more"),
            "C": (positive["C"], "a number from 1e-6 to 1e6, or 'auto'"),
            "pos_weight": (positive["pos_weight"], "numbers from 1e-6 to 1e6, or 'balanced'"),
            "label_weight": (positive["label_weight"], "numbers from 1e-6 to 1e6"),
            "folds": (self.folds == 0 or 2 <= self.folds <= 100, "0, or 2 to 100"),
            "bias": (0 <= self.bias <= 1e6, "0 to 1e6"),
            "tolerance": (0 < self.tolerance < 1, "between 0 and 1"),
            "max_passes": (self.max_passes >= 1, "1 or more"),
        }
        for name, word in (
            ("C", "auto"),
            ("pos_weight", "balanced"),
            ("word_share", "auto"),
        ):
            if isinstance(value := getattr(self, name), str) and value != word:
                rules[name] = (False, rules[name][1])
        for name, (holds, expected) in rules.items():
            if not holds:
                raise FlashError(
                    f"option {name} of the linear backbone is {getattr(self, name)!r}; expected {expected}"
                )


OTHER_KINDS: dict[str, tuple[Any, ...]] = {
    "C": (1.0, NUMBERS),
    "word_share": (1.0,),
    "pos_weight": (1.0, "balanced", NUMBERS),
    "label_weight": (NUMBERS,),
}
"""What an option may be beside a value like its default."""


def is_alike(value: Any, default: Any) -> bool:
    """Whether a value has the type of an option's default; JSON-like lists stand for tuples."""
    if default is NUMBERS:
        return type(value) in (list, tuple) and all(is_alike(number, 1.0) for number in value)
    if type(default) is tuple:
        length = len(value) if type(value) in (list, tuple) else -1
        return length == len(default) and all(map(is_alike, value, default))
    if type(value) is int and abs(value) >= 2**31:  # more than any option means, and than the loops count
        return False
    return type(value) is type(default) or (type(default) is float and type(value) is int)


class Linear:
    """The linear model: features, inverse document frequencies and weights.

    Without a fit there are no features and every logit is 0.0.

    Args:
        num_labels: L, the number of columns of the logits.
        config: The options.
        threads: Maximum number of threads; None for one per processor. The result does not depend on it.

    Attributes:
        word_share: Share of words in the squared length of a row with words and characters.
    """

    def __init__(
        self, num_labels: int, config: LinearConfig = LinearConfig(), *, threads: int | None = None
    ) -> None:
        self.config = config
        self.num_labels = num_labels
        self.threads = threads
        self.word_share = 0.5 if isinstance(config.word_share, str) else float(config.word_share)
        self._grams = (config.word_ngrams, *config.char_ngrams)
        self.load_arrays(
            {
                "buckets": np.zeros(0, np.int32),
                "idf": np.zeros(0, np.float32),
                "weight": np.zeros((0, num_labels), np.float32),
                "scale": np.zeros(0, np.float32),
                "bias": np.zeros(num_labels, np.float32),
            }
        )

    @property
    def fitted(self) -> bool:
        """Whether biases or weights other than 0 were fitted or loaded; otherwise every score is 0."""
        return bool(self._arrays["bias"].any() or self._arrays["weight"].any())

    def choose(self, **options: Any) -> None:
        """Replace "auto" by options that were chosen from the data."""
        self.config = replace(self.config, **options)
        self.word_share = float(options.get("word_share", self.word_share))

    def logits(self, texts: Texts) -> npt.NDArray[np.float32]:
        """Return logits (N, L) of texts, which do not influence each other.

        Raises:
            DataError: `texts` are not strings, or a text is null.
        """
        from flash.text.classification.backbones.linear.kernels import character_classes, logits_of_texts

        logits = np.empty((len(texts), self.num_labels), dtype=np.float32)
        classes = character_classes()
        idf, norms, weight, scale, bias, evidence, by_label = self._constants
        grams, rows, share = self._grams, self._rows, self.word_share

        def fill(start: int) -> None:
            buffers = text_buffers(texts.slice(start, CHUNK))
            chunk = logits[start : start + CHUNK]
            output = scale, bias, evidence, by_label, chunk
            logits_of_texts(*buffers, classes, grams, rows, idf, share, norms, weight, *output)

        if 0 < len(texts) <= CHUNK:
            fill(0)
        else:
            in_threads(self.threads, fill, range(0, len(texts), CHUNK))
        return logits

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays that prediction needs beside the options, without copying.

        Features are in descending order of their number of training texts:
        `buckets` (F,) int32, the bucket of each; `idf` (F,) float32; `weight` (F, L) float32, or int8 once they
        are quantized; `scale` (F,) float32, what each feature's weights are multiplied by; `bias` (L,) float32,
        added to the logits; `norms` (2, 2) float32, how rows are normalised (see `kernels.part_scale`);
        `evidence` (6,) and `evidence_by_label` (3, L) float32, what a text's length changes (see `evidence`).
        """
        return dict(self._arrays)

    def load_arrays(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Load the arrays of `arrays`, without copying; they may be read-only memory maps.

        Files without `norms` and `evidence`, of earlier versions, predict as before.

        Raises:
            FlashError: An array is missing, or does not match `num_labels` and the options.
        """
        arrays = {**self._defaults(), **arrays}
        features = len(arrays["buckets"]) if "buckets" in arrays else 0
        quantized = "weight" in arrays and arrays["weight"].dtype == np.int8
        expected: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {
            "buckets": ((features,), np.int32),
            "idf": ((features,), np.float32),
            "weight": ((features, self.num_labels), np.int8 if quantized else np.float32),
            "scale": ((features,), np.float32),
            "bias": ((self.num_labels,), np.float32),
            **{name: (array.shape, np.float32) for name, array in self._defaults().items()},
        }
        check_arrays("model", arrays, expected)
        buckets = arrays["buckets"]
        if features and not 0 <= buckets.min() <= buckets.max() < self.config.buckets:
            raise FlashError(
                f"model array buckets holds {buckets.min()} to {buckets.max()}; expected 0 to "
                f"{self.config.buckets - 1}: load it with the options that it was trained with"
            )
        self._arrays = {name: arrays[name] for name in expected}
        rows = np.full(self.config.buckets, -1, dtype=np.int32)
        rows[buckets] = np.arange(features, dtype=np.int32)
        self._rows = rows
        self._constants = [self._arrays[name].view() for name in PREDICTS]
        for constant in self._constants:
            constant.flags.writeable = False  # one type, one compilation, for trained and loaded models

    def _defaults(self) -> dict[str, npt.NDArray[np.float32]]:
        """What says that each row has length one, whatever its text's length, which changes no score."""
        return {
            "norms": np.array([[0, 1], [0, 1]], np.float32),
            "evidence": np.zeros(6, np.float32),
            "evidence_by_label": np.zeros((3, self.num_labels), np.float32),
        }

    def fit_features(self, texts: Texts, targets: "csc_array") -> Rows:
        """Choose the features from training texts, set their weights to 0, and return the texts' rows."""
        config = self.config
        counted = count_grams(texts, self._grams, config.buckets, self.threads)
        if config.word_share == "auto":
            self.choose(word_share=word_share_for(counted))
        min_texts = max(config.min_texts, len(texts) // MANY_TEXTS) if len(texts) >= FEW_TEXTS else 1
        rare = np.zeros(len(texts), np.bool_)
        support = np.diff(targets.indptr)
        for label in np.flatnonzero((support > 0) & (support < RARE)):
            rare[targets.indices[targets.indptr[label] : targets.indptr[label + 1]]] = True
        most = MOST_WEIGHT_BYTES // (4 * max(self.num_labels, 1))
        buckets, idf = choose_features(counted, rare, config.buckets, min_texts, most)
        self.load_arrays(
            {
                "buckets": buckets,
                "idf": idf,
                "weight": np.zeros((len(buckets), self.num_labels), np.float32),
                "scale": np.ones(len(buckets), np.float32),
                "bias": np.zeros(self.num_labels, np.float32),
            }
        )
        options = self.word_share, config.length_slope, self.threads
        found, norms = weigh_grams(counted, self._rows, idf, *options)
        self.load_arrays({**self._arrays, "norms": norms})
        return found

    def quantize(self) -> None:
        """Round float32 weights, once, to 127 steps on either side of 0, with one step size per feature."""
        weight = self._arrays["weight"]
        if weight.dtype == np.int8:
            return
        rounded, scale = np.empty(weight.shape, np.int8), np.ones(len(weight), np.float32)
        for first in range(0, len(weight), CHUNK):  # part by part: no second matrix of floats
            part = slice(first, first + CHUNK)
            largest = np.abs(weight[part]).max(axis=1)
            np.divide(largest, 127, out=scale[part], where=largest > 1e-30)
            rounded[part] = np.rint(weight[part] / scale[part, np.newaxis])
        self.load_arrays({**self._arrays, "weight": rounded, "scale": scale})


def check_arrays(
    kind: str,
    arrays: Mapping[str, npt.NDArray[Any]],
    expected: Mapping[str, tuple[tuple[int, ...], type[np.generic]]],
) -> None:
    """Compare arrays with the shapes and types they should have.

    Raises:
        FlashError: One sentence on all that differ.
    """
    faults = []
    for name, (shape, dtype) in expected.items():
        if name not in arrays:
            faults.append(f"{name} is missing")
        elif arrays[name].shape != shape or arrays[name].dtype != dtype:
            found = f"{arrays[name].dtype} {arrays[name].shape}"
            faults.append(f"{name} is {found}, expected {np.dtype(dtype)} {shape}")
    if faults:
        raise FlashError(f"the {kind}'s arrays do not fit: {'; '.join(faults)}")
