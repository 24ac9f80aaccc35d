"""How atoms make images: one Gaussian each, and the derivatives that a fit needs.

The image of tilt t is c_t + Σ_a A_a G(x − P R_t r_a; w_a); the background c_t is eliminated as the weighted mean of what is
left. Standard shapes: images (tilts, y, x), places (tilts, n, 2) as pixel (x, y), positions (n, 3) in Å.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.compiled import compiled

from .uncertainty import REACH, share_out

Array = NDArray[np.float64]


@compiled
def _render(  # pragma: no cover - compiled
    first: int, last: int, at: Array, amplitude: Array, sigma: Array, widen: bool, out: Array
) -> None:
    """Add every atom's Gaussian, or its derivative by the logarithm of its width, to the images out[t]."""
    ny, nx = out.shape[1:]
    row = np.empty(nx)
    for t in range(first, last):
        for a in range(at.shape[1]):
            s, x0, y0 = sigma[a], at[t, a, 0], at[t, a, 1]
            if amplitude[a] == 0:
                continue
            left, right = max(0, int(np.ceil(x0 - REACH * s))), min(nx - 1, int(np.floor(x0 + REACH * s)))
            for x in range(left, right + 1):
                row[x] = np.exp(-0.5 * ((x - x0) / s) ** 2)
            for y in range(max(0, int(np.ceil(y0 - REACH * s))), min(ny - 1, int(np.floor(y0 + REACH * s))) + 1):
                v = ((y - y0) / s) ** 2
                height = amplitude[a] * np.exp(-0.5 * v) / (2 * np.pi * s * s)
                for x in range(left, right + 1):
                    factor = v + ((x - x0) / s) ** 2 - 2 if widen else 1.0
                    out[t, y, x] += height * row[x] * factor


@compiled
def _moments(  # pragma: no cover - compiled
    first: int, last: int, at: Array, sigma: Array, images: Array, out: Array
) -> None:
    """out[t, a] = Σ E G (x, y, 1) over the atom's box: what the gradients by its place and amplitude need."""
    ny, nx = images.shape[1:]
    row = np.empty(nx)
    for t in range(first, last):
        for a in range(at.shape[1]):
            s, x0, y0 = sigma[a], at[t, a, 0], at[t, a, 1]
            left, right = max(0, int(np.ceil(x0 - REACH * s))), min(nx - 1, int(np.floor(x0 + REACH * s)))
            for x in range(left, right + 1):
                row[x] = np.exp(-0.5 * ((x - x0) / s) ** 2)
            for y in range(max(0, int(np.ceil(y0 - REACH * s))), min(ny - 1, int(np.floor(y0 + REACH * s))) + 1):
                height = np.exp(-0.5 * ((y - y0) / s) ** 2) / (2 * np.pi * s * s)
                plain, tilted = 0.0, 0.0
                for x in range(left, right + 1):
                    value = row[x] * images[t, y, x]
                    plain += value
                    tilted += value * (x - x0)
                out[t, a, 0] += height * tilted
                out[t, a, 1] += height * plain * (y - y0)
                out[t, a, 2] += height * plain


@dataclass(frozen=True, eq=False)
class Model:
    """The images and how atoms make them. Lengths inside are pixels, amplitudes units of the images × pixel².

    images, weights: (tilts, y, x). rotations: (tilts, 3, 3). element: (n,) index of each atom's element.
    """

    images: Array
    weights: Array
    rotations: Array
    pixel_A: float
    element: NDArray[np.int64]
    threads: int = 1

    @property
    def to_pixels(self) -> Array:
        return self.rotations[:, :2] / self.pixel_A

    def project(self, positions_A: Array) -> Array:
        """Pixel (x, y) of every atom in every image, (tilts, n, 2)."""
        ny, nx = self.images.shape[1:]
        return np.einsum("tij,aj->tai", self.to_pixels, positions_A) + np.array([nx // 2, ny // 2])

    def render(self, at: Array, amplitude: Array, sigma: Array, *, widen: bool = False) -> Array:
        """Images (tilts, y, x) of the atoms alone, or their derivative by the logarithm of the widths."""
        out = np.zeros(self.images.shape)
        share_out(_render, len(at), self.threads, at, amplitude, sigma, widen, out)
        return out

    def means(self, images: Array) -> Array:
        """Weighted mean of each image (tilts,), 0 for one without weight."""
        return (self.weights * images).sum(axis=(1, 2)) / np.maximum(self.weights.sum(axis=(1, 2)), 1e-300)

    def centred(self, images: Array) -> Array:
        """The images less their weighted means: what remains when the background is free."""
        return images - self.means(images)[:, None, None]

    def loss(self, at: Array, amplitude: Array, sigma: Array) -> tuple[float, Array]:
        """½ Σ w (m − b)² at the best backgrounds, and the residual m − b (tilts, y, x)."""
        residual = self.centred(self.render(at, amplitude, sigma) - self.images)
        return 0.5 * float(np.sum(self.weights * residual**2)), residual

    def gradient(self, positions_A: Array, amplitude: Array, sigma: Array) -> tuple[float, Array, Array]:
        """Loss, its gradient by the positions (n, 3) per Å, and by the amplitudes (n,)."""
        at = self.project(positions_A)
        loss, residual = self.loss(at, amplitude, sigma)
        sums = np.zeros((*at.shape[:2], 3))
        share_out(_moments, len(at), self.threads, at, sigma, self.weights * residual, sums)
        by_pixel = sums[..., :2] * (amplitude / sigma**2)[:, None]
        return loss, np.einsum("tij,tai->aj", self.to_pixels, by_pixel), sums[..., 2].sum(axis=0)
