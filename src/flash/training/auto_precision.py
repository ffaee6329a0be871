"""`Trainer(precision="auto")` on a CPU: the first process decides for all once the encoder exists."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.utilities import rank_zero_info

from flash.core.precision import Choice, matrices_of, measured_choice

UNDECIDED = Choice(False, "")
PLUGINS: dict[str, Any] = {
    "bf16-mixed": lambda: MixedPrecision("bf16-mixed", "cpu"),
    "32-true": Precision,
}


class AutoPrecision(pl.Callback):
    """Measures the encoder's shapes before a fit, a test or a prediction, and gives the trainer the faster precision.

    A resumed run keeps the precision recorded in its checkpoint.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Decide in the first process; models that Lightning does not optimize are unchanged."""
        if not pl_module.automatic_optimization:
            return
        matrices = matrices_of(weight.shape for weight in pl_module.parameters())
        choice = measured_choice(matrices) if trainer.is_global_zero else UNDECIDED
        choice = trainer.strategy.broadcast(choice)
        name = "bf16-mixed" if choice.bfloat16 else "32-true"
        _take(trainer, name)
        rank_zero_info(f"precision={name!r}, as {choice.reason}.")

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore the precision of the resumed run."""
        recorded = checkpoint.get("flash", {}).get("precision")
        if recorded in PLUGINS and recorded != trainer.precision and pl_module.automatic_optimization:
            _take(trainer, recorded)
            rank_zero_info(f"precision={recorded!r}, as the run that is resumed has it.")


def _take(trainer: pl.Trainer, name: str) -> None:
    trainer.strategy.precision_plugin = PLUGINS[name]()
