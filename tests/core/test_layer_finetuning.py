"""Layers that freeze and unfreeze: what trains when, resumed runs, several processes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from flash.core.errors import FlashError
from flash.core.finetuning import FinetuningStrategy, parse_strategy
from flash.core.layer_finetuning import LayerFinetuning, frozen_layers

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{message}")
    for message in (
        ".*does not have many workers",
        ".*have no `val_dataloader`",
        "Checkpoint directory .* exists and is not empty",
        "You're resuming from a checkpoint that ended before",
        "Be aware that when using `ckpt_path`, callbacks used",
        ".*LeafSpec.* is deprecated",
    )
]

FREEZE, LATER = parse_strategy("freeze"), parse_strategy(("freeze_unfreeze", 2))
MILESTONES = parse_strategy(("unfreeze_milestones", ((1, 3), 2)))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.dropout = nn.Dropout(0.5)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.dropout(torch.tanh(self.linear(values))))


class Model(pl.LightningModule):
    """Four blocks and a head; notes in each step which layers train, and which blocks drop out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(Block() for _ in range(4))
        self.head = nn.Linear(4, 1)
        self.trained: dict[int, list[bool]] = {}
        self.dropping: dict[int, list[bool]] = {}

    def layers(self) -> list[list[nn.Parameter]]:
        return [list(module.parameters()) for module in (*self.blocks, self.head)]

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.head(nn.Sequential(*self.blocks)(values)))

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        torch.manual_seed(self.global_step)  # the same dropout in a resumed run
        self.dropping[self.current_epoch] = [cast(Block, block).dropout.training for block in self.blocks]
        return cast(torch.Tensor, self(batch[0])).square().mean()

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        assert not any(module.training for module in self.modules())

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.before = [[parameter.detach().clone() for parameter in layer] for layer in self.layers()]

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.trained[self.current_epoch] = [
            not all(torch.equal(one, other) for one, other in zip(before, layer, strict=True))
            for before, layer in zip(self.before, self.layers(), strict=True)
        ]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.01)


class Seeded(Model):
    """Takes rows by the number of the step, every process its share, since a plain loader would not do.

    It begins its epoch anew in a resumed run, and Lightning shuffles it where there are several processes.
    """

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        torch.manual_seed(self.global_step)
        rows = torch.randn(4, 4)[self.trainer.global_rank :: self.trainer.world_size]
        return super().training_step([rows], batch_idx)


def loader(batch_size: int = 4) -> DataLoader[tuple[torch.Tensor, ...]]:
    rows = torch.linspace(-1, 2, 64).reshape(16, 4)
    return DataLoader(TensorDataset(rows), batch_size=batch_size)


def trainer(tmp_path: Path, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(
        default_root_dir=tmp_path,
        callbacks=list(callbacks),
        **{"accelerator": "cpu", "enable_checkpointing": False, "max_epochs": 4, **quiet, **options},
    )


# Of four blocks and the head, how many from below are frozen in each of four epochs.
BY_EPOCH = [
    (parse_strategy("no_freeze"), [0, 0, 0, 0]),
    (FREEZE, [4, 4, 4, 4]),
    (LATER, [4, 4, 0, 0]),
    (parse_strategy(("freeze_unfreeze", 0)), [0, 0, 0, 0]),
    (MILESTONES, [4, 2, 2, 0]),
    (parse_strategy(("unfreeze_milestones", ((0, 2), 9))), [0, 0, 0, 0]),
    (parse_strategy(("unfreeze_milestones", ((1, 1), 1))), [4, 0, 0, 0]),
]


@pytest.mark.parametrize(("strategy", "expected"), BY_EPOCH)
def test_how_many_layers_are_frozen(strategy: FinetuningStrategy, expected: list[int]) -> None:
    assert [frozen_layers(strategy, epoch, 5) for epoch in range(4)] == expected


@pytest.mark.parametrize(("strategy", "expected"), BY_EPOCH)
def test_what_trains_and_what_drops_out(
    tmp_path: Path, strategy: FinetuningStrategy, expected: list[int]
) -> None:
    model = Model()
    trainer(tmp_path, LayerFinetuning(strategy)).fit(model, loader(), loader())
    for epoch, frozen in enumerate(expected):
        assert model.trained[epoch] == [layer >= frozen for layer in range(5)]
        assert model.dropping[epoch] == [layer >= frozen for layer in range(4)]
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("strategy", "epochs"),
    [(FREEZE, float("inf")), (LATER, 2), (MILESTONES, 1), (parse_strategy("no_freeze"), 0)],
)
def test_in_how_many_epochs_the_head_trains_alone(strategy: FinetuningStrategy, epochs: float) -> None:
    assert LayerFinetuning(strategy).epochs_frozen == epochs


