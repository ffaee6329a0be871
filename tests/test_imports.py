"""What importing costs and changes: each promise is checked in a fresh process."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import flash

PROBE = """
import json, logging, os, sys, warnings
{prelude}
before = (list(warnings.filters), dict(os.environ), logging.root.level, list(logging.root.handlers))
{statement}
after = (list(warnings.filters), dict(os.environ), logging.root.level, list(logging.root.handlers))
print(json.dumps([sorted({{name.split(".")[0] for name in sys.modules}}), before == after]))
"""


def probe(statement: str, prelude: str = "") -> tuple[set[str], bool]:
    """The top-level modules that are loaded after a statement, and whether it left the process as it was."""
    script = PROBE.format(prelude=prelude, statement=statement)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules, unchanged = json.loads(done.stdout)
    return set(modules), unchanged


def test_importing_flash_loads_nothing_heavy() -> None:
    modules, unchanged = probe("import flash, flash.text, flash.core, flash.text.classification")
    assert not modules & {
        "torch",
        "lightning",
        "numpy",
        "pyarrow",
        "numba",
        "jsonargparse",
        "pooch",
        "requests",
    }
    assert unchanged


def test_inference_loads_neither_torch_nor_lightning() -> None:
    modules, unchanged = probe(
        "import flash.text.classification.predictor, flash.text.classification.scores.metrics, flash.cli.predict, "
        "flash.cli.evaluate, flash.text.classification.scores.table, flash.text.classification.targets.formats",
        prelude="import numba, numpy, pyarrow, pyarrow.compute, scipy.sparse, tqdm",  # they may set filters; we do not
    )
    assert not modules & {"torch", "lightning", "pytorch_lightning", "torchmetrics", "sklearn", "pandas"}
    assert unchanged


@pytest.mark.parametrize("module", ["flash", "flash.text", "flash.text.classification", "flash.core.data"])
def test_all_is_what_is_there(module: str) -> None:
    loaded = import_module(module)
    assert sorted(loaded.__all__) == loaded.__all__
    for name in loaded.__all__:
        assert getattr(loaded, name) is not None


def test_flashs_own_paths_lead_to_the_same_names() -> None:
    from flash.core.data import download_data
    from flash.core.data.utils import download_data as by_utils
    from flash.core.trainer import Trainer
    from flash.text import TextClassificationData, TextClassifier
    from flash.text.classification import data, model

    assert Trainer is flash.Trainer
    assert download_data is by_utils
    assert model.TextClassifier is TextClassifier is flash.text.TextClassifier
    assert data.TextClassificationData is TextClassificationData


@pytest.mark.parametrize("module", ["flash", "flash.text", "flash.text.classification"])
def test_a_name_that_is_not_there(module: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{module}' has no attribute 'Nothing'; it has "):
        import_module(module).Nothing  # noqa: B018


def test_the_package_is_typed() -> None:
    assert (Path(flash.__file__).parent / "py.typed").exists()
