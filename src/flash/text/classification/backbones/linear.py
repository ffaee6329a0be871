"""The linear backbone: hashed n-grams, TF-IDF, and one exact logistic regression a label.

Imports no torch and no lightning; of the project only the errors and the compiled loops beside it. Word
n-grams and in-word character n-grams of the normalised text are hashed into buckets; a bucket that training
has seen is a feature with an inverse document frequency and a weight for each label. sigmoid(logits) are
probabilities.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

from flash.core.errors import DataError, FlashError
from flash.text.classification.backbones.features import (
    CHUNK,
    Rows,
    Texts,
    choose_features,
    count_grams,
    in_threads,
    text_buffers,
    weigh_grams,
)
from flash.text.classification.backbones.kernels import character_classes, logits_of_texts
from flash.text.classification.backbones.solver import solve_pass

if TYPE_CHECKING:  # scipy.sparse is slow to import, and prediction needs none of it
    from scipy.sparse import csr_array

FEW_TEXTS = 1000  # with fewer, a feature of a single text may be all there is to learn from
MOST_WEIGHT_BYTES = 2**31
MOST_BUCKETS = 2**24
"""A file of 2 kB can ask for any number of buckets, and each takes 4 bytes of memory."""


@dataclass(frozen=True)
class LinearConfig:
    """The options of the linear backbone: plain values, a part of the model file."""

    word_ngrams: int = 2
    """Word n-grams of one word up to this many; 0 for none."""
    char_ngrams: tuple[int, int] = (2, 5)
    """Shortest and longest character n-gram, within a word and its boundaries; (0, 0) for none."""
    buckets: int = 2**20
    """How many buckets n-grams are hashed into: a power of two."""
    min_texts: int = 2
    """A bucket is a feature if this many training texts have it; below 1,000 texts, every bucket is."""
    regularization: float = 4.0
    """C, the weight of the training loss against half the squared length of a label's weights; above 0."""
    bias: float = 1.0
    """The value of the constant feature, whose weight is regularised like any other; 0 for no bias."""
    tolerance: float = 1e-3
    """The fit ends when no dual variable is further than this from its row's probability."""
    max_passes: int = 100
    """The fit ends after this many passes over the training rows in any case."""
    exclusive: bool = False
    """Whether exactly one label applies: the logits are then log sigmoid(z), so that their softmax is the
    probabilities of one against the rest, divided by their sum."""

    def __post_init__(self) -> None:
        if isinstance(self.char_ngrams, list):  # a model file gives one
            object.__setattr__(self, "char_ngrams", tuple(self.char_ngrams))
        for field in fields(self):
            value = getattr(self, field.name)
            if not is_alike(value, field.default):
                raise FlashError(
                    f"option {field.name} of the linear backbone is {value!r}; expected a value such as {field.default!r}"
                )
        shortest, longest = self.char_ngrams
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
            "min_texts": (self.min_texts >= 1, "1 or more"),
            "regularization": (0 < self.regularization < np.inf, "a number above 0"),
            "bias": (0 <= self.bias < np.inf, "0 or more"),
            "tolerance": (0 < self.tolerance < 1, "between 0 and 1"),
            "max_passes": (self.max_passes >= 1, "1 or more"),
        }
        for name, (holds, expected) in rules.items():
            if not holds:
                raise FlashError(
                    f"option {name} of the linear backbone is {getattr(self, name)!r}; expected {expected}"
                )


def is_alike(value: Any, default: Any) -> bool:
    """Whether a value has the type of an option's default; JSON-like lists stand for tuples."""
    if type(default) is tuple:
        length = len(value) if type(value) in (list, tuple) else -1
        return length == len(default) and all(map(is_alike, value, default))
    if type(value) is int and abs(value) >= 2**31:  # more than any option means, and than the loops count
        return False
    return type(value) is type(default) or (type(default) is float and type(value) is int)


