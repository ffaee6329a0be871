"""Probabilities of texts by their length, and of a few words, by the linear backbone.

    python benchmarks/short_texts.py DATA_FOLDER [--data jigsaw goemotions reuters21578 arxiv_cs] [--seeds 0 1]

The rows are those of `linear.py` (its held-out fifth, or the validation file), of arxiv_cs 20,000 for training; with a
seed other than 0, another fifth. Calibration and thresholds come from the out-of-fold scores of the training rows, as in
`TextClassifier`. Run the same file in a checkout of before to compare.

Counted: macro average precision and ROC AUC, micro- and macro-F1; cross-entropy in nats per cell; and, for each
label in each of seven classes of length with at least 300 rows and 50 positives, the gap between its mean probability and its
share of positives. A gap is wide if it is above 0.01 and above 1.96 times its standard error; of right probabilities, a
twentieth at most is. "out of fold" are the training rows, which are more. Then how many of 60 harmless texts of one to four words have
a label, and how many of 20 rude ones have none, by a model of all Jigsaw rows and one of nine tenths of them.
"""

import argparse
import platform
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from linear import FILES, divide, names_of, ranking, table_of
from peers import matrix
from scipy.sparse import csr_array

from flash.text.classification.backbones.linear.fitting import LinearSolver
from flash.text.classification.backbones.linear.model import Linear
from flash.text.classification.scores.calibration import fit_calibration
from flash.text.classification.scores.outputs import to_probabilities
from flash.text.classification.scores.threshold_tuning import choose_thresholds

SAMPLED = {"arxiv_cs": 20_000}
CLASSES, FEWEST_ROWS, FEWEST_POSITIVES = 7, 300, 50
HARMLESS = [
    "hello",
    "hi",
    "hi there",
    "good morning",
    "good night",
    "hey",
    "thanks",
    "thank you",
    "thank you very much",
    "many thanks",
    "cheers",
    "you",
    "I",
    "me",
    "we",
    "they",
    "he",
    "she",
    "it",
    "us",
    "you are wonderful",
    "you are kind",
    "well done",
    "nice work",
    "great article",
    "I agree",
    "see you later",
    "how are you",
    "welcome",
    "welcome back",
    "I am gay",
    "gay",
    "lesbian",
    "I am a lesbian",
    "muslim",
    "I am muslim",
    "jewish",
    "I am jewish",
    "black",
    "I am black",
    "white",
    "woman",
    "I am a woman",
    "black woman",
    "transgender",
    "queer",
    "christian",
    "atheist",
    "deaf",
    "I am deaf",
    "blind",
    "a",
    "the",
    "ok",
    "yes",
    "no",
    "please",
    "sorry",
    "what",
    "bye",
]
RUDE = [
    "fuck you",
    "fuck off",
    "you idiot",
    "idiot",
    "asshole",
    "you are an idiot",
    "stupid bitch",
    "bitch",
    "shut up moron",
    "go to hell",
    "you suck",
    "piece of shit",
    "dickhead",
    "you are a faggot",
    "die bitch",
    "I will kill you",
    "motherfucker",
    "cunt",
    "you stupid cunt",
    "suck my dick",
]


class Fitted:
    """A linear model with its calibration and thresholds."""

    def __init__(self, texts: Any, targets: np.ndarray) -> None:
        start = time.process_time()
        self.model = Linear(targets.shape[1])
        solver = LinearSolver(self.model, texts, csr_array(targets.astype(np.float32)))
        while not solver.converged:
            solver.step()
        self.rows, truth = solver.held_out_rows, csr_array(targets[solver.held_out_rows].astype(np.float32))
        self.calibration = fit_calibration(solver.held_out, truth, multi_label=True)
        self.unseen = to_probabilities(self.calibration.apply(solver.held_out), multi_label=True)
        objective = ("macro_f1",) * targets.shape[1]
        self.thresholds = choose_thresholds(self.unseen, truth, objective).thresholds
        self.seconds = time.process_time() - start

    def probabilities(self, texts: Any) -> np.ndarray:
        """(N, L)."""
        return to_probabilities(self.calibration.apply(self.model.logits(texts)), multi_label=True)

    def labelled(self, texts: list[str]) -> list[str]:
        """Those with a label that applies."""
        found = self.probabilities(pa.array(texts, pa.large_string())) >= self.thresholds
        return [text for text, row in zip(texts, found, strict=True) if row.any()]


def rows_of(source: Path, name: str, seed: int) -> tuple[Any, np.ndarray, Any, np.ndarray]:
    """Training texts and targets, and those to measure on."""
    directory, text, targets = FILES[name]
    train = table_of(source / directory, "train")
    names = names_of(train, targets)
    if (source / directory / "val.parquet").exists():
        held_out = table_of(source / directory, "val")
        order = np.random.default_rng(seed).permutation(len(train))[: SAMPLED.get(name, len(train))]
        train = train.take(np.sort(order))
    elif seed:
        order, fifth = np.random.default_rng(seed).permutation(len(train)), len(train) // 5
        train, held_out = train.take(np.sort(order[fifth:])), train.take(np.sort(order[:fifth]))
    else:
        train, held_out = divide(train, text, targets, 0.2)
    return *columns(train, text, targets, names), *columns(held_out, text, targets, names)


