"""What `encoder.py` times of prediction: ours from its files, and transformers' pipeline as its users call it.

Each function of `PREDICT` and `START` takes a `Case`, runs in a process of its own, and answers numbers. Imports
nothing heavy at the top, and nothing of the project.
"""

import csv
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from encoder_floor import BATCH, LENGTH, count_work
from encoder_training import WARM_ROWS, Case, Methods, Numbers, fit_flash, on_device

WARM_TEXTS, SINGLE_TEXTS, PASSES, SECONDS = 20, 200, 3, 2.0
START_TEXTS, STARTS = 32, 3


# ---- prediction ----------------------------------------------------------------------------------------------------


def checkpoint(case: Case) -> Path:
    """A model of ours, trained on a few rows; made once a case."""
    path = Path(case.folder) / "model.pt"
    if not path.exists():
        trainer, *_ = fit_flash(case, WARM_ROWS)
        trainer.save_checkpoint(path, weights_only=True)
    return path


def int8_export(case: Case) -> Path:
    """The same for onnxruntime, with weights of 8 bits; made once a case."""
    from flash.text.classification.exporting import export  # type: ignore[import-not-found, unused-ignore]

    folder = Path(case.folder) / "int8"
    if not folder.exists():
        export(checkpoint(case), folder, format="onnx", quantize="int8")
    return folder


def predict_flash(case: Case) -> Numbers:
    """Ours, from the checkpoint, in the precision that suits the processor."""
    return predict_with_predictor(case, checkpoint(case))


def predict_fp32(case: Case) -> Numbers:
    """Ours, from the checkpoint, in float32."""
    return predict_with_predictor(case, checkpoint(case), "32")


def predict_int8(case: Case) -> Numbers:
    """Ours, from the export."""
    return predict_with_predictor(case, int8_export(case))


def predict_with_predictor(case: Case, path: Path, precision: str = "auto") -> Numbers:
    """`Predictor`; on a GPU its encoder is moved there by hand, with bfloat16."""
    from flash.text.classification.predictor import Predictor

    precision = case.precision if case.device == "cuda" else precision
    predictor, load = timed_load(lambda: Predictor.load(path, precision=precision))
    move(case, predictor)
    texts, _ = case.read("measure", WARM_TEXTS)
    half = uses_half(predictor.backbone, lambda: predictor.probabilities(texts))
    numbers = speed(case, predictor.probabilities, "by length")
    return {"load": load, "size": size_of(path), "half": half, **numbers}


def move(case: Case, predictor: Any) -> None:
    """Let a predictor use the GPU, if the case does."""
    if case.device == "cuda":
        predictor.backbone.logits = on_device(case, predictor.backbone)


def uses_half(backbone: Any, work: Callable[[], Any]) -> bool:
    """Whether an encoder's linear layers give bfloat16 while `work` is done; False without torch's layers."""
    if not hasattr(backbone, "encoder"):
        return False
    import torch

    found = []
    layers = [each for each in backbone.encoder.model.modules() if isinstance(each, torch.nn.Linear)]
    hooks = [
        each.register_forward_hook(lambda module, given, output: found.append(output.dtype))
        for each in layers
    ]
    work()
    for hook in hooks:
        hook.remove()
    return torch.bfloat16 in found


def predict_pipeline(case: Case, order: str = "as given", half: bool = False) -> Numbers:
    """Transformers' pipeline, by characters in order or as they come; on a GPU always in bfloat16."""
    pipe, load = timed_load(lambda: make_pipeline(case, half or case.device == "cuda"))

    def by_characters(texts: list[str]) -> list[Any]:
        places = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
        found: list[Any] = [None] * len(texts)
        for place, scores in zip(places, pipe([texts[place] for place in places]), strict=True):
            found[place] = scores
        return found

    numbers = speed(case, by_characters if order == "by characters" else pipe, order)
    return {"load": load, "size": size_of(Path(case.encoder)), **numbers}