class Linear:
    """Features, inverse document frequencies and weights.

    Without a fit there are no features and every logit is 0.0.

    Args:
        num_labels: L, the number of columns of the logits.
        config: The options.
        threads: How many threads to use at most; None for one a processor. No result depends on it.
    """

    def __init__(
        self, num_labels: int, config: LinearConfig = LinearConfig(), *, threads: int | None = None
    ) -> None:
        self.config = config
        self.num_labels = num_labels
        self.threads = threads
        self._grams = (config.word_ngrams, *config.char_ngrams)
        self.load_arrays(
            {
                "buckets": np.zeros(0, np.int32),
                "idf": np.zeros(0, np.float32),
                "weight": np.zeros((0, num_labels), np.float32),
                "bias": np.zeros(num_labels, np.float32),
            }
        )

    def logits(self, texts: Texts) -> npt.NDArray[np.float32]:
        """Logits (N, L) of texts; those of one text do not depend on the others.

        Raises:
            DataError: `texts` are not strings, or one is null.
        """
        logits = np.empty((len(texts), self.num_labels), dtype=np.float32)
        classes = character_classes()
        idf, weight, bias = self._constants

        def fill(start: int) -> None:
            buffers = text_buffers(texts.slice(start, CHUNK))
            chunk = logits[start : start + CHUNK]
            logits_of_texts(*buffers, classes, self._grams, self._rows, idf, weight, bias, chunk)

        in_threads(self.threads, fill, range(0, len(texts), CHUNK))
        return -np.logaddexp(np.float32(0), -logits) if self.config.exclusive else logits

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Everything that prediction needs beside the options; not copied.

        Features are in descending order of how many training texts have them:
        `buckets` (F,) int32, the bucket of each; `idf` (F,) float32; `weight` (F, L) float32;
        `bias` (L,) float32, added to the logits.
        """
        return dict(self._arrays)

    def load_arrays(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take what `arrays` gave. The arrays are kept as they are, and may be read-only memory maps.

        Raises:
            FlashError: An array is missing or is not as `num_labels` and the options want it.
        """
        features = len(arrays["buckets"]) if "buckets" in arrays else 0
        expected: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {
            "buckets": ((features,), np.int32),
            "idf": ((features,), np.float32),
            "weight": ((features, self.num_labels), np.float32),
            "bias": ((self.num_labels,), np.float32),
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
        self._constants = [self._arrays[name].view() for name in ("idf", "weight", "bias")]
        for constant in self._constants:
            constant.flags.writeable = False  # one type, one compilation, for trained and loaded models

    def fit_features(self, texts: Texts) -> Rows:
        """Choose the features from training texts, with weights of 0, and return the texts' rows."""
        config = self.config
        counted = count_grams(texts, self._grams, config.buckets, self.threads)
        min_texts = config.min_texts if len(texts) >= FEW_TEXTS else 1
        most = MOST_WEIGHT_BYTES // (4 * max(self.num_labels, 1))
        buckets, idf = choose_features(counted, len(texts), config.buckets, min_texts, most)
        weight = np.zeros((len(buckets), self.num_labels), np.float32)
        bias = np.zeros(self.num_labels, np.float32)
        self.load_arrays({"buckets": buckets, "idf": idf, "weight": weight, "bias": bias})
        return weigh_grams(counted, self._rows, idf, self.threads)


class LinearSolver:
    """One exact fit of a `Linear`, pass by pass, so that a training loop can show progress, stop and resume.

    Features and their idf are chosen here; the weights of `model` are set to 0, and change with each `step`.
    Labels are solved in blocks of `labels_a_block`, each on one thread, over the rows in an order drawn from
    (seed, pass): the same seed and data give the same weights bit for bit at any number of threads.

    Args:
        model: What to fit.
        texts: N training texts.
        targets: (N, L), 1.0 where a label applies, soft targets in [0, 1] as they are.
        seed: Of the order of the rows.

    Raises:
        DataError: No rows, numbers of rows or labels that differ, or a target outside [0, 1].
    """

    def __init__(self, model: Linear, texts: Texts, targets: "csr_array", *, seed: int = 0) -> None:
        if 0 in targets.shape or targets.shape != (len(texts), model.num_labels):
            raise DataError(
                f"{len(texts)} texts with targets of shape {targets.shape} for {model.num_labels} labels; "
                f"expected targets of shape (texts, labels), and at least one of each"
            )
        if targets.nnz and not (targets.data.min() >= 0 and targets.data.max() <= 1):
            raise DataError(
                f"targets lie between {targets.data.min()} and {targets.data.max()}; expected 0 to 1"
            )
        self.model = model
        self.seed = seed
        self.passes = 0
        self.rows = model.fit_features(texts)
        self._targets = targets.tocsc()  # a block takes its columns
        width = labels_a_block(model.num_labels)
        self._labels = [
            slice(first, min(first + width, model.num_labels)) for first in range(0, model.num_labels, width)
        ]
        sizes = [labels.stop - labels.start for labels in self._labels]
        features = len(self.model.arrays()["idf"])
        self._duals = [np.zeros((len(texts), size), np.float32) for size in sizes]
        self._weights = [np.zeros((features, size), np.float32) for size in sizes]
        self._biases = [np.zeros(size, np.float32) for size in sizes]
        self._violations = np.ones(len(sizes))  # of each block's last pass
        self._losses = np.zeros(len(sizes))

    @property
    def converged(self) -> bool:
        """Whether the optimum is reached within `tolerance`, or `max_passes` are done."""
        config = self.model.config
        return self.passes >= config.max_passes or bool(np.all(self._violations < config.tolerance))

    def step(self) -> float:
        """One pass over the rows for all labels.

        Returns:
            The mean binary cross-entropy a row and label in nats, each taken just before its row's update.
        """
        order = np.random.Generator(np.random.PCG64([self.seed, self.passes])).permutation(
            len(self.rows.ends)
        )
        tolerance = self.model.config.tolerance
        blocks = np.flatnonzero(self._violations >= tolerance).tolist()  # the others are done
        in_threads(self.model.threads, lambda block: self._solve_block(block, order), blocks)
        self.passes += 1
        return float(self._losses.sum()) / (len(order) * self.model.num_labels)

    def _solve_block(self, block: int, order: npt.NDArray[np.int64]) -> None:
        config, rows, model = self.model.config, self.rows, self.model.arrays()
        labels = self._labels[block]
        weight, bias = self._weights[block], self._biases[block]
        losses = np.zeros(len(bias))
        self._violations[block] = solve_pass(
            order,
            rows.ends,
            rows.features,
            rows.values,
            self._targets[:, labels].toarray().astype(np.float32),
            self._duals[block],
            weight,
            bias,
            losses,
            config.regularization,
            config.bias,
            config.tolerance / 10,
        )
        self._losses[block] = losses.sum()
        model["weight"][:, labels] = weight
        model["bias"][labels] = bias * np.float32(config.bias)

    def state(self) -> dict[str, npt.NDArray[Any] | int]:
        """A copy of everything that the next pass depends on, beside the model's options and the data.

        `duals` (N, L) are t - b; `weight` (F, L) and `bias` (L,) are the float32 sums that the passes so far
        have left, which no recomputation would give bit for bit.
        """
        return {
            "passes": self.passes,
            "seed": self.seed,
            "checksum": self._checksum,
            "duals": np.hstack(self._duals),
            "weight": np.hstack(self._weights),
            "bias": np.hstack(self._biases),
            "violations": self._violations.copy(),
            "losses": self._losses.copy(),
        }

    def load_state(self, state: Mapping[str, npt.NDArray[Any] | int]) -> None:
        """Go on from a `state`, bit for bit as the solver that gave it would have.

        Raises:
            FlashError: The state is of other data or options, or lacks a part.
        """
        current = self.state()
        missing = sorted(current.keys() - state.keys())
        if missing:
            raise FlashError(f"the solver's state lacks {', '.join(missing)}; give what state() returned")
        if state["checksum"] != self._checksum:
            raise FlashError(
                "the solver's state belongs to other texts, targets or options; resume with the data and "
                "options that the run began with, or start afresh"
            )
        known = {name: value for name, value in current.items() if isinstance(value, np.ndarray)}
        arrays = {name: np.asarray(state[name]) for name in known}
        check_arrays(
            "solver state", arrays, {name: (array.shape, array.dtype.type) for name, array in known.items()}
        )
        self.passes, self.seed = int(state["passes"]), int(state["seed"])
        self._violations, self._losses = arrays["violations"].copy(), arrays["losses"].copy()
        for block, labels in enumerate(self._labels):
            self._duals[block][:] = arrays["duals"][:, labels]
            self._weights[block][:] = arrays["weight"][:, labels]
            self._biases[block][:] = arrays["bias"][labels]
        model = self.model.arrays()
        model["weight"][:] = arrays["weight"]
        model["bias"][:] = arrays["bias"] * np.float32(self.model.config.bias)

    @cached_property
    def _checksum(self) -> int:
        """Tells apart training data, and the options that weights and dual variables depend on."""
        checksum = 0
        rows, targets, config = self.rows, self._targets, self.model.config
        options = np.array([config.regularization, config.bias])
        hot = (targets.indptr, targets.indices, targets.data)
        for array in (options, rows.ends, rows.features, rows.values, *hot):
            checksum = crc32(np.ascontiguousarray(array).data.cast("B"), checksum)
        return checksum


def labels_a_block(labels: int) -> int:
    """How many labels one thread solves side by side: no function of the number of threads.

    Wide blocks fetch a row's features less often, narrow ones keep more threads busy.
    """
    return 4 if labels <= 16 else min(64, 8 * -(-labels // 32))


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
