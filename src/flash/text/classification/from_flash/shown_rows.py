"""Lightning Flash's further methods of datamodules: showing rows, and sources that are not supported."""

from typing import Any, NoReturn

import numpy as np

from flash.core.errors import FlashError

WIDTH = 100  # maximum number of characters shown of a text


class ShowsRows:
    """Mixin of a datamodule with Lightning Flash's method names."""

    @classmethod
    def from_files(cls, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Not supported, like Flash's other sources that are not tables.

        Raises:
            FlashError: always.
        """
        raise FlashError(
            "texts are not read from files of one text each, folders or data sources; read them, and pass "
            "TextClassificationData.from_lists(train_data=texts, train_targets=labels), or a table to from_csv"
        )

    from_folders = from_data_source = from_input = from_files

    def show_train_batch(
        self, *hooks: object, limit_nb_samples: int | None = None, **options: object
    ) -> None:
        """Print the first training rows: each text, cut to one line, and its labels.

        Args:
            hooks: Flash's names of steps, which are ignored.
            limit_nb_samples: number of rows; `batch_size` by default.
            options: Flash's options, such as `reset` and `figsize`, which are ignored.

        Raises:
            FlashError: there are no training rows.
        """
        self._show("train", limit_nb_samples)

    def show_val_batch(self, *hooks: object, limit_nb_samples: int | None = None, **options: object) -> None:
        """Print the first validation rows."""
        self._show("val", limit_nb_samples)

    def show_test_batch(self, *hooks: object, limit_nb_samples: int | None = None, **options: object) -> None:
        """Print the first test rows."""
        self._show("test", limit_nb_samples)

    def show_predict_batch(
        self, *hooks: object, limit_nb_samples: int | None = None, **options: object
    ) -> None:
        """Print the first rows to predict."""
        self._show("predict", limit_nb_samples)

    def _show(self, split: str, limit: int | None) -> None:
        dataset = getattr(self, f"{split}_dataset", None)
        if dataset is None:
            raise FlashError(f"this datamodule has no {split} rows to show")
        names = getattr(self, "labels", None) or []
        rows = min(limit or getattr(self, "batch_size", 32), len(dataset))
        for row in range(rows):
            text = " ".join(str(dataset.texts[row].as_py()).split())
            shown = text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."
            found = "" if dataset.targets is None else f"  -> {_named(dataset.targets, row, names)}"
            print(f"{shown}{found}")  # noqa: T201  (what it is asked for)


def _named(targets: object, row: int, names: list[str]) -> str:
    """Format the labels of one row, with their values if these are soft; "no label" if there are none."""
    values = np.asarray(targets[[row]].toarray())[0]  # type: ignore[index]
    found = [
        names[column] if values[column] == 1 else f"{names[column]}={values[column]:.3g}"
        for column in np.flatnonzero(values)
    ]
    return ", ".join(found) or "no label"