def test_what_the_user_froze_stays_frozen(tmp_path: Path) -> None:
    model = Model()
    mine = cast(Block, model.blocks[1]).linear.bias
    mine.requires_grad = False
    before = mine.clone()
    trainer(tmp_path, LayerFinetuning(LATER)).fit(model, loader())
    assert torch.equal(mine, before)
    assert [name for name, each in model.named_parameters() if not each.requires_grad] == [
        "blocks.1.linear.bias"
    ]
    assert model.dropping[0] == [False] * 4  # also the block that is frozen in two ways


@pytest.mark.parametrize("strategy", [LATER, MILESTONES], ids=lambda strategy: strategy.name)
@pytest.mark.parametrize("step", [2, 4, 6, 8, 9, 12, 15])
def test_a_resumed_run_ends_as_one_never_stopped(
    tmp_path: Path, strategy: FinetuningStrategy, step: int
) -> None:
    """Stopped in the middle of an epoch of four steps and at its end, before and after unfreezing."""
    whole, first, second = Seeded(), Seeded(), Seeded()
    trainer(tmp_path, LayerFinetuning(strategy)).fit(whole, loader())
    saves = ModelCheckpoint(tmp_path, "stopped", every_n_train_steps=step, save_top_k=1)
    options = {"enable_checkpointing": True, "max_steps": step}
    trainer(tmp_path, LayerFinetuning(strategy), saves, **options).fit(first, loader())
    again = trainer(tmp_path, LayerFinetuning(strategy))
    again.fit(second, loader(), ckpt_path=str(tmp_path / "stopped.ckpt"), weights_only=True)
    assert again.global_step == 16
    for ours, expected in zip(second.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, expected)


def test_nothing_of_it_is_in_a_checkpoint(tmp_path: Path) -> None:
    saves = ModelCheckpoint(tmp_path, "last")
    trainer(tmp_path, LayerFinetuning(LATER), saves, enable_checkpointing=True).fit(Model(), loader())
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert not [name for name in content["callbacks"] if "Finetuning" in name]


def test_a_validation_freezes_nothing(tmp_path: Path) -> None:
    model = Model()
    trainer(tmp_path, LayerFinetuning(FREEZE)).validate(model, loader(), verbose=False)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_fit_that_fails_leaves_the_model_trainable(tmp_path: Path) -> None:
    class Fails(Model):
        def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
            assert not cast(Block, self.blocks[0]).linear.weight.requires_grad
            raise RuntimeError("of the test")

    model = Fails()
    with pytest.raises(RuntimeError, match="of the test"):
        trainer(tmp_path, LayerFinetuning(FREEZE)).fit(model, loader())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.modules())


def test_a_model_without_layers(tmp_path: Path) -> None:
    class Plain(pl.LightningModule):
        pass

    with pytest.raises(
        FlashError, match="Plain has no layers to freeze; pass strategy='no_freeze', or a Base"
    ):
        LayerFinetuning(FREEZE).freeze_before_training(Plain())


def test_several_devices_by_something_else_than_ddp() -> None:
    several = cast(Any, SimpleNamespace(world_size=2, strategy=object()))
    with pytest.raises(
        FlashError, match="'freeze_unfreeze' works on several devices with strategy='ddp' only"
    ):
        LayerFinetuning(LATER).setup(several, Model(), "fit")


class Together(pl.Callback):
    """All processes have the same weights after each step."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        flat = torch.cat([parameter.detach().flatten() for parameter in pl_module.parameters()])
        everywhere = [torch.empty_like(flat) for _ in range(2)]
        torch.distributed.all_gather(everywhere, flat)
        assert torch.equal(everywhere[0], everywhere[1])


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """Batches of two rows in each of two processes, against batches of four; unfrozen layers included."""
    one, two = Seeded(), Seeded()
    for model in (one, two):
        for block in model.blocks:
            cast(Block, block).dropout.p = 0
    trainer(tmp_path, LayerFinetuning(MILESTONES)).fit(one, loader(4))
    options = {"strategy": "ddp_fork", "devices": 2}
    trainer(tmp_path, LayerFinetuning(MILESTONES), Together(), **options).fit(two, loader(2))
    for ours, expected in zip(two.parameters(), one.parameters(), strict=True):
        assert torch.allclose(ours, expected, atol=1e-6)
    assert not torch.equal(
        cast(Block, two.blocks[0]).linear.weight, cast(Block, Model().blocks[0]).linear.weight
    )
