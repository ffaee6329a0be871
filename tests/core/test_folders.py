"""Folders that appear whole or not at all."""

from pathlib import Path

import pytest

from flash.core.folders import whole_folder


def test_a_new_folder_and_those_above_it(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    with whole_folder(target) as work:
        (work / "file").write_text("new")
        assert not target.exists()
    assert (target / "file").read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["b"]


def test_an_earlier_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.mkdir()
    (target / "earlier").write_text("earlier")
    with whole_folder(target) as work:
        (work / "file").write_text("new")
        assert (target / "earlier").read_text() == "earlier"
    assert [path.name for path in target.iterdir()] == ["file"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there(tmp_path: Path, kind: type[BaseException]) -> None:
    target = tmp_path / "a"
    target.mkdir()
    (target / "earlier").write_text("earlier")
    with pytest.raises(kind), whole_folder(target) as work:  # noqa: PT012  what happens halfway
        (work / "file").write_text("new")
        raise kind
    assert [path.name for path in target.iterdir()] == ["earlier"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_error_as_the_folder_takes_its_name_puts_the_earlier_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a"
    target.mkdir()
    (target / "earlier").write_text("earlier")
    rename = Path.rename

    def failing(self: Path, other: Path) -> Path:
        if self.suffix == ".part":
            raise PermissionError(13, "no")
        return rename(self, other)

    with pytest.raises(PermissionError), whole_folder(target):
        monkeypatch.setattr(Path, "rename", failing)
    assert [path.name for path in target.iterdir()] == ["earlier"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_place_under_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="Not a directory"), whole_folder(tmp_path / "file" / "a"):
        pass
