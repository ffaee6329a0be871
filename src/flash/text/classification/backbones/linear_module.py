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

from flash.text.classification.backbones.fitting import LinearSolver
from flash.text.classification.backbones.linear import Linear


class LinearModule(nn.Module):
    """`Linear` with its arrays as buffers, of which `weight` has shape (F, L).

    F, the number of features, is known only after the first pass over the training texts; before that it is 0.
    """

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        self.linear = linear
        self.show_arrays()

    def show_arrays(self) -> None:
        """Point the buffers at the arrays as they are now; no copy."""
        for name, tensor in self.tensors().items():
            self.register_buffer(name, tensor)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The arrays themselves; a trainer's device or precision may have made other copies of the buffers."""
        arrays = self.linear.arrays().items()
        # torch has no read-only tensors
        return {
            name: torch.from_numpy(array if array.flags.writeable else array.copy()) for name, array in arrays
        }

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *_args: Any, **_kwargs: Any
    ) -> None:
        """Take the arrays as they come: their sizes are the saved model's, not this empty one's."""
        arrays = {key[len(prefix) :]: state_dict[key] for key in state_dict if key.startswith(prefix)}
        self.linear.load_arrays(
            {
                name: (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()
                for name, tensor in arrays.items()
            }
        )
        self.show_arrays()


class SolverOptimizer(torch.optim.Optimizer):
    """One `step` is one pass of the exact solver, whose dual variables are this optimiser's state.

    Attributes:
        converged: whether the fit is done, so that further passes would change nothing.
        passes: how many were made, those before a resume included.
    """

    def __init__(self, module: LinearModule) -> None:
        # torch wants a parameter, and its monitors a learning rate; the solver has neither.
        super().__init__([nn.Parameter(torch.empty(0))], defaults={"lr": 0.0})
        self.module = module
        self.solver: LinearSolver | None = None
        self.converged, self.passes = False, 0
        self._resumed: dict[str, Any] | None = None
        self._targets: csr_array | None = None
        self._loss = 0.0

    def remaining_passes(self, texts: pa.Array, targets: csr_array, seed: int) -> Iterator[int]:
        """The numbers of the passes to the optimum, from where the last epoch or a resumed run stood.

        There is at least one, which changes nothing at the optimum: an epoch without a batch has no validation.
        """
        self._targets = targets
        if self.solver is None and not self.converged:
            self.solver = LinearSolver(self.module.linear, texts, targets, seed=seed)
            if self._resumed is not None:
                self.solver.load_state({key: _to_numpy(value) for key, value in self._resumed.items()})
                self._resumed = None
            self.module.show_arrays()
        yield self.passes
        while not self.converged:
            yield self.passes

    def step(self, closure: Callable[[], float] | None = None) -> float:  # type: ignore[override]
        """Improve the weights by one pass; returns the mean loss per row and label, in nats."""
        del closure  # the solver needs no gradients of others
        if self.converged:  # loaders look one batch ahead, so one more step is asked for
            return self._loss
        if self.solver is None:
            raise RuntimeError("the solver has not been given its rows: iterate over remaining_passes first")
        self._loss = self.solver.step()
        self.converged, self.passes = self.solver.converged, self.solver.passes
        self.module.show_arrays()
        return self._loss

    def take_held_out(self) -> tuple[np.ndarray, csr_array] | None:
        """Once after a finished fit: scores (rows, L) of training rows by a fit without them, and their targets."""
        solver = self.solver
        if solver is None or not self.converged:
            return None
        self.solver = None  # gives back the training rows
        if not len(solver.held_out) or self._targets is None:
            return None
        scored = ~np.isnan(solver.held_out[:, 0])
        return solver.held_out[scored], self._targets[scored]

    def state_dict(self) -> dict[str, Any]:
        """The dual variables, or only that the fit is done: a finished model needs none."""
        state = {"converged": self.converged, "passes": self.passes}
        if self.solver is None or self.converged:
            return state
        return {**state, "solver": {key: _to_torch(value) for key, value in self.solver.state().items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until `remaining_passes` brings the rows that it belongs to."""
        self.converged, self.passes = state_dict["converged"], state_dict["passes"]
        self._resumed = state_dict.get("solver")


def _to_torch(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _to_numpy(value: Any) -> Any:
    return value.numpy() if isinstance(value, torch.Tensor) else value
