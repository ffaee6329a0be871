"""What `serve.py` serves and asks: its two models, the texts, and how fast the predictor alone is on them.

    python benchmarks/serve_models.py linear '["DATA_FOLDER", "FOLDER"]'

Each task runs in a process of its own and prints JSON in its last line: nothing of it stays in the one that measures.
"""

import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from encoder import minilm, prepare
from encoder_training import Case, fit_flash
from linear import FILES, table_of
from peers import Columns, flash_linear

MODELS = {"linear": "linear.pt", "int8": "int8"}
TITLES = {"linear": "linear model, jigsaw's 6 labels", "int8": "MiniLM, int8 export, goemotions' 28 labels"}
ROWS, SINGLE_SECONDS = 500, 5.0
WARM_TEXTS, CHECKED = 64, 8


def make_linear(source: str, folder: str) -> str:
    """Train the embedded default on all of jigsaw's rows."""
    rows = Path(folder) / "jigsaw"
    rows.mkdir(parents=True, exist_ok=True)
    prepare(source, "jigsaw", None, str(rows), quality=False)
    path = flash_linear(Columns.of(rows)).fit(rows / "fit.parquet", rows)
    return str(shutil.move(path, Path(folder) / MODELS["linear"]))


def make_int8(source: str, folder: str) -> str:
    """Train a head on MiniLM with a few of goemotions' rows, and export it with weights of 8 bits."""
    from flash.text.classification.exporting import export

    case = Case(str(Path(folder) / "goemotions"), minilm())
    Path(case.folder).mkdir(parents=True, exist_ok=True)
    prepare(source, "goemotions", ROWS, case.folder, quality=False)
    trainer, *_ = fit_flash(case, strategy="freeze")
    checkpoint = Path(case.folder) / "model.pt"
    trainer.save_checkpoint(checkpoint, weights_only=True)
    export(checkpoint, Path(folder) / MODELS["int8"], format="onnx", quantize="int8")
    return str(Path(folder) / MODELS["int8"])


def write_texts(source: str, count: int, file: str) -> int:
    """Comments of both data sets, as many of each, in random order; returns their number."""
    found: list[str] = []
    chance = np.random.default_rng(0)
    for name in ("jigsaw", "goemotions"):
        directory, column, _ = FILES[name]
        texts = [text for text in table_of(Path(source) / directory, "train")[column].to_pylist() if text]
        chosen = chance.permutation(len(texts))[: count - count // 2 if not found else count // 2]
        found += [texts[row] for row in chosen]
    texts = [found[row] for row in chance.permutation(len(found))]
    Path(file).write_text(json.dumps(texts), "utf-8")
    return len(texts)


def alone(model: str, texts: str, seconds: float, offset: int) -> dict[str, Any]:
    """What the predictor reaches without a server: texts per second in blocks as `flash predict` has them; single texts.

    Returns:
        `rate`; `single`, the median milliseconds of one text at a time from the one at `offset` on; and `answers`, the
        probabilities of the first texts, one at a time.
    """
    from flash.text.classification.predict_files.blocks import ROWS as BLOCK
    from flash.text.classification.predictor import Predictor

    all_texts = json.loads(Path(texts).read_text("utf-8"))
    predictor = Predictor.load(model)
    predictor.predict(all_texts[:WARM_TEXTS], "probabilities")
    answers = [predictor.predict([text], "probabilities")[0] for text in all_texts[:CHECKED]]
    done, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds:
        for first in range(0, len(all_texts), BLOCK):
            predictor.predict(all_texts[first : first + BLOCK], "probabilities")
        done += len(all_texts)
    singles = single_seconds(lambda text: predictor.predict([text], "probabilities"), all_texts, offset)
    return {
        "rate": done / passed,
        "single": statistics.median(singles) * 1e3,
        "answers": [dict(zip(predictor.labels, map(float, row), strict=True)) for row in answers],
    }


def single_seconds(predict: Callable[[str], Any], texts: list[str], offset: int) -> list[float]:
    """The seconds that each of some texts takes."""
    found = []
    end = time.perf_counter() + SINGLE_SECONDS
    for text in islice([*texts[offset:], *texts[:offset]], len(texts)):
        start = time.perf_counter()
        predict(text)
        found.append(time.perf_counter() - start)
        if start > end:
            break
    return found


TASKS: dict[str, Callable[..., Any]] = {
    "linear": make_linear,
    "int8": make_int8,
    "texts": write_texts,
    "alone": alone,
}


def child(task: str, *arguments: Any) -> Any:
    """What a task answers that runs in a process of its own.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, __file__, task, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{task} failed: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def model_of(name: str, source: Path, folder: Path) -> str:
    """The path of a model, made if the folder does not have it yet."""
    path = folder / MODELS[name]
    return str(path) if path.exists() else str(child(name, str(source), str(folder)))


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        answer = TASKS[sys.argv[1]](*json.loads(sys.argv[2]))
    print(json.dumps(answer))
