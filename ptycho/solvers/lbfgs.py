"""L-BFGS: a Newton step whose curvature is learnt from the last changes of the derivative.

All patterns at once. The vacuum metric of `solvers.metric` is the curvature to start from; the last changes s of potential
(and probe) with the changes y of the derivative of loss + prior correct it by the two-loop recursion (Nocedal,
doi:10.1090/S0025-5718-1980-0572855-7; Liu and Nocedal, doi:10.1007/BF01589116). A step is halved until the objective falls by a
share of what its slope promises (Armijo, doi:10.2140/pjm.1966.16.1), so that it never rises. Loss and derivative at an accepted
point serve the next step: one evaluation per iteration, unless something else was moved in between.

Standard shapes: potential (part, state, slice, Y, X) real, probe (mode, y, x) complex.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ptycho.grid import Array, irfft2, rfft2
from ptycho.problem import Problem, State
from ptycho.settings import Settings
from ptycho.solvers.metric import PROBE_STEP, REGULARISED_SLACK, Metric, derivative
from ptycho.solvers.potential import constrained, potential, transmission

log = logging.getLogger(__name__)

_PAIRS = 8
_HALVINGS = 6
_ARMIJO = 1e-4


@dataclass(frozen=True, eq=False)
class _Vector:
    """A point, a change or a real derivative of potential and probe; without a probe where that is held."""

    object: Array
    probe: Array | None

    def plus(self, length: float, other: _Vector) -> _Vector:
        """self + length · other."""
        step = self.object.dtype.type(length)
        if self.probe is None or other.probe is None:
            return _Vector(self.object + step * other.object, None)
        return _Vector(self.object + step * other.object, self.probe + step * other.probe)

    def times(self, factor: float) -> _Vector:
        """factor · self."""
        real = self.object.dtype.type(factor)
        return _Vector(real * self.object, None if self.probe is None else real * self.probe)

    def dot(self, other: _Vector) -> float:
        """Sum of the products of all real numbers."""
        total = float((self.object * other.object).sum(dtype=np.float64))
        if self.probe is not None and other.probe is not None:
            total += float((self.probe.conj() * other.probe).sum(dtype=np.complex128).real)
        return total


@dataclass(frozen=True, eq=False)
class _Seen:
    """A state with the loss of each pattern and the derivative of their sum."""

    state: State
    loss: Array
    slope: _Vector

    def holds(self, state: State, probe: bool) -> bool:
        """Whether this is what would be found for `state`."""
        parts = ("object", "illumination", "space", "scales", "backgrounds")
        same = all(getattr(state, name) is getattr(self.state, name) for name in parts)
        return same and probe == (self.slope.probe is not None)


class LbfgsSolver:
    """One update per pass; `init`, then `step` with all patterns, `end_iteration` after each.

    Raises ValueError when the patterns come in batches.
    """

    def __init__(self, problem: Problem, settings: Settings) -> None:
        size = settings.patterns_per_batch
        if size is not None and size < len(problem.training):
            raise ValueError(
                f'batch_size is {size} with the solver "lbfgs" and {len(problem.training)} patterns; expected None: it needs '
                "all patterns at once."
            )
        self.problem, self.settings = problem, settings

    def init(self, state: State) -> None:
        """Measure the metric and start without history."""
        self._metric = Metric(self.problem, self.settings, state)
        self._potential = potential(state.object, self.settings.object_type)
        self._pairs: list[tuple[_Vector, _Vector]] = []
        self._seen: _Seen | None = None
        self._iteration = 0

    def step(self, state: State, ids: np.ndarray, probe: bool) -> tuple[State, Array]:
        """Update the object (and the probe); returns the new state and the loss of each pattern before."""
        seen = self._seen
        if seen is None or not seen.holds(state, probe):
            seen = self._look(replace(state, object=transmission(self._potential, state.object.dtype)), probe)
        if self._pairs and (self._pairs[0][0].probe is not None) != probe:
            self._pairs = []
        here = _Vector(self._potential, seen.state.probe if probe else None)
        objective, slope = self._with_prior(seen, here)
        direction = self._direction(slope, len(ids))
        following = self._search(seen, here, objective, slope, direction)
        if following is None:
            log.info("no step along the direction lowers the loss: history dropped")
            self._pairs, self._seen = [], seen
            return self._constrained_only(seen.state), seen.loss
        self._seen = following
        return following.state, seen.loss

    def end_iteration(self, state: State) -> State:
        """After the second pass the prior takes its strength from the phase itself."""
        self._iteration += 1
        if self._metric.adapt(state, self._potential, self._iteration):
            self._pairs = []
        return state

    def expected_noise(self, state: State) -> Array | None:
        """Noise left by the information of the patterns and the damping of the prior."""
        return self._metric.expected_noise()

    def memory(self, state: State) -> dict[str, Array | float]:
        """Everything a later run needs to go on as if there had been no break."""
        held: dict[str, Array | float] = {"potential": self._potential, "iteration": self._iteration}
        for i, pair in enumerate(self._pairs):
            for kind, vector in zip(("s", "y"), pair, strict=True):
                held[f"{kind}{i}"] = vector.object
                if vector.probe is not None:
                    held[f"{kind}{i}_probe"] = vector.probe
        return held | self._metric.memory()

    def recall(self, state: State, held: Mapping[str, Any]) -> None:
        """Take up what `memory` held."""
        self._metric = Metric(self.problem, self.settings, state, held)
        self._potential, self._iteration = held["potential"], int(held["iteration"])
        self._pairs, self._seen = [], None
        while f"s{len(self._pairs)}" in held:
            i = len(self._pairs)
            s, y = (_Vector(held[f"{kind}{i}"], held.get(f"{kind}{i}_probe")) for kind in ("s", "y"))
            self._pairs.append((s, y))

    def _look(self, state: State, probe: bool) -> _Seen:
        """Loss and derivative of a state."""
        found = self.problem.gradients(state, self.problem.training, probe=probe)
        slope = derivative(state.object, found.object, len(self._potential))
        return _Seen(state, found.loss, _Vector(slope, None if found.probe is None else 2 * found.probe))

    def _with_prior(self, seen: _Seen, here: _Vector) -> tuple[float, _Vector]:
        """Objective and its derivative."""
        penalty, pull = self._metric.penalty(here.object)
        slope = seen.slope.object + irfft2(pull, here.object.shape[-2:], self.settings.threads)
        return float(seen.loss.sum(dtype=np.float64)) + penalty, _Vector(slope, seen.slope.probe)

    def _direction(self, slope: _Vector, patterns: int) -> _Vector:
        """Minus the inverse curvature times the derivative."""
        q, shares = slope, []
        for s, y in reversed(self._pairs):
            shares.append(s.dot(q) / s.dot(y))
            q = q.plus(-shares[-1], y)
        out = self._vacuum_step(q, patterns)
        if self._pairs:
            s, y = self._pairs[-1]
            out = out.times(s.dot(y) / y.dot(self._vacuum_step(y, patterns)))
        for (s, y), share in zip(self._pairs, reversed(shares), strict=True):
            out = out.plus(share - y.dot(out) / s.dot(y), s)
        return out.times(-1)

    def _vacuum_step(self, slope: _Vector, patterns: int) -> _Vector:
        shaped = self._metric.shaped(rfft2(slope.object, self.settings.threads))
        if slope.probe is None:
            return _Vector(shaped, None)
        return _Vector(shaped, shaped.dtype.type(0.5 * PROBE_STEP / patterns) * slope.probe)

    def _search(self, seen: _Seen, here: _Vector, objective: float, slope: _Vector, direction: _Vector) -> _Seen | None:
        """The first point along the direction that is good enough, or None; its pair goes into the history."""
        promised = slope.dot(direction)
        slack = (REGULARISED_SLACK - 1) * abs(objective) if self.settings.regularisers else 0.0
        length = 1.0
        for _ in range(_HALVINGS):
            there = here.plus(length, direction)
            there = replace(there, object=self._constrained(there.object, seen.state, length))
            found = self._look(self._moved(seen.state, there), here.probe is not None)
            reached, changed = self._with_prior(found, there)
            if reached <= objective + _ARMIJO * length * promised + slack:
                self._remember(there.plus(-1, here), changed.plus(-1, slope))
                self._potential = there.object
                return found
            length /= 2
        return None

    def _remember(self, s: _Vector, y: _Vector) -> None:
        """Keep a pair of positive curvature."""
        if s.dot(y) > 1e-8 * y.dot(y) ** 0.5 * s.dot(s) ** 0.5:
            self._pairs = [*self._pairs, (s, y)][-_PAIRS:]

    def _moved(self, state: State, there: _Vector) -> State:
        state = replace(state, object=transmission(there.object, state.object.dtype))
        return state if there.probe is None else state.with_probe(there.probe)

    def _constrained(self, value: Array, state: State, length: float) -> Array:
        return constrained(value, self.problem, state, self.settings, self._iteration, length)

    def _constrained_only(self, state: State) -> State:
        """Where the constraints themselves raise the loss they are taken as they are."""
        if not self.settings.regularisers:
            return state
        self._potential = self._constrained(self._potential, state, 1.0)
        return replace(state, object=transmission(self._potential, state.object.dtype))
