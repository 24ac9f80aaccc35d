"""Free space between the slices of a specimen that may be tilted against the beam.

From one slice to the next, a distance d further, the spectrum of the wave is multiplied by

    exp(−iπλdk²) · exp(2πi d k·tan τ)

with τ the tilt (y, x) of the specimen: columns along its own axis then stay at one place in all slices. The tilt may be the
same for all patterns, where it becomes part of the kernel, or differ from pattern to pattern, where it is a separable ramp.

Standard shapes: spectra (pattern, mode, ky, kx) with zero frequency at [0, 0], gaps (slice − 1,), tilts (1 or n, 2).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ptycho.freespace import through_free_space
from ptycho.grid import Array, frequencies
from ptycho.optics import propagator


@dataclass(frozen=True, eq=False)
class FreeSpace:
    """Distances between slices and the tilt of the specimen, ready to multiply spectra.

    gaps_A: (slice − 1,) float64. tilts_mrad: (1, 2) for all patterns or (n, 2), as (y, x). dtype: of the waves.
    """

    gaps_A: np.ndarray
    tilts_mrad: np.ndarray
    window: tuple[int, int]
    pixel_A: float
    wavelength_A: float
    xp: Any = np
    dtype: Any = np.complex64
    _kernels: dict[float, Array] = field(init=False, repr=False, default_factory=dict)

    def kernel(self, gap: int) -> Array:
        """Multiplier (ky, kx) of all patterns behind slice `gap`."""
        distance = float(self.gaps_A[gap])
        if distance not in self._kernels:
            pixel = (self.pixel_A, self.pixel_A)
            kernel = propagator(self.window, pixel, distance, self.wavelength_A)
            if not self.varies:
                y, x = self._ramps(distance, slice(None))
                kernel = kernel * y[0] * x[0]
            self._kernels[distance] = self.xp.asarray(kernel.astype(self.dtype))
        return self._kernels[distance]

    @property
    def varies(self) -> bool:
        """Whether the tilt differs from pattern to pattern."""
        return len(self.tilts_mrad) > 1

    def apply(self, spectrum: Array, gap: int, ids: np.ndarray) -> Array:
        """Carry spectra in place from slice `gap` to the next."""
        return through_free_space(spectrum, self.kernel(gap), self._own_ramps(gap, ids))

    def apply_adjoint(self, spectrum: Array, gap: int, ids: np.ndarray) -> Array:
        """Adjoint and inverse of `apply`, in place."""
        return through_free_space(spectrum, self.kernel(gap), self._own_ramps(gap, ids), conjugate=True)

    def _own_ramps(self, gap: int, ids: np.ndarray) -> tuple[Array, Array] | None:
        """Ramps (pattern, ky) and (pattern, kx) of the patterns' own tilts, None where they share one."""
        if not self.varies:
            return None
        y, x = self._ramps(float(self.gaps_A[gap]), ids)
        return self.xp.asarray(y[:, :, 0].astype(self.dtype)), self.xp.asarray(x[:, 0, :].astype(self.dtype))

    def _ramps(self, distance_A: float, ids: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray]:
        """Ramps (pattern, ky, 1) and (pattern, 1, kx) of the tilts."""
        slope = distance_A * np.tan(self.tilts_mrad[ids] * 1e-3)
        ky, kx = self.axes
        y = np.exp(2j * np.pi * slope[:, 0, None, None] * ky)
        return y, np.exp(2j * np.pi * slope[:, 1, None, None] * kx)

    @property
    def axes(self) -> tuple[np.ndarray, np.ndarray]:
        """Spatial frequencies (ky, 1) and (1, kx) in 1/Å."""
        ky, kx = (frequencies(n) / self.pixel_A for n in self.window)
        return ky[:, None], kx[None, :]

    def rates(self, gap: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Derivatives (ky, kx) of the multiplier's phase in the gap (per Å) and in the tilt (per mrad, y and x), at the
        mean tilt."""
        ky, kx = self.axes
        tangent = np.tan(self.tilts_mrad.mean(0) * 1e-3)
        per_A = -np.pi * self.wavelength_A * (ky**2 + kx**2) + 2 * np.pi * (ky * tangent[0] + kx * tangent[1])
        turn = 2e-3 * np.pi * float(self.gaps_A[gap]) * (1 + tangent**2)
        flat = np.zeros(self.window)
        return per_A, turn[0] * ky + flat, turn[1] * kx + flat
