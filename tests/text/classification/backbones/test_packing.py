"""Packed linear layers: the same numbers, and ordinary layers wherever they cannot be packed."""

from typing import Any

import pytest
import torch
from torch import nn

from flash.text.classification.backbones import packing
from flash.text.classification.backbones.packing import PackedLinear, pack, unpack

KINDS = [torch.float32, torch.bfloat16]


class Network(nn.Module):
    """Two linear layers, one of them twice, one without a bias, and a class of its own."""

    def __init__(self) -> None:
        super().__init__()

        class Own(nn.Linear):
            """A linear layer that is none of torch's."""

        self.one = nn.Linear(8, 12)
        self.again = self.one
        self.two = nn.Linear(12, 5, bias=False)
        self.own = Own(5, 4)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(..., 8) to (..., 4)."""
        answers: torch.Tensor = self.own(self.two(self.again(rows).relu()))
        return answers


@pytest.fixture(autouse=True)
def forgotten() -> Any:
    """What was found out on this machine is asked again in each test."""
    packing._works.cache_clear()
    yield
    packing._works.cache_clear()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(8,), (1, 8), (3, 8), (2, 3, 8), (0, 8)])
def test_the_same_numbers(kind: torch.dtype, shape: tuple[int, ...]) -> None:
    network, rows = Network().to(kind), torch.randn(shape).to(kind)
    with torch.inference_mode():
        expected = network(rows)
        pack(network)
        found = network(rows)
    assert isinstance(network.one, PackedLinear) == packing._works(kind)
    assert network.again is network.one
    assert not isinstance(network.own, PackedLinear)
    tolerance = 1e-5 if kind == torch.float32 else 0.05
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_this_machine_packs_what_the_tests_are_of() -> None:
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        pytest.skip("torch has no oneDNN here")
    network = Network()
    pack(network)
    assert isinstance(network.two, PackedLinear)


def test_other_types_go_through_the_ordinary_weight() -> None:
    network = Network()
    pack(network)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = network(torch.randn(3, 8).bfloat16())
    assert found.dtype == torch.bfloat16
    with pytest.raises(RuntimeError, match="dtype"):
        network.one(torch.randn(3, 8).double())


def test_a_state_and_what_is_unpacked_are_as_before() -> None:
    network, rows = Network(), torch.randn(3, 8)
    before, expected = {name: value.clone() for name, value in network.state_dict().items()}, network(rows)
    pack(network)
    state = network.state_dict()
    assert list(state) == list(before)
    assert all(torch.equal(state[name], before[name]) for name in before)
    unpack(network)
    assert type(network.one) is type(network.two) is nn.Linear
    assert torch.equal(network(rows), expected)
    assert not hasattr(network.one, "packed")


@pytest.mark.parametrize(
    "failure", [RuntimeError("no such kernel"), AttributeError("no such operator"), None]
)
def test_a_torch_that_cannot(failure: Exception | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operators fail, are not there, or give something else."""

    def broken(rows: torch.Tensor, *rest: Any) -> torch.Tensor:
        if failure is not None:
            raise failure
        return torch.ones(3, 24, dtype=rows.dtype)

    class Operators:
        """In place of torch's."""

        _reorder_linear_weight = staticmethod(lambda weight: weight)
        _linear_pointwise = staticmethod(broken)

    monkeypatch.setattr(torch.ops, "mkldnn", Operators)
    network, rows = Network(), torch.randn(3, 8)
    expected = network(rows)
    pack(network)
    assert type(network.one) is nn.Linear
    assert torch.equal(network(rows), expected)
