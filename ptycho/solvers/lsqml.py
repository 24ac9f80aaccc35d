"""Least-squares maximum likelihood: directions shared by a batch, their lengths from least squares.

A batch shares a direction for the object and, with it, one for the probe. Their lengths α and β minimise the weighted squares
Σ w (ΔI − α I'_O − β I'_P)² over the pixels of its patterns, with ΔI the wanted change of the intensity, I' the change along each
direction and w the information of a pixel: the second-order model of the likelihood, one 2 × 2 system. The paper fits instead
the exit waves, pattern by pattern, and averages; there the part of a change that no intensity shows counts as well, and steps
are many times too short for the low frequencies of a thin object (Odstrčil, Menzel and Guizar-Sicairos, doi:10.1364/OE.26.003108).

The direction of the object is its derivative over the illumination, turned into a step by `solvers.metric`. Steps shrink as 1 / k
with the number of updates k, so that the noise of single batches averages out. From pass to pass a share of the change is
carried on as far as it agrees with the change of the pass before.

Standard shapes: object (state, slice, Y, X), potential (part, state, slice, Y, X), waves (pattern, mode, y, x).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ptycho.data import as_slice
from ptycho.forward import Entering, Multislice
from ptycho.grid import Array, fft2, library_of, rfft2
from ptycho.likelihood import intensity
from ptycho.patches import multiply
from ptycho.problem import Problem, State, Waves
from ptycho.scan import Illumination
from ptycho.settings import Settings
from ptycho.solvers.metric import Metric, derivative
from ptycho.solvers.potential import constrained, potential, transmission

_SETTLED = 6
"""Updates of one place after which a constant step would follow the noise of single batches more than the structure."""
_NEIGHBOURS = 5
"""Compact groups that light one place in each pass, as long as there are so many."""
_FITTED = 0.25
"""Share of the patterns that the curvature along the directions is measured on."""
_RIDGE = 1e-3


@dataclass(frozen=True, eq=False)
class _Batch:
    """Loss of each pattern, ∂L/∂O*, ∂L/∂P* or None, and the waves of the patterns that the lengths are fitted to."""

    loss: Array
    object: Array
    probe: Array | None
    fitted: list[Waves]


class LsqmlSolver:
    """One update per batch; `init`, then `step` for each batch, `end_iteration` after each pass."""

    def __init__(self, problem: Problem, settings: Settings) -> None:
        self.problem, self.settings = problem, settings

    def init(self, state: State) -> None:
        """Measure the metric and start at rest."""
        self._metric = Metric(self.problem, self.settings, state)
        self._start = self._potential = potential(state.object, self.settings.object_type)
        self._velocity = self._change = self._potential * 0
        self._iteration, self._updates = 0, 0.0
        self._lit: tuple[object, object] | None = None
        self._left: Array = self._start.max() * 0
        self._begins = True

    def step(self, state: State, ids: np.ndarray, probe: bool) -> tuple[State, Array]:
        """Update the object (and the probe) with the patterns `ids`; returns the new state and each pattern's loss."""
        if self._begins:
            self._begin(state)
        batch = self._look(state, ids, probe)
        direction, slope = self._direction(state, batch.object, ids)
        probe_direction = None
        if batch.probe is not None:
            each = self.problem.likelihood.curvature * len(ids) * (1 + self.settings.delta_lsq)
            probe_direction = batch.probe * batch.probe.real.dtype.type(-0.5 / each)
        alpha, beta = self._lengths(state, batch, direction, slope, probe_direction, len(ids))
        relaxation = direction.dtype.type(self.settings.beta_lsq / (1 + self._updates / _SETTLED))
        compact = self.settings.batching == "compact"
        self._updates += min(1.0, _NEIGHBOURS * len(ids) / len(self.problem.training)) if compact else 1.0
        self._left = self._left * (1 - relaxation * alpha)
        self._potential = self._potential + relaxation * alpha * direction
        state = replace(state, object=transmission(self._potential, state.object.dtype))
        if probe_direction is not None:
            state = state.with_probe(state.probe + relaxation * beta * probe_direction)
        return state, batch.loss

    def end_iteration(self, state: State) -> State:
        """Carry the change of the pass on and apply the constraints."""
        if self.settings.momentum:
            self._carry_on()
        # What a pass leaves of a distance from the optimum tells how long its steps were together.
        length = min(max(1 - float(self._left), 0.0), 1.0) if self.settings.regularisers else 1.0
        self._potential = constrained(self._potential, self.problem, state, self.settings, self._iteration, length)
        self._iteration += 1
        self._metric.adapt(state, self._potential, self._iteration)
        self._start, self._begins = self._potential, True
        return replace(state, object=transmission(self._potential, state.object.dtype))

    def expected_noise(self, state: State) -> Array | None:
        """Noise left by the information of the patterns and the damping of the prior."""
        return self._metric.expected_noise()

    def memory(self, state: State) -> dict[str, Array | float]:
        """Everything a later run needs to go on as if there had been no break."""
        return {
            "potential": self._potential,
            "velocity": self._velocity,
            "change": self._change,
            "iteration": self._iteration,
            "updates": self._updates,
        } | self._metric.memory()

    def recall(self, state: State, held: Mapping[str, Any]) -> None:
        """Take up what `memory` held."""
        self._metric = Metric(self.problem, self.settings, state, held)
        self._start = self._potential = held["potential"]
        self._velocity, self._change = held["velocity"], held["change"]
        self._iteration, self._updates = int(held["iteration"]), float(held["updates"])
        self._lit, self._begins = None, True

    def _begin(self, state: State) -> None:
        """A pass starts: illumination of the object relative to its strongest, measured where it is another than before."""
        lit = state.illumination, state.scales
        if self._lit is None or any(a is not b for a, b in zip(lit, self._lit, strict=True)):
            light = self.problem.illuminated(state, self.problem.training)
            self._lit, self._light = lit, light / light.max()
        self._left = self._light.max()
        self._begins = False

    def _look(self, state: State, ids: np.ndarray, probe: bool) -> _Batch:
        """Loss and derivatives of a batch; as `Problem.gradients`, but the waves of some patterns are kept."""
        xp = library_of(state.object)
        gradient = xp.zeros_like(state.object)
        probe_gradient = xp.zeros_like(state.probe) if probe else None
        losses, fitted = [], []
        for part in self.problem.chunks(ids, state.probe):
            waves = self.problem.forward(state, part)
            fitted.append(_first(waves, math.ceil(_FITTED * len(part))))
            losses.append(self.problem.residual(state, waves))
            back = self.problem.adjoint(state, waves, state.object, gradient, probe)
            if probe_gradient is not None:
                probe_gradient += state.illumination.adjoint(part, back)
        return _Batch(xp.concatenate(losses), gradient, probe_gradient, fitted)

    def _direction(self, state: State, gradient: Array, ids: np.ndarray) -> tuple[Array, Array]:
        """Direction of the potential in units of the Newton step for the patterns `ids`, and the slope of the loss along it."""
        compact, used = self.settings.batching == "compact", len(ids)
        # Of the light of all patterns: compact groups have all of it where they are.
        share = 1.0 if compact else used / len(self.problem.training)
        slope = derivative(state.object, gradient, len(self._potential))
        real = slope.dtype.type
        weight = real((1 + self.settings.delta_lsq) / share) / (self._light + real(self.settings.delta_lsq))
        spectrum = rfft2(slope * weight, self.settings.threads)
        spectrum += real(used / len(self.problem.training) / share) * self._metric.pull(self._potential)
        direction = -self._metric.shaped(spectrum)
        if compact:
            # The metric reaches farther than the group's light, where nothing of this batch would hold it back.
            light = self.problem.illuminated(state, ids)
            direction *= light / (light + real(self.settings.delta_lsq) * light.max())
        return direction, (direction * slope).sum()

    def _lengths(
        self, state: State, batch: _Batch, direction: Array, slope: Array, probe_direction: Array | None, used: int
    ) -> tuple[Array, Array | None]:
        """α and β of the batch of `used` patterns."""
        turned = state.object * (1j * direction[0] if len(direction) == 1 else 1j * direction[0] - direction[1])
        turned = turned.astype(state.object.dtype)
        shifted = None
        if probe_direction is not None:
            shifted = Illumination(state.illumination.scan, probe_direction, self.settings.threads)
        sums = sum(self._products(state, waves, turned, shifted) for waves in batch.fitted)
        sums = sums * sums.dtype.type(used / sum(len(waves.ids) for waves in batch.fitted))
        xp, tiny = library_of(sums), np.finfo(sums.dtype).tiny
        aa, ab, bb = sums
        if probe_direction is None or batch.probe is None:
            return xp.maximum(-slope / (aa + tiny), 0), None
        other = 2 * (probe_direction.conj() * batch.probe).real.sum()
        determinant = xp.maximum(aa * bb - ab * ab, _RIDGE * aa * bb) + tiny
        return xp.maximum((ab * other - bb * slope) / determinant, 0), (ab * slope - aa * other) / determinant

    def _products(self, state: State, waves: Waves, turned: Array, shifted: Illumination | None) -> Array:
        """Σ w I'_O², Σ w I'_O I'_P and Σ w I'_P² of some patterns."""
        xp, rows = library_of(turned), as_slice(waves.ids)
        scale, background = (None if a is None else a[rows] for a in (state.scales, state.backgrounds))
        weight = self.problem.likelihood.information(intensity(waves.detector, scale, background), self.problem.offset)
        if self.problem.counts.mask is not None:
            weight = weight * self.problem.counts.mask
        if scale is not None:
            weight = weight * (scale * scale)[:, None, None].astype(weight.dtype)
        behind = [self._behind(state, s, waves, entering, turned[s]) for s, entering in enumerate(waves.entering)]
        moved = _rate(waves.detector, behind, self.settings.threads)
        first = xp.vdot(weight * moved, moved)
        if shifted is None:
            return xp.stack([first, first * 0, first * 0])
        incoming, index, _ = shifted.take(waves.ids)
        behind = [self._behind(state, s, waves, [(incoming, index)], None) for s in range(len(waves.entering))]
        other = _rate(waves.detector, behind, self.settings.threads)
        weighted = weight * other
        return xp.stack([first, xp.vdot(weighted, moved), xp.vdot(weighted, other)])

    def _behind(self, state: State, s: int, waves: Waves, entering: Entering, turned: Array | None) -> Array:
        """First-order change of the wave behind the last slice of state `s`: from a change `turned` of the object, or with None
        from a change of the probe that enters."""
        model = Multislice(state.space, self.settings.threads)
        slices = state.object[s]
        total = multiply(*entering[0], slices[0] if turned is None else turned[0], waves.corners)
        for gap, slice_ in enumerate(slices[1:]):
            total = multiply(model.propagate(total, gap, waves.ids), None, slice_, waves.corners)
            if turned is not None:
                total += multiply(*entering[gap + 1], turned[gap + 1], waves.corners)
        return total

    def _carry_on(self) -> None:
        """Heavy ball from pass to pass: the share `momentum` of the last changes, as far as two successive passes agree."""
        xp = library_of(self._potential)
        change = self._potential - self._start
        norms = xp.sqrt((change * change).sum() * (self._change * self._change).sum())
        agreement = xp.maximum((change * self._change).sum() / (norms + np.finfo(change.dtype).tiny), 0)
        self._velocity = change.dtype.type(self.settings.momentum) * agreement * (self._velocity + change)
        self._potential, self._change = self._potential + self._velocity, change


def _first(waves: Waves, count: int) -> Waves:
    """The first patterns of a chunk, in memory of their own."""
    entering = [
        [(w[:count].copy(), None) if index is None else (w, index[:count]) for w, index in one]
        for one in waves.entering
    ]
    return Waves(waves.ids[:count], waves.corners[:count], entering, waves.detector[:count].copy())


def _rate(detector: Array, behind: list[Array], threads: int) -> Array:
    """Change (pattern, ky, kx) of Σ |Ψ|² by a change of the waves behind the last slice, one for each state of the object."""
    xp = library_of(detector)
    waves = [fft2(wave, threads) for wave in behind]
    change = waves[0] if len(waves) == 1 else xp.concatenate(waves, axis=1)
    product = detector.view(detector.real.dtype) * change.view(change.real.dtype)
    summed = product[:, 0] if product.shape[1] == 1 else product.sum(1)
    return product.dtype.type(2 / math.sqrt(len(waves))) * (summed[..., 0::2] + summed[..., 1::2])
