"""An encoder as a backbone: texts are tokenised once, batched by length, and trained by Lightning.

Imports torch, but neither Lightning, which prediction does not need, nor transformers before a model is created.
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
from flash.core.processes import all_gather, shard
from flash.text.classification.backbones.encoder import gradient_steps as steps
from flash.text.classification.backbones.encoder import lora
from flash.text.classification.backbones.encoder.forward import batches_of, features_of, training_logits
from flash.text.classification.backbones.encoder.model import Encoder, EncoderConfig
from flash.text.classification.backbones.encoder.resuming import (
    draw_seed,
    epoch_of,
    rewind_to_last_step,
    seeded,
)
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
"""Rows per batch in prediction."""
CLIPPED_NORM = 1.0
"""Gradient norm to clip to unless the trainer is given `gradient_clip_val`; a value of 0 there turns clipping off."""


@dataclass(frozen=True)
class TrainingOptions:
    """Options of finetuning beside the classifier's optimizer, scheduler and learning rate."""

    pos_weight: Any = None
    """Weight of positives in the loss: a number, a list, `{"toxic": 3}`, or balanced."""
    layer_decay: float = 1.0
    """Factor of the learning rate from each layer to the one below."""
    warmup: float = 0.06
    """Share of steps in which the learning rate warms up. It rises from near 0."""


