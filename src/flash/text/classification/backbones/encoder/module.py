"""An encoder as a backbone: tokenised once, batches of texts of similar length, gradient descent by Lightning.

Imports torch, no Lightning and no transformers: prediction needs neither the one nor, before a model is made, the other.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from flash.core.errors import FlashError, unknown_name
from flash.core.finetuning import FinetuningStrategy, LoraOptions
from flash.core.processes import of_all, own_share
from flash.text.classification.backbones.encoder import gradient_steps as steps
from flash.text.classification.backbones.encoder import lora
from flash.text.classification.backbones.encoder.forward import batches_of, features_of, training_logits
from flash.text.classification.backbones.encoder.model import Encoder, EncoderConfig
from flash.text.classification.backbones.encoder.resuming import draw_noise, epoch_of, noise_of, take_up
from flash.text.classification.backbones.encoder.token_cache import KeptFeatures, TokenCache
from flash.text.classification.backbones.linear.features import Texts
from flash.text.classification.backbones.memory import Work, memory_explained
from flash.text.classification.backbones.module import BackboneModule, Classifier, TrainingRows
from flash.text.classification.batching import TokenRows, length_batches, pool_windows, tokenize
from flash.text.classification.losses import Loss, loss_of_known, make_loss, one_number
from flash.text.classification.optimization import (
    DEFAULT_WEIGHT_DECAY,
    default_learning_rate,
    make_optimizer,
    make_schedule,
    own_options,
    parameter_groups,
)
from flash.text.classification.targets.known import any_unknown, known_per_row, label_counts

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


PREDICT_ROWS = 32
"""Rows a batch when texts are scored."""
CLIPPED_NORM = 1.0
"""What gradients are clipped to unless the trainer is given `gradient_clip_val`; 0 there is no clipping."""


@dataclass(frozen=True)
class TrainingOptions:
    """How an encoder is finetuned, beside the classifier's optimiser, schedule and learning rate."""

    pos_weight: Any = None
    """How much more rows with a label count for it: a number, one per label, a dict by label, or "balanced"."""
    layer_decay: float = 1.0
    """What the learning rate is multiplied by from each layer to the one below it."""
    warmup: float = 0.06
    """The share of all steps in which the learning rate grows from near 0."""


