"""Tilts from points: the peaks of a volume and all tilts are adjusted together, so that the points explain the images.

    image_t ≈ scale_t Σ_i a_i g(x − (R_t r_i)_x − s_tx, y − (R_t r_i)_y − s_ty) + background_t,      g a Gaussian

A volume made with wrong angles explains its own images well: it takes part in whatever turns slowly along the series. Few points
cannot: each is seen in every tilt and has three coordinates. Turns and shifts of all tilts follow from Gauss-Newton steps in which
the points follow, scales and backgrounds between them from linear least squares. The points need not be all atoms, nor all of
them right.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tomo.calibrate.bundle import Linear, linearised, standard_errors, steps
from tomo.calibrate.light import errors, fitted
from tomo.calibrate.tilts import Tilts

log = logging.getLogger(__name__)

Array = NDArray[np.float64]

POINT_RELAXATION = 0.5
"""Points overlap in the images, and each is stepped as if it stood alone: full steps would overshoot. Where χ² rises all the same,
the last step is taken back and halved."""
LARGEST_TURN_RAD = 0.02
LARGEST_STEP_PX = 0.7
BLOCK_SIGMAS = 4.0
TURN, SHIFT = slice(0, 3), slice(3, 5)


@dataclass(frozen=True, eq=False)
class Points:
    """Places (m, 3) as (x, y, z) in px, amplitudes (m,) summed over an image, and their common width in px."""

    places_px: Array
    amplitudes: Array
    sigma_px: float


@dataclass(frozen=True, eq=False)
class Adjusted:
    """Tilts and points after the adjustment, standard deviations of turns (n, 3) in rad, shifts (n, 2) in px, scales and
    backgrounds (n,), the rms turn in rad of every round (shifts counted as the turn that moves the points as far), and χ² per
    pixel (n,) of each tilt."""

    tilts: Tilts
    points: Points
    turn_sigma_rad: Array
    shift_sigma_px: Array
    scale_sigma: Array
    background_sigma: Array
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

    Ends after `rounds`, or when the rms turn of a round (shifts counted as turns) is below `tolerance_rad`. free: (7,) bool,
    which of three turns, two shifts, scale and background may change. told(rms turn in rad) is called after each round.
    """
    turns: list[float] = []
    length, best = 1.0, None
    for _ in range(rounds):
        tilts, points = _brightness(images, weights, tilts, points, free, threads)
        step = _normal_step(images, weights, tilts, points, free, threads)
        if best is not None and step.chi2.sum() > best.step.chi2.sum():
            length /= 2
        else:
            best, length = _Place(tilts, points, step), min(1.0, 1.5 * length)
        tilts, points = best.moved(length)
        turns.append(length * best.size)
        if told is not None:
            told(turns[-1])
        if turns[-1] < tolerance_rad:
            break
    assert best is not None
    sigma = standard_errors(best.step.linear, free[:5])
    scale_sigma, background_sigma = _brightness_errors(images, weights, best.tilts, best.points, free, threads)
    return Adjusted(
        best.tilts, best.points, sigma[:, TURN], sigma[:, SHIFT], scale_sigma, background_sigma, turns, best.step.chi2
    )


@dataclass(frozen=True, eq=False)
class _Step:
    """Step of the turns and shifts (n, 5) and of the points (m, 3), and where it begins what it follows from and χ² per pixel (n,)."""

    tilts: Array
    points: Array
    linear: Linear
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
    tilts, points = _brightness(images, weights, tilts, points, np.ones(7, bool), threads)
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
    images: NDArray[np.float32],
    weights: NDArray[np.float32],
    tilts: Tilts,
    points: Points,
    free: NDArray[np.bool_],
    threads: int,
) -> tuple[Tilts, Points]:
    """With the best scale and background of each tilt; the mean scale goes into the amplitudes."""
    _, model = _model(tilts, points, images.shape[1:], threads)
    scales, backgrounds = fitted(images, weights, model, tilts.scales, tilts.backgrounds, (free[5], free[6]))
    mean = scales.mean()
    bright = replace(tilts, scales=scales / mean, backgrounds=backgrounds)
    return bright, replace(points, amplitudes=points.amplitudes * mean)


def _brightness_errors(
    images: NDArray[np.float32],
    weights: NDArray[np.float32],
    tilts: Tilts,
    points: Points,
    free: NDArray[np.bool_],
    threads: int,
) -> tuple[Array, Array]:
    """Standard deviations (n,) of scales and backgrounds."""
    _, model = _model(tilts, points, images.shape[1:], threads)
    block_px = int(np.ceil(BLOCK_SIGMAS * points.sigma_px))
    return errors(images, weights, model, tilts.scales, tilts.backgrounds, (free[5], free[6]), block_px)


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
    linear = linearised(tilts, seen, pulls(x, y, points.amplitudes, points.sigma_px, residual, weights, threads))
    return _Step(*steps(linear, free[:5]), linear, chi2)
