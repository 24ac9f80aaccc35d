"""The Newton metric of a vacuum with a spectral prior: what turns the derivative in the potential into a step.

The derivative is multiplied by (H + M)⁻¹, H the information of `information.vacuum_information`, M the inverse of the expected
power of the structure: all frequencies then converge alike, and those that the electrons say nothing about stay at zero.

Standard shapes: potential (part, state, slice, Y, X) real with part 0 = φ and, for complex objects, part 1 = μ; spectra
(part, state, slice, Y, X // 2 + 1).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from ptycho.grid import Array, irfft2, library_of, rfft2, to_numpy
from ptycho.information import (
    canvas_radii,
    expected_spectrum,
    inverse_on_canvas,
    measured_power,
    vacuum_information,
)
from ptycho.problem import Problem, State
from ptycho.settings import Settings

_FLOOR = 0.02
_START_RAD2_A2 = 0.1
_PARTICLE_SHARE = 0.5
"""Of the scanned field: what is measured over all of it is denser by this where the atoms are."""
_ABSORPTION_SHARE = 0.1
_ADAPTS_AFTER = 2
PROBE_STEP = 0.5
"""Step of a probe against its derivative per pattern: its Newton step while the object is thin."""
REGULARISED_SLACK = 1.02
"""A regulariser may raise the loss by this much without being taken for a step that is too long."""

log = logging.getLogger(__name__)


class Metric:
    """Inverse curvature (part, slice, slice, Y, Xr) and inverse prior power (part, Y, Xr) on the canvas of one problem.

    `brightest` is the strongest illumination Σ s_i |P_i|² of the object, `strength` that of the prior in rad²Å² or None.
    """

    def __init__(
        self, problem: Problem, settings: Settings, state: State, held: Mapping[str, Any] | None = None
    ) -> None:
        self.problem, self.settings = problem, settings
        self._shape, self._real = state.object.shape, state.object.real.dtype
        self._xp = library_of(state.object)
        if held is not None:
            self.brightest, self._information = float(held["brightest"]), to_numpy(held["information"])
            strength = float(held["prior"])
            self._use_prior(None if np.isnan(strength) else strength)
            return
        self._information = self._vacuum(state)
        prior = settings.prior_rad2_A2
        self._use_prior(_START_RAD2_A2 if prior == "auto" else prior)

    def memory(self) -> dict[str, Array | float]:
        """What makes the same metric again."""
        prior = np.nan if self.strength is None else self.strength
        return {"prior": prior, "brightest": self.brightest, "information": self._information}

    def pull(self, value: Array) -> Array:
        """Derivative of the prior at a potential, as a spectrum."""
        return rfft2(value, self.settings.threads) * self._damping[:, None, None]

    def penalty(self, value: Array) -> tuple[float, Array]:
        """The prior's part of the objective, and its derivative as a spectrum."""
        spectrum = self.pull(value)
        return 0.5 * float((value * irfft2(spectrum, value.shape[-2:], self.settings.threads)).sum()), spectrum

    def shaped(self, spectrum: Array) -> Array:
        """Newton step (part, state, slice, Y, X) for the spectrum of a derivative."""
        product = self._xp.einsum("pstyx,potyx->posyx", self._inverse, spectrum)
        return irfft2(product, self._shape[-2:], self.settings.threads)

    def expected_noise(self) -> Array:
        """Standard deviation (slice, Y, X // 2 + 1) of the noise that counting leaves in the unitary Fourier coefficients of
        the phase, at the optimum of likelihood and prior."""
        information = self._information[0]
        weight = (self._prior[0] + 1e-9 * information.max())[:, None, None] * np.eye(information.shape[1])
        damped = np.linalg.inv(information + weight)
        deviation = np.sqrt(np.einsum("qst,qtu,qus->sq", damped, information, damped))
        radii = canvas_radii(self._shape[-2:], self.problem.counts.window[0])
        return self._xp.stack([self._xp.asarray(np.interp(radii, np.arange(len(d)), d), self._real) for d in deviation])

    def _vacuum(self, state: State) -> np.ndarray:
        """Information (part, q, slice, slice) of the counts, in units of the likelihood's curvature."""
        spectrum = to_numpy(state.illumination.spectrum)
        self.brightest = float(self.problem.illuminated(state, self.problem.training).max())
        bright = (np.abs(spectrum) ** 2).sum(0).astype(np.float64)
        weight = self.problem.likelihood.information(bright, self.problem.offset) / self.problem.likelihood.curvature
        weight *= self.brightest / bright.sum()
        planes = [spectrum]
        for gap in range(self._shape[1] - 1):
            planes.append(planes[-1] * to_numpy(state.space.kernel(gap)))
        kinds = (False, True)[: 2 if self.settings.object_type == "complex" else 1]
        return np.stack([vacuum_information(np.stack(planes), weight, a) for a in kinds])

    def _use_prior(self, prior_rad2_A2: float | None) -> None:
        """Take a prior of this strength; the states of a mixed object share information and prior."""
        self.strength = prior_rad2_A2
        window = self.problem.counts.window[0]
        radii = canvas_radii(self._shape[-2:], window)
        states, slices = self._shape[:2]
        parts = range(len(self._information))
        self._prior = [slices * self._prior_curvature(np.arange(window), part) for part in parts]
        damping = np.stack([slices * self._prior_curvature(radii, part) for part in parts]) / states
        floor = _FLOOR * self._information.max()
        each = zip(self._information, self._prior, strict=True)
        full = [h + (m + floor)[:, None, None] * np.eye(slices) for h, m in each]
        inverse = states * np.stack([inverse_on_canvas(h, radii) for h in full])
        curvature = self.problem.likelihood.curvature
        self._inverse = self._xp.asarray((inverse / curvature).astype(self._real))
        self._damping = self._xp.asarray((damping * curvature).astype(self._real))

    def _prior_curvature(self, radii: np.ndarray, part: int) -> np.ndarray:
        """1 / expected power per coefficient at |q| = radii detector pixels; zero without a prior."""
        if self.strength is None:
            return np.zeros_like(radii, dtype=np.float64)
        pixel = self.problem.pixel_A
        power = self.strength / pixel**2 * (_ABSORPTION_SHARE if part else 1.0)
        return 1 / (power * expected_spectrum(radii / (self.problem.counts.window[0] * pixel)))

    def adapt(self, state: State, value: Array, iteration: int) -> bool:
        """After the second pass an "auto" prior takes its strength from the potential `value`; whether it just did."""
        if iteration != _ADAPTS_AFTER or self.settings.prior_rad2_A2 != "auto":
            return False
        strength = self._measured(state, value)
        log.info("power of the projected phase at low frequency: %.3g rad²Å²", strength)
        self._use_prior(strength)
        return True

    def _measured(self, state: State, value: Array) -> float:
        """Power spectral density (rad²Å²) at low frequency of the phase in the scanned field."""
        pixel, window = self.problem.pixel_A, self.problem.counts.window[0]
        field = state.illumination.scan.field(self._shape[-2:])
        phase = to_numpy(value[0].mean(0).sum(0))[field]
        information = self._information[0].mean((1, 2))
        shrinkage = information / (information + self._prior[0] / self._shape[1])
        highest = 1 / (2 * pixel)
        power = measured_power(phase, pixel, information, shrinkage, window, highest)
        return max(power * pixel**2 / _PARTICLE_SHARE, 0.1 * _START_RAD2_A2)


def derivative(object_: Array, gradient: Array, parts: int) -> Array:
    """∂L/∂(φ, μ) (part, state, slice, Y, X) from ∂L/∂O* (state, slice, Y, X)."""
    product = object_.conj() * gradient
    return library_of(object_).stack([2 * product.imag, -2 * product.real][:parts])
