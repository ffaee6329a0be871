"""The embedded default beside its peers on the same rows: time, memory, size, speed and quality.

    python benchmarks/linear.py DATA_FOLDER [--data jigsaw goemotions reuters21578 arxiv_cs] [--only flash svc ...] [--all]
    python benchmarks/linear.py DATA_FOLDER --scaling

Prints one table a data set, ours first, with ratios to ours; or, with `--scaling`, how our time and memory grow with
rows and labels. The peers are in `peers.py`. The slowest are left out on arxiv_cs unless asked for by `--all`.

Rows: goemotions and arxiv_cs train on train.parquet and are measured on val.parquet; jigsaw and reuters21578 hold out
a stratified fifth (identical texts stay together, seed 0), as in a tenth of reuters21578 half of the labels have two
texts or fewer. Everything is chosen on the training rows alone. Ours
chooses its thresholds within its fit, and so does `train_thresholding` (a label applies where its score is above 0).
For the other peers they are chosen on a stratified tenth of the training rows, by a second fit on the rest, both as
one threshold for all labels and as one for each label by its best F1; micro-F1 and macro-F1 are each that of the
better of the two on the measured rows, which is generous to them.

Counted: "train" is one fit on all training rows, from a Parquet file to the saved model, and no second fit; imports
come before. Ours is fitted on a few rows first, so that its kernels are compiled or loaded when the clock starts. CPU
seconds are of all threads. Peak memory is that of the process after the fit, imports included. Then, with the model
loaded from its file: texts per second from a list of the measured texts to scores, and the median of 200 single texts
after 20 others. Macro average precision and ROC AUC are over labels with a positive and a negative among the measured
rows, macro-F1 over those with a positive; a label that no training row has counts nowhere. Only fastText is not
deterministic.

Needs the project with its extra `test` (scikit-learn, pandas) and, for the peers beyond it,
`pip install libmultilabel==0.10.0 fasttext-wheel==0.9.2`. A peer whose package is missing says so in its line.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from peers import METHODS, PACKAGES, TITLES, Columns, Method, matrix, read

JIGSAW = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]
FILES: dict[str, tuple[str, str, str | list[str]]] = {  # folder, text column, target column or columns
    "jigsaw": ("jigsaw_toxic_comments", "comment_text", JIGSAW),
    "goemotions": ("goemotions", "text", "labels"),
    "reuters21578": ("reuters21578", "text", "labels"),
    "arxiv_cs": ("arxiv_cs", "text", "labels"),
}
SLOW = {"arxiv_cs": {"svc", "logistic", "thresholding"}}
SCALING_ROWS, SCALING_LABELS, SCALING_LABEL_ROWS = (10_000, 20_000, 40_000, 80_000), (10, 40, 158), 40_000
WARM_ROWS, WARM_TEXTS, SINGLE_TEXTS = 500, 20, 200


# ---- files of rows, made in a process of its own: what it holds would count as peak memory of later ones -----------


def prepare(source: Path, name: str, folder: Path) -> None:
    """Write fit, measure, choose_fit and choose .parquet, columns.json, and a folder with a few rows to warm up."""
    directory, text, targets = FILES[name]
    table = table_of(source / directory, "train")
    if (source / directory / "val.parquet").exists():
        held_out = table_of(source / directory, "val")
    else:
        table, held_out = divide(table, text, targets, 0.2)
    parts = dict(zip(("choose_fit", "choose"), divide(table, text, targets, 0.1), strict=True))
    write(folder, {"fit": table, "measure": held_out, **parts}, text, targets)


def table_of(directory: Path, stem: str) -> Any:
    """The rows of a CSV or Parquet file."""
    from pyarrow import csv, parquet

    if (directory / f"{stem}.parquet").exists():
        return parquet.read_table(directory / f"{stem}.parquet")
    return csv.read_csv(
        directory / f"{stem}.csv", parse_options=csv.ParseOptions(newlines_in_values=True, double_quote=True)
    )


def names_of(table: Any, targets: str | list[str]) -> list[str]:
    """The labels of a table, sorted or in the order of the columns."""
    if isinstance(targets, list):
        return targets
    return sorted({name for cell in table[targets].to_pylist() for name in cell.split(",") if name})


def divide(table: Any, text: str, targets: str | list[str], share: float) -> tuple[Any, Any]:
    """A table without a stratified share of its rows, and that share."""
    from scipy.sparse import csr_array

    from flash.text.classification.targets.stratified_split import stratified_split

    if isinstance(targets, list):
        values = np.column_stack([table[column].to_numpy() for column in targets])
    else:
        cells = table[targets].to_pylist()
        values = matrix([cell.split(",") if cell else [] for cell in cells], names_of(table, targets))
    groups = table[text].combine_chunks().dictionary_encode().indices.to_numpy()
    first, second = stratified_split(csr_array(values.astype(np.float32)), share, groups=groups, seed=0)
    return table.take(first), table.take(second)


def write(folder: Path, tables: dict[str, Any], text: str, targets: str | list[str]) -> None:
    """The tables and what their columns are; the same of the first rows in a folder inside."""
    from pyarrow import parquet

    for stem, table in tables.items():
        columns = [text, *targets] if isinstance(targets, list) else [text, targets]
        parquet.write_table(table.select(columns), folder / f"{stem}.parquet")
    labels = names_of(tables["fit"], targets)
    (folder / "columns.json").write_text(json.dumps({"text": text, "targets": targets, "labels": labels}))
    if folder.name != "warm":
        (folder / "warm").mkdir()
        write(folder / "warm", {"fit": tables["fit"].slice(0, WARM_ROWS)}, text, targets)


def prepare_scaling(source: Path, rows: int, labels: int, folder: Path) -> None:
    """The first rows of arxiv_cs in random order, with its most frequent labels; a row may be left without any."""
    import pyarrow as pa

    directory, text, targets = FILES["arxiv_cs"]
    table = table_of(source / directory, "train")
    cells = [cell.split(",") for cell in table[targets].to_pylist()]
    names, counts = np.unique(np.concatenate(cells), return_counts=True)
    kept = set(names[np.argsort(-counts, kind="stable")[:labels]].tolist())
    chosen = np.random.default_rng(0).permutation(len(cells))[:rows]
    column = pa.array([",".join(name for name in cells[row] if name in kept) for row in chosen])
    write(folder, {"fit": pa.table({text: table[text].take(chosen), targets: column})}, text, targets)


# ---- one method, in a process of its own ---------------------------------------------------------------------------


def measure(name: str, folder: Path, fit_only: bool) -> dict[str, float]:
    """All numbers of one method on the files of `folder`."""
    if name.startswith("flash"):
        warm = METHODS[name](Columns.of(folder / "warm"))
        scores, _ = warm.load(fit(warm, folder / "warm" / "fit.parquet"))
        scores(["a text"])
    columns = Columns.of(folder)
    method = METHODS[name](columns)
    path, numbers = timed_fit(method, folder / "fit.parquet")
    if fit_only:
        return numbers
    start = time.perf_counter()
    scores, thresholds = method.load(path)
    numbers["load"] = time.perf_counter() - start
    texts, found = read(folder / "measure.parquet", columns)
    numbers |= speed(scores, texts)
    targets, values = matrix(found, columns.labels), scores(texts)
    decisions = [] if thresholds is None else [thresholds]
    if thresholds is None:
        chooser, _ = method.load(fit(method, folder / "choose_fit.parquet"))
        texts, found = read(folder / "choose.parquet", columns)
        decisions = choose(chooser(texts), matrix(found, columns.labels))
    return numbers | ranking(targets, values) | decided(targets, values, decisions)


def fit(method: Method, file: Path) -> Path:
    """The path of a model fitted on a file, in a new folder."""
    return method.fit(file, Path(tempfile.mkdtemp(dir=file.parent)))


def timed_fit(method: Method, file: Path) -> tuple[Path, dict[str, float]]:
    """The same, with its seconds, the peak memory so far in MiB and the size of the model in MB."""
    wall, cpu = time.perf_counter(), time.process_time()
    path = fit(method, file)
    numbers = {"train": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    numbers["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    numbers["size"] = path.stat().st_size / 1e6
    return path, numbers


def speed(scores: Any, texts: list[str]) -> dict[str, float]:
    """Texts a second, all of them as often as fills a second; the median milliseconds of single texts."""
    scores(texts[:WARM_TEXTS])
    done, start = 0, time.perf_counter()
    while (seconds := time.perf_counter() - start) < 1:
        scores(texts)
        done += len(texts)
    singles = []
    for text in texts[: WARM_TEXTS + SINGLE_TEXTS]:
        start = time.perf_counter()
        scores([text])
        singles.append(time.perf_counter() - start)
    return {"rate": done / seconds, "single": float(np.median(singles[WARM_TEXTS:])) * 1000}


def ranking(targets: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """Macro average precision and macro ROC AUC, by scikit-learn for all."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    defined = targets.any(axis=0) & ~targets.all(axis=0)
    pair = targets[:, defined], values[:, defined]
    return {"precision": float(average_precision_score(*pair)), "auc": float(roc_auc_score(*pair))}


