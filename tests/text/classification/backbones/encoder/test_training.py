"""An encoder's training that is stopped: resumed exactly, explained, and nothing of it lost.

Run as a program, this file trains and kills itself in the middle: `python FILE ENCODER FOLDER`.
"""

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pyarrow as pa
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from flash import Trainer
from flash.core.errors import FlashError
from flash.text import TextClassificationData, TextClassifier
from flash.text.classification import batching, checkpoint
from flash.text.classification.backbones.encoder import module as encoder_module
from flash.text.classification.backbones.encoder.model import Encoder
from flash.text.classification.backbones.encoder.module import EncoderModule
from flash.text.classification.backbones.encoder.resuming import rewind_to_last_step, seeded
from flash.text.classification.backbones.encoder.token_cache import TokenCache
from flash.text.classification.backbones.memory import is_out_of_memory

LABELS = ["animal", "fruit"]
ROWS, BATCH = 44, 8
STEPS = -(-ROWS // BATCH)  # of an epoch: the last batch has 4 rows
KILLED_AT = STEPS + 4

Weights = dict[str, torch.Tensor]

pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks:UserWarning")


def data() -> TextClassificationData:
    """Texts of several lengths, with validation."""
    texts = [" ".join(f"w{(row * 7 + place) % 40}" for place in range(2 + row % 9)) for row in range(ROWS)]
    targets = [[LABELS[0]] * (row % 3 == 0) + [LABELS[1]] * (row % 2) for row in range(ROWS)]
    return TextClassificationData.from_lists(
        texts, targets, texts[:10], targets[:10], labels=LABELS, multi_label=True, batch_size=BATCH
    )


def fit(
    encoder: Path,
    root: Path,
    *callbacks: pl.Callback,
    ckpt_path: Path | None = None,
    seed: int = 1,
    strategy: Any = "no_freeze",
    model: dict[str, Any] | None = None,
    **trainer: Any,
) -> TextClassifier:
    """Finetune for three epochs; a resumed run may have another seed, as what matters is in the checkpoint."""
    torch.manual_seed(seed)
    options: dict[str, Any] = {
        "labels": LABELS,
        "multi_label": True,
        "max_length": 12,
        "learning_rate": 1e-2,
        **(model or {}),
    }
    classifier = TextClassifier(backbone=str(encoder), **options)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    options = {"accelerator": "cpu", "max_epochs": 3, "default_root_dir": root, **quiet, **trainer}
    options["enable_checkpointing"] |= any(isinstance(one, ModelCheckpoint) for one in callbacks)
    Trainer(callbacks=list(callbacks), **options).finetune(
        classifier, datamodule=data(), strategy=strategy, ckpt_path=ckpt_path
    )
    return classifier


def weights(model: TextClassifier) -> Weights:
    return {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}


def same(one: Weights, other: Weights) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


class Kill(pl.Callback):
    """No time for any last words."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Stop where this process stands."""
        if trainer.global_step == KILLED_AT:
            os.kill(os.getpid(), signal.SIGKILL)


class SaveEach(pl.Callback):
    """A checkpoint after each batch, also between two steps."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.batches = folder, 0

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.batches += 1
        trainer.save_checkpoint(self.folder / f"{self.batches}.ckpt")


class Raise(pl.Callback):
    """Stop before a batch of the run, counted from 0."""

    def __init__(self, batch: int, error: BaseException) -> None:
        self.left, self.error = batch, error

    def on_train_batch_start(self, *_: Any) -> None:
        self.left -= 1
        if self.left < 0:
            raise self.error


@pytest.fixture(scope="module")
def encoder(make_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT without a head; it has dropout."""
    return make_folder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def unbroken(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """What a run that nothing stopped ends with."""
    return weights(fit(encoder, tmp_path_factory.mktemp("unbroken")))


# ---- exact resume ---------------------------------------------------------------------------------------------------


def test_killed_and_resumed_is_as_never_killed(
    encoder: Path, unbroken: Weights, forked: Any, tmp_path: Path
) -> None:
    killed = forked(__file__, encoder, tmp_path, folder=Path.cwd())
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = sorted(path.name for path in tmp_path.glob("*.ckpt"))
    assert left == ["epoch=0-step=3.ckpt", "epoch=0-step=6.ckpt", "epoch=1-step=9.ckpt"]
    resumed = fit(encoder, tmp_path, ckpt_path=tmp_path / left[-1], seed=2)
    assert same(weights(resumed), unbroken)


@pytest.mark.parametrize("accumulated", [1, 3])
@pytest.mark.parametrize("strategy", ["no_freeze", "freeze", ("freeze_unfreeze", 1)])
def test_any_batch_can_be_resumed_from(
    accumulated: int, strategy: Any, encoder: Path, tmp_path: Path
) -> None:
    keywords: dict[str, Any] = {"strategy": strategy, "accumulate_grad_batches": accumulated}
    whole = weights(fit(encoder, tmp_path, SaveEach(tmp_path), **keywords))
    places = (1, 4, 6, 7, 13, 17) if strategy == "no_freeze" else (STEPS + 2,)
    for batches in places:
        path = tmp_path / f"{batches}.ckpt"
        resumed = weights(fit(encoder, tmp_path, ckpt_path=path, seed=2, **keywords))
        assert same(resumed, whole), f"after {batches} batches"


def test_another_seed_in_the_checkpoint_gives_other_weights(
    encoder: Path, unbroken: Weights, tmp_path: Path
) -> None:
    # as the test above could not fail if neither mattered
    fit(encoder, tmp_path, SaveEach(tmp_path))
    path = tmp_path / f"{STEPS + 2}.ckpt"
    content = checkpoint.load(path)
    content["loops"]["fit_loop"]["state_dict"]["combined_loader"][0]["noise"] += 1
    checkpoint.save(content, tmp_path / "other_seed.ckpt")
    assert not same(weights(fit(encoder, tmp_path, ckpt_path=tmp_path / "other_seed.ckpt")), unbroken)
    content = checkpoint.load(path)
    progress = content["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]
    progress.update({name: count - 1 for name, count in progress.items()})
    checkpoint.save(content, tmp_path / "other_place.ckpt")
    assert not same(weights(fit(encoder, tmp_path, ckpt_path=tmp_path / "other_place.ckpt")), unbroken)
    assert same(weights(fit(encoder, tmp_path, ckpt_path=path)), unbroken)


def test_the_runs_seed_follows_from_the_users(encoder: Path, unbroken: Weights, tmp_path: Path) -> None:
    assert same(weights(fit(encoder, tmp_path)), unbroken)
    assert not same(weights(fit(encoder, tmp_path, seed=2)), unbroken)


def test_a_seeded_block_depends_on_its_place_only_and_restores_the_generator() -> None:
    torch.manual_seed(5)
    with seeded(torch.device("cpu"), 7, 0, 1):
        inside = torch.rand(4)
    after = torch.rand(4)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(4), after)
    with seeded(torch.device("cpu"), 7, 0, 1):
        assert torch.equal(torch.rand(4), inside)
    for place in [(7, 0, 2), (7, 1, 1), (8, 0, 1)]:
        with seeded(torch.device("cpu"), *place):
            assert not torch.equal(torch.rand(4), inside)


@pytest.mark.parametrize(
    ("ready", "processed", "completed", "last", "accumulated", "expected"),
    [
        (5, 5, 4, False, 1, (5, 5, 4)),  # written as a batch ended: Lightning counts on from there
        (5, 5, 5, False, 1, (5, 5, 5)),
        (5, 4, 4, False, 1, (4, 4, 4)),  # a batch failed: it is done again
        (5, 5, 4, False, 2, (4, 4, 4)),  # a half-done step: it is begun again
        (6, 5, 5, False, 3, (3, 3, 3)),
        (5, 5, 5, True, 2, (5, 5, 5)),  # the last batch takes a step in any case
        (5, 4, 4, True, 3, (3, 3, 3)),  # unless it failed
    ],
)
def test_counters_go_back_to_the_last_step(
    ready: int, processed: int, completed: int, last: bool, accumulated: int, expected: tuple[int, ...]
) -> None:
    current = {"ready": ready, "started": ready, "processed": processed, "completed": completed}
    total = {name: count + 10 for name, count in current.items()}
    progress = {"current": current, "total": total, "is_last_batch": last}
    seed = rewind_to_last_step(
        {"epoch_loop.batch_progress": progress, "state_dict": {"combined_loader": [{"noise": 3}]}},
        accumulated,
    )
    assert seed == 3
    found = tuple(current[name] for name in ("ready", "processed", "completed"))
    assert found == expected
    assert tuple(total[name] - 10 for name in ("ready", "processed", "completed")) == expected


def test_a_file_without_a_loop_has_no_seed() -> None:
    assert rewind_to_last_step({}, 1) is None
    assert rewind_to_last_step({"state_dict": {"combined_loader": [{"noise": "x"}]}}, 1) is None


# ---- clipping -------------------------------------------------------------------------------------------------------


class Seeing(torch.optim.SGD):
    """Looks at the gradients and does nothing."""

    norms: list[float] = []  # noqa: RUF012

    def step(self, closure: Any = None) -> Any:
        """Lightning's closure goes forward, backward, and clips."""
        loss = closure()
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        self.norms.append(float(torch.cat([gradient.flatten() for gradient in gradients]).norm()))
        return loss


@pytest.mark.parametrize(
    ("keywords", "most"),
    [
        ({}, 1.0),
        ({"gradient_clip_val": 0.25}, 0.25),
        ({"gradient_clip_val": 0}, None),
        ({"accumulate_grad_batches": 2}, 1.0),
    ],
)
def test_gradients_are_clipped_unless_the_user_says_otherwise(
    keywords: dict[str, Any], most: float | None, encoder: Path, tmp_path: Path
) -> None:
    Seeing.norms = []
    options = {
        "optimizer": Seeing,
        "loss_fn": lambda logits, targets: 1000 * ((logits - targets) ** 2).mean(),
    }
    fit(encoder, tmp_path, model=options, max_epochs=1, **keywords)
    if most is None:
        assert min(Seeing.norms) > 10
    else:
        np.testing.assert_allclose(Seeing.norms, most, rtol=1e-3)


def test_small_gradients_stay_as_they_are(encoder: Path, tmp_path: Path) -> None:
    norms = []
    for value in (None, 0):
        Seeing.norms = []
        options = {
            "optimizer": Seeing,
            "loss_fn": lambda logits, targets: 0.01 * ((logits - targets) ** 2).mean(),
        }
        fit(encoder, tmp_path, model=options, max_epochs=1, gradient_clip_val=value)
        norms.append(Seeing.norms)
    assert 0 < min(norms[1]) < max(norms[1]) < 1
    assert norms[0] == norms[1]


@pytest.mark.parametrize("keywords", [{}, {"gradient_clip_val": 0.25}])
def test_a_fused_step_follows_clipping(
    keywords: dict[str, Any], encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the encoder itself; where Lightning clips in mixed precision, the step is none, as Lightning refuses that."""
    norms: list[float] = []
    fused: list[bool] = []
    step = torch.optim.AdamW.step

    def seen(self: torch.optim.AdamW, closure: Any = None) -> Any:
        def watched() -> Any:
            loss = closure()
            gradients = [p.grad for group in self.param_groups for p in group["params"]]
            norms.append(float(torch.cat([gradient.flatten() for gradient in gradients]).norm()))
            return loss

        fused.extend(group["fused"] for group in self.param_groups)
        return step(self, watched)

    monkeypatch.setattr(torch.optim.AdamW, "step", seen)
    options = {"loss_fn": lambda logits, targets: 1000 * ((logits - targets) ** 2).mean()}
    fit(encoder, tmp_path, model=options, max_epochs=1, precision="bf16-mixed", **keywords)
    np.testing.assert_allclose(norms, keywords.get("gradient_clip_val", 1.0), rtol=1e-3)
    assert [bool(each) for each in fused] == [not keywords] * len(fused) != []


# ---- out of memory --------------------------------------------------------------------------------------------------

CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: not enough memory: you tried to"
)


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize("error", [CUDA, CPU, MemoryError()])
@pytest.mark.parametrize("where", ["forward", "backward", "step"])
def test_too_little_memory_for_training_is_a_sentence(
    error: BaseException, where: str, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = {"forward": Encoder, "backward": torch.Tensor, "step": torch.optim.AdamW}[where]
    if where != "step":
        monkeypatch.setattr(owner, where, raising(error))
    else:

        def fail(self: Any, closure: Any = None) -> Any:
            closure()
            raise error

        monkeypatch.setattr(owner, where, fail)
    with pytest.raises(FlashError) as caught:
        fit(encoder, tmp_path, accumulate_grad_batches=2 if where != "step" else 1)
    found = re.fullmatch(
        r"there is not enough memory on cpu for a training batch of (\d+) rows, the longest of (\d+) tokens; pass "
        r"batch_size=(\d+) to the datamodule with accumulate_grad_batches=(\d+) to the trainer, which learns the "
        r"same, or a smaller max_length, or precision='bf16-mixed' to the trainer",
        str(caught.value),
    )
    assert found is not None, caught.value
    rows, longest, fewer, steps = map(int, found.groups())
    assert rows in (BATCH, ROWS % BATCH)
    assert 4 <= longest <= 12
    assert fewer == rows // 2
    assert fewer * steps == BATCH * (2 if where != "step" else 1)  # as many rows a step as before


def test_too_little_memory_for_scores_is_a_sentence(
    encoder: Path, as_if_trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = as_if_trained(
        TextClassifier(backbone=str(encoder), labels=LABELS, multi_label=True, max_length=12)
    )
    monkeypatch.setattr(Encoder, "features", raising(CPU))
    words = "on cpu for a batch to score of 1 row, the longest of 5 tokens; pass a smaller max_length, or precision"
    with pytest.raises(FlashError, match=words):
        model(["w1 w2", "w1 w2 w3"])


def test_other_errors_stay_what_they_are(
    encoder: Path, as_if_trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = as_if_trained(
        TextClassifier(backbone=str(encoder), labels=LABELS, multi_label=True, max_length=12)
    )
    monkeypatch.setattr(Encoder, "features", raising(RuntimeError("shapes do not fit")))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        model(["w1 w2"])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (CUDA, True),
        (CPU, True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_is_too_little_memory(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_genuine_lack_of_memory_is_known() -> None:
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        torch.empty(1 << 60)
    assert is_out_of_memory(caught.value)


# ---- nothing trained is lost ----------------------------------------------------------------------------------------


def keeper(folder: Path, **keywords: Any) -> ModelCheckpoint:
    return ModelCheckpoint(folder, save_top_k=-1, **keywords)


def nan_from(batch: int) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """A loss that is no number from some batch on; validation does not count."""
    calls = 0

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += logits.requires_grad
        return ((logits - targets) ** 2).mean() * (float("nan") if calls > batch else 1.0)

    return loss


@pytest.mark.parametrize(("accumulated", "step"), [(1, 4), (3, 1)])
def test_a_loss_that_is_no_number_leaves_the_weights_before_it(
    accumulated: int, step: int, encoder: Path, tmp_path: Path
) -> None:
    keywords: dict[str, Any] = {"accumulate_grad_batches": accumulated, "max_epochs": 1}
    whole = fit(encoder, tmp_path, model={"loss_fn": nan_from(1000)}, **keywords)
    words = f"the loss is nan at step {step}; pass a smaller learning_rate=, or gradient_clip_val=0.1"
    with pytest.raises(FlashError, match=words) as caught:
        fit(encoder, tmp_path, keeper(tmp_path / "x"), model={"loss_fn": nan_from(4)}, **keywords)
    path = tmp_path / "last-good.pt"
    assert f"what was learnt before is in {path}: go on from it with ckpt_path='{path}'" in str(caught.value)
    assert checkpoint.load(path)["global_step"] == step
    model = {"loss_fn": nan_from(1000)}
    resumed = fit(encoder, tmp_path, model=model, ckpt_path=path, seed=2, **keywords)
    assert same(weights(resumed), weights(whole))


def test_steps_after_a_checkpoint_are_kept_too(encoder: Path, tmp_path: Path) -> None:
    saving = keeper(tmp_path / "kept", every_n_train_steps=3)
    with pytest.raises(FlashError, match=r"what was learnt before is in .*last-good\.pt: go on from it"):
        fit(encoder, tmp_path, saving, model={"loss_fn": nan_from(8)})
    assert checkpoint.load(tmp_path / "last-good.pt")["global_step"] == 8
    kept = tmp_path / "kept" / "epoch=0-step=6.ckpt"
    assert checkpoint.load(kept)["global_step"] == 6
    assert not [
        name for name in checkpoint.load(tmp_path / "last-good.pt")["callbacks"] if "LastGood" in name
    ]


def test_memory_that_runs_out_after_some_steps(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, calls = Encoder.forward, 0

    def failing(self: Encoder, *inputs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise CUDA
        return forward(self, *inputs)

    monkeypatch.setattr(Encoder, "forward", failing)
    with pytest.raises(
        FlashError, match=r"not enough memory .*; what was learnt before is in .*last-good\.pt"
    ):
        fit(encoder, tmp_path, keeper(tmp_path / "x"))
    assert checkpoint.load(tmp_path / "last-good.pt")["global_step"] == 2


@pytest.mark.parametrize(
    ("error", "raised"), [(OSError("a cable"), OSError), (KeyboardInterrupt(), SystemExit)]
)
def test_whatever_stops_it(
    error: BaseException,
    raised: type[BaseException],
    encoder: Path,
    unbroken: Weights,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        with caplog.at_level("INFO"), pytest.raises(raised):
            fit(encoder, tmp_path, Raise(STEPS - 1, error), keeper(tmp_path / "x"))
    finally:
        signal.signal(signal.SIGINT, on_interrupt)  # which Lightning has switched off
    path = tmp_path / "last-good.pt"
    assert f"What was learnt before is in {path}: go on from it" in caplog.text
    assert same(weights(fit(encoder, tmp_path, ckpt_path=path, seed=2)), unbroken)
    with pytest.raises(OSError, match="another"):
        fit(encoder, tmp_path, Raise(2, OSError("another")), keeper(tmp_path / "y"))
    assert checkpoint.load(path)["global_step"] == STEPS - 1  # not overwritten
    assert checkpoint.load(tmp_path / "last-good-v1.pt")["global_step"] == 2


def test_nothing_is_written_of_nothing_or_where_no_checkpoints_are_wanted(
    encoder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with pytest.raises(OSError, match="first"):
        fit(encoder, tmp_path, Raise(0, OSError("first")), keeper(tmp_path / "x"))
    with pytest.raises(OSError, match="second"):
        fit(encoder, tmp_path, Raise(2, OSError("second")), enable_checkpointing=False)
    assert not list(tmp_path.glob("*.pt"))
    assert "learnt" not in caplog.text


def test_broken_weights_are_not_kept(encoder: Path, tmp_path: Path) -> None:
    class Break(Raise):
        def on_train_batch_end(self, _: Any, module: Any, *__: Any) -> None:
            torch.nn.init.constant_(module.layers()[-1][0], float("nan"))

    with pytest.raises(FlashError, match=r"nan at step 1; .* no longer numbers"):
        fit(encoder, tmp_path, Break(9, OSError()), keeper(tmp_path / "x"))
    assert not list(tmp_path.glob("*.pt"))


def test_a_folder_that_takes_no_file_does_not_hide_the_error(
    encoder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "root").write_text("a file")
    with caplog.at_level("INFO"), pytest.raises(OSError, match="the first trouble"):
        fit(encoder, tmp_path / "root", Raise(2, OSError("the first trouble")), keeper(tmp_path / "x"))
    assert "What was learnt before could not be kept" in caplog.text


# ---- tokens of validation -------------------------------------------------------------------------------------------


def test_texts_are_tokenised_once_a_fit(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenised = []
    tokenize = batching.tokenize

    def counted(texts: pa.Array, *rest: Any, **keywords: Any) -> Any:
        tokenised.append(len(texts))
        return tokenize(texts, *rest, **keywords)

    monkeypatch.setattr(encoder_module, "tokenize", counted)
    model = fit(encoder, tmp_path)
    assert sorted(tokenised) == [10, ROWS]  # validation has ten, which are scored together
    model(["w1"])
    assert tokenised[-1] == 1


def test_the_cache_knows_texts_by_content_and_is_bounded(encoder: Path) -> None:
    module = EncoderModule.from_pretrained(encoder, LABELS, 12, {})
    asked = []

    def tokenize(texts: pa.Array) -> Any:
        asked.append(texts.to_pylist())
        return module.tokenize(texts)

    def texts(*words: str) -> pa.Array:
        return pa.array(words, pa.large_string())

    cache = TokenCache()
    first = cache.rows_of(texts("w1", "w2"), tokenize)
    assert cache.rows_of(texts("w1", "w2"), tokenize) is first
    for other in [texts("w1w2", ""), texts("w1", "w2", ""), texts("w2", "w1"), texts("w1", "w2")[1:]]:
        assert cache.rows_of(other, tokenize).ids.tolist() == module.tokenize(other).ids.tolist()
    assert len(asked) == 5
    small = TokenCache(most_bytes=10)
    for _ in range(2):
        small.rows_of(texts("w1"), tokenize)
    assert len(asked) == 7


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    fit(Path(sys.argv[1]), folder, Kill(), keeper(folder, every_n_train_steps=3))
