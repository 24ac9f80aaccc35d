"""Direction of the tilt axis in the images, where it is not known.

Summed across the axis all images of a series give one profile, and their spectra agree along it: it is the line in which their
central slices cross (Crowther, doi:10.1098/rstb.1971.0054). For every direction φ the lines L_t(k) of all images are moved,
scaled, and compared with their mean:

    misfit(φ) = Σ_k w(k) Σ_t |α_t e^(i k d_t) L_t(k, φ) − mean|²,       w = 1 / (noise + (RELATIVE_ERROR · signal)²)

The axis is where it is least.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from tomo.align.mass import centres_of_mass
from tomo.normalize import backgrounds, masses, particle_masks

log = logging.getLogger(__name__)

Array = NDArray[np.float64]
Lines = NDArray[np.complexfloating]

STEP_DEG = 1.0
PADDING = 2
"""Finer sampling of the spectra, so that lines between their points can be read off linearly."""
LOWEST_CYCLES = 3
"""Slower waves than so many over an image tell only how large the particle is."""
RELATIVE_ERROR = 0.05
ROUNDS = 4
LARGEST_STEP_PX, LARGEST_FACTOR = 1.0, 1.25
GROUPS, FEWEST_IN_GROUP = 4, 3
CLEAR_CONTRAST, LARGEST_ERROR_DEG = 1.1, 5.0
READING_ERROR_DEG = 0.1


@dataclass(frozen=True)
class TiltAxis:
    """direction_deg: φ of every tilt, from −90 to 90: the axis lies at (x, y) = (−sin φ, cos φ) in the images.

    error_deg: how far four parts of the series, each alone, scatter about it, and what the reading of spectra costs. contrast: median
    misfit of all directions over that along the axis. clear: whether the axis stands out and the parts of the series agree on it. An
    axis at φ and one at φ + 180° with all tilts reversed give the same images of a mirrored specimen: no image can tell them apart.
    """

    direction_deg: float
    error_deg: float
    contrast: float
    clear: bool


def tilt_axis(projections: NDArray[np.floating]) -> TiltAxis:
    """The axis about which the specimen was tilted between numpy projections (n, y, x), n at least 12.

    Images need not be aligned. Raises ValueError when shapes do not fit, values are not finite, or an image holds no mass.
    """
    if not isinstance(projections, np.ndarray) or projections.ndim != 3 or len(projections) < GROUPS * FEWEST_IN_GROUP:
        raise ValueError(
            f"projections have shape {getattr(projections, 'shape', None)}; expected a numpy array (n, y, x) of at least "
            f"{GROUPS * FEWEST_IN_GROUP} images to find a tilt axis."
        )
    if not np.isfinite(projections).all():
        raise ValueError("projections hold values that are not finite; mask or repair those pixels first.")
    directions = np.arange(-90.0, 90.0, STEP_DEG)
    lines, k = _lines(projections, directions)
    misfits = _misfits(lines, k)
    best = _lowest(misfits, directions)
    apart = [_in_half_turn(_lowest(_misfits(lines[g::GROUPS], k), directions) - best) for g in range(GROUPS)]
    error = float(np.hypot(np.sqrt(np.mean(np.square(apart))), READING_ERROR_DEG))
    contrast = float(np.median(misfits) / misfits.min())
    log.info("tilt axis at %.2f ± %.2f°, contrast %.2f", best, error, contrast)
    return TiltAxis(best, error, contrast, contrast > CLEAR_CONTRAST and error < LARGEST_ERROR_DEG)


def _lines(images: NDArray[np.floating], directions_deg: Array) -> tuple[Lines, Array]:
    """Spectra of images (n, y, x) of equal mass about their centres, along lines (n, directions, k), and k in rad per px."""
    masks = particle_masks(images)
    level = backgrounds(images, masks)
    clear = images - level.value[:, None, None]
    mass = masses(clear, masks, level.error).value
    if not (mass > 0).all():
        raise ValueError(f"image {int(np.argmin(mass))} has no mass above its background; leave this tilt out.")
    clear *= masks * (mass.mean() / mass)[:, None, None]
    centres = np.stack([centres_of_mass(clear, masks, level.error, axis).value for axis in (1, 2)], axis=1)
    half = np.array(images.shape[1:]) // 2
    side = PADDING * max(images.shape[1:])
    wave = (np.arange(side) - side // 2) * 2 * np.pi / side
    radius, turn = np.arange(PADDING * LOWEST_CYCLES, side // 2), np.radians(directions_deg)[:, None]
    at = np.stack([radius * np.cos(turn), -radius * np.sin(turn)]) + side // 2
    lines = []
    for image, (y, x) in zip(clear, centres + half, strict=True):
        spectrum = fft.fftshift(fft.fft2(image, s=(side, side))) * np.exp(1j * (wave[:, None] * y + wave * x))
        lines.append(ndimage.map_coordinates(spectrum, at, order=1))
    return np.stack(lines), radius * (2 * np.pi / side)


def _misfits(lines: Lines, k: Array) -> Array:
    """How far the lines (n, directions, k) differ, in units of the noise (directions,), moved and scaled to agree best."""
    power = np.square(np.abs(lines)).mean(axis=(0, 1))
    noise = power[-max(1, len(k) // 10) :].mean()
    weight = 1 / (noise + RELATIVE_ERROR**2 * power + np.finfo(np.float32).eps * power.max())
    moves, factors = np.zeros(lines.shape[:2]), np.ones(lines.shape[:2])
    n, placed = len(lines), lines
    for _ in range(ROUNDS):
        others = (placed.sum(axis=0) - placed) / (n - 1)
        product, square = weight * others.conj() * placed, weight * np.square(np.abs(others))
        step = (k * product.imag).sum(axis=2) / (k**2 * square).sum(axis=2)
        moves -= np.clip(step, -LARGEST_STEP_PX, LARGEST_STEP_PX)
        alike = np.maximum(product.real.sum(axis=2), square.sum(axis=2) / LARGEST_FACTOR)
        factors *= np.maximum(square.sum(axis=2) / alike, 1 / LARGEST_FACTOR)
        factors /= factors.mean(axis=0)
        placed = lines * np.exp(1j * moves[..., None] * k) * factors[..., None]
    apart = np.square(np.abs(placed - placed.mean(axis=0)))
    return np.asarray((weight * apart).sum(axis=(0, 2)) / ((n - 1) * len(k)), np.float64)


def _lowest(misfits: Array, directions_deg: Array) -> float:
    """Direction in degrees of the least misfit, between the given ones by a parabola."""
    k = int(misfits.argmin())
    before, middle, after = (float(misfits[(k + step) % len(misfits)]) for step in (-1, 0, 1))
    bend = before - 2 * middle + after
    part = 0.5 * (before - after) / bend if bend > 0 else 0.0
    return _in_half_turn(float(directions_deg[k]) + STEP_DEG * part)


def _in_half_turn(angle_deg: float) -> float:
    return (angle_deg + 90.0) % 180.0 - 90.0
