"""Probe positions: whole pixels go to the window of the object, the remainder shifts the probe in Fourier space.

Patterns with the same remainder share one shifted probe: a regular scan has few of them, and while the probe is held fixed
they are made once. A probe that varies from pattern to pattern (orthogonal probe relaxation, Odstrcil et al.,
doi:10.1364/OE.24.008360) is made for each of them. The derivative with respect to a position is that of the phase ramp
exp(−2πi k·f).

Standard shapes: positions_px (n, 2) (y, x) about coordinate 0, probe (mode, y, x), shifted probes (u, mode, y, x).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptycho.data import as_slice
from ptycho.grid import Array, fft2, frequencies, ifft2, library_of

CACHE_BYTES = 64 << 20
_MARGIN_PX = 4


def canvas_shape(positions_px: np.ndarray, window: tuple[int, int]) -> tuple[int, int]:
    """Smallest object (Y, X), with index n // 2 at coordinate 0, that holds every window with a margin of 4 px."""
    reach = np.ceil(np.abs(positions_px).max(0)).astype(int) + _MARGIN_PX
    return int(2 * reach[0] + window[0] + 2), int(2 * reach[1] + window[1] + 2)


class Scan:
    """Where each pattern's window lies and how the probe is shifted inside it.

    positions_px: (n, 2) float64 (y, x). Raises ValueError when a window leaves the canvas.
    """

    def __init__(self, positions_px: np.ndarray, canvas: tuple[int, int], window: tuple[int, int]) -> None:
        whole = np.rint(positions_px).astype(np.int64)
        corners = whole + np.array(canvas) // 2 - np.array(window) // 2
        if (corners < 0).any() or (corners + window > canvas).any():
            raise ValueError(
                f"positions reach {np.abs(positions_px).max():.1f} px from the centre, outside an object of {canvas} px "
                f"with windows of {window} px; give a larger object."
            )
        self.positions_px, self.window = positions_px, window
        self.corners = corners.astype(np.int32)
        fractions, inverse = np.unique(np.round(positions_px - whole, 6), axis=0, return_inverse=True)
        self.fractions, self.index = fractions, inverse.reshape(-1).astype(np.int32)
        self.frequencies = frequencies(window[0])[:, None], frequencies(window[1])[None, :]
        self._on_device: tuple[Array, Array] | None = None

    def on(self, xp: Any) -> tuple[Array, Array]:
        """Corners (n, 2) and index (n,) on the device, copied there once."""
        if xp is np:
            return self.corners, self.index
        if self._on_device is None:
            self._on_device = xp.asarray(self.corners), xp.asarray(self.index)
        return self._on_device

    def ramps(self, unique: np.ndarray, like: Array) -> Array:
        """exp(−2πi k·f) of the chosen fractions: (u, 1, ky, kx), in the dtype and on the device of `like`."""
        ky, kx = self.frequencies
        y, x = (np.exp(-2j * np.pi * self.fractions[unique, a, None, None] * k) for a, k in enumerate((ky, kx)))
        xp = library_of(like)
        return xp.asarray(y.astype(like.dtype))[:, None] * xp.asarray(x.astype(like.dtype))[:, None]

    def field(self, canvas: tuple[int, int]) -> tuple[slice, slice]:
        """Rectangle of the object between the outermost positions, grown to be symmetric about index n // 2."""
        reach = np.maximum(np.floor(np.abs(self.positions_px).max(0)).astype(int), 1)
        y, x = (slice(n // 2 - r, n // 2 + r + 1) for n, r in zip(canvas, reach.tolist(), strict=True))
        return y, x


@dataclass(frozen=True, eq=False)
class Variations:
    """How the first probe mode changes from pattern to pattern: P_i = P + Σ_v c_iv V_v.

    modes: (variation, y, x) complex, orthonormal, centred like the probe. coefficients: (n, variation) complex.
    """

    modes: Array
    coefficients: Array


class Illumination:
    """The probe of every pattern: shifted to its sub-pixel position and, with `variations`, of its own shape."""

    def __init__(self, scan: Scan, probe: Array, threads: int = 1, variations: Variations | None = None) -> None:
        self.scan, self.probe, self.threads, self.variations = scan, probe, threads, variations
        self.spectrum = fft2(probe.copy(), threads)
        self._shared: Array | None = None
        self._own = None if variations is None else fft2(variations.modes.copy(), threads)
        few = len(scan.fractions) * probe.nbytes <= CACHE_BYTES and 2 * len(scan.fractions) <= len(scan.index)
        if few and variations is None:
            self._shared = self._shift(self.spectrum[None], np.arange(len(scan.fractions)))

    def with_probe(self, probe: Array) -> Illumination:
        """The same scan and variations with another probe."""
        return Illumination(self.scan, probe, self.threads, self.variations)

    def with_variations(self, variations: Variations | None) -> Illumination:
        """The same scan and probe with other variations."""
        return Illumination(self.scan, self.probe, self.threads, variations)

    def with_positions(self, positions_px: np.ndarray, canvas: tuple[int, int]) -> Illumination:
        """The same probe at other positions (n, 2) in px."""
        scan = Scan(positions_px, canvas, self.scan.window)
        return Illumination(scan, self.probe, self.threads, self.variations)

    def _shift(self, spectra: Array, unique: np.ndarray) -> Array:
        return ifft2(spectra * self.scan.ramps(unique, self.spectrum), self.threads)

    def _spectra(self, ids: np.ndarray) -> Array:
        """Unshifted spectra of the probes of the patterns `ids`: (pattern or 1, mode, ky, kx)."""
        if self.variations is None or self._own is None:
            return self.spectrum[None]
        xp = library_of(self.spectrum)
        spectra = xp.repeat(self.spectrum[None], len(ids), axis=0)
        spectra[:, 0] += xp.tensordot(self.variations.coefficients[ids], self._own, axes=1)
        return spectra

    def take(self, ids: np.ndarray) -> tuple[Array, Array, Array]:
        """Probes (u, mode, y, x), index (pattern,) into them, and corners (pattern, 2), for the patterns `ids`."""
        xp = library_of(self.spectrum)
        rows = as_slice(ids)
        corners, all_of = self.scan.on(xp)
        if self._shared is not None:
            return self._shared, all_of[rows], corners[rows]
        if self.variations is not None:
            index = xp.arange(len(ids), dtype="int32")
            return self._shift(self._spectra(ids), self.scan.index[ids]), index, corners[rows]
        unique, index = np.unique(self.scan.index[ids], return_inverse=True)
        shifted = self._shift(self.spectrum[None], unique)
        return shifted, xp.asarray(index.astype(np.int32)), corners[rows]

    def adjoint(self, ids: np.ndarray, gradients: Array) -> Array:
        """∂L/∂P* (mode, y, x) from the gradients (pattern, mode, y, x) at the shifted probes."""
        unique, index = np.unique(self.scan.index[ids], return_inverse=True)
        xp = library_of(gradients)
        if len(unique) == len(ids):
            sums = gradients[np.argsort(index)]
        else:
            sums = xp.stack([gradients[np.flatnonzero(index == u)].sum(0) for u in range(len(unique))])
        spectra = fft2(sums, self.threads)
        spectra *= self.scan.ramps(unique, self.spectrum).conj()
        return ifft2(spectra.sum(0), self.threads)

    def back_shifted(self, ids: np.ndarray, gradients: Array) -> Array:
        """Gradients (pattern, y, x) at the shifted first modes, each moved back to the place of the unshifted probe."""
        spectra = fft2(gradients, self.threads)
        spectra *= self.scan.ramps(self.scan.index[ids], self.spectrum)[:, 0].conj()
        return ifft2(spectra, self.threads)

    def turned(self, ids: np.ndarray, phases: Sequence[Array]) -> list[Array]:
        """i·phase applied to the spectra of the shifted probes of the patterns `ids`, one (pattern, mode, y, x) for each
        phase (ky, kx): the derivatives of the probes with respect to whatever turns their spectrum at that rate."""
        spectrum = self._spectra(ids) * self.scan.ramps(self.scan.index[ids], self.spectrum)
        return [ifft2(spectrum * (1j * phase).astype(spectrum.dtype), self.threads) for phase in phases]
