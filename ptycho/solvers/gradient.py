"""Accelerated gradient descent with the Newton metric of a vacuum, and a spectral prior.

The object is exp(iφ − μ) (μ = 0 for a phase object). The gradient in φ is multiplied by the inverse curvature of
`solvers.metric`. With all patterns in one batch the steps are accelerated (Nesterov) and taken back when the loss rises
(O'Donoghue and Candès, doi:10.1007/s10208-013-9150-3); with several batches they are plain and shrink from pass to pass.

Standard shapes: potential (part, state, slice, Y, X) real with part 0 = φ and, for complex objects, part 1 = μ.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ptycho.grid import Array, rfft2
from ptycho.problem import Gradients, Problem, State
from ptycho.settings import Settings
from ptycho.solvers.metric import PROBE_STEP, REGULARISED_SLACK, Metric, derivative
from ptycho.solvers.potential import constrained, potential, transmission

log = logging.getLogger(__name__)


class GradientSolver:
    """One update per batch; `init`, then `step` for each batch, `end_iteration` after each pass."""

    def __init__(self, problem: Problem, settings: Settings) -> None:
        self.problem, self.settings = problem, settings

    def init(self, state: State) -> None:
        """Measure the metric and start without momentum."""
        self._metric = Metric(self.problem, self.settings, state)
        self._potential = self._earlier = potential(state.object, self.settings.object_type)
        self._step, self._momentum, self._iteration = self.settings.step, 1.0, 0
        self._accepted: tuple[float, Array, Array] | None = None

    def step(self, state: State, ids: np.ndarray, probe: bool) -> tuple[State, Array]:
        """Update the object (and the probe) with the patterns `ids`; returns the new state and each pattern's loss."""
        everything = len(ids) == len(self.problem.training)
        look = self._look_ahead() if everything else self._potential
        object_ = transmission(look, state.object.dtype)
        gradients = self.problem.gradients(state, ids, object_, probe=probe)
        share = 1.0 if everything else float(self.problem.illuminated(state, ids).max()) / self._metric.brightest
        direction, penalty = self._direction(object_, look, gradients, len(ids), share)
        if everything:
            self._accelerated(look, direction, float(gradients.loss.sum()) + penalty)
            self._potential = self._constrained(self._potential, state)
        else:
            self._potential = look - self._step / (1 + 0.5 * self._iteration) * direction
        state = replace(state, object=transmission(self._potential, state.object.dtype))
        if gradients.probe is not None:
            scale = gradients.probe.real.dtype.type(PROBE_STEP / len(ids))
            state = state.with_probe(state.probe - scale * gradients.probe)
        return state, gradients.loss

    def end_iteration(self, state: State) -> State:
        """After the second pass the prior takes its strength from the phase itself."""
        batches = self.settings.patterns_per_batch
        if batches is not None and batches < len(self.problem.training) and self.settings.regularisers:
            self._potential = self._constrained(self._potential, state)
            state = replace(state, object=transmission(self._potential, state.object.dtype))
        self._iteration += 1
        if self._metric.adapt(state, self._potential, self._iteration):
            self._accepted = None
        return state

    def expected_noise(self, state: State) -> Array | None:
        """Noise left by the information of the patterns and the damping of the prior."""
        return self._metric.expected_noise()

    def memory(self, state: State) -> dict[str, Array | float]:
        """Everything a later run needs to go on as if there had been no break."""
        held: dict[str, Array | float] = {
            "potential": self._potential,
            "earlier": self._earlier,
            "step": self._step,
            "momentum": self._momentum,
            "iteration": self._iteration,
        }
        if self._accepted is not None:
            held |= dict(zip(("objective", "look", "direction"), self._accepted, strict=True))
        return held | self._metric.memory()

    def recall(self, state: State, held: Mapping[str, Any]) -> None:
        """Take up what `memory` held."""
        self._metric = Metric(self.problem, self.settings, state, held)
        self._potential, self._earlier = held["potential"], held["earlier"]
        self._step, self._momentum = float(held["step"]), float(held["momentum"])
        self._iteration = int(held["iteration"])
        self._accepted = None
        if "objective" in held:
            self._accepted = float(held["objective"]), held["look"], held["direction"]

    def _constrained(self, value: Array, state: State) -> Array:
        return constrained(value, self.problem, state, self.settings, self._iteration, self._step)

    def _look_ahead(self) -> Array:
        following = (1 + np.sqrt(1 + 4 * self._momentum**2)) / 2
        share = self._potential.dtype.type((self._momentum - 1) / following)
        self._momentum = following
        return self._potential + share * (self._potential - self._earlier)

    def _accelerated(self, look: Array, direction: Array, objective: float) -> None:
        slack = REGULARISED_SLACK if self.settings.regularisers else 1.0
        if self._accepted is not None and not objective <= slack * self._accepted[0]:
            log.info("the loss rose: step halved to %.3g, momentum dropped", self._step / 2)
            self._step, self._momentum = self._step / 2, 1.0
            objective, look, direction = self._accepted
        self._accepted = (objective, look, direction)
        step = look.dtype.type(self._step)
        self._earlier, self._potential = self._potential, look - step * direction

    def _direction(
        self, object_: Array, look: Array, gradients: Gradients, used: int, share: float
    ) -> tuple[Array, float]:
        """Preconditioned derivative of loss + prior, and the prior's part of the objective.

        `used` patterns light the object at most `share` as strongly as all of them do: their curvature is that much
        smaller, while the prior counts for them in proportion to their number.
        """
        spectrum = rfft2(derivative(object_, gradients.object, len(look)), self.settings.threads)
        penalty, pull = self._metric.penalty(look)
        spectrum += look.dtype.type(used / len(self.problem.training)) * pull
        spectrum /= look.dtype.type(share)
        return self._metric.shaped(spectrum), penalty
