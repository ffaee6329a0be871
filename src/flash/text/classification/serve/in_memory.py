"""Serve a classifier from memory: the server gets a copy, so that further training does not change its responses."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Protocol

from flash.core.errors import FlashError, unknown_name
from flash.core.extras import require
from flash.core.precision import check_precision
from flash.text.classification import checkpoint
from flash.text.classification.predictor import Predictor
from flash.text.classification.serve.options import ServeOptions
from flash.text.classification.serve.served_model import ServedModel


class Saveable(Protocol):
    """A classifier that can produce the content of its checkpoint."""

    @property
    def state_dict(self) -> Any:
        """See `torch.nn.Module.state_dict`."""

    @property
    def on_save_checkpoint(self) -> Any:
        """See `LightningModule.on_save_checkpoint`."""


def served(model: Saveable, options: ServeOptions) -> ServedModel:
    """Return a copy of the model for a server.

    Raises:
        FlashError: the thresholds do not match the labels, or the model cannot predict.
    """
    content: dict[str, Any] = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(content)
    found = {name: tensor.cpu() for name, tensor in content["state_dict"].items()}
    copied = checkpoint.as_read({**content, "state_dict": found})
    precision = check_precision(options.precision)
    predictor = Predictor.of_content(copied, None, precision, trust_remote_code=options.trust_remote_code)
    return ServedModel.of(predictor, options)


def serve_model(model: Saveable, flashs: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Implement `TextClassifier.serve`.

    Args:
        model: the classifier to serve.
        flashs: arguments of Lightning Flash that have no meaning here, by name.
        given: fields of `ServeOptions`; None means not given.

    Raises:
        FlashError: as `TextClassifier.serve`.
    """
    for name, value in flashs.items():
        if value is not None:
            raise FlashError(
                f"serve({name}=...) has no meaning here: the server takes texts as they are; leave it out"
            )
    known = [field.name for field in fields(ServeOptions)]
    for name in given:
        if name not in known:
            raise FlashError(unknown_name("argument of serve", name, known))
    require("uvicorn", "serve")
    from flash.text.classification.serve.run import serve

    options = ServeOptions(**{name: value for name, value in given.items() if value is not None})
    options.check()
    serve(served(model, options), options)
