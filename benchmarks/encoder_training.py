"""What `encoder.py` times of training: ours through its public interface, and transformers' `Trainer` as users call it.

Each function of `TRAIN` and `FREEZE` takes a `Case`, runs in a process of its own, and answers numbers. Imports
nothing heavy at the top, and nothing of the project.
"""

import resource
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from encoder_floor import BATCH, LENGTH, count_work
from peers import Columns, matrix, read

Numbers: TypeAlias = dict[str, float]

RATES = {"no_freeze": 1e-4, "freeze": 1e-2}
WARM_UP, WEIGHT_DECAY, CLIP = 0.06, 0.01, 1.0  # what ours has, given to `Trainer`; and CLIP to both
FROZEN_EPOCHS, WARM_ROWS = 5, 64


@dataclass(frozen=True)
class Case:
    """Rows, an encoder, and what they are computed with: plain values, which another process is given.

    Attributes:
        folder: of fit.parquet, measure.parquet and columns.json.
        encoder: a folder of transformers.
        kind: a short name of the encoder.
        device: cpu or cuda.
        precision: Lightning's word.
        progress: whether to show how far training is.
    """

    folder: str
    encoder: str
    kind: str = "minilm"
    device: str = "cpu"
    precision: str = "32-true"
    progress: bool = False

    @property
    def columns(self) -> Columns:
        """Where the rows have what, and the labels."""
        return Columns.of(Path(self.folder))

    def read(self, stem: str, limit: int | None = None) -> tuple[list[str], np.ndarray]:
        """N texts, and their (N, L) targets of 0 and 1 in float32."""
        texts, names = read(Path(self.folder) / f"{stem}.parquet", self.columns)
        return texts[:limit], matrix(names[:limit], self.columns.labels).astype(np.float32)


class Clock:
    """Seconds of the wall and of all threads, until the device is done."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.wall = self.cpu = 0.0

    def __enter__(self) -> "Clock":
        self._wait()
        self._start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self._wait()
        self.wall, self.cpu = time.perf_counter() - self._start[0], time.process_time() - self._start[1]

    def _wait(self) -> None:
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()


# ---- training ------------------------------------------------------------------------------------------------------


def fit_flash(
    case: Case,
    limit: int | None = None,
    *,
    strategy: str = "no_freeze",
    epochs: int = 1,
    equal: bool = True,
    watch: AbstractContextManager[Any] | None = None,
) -> tuple[Any, Any, Clock]:
    """Ours trained: the trainer, the datamodule and the time, which is from strings on.

    Args:
        case: the rows and the encoder.
        limit: train on so many of the rows.
        strategy: of `finetune`.
        epochs: how many.
        equal: as for `fit_trainer`.
        watch: entered for what is timed.
    """
    import torch

    import flash
    from flash.text import TextClassificationData, TextClassifier

    texts, targets = case.read("fit", limit)
    labels = case.columns.labels
    data = TextClassificationData.from_lists(
        train_data=texts, train_targets=targets, labels=labels, multi_label=True, batch_size=BATCH
    )
    torch.manual_seed(0)
    rate = RATES[strategy] if equal else None
    model = TextClassifier(
        labels=labels, backbone=case.encoder, multi_label=True, max_length=LENGTH, learning_rate=rate
    )
    trainer = flash.Trainer(
        max_epochs=epochs,
        accelerator="gpu" if case.device == "cuda" else "cpu",
        devices=1,
        precision=case.precision,
        gradient_clip_val=CLIP if equal else None,
        default_root_dir=case.folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=case.progress,
    )
    with watch or nullcontext(), Clock(case.device) as clock:
        trainer.finetune(model, datamodule=data, strategy=strategy)
    return trainer, data, clock


def fit_trainer(
    case: Case, limit: int | None = None, *, frozen: bool = False, epochs: int = 1, equal: bool = True
) -> tuple[Any, Any, Clock]:
    """`Trainer` with its default dynamic padding: the trainer, the tokenizer and the time from strings on.

    Its rows are dictionaries in a list, which is faster than the data sets that its documentation uses.

    Args:
        case: the rows and the encoder.
        limit: train on so many of the rows.
        frozen: train the head alone.
        epochs: how many.
        equal: with the settings that ours has here; else with each one's defaults.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

    texts, targets = case.read("fit", limit)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        case.encoder,
        dtype=torch.float32,
        num_labels=targets.shape[1],
        problem_type="multi_label_classification",
    )
    if frozen:
        model.base_model.requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(case.encoder)
    settings: dict[str, Any] = {}
    if equal:
        rate = RATES["freeze" if frozen else "no_freeze"]
        settings = {
            "learning_rate": rate,
            "warmup_steps": WARM_UP,
            "weight_decay": WEIGHT_DECAY,
            "max_grad_norm": CLIP,
        }
    arguments = TrainingArguments(
        output_dir=str(Path(case.folder) / "trainer"),
        num_train_epochs=epochs,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=BATCH,
        use_cpu=case.device == "cpu",
        bf16=case.precision == "bf16-mixed",
        save_strategy="no",
        report_to="none",
        disable_tqdm=not case.progress,
        seed=0,
        **settings,
    )
    with Clock(case.device) as clock:
        rows = tokenized(tokenizer, texts, targets)
        trainer = Trainer(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer)
        trainer.train()
    return trainer, tokenizer, clock


