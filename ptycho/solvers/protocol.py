"""What the loop asks of a solver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from ptycho.grid import Array
from ptycho.problem import State


class Solver(Protocol):
    """A rule that turns derivatives into steps; `init`, then `step` for each batch and `end_iteration` after each pass."""

    def init(self, state: State) -> None:
        """Prepare for the first step."""

    def step(self, state: State, ids: np.ndarray, probe: bool) -> tuple[State, Array]:
        """State after one update with the patterns `ids`, and the loss of each pattern before it."""

    def end_iteration(self, state: State) -> State:
        """The state once all patterns were used."""

    def expected_noise(self, state: State) -> Array | None:
        """Standard deviation (slice, Y, X // 2 + 1) of the noise in the unitary Fourier coefficients of the phase of each slice;
        None when the solver does not know it."""

    def memory(self, state: State) -> dict[str, Array | float]:
        """Everything beside the state that a later run needs to go on as if there had been no break."""

    def recall(self, state: State, held: Mapping[str, Any]) -> None:
        """Take up what `memory` held, in place of `init`."""