def choose(values: np.ndarray, targets: np.ndarray) -> list[np.ndarray]:
    """(L,) thresholds twice: one for all by micro-F1, and one each by F1 (a label without positives has the former)."""
    one = best_cut(values.ravel(), targets.ravel())
    columns = range(targets.shape[1])
    each = [best_cut(values[:, j], targets[:, j]) if targets[:, j].any() else one for j in columns]
    return [np.full(targets.shape[1], one), np.array(each)]


def best_cut(values: np.ndarray, targets: np.ndarray) -> float:
    """The score with the best F1 when a label applies from there on."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, cuts = precision_recall_curve(targets, values)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return float(cuts[np.argmax(f1[:-1])])


def decided(targets: np.ndarray, values: np.ndarray, decisions: list[np.ndarray]) -> dict[str, float]:
    """Micro-F1 and macro-F1, each the best that one of these (L,) thresholds gives."""
    pairs = []
    there = targets.any(axis=0)
    for thresholds in decisions:
        predicted = values >= thresholds
        hits = (predicted & (targets == 1)).sum(axis=0)
        sums = predicted.sum(axis=0) + targets.sum(axis=0)
        pairs.append((2 * hits.sum() / sums.sum(), (2 * hits[there] / sums[there]).mean()))
    micro, macro = np.max(pairs, axis=0)
    return {"micro": float(micro), "macro": float(macro)}


# ---- tables --------------------------------------------------------------------------------------------------------

MEASURED = {  # number: heading, format, whether its ratio to ours is shown
    "train": ("train, s", ".1f", True),
    "cpu": ("CPU s", ".1f", True),
    "peak": ("peak MiB", ",.0f", True),
    "size": ("model MB", ".1f", True),
    "load": ("load, s", ".2f", True),
    "rate": ("texts/s", ",.0f", True),
    "single": ("one text, ms", ".2f", True),
    "precision": ("macro AP", ".3f", False),
    "auc": ("macro AUC", ".3f", False),
    "micro": ("micro-F1", ".3f", False),
    "macro": ("macro-F1", ".3f", False),
}
GROWTH = ("train", "cpu", "peak")


def child(*arguments: str) -> Any:
    """What a run of this file in a process of its own answers: the JSON of its last line, None if it failed."""
    command = [sys.executable, __file__, "--child", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def answer(task: str, *arguments: str) -> Any:
    """The child's side of `child`."""
    if task == "prepare":
        return prepare(Path(arguments[0]), arguments[1], Path(arguments[2]))
    if task == "scaling":
        rows, labels = map(int, arguments[1:3])
        return prepare_scaling(Path(arguments[0]), rows, labels, Path(arguments[3]))
    try:
        return measure(arguments[0], Path(arguments[1]), fit_only=task == "fit")
    except ModuleNotFoundError as error:
        return {"missing": error.name}


