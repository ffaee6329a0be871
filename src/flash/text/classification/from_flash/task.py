"""What Lightning Flash's tasks have beside training and predicting: an output of their own, and lists of what there is.

Imports torch by way of the optimisers; no Lightning.
"""

from dataclasses import fields
from inspect import Parameter, signature
from typing import Any, NoReturn

from flash.core.errors import FlashError
from flash.core.finetuning import STRATEGIES
from flash.text.classification.backbones import BACKBONES, available_backbones
from flash.text.classification.backbones.encoder.model import EncoderConfig
from flash.text.classification.optimization import OPTIMIZERS, SCHEDULERS, SCHEDULES
from flash.text.classification.scores.outputs import OUTPUTS, Output, check_output


class NoRegistry:
    """What stands for one of Flash's registries: the sentence with which a recipe is refused.

    Args:
        name: of the registry.
        instead: what to pass in place of a name that it would give.
    """

    def __init__(self, name: str, instead: str) -> None:
        self.name, self.instead = name, instead

    def __call__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Refuse.

        Raises:
            FlashError: always.
        """
        raise FlashError(f"TextClassifier.{self.name} is not here; {self.instead}")


class Backbones(NoRegistry):
    """What stands for Flash's registry of backbones: the names that there are."""

    def available_keys(self) -> list[str]:
        """The names that `backbone=` takes beside ids and folders of encoders."""
        return available_backbones()

    available_backbones = available_keys

    def get(self, key: str, **_: Any) -> NoReturn:
        """Refuse: a name is passed in place of what it stands for.

        Raises:
            FlashError: always.
        """
        raise FlashError(f"pass the name itself: TextClassifier(backbone={key!r}, labels=datamodule.labels)")


class FlashTask:
    """The part of `TextClassifier` that answers to Lightning Flash's names."""

    optimizers_registry = NoRegistry("optimizers_registry", "pass the function itself: optimizer=my_recipe")
    lr_schedulers_registry = NoRegistry(
        "lr_schedulers_registry", "pass the function itself: lr_scheduler=my_recipe"
    )
    finetuning_strategies = NoRegistry(
        "finetuning_strategies",
        "pass a callback of lightning.pytorch.callbacks.BaseFinetuning: strategy=MyFinetuning()",
    )
    backbones = Backbones(
        "backbones", "pass the id or the folder of an encoder of transformers: backbone='prajjwal1/bert-tiny'"
    )
    heads = NoRegistry("heads", "an encoder has one linear layer per label, or its own head")
    _own_output: Output | None = None

    @property
    def output(self) -> Output | None:
        """What `Trainer.predict` and `serve` give unless asked for another: a name, a callable, or an output object."""
        return self._own_output

    @output.setter
    def output(self, output: Output | None) -> None:
        if output is not None:
            check_output(output)
        self._own_output = output

    @property
    def serializer(self) -> Output | None:
        """The name of `output` in Lightning Flash 0.5 and 0.6."""
        return self.output

    @serializer.setter
    def serializer(self, output: Output | None) -> None:
        self.output = output

    def predict(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Refused, as in Lightning Flash from 0.6 on.

        Raises:
            FlashError: always.
        """
        raise FlashError(
            "a classifier predicts by a trainer: flash.Trainer().predict(model, texts, output='labels'); "
            "without one, load its file: Predictor.load('model.pt').predict(texts)"
        )

    @classmethod
    def available_backbones(cls, head: str | None = None) -> list[str]:
        """The names that `backbone=` takes beside ids and folders of encoders.

        Args:
            head: Flash's; every backbone has the same.
        """
        return available_backbones()

    @classmethod
    def available_heads(cls) -> list[str]:
        """None: each backbone has the head that it needs."""
        return []

    @classmethod
    def get_backbone_details(cls, key: str) -> list[tuple[str, Parameter]]:
        """The options of a backbone, as `inspect.signature` gives them.

        Args:
            key: a name, or an id or folder of an encoder.
        """
        config = BACKBONES[key][1] if key in BACKBONES else EncoderConfig
        own = {field.name for field in fields(config)}
        return [item for item in signature(config).parameters.items() if item[0] in own]

    @classmethod
    def available_optimizers(cls) -> list[str]:
        """The names that `optimizer=` takes, in lower case, sorted."""
        return sorted(name.lower() for name in OPTIMIZERS)

    @classmethod
    def available_lr_schedulers(cls) -> list[str]:
        """The names that `lr_scheduler=` takes, in lower case, sorted."""
        return sorted(name.lower() for name in (*SCHEDULES, *SCHEDULERS))

    available_schedulers = available_lr_schedulers

    @classmethod
    def available_finetuning_strategies(cls) -> list[str]:
        """The names that `Trainer.finetune(strategy=...)` takes, sorted."""
        return sorted(STRATEGIES)

    @classmethod
    def available_outputs(cls) -> list[str]:
        """The names that `Trainer.predict(output=...)` takes, sorted."""
        return sorted(OUTPUTS)