def tokenized(tokenizer: Any, texts: list[str], targets: np.ndarray) -> list[dict[str, Any]]:
    """Rows for `Trainer`, cut and not padded."""
    found = tokenizer(texts, truncation=True, max_length=LENGTH)
    targets_of = targets.tolist()
    return [
        {**{key: found[key][row] for key in found}, "labels": targets_of[row]} for row in range(len(texts))
    ]


def train_flash(case: Case) -> Numbers:
    """Ours, all layers trained."""
    fit_flash(case, WARM_ROWS)
    *_, clock = fit_flash(case)
    return trained(case, clock, "by length, shuffled")


def train_trainer(case: Case) -> Numbers:
    """`Trainer`, all layers trained."""
    fit_trainer(case, WARM_ROWS)
    *_, clock = fit_trainer(case)
    return trained(case, clock, "random")


def trained(case: Case, clock: Clock, batches: str) -> Numbers:
    """What an epoch took, and what it computed."""
    work = count_work(case.encoder, case.read("fit")[0], batches, passes=3)
    rows = work["rows"]
    rates = {
        "rate": rows / clock.wall,
        "cpu_rate": rows / clock.cpu,
        "token_rate": work["tokens"] / clock.wall,
    }
    return {**work, **rates, "seconds": clock.wall, "peak": peak_memory(case.device)}


def peak_memory(device: str) -> float:
    """MiB: of the process with all it has imported, or of what a GPU has held."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def freeze_flash(case: Case) -> Numbers:
    """Ours, the head trained on features that are computed once."""
    fit_flash(case, WARM_ROWS, strategy="freeze")
    trainer, data, clock = fit_flash(case, strategy="freeze", epochs=FROZEN_EPOCHS)
    score = on_device(case, trainer.lightning_module.backbone)
    with Clock(case.device) as one:
        score(data.train_dataset.texts)
    return frozen_numbers(clock, one)


def freeze_trainer(case: Case) -> Numbers:
    """`Trainer`, the encoder's parameters without gradients."""
    fit_trainer(case, WARM_ROWS, frozen=True)
    trainer, tokenizer, clock = fit_trainer(case, frozen=True, epochs=FROZEN_EPOCHS)
    texts, targets = case.read("fit")
    with Clock(case.device) as one:
        trainer.predict(tokenized(tokenizer, texts, targets))
    return frozen_numbers(clock, one)


def frozen_numbers(fit: Clock, one: Clock) -> Numbers:
    """Seconds of the fit and of one pass, and their ratio."""
    return {"seconds": fit.wall, "cpu": fit.cpu, "one_pass": one.wall, "passes": fit.wall / one.wall}


def on_device(case: Case, backbone: Any) -> Callable[[Any], np.ndarray]:
    """An encoder's scores of texts, on the device and in the precision of the case."""
    import torch

    if case.device == "cuda":
        backbone.to("cuda")

    def scores(texts: Any) -> np.ndarray:
        half: AbstractContextManager[Any] = nullcontext()
        if case.precision == "bf16-mixed":
            half = torch.autocast(case.device, torch.bfloat16)
        with half:
            logits: np.ndarray = backbone.logits(texts)
        return logits

    return scores


Methods: TypeAlias = dict[str, Callable[[Case], Numbers]]
TRAIN: Methods = {"flash": train_flash, "trainer": train_trainer}
FREEZE: Methods = {"flash": freeze_flash, "trainer": freeze_trainer}
