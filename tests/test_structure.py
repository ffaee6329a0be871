"""The rooms of the house, computed from the sources: how many modules a folder has, and which way imports go."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent.parent / "src"
TASK = "flash.text.classification"
FLASHS_PATHS = {
    "flash.core.classification",
    "flash.core.data.io.output",
    "flash.core.data.output",
    "flash.core.data.utilities.classification",
    "flash.core.trainer",
}
"""Modules at Lightning Flash's import paths, which only name again what stands elsewhere; nothing of ours imports them."""
LAYERS = [
    ["flash.core"],
    [
        f"{TASK}.{room}"
        for room in (
            *("arguments", "batching", "label_weights", "losses", "optimization", "sample", "windows"),
            *("backbones", "checkpoint", "reading", "scores", "targets"),
        )
    ],
    [TASK],
    ["flash.training"],
    ["flash"],
]
"""From the lowest; a module is of the first whose name it has, and imports nothing of a later one."""


def modules() -> dict[str, Path]:
    """Every module by its dotted name."""
    return {
        ".".join(path.relative_to(SOURCES).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(SOURCES.rglob("*.py"))
    }


def imports() -> dict[str, set[str]]:
    """The modules of ours that each imports, under `TYPE_CHECKING` and inside of functions as well."""
    known = modules()

    def of(path: Path) -> set[str]:
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                whole = {f"{node.module}.{name.name}" for name in node.names}
                found |= whole & known.keys() or {node.module}
        return found & known.keys()

    return {name: of(path) - {name} for name, path in known.items()}


def layer(module: str) -> int:
    """The place of a module's layer in `LAYERS`."""
    for place, names in enumerate(LAYERS):
        if any(module == name or module.startswith(f"{name}.") for name in names):
            return place
    raise AssertionError(f"{module} is in no layer")


def test_a_folder_holds_at_most_sixteen_modules() -> None:
    counts: dict[Path, int] = {}
    for name, path in modules().items():
        if path.name != "__init__.py":
            counts[path.parent] = counts.get(path.parent, 0) + 1
            assert name.rsplit(".", 1)[-1] != "utils" or name == "flash.core.data.utils"
    assert {str(folder): count for folder, count in counts.items() if count > 16} == {}


def test_no_import_runs_in_a_circle() -> None:
    try:
        TopologicalSorter(imports()).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_no_import_runs_upwards() -> None:
    upwards = {
        f"{name} imports {other}"
        for name, others in imports().items()
        for other in others
        if name not in FLASHS_PATHS and layer(other) > layer(name)
    }
    assert upwards == set()


def test_nothing_imports_lightning_flashs_paths() -> None:
    assert [(name, other) for name, found in imports().items() for other in found & FLASHS_PATHS] == []
    for name in FLASHS_PATHS:
        defined = [
            node
            for node in ast.parse(modules()[name].read_text()).body
            if isinstance(node, ast.ClassDef | ast.FunctionDef)
        ]
        assert len(defined) <= 1  # a module's __getattr__
