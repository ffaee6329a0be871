"""Compiled loops on disk: damaged files are compiled again, and never a traceback or a crash."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flash.text.classification.backbones import loop_cache

PROGRAM = """
import os
import sys
import numba
from flash.core.errors import FlashError
from flash.text.classification.backbones.linear import kernels

numba.config.CACHE_DIR = os.environ["NUMBA_CACHE_DIR"]

@kernels.compiled
def twice(number):
    return 2 * number

try:
    with kernels.announced_compilation(lambda sentence: None):
        found = twice(int(sys.argv[1]))
    print(found, "compiled" if twice.stats.cache_misses else "read")
except FlashError as error:
    print(error)
"""


@pytest.fixture
def run(forked: Any, tmp_path: Path) -> Callable[[int], str]:
    """What the program prints, in a process of its own, with a cache that is the test's."""
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def start(number: int) -> str:
        done = forked(tmp_path / "program.py", number, folder=tmp_path, environment=environment)
        assert done.returncode == 0, done.stderr
        said: str = done.stdout.strip()
        return said

    return start


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    """Other machine code: the last of it, which pickle does not look at."""
    middle = content.rindex(b"\xc3")  # the return from a function
    return content[:middle] + b"\xcc" + content[middle + 1 :]


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        ("*.nbi", cut),
        ("*.nbi", lambda content: b""),
        ("*.nbc", cut),
        ("*.nbc", flip),
        ("*.nb?", lambda content: b"\x80\x05no pickle"),
    ],
    ids=["cut index", "empty index", "cut code", "other code", "all"],
)
def test_a_damaged_file_is_compiled_again(
    pattern: str, damage: Callable[[bytes], bytes], run: Callable[[int], str], tmp_path: Path
) -> None:
    assert run(3) == "6 compiled"
    assert run(4) == "8 read"
    files = list((tmp_path / "cache").rglob(f"program.{pattern}"))
    assert files
    for file in files:
        file.write_bytes(damage(file.read_bytes()))
    assert run(5) == "10 compiled"
    assert run(6) == "12 read"


def test_a_copied_cache_and_a_damaged_list(run: Callable[[int], str], tmp_path: Path) -> None:
    assert run(3) == "6 compiled"
    for file in (tmp_path / "cache").rglob("*.nb?"):
        os.utime(file, (1, 1))
    assert run(4) == "8 read"
    (notes,) = (tmp_path / "cache").rglob(loop_cache.LIST)
    for content in ("{", "[]", '{"program.twice-6.py311.nbi": 3}', '{"../a": [1, 2, 3]}'):
        notes.write_text(content)
        assert run(5) == "10 read"


def test_a_damaged_file_that_was_never_noted_is_one_sentence(
    run: Callable[[int], str], tmp_path: Path
) -> None:
    assert run(3) == "6 compiled"
    (notes,) = (tmp_path / "cache").rglob(loop_cache.LIST)
    notes.unlink()
    for file in (tmp_path / "cache").rglob("program.*.nbi"):
        file.write_bytes(cut(file.read_bytes()))
    said = run(4)
    assert said.startswith("numba cannot read its cache of compiled loops (")
    assert f" and {notes.parent}/*.nb?, and type the same again" in said
