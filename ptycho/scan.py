"""Probe positions: whole pixels go to the window of the object, the remainder shifts the probe in Fourier space.

Patterns with the same remainder share one shifted probe: a regular scan has few of them, and while the probe is held fixed
they are made once. The derivative with respect to a position is that of the phase ramp exp(−2πi k·f).

Standard shapes: positions_px (n, 2) (y, x) about coordinate 0, probe (mode, y, x), shifted probes (u, mode, y, x).
"""

from __future__ import annotations

import numpy as np

from ptycho.grid import Array, fft2, frequencies, ifft2

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

    def ramps(self, unique: np.ndarray, like: Array) -> Array:
        """exp(−2πi k·f) of the chosen fractions: (u, 1, ky, kx), in the dtype and on the device of `like`."""
        ky, kx = self.frequencies
        y, x = (np.exp(-2j * np.pi * self.fractions[unique, a, None, None] * k) for a, k in enumerate((ky, kx)))
        xp = like.__array_namespace__()
        return xp.asarray(y.astype(like.dtype))[:, None] * xp.asarray(x.astype(like.dtype))[:, None]

    def field(self, canvas: tuple[int, int]) -> tuple[slice, slice]:
        """Rectangle of the object between the outermost positions, grown to be symmetric about index n // 2."""
        reach = np.maximum(np.floor(np.abs(self.positions_px).max(0)).astype(int), 1)
        y, x = (slice(n // 2 - r, n // 2 + r + 1) for n, r in zip(canvas, reach.tolist(), strict=True))
        return y, x


class ShiftedProbes:
    """One probe shifted to the sub-pixel positions of a scan."""

    def __init__(self, scan: Scan, probe: Array, threads: int = 1) -> None:
        self.scan, self.threads = scan, threads
        self.spectrum = fft2(probe.copy(), threads)
        self._all: Array | None = None
        if len(scan.fractions) * probe.nbytes <= CACHE_BYTES and 2 * len(scan.fractions) <= len(scan.index):
            self._all = self._shift(np.arange(len(scan.fractions)))

    def _shift(self, unique: np.ndarray) -> Array:
        return ifft2(self.spectrum * self.scan.ramps(unique, self.spectrum), self.threads)

    def take(self, ids: np.ndarray) -> tuple[Array, Array, Array]:
        """Probes (u, mode, y, x), index (pattern,) into them, and corners (pattern, 2), for the patterns `ids`."""
        xp = self.spectrum.__array_namespace__()
        corners = xp.asarray(self.scan.corners[ids])
        if self._all is not None:
            return self._all, xp.asarray(self.scan.index[ids]), corners
        unique, index = np.unique(self.scan.index[ids], return_inverse=True)
        return self._shift(unique), xp.asarray(index.astype(np.int32)), corners

    def adjoint(self, ids: np.ndarray, gradients: Array) -> Array:
        """∂L/∂P* (mode, y, x) from the gradients (pattern, mode, y, x) at the shifted probes."""
        unique, index = np.unique(self.scan.index[ids], return_inverse=True)
        xp = gradients.__array_namespace__()
        if len(unique) == len(ids):
            sums = gradients[np.argsort(index)]
        else:
            sums = xp.stack([gradients[np.flatnonzero(index == u)].sum(0) for u in range(len(unique))])
        spectra = fft2(sums, self.threads)
        spectra *= self.scan.ramps(unique, self.spectrum).conj()
        return ifft2(spectra.sum(0), self.threads)

    def derivatives(self, ids: np.ndarray) -> tuple[Array, Array]:
        """∂P/∂y and ∂P/∂x per px of the shifted probes of the patterns `ids`: two of (pattern, mode, y, x)."""
        spectrum = self.spectrum * self.scan.ramps(self.scan.index[ids], self.spectrum)
        xp = spectrum.__array_namespace__()
        ky, kx = (xp.asarray((-2j * np.pi * k).astype(spectrum.dtype)) for k in self.scan.frequencies)
        return ifft2(spectrum * ky, self.threads), ifft2(spectrum * kx, self.threads)
