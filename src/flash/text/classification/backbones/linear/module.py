"""The linear backbone as a torch module, and its exact solver as a torch optimizer.

Lightning's loops and checkpoints see a module with weights and an optimizer with a state, which share memory with the
NumPy arrays.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
import pyarrow as pa
import torch
from lightning.pytorch.utilities import rank_zero_info
from scipy.sparse import csr_array
from torch import nn

from flash.core.errors import DataError, FlashError
from flash.text.classification.arguments import current_names
from flash.text.classification.backbones.linear.fitting import LinearSolver
from flash.text.classification.backbones.linear.model import Linear
from flash.text.classification.backbones.module import BackboneModule, Classifier, TrainingRows
from flash.text.classification.losses import make_loss
from flash.text.classification.scores.by_length import text_lengths
from flash.text.classification.targets.known import label_counts

MOST_LABELS = 10_000
"""Maximum number of labels; more would take hours, and memory for (features, labels) numbers."""


class LinearModule(BackboneModule):
    """`Linear` with its arrays as buffers, of which `weight` has shape (F, L).

    F, the number of features, is known only after the first pass over the training texts; before that it is 0.
    """

    name = "linear"
    automatic_optimization = False
    one_device = True  # the solver works on shared memory

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        self.linear = linear
        self.margins = linear.logits
        self._taken_back: list[
            tuple[pl.Trainer, str, Any]
        ] = []  # the user's settings, for as long as a fit lasts
        self.show_arrays()

    @property
    def fitted(self) -> bool:
        """See `Linear.fitted`."""
        return self.linear.fitted

    def options(self) -> dict[str, Any]:
        """The fields of `LinearConfig`."""
        return asdict(self.linear.config)

    def show_arrays(self) -> None:
        """Point the buffers to the current arrays, without a copy."""
        for name, tensor in self.tensors().items():
            self.register_buffer(name, tensor)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the arrays themselves, because a trainer's device or precision may have copied the buffers."""
        arrays = self.linear.arrays().items()
        # torch has no read-only tensors
        return {
            name: torch.from_numpy(array if array.flags.writeable else array.copy()) for name, array in arrays
        }

    def halved(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the weights unchanged."""
        rank_zero_info(
            "The linear backbone's weights are stored in 8 bits already: half=True leaves them as they are."
        )
        return state

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *_args: Any, **_kwargs: Any
    ) -> None:
        """Load the arrays, whose sizes differ from those of this untrained model."""
        arrays = {key[len(prefix) :]: state_dict[key] for key in state_dict if key.startswith(prefix)}
        self.linear.load_arrays(
            {
                name: (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()
                for name, tensor in arrays.items()
            }
        )
        self.show_arrays()

    # ---- training -------------------------------------------------------------------------------------------

    def before_fit(self, model: Classifier, trainer: pl.Trainer) -> None:
        """Turn off, and report, the trainer's settings that do not apply to the linear backbone, until the end of the fit.

        Raises:
            FlashError: there are more labels than it can fit within hours.
        """
        if len(model.labels) > MOST_LABELS:
            raise FlashError(
                f"there are {len(model.labels):,} labels, and the linear backbone, which fits each label on all rows, takes "
                f"{MOST_LABELS:,} at most; check that target_fields= names a column of labels and label_delimiter= what "
                "separates them, or keep the frequent ones: pass labels=[...] and unknown_labels='ignore'"
            )
        settings: list[tuple[str, Any, Any, Any]] = [
            (
                "strategy",
                None,
                getattr(getattr(trainer, "finetuning", None), "name", "no_freeze"),
                "no_freeze",
            ),
            ("optimizer", None, model.optimizer, None),
            ("lr_scheduler", None, model.lr_scheduler, None),
            ("learning_rate", None, model.learning_rate, None),
            ("accumulate_grad_batches", trainer, trainer.accumulate_grad_batches, 1),
            ("gradient_clip_val", trainer, trainer.gradient_clip_val, None),
            ("check_val_every_n_epoch", trainer, trainer.check_val_every_n_epoch, 1),
            ("val_check_interval", trainer, trainer.val_check_interval, 1.0),
        ]
        given = [setting for setting in settings if setting[2] != setting[3]]
        for name, holder, value, usual in given:
            if (
                holder is not None
            ):  # Lightning refuses some of these, and others would skip the one validation
                self._taken_back.append((holder, name, value))
                setattr(holder, name, usual)
        unused = [f"{name}={value!r}" for name, _, value, _ in given]
        if model.loss_fn is not None:
            unused.append("loss_fn (but for the reported losses)")
        if unused:
            rank_zero_info(
                "The linear backbone is solved exactly, in one epoch, and has no layers to freeze: "
                f"{', '.join(unused)} {'changes' if len(unused) == 1 else 'change'} nothing."
            )

    def after_fit(self) -> None:
        """Give the trainer back the settings that it had."""
        for holder, name, value in self._taken_back:
            setattr(holder, name, value)
        self._taken_back.clear()

    def train_batches(self, model: Classifier, dataset: TrainingRows, seed: int) -> Iterable[int]:
        """Return the passes of the exact solver over all rows, until the optimum."""
        if dataset.targets is None:
            raise DataError("the training rows have no targets")
        texts, targets = dataset.texts, dataset.targets
        positives, rows = label_counts(targets)
        self.loss = make_loss(
            model.loss_fn, multi_label=model.multi_label, labels=model.labels, positives=positives, rows=rows
        )
        return _Epoch(dataset, lambda: _solver(model).remaining_passes(texts, targets, seed))

    def configure_optimizers(self, model: Classifier) -> torch.optim.Optimizer:
        """The exact solver, seen as an optimiser."""
        return SolverOptimizer(self, multi_label=model.multi_label)

    def training_step(self, model: Classifier, batch: int) -> None:
        """One pass of the solver over all rows, or one fold; after the last, calibration and thresholds."""
        loss = cast(Any, model.optimizers()).step()  # Lightning's wrapper, which counts the step
        model.log("train_loss", loss, prog_bar=True, on_step=True, on_epoch=False, batch_size=1)
        held_out = _solver(model).take_held_out()
        if held_out is not None:
            model.take_held_out(*held_out)

    def on_train_epoch_end(self, model: Classifier) -> None:
        """Stop at the optimum: further epochs would change nothing."""
        if _solver(model).converged:
            model.trainer.should_stop = True

    def why_unmeasured(self, model: Classifier) -> tuple[str, str]:
        """The reasons are: no folds, too few texts for them, or a fit that was stopped."""
        if not _solver(model).converged:
            return "the fit was stopped before its end", "allow it more steps or time"
        folds = self.linear.config.folds
        found = f"the training rows have fewer than {folds} different texts" if folds else "folds=0 was given"
        return found, "" if folds else "leave folds=0 out"

    def resume(self, settings: dict[str, Any], checkpoint: dict[str, Any]) -> None:
        """The options that its weights depend on, and those that a finished fit has chosen.

        Raises:
            FlashError: its n-grams are not this model's.
        """
        saved, own = current_names(settings["backbone_options"]), self.options()
        for name in ("buckets", "word_ngrams", "char_ngrams"):
            found, mine = (tuple(v) if isinstance(v, list) else v for v in (saved.get(name), own[name]))
            if found is not None and found != mine:
                raise FlashError(
                    f"the checkpoint has {name}={found!r} and this model {mine!r}; pass {name}={found!r}"
                )
        share = saved.get("word_share", "auto")
        if share == "auto":
            self.linear.word_share = 0.5  # older files do not have the option
        else:
            self.linear.choose(word_share=share)
        chosen = saved.get("C", "auto")
        finished = all(state.get("converged") for state in checkpoint.get("optimizer_states", ()))
        if finished and chosen != "auto" and self.linear.config.C == "auto":
            self.linear.choose(C=chosen)


class _Epoch:
    """Starts the passes again each time a loop iterates over it, like a loader."""

    def __init__(self, dataset: TrainingRows, begin: Callable[[], Iterator[int]]) -> None:
        self.dataset = dataset
        self.begin = begin

    def __iter__(self) -> Iterator[int]:
        return self.begin()


def _solver(model: Classifier) -> "SolverOptimizer":
    return cast(SolverOptimizer, model.optimizers(use_pl_optimizer=False))


class SolverOptimizer(torch.optim.Optimizer):
    """An optimizer whose `step` is one pass of the exact solver, with its dual variables as state.

    Attributes:
        converged: whether the fit is finished.
        passes: number of passes, including those before a resume.
        multi_label: whether the classifier is multi-label.
    """

    def __init__(self, module: LinearModule, *, multi_label: bool) -> None:
        # torch requires a parameter, and learning rate monitors a rate; the solver has neither
        super().__init__([nn.Parameter(torch.empty(0))], defaults={"lr": 0.0})
        self.module = module
        self.solver: LinearSolver | None = None
        self.converged, self.passes, self.multi_label = False, 0, multi_label
        self._resumed: dict[str, Any] | None = None
        self._targets: csr_array | None = None
        self._lengths = np.zeros(0, np.int64)  # characters of the texts
        self._loss = 0.0

    def remaining_passes(self, texts: pa.Array, targets: csr_array, seed: int) -> Iterator[int]:
        """Yield the numbers of the passes to the optimum, from the state of the last epoch or of a resumed run.

        There is at least one pass, which has no effect at the optimum, because an epoch without batches has no validation.
        """
        self._targets, self._lengths = targets, text_lengths(texts)
        if self.solver is None and not self.converged:
            self.solver = LinearSolver(
                self.module.linear, texts, targets, seed=seed, multi_label=self.multi_label
            )
            if self._resumed is not None:
                self.solver.load_state({key: _to_numpy(value) for key, value in self._resumed.items()})
                self._resumed = None
            self.module.show_arrays()
        yield self.passes
        while not self.converged:
            yield self.passes

    def step(self, closure: Callable[[], float] | None = None) -> float:  # type: ignore[override]
        """Improve the weights by one pass; return the mean loss per row and label, in nats."""
        del closure  # the solver needs no gradients
        if self.converged:  # loaders look one batch ahead, so one more step is asked for
            return self._loss
        if self.solver is None:
            raise RuntimeError("the solver has not been given its rows: iterate over remaining_passes first")
        self._loss = self.solver.step()
        self.converged, self.passes = self.solver.converged, self.solver.passes
        self.module.show_arrays()
        return self._loss

    def take_held_out(self) -> tuple[np.ndarray, csr_array, np.ndarray] | None:
        """Return, once after a finished fit, out-of-fold scores (rows, L), targets and text lengths; otherwise None."""
        solver = self.solver
        if solver is None or not self.converged:
            return None
        self.solver = None  # frees the training rows
        if not len(solver.held_out) or self._targets is None:
            return None
        rows = solver.held_out_rows
        return solver.held_out, self._targets[rows], self._lengths[rows]

    def state_dict(self) -> dict[str, Any]:
        """Return the dual variables, or, after a finished fit, only that it is finished."""
        state = {"converged": self.converged, "passes": self.passes}
        if self.solver is None or self.converged:
            return state
        return {**state, "solver": {key: _to_torch(value) for key, value in self.solver.state().items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until `remaining_passes` gets the rows that it belongs to."""
        self.converged, self.passes = state_dict["converged"], state_dict["passes"]
        self._resumed = state_dict.get("solver")


def _to_torch(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _to_numpy(value: Any) -> Any:
    return value.numpy() if isinstance(value, torch.Tensor) else value
