"""An encoder as a backbone: tokenised once, batches of texts of similar length, gradient descent by Lightning.

Imports torch, no Lightning and no transformers: prediction needs neither the one nor, before a model is made, the other.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from flash.core.errors import FlashError, unknown_name
from flash.core.finetuning import LoraOptions
from flash.core.processes import of_all, own_share
from flash.text.classification.backbones import lora
from flash.text.classification.backbones.encoder import Encoder, EncoderConfig
from flash.text.classification.backbones.features import Texts
from flash.text.classification.backbones.memory import Work, memory_explained
from flash.text.classification.backbones.module import BackboneModule
from flash.text.classification.backbones.resuming import draw_noise, noise_of, take_up
from flash.text.classification.backbones.token_cache import TokenCache
from flash.text.classification.batching import TokenRows, length_batches, pool_windows, tokenize
from flash.text.classification.losses import make_loss
from flash.text.classification.optimization import (
    DEFAULT_LEARNING_RATES,
    DEFAULT_WEIGHT_DECAY,
    make_optimizer,
    make_schedule,
    own_options,
    parameter_groups,
)

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from flash.text.classification.data import TextDataset
    from flash.text.classification.model import TextClassifier

PREDICT_ROWS = 32
"""Rows a batch when texts are scored."""
CLIPPED_NORM = 1.0
"""What gradients are clipped to unless the trainer is given `gradient_clip_val`; 0 there is no clipping."""


@dataclass(frozen=True)
class TrainingOptions:
    """How an encoder is finetuned, beside the classifier's optimiser, schedule and learning rate."""

    pos_weight: Any = None
    """How much more rows with a label count for it: a number, one a label, a dict by label, or "balanced"."""
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
        self._accumulated = 1
        self._cache: TokenCache | None = None  # while a fit lasts, for validation's texts

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
    def from_content(cls, settings: Mapping[str, Any]) -> "EncoderModule":
        """What a model file tells of, with random weights until they are loaded; reads no other file."""
        config, training = _options(settings["backbone_options"])
        encoder = Encoder.from_content(settings["encoder"], settings["labels"], config)
        made = cls(settings["backbone"], encoder, settings["max_length"], training)
        made.starts_at_base_rates = False
        return made

    def options(self) -> dict[str, Any]:
        """The fields of `EncoderConfig` and `TrainingOptions`."""
        return {**asdict(self.encoder.config), **asdict(self.training_options)}

    def content(self) -> dict[str, Any]:
        """The network's shape and its tokenizer, and what adapters it has for now."""
        adapters = {} if self.adapters is None else {"lora": self.adapters.options.plain()}
        return {"encoder": self.encoder.content(), **adapters}

    def layers(self) -> list[list[torch.nn.Parameter]]:
        """Parameters from the embeddings to the head."""
        return self.encoder.layers()

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

    @torch.no_grad()
    def logits(self, texts: Texts) -> np.ndarray:
        """(N, L) float32, uncalibrated; the encoder is in evaluation mode meanwhile."""
        tokens = self.tokenize(texts) if self._cache is None else self._cache.rows_of(texts, self.tokenize)
        logits = np.empty((len(texts), len(self.encoder.labels)), np.float32)
        with memory_explained(self):
            for rows, features in self._features(tokens):
                places, pooled = self._pool(self.encoder.head(features), tokens, rows)
                logits[places] = pooled.float().cpu().numpy()
        return logits

    def _features(
        self, tokens: TokenRows, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Features of rows in evaluation mode, with the rows they are of: every `world`-th batch."""
        device = self.encoder.head.weight.device
        training = [module for module in self.encoder.modules() if module.training]
        self.encoder.eval()
        try:
            batches = length_batches(
                tokens.lengths, PREDICT_ROWS, shuffle=False, seed=0, epoch=0, owner=tokens.owner
            )
            for rows in batches[rank::world]:
                self.at_hand = Work(tokens, rows, device)
                ids, mask = tokens.batch(rows)
                yield rows, self.encoder.features(ids.to(device), mask.to(device))
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

    def before_fit(self, model: "TextClassifier", trainer: "Trainer") -> None:
        """Freeze what the strategy says, for as long as it says."""
        from lightning.pytorch.callbacks import BaseFinetuning
        from lightning.pytorch.utilities import rank_zero_info

        from flash.core.finetuning import FinetuningStrategy
        from flash.core.layer_finetuning import LayerFinetuning

        rank_zero_info(f"{self.encoder.note[0].upper()}{self.encoder.note[1:]}.")
        self.noise, self._accumulated = None, trainer.accumulate_grad_batches
        self.train()
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        callbacks[:] = [callback for callback in callbacks if not isinstance(callback, BaseFinetuning)]
        strategy = getattr(trainer, "finetuning", None)
        if isinstance(strategy, FinetuningStrategy) and strategy.name == "lora":
            self._add_adapters(strategy.lora)
        elif isinstance(strategy, FinetuningStrategy) and strategy.name != "no_freeze":
            callbacks.append(LayerFinetuning(strategy))
        elif isinstance(strategy, BaseFinetuning):
            callbacks.append(strategy)

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
        self._cache = None
        if self.adapters is not None:
            lora.merge_adapters(self.encoder.model, self.adapters)
            self.adapters = None

    def resume(self, settings: dict[str, Any], checkpoint: dict[str, Any]) -> None:
        """Go on exactly where the run stood; refuse to train adapters from weights that have none, or others."""
        self.starts_at_base_rates = False  # the head has learnt more since
        self.noise = take_up(checkpoint.get("loops", {}).get("fit_loop", {}), self._accumulated)
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
        if self.adapters is None:
            lora.merge_state(self, state_dict, prefix)
        state_dict.pop(f"{prefix}{lora.SCALING}", None)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def train_batches(self, model: "TextClassifier", dataset: "TextDataset", seed: int) -> "_Batches":
        """Batches of texts of similar length in another order each epoch."""
        self._cache = TokenCache()
        return _Batches(self, model, dataset, seed)

    def configure_optimizers(self, model: "TextClassifier") -> Any:
        """AdamW, linear warm-up and decay, unless the user has chosen others."""
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
        strategy = getattr(getattr(model.trainer, "finetuning", None), "name", "no_freeze")
        usual = DEFAULT_LEARNING_RATES.get(strategy, DEFAULT_LEARNING_RATES["no_freeze"])
        rate = model.learning_rate or own.get("lr") or usual
        groups = parameter_groups(
            self.layers(),
            learning_rate=rate,
            layer_decay=self.training_options.layer_decay,
            weight_decay=own.get("weight_decay", DEFAULT_WEIGHT_DECAY),
            trainable_only=self.adapters is not None,
        )
        made = make_optimizer(optimizer, groups, rate)
        steps = model.trainer.estimated_stepping_batches
        schedule = make_schedule(
            model.lr_scheduler, made, total_steps=steps, warmup=self.training_options.warmup
        )
        return made if schedule is None else {"optimizer": made, "lr_scheduler": schedule}

    def training_step(self, model: "TextClassifier", batch: "_Batch") -> torch.Tensor:
        """The loss of one batch."""
        device, encoder, epoch = model.device, self.encoder, batch.epoch
        self.at_hand = Work(epoch.tokens, batch.rows, device, self._accumulated)
        with noise_of(device, *batch.place, model.global_rank):
            if batch.features is not None:
                logits = encoder.head(encoder.dropout(batch.features.to(device)))
            else:
                ids, mask = epoch.tokens.batch(batch.rows)
                logits = encoder(ids.to(device), mask.to(device))
            texts, logits = self._pool(logits, epoch.tokens, batch.rows)
            targets = torch.from_numpy(epoch.targets[texts].toarray()).to(device)
            loss: torch.Tensor = cast(Any, self.loss)(logits, targets)
        if not torch.isfinite(loss):
            raise FlashError(
                f"the loss is {loss.item()} at step {model.trainer.global_step}; pass a smaller learning_rate=, or "
                f"gradient_clip_val=0.1 to the trainer, where {CLIPPED_NORM} is usual"
            )
        model.log("train_loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=len(texts))
        return loss * batch.weight

    def clip_gradients(self, model: "TextClassifier", optimizer: torch.optim.Optimizer) -> None:
        """To a norm of `CLIPPED_NORM`, all parameters together, unless the trainer was given a number."""
        scaled = getattr(model.trainer.precision_plugin, "scaler", None) is not None
        if scaled and getattr(optimizer, "_step_supports_amp_scaling", False):
            return  # a fused optimiser of 16-mixed: its gradients get their size as it steps
        gradients = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        torch.nn.utils.clip_grad_norm_(gradients, CLIPPED_NORM)

    def why_unmeasured(self, model: "TextClassifier") -> tuple[str, str]:
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

    def __init__(
        self, module: EncoderModule, model: "TextClassifier", dataset: "TextDataset", seed: int
    ) -> None:
        self.module, self.model, self.dataset, self.seed = module, model, dataset, seed
        self.tokens = module.tokenize(dataset.texts)
        _say_what_was_cut(module, self.tokens)
        self.targets = cast(Any, dataset.targets)
        positives = np.asarray(self.targets.sum(axis=0), np.float64)
        module.loss = make_loss(
            model.loss_fn,
            multi_label=model.multi_label,
            labels=model.labels,
            pos_weight=module.training_options.pos_weight,
            positives=positives,
            rows=len(dataset),
        )
        if module.starts_at_base_rates:
            module.encoder.start_bias(positives / len(dataset))
            module.starts_at_base_rates = False
        self._features: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self._order(0))

    def _order(self, epoch: int) -> list[np.ndarray]:
        """Batches that all processes share: `batch_size` rows for each of them."""
        trainer = self.model.trainer
        size = int(getattr(getattr(trainer, "datamodule", None), "batch_size", None) or 32)
        size *= trainer.world_size
        return length_batches(
            self.tokens.lengths, size, shuffle=True, seed=self.seed, epoch=epoch, owner=self.tokens.owner
        )

    def __iter__(self) -> Iterator[_Batch]:
        epoch = self.model.current_epoch
        kept = self._kept_features() if epoch < self._epochs_frozen() else None
        if kept is None:
            self._features = None  # not needed again
        trainer, module = self.model.trainer, self.module
        if module.noise is None:
            module.noise = int(trainer.strategy.broadcast(draw_noise()))
        # Lightning's counter, since it restores no state of a loader that it has asked for its length before
        done = trainer.fit_loop.epoch_loop.batch_progress.current.ready if trainer.training else 0
        for index, rows in enumerate(self._order(epoch)[done:], done):
            place = (module.noise, epoch, index)
            rows, weight = own_share(rows, self.tokens.owner, trainer.global_rank, trainer.world_size)
            yield _Batch(self, rows, weight, place, None if kept is None else kept[torch.from_numpy(rows)])

    def state_dict(self) -> dict[str, Any]:
        """Tells Lightning that an epoch can be resumed in its middle."""
        return {"noise": self.module.noise}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing: `EncoderModule.resume` has taken it from the checkpoint."""

    def _epochs_frozen(self) -> float:
        from flash.core.layer_finetuning import LayerFinetuning

        callbacks: list[Any] = self.model.trainer.callbacks  # type: ignore[attr-defined]
        return max((one.epochs_frozen for one in callbacks if isinstance(one, LayerFinetuning)), default=0)

    def _kept_features(self) -> torch.Tensor:
        """(R, H) features of all rows: those of a frozen encoder never change, and are computed once."""
        if self._features is None:
            trainer = self.model.trainer
            with torch.no_grad():
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