def columns(table: Any, text: str, targets: Any, names: list[str]) -> tuple[Any, np.ndarray]:
    """Texts, and (N, L) targets."""
    texts = table[text].cast(pa.large_string()).combine_chunks()
    if isinstance(targets, list):
        return texts, np.column_stack([table[name].to_numpy() for name in targets])
    return texts, matrix([cell.split(",") if cell else [] for cell in table[targets].to_pylist()], names)


def gaps(probabilities: np.ndarray, targets: np.ndarray, texts: Any) -> str:
    """How many gaps are wide, of how many, and the root mean square of gaps in standard errors."""
    lengths = np.array([len(text) for text in texts.to_pylist()])
    edges = np.quantile(lengths, np.linspace(0, 1, CLASSES + 1)[1:-1])
    wide, errors = 0, []
    classes = np.searchsorted(edges, lengths, side="right")
    for part in (classes == one for one in range(CLASSES)):
        if part.sum() < FEWEST_ROWS:
            continue
        for label in np.flatnonzero(targets[part].sum(axis=0) >= FEWEST_POSITIVES):
            p = probabilities[part, label].astype(np.float64)
            gap = abs(p.mean() - targets[part, label].mean())
            error = np.sqrt((p * (1 - p)).sum()) / len(p)
            wide += bool(gap > max(0.01, 1.96 * error))
            errors.append(gap / error)
    return f"{wide} of {len(errors)} | {np.sqrt(np.mean(np.square(errors))):.2f}"


def line(source: Path, name: str, seed: int) -> str:
    """One row of the table."""
    texts, targets, held_out, truth = rows_of(source, name, seed)
    fitted = Fitted(texts, targets)
    p = fitted.probabilities(held_out)
    applies, there = p >= fitted.thresholds, truth.any(axis=0)
    hits, sums = (applies & (truth == 1)).sum(axis=0), applies.sum(axis=0) + truth.sum(axis=0)
    ranked, q = ranking(truth, p), np.clip(p.astype(np.float64), 1e-7, 1 - 1e-7)
    loss = -np.mean(np.where(truth == 1, np.log(q), np.log(1 - q)))
    cells = [
        f"{name}, seed {seed}",
        *(f"{value:.4f}" for value in (ranked["precision"], ranked["auc"])),
        f"{2 * hits.sum() / sums.sum():.4f}",
        f"{(2 * hits[there] / sums[there]).mean():.4f}",
        f"{loss:.5f}",
        gaps(p, truth, held_out),
        gaps(fitted.unseen, targets[fitted.rows], texts.take(pa.array(fitted.rows))),
        f"{fitted.seconds:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def probe(source: Path) -> None:
    """Short texts, by models of the Jigsaw rows."""
    directory, text, targets = FILES["jigsaw"]
    table = table_of(source / directory, "train")
    for title, part in (("all rows", table), ("nine tenths", divide(table, text, targets, 0.1)[0])):
        fitted = Fitted(*columns(part, text, targets, []))
        labelled, kept = fitted.labelled(HARMLESS), set(fitted.labelled(RUDE))
        lost = [text for text in RUDE if text not in kept]
        print(
            f"{title}: {len(labelled)} of {len(HARMLESS)} harmless texts have a label ({', '.join(labelled)});"
        )
        print(f"{len(lost)} of {len(RUDE)} rude ones have none ({', '.join(lost)}).", flush=True)
        shown = ["a", "you", "You are wonderful", "I am gay", "fuck you", ""]
        found = fitted.probabilities(pa.array(shown, pa.large_string()))[:, 0]
        print("toxic:", {text: round(float(p), 2) for text, p in zip(shown, found, strict=True)}, flush=True)


def main() -> None:
    """Print the table, and what becomes of the short texts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("--data", nargs="*", default=list(FILES), choices=list(FILES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    options = parser.parse_args()
    print(f"{datetime.now(timezone.utc):%Y-%m-%d}, {platform.processor() or platform.machine()}\n")
    print(
        "| | macro AP | macro AUC | micro-F1 | macro-F1 | cross-entropy | wide gaps | RMS gap / error |",
        end="",
    )
    print(" wide gaps, out of fold | RMS gap / error | fit, CPU s |")
    print(f"|{'---|' * 11}", flush=True)
    for name in options.data:
        for seed in options.seeds:
            print(line(options.source, name, seed), flush=True)
    print()
    probe(options.source)


if __name__ == "__main__":
    main()
