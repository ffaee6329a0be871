"""The files around the code: their syntax, and that they name what is there; and what a wheel holds."""

import re
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

import flash

REPOSITORY = Path(__file__).parent.parent
PROJECT = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
YAML = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for path in [
        *(REPOSITORY / ".github").rglob("*.yml"),
        REPOSITORY / "CITATION.cff",
        REPOSITORY / ".pre-commit-config.yaml",
    ]
)


def read(name: str) -> Any:
    return yaml.safe_load((REPOSITORY / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", YAML)
def test_it_is_yaml(name: str) -> None:
    assert isinstance(read(name), dict)


def test_the_citation_is_of_this_version() -> None:
    citation = read("CITATION.cff")
    assert str(citation["version"]) == flash.__version__
    assert set(citation) >= {"cff-version", "message", "title", "authors"}  # what the format requires


def test_workflows_may_read_alone_and_end() -> None:
    for path in (REPOSITORY / ".github" / "workflows").iterdir():
        workflow = read(path.relative_to(REPOSITORY).as_posix())
        assert workflow["permissions"] == {"contents": "read"}
        assert all(job["timeout-minutes"] <= 120 for job in workflow["jobs"].values())
    release = read(".github/workflows/release.yml")["jobs"]["publish"]
    assert release["permissions"] == {"id-token": "write"}  # trusted publishing


def test_tests_run_on_each_python_and_system() -> None:
    matrix = read(".github/workflows/tests.yml")["jobs"]["tests"]["strategy"]["matrix"]
    assert matrix["python"] == ["3.10", "3.11", "3.12", "3.13", "3.14"]
    assert 'requires-python = ">=3.10"' in PROJECT
    assert [name.partition("-")[0] for name in matrix["os"]] == ["ubuntu", "macos", "windows"]


def test_installed_extras_exist() -> None:
    extras = set(re.findall(r"^(\w+) = \[", PROJECT, re.MULTILINE))
    for path in [
        *(REPOSITORY / ".github").rglob("*.yml"),
        *REPOSITORY.glob("*.md"),
        *(REPOSITORY / "docs").rglob("*.md"),
    ]:
        for names in re.findall(r'"\.\[([\w,]+)\]"', path.read_text(encoding="utf-8")):
            assert set(names.split(",")) <= extras, path


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    """Built from a copy of what git knows, without a network."""
    if find_spec("setuptools") is None:
        pytest.skip("building a wheel offline takes setuptools; pip install -c constraints.txt setuptools")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "src", "pyproject.toml", "README.md", "LICENSE"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode != 0:
        pytest.skip("this is no clone of git, which says what belongs to the project")
    names = [name for name in listed.stdout.split("\0") if name and (REPOSITORY / name).is_file()]
    for name in names:
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / name).write_bytes((REPOSITORY / name).read_bytes())
    code = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        cwd=tmp_path / "copy",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        held = set(file.namelist())
        metadata = next(name for name in held if name.endswith(".dist-info/METADATA"))
        assert f"Version: {flash.__version__}" in file.read(metadata).decode()
    code_names = {name.removeprefix("src/") for name in names if name.startswith("src/flash/")}
    assert {name for name in held if ".dist-info/" not in name} == code_names
    assert any(name.endswith("/licenses/LICENSE") for name in held)
