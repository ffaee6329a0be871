"""Lightning Flash's import path of the trainer; only its name."""

from flash.training.trainer import Trainer

__all__ = ["Trainer"]