def make_pipeline(case: Case, half: bool) -> Any:
    """A pipeline of the same encoder with a head of random weights, which takes as long as any."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    model = AutoModelForSequenceClassification.from_pretrained(
        case.encoder, dtype=torch.bfloat16 if half else torch.float32, num_labels=len(case.columns.labels)
    )
    return pipeline(
        "text-classification",
        model=model,
        tokenizer=AutoTokenizer.from_pretrained(case.encoder),
        device=case.device,
        batch_size=BATCH,
        top_k=None,
        function_to_apply="sigmoid",
        truncation=True,
        max_length=LENGTH,
    )


def timed_load(load: Callable[[], Any]) -> tuple[Any, float]:
    """What was loaded and in how many seconds, by a second time: imports are not counted."""
    load()
    start = time.perf_counter()
    return load(), time.perf_counter() - start


def size_of(path: Path) -> float:
    """MB of a file, or of a folder's weights."""
    files = [path] if path.is_file() else [each for each in path.iterdir() if each.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def speed(case: Case, scores: Callable[[list[str]], Any], batches: str) -> Numbers:
    """Texts a second, all of them as often as fills some; milliseconds of single texts, the lowest of some medians.

    One median of 200 texts varies by a third from one to the next where others use the machine too.
    """
    texts, _ = case.read("measure")
    work = count_work(case.encoder, texts, batches, passes=1)
    scores(texts[:WARM_TEXTS])
    done = 0
    start, cpu = time.perf_counter(), time.process_time()
    while (seconds := time.perf_counter() - start) < SECONDS:
        scores(texts)
        done += 1
    cpu = time.process_time() - cpu
    medians = [median_of_singles(scores, texts) for _ in range(PASSES)]
    rates = {name: done * work[of] / seconds for name, of in (("rate", "rows"), ("token_rate", "tokens"))}
    times = {"seconds": seconds / done, "single": min(medians) * 1000}
    return {**work, **rates, **times, "cpu_rate": done * work["rows"] / cpu}


def median_of_singles(scores: Callable[[list[str]], Any], texts: list[str]) -> float:
    """Seconds that a text alone takes; the first ones are not counted."""
    singles = []
    for text in itertools.islice(itertools.cycle(texts), WARM_TEXTS + SINGLE_TEXTS):
        start = time.perf_counter()
        scores([text])
        singles.append(time.perf_counter() - start)
    return float(np.median(singles[WARM_TEXTS:]))


# ---- from nothing to the first row ---------------------------------------------------------------------------------

PIPELINE_SCRIPT = """
import csv, sys
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
folder, labels, length, batch, file = sys.argv[1:]
texts = [row["text"] for row in csv.DictReader(open(file, newline=""))]
model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=int(labels))
pipe = pipeline("text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(folder), device="cpu",
    batch_size=int(batch), top_k=None, function_to_apply="sigmoid", truncation=True, max_length=int(length))
print("header", flush=True)
for scores in pipe(texts):
    print(scores, flush=True)
"""


def start_flash(case: Case, model: Callable[[Case], Path] = checkpoint) -> Numbers:
    """`flash predict` on one of our models."""
    words = ["predict", str(model(case)), "--input", str(texts_file(case)), "--input_field", "text"]
    return first_row([sys.executable, "-m", "flash", *words])


def start_pipeline(case: Case) -> Numbers:
    """A script around transformers' pipeline."""
    words = [case.encoder, len(case.columns.labels), LENGTH, BATCH, texts_file(case)]
    return first_row([sys.executable, "-c", PIPELINE_SCRIPT, *map(str, words)])


def texts_file(case: Case) -> Path:
    """A few texts as CSV."""
    path = Path(case.folder) / "texts.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([["text"], *([text] for text in case.read("measure", START_TEXTS)[0])])
    return path


def first_row(command: Sequence[str]) -> Numbers:
    """The median seconds until a command has printed its second line, after one run that is not counted.

    Raises:
        RuntimeError: it failed.
    """
    seconds = []
    for _ in range(1 + STARTS):
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            output: Any = process.stdout
            lines = [output.readline(), output.readline()]
            seconds.append(time.perf_counter() - start)
            output.read()
        if process.returncode or not all(lines):
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return {"first": float(np.median(seconds[1:]))}


PREDICT: Methods = {
    "flash": predict_flash,
    "fp32": predict_fp32,
    "int8": predict_int8,
    "pipeline": predict_pipeline,
    "sorted": partial(predict_pipeline, order="by characters"),
    "bf16": partial(predict_pipeline, order="by characters", half=True),
}
START: Methods = {
    "int8": partial(start_flash, model=int8_export),
    "flash": start_flash,
    "pipeline": start_pipeline,
}