class EncoderModule(BackboneModule):
    """An `Encoder` with its batches and its training.

    Args:
        name: the hub id or folder that it came from.
        encoder: the network.
        max_length: most tokens of a text, or of a window of it.
        training: how to finetune it.
    """

    automatic_optimization = True
    one_device = False
    minds_length = True

    def __init__(
        self, name: str, encoder: Encoder, max_length: int, training: TrainingOptions = TrainingOptions()
    ) -> None:
        super().__init__()
        most = encoder.most_tokens
        if max_length < 1 or (most is not None and max_length > most):
            raise FlashError(
                f"max_length={max_length}, and {name!r} has positions for {most} tokens; "
                f"pass max_length={most or 512} or less"
            )
        self.name, self.encoder, self.max_length, self.training_options = name, encoder, max_length, training
        self.margins = self.logits
        self.starts_at_base_rates = not encoder.kept_head
        self.adapters: lora.Adapters | None = None
        self._resumed_adapters: Any = None
        self.noise: int | None = None  # what a run's random numbers follow from
        self._accumulated = {0: 1}  # how many batches a step takes, from which epoch on
        self._broken = steps.Broken()
        self._trained = False  # for good
        self._read = False  # weights that are not the checkpoint's that it was made of
        self.precision_sentence = ""  # why a prediction has its precision, where that was measured
        self._learnt = encoder.kept_head
        self._start = {name: each.detach().clone() for name, each in encoder.head.named_parameters()}
        self._cache: TokenCache | None = None  # while a fit lasts, for validation's texts
        self.frozen: KeptFeatures | None = None  # while the head alone trains, for the same

    @property
    def fitted(self) -> bool:
        """Whether its head is a checkpoint's own, has taken a step, or was loaded; a new one is random."""
        now = dict(self.encoder.head.named_parameters())
        start = {name: tensor.to(now[name]) for name, tensor in self._start.items()}
        return self._learnt or any(not torch.equal(now[name], tensor) for name, tensor in start.items())

    @classmethod
    def from_pretrained(
        cls, name: str | Path, labels: list[str], max_length: int, options: Mapping[str, Any]
    ) -> "EncoderModule":
        """From a folder or the hub.

        Raises:
            FlashError: an unknown option, or an encoder that cannot be had.
        """
        config, training = _options(options)
        return cls(str(name), Encoder.from_pretrained(name, labels, config), max_length, training)

    @classmethod
    def from_content(
        cls, settings: Mapping[str, Any], state: Mapping[str, Any], *, trust_remote_code: bool = False
    ) -> "EncoderModule":
        """What a model file tells of, with random weights until they are loaded; reads no other file.

        Args:
            settings: what the file says of its model.
            state: the file's arrays or tensors that this module will load; the encoder has to be of their shapes.
            trust_remote_code: as for `TextClassifier.load_from_checkpoint`.

        Raises:
            CheckpointError: what it tells is damaged.
            MisfitError: the weights do not fit it.
            RemoteCodeError: it needs Python code that is not trusted, or that is not where it was.
        """
        config, training = _options(settings["backbone_options"])
        prefix = "encoder."
        shapes = {
            name.removeprefix(prefix): tuple(array.shape)
            for name, array in state.items()
            if name.startswith(prefix)
        }
        encoder = Encoder.from_content(
            settings["encoder"],
            settings["labels"],
            config,
            shapes=shapes,
            trust_remote_code=trust_remote_code,
        )
        made = cls(settings["backbone"], encoder, settings["max_length"], training)
        made.starts_at_base_rates = False
        # of a head from a file, a bias of 0 alone tells that it was never trained
        bias = made._start.get("bias")
        made._start = {} if bias is None else {"bias": torch.zeros_like(bias)}
        made._learnt = encoder.kept_head or bias is None
        return made

    def options(self) -> dict[str, Any]:
        """The fields of `EncoderConfig` and `TrainingOptions`."""
        return {**asdict(self.encoder.config), **asdict(self.training_options)}

    def take_labels(self, labels: list[str]) -> bool:
        """Name the labels; a checkpoint whose own head has these names is read again, with that head."""
        encoder = self.encoder
        if not self._read and not encoder.kept_head and sorted(encoder.own_labels) == sorted(labels):
            self.encoder = Encoder.from_pretrained(self.name, labels, encoder.config)
            self.starts_at_base_rates = not self.encoder.kept_head
            return True
        encoder.name_labels(labels)
        return False

    def content(self) -> dict[str, Any]:
        """The network's shape and its tokenizer, and what adapters it has for now."""
        adapters = {} if self.adapters is None else {"lora": self.adapters.options.plain()}
        return {"encoder": self.encoder.content(), **adapters}

    def layers(self) -> list[list[torch.nn.Parameter]]:
        """Parameters from the embeddings to the head."""
        return self.encoder.layers()

    def for_prediction(self, *, bfloat16: bool) -> "EncoderModule":
        """Itself, to be trained no more: without dropout and gradients and, if so asked, with weights of 16 bits.

        These are rounded once, not for each batch; the head keeps its float32: it is small, and every label depends on
        it. Buffers keep theirs, in which angles of positions are exact.
        """
        self.eval().requires_grad_(False)
        if bfloat16:
            for parameter in self.encoder.model.parameters():
                if parameter.is_floating_point():
                    parameter.data = parameter.data.to(torch.bfloat16)
        self._trained = True
        return self

    # ---- scores ---------------------------------------------------------------------------------------------

    def tokenize(self, texts: Texts) -> TokenRows:
        """Token ids of texts, cut or in windows as the options say."""
        config = self.encoder.config
        return tokenize(
            texts.combine_chunks() if hasattr(texts, "combine_chunks") else texts,
            self.encoder.tokenizer,
            max_length=self.max_length,
            long_text=config.long_text,
            overlap=config.window_overlap,
        )

    def margins_of_many(self, texts: Texts, batch_size: int) -> np.ndarray:
        """`logits` in batches of that size, but for a processor, on which larger ones than ours are slower."""
        on_processor = self.encoder.head.weight.device.type == "cpu"
        return self.logits(texts, min(batch_size, PREDICT_ROWS) if on_processor else batch_size)

    @torch.inference_mode()
    def logits(self, texts: Texts, batch_size: int = PREDICT_ROWS) -> np.ndarray:
        """(N, L) float32, uncalibrated; the encoder is in evaluation mode meanwhile."""
        tokens = self.tokenize(texts) if self._cache is None else self._cache.rows_of(texts, self.tokenize)
        logits = np.empty((len(tokens), len(self.encoder.labels)), np.float32)
        with memory_explained(self):
            found: Iterable[tuple[np.ndarray, torch.Tensor]] = self._features(tokens, batch_size=batch_size)
            if self.frozen is not None and self._cache is not None and self._cache.keeps(tokens):
                found = self.frozen.of(tokens, found)
            for rows, features in found:
                features = features.to(self.encoder.head.weight)
                logits[rows] = self.encoder.head(features).float().cpu().numpy()
        return tokens.pooled(logits, self.encoder.config.window_pooling)

    def _features(
        self, tokens: TokenRows, rank: int = 0, world: int = 1, batch_size: int = PREDICT_ROWS
    ) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Features of rows in evaluation mode, with the rows they are of: every `world`-th batch."""
        # looking through all modules takes a tenth of a single text's time
        training = [] if self._trained else [module for module in self.encoder.modules() if module.training]
        for module in training:
            module.training = False
        try:
            batches = batches_of(self.encoder, tokens, batch_size)
            yield from features_of(self.encoder, tokens, batches[rank::world], self)
        finally:
            for module in training:  # not `train()`: frozen parts may have been at rest
                module.training = True

    def _pool(
        self, logits: torch.Tensor, tokens: TokenRows, rows: np.ndarray
    ) -> tuple[np.ndarray, torch.Tensor]:
        """The texts that some rows are of, and a row of logits for each."""
        texts, local = np.unique(tokens.owner[rows], return_inverse=True)
        if len(texts) == len(rows):
            return tokens.owner[rows], logits
        owner = torch.from_numpy(local).to(logits.device)
        return texts, pool_windows(logits, owner, len(texts), self.encoder.config.window_pooling)

    # ---- training -------------------------------------------------------------------------------------------

    def before_fit(self, model: Classifier, trainer: "Trainer") -> None:
        """Freeze what the strategy says, for as long as it says."""
        from lightning.pytorch.utilities import rank_zero_info

        from flash.core.layer_finetuning import add_strategy

        rank_zero_info(f"{self.encoder.note[0].upper()}{self.encoder.note[1:]}.")
        self.noise, self._accumulated, self.frozen = None, steps.accumulation(trainer), None
        self._broken.forget()
        self.train()
        add_strategy(trainer)
        strategy = getattr(trainer, "finetuning", None)
        self.encoder.check_strategy(getattr(strategy, "name", ""))
        if isinstance(strategy, FinetuningStrategy) and strategy.name == "lora":
            self._add_adapters(strategy.lora)

    def _add_adapters(self, options: LoraOptions) -> None:
        from lightning.pytorch.utilities import rank_zero_info

        self.after_fit()
        self.adapters = lora.add_adapters(self.encoder.model, options, self.name)
        counts = [parameter.numel() for parameter in self.parameters() if parameter.requires_grad]
        rank_zero_info(
            f"LoRA trains {sum(counts):,} parameters: the head, and adapters of rank {options.rank} beside "
            f"{len(self.adapters.layers)} linear layers, whose {sum(p.numel() for p in self.adapters.frozen):,} "
            "parameters take them up at the end."
        )

    def after_fit(self) -> None:
        """Make adapters a part of the weights, and forget tokens."""
        self._cache = self.frozen = None
        if self.adapters is not None:
            lora.merge_adapters(self.encoder.model, self.adapters)
            self.adapters = None

    def resume(self, settings: dict[str, Any], checkpoint: dict[str, Any]) -> None:
        """Go on exactly where the run stood; refuse to train adapters from weights that have none, or others."""
        self.starts_at_base_rates = False  # the head has learnt more since
        loop = checkpoint.get("loops", {}).get("fit_loop", {})
        self.noise = take_up(loop, steps.accumulated_in(epoch_of(loop), self._accumulated))
        self._resumed_adapters = settings.get("lora")
        if self.adapters is not None:
            problem = lora.resume_problem(self.adapters, self._resumed_adapters)
            if problem is not None:
                raise FlashError(problem)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """What adapters count beside their matrices, so that the state can be merged without them."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.adapters is not None:
            destination[f"{prefix}{lora.SCALING}"] = lora.tensor_of(self.adapters.options)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Take a state with adapters as the weights that they make, unless this module has adapters."""
        self._read = True
        if self.adapters is None:
            lora.merge_state(self, state_dict, prefix)
        state_dict.pop(f"{prefix}{lora.SCALING}", None)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def train_batches(self, model: Classifier, dataset: TrainingRows, seed: int) -> "_Batches":
        """Batches of texts of similar length in another order each epoch."""
        self._cache = TokenCache()
        return _Batches(self, model, dataset, seed)

    def configure_optimizers(self, model: Classifier) -> Any:
        """AdamW, linear warm-up and decay, unless the user has chosen others."""
        from flash.core.layer_finetuning import has_finetuning_of_its_own

        if (
            self.adapters is None
            and self._resumed_adapters is not None
            and model.trainer.ckpt_path is not None
        ):
            raise FlashError(
                "the checkpoint was written while adapters trained; "
                f'pass strategy=("lora", {self._resumed_adapters!r}) to resume that fit'
            )
        optimizer = model.optimizer or "AdamW"
        own = own_options(optimizer)
        strategy = getattr(model.trainer, "finetuning", None)
        usual = default_learning_rate(getattr(strategy, "name", "no_freeze"), self.encoder.head.in_features)
        rate = own.get("lr", usual) if model.learning_rate is None else model.learning_rate
        groups = parameter_groups(
            self.layers(),
            learning_rate=rate,
            layer_decay=self.training_options.layer_decay,
            weight_decay=own.get("weight_decay", DEFAULT_WEIGHT_DECAY),
            trainable_only=self.adapters is not None or has_finetuning_of_its_own(model.trainer),
        )
        unfreezes = bool(getattr(strategy, "epochs", ()))
        made = make_optimizer(optimizer, groups, rate, fused=self._may_fuse(model), unfreezes=unfreezes)
        total = model.trainer.estimated_stepping_batches
        schedule = make_schedule(
            model.lr_scheduler, made, total_steps=total, warmup=self.training_options.warmup
        )
        return made if schedule is None else {"optimizer": made, "lr_scheduler": schedule}

    def _may_fuse(self, model: Classifier) -> bool:
        """Whether the optimiser's step may be one pass over the parameters."""
        parameters = list(self.parameters())
        known = all(each.device.type in ("cpu", "cuda") and each.is_floating_point() for each in parameters)
        trainer = model.trainer
        # In mixed precision Lightning clips no gradients of an optimiser whose step is one pass.
        clips = trainer.gradient_clip_val is not None and "mixed" in str(trainer.precision)
        return known and steps.scaler_of(trainer) is None and not clips

    def training_step(self, model: Classifier, batch: "_Batch") -> torch.Tensor:
        """The loss of one batch."""
        device, encoder, epoch = model.device, self.encoder, batch.epoch
        trainer, accumulated = model.trainer, model.trainer.accumulate_grad_batches
        self.at_hand = Work(epoch.tokens, batch.rows, device, accumulated, epoch.batch_size)
        with noise_of(device, *batch.place, model.global_rank):
            if batch.features is not None:
                logits = encoder.head(encoder.dropout(batch.features.to(encoder.head.weight)))
            else:
                logits = training_logits(encoder, epoch.tokens, batch.rows, epoch.batch_size, device)
            texts, logits = self._pool(logits, epoch.tokens, batch.rows)
            targets = torch.from_numpy(epoch.targets[texts].toarray()).to(device)
            measure = (
                cast(Any, self.loss) if epoch.known is None else partial(loss_of_known, cast(Any, self.loss))
            )
            loss = one_number(measure(logits, targets))
        now = (device.type == "cpu" and trainer.world_size == 1) or steps.scaler_of(trainer) is not None
        self._broken.see_loss(loss, trainer.global_step, now=now)
        model.log("train_loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=len(texts))
        self._learnt = True
        of_step = steps.share_of_step(batch.place[2], trainer.num_training_batches, accumulated)
        return loss * (batch.weight * of_step)

    def check_gradients(self, model: Classifier, optimizer: torch.optim.Optimizer) -> None:
        """Take no step with numbers that are none, but for the scaler of 16-mixed, which takes none with them."""
        if steps.scaler_of(model.trainer) is None:
            gradients = steps.gradients_of(optimizer)
            self._check_gradients(model, torch.nn.utils.get_total_norm(gradients), gradients)

    def _check_gradients(self, model: Classifier, norm: torch.Tensor, gradients: list[torch.Tensor]) -> None:
        trainer = model.trainer
        self._broken.see_gradients(norm, gradients, trainer.global_step, alone=trainer.world_size == 1)

    def clip_gradients(self, model: Classifier, optimizer: torch.optim.Optimizer) -> None:
        """To a norm of `CLIPPED_NORM`, all parameters together, unless the trainer was given a number."""
        scaled = steps.scaler_of(model.trainer) is not None
        if scaled and optimizer.defaults.get("fused"):
            return  # a fused optimiser of 16-mixed: its gradients get their size as it steps
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        gradients = steps.gradients_of(optimizer)
        norm = torch.nn.utils.get_total_norm(gradients)
        if not scaled:
            self._check_gradients(model, norm, gradients)
        if model.device.type != "cpu" or not float(norm) <= CLIPPED_NORM:  # a GPU is not asked twice
            torch.nn.utils.clip_grads_with_norm_(parameters, CLIPPED_NORM, norm)

    def why_unmeasured(self, model: Classifier) -> tuple[str, str]:
        """An encoder has no scores of its training rows without themselves."""
        return "an encoder is not cross-validated", ""


class _Batch:
    """Some rows of an epoch, opaque to Lightning, which would move and copy what it can look into."""

    def __init__(
        self,
        epoch: "_Batches",
        rows: np.ndarray,
        weight: float,
        place: tuple[int, int, int],
        features: torch.Tensor | None = None,
    ) -> None:
        self.epoch, self.rows, self.weight, self.features = epoch, rows, weight, features
        self.place = place  # the run's number, the epoch's, and the batch's in it


class _Batches:
    """What an epoch iterates over; knows its length, so that a schedule knows the number of steps."""

    def __init__(self, module: EncoderModule, model: Classifier, dataset: TrainingRows, seed: int) -> None:
        self.module, self.model, self.dataset, self.seed = module, model, dataset, seed
        self.tokens = module.tokenize(dataset.texts)
        _say_what_was_cut(module, self.tokens)
        self.targets = cast(Any, dataset.targets)
        self.known = known_per_row(self.targets) if any_unknown(self.targets) else None
        positives, rows = label_counts(self.targets)
        module.loss = make_loss(
            model.loss_fn,
            multi_label=model.multi_label,
            labels=model.labels,
            pos_weight=module.training_options.pos_weight,
            positives=positives,
            rows=rows,
        )
        if module.starts_at_base_rates:
            module.encoder.start_bias(positives / np.maximum(rows, 1), multi_label=model.multi_label)
            module.starts_at_base_rates = False
            start = dict(module.encoder.head.named_parameters())
            module._start = {name: start[name].detach().clone() for name in module._start}
        self._features: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self._order(0))

    @property
    def batch_size(self) -> int:
        """Rows a batch of each process, as the user has chosen."""
        data = getattr(self.model.trainer, "datamodule", None)
        return int(getattr(data, "batch_size", None) or 32)

    def _order(self, epoch: int) -> list[np.ndarray]:
        """Batches that all processes share: `batch_size` rows for each of them."""
        trainer = self.model.trainer
        size = self.batch_size * trainer.world_size
        return length_batches(
            self.tokens.lengths, size, shuffle=True, seed=self.seed, epoch=epoch, owner=self.tokens.owner
        )

    def __iter__(self) -> Iterator[_Batch]:
        epoch = self.model.current_epoch
        kept = self._kept_features() if epoch < self._epochs_frozen() else None
        if kept is None:
            self._features = self.module.frozen = None  # not needed again
        elif self.module.frozen is None:
            self.module.frozen = KeptFeatures()
        trainer, module = self.model.trainer, self.module
        if module.noise is None:
            module.noise = int(trainer.strategy.broadcast(draw_noise()))
        if len(module._accumulated) > 1:  # Lightning asks its callback only where it begins an epoch anew
            trainer.accumulate_grad_batches = steps.accumulated_in(epoch, module._accumulated)
        # Lightning's counter, since it restores no state of a loader that it has asked for its length before
        done = trainer.fit_loop.epoch_loop.batch_progress.current.ready if trainer.training else 0
        order = self._order(epoch)
        for index, rows in enumerate(order[done:], done):
            place, texts = (module.noise, epoch, index), self._share_of_texts(rows, len(order))
            whole = rows
            rows, weight = own_share(rows, self.tokens.owner, trainer.global_rank, trainer.world_size)
            if self.known is not None and isinstance(module.loss, Loss):
                weight *= self._known_per_text(rows) / self._known_per_text(whole)
            features = None if kept is None else kept[torch.from_numpy(rows)]
            yield _Batch(self, rows, weight * texts, place, features)

    def _share_of_texts(self, rows: np.ndarray, batches: int) -> float:
        """By what a batch counts so that each text does the same, where batches have fewer texts for their windows."""
        if len(self.tokens) == self.tokens.texts:
            return 1.0
        return len(np.unique(self.tokens.owner[rows])) * batches / self.tokens.texts

    def _known_per_text(self, rows: np.ndarray) -> float:
        """How many targets are known of a text, in the mean over the texts of some rows."""
        return float(cast(np.ndarray, self.known)[np.unique(self.tokens.owner[rows])].mean())

    def state_dict(self) -> dict[str, Any]:
        """Tells Lightning that an epoch can be resumed in its middle."""
        return {"noise": self.module.noise}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing: `EncoderModule.resume` has taken it from the checkpoint."""

    def _epochs_frozen(self) -> float:
        from flash.core.layer_finetuning import LayerFinetuning

        callbacks: list[Any] = self.model.trainer.callbacks
        return max((one.epochs_frozen for one in callbacks if isinstance(one, LayerFinetuning)), default=0)

    def _kept_features(self) -> torch.Tensor:
        """(R, H) features of all rows: those of a frozen encoder never change, and are computed once."""
        if self._features is None:
            trainer = self.model.trainer
            with trainer.precision_plugin.forward_context(), torch.inference_mode():
                own = self.module._features(self.tokens, trainer.global_rank, trainer.world_size)
                found_here = [(rows, found.float().cpu()) for rows, found in own]
            parts = [part for share in of_all(found_here) for part in share]
            self._features = torch.empty(len(self.tokens), parts[0][1].shape[1])
            for rows, found in parts:
                self._features[torch.from_numpy(rows)] = found
        return self._features


def _say_what_was_cut(module: EncoderModule, tokens: TokenRows) -> None:
    from lightning.pytorch.utilities import rank_zero_info

    if tokens.cut:
        windows = module.encoder.config.long_text == "window"
        what = "are read in windows" if windows else 'are cut; long_text="window" reads them whole'
        rank_zero_info(
            f"{tokens.cut} of {tokens.texts} training texts ({tokens.cut / tokens.texts:.1%}) have more than "
            f"max_length={module.max_length} tokens and {what}."
        )


def _options(options: Mapping[str, Any]) -> tuple[EncoderConfig, TrainingOptions]:
    """The user's keywords as what they are options of."""
    known = [field.name for kind in (EncoderConfig, TrainingOptions) for field in fields(kind)]
    for name in options:
        if name not in known:
            raise FlashError(unknown_name("option of an encoder", name, known))
    own = {field.name for field in fields(EncoderConfig)}
    return (
        EncoderConfig(**{name: value for name, value in options.items() if name in own}),
        TrainingOptions(**{name: value for name, value in options.items() if name not in own}),
    )
