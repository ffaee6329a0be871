"""Check the options of `TextClassificationData.from_*` before anything is read."""

from pathlib import Path
from typing import Any

import numpy as np

from flash.core.errors import DataError, FlashError, unknown_name


def check_options(unknown_labels: str, batch_size: int, num_workers: int, seed: int) -> None:
    """Refuse values of options that have no meaning.

    Raises:
        FlashError: names the option, the value, and what is expected.
    """
    if unknown_labels not in ("error", "ignore"):
        raise FlashError(unknown_name("unknown_labels", unknown_labels, ["error", "ignore"]))
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise FlashError(
            f"batch_size={batch_size!r} is not a number of rows; pass a whole number of at least 1"
        )
    if not isinstance(num_workers, int) or isinstance(num_workers, bool) or num_workers < 0:
        raise FlashError(f"num_workers={num_workers!r} is not a number of processes; pass 0 or more")
    if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or not 0 <= seed < 2**64:
        raise FlashError(f"seed={seed!r} is not a seed; pass a whole number of at least 0 and below 2**64")


def check_fields(
    inputs: dict[str, Any], input_fields: list[str], target_fields: list[str] | str | None
) -> list[str]:
    """Check the columns, and return the target columns as a list."""
    given = [name for name, value in inputs.items() if value is not None]
    if not given:
        raise DataError(f"there is nothing to read; pass at least one of {', '.join(inputs)}")
    input_field = input_fields[0]
    if Path(input_field).suffix and Path(input_field).is_file():
        raise DataError(
            f"input_field={input_field!r} is a file; name the column of texts first, then the target columns, "
            f"then the file: ('text', 'labels', {input_field!r}), or pass {next(iter(inputs))}={input_field!r}"
        )
    fields = [target_fields] if isinstance(target_fields, str) else list(target_fields or [])
    if not fields and [name for name in given if not name.startswith("predict")]:
        raise DataError(
            f"{given[0]} needs targets; pass target_fields= with the target column, or a list of 0/1 columns"
        )
    if both := [name for name in input_fields if name in fields]:
        raise DataError(
            f"{both[0]!r} is both input_field and one of target_fields; take it out of one of them"
        )
    twice = [name for name in dict.fromkeys(fields) if fields.count(name) > 1]
    if twice:
        raise DataError(
            f"target_fields holds {', '.join(map(repr, twice))} more than once; name each column once"
        )
    return fields