def head(first: list[str], numbers: list[str]) -> None:
    """The heading of a table."""
    titles = [*first, *(MEASURED[number][0] for number in numbers)]
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}", flush=True)


def row(first: list[str], numbers: dict[str, float], reference: dict[str, float] | None) -> None:
    """One line of it, ratios in brackets."""
    cells = []
    for number, (_, form, ratio) in MEASURED.items():
        if number in numbers:
            share = f" ({numbers[number] / reference[number]:.3g}x)" if ratio and reference else ""
            cells.append(f"{numbers[number]:{form}}{share}")
    print(f"| {' | '.join([*first, *cells])} |", flush=True)


def compare(source: Path, name: str, methods: list[str]) -> None:
    """One data set's table."""
    with tempfile.TemporaryDirectory() as folder:
        child("prepare", str(source), name, folder)
        print(f"\n## {name}\n")
        head([""], list(MEASURED))
        reference = None
        for method in methods:
            numbers = child("measure", method, folder)
            if numbers is None:
                print(f"| {TITLES[method]} | failed |", flush=True)
            elif "missing" in numbers:
                package = PACKAGES.get(numbers["missing"], numbers["missing"])
                print(f"| {TITLES[method]} | not installed: pip install {package} |", flush=True)
            else:
                reference = numbers if method == "flash" else reference
                row([TITLES[method]], numbers, reference)


