"""A tilt that went astray, sought again: its image against the points seen at many turns.

Each of the three turns is scanned in its turn, first widely, then closely; at every candidate the shift follows from the
peak of the cross-correlation with the image, both freed of what is coarser than the points.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from tomo.calibrate.points import Points
from tomo.calibrate.tilts import Tilts
from tomo.kernels_points import drawn

SWEEPS_DEG = ((4.0, 0.5), (1.0, 0.25))
"""Reach and step of the scans."""
REACH_PX = 12
COARSE = 4.0
AXES = (1, 0, 2)
"""Turns about y are the least certain where tilts are few, those about the beam the most."""


def sought(image: NDArray[np.float32], tilt: Tilts, points: Points, free: NDArray[np.bool_]) -> Tilts:
    """The tilt (of one image (y, x)) at which the points resemble the image most; unchanged where nothing resembles it more."""
    spectrum = np.conj(fft.rfft2(_fine(image, points.sigma_px)))
    best, score, shift = tilt, *_resemblance(spectrum, image.shape, tilt, points)
    for reach, step in SWEEPS_DEG:
        for axis in AXES:
            if not free[axis]:
                continue
            start = best
            for turn in np.arange(-reach, reach + step / 2, step):
                turns = np.zeros((1, 3))
                turns[0, axis] = np.radians(turn)
                candidate = start.turned(turns, np.zeros((1, 2)))
                reached, moved = _resemblance(spectrum, image.shape, candidate, points)
                if reached > score:
                    best, score, shift = candidate, reached, moved
    return best.turned(np.zeros((1, 3)), shift * free[3:5])


def _resemblance(
    spectrum: NDArray[np.complexfloating], shape: tuple[int, ...], tilt: Tilts, points: Points
) -> tuple[float, NDArray[np.float64]]:
    """Height of the cross-correlation's peak, the model's power being 1, and the shift (1, 2) as (x, y) in px that leads there."""
    seen = tilt.seen(points.places_px)
    x, y = (np.ascontiguousarray(seen[..., k]) for k in (0, 1))
    model = _fine(drawn(x, y, points.amplitudes, points.sigma_px, (shape[0], shape[1]), 1)[0], points.sigma_px)
    correlation = fft.irfft2(fft.rfft2(model) * spectrum, s=shape) / max(float(np.linalg.norm(model)), 1e-30)
    near = np.roll(correlation, (REACH_PX, REACH_PX), (0, 1))[: 2 * REACH_PX + 1, : 2 * REACH_PX + 1]
    j, i = np.unravel_index(int(near.argmax()), near.shape)
    return float(near[j, i]), np.array([[REACH_PX - i, REACH_PX - j]], np.float64)


def _fine(image: NDArray[np.floating], sigma_px: float) -> NDArray[np.floating]:
    return image - ndimage.gaussian_filter(image, COARSE * sigma_px)
