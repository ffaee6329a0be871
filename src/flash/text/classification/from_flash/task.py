"""Lightning Flash's further attributes of tasks: a default output, and lists of available names."""

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
    """Replacement for one of Flash's registries; registering something raises an error with advice.

    Args:
        name: the registry's name.
        instead: advice on what to pass instead of a registered name.
    """

    def __init__(self, name: str, instead: str) -> None:
        self.name, self.instead = name, instead

    def __call__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Raise an error.

        Raises:
            FlashError: always.
        """
        raise FlashError(f"TextClassifier.{self.name} is not here; {self.instead}")


class Backbones(NoRegistry):
    """Replacement for Flash's registry of backbones, with the available names."""

    def available_keys(self) -> list[str]:
        """Return the names that `backbone=` accepts, beside ids and folders of encoders."""
        return available_backbones()

    available_backbones = available_keys

    def get(self, key: str, **_: Any) -> NoReturn:
        """Raise an error: the name itself is to be passed as `backbone=`.

        Raises:
            FlashError: always.
        """
        raise FlashError(f"pass the name itself: TextClassifier(backbone={key!r}, labels=datamodule.labels)")


class FlashTask:
    """Mixin of `TextClassifier` with Lightning Flash's attribute names."""

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
        """Default output of `Trainer.predict` and `serve`: a name, a callable, or an output object."""
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
        """Not supported, as in Lightning Flash from 0.6 on.

        Raises:
            FlashError: always.
        """
        raise FlashError(
            "a classifier predicts by a trainer: flash.Trainer().predict(model, texts, output='labels'); "
            "without one, load its file: Predictor.load('model.pt').predict(texts)"
        )

    @classmethod
    def available_backbones(cls, head: str | None = None) -> list[str]:
        """Return the names that `backbone=` accepts, beside ids and folders of encoders.

        Args:
            head: Flash's argument, which is ignored.
        """
        return available_backbones()

    @classmethod
    def available_heads(cls) -> list[str]:
        """Return an empty list: each backbone has its own head."""
        return []

    @classmethod
    def get_backbone_details(cls, key: str) -> list[tuple[str, Parameter]]:
        """Return the options of a backbone, as `inspect.signature` does.

        Args:
            key: a name, or an id or folder of an encoder.
        """
        config = BACKBONES[key][1] if key in BACKBONES else EncoderConfig
        own = {field.name for field in fields(config)}
        return [item for item in signature(config).parameters.items() if item[0] in own]

    @classmethod
    def available_optimizers(cls) -> list[str]:
        """Return the names that `optimizer=` accepts, in lower case, sorted."""
        return sorted(name.lower() for name in OPTIMIZERS)

    @classmethod
    def available_lr_schedulers(cls) -> list[str]:
        """Return the names that `lr_scheduler=` accepts, in lower case, sorted."""
        return sorted(name.lower() for name in (*SCHEDULES, *SCHEDULERS))

    available_schedulers = available_lr_schedulers

    @classmethod
    def available_finetuning_strategies(cls) -> list[str]:
        """Return the names that `Trainer.finetune(strategy=...)` accepts, sorted."""
        return sorted(STRATEGIES)

    @classmethod
    def available_outputs(cls) -> list[str]:
        """Return the names that `Trainer.predict(output=...)` accepts, sorted."""
        return sorted(OUTPUTS)
