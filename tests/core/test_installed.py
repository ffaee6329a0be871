"""Other distributions with a package `flash`: one sentence at import and with the version."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flash.core.installed import other_owners


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A folder of installed packages with Lightning Flash and another package of that name."""
    folder = tmp_path / "site-packages"
    (folder / "lightning_flash-0.8.2.dist-info").mkdir(parents=True)
    (folder / "flash_attn-2.0.dist-info").mkdir()
    (folder / "quick_light-1.0.dist-info").mkdir()
    (folder / "quick_light-1.0.dist-info" / "top_level.txt").write_text("flash\nlight\n")
    return folder


def test_owners(beside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(beside), str(beside / "nothing" / "site-packages")])
    assert other_owners() == ["lightning-flash"]
    assert other_owners(thorough=True) == ["lightning-flash", "quick-light"]


def test_none_here() -> None:
    assert other_owners(thorough=True) == []


def test_it_is_said_at_import_and_with_the_version(beside: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(beside)}

    def said(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, env=environment, check=True
        )
        return done.stderr

    sentence = (
        "lightning-flash is installed beside flash-multilabel: each has a package named flash, and they overwrite each "
        "other's files; type: pip uninstall lightning-flash, then install flash-multilabel again with pip install "
        "--force-reinstall --no-deps"
    )
    assert said("-c", "import flash, flash.text").count(sentence) == 1
    assert "flash: warning: lightning-flash and quick-light are installed beside" in said(
        "-m", "flash", "--version"
    )
