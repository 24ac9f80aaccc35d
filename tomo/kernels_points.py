"""Gaussian points on images: drawn, and how a mismatch would move each of them.

A point seen at (u, v) adds amplitude · exp(−((x − u)² + (y − v)²) / 2σ²) / 2πσ² within a square of 3σ. Images are (n, y, x)
with index n // 2 at coordinate 0; points are (n, m) coordinates x and y in pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tomo.kernels import compiled, share_out

REACH = 3.0
"""Half width of the square in which a point is drawn, in units of σ."""

Array = NDArray[np.floating]


def drawn(x: Array, y: Array, amplitude: Array, sigma: float, shape: tuple[int, int], threads: int) -> Array:
    """Images (n, y, x) float32 of points at x, y (n, m) with amplitude (m,)."""
    images = np.zeros((len(x), *shape), np.float32)
    share_out(_draw, len(x), threads, x, y, amplitude, sigma, images)
    return images


def pulls(
    x: Array, y: Array, amplitude: Array, sigma: float, residual: Array, weight: Array, threads: int
) -> NDArray[np.float64]:
    """Derivative of ½ Σ weight · residual² in the place of each point, and its curvature: (n, m, 5) as (gx, gy, xx, xy, yy).

    residual, weight: (n, y, x), residual = image of the points − data.
    """
    out = np.zeros((*x.shape, 5))
    share_out(_pull, len(x), threads, x, y, amplitude, sigma, residual, weight, out)
    return out


@compiled
def _profile(at: float, sigma: float, first: int, values: NDArray[np.float64]) -> None:
    for k in range(len(values)):
        d = (first + k - at) / sigma
        values[k] = np.exp(-0.5 * d * d)


@compiled
def _draw(start: int, stop: int, x: Array, y: Array, amplitude: Array, sigma: float, images: Array) -> None:
    ny, nx = images.shape[1:]
    reach = int(np.ceil(REACH * sigma))
    px, py = np.empty(2 * reach + 1), np.empty(2 * reach + 1)
    for tilt in range(start, stop):
        for m in range(x.shape[1]):
            at_x, at_y = x[tilt, m] + nx // 2, y[tilt, m] + ny // 2
            left, top = int(np.rint(at_x)) - reach, int(np.rint(at_y)) - reach
            if left + 2 * reach < 0 or top + 2 * reach < 0 or left >= nx or top >= ny:
                continue
            _profile(at_x, sigma, left, px)
            _profile(at_y, sigma, top, py)
            height = amplitude[m] / (2 * np.pi * sigma * sigma)
            for j in range(max(0, -top), min(2 * reach + 1, ny - top)):
                row = height * py[j]
                for i in range(max(0, -left), min(2 * reach + 1, nx - left)):
                    images[tilt, top + j, left + i] += row * px[i]


@compiled
def _pull(
    start: int,
    stop: int,
    x: Array,
    y: Array,
    amplitude: Array,
    sigma: float,
    residual: Array,
    weight: Array,
    out: NDArray[np.float64],
) -> None:
    ny, nx = residual.shape[1:]
    reach = int(np.ceil(REACH * sigma))
    px, py = np.empty(2 * reach + 1), np.empty(2 * reach + 1)
    for tilt in range(start, stop):
        for m in range(x.shape[1]):
            at_x, at_y = x[tilt, m] + nx // 2, y[tilt, m] + ny // 2
            left, top = int(np.rint(at_x)) - reach, int(np.rint(at_y)) - reach
            if left + 2 * reach < 0 or top + 2 * reach < 0 or left >= nx or top >= ny:
                continue
            _profile(at_x, sigma, left, px)
            _profile(at_y, sigma, top, py)
            height = amplitude[m] / (2 * np.pi * sigma * sigma * sigma * sigma)
            gx, gy, xx, xy, yy = 0.0, 0.0, 0.0, 0.0, 0.0
            for j in range(max(0, -top), min(2 * reach + 1, ny - top)):
                dy = top + j - at_y
                row = height * py[j]
                for i in range(max(0, -left), min(2 * reach + 1, nx - left)):
                    dx = left + i - at_x
                    slope = row * px[i]
                    w = weight[tilt, top + j, left + i]
                    pull = w * residual[tilt, top + j, left + i] * slope
                    gx += pull * dx
                    gy += pull * dy
                    bend = w * slope * slope
                    xx += bend * dx * dx
                    xy += bend * dx * dy
                    yy += bend * dy * dy
            out[tilt, m, 0], out[tilt, m, 1] = gx, gy
            out[tilt, m, 2], out[tilt, m, 3], out[tilt, m, 4] = xx, xy, yy
