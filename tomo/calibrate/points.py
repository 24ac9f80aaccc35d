"""Tilts from points: the peaks of a volume and all tilts are adjusted together, so that the points explain the images.

    image_t ≈ scale_t Σ_i a_i g(x − (R_t r_i)_x − s_tx, y − (R_t r_i)_y − s_ty) + background_t,      g a Gaussian

A volume made with wrong angles explains its own images well: it takes part in whatever turns slowly along the series. Few points
cannot: each is seen in every tilt and has three coordinates. Turns and shifts of all tilts follow from one Gauss-Newton step
in which the points follow (bundle adjustment; Triggs et al., doi:10.1007/3-540-44480-7_21):

    (H − Wᵀ V⁻¹ W) δ = −(g − Wᵀ V⁻¹ g_points)

with H the curvature in the tilts, V the 3 × 3 blocks of the points and W what couples them. The inverse of the left side is
the covariance of the tilts. The points need not be all atoms, nor all of them right.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tomo.calibrate.tilts import Tilts

log = logging.getLogger(__name__)

Array = NDArray[np.float64]

DAMPING = 1e-3
POINT_RELAXATION = 0.5
"""Points overlap in the images, and each is stepped as if it stood alone: full steps would overshoot. Where χ² rises all the same,
the last step is taken back and halved."""
LARGEST_TURN_RAD = 0.02
LARGEST_STEP_PX = 0.7
TURN, SHIFT = slice(0, 3), slice(3, 5)


@dataclass(frozen=True, eq=False)
class Points:
    """Places (m, 3) as (x, y, z) in px, amplitudes (m,) summed over an image, and their common width in px."""

    places_px: Array
    amplitudes: Array
    sigma_px: float


@dataclass(frozen=True, eq=False)
class Adjusted:
    """Tilts and points after the adjustment, standard deviations of turns (n, 3) in rad and shifts (n, 2) in px, the rms turn
    in rad of every round (shifts counted as the turn that moves the points as far), and χ² per pixel (n,) of each tilt."""

    tilts: Tilts
    points: Points
    turn_sigma_rad: Array
    shift_sigma_px: Array
    steps_rad: list[float]
    chi2: Array


def peaks(volume: NDArray[np.floating], sigma_px: float, blur_px: float = 0.7, share: float = 0.6) -> Points:
    """Maxima of a numpy volume (z, y, x), blurred, above `share` of its median inside the particle, to a part of a voxel."""
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(np.asarray(volume, np.float32), blur_px)
    inside = smooth[smooth > 0.05 * smooth.max()]
    if not inside.size:
        return Points(np.zeros((0, 3)), np.zeros(0), sigma_px)
    highest = (smooth == ndimage.maximum_filter(smooth, 3)) & (smooth > share * np.median(inside))
    at = np.argwhere(highest[1:-1, 1:-1, 1:-1]) + 1
    middle = smooth[tuple(at.T)]
    fine = np.empty(at.shape)
    for axis in range(3):
        step = np.eye(3, dtype=int)[axis]
        before, after = smooth[tuple((at - step).T)], smooth[tuple((at + step).T)]
        fine[:, axis] = np.clip(0.5 * (after - before) / np.maximum(2 * middle - before - after, 1e-9), -0.5, 0.5)
    places = at + fine - np.array(volume.shape) // 2
    return Points(places[:, ::-1].astype(np.float64), middle.astype(np.float64), sigma_px)


def adjust(
    images: NDArray[np.float32],
    weights: NDArray[np.float32],
    tilts: Tilts,
    points: Points,
    *,
    rounds: int,
    tolerance_rad: float,
    free: NDArray[np.bool_],
    threads: int,
    told: Callable[[float], None] | None = None,
) -> Adjusted:
    """Adjust tilts and points to images (n, y, x), weights being the inverse variance of their pixels.

    Ends after `rounds`, or when the rms turn of a round (shifts counted as turns) is below `tolerance_rad`. free: (5,) bool,
    which of the three turns and two shifts may move. told(rms turn in rad) is called after each round.
    """
    steps: list[float] = []
    length, best = 1.0, None
    for _ in range(rounds):
        tilts, points = _brightness(images, weights, tilts, points, threads)
        step = _normal_step(images, weights, tilts, points, free, threads)
        if best is not None and step.chi2.sum() > best.step.chi2.sum():
            length /= 2
        else:
            best, length = _Place(tilts, points, step), min(1.0, 1.5 * length)
        tilts, points = best.moved(length)
        steps.append(length * best.size)
        if told is not None:
            told(steps[-1])
        if steps[-1] < tolerance_rad:
            break
    assert best is not None
    sigma = best.step.sigma * np.sqrt(best.step.chi2)[:, None]
    return Adjusted(best.tilts, best.points, sigma[:, TURN], sigma[:, SHIFT], steps, best.step.chi2)


@dataclass(frozen=True, eq=False)
class _Step:
    """Step of the turns and shifts (n, 5) and of the points (m, 3), standard deviations (n, 5) of the former for weights that are
    inverse variances, and χ² per pixel (n,) where the step begins."""

    tilts: Array
    points: Array
    sigma: Array
    chi2: Array


@dataclass(frozen=True, eq=False)
class _Place:
    """Tilts and points, and the step from there."""

    tilts: Tilts
    points: Points
    step: _Step

    @property
    def size(self) -> float:
        """Rms turn of the step in rad, shifts counted as the turn that moves the points as far."""
        radius = np.sqrt((self.points.places_px**2).sum(axis=1).mean())
        square = (self.step.tilts[:, TURN] ** 2).sum(axis=1) + (self.step.tilts[:, SHIFT] ** 2).sum(axis=1) / radius**2
        return float(np.sqrt(square.mean()))

    def moved(self, length: float) -> tuple[Tilts, Points]:
        """Tilts and points after a part of the step; no point or turn goes farther than the linear model reaches."""
        turns = np.clip(length * self.step.tilts[:, TURN], -LARGEST_TURN_RAD, LARGEST_TURN_RAD)
        shifts = np.clip(length * self.step.tilts[:, SHIFT], -LARGEST_STEP_PX, LARGEST_STEP_PX)
        moves = np.clip(length * POINT_RELAXATION * self.step.points, -LARGEST_STEP_PX, LARGEST_STEP_PX)
        points = replace(self.points, places_px=self.points.places_px + moves)
        return self.tilts.turned(turns, shifts), points


def misfit(
    images: NDArray[np.float32], weights: NDArray[np.float32], tilts: Tilts, points: Points, threads: int
) -> float:
    """χ² per pixel of points seen at the tilts, with the best scale and background of each image."""
    tilts, points = _brightness(images, weights, tilts, points, threads)
    residual = _model(tilts, points, images.shape[1:], threads)[1] * tilts.scales[:, None, None].astype(np.float32)
    residual += tilts.backgrounds[:, None, None].astype(np.float32) - images
    return float((weights * residual * residual).mean(dtype=np.float64))


def _model(tilts: Tilts, points: Points, shape: tuple[int, int], threads: int) -> tuple[Array, NDArray[np.floating]]:
    """Where the points are seen (n, m, 3), and their images (n, y, x) before scale and background."""
    from tomo.kernels_points import drawn

    seen = tilts.seen(points.places_px)
    x, y = (np.ascontiguousarray(seen[..., k]) for k in (0, 1))
    return seen, drawn(x, y, points.amplitudes, points.sigma_px, shape, threads)


def _brightness(
    images: NDArray[np.float32], weights: NDArray[np.float32], tilts: Tilts, points: Points, threads: int
) -> tuple[Tilts, Points]:
    """Scale and background of each tilt by linear least squares; the mean scale goes into the amplitudes."""
    _, model = _model(tilts, points, images.shape[1:], threads)
    scales, backgrounds = np.empty(len(images)), np.empty(len(images))
    for t, (image, weight, seen) in enumerate(zip(images, weights, model, strict=True)):
        w, a, b = (q.ravel().astype(np.float64) for q in (weight, seen, image))
        moments = np.array([[(w * a * a).sum(), (w * a).sum()], [(w * a).sum(), w.sum()]])
        scales[t], backgrounds[t] = np.linalg.solve(moments, [(w * a * b).sum(), (w * b).sum()])
    mean = scales.mean()
    fitted = replace(tilts, scales=scales / mean, backgrounds=backgrounds)
    return fitted, replace(points, amplitudes=points.amplitudes * mean)


def _normal_step(
    images: NDArray[np.float32],
    weights: NDArray[np.float32],
    tilts: Tilts,
    points: Points,
    free: NDArray[np.bool_],
    threads: int,
) -> _Step:
    from tomo.kernels_points import pulls

    seen, residual = _model(tilts, points, images.shape[1:], threads)
    residual *= tilts.scales[:, None, None].astype(np.float32)
    residual += tilts.backgrounds[:, None, None].astype(np.float32)
    residual -= images
    chi2 = (weights * residual * residual).mean(axis=(1, 2), dtype=np.float64)
    x, y = (np.ascontiguousarray(seen[..., k]) for k in (0, 1))
    out = pulls(x, y, points.amplitudes, points.sigma_px, residual, weights, threads)
    s = tilts.scales[:, None]
    gx, gy = s * out[..., 0], s * out[..., 1]
    xx, xy, yy = (s * s * out[..., k] for k in (2, 3, 4))
    n, m = gx.shape
    slope, curvature, coupling = np.zeros((n, 5)), np.zeros((n, 5, 5)), np.empty((m, 3, n, 5), np.float32)
    point_slope, block = np.zeros((m, 3)), np.zeros((m, 3, 3))
    for t in range(n):
        a, b = tilts.rotations[t, 0], tilts.rotations[t, 1]
        jx, jy = _rates(seen[t] - np.append(tilts.shifts_px[t], 0.0))
        slope[t] = gx[t] @ jx + gy[t] @ jy
        bent_x, bent_y = xx[t, :, None] * jx + xy[t, :, None] * jy, xy[t, :, None] * jx + yy[t, :, None] * jy
        curvature[t] = jx.T @ bent_x + jy.T @ bent_y
        coupling[:, :, t] = a[:, None] * bent_x[:, None] + b[:, None] * bent_y[:, None]
        point_slope += gx[t, :, None] * a + gy[t, :, None] * b
        block += xx[t, :, None, None] * np.outer(a, a) + yy[t, :, None, None] * np.outer(b, b)
        block += xy[t, :, None, None] * (np.outer(a, b) + np.outer(b, a))
    change, moves, sigma = _solved(slope, curvature, coupling.reshape(m, 3, n * 5), point_slope, block, free)
    return _Step(change, moves, sigma, chi2)


def _rates(seen: Array) -> tuple[Array, Array]:
    """How fast points seen at (x, y, z) (m, 3) move along x and y with the turns and shifts of their tilt: two (m, 5)."""
    x, y, z = seen.T
    none, one = np.zeros_like(x), np.ones_like(x)
    return np.stack([none, z, -y, one, none], axis=1), np.stack([-z, none, x, none, one], axis=1)


def _solved(
    slope: Array,
    curvature: Array,
    coupling: NDArray[np.float32],
    point_slope: Array,
    block: Array,
    free: NDArray[np.bool_],
) -> tuple[Array, Array, Array]:
    """Steps of the tilts (n, 5) and of the points (m, 3), and standard deviations (n, 5) of the former."""
    n, m = len(slope), len(point_slope)
    damped = block + np.eye(3) * (0.01 * np.einsum("mii->m", block).mean() / 3 + np.finfo(np.float64).tiny)
    lower = np.linalg.inv(np.linalg.cholesky(damped))
    leaning = (lower.astype(np.float32) @ coupling).reshape(3 * m, 5 * n)
    pulled = np.einsum("mij,mj->mi", lower, point_slope).ravel()
    system = np.zeros((5 * n, 5 * n))
    for t in range(n):
        part = slice(5 * t, 5 * t + 5)
        system[part, part] = curvature[t] * (1 + DAMPING * np.eye(5))
    system -= (leaning.T @ leaning).astype(np.float64)
    right = slope.ravel() - leaning.T @ pulled
    moving = np.tile(free, n)
    covariance = np.zeros_like(system)
    block_of = np.ix_(moving, moving)
    covariance[block_of] = np.linalg.pinv(system[block_of], rcond=1e-7, hermitian=True)
    change = -covariance @ right
    own = point_slope + (coupling @ change.astype(np.float32)).astype(np.float64)
    moves = -np.linalg.solve(damped, own[..., None])[..., 0]
    sigma = np.sqrt(np.maximum(np.diag(covariance), 0)).reshape(n, 5)
    return change.reshape(n, 5), moves, sigma
