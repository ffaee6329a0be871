"""Normalise target columns before their format is inferred.

Names in several columns and lists written as text become columns of lists; yes, no and marks become 1 and 0.
"""

from collections.abc import Mapping, Sequence

from flash.text.classification.reading.source import Source
from flash.text.classification.targets.list_cells import read_list_cells
from flash.text.classification.targets.name_columns import join_name_columns
from flash.text.classification.targets.yes_no import read_yes_no


def read_cells(
    sources: Mapping[str, Source],
    target_fields: str | Sequence[str],
    *,
    multi_label: bool | None,
    label_delimiter: str | None,
    labels: Sequence[str] | None,
    blank_is_negative: bool = False,
) -> tuple[dict[str, Source], str | Sequence[str], str | None]:
    """Return sources whose target columns `infer_format` and `encode_targets` understand.

    Args:
        sources: the sources with targets; the first, normally train, decides how all are read.
        target_fields: the target column, or the list of them.
        multi_label: the user's option, like the following.
        label_delimiter: separator of the names in a cell.
        labels: the label names in order.
        blank_is_negative: whether a blank in a column of marks means that the label does not apply.

    Returns:
        The sources, the target fields, and the label delimiter, which is None once it has been used.

    Raises:
        DataError: a cell cannot be read, or is ambiguous.

    Warns:
        UserWarning: cells are read as something else than text.
    """
    fields = [target_fields] if isinstance(target_fields, str) else list(target_fields)
    joined, found = join_name_columns(sources, fields)
    if found != fields:
        return joined, found[0], label_delimiter
    columns = len(fields) > 1 or (not isinstance(target_fields, str) and bool(multi_label))
    told = read_yes_no(
        joined,
        fields,
        columns=columns,
        multi_label=multi_label,
        labels=labels,
        blank_is_negative=blank_is_negative,
    )
    if len(fields) > 1:
        return told, target_fields, label_delimiter
    read, delimiter = read_list_cells(
        told, fields[0], multi_label=multi_label, label_delimiter=label_delimiter, labels=labels
    )
    return read, target_fields, delimiter
