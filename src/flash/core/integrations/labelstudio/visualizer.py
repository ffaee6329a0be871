"""Lightning Flash's import path of its Label Studio app, which is not here."""

from typing import Any

from flash.core.errors import FlashError

__all__ = ["launch_app"]


def launch_app(datamodule: Any) -> Any:
    """Refused: predictions are not written in Label Studio's form.

    Raises:
        FlashError: always.
    """
    raise FlashError(
        "Label Studio's app is not launched from here; for a table of labels and probabilities, type: "
        "flash predict text_classification_model.pt --input texts.csv --output predictions.csv"
    )