def scaling(source: Path) -> None:
    """How time and memory of ours grow on arxiv_cs: two tables, ratios to the first line of each."""
    cases = {
        "rows": [(rows, SCALING_LABELS[-1]) for rows in SCALING_ROWS],
        "labels": [(SCALING_LABEL_ROWS, labels) for labels in SCALING_LABELS],
    }
    for grows, sizes in cases.items():
        print(f"\n## How time and memory grow with the {grows}, arxiv_cs\n")
        head(["rows", "labels"], list(GROWTH))
        reference = None
        for rows, labels in sizes:
            with tempfile.TemporaryDirectory() as folder:
                child("scaling", str(source), str(rows), str(labels), folder)
                numbers = child("fit", "flash", folder)
            if numbers is None:
                print(f"| {rows:,} | {labels} | failed |", flush=True)
                continue
            numbers = {number: numbers[number] for number in GROWTH}
            reference = reference or numbers
            row([f"{rows:,}", str(labels)], numbers, reference)


def main() -> None:
    """Answer a parent process, or print the tables."""
    if sys.argv[1:2] == ["--child"]:
        with contextlib.redirect_stdout(io.StringIO()):
            result = answer(*sys.argv[2:])
        print(json.dumps(result))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="DATA_FOLDER", type=Path)
    parser.add_argument("--data", nargs="+", choices=FILES, default=list(FILES))
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--all", action="store_true", help="the slow peers on arxiv_cs too")
    parser.add_argument("--scaling", action="store_true", help="how ours grows, in place of the comparison")
    options = parser.parse_args()
    revision = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(revision, capture_output=True, text=True, check=False).stdout.strip()
    print(f"{time.strftime('%Y-%m-%d')}, commit {commit}, {processor()}, {os.cpu_count()} cores")
    if options.scaling:
        return scaling(options.source)
    for name in options.data:
        left_out = set() if options.all else SLOW.get(name, set())
        compare(options.source, name, [method for method in METHODS if method in {*options.only} - left_out])


def processor() -> str:
    """What the machine says it is."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


if __name__ == "__main__":
    main()
