"""Optional dependencies at one door."""

import sys
from importlib.metadata import metadata

import pytest

from flash.core.errors import MissingExtraError
from flash.core.extras import DISTRIBUTION, require


def test_an_installed_module_is_imported() -> None:
    assert require("datasets", "datasets").__name__ == "datasets"


def test_a_missing_module_answers_with_its_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        MissingExtraError, match=r'needs the package .datasets.*; type: pip install "datasets>=3\.0"$'
    ):
        require("datasets", "datasets")


def test_it_is_an_import_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pandas"):
        require("pandas", "pandas")


def test_an_extra_that_the_metadata_lacks_is_our_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nothing_like_this", None)
    with pytest.raises(LookupError, match="is not an extra"):
        require("nothing_like_this", "nothing")


def test_every_extra_but_test_is_part_of_the_metadata() -> None:
    assert {"datasets", "pandas", "test"} <= set(metadata(DISTRIBUTION).get_all("Provides-Extra") or [])
