"""`TextClassifier`: a LightningModule around a backbone; losses, thresholds, numbers and checkpoints.

Everything after the `(N, L)` logits is shared code that knows no backbone.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
import pyarrow as pa
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch.nn import functional
from torchmetrics import Metric, MetricCollection

from flash import __version__
from flash.core.errors import DataError, FlashError, unknown_name
from flash.text.classification.backbones import available_backbones, load_backbone
from flash.text.classification.backbones.linear_module import LinearModule, SolverOptimizer
from flash.text.classification.calibration import fit_calibration
from flash.text.classification.checkpoint import FORMAT_VERSION
from flash.text.classification.checkpoint import load as load_checkpoint
from flash.text.classification.data import TextDataset
from flash.text.classification.metrics import Evaluation, evaluate
from flash.text.classification.outputs import OUTPUTS, Calibration, Output, convert, to_probabilities
from flash.text.classification.readers import text_array
from flash.text.classification.report.table import format_table
from flash.text.classification.thresholds import Thresholds, resolve_thresholds
from flash.text.classification.tuning import DEFAULT_OBJECTIVE, Objective, choose_thresholds, parse_objective

Batch = dict[str, Any]
Metrics = Metric | Mapping[str, Metric] | Sequence[Metric] | None

SAME_ROWS = "chosen on these rows: only rows of a test file give unbiased numbers."


class TextClassifier(pl.LightningModule):
    """Texts to any number of labels each (`multi_label=True`), or to exactly one.

    Args:
        num_classes: L; not needed with `labels`. Without names, the labels are called "0" to "L-1".
        labels: L names, in the order of the columns of every `(N, L)` array. Usually `datamodule.labels`.
        backbone: one of `TextClassifier.available_backbones()`. `"linear"`, the default, downloads nothing: TF-IDF
            of word and character n-grams, and the exact optimum of one linear support vector machine a label. Fitted
            again, after `load_from_checkpoint` for instance, it starts from the weights it has.
        max_length: tokens a text for encoders; the linear backbone reads every text whole.
        loss_fn: a function of `(N, L)` logits and float targets for the reported losses; binary cross-entropy by
            default, softmax cross-entropy with `multi_label=False`.
        optimizer: for encoders; the linear backbone is solved exactly.
        lr_scheduler: as `optimizer`.
        metrics: torchmetrics metrics to log beside the built-in ones. They are given the `(N, L)` probabilities and
            int targets: `(N, L)` 0/1, or `(N,)` class indices with `multi_label=False`.
        learning_rate: as `optimizer`.
        multi_label: whether any number of labels applies to a text.
        thresholds: probabilities in [0, 1] from which on a label applies: one number, L numbers, a dict by label, or
            `"auto"`: chosen at the end of a fit by cross-validation on the training rows, or on the validation rows
            where the backbone has no such scores; 0.5 until then.
        threshold_objective: what `"auto"` chooses for: `"macro_f1"`, `"micro_f1"`, `"macro_f2"` and other betas,
            `"precision>=0.9"`, `"recall>=0.9"`; one for all labels, L of them, or a dict by label.
        backbone_kwargs: options of the backbone; for `"linear"` the fields of `LinearConfig`.

    Raises:
        FlashError: neither labels nor num_classes, labels that repeat, an unknown backbone or option.
    """

    def __init__(
        self,
        num_classes: int | None = None,
        labels: Sequence[str] | None = None,
        backbone: str = "linear",
        max_length: int = 128,
        loss_fn: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
        optimizer: str | type[torch.optim.Optimizer] = "Adam",
        lr_scheduler: Any = None,
        metrics: Metrics = None,
        learning_rate: float | None = None,
        multi_label: bool = False,
        *,
        thresholds: Thresholds = "auto",
        threshold_objective: Objective = DEFAULT_OBJECTIVE,
        **backbone_kwargs: Any,
    ) -> None:
        super().__init__()
        self.labels = _label_names(labels, num_classes)
        self.multi_label = bool(multi_label)
        self.backbone_name = backbone
        self.max_length = int(max_length)
        self.learning_rate = None if learning_rate is None else float(learning_rate)
        self.optimizer, self.lr_scheduler, self.loss_fn = optimizer, lr_scheduler, loss_fn
        options = {name: _by_label(name, value, self.labels) for name, value in backbone_kwargs.items()}
        self.backbone = LinearModule(load_backbone(backbone, len(self.labels), options))
        self.thresholds_option = _plain(thresholds)
        self.threshold_objective = parse_objective(threshold_objective, self.labels)
        in_force = resolve_thresholds(thresholds, self.labels, np.full(len(self.labels), 0.5, np.float32))
        self.thresholds: torch.Tensor
        self.register_buffer("thresholds", torch.from_numpy(in_force))
        # No buffers: a trainer's precision would round them.
        self.calibration = Calibration.identity(len(self.labels))
        self.metrics = torch.nn.ModuleDict(
            {stage: _as_collection(metrics, stage) for stage in ("val", "test") if metrics is not None}
        )
        self.evaluation: Evaluation | None = None
        self.automatic_optimization = False
        self._scores: list[tuple[np.ndarray, np.ndarray]] = []
        self._held_out: tuple[np.ndarray, Any] | None = None
        self._cross_validated = False
        self._notes: list[str] = []
        self._output: Output = "preds"
        self._thresholds: Thresholds = None

    @property
    def num_classes(self) -> int:
        """L, the number of labels."""
        return len(self.labels)

    @classmethod
    def available_backbones(cls) -> list[str]:
        """The names that `backbone=` takes."""
        return available_backbones()

    def forward(self, texts: Any) -> torch.Tensor:
        """(N, L) float32 logits of N strings, calibrated where the model is."""
        array = texts if isinstance(texts, pa.Array | pa.ChunkedArray) else text_array(texts, "texts")
        return torch.from_numpy(self.calibration.apply(self.backbone.linear.logits(array)))

    # ---- training -------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Refuse what this model cannot be trained, measured or used on."""
        if self.trainer.world_size > 1:
            raise FlashError(
                f"the linear backbone works on one device, and the trainer has {self.trainer.world_size}; "
                "pass devices=1 to the trainer"
            )
        label_set = getattr(getattr(self.trainer, "datamodule", None), "label_set", None)
        found = self.labels if label_set is None else list(label_set.names)
        if found != self.labels:
            raise DataError(
                f"the datamodule's {len(found)} labels ({_some(found)}) are not the model's {len(self.labels)} "
                f"({_some(self.labels)}), or stand in another order; pass labels=model.labels to the datamodule, "
                "or labels=datamodule.labels to the model"
            )
        if label_set is not None and label_set.multi_label != self.multi_label:
            raise DataError(
                f"the datamodule is {_kind(label_set.multi_label)} and the model {_kind(self.multi_label)}; "
                "pass multi_label=datamodule.multi_label to the model"
            )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The exact solver, seen as an optimiser."""
        return SolverOptimizer(self.backbone)

    def train_batches(self, dataset: TextDataset, seed: int) -> Iterable[int]:
        """What an epoch iterates over: the passes of the exact solver over all rows, until the optimum."""
        if dataset.targets is None:
            raise DataError(
                "the training rows have no targets; pass target_fields=, or train_targets= for lists"
            )
        texts, targets = dataset.texts, dataset.targets
        return _Epoch(dataset, lambda: self._solver.remaining_passes(texts, targets, seed))

    def before_fit(self, trainer: pl.Trainer) -> None:
        """Take back, and say once, which of the user's settings the linear backbone has no use for."""
        settings: list[tuple[str, Any, Any, Any]] = [
            (
                "strategy",
                None,
                getattr(getattr(trainer, "finetuning", None), "name", "no_freeze"),
                "no_freeze",
            ),
            ("optimizer", None, self.optimizer, "Adam"),
            ("lr_scheduler", None, self.lr_scheduler, None),
            ("learning_rate", None, self.learning_rate, None),
            ("accumulate_grad_batches", trainer, trainer.accumulate_grad_batches, 1),
            ("gradient_clip_val", trainer, trainer.gradient_clip_val, None),
            ("check_val_every_n_epoch", trainer, trainer.check_val_every_n_epoch, 1),
            ("val_check_interval", trainer, trainer.val_check_interval, 1.0),
        ]
        given = [setting for setting in settings if setting[2] != setting[3]]
        for name, holder, _, usual in given:
            if (
                holder is not None
            ):  # Lightning refuses some of these, and others would skip the one validation
                setattr(holder, name, usual)
        unused = [f"{name}={value!r}" for name, _, value, _ in given]
        if self.loss_fn is not None:
            unused.append("loss_fn (but for the reported losses)")
        if unused:
            rank_zero_info(
                "The linear backbone is solved exactly, in one epoch, and has no layers to freeze: "
                f"{', '.join(unused)} {'changes' if len(unused) == 1 else 'change'} nothing."
            )

    def on_fit_start(self) -> None:
        """Forget what an earlier fit or test measured and, unless this resumes one, what it chose."""
        self.evaluation = self._held_out = None
        self._scores.clear()
        self._notes.clear()
        if self.trainer.ckpt_path is None:
            self._cross_validated = False
            self.calibration = Calibration.identity(len(self.labels))
            if self.thresholds_option == "auto":
                self.thresholds.fill_(0.5)

    def training_step(self, batch: int, batch_idx: int) -> None:
        """One pass of the solver over all rows, or one fold; after the last, calibration and thresholds."""
        loss = cast(Any, self.optimizers()).step()  # Lightning's wrapper, which counts the step
        self.log("train_loss", loss, prog_bar=True, on_step=True, on_epoch=False, batch_size=1)
        held_out = self._solver.take_held_out()
        if held_out is not None:
            self._held_out, self._cross_validated = held_out, True
            self._choose(*held_out)

    def _choose(self, margins: np.ndarray, targets: Any) -> None:
        """Calibrate, and choose thresholds, on rows that the weights have not seen."""
        self._notes.clear()  # of an epoch before
        self.calibration = fit_calibration(margins, targets, multi_label=self.multi_label)
        if self.thresholds_option == "auto" and self.multi_label:
            probabilities = to_probabilities(self.calibration.apply(margins), multi_label=True)
            choice = choose_thresholds(probabilities, targets, self.threshold_objective)
            self.thresholds.copy_(torch.from_numpy(choice.thresholds))
            if unmet := choice.unmet_sentence(self.labels):
                self._notes.append(unmet[0].upper() + unmet[1:] + ".")

    @property
    def _solver(self) -> SolverOptimizer:
        return cast(SolverOptimizer, self.optimizers(use_pl_optimizer=False))

    def on_train_epoch_end(self) -> None:
        """Stop at the optimum: further epochs would change nothing."""
        if self._solver.converged:
            self.trainer.should_stop = True

    def on_train_end(self) -> None:
        """Validate where Lightning did not: after a resume from between the last pass and the validation."""
        data: Any = getattr(self.trainer, "datamodule", None)
        if self.evaluation is None and getattr(data, "val_dataset", None) and self.trainer.limit_val_batches:
            for batch in data.val_dataloader():
                self._keep(batch, "val", 0)
            self._measure("val", tune=True)

    def on_fit_end(self) -> None:
        """Print the table of the last validation or, where there was none, of the cross-validation."""
        held_out, self._held_out = self._held_out, None
        if getattr(self.trainer, "fast_dev_run", False) or not self.trainer.is_global_zero:
            return
        chosen = "Calibration was"
        if self.thresholds_option == "auto" and self.multi_label:
            chosen = "Calibration and thresholds were"
        if self.evaluation is not None:
            where = "chosen by cross-validation on the training rows." if self._cross_validated else SAME_ROWS
            self._print_table("Validation", [f"{chosen} {where}", *self._notes])
        elif held_out is not None:
            self.evaluation = self._evaluate(*held_out)
            notes = ["Each row is scored by a model that was fitted without it.", f"{chosen} {SAME_ROWS}"]
            self._print_table("Cross-validation on the training rows", [*notes, *self._notes])
        else:
            print(self._why_nothing_was_measured())  # noqa: T201

    def _why_nothing_was_measured(self) -> str:
        """What to tell after a fit without validation rows and without scores of its training rows."""
        if self._cross_validated:
            return "Nothing was measured: this run had ended before, and the model stays as it was."
        if not self._solver.converged:
            return "Nothing was measured: the fit was stopped before its end; allow it more steps or time."
        defaults = ["probabilities are not calibrated"]
        if self.thresholds_option == "auto" and self.multi_label:
            defaults.append("the thresholds are 0.5")
        folds = self.backbone.linear.config.folds
        found = f"the training rows have fewer than {folds} different texts" if folds else "folds=0 was given"
        instead = "" if folds else ", or leave folds=0 out,"
        return (
            f"Nothing was measured, as {found} and there was no validation: {' and '.join(defaults)}. "
            f"Pass val_split=0.1{instead} to choose them and to see how good the model is."
        )

    # ---- measuring ------------------------------------------------------------------------------------------

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Keep one batch's scores and targets."""
        self._keep(batch, "val", dataloader_idx)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Keep one batch's scores and targets."""
        self._keep(batch, "test", dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Choose thresholds if this is a fit, measure at the thresholds in force, log."""
        if self.trainer.sanity_checking:
            self._scores.clear()
            return
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        scores = self._measure("val", tune=fitting)
        self.log_dict(scores, batch_size=1)
        if not fitting:
            self._print_table("Validation")

    def on_test_epoch_end(self) -> None:
        """Measure at the thresholds in force, log, print the table."""
        self.log_dict(self._measure("test", tune=False), batch_size=1)
        self._print_table("Test")

    def _keep(self, batch: Batch, stage: str, dataloader_idx: int) -> None:
        """Keep what the backbone says of one batch, before calibration, and its targets."""
        if dataloader_idx:
            raise DataError(
                f"there are several sets of {stage} rows; join them, or measure one after the other"
            )
        if "targets" not in batch:
            raise DataError(f"the {stage} rows have no targets to compare with; pass target_fields=")
        margins = self.backbone.linear.logits(batch["texts"])
        targets = batch["targets"].cpu().float()  # as the margins are
        if margins.shape != targets.shape:
            raise DataError(
                f"the {stage} rows have {targets.shape[1]} labels and the model {len(self.labels)}"
            )
        self._scores.append((margins, targets.numpy()))

    def _loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The mean loss a row and label (multi-label) or a row, in nats."""
        if self.loss_fn is not None:
            return self.loss_fn(logits, targets)
        if self.multi_label:
            return functional.binary_cross_entropy_with_logits(logits, targets)
        return functional.cross_entropy(logits, targets)

    def _measure(self, stage: str, *, tune: bool) -> dict[str, Any]:
        """Evaluate what was kept; `tune` chooses on it what no cross-validation has chosen. Returns what to log."""
        margins, targets = (np.concatenate(parts) for parts in zip(*self._scores, strict=True))
        self._scores.clear()
        if tune and not self._cross_validated:
            self._choose(margins, targets)
        self.evaluation = self._evaluate(margins, targets)
        logits, truth = torch.from_numpy(self.calibration.apply(margins)), torch.from_numpy(targets)
        scores = {f"{stage}_loss": self._loss(logits, truth), **self.evaluation.scalars(stage)}
        return scores | self._users_scores(stage, logits, truth)

    def _evaluate(self, margins: np.ndarray, targets: Any) -> Evaluation:
        """Compare at the thresholds and the calibration in force."""
        calibration = self.calibration
        calibrated = bool(np.any(calibration.scale != 1) or np.any(calibration.shift != 0))
        return evaluate(
            to_probabilities(calibration.apply(margins), self.multi_label),
            targets,
            labels=self.labels,
            thresholds=self.thresholds.float().cpu().numpy(),
            multi_label=self.multi_label,
            uncalibrated=to_probabilities(margins, self.multi_label) if calibrated else None,
        )

    def _users_scores(
        self, stage: str, logits: torch.Tensor, targets: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """What the user's metrics found, a number a label where they give L of them."""
        if stage not in self.metrics:
            return {}
        collection = cast(MetricCollection, self.metrics[stage])
        expected = (targets >= 0.5).int() if self.multi_label else targets.argmax(dim=1)
        probabilities = torch.from_numpy(to_probabilities(logits.numpy(), self.multi_label))
        collection.update(probabilities.to(self.device), expected.to(self.device))
        scores = {}
        for name, value in collection.compute().items():
            if value.ndim == 0:
                scores[name] = value
            else:
                scores |= {f"{name}/{label}": score for label, score in zip(self.labels, value, strict=True)}
        collection.reset()
        return scores

    def _print_table(self, title: str, notes: Sequence[str] = ()) -> None:
        if self.evaluation is not None and self.trainer.is_global_zero:
            print(format_table(self.evaluation, title=title, notes=notes))  # noqa: T201  (what fit is asked for)

    # ---- predicting -----------------------------------------------------------------------------------------

    @contextmanager
    def predicting(self, output: Output, thresholds: Thresholds) -> Iterator[None]:
        """What `predict_step` answers inside this block; both are checked before any text is read."""
        if isinstance(output, str) and output not in OUTPUTS:
            raise FlashError(unknown_name("output", output, OUTPUTS))
        if thresholds is not None:
            resolve_thresholds(thresholds, self.labels, self.thresholds.float().cpu().numpy())
        earlier = self._output, self._thresholds
        self._output, self._thresholds = output, thresholds
        try:
            yield
        finally:
            self._output, self._thresholds = earlier

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """One batch's outputs, as `Trainer.predict(output=...)` asks."""
        in_force = self.thresholds.float().cpu().numpy()
        if self._thresholds is not None:  # only now: `ckpt_path=` may have brought other thresholds
            in_force = resolve_thresholds(self._thresholds, self.labels, in_force)
        return convert(
            self.calibration.apply(self.backbone.linear.logits(batch["texts"])),
            self._output,
            labels=self.labels,
            multi_label=self.multi_label,
            thresholds=in_force,
        )

    # ---- the checkpoint -------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a file needs to stand on its own."""
        checkpoint["flash"] = {
            "format": FORMAT_VERSION,
            "version": __version__,
            "task": "text_classification",
            "labels": self.labels,
            "multi_label": self.multi_label,
            "thresholds": self.thresholds_option,
            "threshold_objective": list(self.threshold_objective),
            "cross_validated": self._cross_validated,
            "backbone": self.backbone_name,
            "backbone_options": asdict(self.backbone.linear.config),
            "max_length": self.max_length,
            "learning_rate": self.learning_rate,
            "optimizer": self.optimizer if isinstance(self.optimizer, str) else _name(self.optimizer),
        }
        state = {f"backbone.{name}": tensor for name, tensor in self.backbone.tensors().items()}
        checkpoint["state_dict"] |= {**state, "thresholds": self.thresholds.float()}  # whatever the precision

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to resume with another model's labels; take up what its run has found so far."""
        saved = checkpoint["flash"]["labels"]
        if saved != self.labels:
            raise FlashError(
                f"the checkpoint's labels ({_some(saved)}) are not this model's ({_some(self.labels)}); "
                "build the model with the same labels, in the same order"
            )
        self._cross_validated = checkpoint["flash"].get("cross_validated") is True
        linear, chosen = self.backbone.linear, checkpoint["flash"]["backbone_options"].get("regularization")
        finished = all(state.get("converged") for state in checkpoint.get("optimizer_states", ()))
        if finished and linear.config.regularization == "auto" and chosen is not None:
            linear.config = replace(linear.config, regularization=chosen)
        if self.thresholds_option != "auto":
            state = checkpoint["state_dict"]
            kept = resolve_thresholds(self.thresholds_option, self.labels, state["thresholds"].numpy())
            state["thresholds"] = torch.from_numpy(kept)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Calibration beside the buffers, as copies."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in ("scale", "shift"):
            destination[f"{prefix}calibration_{name}"] = torch.tensor(getattr(self.calibration, name))

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Take calibration out of what torch compares with the buffers."""
        names = [f"{prefix}calibration_{name}" for name in ("scale", "shift")]
        if lacking := [name for name in names if name not in state_dict]:
            args[2].extend(lacking)  # torch's list of missing keys
        else:
            self.calibration = Calibration(*(state_dict[name].float().cpu().numpy() for name in names))
        others = {name: tensor for name, tensor in state_dict.items() if name not in names}
        super()._load_from_state_dict(others, prefix, *args, **kwargs)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | Path,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **overrides: Any,
    ) -> "TextClassifier":
        """The model of a file that `save_checkpoint` wrote; needs no other file and no network.

        Args:
            checkpoint_path: a path, or a URL, which is downloaded to a temporary folder.
            map_location: Lightning's; the linear backbone stays on the CPU.
            hparams_file: Lightning's; the file needs no other.
            strict: Lightning's; the weights always have to fit.
            weights_only: Lightning's; no code of a file is ever run.
            overrides: arguments of `TextClassifier` in place of the saved ones, such as `metrics=` or `thresholds=`,
                but for those that the weights were trained with.

        Raises:
            CheckpointError: the file is missing, truncated, foreign or of a newer format.
            FlashError: an override that would change what the weights mean.
        """
        content = load_checkpoint(checkpoint_path)
        settings = content["flash"]
        trained = {name: settings[name] for name in ("labels", "multi_label", "backbone")}
        options = dict(settings["backbone_options"])
        if fixed := [name for name in overrides if name in (*trained, *options, "num_classes")]:
            raise FlashError(
                f"{', '.join(fixed)} cannot be changed: the weights of {checkpoint_path} were trained with it"
            )
        others = ("max_length", "learning_rate", "optimizer", "thresholds", "threshold_objective")
        kept = {name: settings[name] for name in others if name in settings}
        model = cls(**{**trained, **options, **kept, **overrides})
        state = dict(content["state_dict"])
        saved = state["thresholds"].float()
        state["thresholds"] = torch.from_numpy(
            resolve_thresholds(overrides.get("thresholds"), model.labels, saved.numpy())
        )
        model.load_state_dict(state)
        return model


class _Epoch:
    """Starts the same passes anew each time a loop iterates over it, as a loader does."""

    def __init__(self, dataset: TextDataset, begin: Callable[[], Iterator[int]]) -> None:
        self.dataset = dataset
        self.begin = begin

    def __iter__(self) -> Iterator[int]:
        return self.begin()


def _label_names(labels: Sequence[str] | None, num_classes: int | None) -> list[str]:
    """L distinct names, whichever way they were given."""
    if labels is None and num_classes is None:
        raise FlashError("a classifier needs its labels; pass labels=datamodule.labels, or num_classes=")
    names = [str(index) for index in range(num_classes or 0)] if labels is None else list(labels)
    if isinstance(labels, str) or not names or not all(isinstance(name, str) and name for name in names):
        raise FlashError(
            f"labels must be a list of one or more names; found {labels!r}, num_classes={num_classes}"
        )
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise FlashError(f"labels repeat: {_some(repeated)}; each column needs a name of its own")
    if num_classes not in (None, len(names)):
        raise FlashError(
            f"num_classes={num_classes} but there are {len(names)} labels; leave num_classes out"
        )
    return names


def _as_collection(metrics: Metrics, stage: str) -> MetricCollection:
    """The user's metrics under the logger names `val_...` and `test_...`, with states of their own."""
    given: Any = dict(metrics) if isinstance(metrics, Mapping) else metrics
    collection = MetricCollection(given if isinstance(given, Metric | dict) else list(given or ()))
    return collection.clone(prefix=f"{stage}_")


def _some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f", and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more


def _kind(multi_label: bool) -> str:
    return "multi-label" if multi_label else "single-label"


def _by_label(name: str, value: Any, labels: Sequence[str]) -> Any:
    """An option of the backbone; a dict by label as a tuple in label order, 1.0 for labels that it lacks."""
    if not isinstance(value, Mapping):
        return value
    for label in value:
        if label not in set(labels):
            raise FlashError(f"{name}: {unknown_name('label', str(label), labels)}")
    return tuple(value.get(label, 1.0) for label in labels)


def _plain(thresholds: Any) -> Thresholds:
    """The user's thresholds as values that a checkpoint can hold."""
    if isinstance(thresholds, Mapping):
        return {str(label): float(value) for label, value in thresholds.items()}
    plain: Thresholds = thresholds.tolist() if hasattr(thresholds, "tolist") else thresholds
    return list(plain) if isinstance(plain, tuple) else plain


def _name(optimizer: Any) -> str:
    """The name of an optimiser's class, also inside a partial."""
    return str(getattr(getattr(optimizer, "func", optimizer), "__name__", type(optimizer).__name__))


def dataset_of(loader: Any) -> TextDataset:
    """The rows of a loader that a datamodule made: the linear backbone is fitted to all of them at once.

    Raises:
        FlashError: the loader is of something else.
    """
    dataset = getattr(loader, "dataset", None)
    if not isinstance(dataset, TextDataset):
        raise FlashError(
            f"the linear backbone cannot be trained on a {type(loader).__name__}; "
            "pass datamodule=, or a datamodule's train_dataloader()"
        )
    return dataset
