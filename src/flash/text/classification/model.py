"""`TextClassifier`: a LightningModule around a backbone, with losses, thresholds, metrics and checkpoints.

The code after the `(N, L)` logits is independent of the backbone.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info

from flash.core.errors import CheckpointError, DataError, FlashError, unknown_name
from flash.core.hyper_parameters import (
    data_options,
    flat_parameters,
    log_hyper_parameters,
    trainer_options,
)
from flash.core.version import __version__
from flash.text.classification.arguments import (
    label_names,
    option_value,
    plain_value,
    some_names,
    take_earlier_names,
)
from flash.text.classification.backbones import available_backbones, load_backbone
from flash.text.classification.backbones.compatibility import difference, load_weights
from flash.text.classification.backbones.encoder.module import EncoderModule
from flash.text.classification.backbones.encoder.transformers_folder import numbers_of
from flash.text.classification.backbones.encoder.weight_shapes import MisfitError
from flash.text.classification.backbones.linear.module import LinearModule
from flash.text.classification.backbones.module import BackboneModule, known_to_numpy
from flash.text.classification.checkpoint import FORMAT_VERSION
from flash.text.classification.checkpoint import load as load_checkpoint
from flash.text.classification.checkpoint.saved_options import (
    choices_of,
    kept_loss,
    not_kept_sentence,
    saved_options,
)
from flash.text.classification.dataset import TextDataset
from flash.text.classification.from_flash.options import take_model_options
from flash.text.classification.from_flash.task import FlashTask
from flash.text.classification.losses import LOSSES
from flash.text.classification.measuring import SAME_ROWS, Batch, MeasuringModule
from flash.text.classification.reading.fields import field_names, given_texts, match_fields, named
from flash.text.classification.scores.outputs import Calibration, Output, check_output, convert
from flash.text.classification.scores.own_metrics import Metrics
from flash.text.classification.scores.threshold_tuning import Objective, parse_objective
from flash.text.classification.scores.thresholds import Thresholds, resolve_thresholds
from flash.text.classification.windows import Lookahead

NO_TRACE = (
    "a TextClassifier reads texts, which no trace of torch can: it would answer every text with the same numbers; save "
    "the model with trainer.save_checkpoint and type: flash export MODEL, which writes an encoder as ONNX"
)

WEIGHTS_ALONE = (
    "the checkpoint that ckpt_path= names holds the weights alone, as half=True and weights_only=True save them, and not "
    "the optimizer's state that resuming needs; leave ckpt_path= out to train from the start, or train its weights "
    "further: model = TextClassifier.load_from_checkpoint(path), then trainer.fit(model, ...)"
)


class TextClassifier(FlashTask, MeasuringModule):
    """Classifies texts: any number of labels per text (`multi_label=True`), or exactly one.

    Args:
        num_classes: L; not needed with `labels`. Without names, the labels are called "0" to "L-1" until a trainer gets
            the model together with a datamodule with L labels, whose names the model then takes.
        labels: L names, in the order of the columns of every `(N, L)` array. Usually `datamodule.labels`.
        backbone: `"linear"` (TF-IDF of n-grams; downloads nothing), or an encoder's folder or Hugging Face id. `"linear"` is the
            exact optimum of one linear support vector machine per label on word and character n-grams. If it
            is fitted again, for instance after `load_from_checkpoint`, it starts from its weights. A folder of
            `flash export --format transformers` includes a calibrated head and, for the same labels in any order,
            thresholds, which are used until a fit chooses others; it does not include `max_length` and options.
        max_length: maximum tokens per text or window. The linear backbone reads every text whole.
        loss_fn: `"binary_cross_entropy"` (default), `"focal"`, `"asymmetric"` or `"distribution_balanced"`; `"cross_entropy"`
            for one label per text. Or a function of `(N, L)` logits and float targets, or a
            dict of several, whose sum is minimised. For unknown targets (NaN), see
            `losses.loss_of_known`. The linear backbone only reports the loss.
        optimizer: an optimizer of torch; by default AdamW. Its name, class or callable; the linear backbone is solved
            exactly.
        lr_scheduler: `"linear"` (default), `"cosine"`, `"constant"`, or one of torch's such as `["StepLR", {"step_size": 1}]`.
            Or a callable of the optimizer. The default is a linear warm-up, then linear decay.
        metrics: torchmetrics objects or functions, or a list or dict of them, which are logged beside the built-in
            metrics. They get tensors: the `(N, L)` probabilities and int targets, which are `(N, L)` 0/1, or `(N,)`
            class indices with `multi_label=False`. A function returns one number, or L. If some targets are unknown,
            each metric needs `ignore_index=-1`, the value that it gets for an unknown target.
        learning_rate: by default one that suits the finetuning strategy. Of an encoder.
        multi_label: whether any number of labels applies to a text. By default it is taken from the datamodule if the
            label names are too, and otherwise False.
        thresholds: probability from which a label applies: a number, a list, `{"toxic": 0.3}`, or auto, which tunes them on
            held-out scores. `"auto"` tunes at the end of a fit: by cross-validation on the training rows, or on the
            validation rows if the backbone has no out-of-fold scores; thresholds are 0.5 until then.
        threshold_objective: what tuning maximizes: macro_f1, micro_f1, macro_f2 (or another beta), `"precision>=0.9"` or
            `"recall>=0.9"`; one for all labels, a list, or `{"toxic": "recall>=0.9"}`.
        backbone_kwargs: options of the backbone: the fields of `LinearConfig`, or for an encoder those of
            `EncoderConfig` and `TrainingOptions`.

    Raises:
        FlashError: neither labels nor num_classes, repeated labels, an unknown backbone or an unknown option.
    """

    def __init__(
        self,
        num_classes: int | None = None,
        labels: Sequence[str] | None = None,
        backbone: str = "linear",
        max_length: int = 128,
        loss_fn: str
        | Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
        | Mapping[str, Any]
        | Sequence[Any]
        | None = None,
        optimizer: str | type[torch.optim.Optimizer] | None = None,
        lr_scheduler: Any = None,
        metrics: Metrics = None,
        learning_rate: float | None = None,
        multi_label: bool | None = None,
        *,
        thresholds: Thresholds = "auto",
        threshold_objective: Objective = "macro_f1",
        **backbone_kwargs: Any,
    ) -> None:
        output = take_model_options(backbone_kwargs)
        backbone_kwargs = take_earlier_names(backbone_kwargs)
        names = label_names(labels, num_classes)
        if isinstance(loss_fn, str) and loss_fn not in LOSSES:
            raise FlashError(unknown_name("loss", loss_fn, LOSSES))
        options = {name: option_value(name, value, names) for name, value in backbone_kwargs.items()}
        super().__init__(
            _make_backbone(backbone, names, int(max_length), options),
            names,
            multi_label=bool(multi_label),
            thresholds_option=plain_value(thresholds),
            threshold_objective=parse_objective(threshold_objective, names),
            loss_fn=loss_fn,
            metrics=metrics,
        )
        self.max_length, self.output = int(max_length), output
        self._unnamed, self._kind_unknown = labels is None, labels is None and multi_label is None
        self._take_numbers_of(backbone, thresholds)
        self.learning_rate = None if learning_rate is None else float(learning_rate)
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.input_fields: list[str] | None = None  # text columns of the last fit
        self.automatic_optimization = self.backbone.automatic_optimization
        self._held_out: tuple[np.ndarray, Any, np.ndarray] | None = None
        self._precision = ""  # Lightning's name of the precision of an encoder's training
        self._in_half = self._told_not_kept = False
        self._output: Output = "preds"
        self._thresholds: Thresholds = None
        self._ahead: Lookahead | None = None  # during prediction with an encoder

    def _take_numbers_of(self, backbone: Any, thresholds: Thresholds) -> None:
        """Set the user's thresholds, else the thresholds of an export that is the backbone, and its calibration."""
        found: dict[str, np.ndarray] = {}
        if isinstance(backbone, str | Path):
            found = numbers_of(backbone, self.backbone, self.labels, multi_label=self.multi_label)
        if found:
            self.calibration = Calibration(found["calibration_scale"], found["calibration_shift"])
        tuned = found.get("thresholds", self.thresholds.numpy())
        in_force = resolve_thresholds(thresholds, self.labels, tuned)
        self.thresholds.copy_(torch.from_numpy(in_force))

    def meet(self, datamodule: Any) -> None:
        """Take the label names of a datamodule if the model was created by `num_classes=` and the numbers are equal."""
        label_set = getattr(datamodule, "label_set", None)
        if label_set is None or not self._unnamed or len(label_set) != len(self.labels):
            return
        self.labels, self._unnamed = list(label_set.names), False
        if self._kind_unknown:
            self.multi_label = label_set.multi_label
        if self.backbone.take_labels(self.labels):
            self._take_numbers_of(self.backbone.name, self.thresholds_option)

    @property
    def num_classes(self) -> int:
        """L, the number of labels."""
        return len(self.labels)

    def forward(self, texts: Any) -> torch.Tensor:
        """Return (N, L) float32 logits of N strings, calibrated if the model is."""
        if cast(Any, torch.jit).is_tracing():
            raise FlashError(NO_TRACE)
        self._check_fitted()
        array = given_texts(texts, "texts", self.input_fields)
        return torch.from_numpy(self.calibration.apply(self.backbone.margins(array)))

    def to_torchscript(self, *args: Any, **kwargs: Any) -> Any:
        """Not supported: texts are tokenised outside of torch, so a trace would contain the logits of one batch as constants.

        Raises:
            FlashError: always; suggests `flash export`.
        """
        raise FlashError(NO_TRACE)

    def to_onnx(self, *args: Any, **kwargs: Any) -> Any:
        """Not supported, like `to_torchscript`.

        Raises:
            FlashError: always; suggests `flash export`.
        """
        raise FlashError(NO_TRACE)

    def _check_fitted(self) -> None:
        """Raise FlashError if the model was never trained."""
        if not self.backbone.fitted:
            raise FlashError(
                "this model was never trained, so its answers would mean nothing; train it with trainer.fit(model, "
                "datamodule=...) first, or load a trained one with TextClassifier.load_from_checkpoint(path)"
            )

    def on_predict_start(self) -> None:
        """Check that the model was trained; weights of `ckpt_path=` are already loaded here."""
        self._check_fitted()

    def on_validation_start(self) -> None:
        """Check that the model was trained, except during a fit."""
        if self.trainer.state.fn == TrainerFn.VALIDATING:
            self._check_fitted()

    def on_test_start(self) -> None:
        """Check that the model was trained."""
        self._check_fitted()

    # ---- training -------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Check that the trainer and the datamodule fit the model."""
        if self.backbone.one_device and self.trainer.world_size > 1:
            raise FlashError(
                f"the {self.backbone.name} backbone works on one device, and the trainer has "
                f"{self.trainer.world_size}; pass devices=1 to the trainer"
            )
        self._check_fields(getattr(getattr(self.trainer, "datamodule", None), "input_field", None), stage)
        if self._unnamed:
            self.meet(getattr(self.trainer, "datamodule", None))
        label_set = getattr(getattr(self.trainer, "datamodule", None), "label_set", None)
        found = self.labels if label_set is None else list(label_set.names)
        if found != self.labels:
            raise DataError(
                f"the datamodule's {len(found)} labels ({some_names(found)}) are not the model's {len(self.labels)} "
                f"({some_names(self.labels)}), or stand in another order; pass labels=model.labels to the datamodule, "
                "or labels=datamodule.labels to the model"
            )
        if label_set is not None and label_set.multi_label != self.multi_label:
            raise DataError(
                f"the datamodule is {_kind(label_set.multi_label)} and the model {_kind(self.multi_label)}; "
                "pass multi_label=datamodule.multi_label to the model"
            )
        if stage != "predict":
            self.check_metrics(getattr(self.trainer, "datamodule", None))

    def _check_fields(self, given: str | list[str] | None, stage: str) -> None:
        """Store the text columns of a fit; raise DataError for other columns in later calls."""
        fields = None if given is None else field_names(given)
        if stage == "fit":
            self.input_fields = fields
        elif fields == self.input_fields or not (fields and self.input_fields):
            return
        elif match_fields(fields, self.input_fields, "the datamodule") != fields:
            raise DataError(
                f"the datamodule joins the columns {named(fields)}, and the model was trained on "
                f"{named(self.input_fields)} in this order; pass input_field={self.input_fields!r}"
            )

    def configure_optimizers(self) -> Any:
        """See `BackboneModule.configure_optimizers`."""
        return self.backbone.configure_optimizers(self)

    def train_batches(self, dataset: TextDataset, seed: int) -> Iterable[Any]:
        """Return the batches of an epoch.

        Raises:
            DataError: the rows have no targets.
        """
        if dataset.targets is None:
            raise DataError(
                "the training rows have no targets; pass target_fields=, or train_targets= for lists"
            )
        return self.backbone.train_batches(self, dataset, seed)

    def layers(self) -> list[list[torch.nn.Parameter]]:
        """Return an encoder's parameters, from the embeddings to the head."""
        return self.backbone.layers()

    def before_fit(self, trainer: pl.Trainer) -> None:
        """See `BackboneModule.before_fit`."""
        self.backbone.before_fit(self, trainer)

    def after_fit(self) -> None:
        """See `BackboneModule.after_fit`."""
        self.backbone.after_fit()

    def on_fit_start(self) -> None:
        """Reset earlier metrics and, unless this fit is resumed, calibration and thresholds."""
        self.evaluation = self._held_out = None
        self._scores.clear()
        self._notes.clear()
        self._precision = str(self.trainer.precision) if self.automatic_optimization else ""
        if self.trainer.ckpt_path is None:
            self._cross_validated = False
            self.calibration = Calibration.identity(len(self.labels))
            if self.thresholds_option == "auto":
                self.thresholds.fill_(0.5)
        log_hyper_parameters(self.trainer, self.hyper_parameters())

    def hyper_parameters(self) -> dict[str, Any]:
        """Return the hyperparameters for loggers: options, files, numbers of rows and labels, as plain values.

        The names are stable between versions: `version`, `model/...` (the arguments of this class and of its backbone),
        `trainer/...` (those of the trainer), and `data/...`: files, `data/train_rows`, `data/labels` (their number), and
        `data/train_positives/toxic` for each label, or, with more than 100 labels, the smallest, median and largest
        count. Options without a value are left out.
        """
        names = ("multi_label", "max_length", "learning_rate", "optimizer", "lr_scheduler", "loss_fn")
        options = {name: getattr(self, name) for name in names}
        options |= {"thresholds": self.thresholds_option, "backbone": self.backbone.name}
        objectives = dict.fromkeys(self.threshold_objective)
        model = {**options, "threshold_objective": list(objectives), **self.backbone.options()}
        found: dict[str, Any] = {"version": __version__, "model": model}
        if (trainer := self.attached) is not None:
            found["trainer"] = trainer_options(trainer)
            data = getattr(trainer, "datamodule", None)
            found["data"] = {} if data is None else data_options(data)
        return flat_parameters(found)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor | None:
        """See `BackboneModule.training_step`."""
        return self.backbone.training_step(self, batch)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip gradients with the trainer's `gradient_clip_val` or, if there is none, as the backbone does."""
        if gradient_clip_val is None:
            self.backbone.clip_gradients(self, optimizer)
        else:
            self.backbone.check_gradients(self, optimizer)
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_train_epoch_end(self) -> None:
        """See `BackboneModule.on_train_epoch_end`."""
        self.backbone.on_train_epoch_end(self)

    def take_held_out(self, margins: np.ndarray, targets: Any, lengths: np.ndarray) -> None:
        """Calibrate and tune thresholds on out-of-fold scores of the training rows."""
        self._held_out, self._cross_validated = (margins, targets, lengths), True
        self.choose(margins, targets)

    def on_train_end(self) -> None:
        """Validate if Lightning did not, because training was resumed between the last pass and the validation."""
        data: Any = getattr(self.trainer, "datamodule", None)
        if self.evaluation is None and getattr(data, "val_dataset", None) and self.trainer.limit_val_batches:
            for batch in data.val_dataloader():
                self._keep(batch, "val", 0)
            self._measure("val", tune=True, dealt=False)

    def on_fit_end(self) -> None:
        """Print the table of the last validation or, if there was none, of the cross-validation."""
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
            for logger in self.trainer.loggers:
                logger.log_metrics(self.evaluation.scalars("cross_validation"), self.trainer.global_step)
            notes = ["Each row is scored by a model that was fitted without it.", f"{chosen} {SAME_ROWS}"]
            self._print_table("Cross-validation on the training rows", [*notes, *self._notes])
        else:
            print(self._why_nothing_was_measured())  # noqa: T201

    def _why_nothing_was_measured(self) -> str:
        """Return the message after a fit without validation rows and without out-of-fold scores."""
        if self._cross_validated:
            return "Nothing was measured: this run had ended before, and the model stays as it was."
        found, instead = self.backbone.why_unmeasured(self)
        defaults = ["probabilities are not calibrated"]
        if self.thresholds_option == "auto" and self.multi_label:
            defaults.append("the thresholds are 0.5")
        return (
            f"Nothing was measured, as {found} and there was no validation: {' and '.join(defaults)}. "
            f"Pass val_split=0.1{instead and f', or {instead},'} to choose them and to see how good the model is."
        )

    # ---- predicting -----------------------------------------------------------------------------------------

    @contextmanager
    def predicting(self, output: Output, thresholds: Thresholds) -> Iterator[None]:
        """Set the output of `predict_step` in this block; the arguments are checked before any text is read."""
        check_output(output)
        if thresholds is not None:
            resolve_thresholds(thresholds, self.labels, self.thresholds.float().cpu().numpy())
        earlier = self._output, self._thresholds
        self._output, self._thresholds = output, thresholds
        self._ahead = Lookahead() if self.backbone.minds_length else None
        try:
            yield
        finally:
            (self._output, self._thresholds), self._ahead = earlier, None

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """Return one batch's outputs for `Trainer.predict(output=...)`, in Lightning Flash's types."""
        if not (isinstance(batch, Mapping) and "texts" in batch):
            raise DataError(
                f"a batch to predict is a {type(batch).__name__}, and not rows of a datamodule; pass the texts themselves: "
                "trainer.predict(model, ['a text', ...])"
            )
        if self._ahead is None:
            margins = self.backbone.margins(batch["texts"])
        else:
            margins = self._margins_ahead(self._ahead, batch, batch_idx, dataloader_idx)
        in_force = self.thresholds.float().cpu().numpy()
        if self._thresholds is not None:  # resolved here, since `ckpt_path=` may have loaded other thresholds
            in_force = resolve_thresholds(self._thresholds, self.labels, in_force)
        found = convert(
            self.calibration.apply(margins),
            self._output,
            labels=self.labels,
            multi_label=self.multi_label,
            thresholds=in_force,
            as_rows=torch.from_numpy,
        )
        name = getattr(self._output, "name", self._output)
        if name == "preds":
            return torch.from_numpy(found)
        return found.tolist() if name in ("logits", "probabilities") else found

    def _margins_ahead(
        self, ahead: Lookahead, batch: Batch, batch_idx: int, dataloader_idx: int
    ) -> np.ndarray:
        """Return the scores of one batch, computed together with the following batches."""
        loaders: Any = None if self.attached is None else self.trainer.predict_dataloaders
        loader = loaders[dataloader_idx] if isinstance(loaders, list) else loaders
        dataset = getattr(loader, "dataset", None)
        if not isinstance(dataset, TextDataset) or "rows" not in batch:
            return self.backbone.margins(batch["texts"])
        left = self.trainer.num_predict_batches[dataloader_idx] - batch_idx
        return ahead.scores(batch["rows"], dataset.texts, left, self.score)

    # ---- the checkpoint -------------------------------------------------------------------------------------

    @contextmanager
    def stored_in_half(self) -> Iterator[None]:
        """Save the backbone's weights in half precision in checkpoints that are written in this block."""
        self._in_half = True
        try:
            yield
        finally:
            self._in_half = False

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make the checkpoint self-contained; raise FlashError if the model was never trained, except during a fit."""
        if self.attached is None or self.trainer.state.stage is None:
            self._check_fitted()
        choices = saved_options(self.optimizer, self.lr_scheduler, self.loss_fn, self.backbone.loss)
        if choices["not_kept"] and not self._told_not_kept:
            rank_zero_info(not_kept_sentence(choices["not_kept"]))
            self._told_not_kept = True
        checkpoint["flash"] = {
            "format": FORMAT_VERSION,
            "version": __version__,
            "task": "text_classification",
            "labels": self.labels,
            "multi_label": self.multi_label,
            "input_fields": self.input_fields,
            "thresholds": self.thresholds_option,
            "threshold_objective": list(self.threshold_objective),
            "cross_validated": self._cross_validated,
            "backbone": self.backbone.name,
            "backbone_options": self.backbone.options(),
            **self.backbone.content(),
            "max_length": getattr(self.backbone, "max_length", self.max_length),
            "learning_rate": self.learning_rate,
            **({"precision": self._precision} if self._precision else {}),
            **choices,
        }
        state = {f"backbone.{name}": tensor for name, tensor in self.backbone.tensors().items()}
        checkpoint["state_dict"] |= {
            **state,
            "thresholds": self.thresholds.float(),
        }  # independent of the precision
        checkpoint["state_dict"] |= known_to_numpy(checkpoint["state_dict"])
        if self._in_half:
            own = {
                name: tensor
                for name, tensor in checkpoint["state_dict"].items()
                if name.startswith("backbone.")
            }
            checkpoint["state_dict"] |= self.backbone.halved(own)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint fits this model, and restore the state of its training."""
        saved = checkpoint["flash"]["labels"]
        if saved != self.labels:
            raise FlashError(
                f"the checkpoint's labels ({some_names(saved)}) are not this model's ({some_names(self.labels)}); "
                "build the model with the same labels, in the same order"
            )
        if problem := difference(self.backbone, checkpoint["flash"], checkpoint["state_dict"]):
            raise FlashError(problem)
        resumes = self.attached is not None and self.trainer.state.fn == TrainerFn.FITTING
        if resumes and "optimizer_states" not in checkpoint:
            raise FlashError(WEIGHTS_ALONE)
        self._cross_validated = checkpoint["flash"].get("cross_validated") is True
        self.backbone.resume(checkpoint["flash"], checkpoint)
        if self.thresholds_option != "auto":
            state = checkpoint["state_dict"]
            kept = resolve_thresholds(self.thresholds_option, self.labels, state["thresholds"].numpy())
            state["thresholds"] = torch.from_numpy(kept)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Also save the calibration."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in ("scale", "shift"):
            destination[f"{prefix}calibration_{name}"] = torch.tensor(getattr(self.calibration, name))

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Also load the calibration."""
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
        *,
        trust_remote_code: bool = False,
        **overrides: Any,
    ) -> "TextClassifier":
        """Load a file that `save_checkpoint` wrote; needs no other file and no network.

        Args:
            checkpoint_path: a path, or a URL, which is downloaded to a temporary folder.
            map_location: Lightning's argument, which is ignored; the model is loaded on the CPU.
            hparams_file: Lightning's argument, which is ignored; the file is self-contained.
            strict: Lightning's argument, which is ignored; the weights must always fit.
            weights_only: Lightning's argument, which is ignored; reading a file never runs code.
            trust_remote_code: whether the encoder's own Python code may be downloaded and run again, if the model was
                created with it.
            overrides: arguments of `TextClassifier` that replace the saved ones, such as `metrics=`, `thresholds=` or
                `max_length=`, except those that the weights depend on. A loss, optimizer or scheduler that is code
                instead of a name is not saved, and has to be passed again for further training.

        Raises:
            CheckpointError: the file is missing, truncated, of another library, or of a newer format.
            FlashError: an override would change the meaning of the weights.
            RemoteCodeError: the encoder needs Python code that is not trusted, or that has moved.
        """
        overrides = take_earlier_names(overrides)
        content = load_checkpoint(checkpoint_path)
        settings = content["flash"]
        trained = {name: settings[name] for name in ("labels", "multi_label", "backbone")}
        options = dict(settings["backbone_options"])
        if fixed := [name for name in overrides if name in (*trained, *options, "num_classes")]:
            raise FlashError(
                f"{', '.join(fixed)} cannot be changed: the weights of {checkpoint_path} were trained with it"
            )
        if "encoder" in settings:
            read = {**settings, "max_length": overrides.get("max_length", settings["max_length"])}
            encoder = _encoder_of(checkpoint_path, read, content["state_dict"], trust_remote_code)
            trained["backbone"], options = encoder, {}
        others = ("max_length", "learning_rate", "thresholds", "threshold_objective")
        kept = {name: settings[name] for name in others if name in settings}
        kept |= choices_of(settings, overrides)
        model = cls(**{**trained, **options, **kept, **overrides})
        state = dict(content["state_dict"])
        saved = state["thresholds"].float()
        state["thresholds"] = torch.from_numpy(
            resolve_thresholds(overrides.get("thresholds"), model.labels, saved.numpy())
        )
        load_weights(model, state, checkpoint_path)
        model.input_fields = settings.get("input_fields")
        model._precision = str(settings.get("precision", ""))
        if "loss_fn" not in overrides:
            model.backbone.loss = kept_loss(settings)
        return model

    # ---- serving --------------------------------------------------------------------------------------------

    def serve(
        self,
        host: str = "127.0.0.1",
        port: int = 8000,
        sanity_check: bool = True,
        input_cls: Any = None,
        transform: Any = None,
        transform_kwargs: Any = None,
        output: Output | None = None,
        **options: Any,
    ) -> None:
        """Serve the model over HTTP until Ctrl-C: `POST /predict`, the API that `/docs` describes, and a web page at `/`.

        Args:
            host: the address to listen at; by default only this machine can connect.
            port: 0 picks any free port.
            sanity_check: Lightning Flash's argument, which is ignored; the model is always checked before the start.
            input_cls: Lightning Flash's argument; must be None.
            transform: Lightning Flash's argument; must be None.
            transform_kwargs: Lightning Flash's argument; must be None.
            output: output of `/predict`: by default a dict of label to probability, or as for `Trainer.predict`.
            options: the other fields of `serve.ServeOptions`.

        Raises:
            FlashError: an option is invalid, the server cannot listen at the address, or the extra `serve` is missing.
        """
        from flash.text.classification.serve.in_memory import serve_model

        flashs = {"input_cls": input_cls, "transform": transform, "transform_kwargs": transform_kwargs}
        serve_model(self, flashs, {"host": host, "port": port, "output": output or self.output, **options})


def _make_backbone(
    backbone: Any, labels: list[str], max_length: int, options: Mapping[str, Any]
) -> BackboneModule:
    """Create the backbone that the user named, or return an existing backbone."""
    if isinstance(backbone, BackboneModule):
        for name in options:
            known = [name for name in signature(TextClassifier).parameters if name != "backbone_kwargs"]
            raise FlashError(unknown_name("argument of TextClassifier", name, known))
        return backbone
    if is_encoder(backbone):
        return EncoderModule.from_pretrained(backbone, labels, max_length, options)
    return LinearModule(load_backbone(backbone, len(labels), options))


def _encoder_of(
    path: str | Path, settings: Mapping[str, Any], state: Mapping[str, torch.Tensor], trust_remote_code: bool
) -> EncoderModule:
    """Create the encoder of a model file, with random weights of the file's shapes."""
    prefix = "backbone."
    own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    try:
        return EncoderModule.from_content(settings, own, trust_remote_code=trust_remote_code)
    except MisfitError as error:
        raise CheckpointError(f"the checkpoint {path} is damaged: {error}; copy or save it again") from error


def is_encoder(backbone: str | Path) -> bool:
    """Whether this is an encoder's folder or id, and neither the name of a backbone nor a misspelt one."""
    known = available_backbones()
    mistyped = get_close_matches(str(backbone), known) and not Path(backbone).exists()
    return backbone not in known and not mistyped


def _kind(multi_label: bool) -> str:
    return "multi-label" if multi_label else "single-label"
