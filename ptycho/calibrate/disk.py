"""The bright-field disk: centre, radius and roundness.

Near its border the mean pattern is modelled as a plane inside, a constant outside and a soft edge of width w at the radius
r (1 + e₁ cos 2φ + e₂ sin 2φ) about the centre, φ from y towards x, fitted by weighted least squares. The radius against the
semiangle gives the angle of a pixel.

Standard shapes: mean (ky, kx), centres (y, x) in px about index n // 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

_LEAST_RADIUS_PX = 3.0
_LEAST_CONTRAST = 0.3


@dataclass(frozen=True)
class Disk:
    """Bright-field disk: centre (y, x) in px about index n // 2, radius and edge width in px, ellipticity (e₁, e₂): relative
    change of the radius along y and along the diagonal, each with a standard deviation (`_sigma`)."""

    centre_px: tuple[float, float]
    centre_sigma_px: float
    radius_px: float
    radius_sigma_px: float
    edge_px: float
    ellipticity: tuple[float, float]
    ellipticity_sigma: float


def measure_disk(mean: np.ndarray, mask: np.ndarray, n_patterns: int) -> Disk | None:
    """Disk of the mean pattern (ky, kx) of `n_patterns`, mask True = good; None when there is no clear disk."""
    start = _threshold(mean, mask)
    if start is None:
        return None
    cy, cx, radius, level, background = start
    y, x = centred_grid(mean.shape)
    near = mask & (np.abs(np.hypot(y - cy, x - cx) - radius) < max(4.0, 0.2 * radius))
    if near.sum() < 30:
        return None
    edge = Edge(y[near], x[near], mean[near], radius, n_patterns)
    values, covariance = edge.fit([cy, cx, radius, 1.0, 0.0, 0.0, level, 0.0, 0.0, background])
    sigma = np.sqrt(np.diag(covariance))
    inside, outside = values[6], values[9]
    if not (np.isfinite(sigma).all() and values[2] > _LEAST_RADIUS_PX and inside - outside > _LEAST_CONTRAST * inside):
        return None
    return Disk(
        (float(values[0]), float(values[1])),
        float(np.hypot(*sigma[:2]) / np.sqrt(2)),
        float(values[2]),
        float(sigma[2]),
        float(abs(values[3])),
        (float(values[4]), float(values[5])),
        float(np.hypot(*sigma[4:6]) / np.sqrt(2)),
    )


def centred_grid(shape: tuple[int, ...], centre_px: tuple[float, float] = (0.0, 0.0)) -> tuple[np.ndarray, np.ndarray]:
    """Distances y and x (ky, kx) in px from a centre given about index n // 2."""
    y, x = np.meshgrid(*(np.arange(n) - n // 2 - c for n, c in zip(shape, centre_px, strict=True)), indexing="ij")
    return y, x


def _threshold(mean: np.ndarray, mask: np.ndarray) -> tuple[float, float, float, float, float] | None:
    """Rough centre y, x, radius, level inside and outside: what lies above half the median of itself."""
    weight = ndimage.uniform_filter(mask.astype(float), 3)
    smooth = ndimage.uniform_filter(np.where(mask, mean, 0.0), 3) / np.maximum(weight, 0.1)
    level = 0.7 * float(np.quantile(smooth, 0.995))
    for _ in range(8):
        labels, _count = ndimage.label(smooth > 0.5 * level)
        sizes = np.bincount(labels.ravel())[1:]
        if not len(sizes):
            return None
        region = labels == 1 + int(sizes.argmax())
        level = float(np.median(smooth[region]))
    region = ndimage.binary_fill_holes(region)
    y, x = centred_grid(mean.shape)
    radius = float(np.sqrt(region.sum() / np.pi))
    if radius < _LEAST_RADIUS_PX:
        return None
    outside = mask & ~ndimage.binary_dilation(region, iterations=2)
    background = float(np.median(mean[outside])) if outside.any() else 0.0
    return float(y[region].mean()), float(x[region].mean()), radius, level, background


class Edge:
    """Pixels about the border of the disk, and the model they are compared with."""

    def __init__(self, y: np.ndarray, x: np.ndarray, mean: np.ndarray, radius: float, n_patterns: int) -> None:
        self.y, self.x, self.mean, self.radius = y, x, mean, radius
        self.weight = 1 / np.sqrt(np.maximum(mean, 0.05 * mean.max()) / n_patterns)

    def model(self, p: np.ndarray) -> np.ndarray:
        """Intensity for (cy, cx, r, w, e1, e2, level, slope y, slope x, background)."""
        y, x = self.y - p[0], self.x - p[1]
        rho2 = np.maximum(y * y + x * x, 1e-12)
        border = p[2] * (1 + (p[4] * (y * y - x * x) + p[5] * 2 * x * y) / rho2)
        share = 1 / (1 + np.exp(np.clip((np.sqrt(rho2) - border) / (0.25 * max(abs(p[3]), 0.05)), -40, 40)))
        return p[9] + (p[6] - p[9] + (p[7] * y + p[8] * x) / self.radius) * share

    def fit(self, start: list[float], free: list[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Best parameters, and the covariance of the free ones scaled by what the model leaves unexplained (Marquardt,
        doi:10.1137/0111030)."""
        p, chosen = np.array(start, float), np.arange(len(start)) if free is None else np.array(free)
        residual, damping = self._residual(p), 1e-3
        for _ in range(40):
            slopes = self._slopes(p, chosen, residual)
            normal, gradient = slopes @ slopes.T, slopes @ residual
            trial = p.copy()
            trial[chosen] -= np.linalg.pinv(normal + damping * np.diag(np.diag(normal)), hermitian=True) @ gradient
            after = self._residual(trial)
            gain = 1 - float(after @ after) / max(float(residual @ residual), 1e-30)
            if gain > 0:
                p, residual, damping = trial, after, damping / 10
            else:
                damping *= 10
            if abs(gain) < 1e-6 or damping > 1e6:
                break
        chi2 = max(float(residual @ residual) / max(len(residual) - len(chosen), 1), 1.0)
        slopes = self._slopes(p, chosen, residual)
        return p, np.linalg.pinv(slopes @ slopes.T, hermitian=True) * chi2

    def _residual(self, p: np.ndarray) -> np.ndarray:
        return (self.model(p) - self.mean) * self.weight

    def _slopes(self, p: np.ndarray, chosen: np.ndarray, residual: np.ndarray) -> np.ndarray:
        """Derivatives of the residual (parameter, pixel) by differences."""
        level = max(abs(p[6]), 1e-12)
        steps = np.array([1e-3, 1e-3, 1e-3, 1e-3, 1e-4, 1e-4, *(4 * [1e-4 * level])])
        out = []
        for i in chosen:
            moved = p.copy()
            moved[i] += steps[i]
            out.append((self._residual(moved) - residual) / steps[i])
        return np.array(out)
