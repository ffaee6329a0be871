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
        self.max_length, self.learning_rate = max_length, learning_rate
        self.optimizer, self.lr_scheduler, self.loss_fn = optimizer, lr_scheduler, loss_fn
        options = backbone_kwargs if self.multi_label else {"exclusive": True, **backbone_kwargs}
        self.backbone = LinearModule(load_backbone(backbone, len(self.labels), options))
        self.thresholds_option = thresholds
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
        self._thresholds: np.ndarray | None = None

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
        return torch.from_numpy(self.backbone.linear.logits(texts))

    # ---- training -------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Refuse a datamodule whose columns mean something else than this model's."""
        label_set = getattr(getattr(self.trainer, "datamodule", None), "label_set", None)
        found = self.labels if label_set is None else list(label_set.names)
        if found != self.labels:
            raise DataError(
                f"the datamodule's {len(found)} labels ({_some(found)}) are not the model's {len(self.labels)} "
                f"({_some(self.labels)}), or stand in another order; pass labels=model.labels to the datamodule, "
                "or labels=datamodule.labels to the model"
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
        return _Epoch(lambda: self._solver.remaining_passes(texts, targets, seed))

    def on_fit_start(self) -> None:
        """Say once which of the user's settings the linear backbone has no use for."""
        strategy = getattr(getattr(self.trainer, "finetuning", None), "name", "no_freeze")
        unused = {
            f"strategy={strategy!r}": strategy != "no_freeze",
            f"optimizer={self.optimizer!r}": self.optimizer != "Adam",
            f"lr_scheduler={self.lr_scheduler!r}": self.lr_scheduler is not None,
            f"learning_rate={self.learning_rate}": self.learning_rate is not None,
            "loss_fn (but for the reported losses)": self.loss_fn is not None,
        }
        if given := [name for name, is_given in unused.items() if is_given]:
            rank_zero_info(
                "The linear backbone is solved exactly and has no layers to freeze: "
                f"{', '.join(given)} {'changes' if len(given) == 1 else 'change'} nothing."
            )

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

    def on_fit_end(self) -> None:
        """Print the table of the last validation."""
        self._solver.release()
        if getattr(self.trainer, "fast_dev_run", False) or not self.trainer.is_global_zero:
            return
        if self.evaluation is None:
            print("No validation rows: pass val_split=0.1 to choose thresholds and see how good it is.")  # noqa: T201
        else:
            chosen = "The thresholds were chosen on these rows; rows of a test file give the unbiased F1."
            self._print_table("Validation", [chosen] if self.thresholds_option == "auto" else [])

    # ---- measuring ------------------------------------------------------------------------------------------

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep one batch's logits and targets."""
        self._keep(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep one batch's logits and targets."""
        self._keep(batch, "test")

    def on_validation_epoch_end(self) -> None:
        """Choose thresholds if this is a fit, measure at the thresholds in force, log."""
        if self.trainer.sanity_checking:
            self._scores.clear()
            return
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        self._measure("val", tune=fitting and self.thresholds_option == "auto" and self.multi_label)
        if not fitting:
            self._print_table("Validation")

    def on_test_epoch_end(self) -> None:
        """Measure at the thresholds in force, log, print the table."""
        self._measure("test", tune=False)
        self._print_table("Test")

    def _keep(self, batch: Batch, stage: str) -> None:
        if "targets" not in batch:
            raise DataError(f"the {stage} rows have no targets to compare with; pass target_fields=")
        logits, targets = self(batch["texts"]), batch["targets"]
        self.log(f"{stage}_loss", self._loss(logits, targets), on_epoch=True, batch_size=len(targets))
        self._scores.append((logits.numpy(), targets.numpy()))
        if stage in self.metrics:
            collection = cast(MetricCollection, self.metrics[stage])
            expected = (targets >= 0.5).int() if self.multi_label else targets.argmax(dim=1)
            collection.update(torch.from_numpy(to_probabilities(logits.numpy(), self.multi_label)), expected)
            self.log_dict(collection, on_epoch=True, batch_size=len(targets))

    def _loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The mean loss a row and label (multi-label) or a row, in nats."""
        if self.loss_fn is not None:
            return self.loss_fn(logits, targets)
        if self.multi_label:
            return functional.binary_cross_entropy_with_logits(logits, targets)
        return functional.cross_entropy(logits, targets)

    def _measure(self, stage: str, *, tune: bool) -> None:
        logits, targets = (np.concatenate(parts) for parts in zip(*self._scores, strict=True))
        self._scores.clear()
        probabilities = to_probabilities(logits, self.multi_label)
        if tune:
            self.thresholds.fill_(tune_threshold(probabilities, targets))
        self.evaluation = evaluate(
            probabilities,
            targets,
            labels=self.labels,
            thresholds=self.thresholds.cpu().numpy(),
            multi_label=self.multi_label,
        )
        self.log_dict(self.evaluation.scalars(stage), batch_size=len(logits))

    def _print_table(self, title: str, notes: Sequence[str] = ()) -> None:
        if self.evaluation is not None and self.trainer.is_global_zero:
            print(format_table(self.evaluation, title=title, notes=notes))  # noqa: T201  (what fit is asked for)

    # ---- predicting -----------------------------------------------------------------------------------------

    @contextmanager
    def predicting(self, output: Output, thresholds: Thresholds) -> Iterator[None]:
        """What `predict_step` answers inside this block; both are checked before any text is read."""
        if isinstance(output, str) and output not in OUTPUTS:
            raise FlashError(unknown_name("output", output, OUTPUTS))
        in_force = None
        if thresholds is not None:
            in_force = resolve_thresholds(thresholds, self.labels, self.thresholds.cpu().numpy())
        earlier = self._output, self._thresholds
        self._output, self._thresholds = output, in_force
        try:
            yield
        finally:
            self._output, self._thresholds = earlier

    def predict_step(self, batch: Batch, batch_idx: int) -> Any:
        """One batch's outputs, as `Trainer.predict(output=...)` asks."""
        return convert(
            self(batch["texts"]).numpy(),
            self._output,
            labels=self.labels,
            multi_label=self.multi_label,
            thresholds=self.thresholds.cpu().numpy() if self._thresholds is None else self._thresholds,
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
            "optimizer": self.optimizer if isinstance(self.optimizer, str) else self.optimizer.__name__,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to resume with another model's labels."""
        saved = checkpoint["flash"]["labels"]
        if saved != self.labels:
            raise FlashError(
                f"the checkpoint's labels ({_some(saved)}) are not this model's ({_some(self.labels)}); "
                "build the model with the same labels, in the same order"
            )

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: str | Path, **overrides: Any
    ) -> "TextClassifier":
        """The model of a file that `save_checkpoint` wrote; needs no other file and no network.

        Args:
            checkpoint_path: a path, or a URL, which is downloaded to a temporary folder.
            overrides: arguments of `TextClassifier` in place of the saved ones, such as `metrics=` or `thresholds=`.

        Raises:
            CheckpointError: the file is missing, truncated, foreign or of a newer format.
        """
        content = load_checkpoint(checkpoint_path)
        settings = content["flash"]
        kept = ("labels", "multi_label", "backbone", "max_length", "learning_rate", "optimizer", "thresholds")
        model = cls(
            **{**{name: settings[name] for name in kept}, **settings["backbone_options"], **overrides}
        )
        model.load_state_dict(content["state_dict"])
        if "thresholds" in overrides:
            saved = model.thresholds.numpy()
            model.thresholds = torch.from_numpy(
                resolve_thresholds(overrides["thresholds"], model.labels, saved)
            )
        return model


class _Epoch:
    """Starts the same passes anew each time a loop iterates over it, as a loader does."""

    def __init__(self, begin: Callable[[], Iterator[int]]) -> None:
        self.begin = begin

    def __iter__(self) -> Iterator[int]:
        return self.begin()


def _label_names(labels: Sequence[str] | None, num_classes: int | None) -> list[str]:
    """L distinct names, whichever way they were given."""
    if labels is None and num_classes is None:
        raise FlashError("a classifier needs its labels; pass labels=datamodule.labels, or num_classes=")
    names = [str(index) for index in range(num_classes or 0)] if labels is None else list(labels)
    if isinstance(labels, str) or not names or not all(isinstance(name, str) for name in names):
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