class EncoderModule(BackboneModule):
    """An `Encoder` with its batches and its training.

    Args:
        name: the encoder's hub id or folder.
        encoder: the network.
        max_length: maximum number of tokens of a text, or of a window.
        training: options of finetuning.
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
        self.run_seed: int | None = None
        self._accumulated = {0: 1}  # batches per step, by the epoch from which on it applies
        self._guard = steps.NonFiniteGuard()
        self._trained = False  # prediction only from now on
        self._read = False  # whether a state was loaded over the weights of the encoder's folder
        self.precision_sentence = ""  # why a prediction has its precision, if it was measured
        self._learnt = encoder.kept_head
        self._start = {name: each.detach().clone() for name, each in encoder.head.named_parameters()}
        self._cache: TokenCache | None = None  # during training, for validation's texts
        self.frozen: KeptFeatures | None = None  # the same, while only the head is trained

    @property
    def fitted(self) -> bool:
        """Whether its head is a checkpoint's own, was trained, or was loaded; a new head is random."""
        now = dict(self.encoder.head.named_parameters())
        start = {name: tensor.to(now[name]) for name, tensor in self._start.items()}
        return self._learnt or any(not torch.equal(now[name], tensor) for name, tensor in start.items())

    @classmethod
    def from_pretrained(
        cls, name: str | Path, labels: list[str], max_length: int, options: Mapping[str, Any]
    ) -> "EncoderModule":
        """Load an encoder from a folder or the hub.

        Raises:
            FlashError: an unknown option, or the encoder cannot be loaded.
        """
        config, training = _options(options)
        return cls(str(name), Encoder.from_pretrained(name, labels, config), max_length, training)

    @classmethod
    def from_content(
        cls, settings: Mapping[str, Any], state: Mapping[str, Any], *, trust_remote_code: bool = False
    ) -> "EncoderModule":
        """Create the encoder of a model file, with random weights until they are loaded; reads no other file.

        Args:
            settings: the file's settings.
            state: the file's arrays or tensors, with which the encoder's shapes are compared.
            trust_remote_code: as for `TextClassifier.load_from_checkpoint`.

        Raises:
            CheckpointError: the settings are damaged.
            MisfitError: the weights do not fit the settings.
            RemoteCodeError: the encoder needs Python code that is not trusted, or that has moved.
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
        # a head from a file counts as trained unless its bias is 0
        bias = made._start.get("bias")
        made._start = {} if bias is None else {"bias": torch.zeros_like(bias)}
        made._learnt = encoder.kept_head or bias is None
        return made

    def options(self) -> dict[str, Any]:
        """The fields of `EncoderConfig` and `TrainingOptions`."""
        return {**asdict(self.encoder.config), **asdict(self.training_options)}

    def take_labels(self, labels: list[str]) -> bool:
        """Set the label names; if the checkpoint's own head has these labels, load the checkpoint again with its head."""
        encoder = self.encoder
        if not self._read and not encoder.kept_head and sorted(encoder.own_labels) == sorted(labels):
            self.encoder = Encoder.from_pretrained(self.name, labels, encoder.config)
            self.starts_at_base_rates = not self.encoder.kept_head
            return True
        encoder.name_labels(labels)
        return False

    def content(self) -> dict[str, Any]:
        """Return the network's configuration, its tokenizer and, during training with LoRA, the adapters' options."""
        adapters = {} if self.adapters is None else {"lora": self.adapters.options.plain()}
        return {"encoder": self.encoder.content(), **adapters}

    def layers(self) -> list[list[torch.nn.Parameter]]:
        """Return the parameters from the embeddings to the head."""
        return self.encoder.layers()

    def for_prediction(self, *, bfloat16: bool) -> "EncoderModule":
        """Prepare for prediction only: turn off dropout and gradients and, if asked, convert the weights to bfloat16.

        The weights are converted once, not per batch. The head stays in float32: it is small, and every label depends on
        it. Buffers stay too, so that rotary position angles are exact.
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
        """Tokenise texts, truncated or in windows according to the options."""
        config = self.encoder.config
        return tokenize(
            texts.combine_chunks() if hasattr(texts, "combine_chunks") else texts,
            self.encoder.tokenizer,
            max_length=self.max_length,
            long_text=config.long_text,
            overlap=config.window_overlap,
        )

    def margins_of_many(self, texts: Texts, batch_size: int) -> np.ndarray:
        """Return `logits` in batches of that size; on a CPU at most `PREDICT_ROWS`, as larger batches are slower there."""
        on_processor = self.encoder.head.weight.device.type == "cpu"
        return self.logits(texts, min(batch_size, PREDICT_ROWS) if on_processor else batch_size)

    @torch.inference_mode()
    def logits(self, texts: Texts, batch_size: int = PREDICT_ROWS) -> np.ndarray:
        """Return (N, L) float32 logits, uncalibrated, computed in evaluation mode."""
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
        """Yield rows and their features in evaluation mode, for every `world`-th batch."""
        # iterating over all modules takes a tenth of a single text's time
        training = [] if self._trained else [module for module in self.encoder.modules() if module.training]
        for module in training:
            module.training = False
        try:
            batches = batches_of(self.encoder, tokens, batch_size)
            yield from features_of(self.encoder, tokens, batches[rank::world], self)
        finally:
            for module in training:  # not `train()`: frozen parts may have been in evaluation mode
                module.training = True

    def _pool(
        self, logits: torch.Tensor, tokens: TokenRows, rows: np.ndarray
    ) -> tuple[np.ndarray, torch.Tensor]:
        """Pool the logits of windows; return the texts of these rows, and one row of logits per text."""
        texts, local = np.unique(tokens.owner[rows], return_inverse=True)
        if len(texts) == len(rows):
            return tokens.owner[rows], logits
        owner = torch.from_numpy(local).to(logits.device)
        return texts, pool_windows(logits, owner, len(texts), self.encoder.config.window_pooling)

    # ---- training -------------------------------------------------------------------------------------------

    def before_fit(self, model: Classifier, trainer: "Trainer") -> None:
        """Reset the state of the last training, and set up the finetuning strategy."""
        from lightning.pytorch.utilities import rank_zero_info

        from flash.core.layer_finetuning import add_strategy

        rank_zero_info(f"{self.encoder.note[0].upper()}{self.encoder.note[1:]}.")
        self.run_seed, self._accumulated, self.frozen = None, steps.accumulation(trainer), None
        self._guard.forget()
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
        """Merge adapters into the weights, and clear the caches."""
        self._cache = self.frozen = None
        if self.adapters is not None:
            lora.merge_adapters(self.encoder.model, self.adapters)
            self.adapters = None

    def resume(self, settings: dict[str, Any], checkpoint: dict[str, Any]) -> None:
        """Resume from the last step; raise FlashError if the checkpoint has no or other adapters than this training."""
        self.starts_at_base_rates = False  # the head is already trained
        loop = checkpoint.get("loops", {}).get("fit_loop", {})
        self.run_seed = rewind_to_last_step(loop, steps.accumulated_in(epoch_of(loop), self._accumulated))
        self._resumed_adapters = settings.get("lora")
        if self.adapters is not None:
            problem = lora.resume_problem(self.adapters, self._resumed_adapters)
            if problem is not None:
                raise FlashError(problem)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Also save the adapters' scaling, so that the state can be merged without the options."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.adapters is not None:
            destination[f"{prefix}{lora.SCALING}"] = lora.tensor_of(self.adapters.options)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Merge the adapters of a state that has them, unless this module has adapters too."""
        self._read = True
        if self.adapters is None:
            lora.merge_state(self, state_dict, prefix)
        state_dict.pop(f"{prefix}{lora.SCALING}", None)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def train_batches(self, model: Classifier, dataset: TrainingRows, seed: int) -> "_Batches":
        """Return batches of texts of similar length, in another order in each epoch."""
        self._cache = TokenCache()
        return _Batches(self, model, dataset, seed)

    def configure_optimizers(self, model: Classifier) -> Any:
        """Return AdamW with linear warm-up and decay, unless the user has chosen others."""
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
        """Whether a fused optimizer can be used."""
        parameters = list(self.parameters())
        known = all(each.device.type in ("cpu", "cuda") and each.is_floating_point() for each in parameters)
        trainer = model.trainer
        # Lightning does not clip gradients of a fused optimizer in mixed precision
        clips = trainer.gradient_clip_val is not None and "mixed" in str(trainer.precision)
        return known and steps.scaler_of(trainer) is None and not clips

    def training_step(self, model: Classifier, batch: "_Batch") -> torch.Tensor:
        """Return the loss of one batch."""
        device, encoder, epoch = model.device, self.encoder, batch.epoch
        trainer, accumulated = model.trainer, model.trainer.accumulate_grad_batches
        self.at_hand = Work(epoch.tokens, batch.rows, device, accumulated, epoch.batch_size)
        with seeded(device, *batch.place, model.global_rank):
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
        self._guard.see_loss(loss, trainer.global_step, now=now)
        model.log("train_loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=len(texts))
        self._learnt = True
        of_step = steps.share_of_step(batch.place[2], trainer.num_training_batches, accumulated)
        return loss * (batch.weight * of_step)

    def check_gradients(self, model: Classifier, optimizer: torch.optim.Optimizer) -> None:
        """Raise an error for non-finite gradients, except in 16-mixed, where the scaler skips such steps."""
        if steps.scaler_of(model.trainer) is None:
            gradients = steps.gradients_of(optimizer)
            self._check_gradients(model, torch.nn.utils.get_total_norm(gradients), gradients)

    def _check_gradients(self, model: Classifier, norm: torch.Tensor, gradients: list[torch.Tensor]) -> None:
        trainer = model.trainer
        self._guard.see_gradients(norm, gradients, trainer.global_step, alone=trainer.world_size == 1)

    def clip_gradients(self, model: Classifier, optimizer: torch.optim.Optimizer) -> None:
        """Clip the norm of all gradients together to `CLIPPED_NORM`."""
        scaled = steps.scaler_of(model.trainer) is not None
        if scaled and optimizer.defaults.get("fused"):
            return  # a fused optimizer unscales gradients in its step, so they cannot be clipped before
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        gradients = steps.gradients_of(optimizer)
        norm = torch.nn.utils.get_total_norm(gradients)
        if not scaled:
            self._check_gradients(model, norm, gradients)
        if (
            model.device.type != "cpu" or not float(norm) <= CLIPPED_NORM
        ):  # avoids a device-to-host sync on a GPU
            torch.nn.utils.clip_grads_with_norm_(parameters, CLIPPED_NORM, norm)

    def why_unmeasured(self, model: Classifier) -> tuple[str, str]:
        """An encoder has no out-of-fold scores of its training rows."""
        return "an encoder is not cross-validated", ""


class _Batch:
    """Rows of a batch, in a type that Lightning neither moves nor copies."""

    def __init__(
        self,
        epoch: "_Batches",
        rows: np.ndarray,
        weight: float,
        place: tuple[int, int, int],
        features: torch.Tensor | None = None,
    ) -> None:
        self.epoch, self.rows, self.weight, self.features = epoch, rows, weight, features
        self.place = place  # the run's seed, the epoch, and the index of the batch in it


class _Batches:
    """The batches of an epoch; has a length, so that the number of steps is known to the scheduler."""

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
        """Rows per batch and process, as chosen by the user."""
        data = getattr(self.model.trainer, "datamodule", None)
        return int(getattr(data, "batch_size", None) or 32)

    def _order(self, epoch: int) -> list[np.ndarray]:
        """Return batches that all processes share, with `batch_size` rows for each process."""
        trainer = self.model.trainer
        size = self.batch_size * trainer.world_size
        return length_batches(
            self.tokens.lengths, size, shuffle=True, seed=self.seed, epoch=epoch, owner=self.tokens.owner
        )

    def __iter__(self) -> Iterator[_Batch]:
        epoch = self.model.current_epoch
        kept = self._kept_features() if epoch < self._epochs_frozen() else None
        if kept is None:
            self._features = self.module.frozen = None  # no longer needed
        elif self.module.frozen is None:
            self.module.frozen = KeptFeatures()
        trainer, module = self.model.trainer, self.module
        if module.run_seed is None:
            module.run_seed = int(trainer.strategy.broadcast(draw_seed()))
        if len(module._accumulated) > 1:  # Lightning's callback does not run for a resumed epoch
            trainer.accumulate_grad_batches = steps.accumulated_in(epoch, module._accumulated)
        # Lightning's counter, because Lightning does not restore a loader's state after asking for its length
        done = trainer.fit_loop.epoch_loop.batch_progress.current.ready if trainer.training else 0
        order = self._order(epoch)
        for index, rows in enumerate(order[done:], done):
            place, texts = (module.run_seed, epoch, index), self._share_of_texts(rows, len(order))
            whole = rows
            rows, weight = shard(rows, self.tokens.owner, trainer.global_rank, trainer.world_size)
            if self.known is not None and isinstance(module.loss, Loss):
                weight *= self._known_per_text(rows) / self._known_per_text(whole)
            features = None if kept is None else kept[torch.from_numpy(rows)]
            yield _Batch(self, rows, weight * texts, place, features)

    def _share_of_texts(self, rows: np.ndarray, batches: int) -> float:
        """Return the weight of a batch that gives each text the same weight, if texts have several windows."""
        if len(self.tokens) == self.tokens.texts:
            return 1.0
        return len(np.unique(self.tokens.owner[rows])) * batches / self.tokens.texts

    def _known_per_text(self, rows: np.ndarray) -> float:
        """Return the mean number of known targets per text, over the texts of some rows."""
        return float(cast(np.ndarray, self.known)[np.unique(self.tokens.owner[rows])].mean())

    def state_dict(self) -> dict[str, Any]:
        """Return the run's seed; the method also tells Lightning that an epoch can be resumed in the middle."""
        return {"noise": self.module.run_seed}  # the key of model files

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing: `EncoderModule.resume` has read the checkpoint."""

    def _epochs_frozen(self) -> float:
        from flash.core.layer_finetuning import LayerFinetuning

        callbacks: list[Any] = self.model.trainer.callbacks
        return max((one.epochs_frozen for one in callbacks if isinstance(one, LayerFinetuning)), default=0)

    def _kept_features(self) -> torch.Tensor:
        """Return (R, H) features of all rows, computed once, because a frozen encoder's features do not change."""
        if self._features is None:
            trainer = self.model.trainer
            with trainer.precision_plugin.forward_context(), torch.inference_mode():
                own = self.module._features(self.tokens, trainer.global_rank, trainer.world_size)
                found_here = [(rows, found.float().cpu()) for rows, found in own]
            parts = [part for share in all_gather(found_here) for part in share]
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
    """Divide the user's keywords into options of the encoder and of the training."""
    known = [field.name for kind in (EncoderConfig, TrainingOptions) for field in fields(kind)]
    for name in options:
        if name not in known:
            raise FlashError(unknown_name("option of an encoder", name, known))
    own = {field.name for field in fields(EncoderConfig)}
    return (
        EncoderConfig(**{name: value for name, value in options.items() if name in own}),
        TrainingOptions(**{name: value for name, value in options.items() if name not in own}),
    )
