"""The multislice wave and its adjoint.

Through slice s the wave is multiplied by the object window and, before the next slice, carried through free space:
ψ_{s+1} = F⁻¹ K F (O_s ψ_s); the detector sees F (O_S ψ_S). One slice is the same text with S = 1. The adjoint carries
∂L/∂Ψ* back: ∂L/∂O_s* = conj(ψ_s) χ_s, and χ_{s−1} = F⁻¹ conj(K) F (conj(O_s) χ_s)
(Maiden, Humphry and Rodenburg, doi:10.1364/JOSAA.29.001606; Tsai et al., doi:10.1364/OE.24.029089).

Standard shapes: object (slice, Y, X), waves (pattern, mode, y, x), corners (pattern, 2) int32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptycho.grid import Array, fft2, ifft2
from ptycho.patches import multiply, scatter_add, scatter_back
from ptycho.propagate import FreeSpace

Entering = list[tuple[Array, Array | None]]
"""For each slice the waves that enter it (u, mode, y, x) and the index (pattern,) into them, None for one wave each."""


@dataclass(frozen=True, eq=False)
class Multislice:
    """Linear in the probe and in each slice; `ids` (pattern,) are the numbers of the patterns, for tilts of their own."""

    space: FreeSpace
    threads: int = 1

    def forward(
        self, incoming: Array, index: Array, object_: Array, corners: Array, ids: np.ndarray
    ) -> tuple[Entering, Array]:
        """Waves entering each slice, and the wave on the detector (pattern, mode, ky, kx), zero frequency at [0, 0]."""
        entering: Entering = [(incoming, index)]
        wave = multiply(incoming, index, object_[0], corners)
        for gap, slice_ in enumerate(object_[1:]):
            wave = self.propagate(wave, gap, ids)
            entering.append((wave, None))
            wave = multiply(*entering[-1], slice_, corners)
        return entering, fft2(wave, self.threads)

    def propagate(self, wave: Array, gap: int, ids: np.ndarray) -> Array:
        """Free space from slice `gap` to the next."""
        return ifft2(self.space.apply(fft2(wave, self.threads), gap, ids), self.threads)

    def propagate_adjoint(self, wave: Array, gap: int, ids: np.ndarray) -> Array:
        """Free space from the next slice back to slice `gap`: adjoint and inverse of `propagate`."""
        return ifft2(self.space.apply_adjoint(fft2(wave, self.threads), gap, ids), self.threads)

    def adjoint(
        self,
        residual: Array,
        entering: Entering,
        object_: Array,
        corners: Array,
        ids: np.ndarray,
        gradient: Array,
        to_probe: bool,
    ) -> Array | None:
        """Add ∂L/∂O* to `gradient` (slice, Y, X) and return ∂L/∂P* per pattern (or None); `residual` = ∂L/∂Ψ* is consumed."""
        wave = ifft2(residual, self.threads)
        for s in range(len(object_) - 1, -1, -1):
            if s == 0 and not to_probe:
                scatter_add(gradient[s], *entering[s], wave, corners)
                return None
            scatter_back(gradient[s], *entering[s], wave, corners, object_[s])
            if s > 0:
                wave = self.propagate_adjoint(wave, s - 1, ids)
        return wave

    def adjoint_step(self, wave: Array, slice_: Array, corners: Array, s: int, ids: np.ndarray) -> Array:
        """Carry the wave behind slice `s` to the exit of the slice before (for the first slice only to its entrance)."""
        wave = multiply(wave, None, slice_, corners, conjugate=True)
        return wave if s == 0 else self.propagate_adjoint(wave, s - 1, ids)
