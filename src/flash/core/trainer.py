"""Lightning Flash's import path of the trainer."""

from flash.training.trainer import Trainer

__all__ = ["Trainer"]
