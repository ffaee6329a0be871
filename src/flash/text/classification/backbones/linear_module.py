"""The linear backbone as a torch module, and its exact solver as a torch optimiser.

Lightning's loops, checkpoints and resume see a module with weights and an optimiser with a state; the numbers stay
NumPy's, in the same memory.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from scipy.sparse import csr_array
from torch import nn

from flash.text.classification.backbones.linear import Linear, LinearSolver


class LinearModule(nn.Module):
    """`Linear` with its arrays as buffers, of which `weight` has shape (F, L).

    F, the number of features, is known only after the first pass over the training texts; before that it is 0.
    """

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        self.linear = linear
        self.solver: LinearSolver | None = None
        self._show_arrays()

    def start(self, texts: pa.Array, targets: csr_array, seed: int) -> LinearSolver:
        """Begin an exact fit to these rows; the solver's steps change this module's weights."""
        self.solver = LinearSolver(self.linear, texts, targets, seed=seed)
        self._show_arrays()
        return self.solver

    def step(self) -> float:
        """One pass of the solver over all rows; returns the mean loss per row and label, in nats."""
        if self.solver is None:
            raise RuntimeError("the solver has not been given its rows: call start first")
        loss = self.solver.step()
        self._show_arrays()
        return loss

    def _show_arrays(self) -> None:
        """Point the buffers at the arrays as they are now; no copy."""
        for name, array in self.linear.arrays().items():
            writable = array if array.flags.writeable else array.copy()  # torch has no read-only tensors
            self.register_buffer(name, torch.from_numpy(writable))

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *_args: Any, **_kwargs: Any
    ) -> None:
        """Take the arrays as they come: their sizes are the saved model's, not this empty one's."""
        arrays = {key[len(prefix) :]: state_dict[key] for key in state_dict if key.startswith(prefix)}
        self.linear.load_arrays({name: tensor.cpu().numpy() for name, tensor in arrays.items()})
        self._show_arrays()


class SolverOptimizer(torch.optim.Optimizer):
    """One `step` is one pass of the exact solver, whose dual variables are this optimiser's state."""

    def __init__(self, module: LinearModule) -> None:
        super().__init__(
            [nn.Parameter(torch.empty(0))], defaults={}
        )  # torch wants one parameter; this has none
        self.module = module
        self.resumed: dict[str, Any] | None = None

    def step(self, closure: Callable[[], float] | None = None) -> float:  # type: ignore[override]
        """Improve the weights by one pass; returns the mean loss per row and label."""
        del closure  # exact: the solver computes its own gradients
        return self.module.step()

    def begin(self, texts: pa.Array, targets: csr_array, seed: int) -> Iterator[int]:
        """Passes until the optimum is reached, from where a resumed run stood."""
        if self.resumed is not None and self.resumed["converged"]:
            return iter(())
        solver = self.module.start(texts, targets, seed)
        if self.resumed is not None:
            solver.load_state({key: _to_numpy(value) for key, value in self.resumed["solver"].items()})
        return _passes(solver)

    def state_dict(self) -> dict[str, Any]:
        """The dual variables, or only that the fit is done: a finished model needs none."""
        solver = self.module.solver
        if solver is None or solver.converged:
            return {"converged": solver is not None}
        return {
            "converged": False,
            "solver": {key: _to_torch(value) for key, value in solver.state().items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until `begin` brings the rows that it belongs to."""
        self.resumed = state_dict if state_dict["converged"] or "solver" in state_dict else None


def _passes(solver: LinearSolver) -> Iterator[int]:
    while not solver.converged:
        yield solver.passes


def _to_torch(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _to_numpy(value: Any) -> Any:
    return value.numpy() if isinstance(value, torch.Tensor) else value
