"""The page for those who come from Lightning Flash names what the code knows."""

from importlib import import_module
from pathlib import Path

import pytest

import flash
import flash.text
from flash.text.classification.from_flash import options
from flash.text.classification.scores import output_objects

PAGE = (Path(__file__).parents[4] / "docs" / "from-lightning-flash.md").read_text(encoding="utf-8")


def test_every_row_says_what_becomes_of_it() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| then")]
    assert len(rows) > 50
    assert all(line.count(" | ") == 1 and line.endswith(" |") for line in rows)


def test_keywords_that_the_code_knows_are_there() -> None:
    names = (
        "sampler",
        "max_length",
        "pin_memory",
        "backbone",
        "chunk_size",
        "persistent_workers",
        "enable_ort",
    )
    known = {*options.DATA, *options.DATA_NOTES, *options.DATA_DROPPED, *options.MODEL}
    assert set(names) <= known
    assert all(f"`{name}=" in PAGE for name in names)
    assert all(f"{name}" in PAGE for name in ("LabelsOutput", "ProbabilitiesOutput", "FiftyOneLabelsOutput"))
    assert hasattr(output_objects, "FiftyOneLabelsOutput")
    assert all(name in PAGE for name in ("DataKeys", "DataModule", "Task", "TextEmbedder"))
    assert {"DataKeys", "DataModule", "Task"} <= set(flash.MOVED)
    assert "TextEmbedder" in flash.text.MOVED


@pytest.mark.parametrize(
    "module",
    ["flash.core.model", "flash.core.data.io.input", "flash.core.utilities", "flash.text.ort_callback"],
)
def test_modules_that_are_gone_are_there(module: str) -> None:
    assert f"`{module}`" in PAGE or f"import {module}`" in PAGE
    with pytest.raises(ModuleNotFoundError):
        import_module(module)
