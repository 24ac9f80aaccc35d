"""Accelerated gradient descent with the Newton metric of a vacuum, and a spectral prior.

The object is exp(iφ − μ) (μ = 0 for a phase object). The gradient in φ is multiplied by (H + M)⁻¹, H the information of
`information.vacuum_information`, M the inverse of the expected power of the structure, so that all frequencies converge in a
few passes and those that the electrons say nothing about stay at zero. With all patterns in one batch the steps are
accelerated (Nesterov) and taken back when the loss rises (O'Donoghue and Candès, doi:10.1007/s10208-013-9150-3); with
several batches they are plain and shrink from pass to pass.

Standard shapes: potential (part, slice, Y, X) real with part 0 = φ and, for complex objects, part 1 = μ.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np

from ptycho.grid import Array, irfft2, rfft2, to_numpy
from ptycho.information import (
    canvas_radii,
    expected_spectrum,
    inverse_on_canvas,
    measured_power,
    vacuum_information,
)
from ptycho.problem import Gradients, Problem, State
from ptycho.settings import Settings

log = logging.getLogger(__name__)

_FLOOR = 0.02
_START_RAD2_A2 = 0.1
_PARTICLE_SHARE = 0.5
"""Of the scanned field: what is measured over all of it is denser by this where the atoms are."""
_ABSORPTION_SHARE = 0.1
_PROBE_STEP = 0.5


@dataclass(frozen=True, eq=False)
class _Metric:
    """Inverse curvature (part, slice, slice, Y, Xr) and inverse prior power (part, Y, Xr) on the canvas."""

    inverse: Array
    damping: Array


class GradientSolver:
    """One update per batch; `init`, then `step` for each batch, `end_iteration` after each pass."""

    def __init__(self, problem: Problem, settings: Settings) -> None:
        self.problem, self.settings = problem, settings

    def init(self, state: State) -> None:
        """Measure the metric and start without momentum."""
        self._information = self._vacuum(state)
        prior = self.settings.prior_rad2_A2
        self._metric = self._make_metric(state, _START_RAD2_A2 if prior == "auto" else prior)
        self._potential = self._earlier = _potential(state.object, self.settings.object_type)
        self._step, self._momentum, self._iteration = self.settings.step, 1.0, 0
        self._accepted: tuple[float, Array, Array] | None = None

    def step(self, state: State, ids: np.ndarray, probe: bool) -> tuple[State, Array]:
        """Update the object (and the probe) with the patterns `ids`; returns the new state and each pattern's loss."""
        everything = len(ids) == len(self.problem.counts)
        look = self._look_ahead() if everything else self._potential
        object_ = _transmission(look, state.object.dtype)
        gradients = self.problem.gradients(object_, state.probes, ids, probe=probe)
        share = 1.0 if everything else float(self.problem.illumination(state, ids).max()) / self._brightest
        direction, penalty = self._direction(object_, look, gradients, len(ids), share)
        if everything:
            self._accelerated(look, direction, float(gradients.loss.sum()) + penalty)
        else:
            self._potential = look - self._step / (1 + 0.5 * self._iteration) * direction
        state = replace(state, object=_transmission(self._potential, state.object.dtype))
        if gradients.probe is not None:
            scale = gradients.probe.real.dtype.type(_PROBE_STEP / len(ids))
            state = state.with_probe(state.probe - scale * gradients.probe)
        return state, gradients.loss

    def end_iteration(self, state: State) -> None:
        """After the second pass the prior takes its strength from the phase itself."""
        self._iteration += 1
        if self._iteration == 2 and self.settings.prior_rad2_A2 == "auto":
            strength = self._measure(state)
            log.info("power of the projected phase at low frequency: %.3g rad²Å²", strength)
            self._metric = self._make_metric(state, strength)
            self._accepted = None

    def _look_ahead(self) -> Array:
        following = (1 + np.sqrt(1 + 4 * self._momentum**2)) / 2
        share = self._potential.dtype.type((self._momentum - 1) / following)
        self._momentum = following
        return self._potential + share * (self._potential - self._earlier)

    def _accelerated(self, look: Array, direction: Array, objective: float) -> None:
        if self._accepted is not None and not objective <= self._accepted[0]:
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
        xp = look.__array_namespace__()
        product = object_.conj() * gradients.object
        parts = [2 * product.imag, -2 * product.real][: len(look)]
        spectrum = rfft2(xp.stack(parts), self.settings.threads)
        own = rfft2(look, self.settings.threads)
        pull = own * self._metric.damping[:, None]
        penalty = 0.5 * float((look * irfft2(pull, look.shape[-2:], self.settings.threads)).sum())
        spectrum += look.dtype.type(used / len(self.problem.counts)) * pull
        spectrum /= look.dtype.type(share)
        shaped = xp.einsum("pstyx,ptyx->psyx", self._metric.inverse, spectrum)
        return irfft2(shaped, look.shape[-2:], self.settings.threads), penalty

    def _vacuum(self, state: State) -> np.ndarray:
        """Information (part, q, slice, slice) of Poisson counts."""
        spectrum = to_numpy(state.probes.spectrum)
        self._brightest = float(self.problem.illumination(state, np.arange(len(self.problem.counts))).max())
        density = self._brightest / float((np.abs(spectrum) ** 2).sum())
        kernel = self.problem.multislice.kernel
        kernel = None if kernel is None else to_numpy(kernel)
        kinds = (False, True)[: 2 if self.settings.object_type == "complex" else 1]
        slices = len(state.object)
        return np.stack([vacuum_information(spectrum, kernel, slices, self.problem.offset, density, a) for a in kinds])

    def _make_metric(self, state: State, prior_rad2_A2: float | None) -> _Metric:
        xp = state.object.__array_namespace__()
        window, real = self.problem.window[0], state.object.real.dtype
        radii = canvas_radii(state.object.shape[-2:], window)
        slices, parts = len(state.object), range(len(self._information))
        self._prior = [slices * self._prior_curvature(np.arange(window), part, prior_rad2_A2) for part in parts]
        damping = np.stack([slices * self._prior_curvature(radii, part, prior_rad2_A2) for part in parts])
        floor = _FLOOR * self._information.max()
        each = zip(self._information, self._prior, strict=True)
        full = [h + (m + floor)[:, None, None] * np.eye(slices) for h, m in each]
        inverse = np.stack([inverse_on_canvas(h, radii) for h in full])
        curvature = self.problem.likelihood.curvature
        return _Metric(xp.asarray((inverse / curvature).astype(real)), xp.asarray((damping * curvature).astype(real)))

    def _prior_curvature(self, radii: np.ndarray, part: int, prior_rad2_A2: float | None) -> np.ndarray:
        """1 / expected power per coefficient at |q| = radii detector pixels; zero without a prior."""
        if prior_rad2_A2 is None:
            return np.zeros_like(radii, dtype=np.float64)
        pixel = self.problem.pixel_A
        power = prior_rad2_A2 / pixel**2 * (_ABSORPTION_SHARE if part else 1.0)
        return 1 / (power * expected_spectrum(radii / (self.problem.window[0] * pixel)))

    def _measure(self, state: State) -> float:
        """Power spectral density (rad²Å²) at low frequency of the phase in the scanned field."""
        pixel, window = self.problem.pixel_A, self.problem.window[0]
        phase = to_numpy(self._potential[0].sum(0))[state.probes.scan.field(self._potential.shape[-2:])]
        information = self._information[0].mean((1, 2))
        shrinkage = information / (information + self._prior[0] / len(state.object))
        highest = 1 / (2 * pixel)
        power = measured_power(phase, pixel, information, shrinkage, window, highest)
        return max(power * pixel**2 / _PARTICLE_SHARE, 0.1 * _START_RAD2_A2)


def _potential(object_: Array, object_type: str) -> Array:
    xp = object_.__array_namespace__()
    phase = xp.angle(object_)
    if object_type == "phase":
        return phase[None]
    return xp.stack([phase, -xp.log(xp.maximum(xp.abs(object_), 1e-3))])


def _transmission(potential: Array, dtype: np.dtype) -> Array:
    xp = potential.__array_namespace__()
    out = xp.empty(potential.shape[1:], dtype)
    out.real, out.imag = xp.cos(potential[0]), xp.sin(potential[0])
    if len(potential) == 2:
        out *= xp.exp(-potential[1])
    return out
