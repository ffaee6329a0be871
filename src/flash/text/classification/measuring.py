"""Evaluation in `TextClassifier`: calibration and thresholds, metrics on validation and test rows, the table.

Works on `(N, L)` scores, independently of the backbone.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
import pyarrow as pa
import torch
from lightning.pytorch.trainer.states import TrainerFn

from flash.core.errors import DataError
from flash.core.processes import all_gather, interleave
from flash.text.classification.backbones.module import BackboneModule
from flash.text.classification.from_flash.monitors import flash_names
from flash.text.classification.losses import loss_of_known, make_loss, no_module, one_number
from flash.text.classification.scores.calibration import fit_calibration
from flash.text.classification.scores.metrics import Evaluation, evaluate
from flash.text.classification.scores.outputs import Calibration, to_probabilities
from flash.text.classification.scores.own_metrics import Metrics, OwnMetrics
from flash.text.classification.scores.table import format_table
from flash.text.classification.scores.threshold_tuning import choose_thresholds
from flash.text.classification.scores.thresholds import Thresholds
from flash.text.classification.targets.known import any_unknown
from flash.text.classification.windows import ScoreBuffer

Batch = dict[str, Any]

SAME_ROWS = "chosen on these rows: only rows of a test file give unbiased numbers."


class MeasuringModule(pl.LightningModule):
    """A LightningModule that calibrates scores, tunes thresholds and computes metrics.

    Args:
        backbone: computes the scores.
        labels: L names.
        multi_label: sigmoid and thresholds, or softmax.
        thresholds_option: the user's option; `"auto"` tunes thresholds.
        threshold_objective: one objective per label.
        loss_fn: the user's loss, for the reported losses.
        metrics: the user's metrics.
    """

    def __init__(
        self,
        backbone: BackboneModule,
        labels: list[str],
        *,
        multi_label: bool,
        thresholds_option: Thresholds,
        threshold_objective: tuple[str, ...],
        loss_fn: Any,
        metrics: Metrics,
    ) -> None:
        super().__init__()
        self.backbone, self.labels, self.multi_label = backbone, labels, multi_label
        self.thresholds_option, self.threshold_objective = thresholds_option, threshold_objective
        self.loss_fn = no_module(loss_fn)
        self.thresholds: torch.Tensor
        self.register_buffer("thresholds", torch.full((len(labels),), 0.5))
        # not buffers, because a trainer's precision would round them
        self.calibration = Calibration.identity(len(labels))
        self.metrics = torch.nn.ModuleDict({stage: OwnMetrics(metrics, stage) for stage in ("val", "test")})
        self.evaluation: Evaluation | None = None
        self._scores = ScoreBuffer()
        self._cross_validated = False
        self._notes: list[str] = []

    @property
    def attached(self) -> pl.Trainer | None:
        """The trainer, or None if there is none (Lightning's `trainer` raises an error then)."""
        try:
            return self.trainer
        except RuntimeError:
            return None

    def check_metrics(self, data: Any) -> None:
        """Raise FlashError, before the first epoch, if the user's metrics would not ignore unknown targets."""
        for stage, metrics in self.metrics.items():
            targets = getattr(getattr(data, f"{stage}_dataset", None), "targets", None)
            if targets is not None and any_unknown(targets):
                cast(OwnMetrics, metrics).ignored()

    def choose(self, margins: np.ndarray, targets: Any) -> None:
        """Calibrate and tune thresholds on rows that were not used for fitting."""
        self._notes.clear()  # of the previous epoch
        self.calibration = fit_calibration(margins, targets, multi_label=self.multi_label)
        if self.thresholds_option == "auto" and self.multi_label:
            probabilities = to_probabilities(self.calibration.apply(margins), multi_label=True)
            choice = choose_thresholds(probabilities, targets, self.threshold_objective)
            self.thresholds.copy_(torch.from_numpy(choice.thresholds))
            if unmet := choice.unmet_sentence(self.labels):
                self._notes.append(unmet[0].upper() + unmet[1:] + ".")

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Keep one batch's scores and targets."""
        self._keep(batch, "val", dataloader_idx)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Keep one batch's scores and targets."""
        self._keep(batch, "test", dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Tune thresholds if this is a fit, then compute and log metrics."""
        if self.trainer.sanity_checking:
            self._scores.take(self.score)
            return
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        self._log(self._measure("val", tune=fitting), "val")
        if not fitting:
            self._print_table("Validation")

    def on_test_epoch_end(self) -> None:
        """Compute and log metrics, and print the table."""
        self._log(self._measure("test", tune=False), "test")
        self._print_table("Test")

    def _keep(self, batch: Batch, stage: str, dataloader_idx: int) -> None:
        """Keep one batch's texts and targets; texts are scored many batches at a time."""
        if dataloader_idx:
            raise DataError(
                f"there are several sets of {stage} rows; join them, or measure one after the other"
            )
        if "targets" not in batch:
            raise DataError(f"the {stage} rows have no targets to compare with; pass target_fields=")
        targets = batch["targets"].cpu().float()  # the type of the scores
        if targets.shape[1] != len(self.labels):
            raise DataError(
                f"the {stage} rows have {targets.shape[1]} labels and the model {len(self.labels)}"
            )
        self._scores.add(batch["texts"], targets.numpy(), self.score)

    def score(self, texts: pa.Array, batch_size: int) -> np.ndarray:
        """Return (N, L) scores of texts before calibration, in the trainer's precision if there is a trainer.

        Args:
            texts: N strings.
            batch_size: the user's batch size.
        """
        trainer = self.attached
        with nullcontext() if trainer is None else trainer.precision_plugin.forward_context():
            return self.backbone.margins_of_many(texts, batch_size)

    def _loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean loss per row and label (multi-label) or per row, in nats."""
        loss = self.backbone.loss  # the loss of the training, made from the user's option
        if loss is None:
            loss = make_loss(self.loss_fn, multi_label=self.multi_label, labels=self.labels)
        if any_unknown(targets.numpy()):
            return one_number(loss_of_known(loss, logits, targets))
        return one_number(loss(logits, targets))

    def _measure(self, stage: str, *, tune: bool, dealt: bool = True) -> dict[str, Any]:
        """Evaluate the kept rows; return the metrics to log.

        Args:
            stage: "val" or "test".
            tune: whether to calibrate and tune thresholds on these rows, unless cross-validation has done so.
            dealt: whether each of several processes has a share of the rows, instead of all.
        """
        margins, targets, lengths = self._scores.take(self.score)
        if dealt and self.trainer.world_size > 1:
            rows = len(_first(getattr(self.trainer, f"{stage}_dataloaders")).dataset)
            shares = zip(*all_gather((margins, targets, lengths)), strict=True)
            margins, targets, lengths = (interleave(list(share), rows) for share in shares)
        if tune and not self._cross_validated:
            self.choose(margins, targets)
        self.evaluation = self._evaluate(margins, targets, lengths)
        logits, truth = torch.from_numpy(self.calibration.apply(margins)), torch.from_numpy(targets)
        scores = {f"{stage}_loss": self._loss(logits, truth), **self.evaluation.scalars(stage)}
        return scores | self._users_scores(stage, logits, truth)

    def _evaluate(self, margins: np.ndarray, targets: Any, lengths: np.ndarray) -> Evaluation:
        """Evaluate with the current thresholds and calibration."""
        calibration = self.calibration
        calibrated = bool(np.any(calibration.scale != 1) or np.any(calibration.shift != 0))
        return evaluate(
            to_probabilities(calibration.apply(margins), self.multi_label),
            targets,
            labels=self.labels,
            thresholds=self.thresholds.float().cpu().numpy(),
            multi_label=self.multi_label,
            uncalibrated=to_probabilities(margins, self.multi_label) if calibrated else None,
            lengths=lengths,
        )

    def _users_scores(
        self, stage: str, logits: torch.Tensor, targets: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Compute the user's metrics, with one entry per label for metrics that return L numbers.

        Unknown targets are replaced by the metrics' `ignore_index`.
        """
        metrics = cast(OwnMetrics, self.metrics[stage])
        if not metrics.names:
            return {}
        expected = (targets >= 0.5).int() if self.multi_label else targets.argmax(dim=1)
        if any_unknown(targets.numpy()):
            expected[targets.isnan()] = metrics.ignored()
        probabilities = torch.from_numpy(to_probabilities(logits.numpy(), self.multi_label))
        return metrics.scores(probabilities.to(self.device), expected.to(self.device), self.labels)

    def _log(self, scores: Mapping[str, Any], stage: str) -> None:
        """Log metrics; also under Lightning Flash's names, for callbacks but not for loggers."""
        self.log_dict(scores, batch_size=1)
        self.log_dict(flash_names(scores, stage, self), batch_size=1, logger=False)

    def _print_table(self, title: str, notes: Sequence[str] = ()) -> None:
        if self.evaluation is not None and self.trainer.is_global_zero:
            print(format_table(self.evaluation, title=title, notes=notes))  # noqa: T201  (what fit is asked for)


def _first(loaders: Any) -> Any:
    """Return the loader, which Lightning may have put into a list."""
    return loaders[0] if isinstance(loaders, list) else loaders
