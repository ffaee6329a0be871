"""How many of our functions, in how many files, one text crosses: short journeys make code simple."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import flash
from flash import Trainer
from flash.text import TextClassificationData, TextClassifier
from flash.text.classification.predictor import Predictor

SOURCE = str(Path(flash.__file__).parent)


def own_functions(journey: Callable[[], Any]) -> set[tuple[str, str]]:
    """(file, function) of every function of ours that runs in `journey`; expressions belong to theirs."""
    seen: set[tuple[str, str]] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if (
            event == "call"
            and code.co_filename.startswith(SOURCE)
            and not code.co_name.endswith(("comp>", "genexpr>"))
        ):
            seen.add(
                (
                    code.co_filename.removeprefix(SOURCE),
                    code.co_qualname if sys.version_info >= (3, 11) else code.co_name,
                )
            )

    sys.setprofile(note)
    try:
        journey()
    finally:
        sys.setprofile(None)
    return {(file, function) for file, function in seen if not function.endswith(("<lambda>", "<module>"))}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("journey")
    data = TextClassificationData.from_lists(
        train_data=["a b", "b c", "c d"], train_targets=[["x"], ["x", "y"], []]
    )
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(TextClassifier(labels=data.labels, multi_label=True), datamodule=data)
    trainer.save_checkpoint(folder / "model.pt")
    return folder / "model.pt"


def report(functions: set[tuple[str, str]]) -> str:
    return "\n".join(" ".join(function) for function in sorted(functions))


def test_from_a_csv_file_to_labels(model: Path, tmp_path: Path) -> None:
    """At most 54 functions in 14 files: more than the 43 in 11 before headers, fields and several files.

    What was added: the file's layout, as a header is not trusted blindly (`reading/layout.py`); its kind by its ending,
    and whether it is a URL; the names of its fields, which the model checks as it checks that it was trained; batches that are
    slices of the rows, in place of a loader with worker processes. What looks
    for repeated texts, objects in cells and swallowed rows is not on the way of texts alone.
    """
    (tmp_path / "comments.csv").write_text("text\nhello a b\n")
    classifier = TextClassifier.load_from_checkpoint(model)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path)

    def journey() -> None:
        data = TextClassificationData.from_csv("text", predict_file=str(tmp_path / "comments.csv"))
        trainer.predict(classifier, datamodule=data, output="labels")

    functions = own_functions(journey)
    assert len(functions) <= 54, report(functions)
    assert len({file for file, _ in functions}) <= 14, report(functions)


def test_predict_alone(model: Path) -> None:
    """At most 20 functions in 6 files."""
    predictor = Predictor.load(model)
    functions = own_functions(lambda: predictor.predict(["hello a b"], output="labels"))
    assert len(functions) <= 20, report(functions)
    assert len({file for file, _ in functions}) <= 6, report(functions)
