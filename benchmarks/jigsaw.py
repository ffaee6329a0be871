"""The embedded default on the Jigsaw toxic comments, beside scikit-learn on the same n-grams and the same rows.

    python benchmarks/jigsaw.py PATH/TO/jigsaw_toxic_comments/train.csv

Prints one table, ratios first. Each row is measured from the file to probabilities of the held-out tenth; ours
includes the thresholds, the table and saving the model. Needs the extra `test` (scikit-learn, pandas).
"""

import contextlib
import io
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LABELS = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]
Scores = tuple[float, float, float, float]  # wall seconds, macro AP, macro ROC AUC, texts predicted a second


def ours(file: str, folder: str) -> Scores:
    """Through the public interface, from the CSV to the saved model."""
    import flash
    from flash.text import TextClassificationData, TextClassifier

    start = time.perf_counter()
    data = TextClassificationData.from_csv("comment_text", LABELS, train_file=file, val_split=0.1)
    model = TextClassifier(labels=data.labels, multi_label=True)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = flash.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=folder, **quiet)
    trainer.finetune(model, datamodule=data)
    trainer.save_checkpoint(Path(folder) / "model.pt")
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    probabilities = model(data.val_dataset.texts).sigmoid().numpy()
    rate = len(probabilities) / (time.perf_counter() - start)
    return (seconds, *quality(data.val_dataset.targets.toarray(), probabilities), rate)


def scikit_learn(make: Callable[[], Any]) -> Callable[[str, str], Scores]:
    """TF-IDF of words 1-2 and of characters 2-5 inside words, and one classifier a label."""

    def run(file: str, folder: str) -> Scores:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.multiclass import OneVsRestClassifier
        from sklearn.pipeline import make_pipeline, make_union

        from flash.text import TextClassificationData

        start = time.perf_counter()
        data = TextClassificationData.from_csv("comment_text", LABELS, train_file=file, val_split=0.1)
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
        characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2)
        pipeline = make_pipeline(make_union(words, characters), OneVsRestClassifier(make()))
        pipeline.fit(
            data.train_dataset.texts.to_pylist(), data.train_dataset.targets.toarray().astype("int32")
        )
        seconds = time.perf_counter() - start
        texts = data.val_dataset.texts.to_pylist()
        start = time.perf_counter()
        scores = pipeline.decision_function(texts)
        rate = len(texts) / (time.perf_counter() - start)
        return (seconds, *quality(data.val_dataset.targets.toarray(), scores), rate)

    return run


def linear_svc() -> Any:
    """A linear support vector machine."""
    from sklearn.svm import LinearSVC

    return LinearSVC()


def logistic_regression() -> Any:
    """The same loss as ours."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=4, solver="liblinear")


RUNS: dict[str, Callable[[str, str], Scores]] = {
    "flash linear": ours,
    "scikit-learn LinearSVC": scikit_learn(linear_svc),
    "scikit-learn LogisticRegression(C=4)": scikit_learn(logistic_regression),
}


def quality(targets: Any, scores: Any) -> tuple[float, float]:
    """Macro average precision and macro ROC AUC, by scikit-learn for all."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    return float(average_precision_score(targets, scores)), float(roc_auc_score(targets, scores))


def measure(name: str, file: str) -> tuple[list[float], float, float]:
    """One run in a process of its own: (scores), CPU seconds of all of it, peak memory in MiB."""
    command = [sys.executable, __file__, file, name]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    *scores, peak = map(float, done.stdout.splitlines()[-1].split())
    return scores, cpu, peak


def main() -> None:
    """Run one, or all and print the table."""
    file, *names = sys.argv[1:]
    if names:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            scores = RUNS[names[0]](file, folder)
        print(*scores, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    print(
        f"{time.strftime('%Y-%m-%d')}, commit {commit.stdout.strip()}, {processor()}, {os.cpu_count()} cores\n"
    )
    print("| | train, wall | ratio | CPU s | macro AP | macro AUC | predict, texts/s | ratio | peak MiB |")
    print("|---|---|---|---|---|---|---|---|---|")
    first: list[float] | None = None
    for name in RUNS:
        (seconds, precision, auc, rate), cpu, peak = measure(name, file)
        first = first or [seconds, rate]
        print(
            f"| {name} | {seconds:.1f} s | {seconds / first[0]:.1f}x | {cpu:.1f} | {precision:.3f} | {auc:.3f} "
            f"| {rate:,.0f} | {rate / first[1]:.3f}x | {peak:,.0f} |",
            flush=True,
        )


def processor() -> str:
    """What the machine says it is."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


if __name__ == "__main__":
    main()
