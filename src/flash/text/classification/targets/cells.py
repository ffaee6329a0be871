"""Target columns as people write them, before their format is decided: the forms that are another way to write one.

Names over several columns and lists written as text become columns of lists; yes, no and marks become 1 and 0.
Imports nothing of the project but `Source` and the modules of these forms; neither torch nor lightning.
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
    """Sources whose target columns `infer_format` and `encode_targets` understand.

    Args:
        sources: those with targets; the first one, normally train, decides how all are read.
        target_fields: the target column, or the list of them.
        multi_label: as the user has it, as are the following.
        label_delimiter: between the names in one cell.
        labels: the names in order.
        blank_is_negative: whether a blank beside a mark says that the label does not apply.

    Returns:
        The sources, the target fields, and the label delimiter, which is None once it has been used.

    Raises:
        DataError: cells that cannot be read, or in more than one way.

    Warns:
        UserWarning: what was read as something else than it looks like.
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
