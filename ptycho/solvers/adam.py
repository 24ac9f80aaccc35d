"""Mini-batch Adam with Nesterov's momentum: a step per pixel by the recent mean of its derivative over its recent spread.

With g the derivative of a batch, m ← 0.9 m + 0.1 g and v ← 0.999 v + 0.001 g², the potential moves by
−rate (0.9 m̂ + 0.1 ĝ) / (√v̂ + ε), the hats freeing the running means of their start at zero (Kingma and Ba,
doi:10.48550/arXiv.1412.6980; Nesterov's form: Dozat, ICLR 2016 workshop). ε is a share of the largest √v̂, so that pixels
without light stay where they are. The curvature of the loss in the probe is nearly the same in all its pixels: each mode has
one v, and the rate in units of its own root mean square. Rates fall as 1 / k once some hundred updates are done.

Standard shapes: potential (part, state, slice, Y, X) real, probe (mode, y, x).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ptycho.grid import Array, library_of
from ptycho.problem import Problem, State
from ptycho.settings import Settings
from ptycho.solvers.metric import derivative
from ptycho.solvers.potential import constrained, potential, transmission

_MEAN, _SPREAD = 0.9, 0.999
_EPSILON = 0.01
_SETTLED = 100
"""Updates after which a constant rate would only follow the noise of single batches."""


class AdamSolver:
    """One update per batch; `init`, then `step` for each batch, `end_iteration` after each pass."""

    def __init__(self, problem: Problem, settings: Settings) -> None:
        self.problem, self.settings = problem, settings

    def init(self, state: State) -> None:
        """Start at rest."""
        self._potential = potential(state.object, self.settings.object_type)
        self._object, self._probe = _Moments(self._potential * 0, self._potential * 0), _Moments.of_probe(state.probe)
        self._iteration = 0

    def step(self, state: State, ids: np.ndarray, probe: bool) -> tuple[State, Array]:
        """Update the object (and the probe) with the patterns `ids`; returns the new state and each pattern's loss."""
        gradients = self.problem.gradients(state, ids, probe=probe)
        slope = derivative(state.object, gradients.object, len(self._potential))
        rate = self.settings.learning_rate / (1 + self._object.updates / _SETTLED)
        direction = self._object.direction(slope, slope * slope)
        self._potential = self._potential - slope.dtype.type(rate) * direction
        state = replace(state, object=transmission(self._potential, state.object.dtype))
        if gradients.probe is not None:
            xp = library_of(state.probe)
            size = xp.sqrt(_power(state.probe))
            direction = self._probe.direction(gradients.probe, _power(gradients.probe))
            state = state.with_probe(state.probe - size.dtype.type(rate) * size * direction)
        return state, gradients.loss

    def end_iteration(self, state: State) -> State:
        """Apply the constraints."""
        self._potential = constrained(self._potential, self.problem, state, self.settings, self._iteration, 1.0)
        self._iteration += 1
        if not self.settings.regularisers:
            return state
        return replace(state, object=transmission(self._potential, state.object.dtype))

    def expected_noise(self, state: State) -> Array | None:
        """Not known: it depends on the rates of the steps."""
        return None

    def memory(self, state: State) -> dict[str, Array | float]:
        """Everything a later run needs to go on as if there had been no break."""
        held: dict[str, Array | float] = {"potential": self._potential, "iteration": self._iteration}
        for name, moments in (("object", self._object), ("probe", self._probe)):
            held |= {f"{name}_mean": moments.mean, f"{name}_spread": moments.spread, f"{name}_updates": moments.updates}
        return held

    def recall(self, state: State, held: Mapping[str, Any]) -> None:
        """Take up what `memory` held."""
        self._potential, self._iteration = held["potential"], int(held["iteration"])
        self._object, self._probe = (
            _Moments(held[f"{name}_mean"], held[f"{name}_spread"], int(held[f"{name}_updates"]))
            for name in ("object", "probe")
        )


class _Moments:
    """Running mean of a derivative and of its square."""

    def __init__(self, mean: Array, spread: Array, updates: int = 0) -> None:
        self.mean, self.spread, self.updates = mean, spread, updates

    @classmethod
    def of_probe(cls, probe: Array) -> _Moments:
        """At rest, with one spread for each mode."""
        return cls(probe * 0, _power(probe) * 0)

    def direction(self, derivative: Array, square: Array) -> Array:
        """Take up a derivative and its square; returns the mean ahead over the root of the spread."""
        self.updates += 1
        real = self.spread.dtype.type
        self.mean = real(_MEAN) * self.mean + real(1 - _MEAN) * derivative
        self.spread = real(_SPREAD) * self.spread + real(1 - _SPREAD) * square
        ahead = real(_MEAN) * self.mean + real(1 - _MEAN) * derivative
        ahead /= real(1 - _MEAN ** (self.updates + 1))
        root = library_of(self.spread).sqrt(self.spread / real(1 - _SPREAD**self.updates))
        return ahead / (root + real(_EPSILON) * root.max() + np.finfo(root.dtype).tiny)


def _power(probe: Array) -> Array:
    """Mean of |P|² of each mode (mode, 1, 1)."""
    return (probe.real**2 + probe.imag**2).mean((-2, -1), keepdims=True)
