"""`TextClassifier`: a LightningModule around a backbone; losses, thresholds, numbers and checkpoints.

Everything after the `(N, L)` logits is shared code that knows no backbone.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
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
from flash.text.classification.checkpoint import FORMAT_VERSION
from flash.text.classification.checkpoint import load as load_checkpoint
from flash.text.classification.data import TextDataset
from flash.text.classification.metrics import Evaluation, evaluate
from flash.text.classification.outputs import OUTPUTS, Output, convert, to_probabilities
from flash.text.classification.readers import text_array
from flash.text.classification.report.table import format_table
from flash.text.classification.thresholds import Thresholds, resolve_thresholds, tune_threshold

Batch = dict[str, Any]
Metrics = Metric | Mapping[str, Metric] | Sequence[Metric] | None


class TextClassifier(pl.LightningModule):
    """Texts to any number of labels each (`multi_label=True`), or to exactly one.

    Args:
        num_classes: L; not needed with `labels`. Without names, the labels are called "0" to "L-1".
        labels: L names, in the order of the columns of every `(N, L)` array. Usually `datamodule.labels`.
        backbone: one of `TextClassifier.available_backbones()`. `"linear"`, the default, downloads nothing: TF-IDF
            of word and character n-grams, and the exact optimum of one logistic regression a label.
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
            `"auto"`: chosen on the validation rows at the end of each validation of a fit, 0.5 until then.
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
        **backbone_kwargs: Any,
    ) -> None:
        super().__init__()
        self.labels = _label_names(labels, num_classes)
        self.multi_label = bool(multi_label)
        self.backbone_name = backbone
        self.max_length = int(max_length)
        self.learning_rate = None if learning_rate is None else float(learning_rate)
        self.optimizer, self.lr_scheduler, self.loss_fn = optimizer, lr_scheduler, loss_fn
        options = {**backbone_kwargs, "exclusive": not self.multi_label}
        self.backbone = LinearModule(load_backbone(backbone, len(self.labels), options))
        self.thresholds_option = _plain(thresholds)
        in_force = resolve_thresholds(thresholds, self.labels, np.full(len(self.labels), 0.5, np.float32))
        self.thresholds: torch.Tensor
        self.register_buffer("thresholds", torch.from_numpy(in_force))
        self.metrics = torch.nn.ModuleDict(
            {stage: _as_collection(metrics, stage) for stage in ("val", "test") if metrics is not None}
        )
        self.evaluation: Evaluation | None = None
        self.automatic_optimization = False
        self._scores: list[tuple[np.ndarray, np.ndarray]] = []
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
        """(N, L) float32 logits of N strings."""
        array = texts if isinstance(texts, pa.Array | pa.ChunkedArray) else text_array(texts, "texts")
        return torch.from_numpy(self.backbone.linear.logits(array))

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
        """Forget what an earlier fit or test measured and, unless this resumes one, the thresholds it chose."""
        self.evaluation = None
        self._scores.clear()
        if self.thresholds_option == "auto" and self.trainer.ckpt_path is None:
            self.thresholds.fill_(0.5)

    def training_step(self, batch: int, batch_idx: int) -> None:
        """One pass of the solver over all rows."""
        loss = cast(Any, self.optimizers()).step()  # Lightning's wrapper, which counts the step
        self.log("train_loss", loss, prog_bar=True, on_step=True, on_epoch=False, batch_size=1)

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
        """Print the table of the last validation."""
        self._solver.release()
        if getattr(self.trainer, "fast_dev_run", False) or not self.trainer.is_global_zero:
            return
        if self.evaluation is None:
            print("Nothing was validated: pass val_split=0.1 to choose a threshold and see how good it is.")  # noqa: T201
        elif self.thresholds_option == "auto" and self.multi_label:
            chosen = "One threshold for all labels, chosen on these rows: only rows of a test file give an unbiased F1."
            self._print_table("Validation", [chosen])
        else:
            self._print_table("Validation")

    # ---- measuring ------------------------------------------------------------------------------------------

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Keep one batch's logits and targets."""
        self.log("val_loss", self._keep(batch, "val", dataloader_idx), batch_size=len(batch["texts"]))

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Keep one batch's logits and targets."""
        self.log("test_loss", self._keep(batch, "test", dataloader_idx), batch_size=len(batch["texts"]))

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

    def _keep(self, batch: Batch, stage: str, dataloader_idx: int) -> torch.Tensor:
        """Keep one batch's logits and targets; returns its loss."""
        if dataloader_idx:
            raise DataError(
                f"there are several sets of {stage} rows; join them, or measure one after the other"
            )
        if "targets" not in batch:
            raise DataError(f"the {stage} rows have no targets to compare with; pass target_fields=")
        logits, targets = self(batch["texts"]), batch["targets"].cpu().float()  # as the logits are
        if logits.shape != targets.shape:
            raise DataError(
                f"the {stage} rows have {targets.shape[1]} labels and the model {len(self.labels)}"
            )
        self._scores.append((logits.numpy(), targets.numpy()))
        if stage in self.metrics:
            expected = (targets >= 0.5).int() if self.multi_label else targets.argmax(dim=1)
            probabilities = torch.from_numpy(to_probabilities(logits.numpy(), self.multi_label))
            cast(MetricCollection, self.metrics[stage]).update(
                probabilities.to(self.device), expected.to(self.device)
            )
        return self._loss(logits, targets)

    def _loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The mean loss a row and label (multi-label) or a row, in nats."""
        if self.loss_fn is not None:
            return self.loss_fn(logits, targets)
        if self.multi_label:
            return functional.binary_cross_entropy_with_logits(logits, targets)
        return functional.cross_entropy(logits, targets)

    def _measure(self, stage: str, *, tune: bool) -> dict[str, Any]:
        """Evaluate what was kept; `tune` chooses "auto" thresholds on it. Returns what a logger should get."""
        logits, targets = (np.concatenate(parts) for parts in zip(*self._scores, strict=True))
        self._scores.clear()
        probabilities = to_probabilities(logits, self.multi_label)
        if tune and self.thresholds_option == "auto" and self.multi_label:
            self.thresholds.fill_(tune_threshold(probabilities, targets))
        self.evaluation = evaluate(
            probabilities,
            targets,
            labels=self.labels,
            thresholds=self.thresholds.float().cpu().numpy(),
            multi_label=self.multi_label,
        )
        return {**self.evaluation.scalars(stage), **self._users_scores(stage)}

    def _users_scores(self, stage: str) -> dict[str, torch.Tensor]:
        """What the user's metrics found, a number a label where they give L of them."""
        if stage not in self.metrics:
            return {}
        collection = cast(MetricCollection, self.metrics[stage])
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
            self(batch["texts"]).numpy(),
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
            "backbone": self.backbone_name,
            "backbone_options": asdict(self.backbone.linear.config),
            "max_length": self.max_length,
            "learning_rate": self.learning_rate,
            "optimizer": self.optimizer if isinstance(self.optimizer, str) else _name(self.optimizer),
        }
        state = {f"backbone.{name}": tensor for name, tensor in self.backbone.tensors().items()}
        checkpoint["state_dict"] |= {**state, "thresholds": self.thresholds.float()}  # whatever the precision

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to resume with another model's labels."""
        saved = checkpoint["flash"]["labels"]
        if saved != self.labels:
            raise FlashError(
                f"the checkpoint's labels ({_some(saved)}) are not this model's ({_some(self.labels)}); "
                "build the model with the same labels, in the same order"
            )
        if self.thresholds_option != "auto":
            state = checkpoint["state_dict"]
            kept = resolve_thresholds(self.thresholds_option, self.labels, state["thresholds"].numpy())
            state["thresholds"] = torch.from_numpy(kept)

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
        options = {name: value for name, value in settings["backbone_options"].items() if name != "exclusive"}
        if fixed := [name for name in overrides if name in (*trained, *options, "num_classes", "exclusive")]:
            raise FlashError(
                f"{', '.join(fixed)} cannot be changed: the weights of {checkpoint_path} were trained with it"
            )
        others = ("max_length", "learning_rate", "optimizer", "thresholds")
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
