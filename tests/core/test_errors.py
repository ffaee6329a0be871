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
    assert sentence.endswith("label 28, label 29, and 4241 more")


@pytest.mark.parametrize(
    "kind", [errors.DataError, errors.CheckpointError, errors.DownloadError, errors.MissingExtraError]
)
def test_every_error_of_a_user_is_a_flash_error_and_a_value_error(kind: type[Exception]) -> None:
    assert issubclass(kind, errors.FlashError)
    assert issubclass(kind, ValueError)
