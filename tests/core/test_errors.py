"""The errors a user can mend."""

import pytest

from flash.core import errors


def test_unknown_name_offers_the_closest_and_lists_all() -> None:
    sentence = errors.unknown_name("backbone", "Lineer", ["linear", "other"])
    assert sentence == "unknown backbone 'Lineer'; did you mean 'linear'? Known: linear, other"


def test_unknown_name_with_nothing_close() -> None:
    assert errors.unknown_name("label", "zzz", ["toxic"]) == "unknown label 'zzz'. Known: toxic"
    assert errors.unknown_name("label", "zzz", []) == "unknown label 'zzz'. Known: none"


def test_unknown_name_among_thousands_stays_a_sentence() -> None:
    sentence = errors.unknown_name("label", "label 4x", [f"label {number}" for number in range(4271)])
    assert "did you mean 'label 4'" in sentence
    assert sentence.endswith("and 4,261 more")
    known = sentence.partition("Known: ")[2]
    assert known.startswith("label 4, label 94, ")  # the nearest first
    assert len(known.split(", ")) == errors.MOST_NAMES + 1
    assert len(errors.unknown_name("column", "text", ["x" * 2_000, "y"])) < 200


def test_names_are_listed_to_ten() -> None:
    assert errors.listed(["text", "labels"]) == "text, labels"
    assert errors.listed(map(str, range(1_300))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, and 1,290 more"


@pytest.mark.parametrize(
    "kind", [errors.DataError, errors.CheckpointError, errors.DownloadError, errors.MissingExtraError]
)
def test_every_error_of_a_user_is_a_flash_error_and_a_value_error(kind: type[Exception]) -> None:
    assert issubclass(kind, errors.FlashError)
    assert issubclass(kind, ValueError)


def test_a_users_control_characters_are_shown_as_escapes() -> None:
    """Which would otherwise colour a terminal, end the line, or turn the direction of what follows."""
    hostile = "\x1b[31mred\x1b[0m\0\r\n\u202eabc\u2066\u200b\ufeff\udcff\x9b"
    shown = r"\x1b[31mred\x1b[0m\x00\r\n\u202eabc\u2066\u200b\ufeff\udcff\x9b"
    for kind in (errors.FlashError, errors.DataError, errors.CheckpointError, errors.MissingExtraError):
        assert str(kind(f"{hostile}.csv is empty")) == f"{shown}.csv is empty"
    ordinary = "Ünïcödé 日本語 עברית 👩\u200d🔬 a\u0301 \u00a0"
    assert errors.visible(ordinary) == ordinary
