"""Options from signatures and docstrings, without importing them."""

from pathlib import Path

import pytest

from flash.cli import signatures
from flash.cli.signatures import Option, read_options, read_summary, shell_word

MODULE = '''
"""A module."""

import no_such_package

class Data:
    """Some data."""

    def __init__(self, given: int, hidden=3) -> None: ...

    def from_file(self, file: Files, *, cells: list[str] | None = None, on: bool = True, call: Call = print) -> None:
        """Files of text. Or others.

        Args:
            file: files to read. A list, or one.
            cells: `None`, `"a b"`, `{"toxic": 0.3}`
                or `[1]`; 0.5 by default.
            on: whether `on` is `True`.
            call: no option.

        Raises:
            ValueError: never.
        """

class Config:
    name: str = "x"
    """A name.
    And more."""
    pair: tuple[int, int] = (1, 2)
    """TF-IDF of pairs."""
    undocumented: int = 3
'''


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{tmp_path.name}.py").write_text(MODULE)
    monkeypatch.setattr(signatures, "PACKAGE", tmp_path)


def test_the_arguments_of_a_method(tmp_path: Path) -> None:
    file = f"{tmp_path.name}.py"
    assert read_summary(file, "Data.from_file") == "Files of text. Or others."
    assert read_options(file, "Data.from_file") == (
        Option("file", "FILE ...", "files to read", None, True),
        Option("cells", "NAME ...", "null, 'a b', '{\"toxic\": 0.3}' or '[1]'; 0.5 by default"),
        Option("on", "BOOL", "whether on is true", True),
    )


def test_the_fields_of_a_dataclass(tmp_path: Path) -> None:
    assert read_options(f"{tmp_path.name}.py", "Config") == (
        Option("name", "TEXT", "a name", "x"),
        Option("pair", "PAIR", "TF-IDF of pairs", (1, 2)),
    )


def test_the_undocumented_arguments_of_a_class_are_no_options(tmp_path: Path) -> None:
    assert read_options(f"{tmp_path.name}.py", "Data") == ()


@pytest.mark.parametrize(
    ("value", "word"),
    [(None, "null"), (False, "false"), (0.5, "0.5"), ("", "''"), ((0, 0), "'[0, 0]'"), ("\t", r"$'\t'")],
)
def test_a_value_in_a_shell(value: object, word: str) -> None:
    assert shell_word(value) == word
