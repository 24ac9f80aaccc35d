"""The multislice wave and its adjoint.

Through slice s the wave is multiplied by the object window and, before the next slice, carried through free space:
ψ_{s+1} = F⁻¹ K F (O_s ψ_s); the detector sees F (O_S ψ_S). One slice is the same text with S = 1. The adjoint carries
∂L/∂Ψ* back: ∂L/∂O_s* = conj(ψ_s) χ_s, and χ_{s−1} = F⁻¹ conj(K) F (conj(O_s) χ_s)
(Maiden, Humphry and Rodenburg, doi:10.1364/JOSAA.29.001606; Tsai et al., doi:10.1364/OE.24.029089).

Standard shapes: object (slice, Y, X), waves (pattern, mode, y, x), corners (pattern, 2) int32.
"""

from __future__ import annotations

from dataclasses import dataclass

from ptycho.grid import Array, fft2, ifft2
from ptycho.patches import multiply, scatter_add

Entering = list[tuple[Array, Array]]
"""For each slice the waves that enter it (u, mode, y, x) and the index (pattern,) into them."""


@dataclass(frozen=True, eq=False)
class Multislice:
    """Linear in the probe and in each slice; `kernel` (ky, kx) is the free space between slices, None for one slice."""

    kernel: Array | None = None
    threads: int = 1

    def forward(self, probes: Array, index: Array, object_: Array, corners: Array) -> tuple[Entering, Array]:
        """Waves entering each slice, and the wave on the detector (pattern, mode, ky, kx), zero frequency at [0, 0]."""
        entering: Entering = [(probes, index)]
        wave = multiply(probes, index, object_[0], corners)
        for slice_ in object_[1:]:
            wave = self.propagate(wave)
            entering.append((wave, _all(wave)))
            wave = multiply(*entering[-1], slice_, corners)
        return entering, fft2(wave, self.threads)

    def propagate(self, wave: Array) -> Array:
        """Free space from one slice to the next."""
        spectrum = fft2(wave, self.threads)
        spectrum *= self.kernel
        return ifft2(spectrum, self.threads)

    def propagate_adjoint(self, wave: Array) -> Array:
        """Free space from one slice back to the one before: adjoint and inverse of `propagate`."""
        spectrum = fft2(wave, self.threads)
        spectrum *= self.kernel.conj()  # type: ignore[union-attr]
        return ifft2(spectrum, self.threads)

    def adjoint(
        self, residual: Array, entering: Entering, object_: Array, corners: Array, gradient: Array, to_probe: bool
    ) -> Array | None:
        """Add ∂L/∂O* to `gradient` (slice, Y, X) and return ∂L/∂P* per pattern (or None); `residual` = ∂L/∂Ψ* is consumed."""
        wave = ifft2(residual, self.threads)
        for s in range(len(object_) - 1, -1, -1):
            scatter_add(gradient[s], *entering[s], wave, corners)
            if s == 0 and not to_probe:
                return None
            wave = self.adjoint_step(wave, object_[s], corners, last=s == 0)
        return wave

    def adjoint_step(self, wave: Array, slice_: Array, corners: Array, last: bool) -> Array:
        """Carry the wave behind a slice to the exit of the slice before (`last`: only to the entrance of this one)."""
        wave = multiply(wave, _all(wave), slice_.conj(), corners)
        return wave if last else self.propagate_adjoint(wave)


def _all(waves: Array) -> Array:
    return waves.__array_namespace__().arange(len(waves), dtype="int32")
