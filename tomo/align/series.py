"""The steps of an alignment in their order: outline, background, mass, positions, refined positions, one resampling.

All measurements are made on the images as they came, moved by whatever is known at that point, and each image is
resampled once, at the end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tomo.align import COMMON_AXIS_DEG, Alignment, Steps
from tomo.align.common_line import displacements
from tomo.align.mass import centres_of_mass
from tomo.align.match import FEWEST_TILTS, matched
from tomo.align.shift import shifted, turned
from tomo.geometry import rotation
from tomo.normalize import Measured, backgrounds, masses, particle_masks, settled

log = logging.getLogger(__name__)


def aligned(
    projections: NDArray[np.floating],
    angles: NDArray[np.float64],
    steps: Steps,
    progress: Callable[[int, int, float], None] | None,
) -> Alignment:
    """Align checked projections (n, y, x) at angles (n, 3): the work of tomo.align."""
    images = projections.astype(np.float32)
    masks = particle_masks(images)
    measured = backgrounds(images, masks)
    level = settled(measured, np.ones((len(images), 1)))
    images -= level.astype(np.float32)[:, None, None]
    mass = masses(images, masks, measured.error)
    if not (mass.value > 0).all():
        worst = int(np.argmin(mass.value))
        raise ValueError(
            f"the image at θ = {angles[worst, 1]:+.4g}° (number {worst} from 0) has no mass above its background; leave this "
            "tilt out."
        )
    shifts, shift_errors = _shifts_about_axis(images, masks, measured.error, angles, steps)
    scales, scale_errors = _scales(mass)
    if steps.match and len(images) >= FEWEST_TILTS:
        even = images * scales.astype(np.float32)[:, None, None]
        best = matched(even, masks, angles, shifts, steps.match_blur_px, progress)
        shifts, shift_errors = best.value, best.error
    images = np.stack([shifted(image, shift) for image, shift in zip(images, shifts, strict=True)])
    log.info("alignment: rms shift (y, x) %s px", np.sqrt((shifts**2).mean(axis=0)).round(3))
    if steps.normalise:
        images *= scales.astype(np.float32)[:, None, None]
    else:
        images += level.astype(np.float32)[:, None, None]
        scales, level = np.ones(len(images)), np.zeros(len(images))
    return Alignment(images, shifts, scales, level, shift_errors, scale_errors)


def _shifts_about_axis(
    images: NDArray[np.float32],
    masks: NDArray[np.bool_],
    background_error: NDArray[np.float64],
    angles: NDArray[np.float64],
    steps: Steps,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """As `_shifts`, measured in images whose tilt axis is turned to y where it is known to lie elsewhere."""
    axis_deg = float(angles[:, 0].mean())
    if not steps.common_line or abs(axis_deg) <= COMMON_AXIS_DEG:
        return _shifts(images, masks, background_error, angles, steps)
    upright = np.stack([turned(image, -axis_deg) for image in images])
    outlines = np.stack([turned(mask, -axis_deg, order=0) for mask in masks])
    shifts, errors = _shifts(upright, outlines, background_error, angles - [axis_deg, 0.0, 0.0], steps)
    c, s = np.cos(np.radians(axis_deg)), np.sin(np.radians(axis_deg))
    back = np.array([[c, s], [-s, c]])
    return shifts @ back.T, np.sqrt(errors**2 @ (back**2).T)


def _shifts(
    images: NDArray[np.float32],
    masks: NDArray[np.bool_],
    background_error: NDArray[np.float64],
    angles: NDArray[np.float64],
    steps: Steps,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shifts (n, 2) as (y, x) to apply, and the standard errors of their measurement."""
    shifts, errors = np.zeros((len(images), 2)), np.zeros((len(images), 2))
    centres = [centres_of_mass(images, masks, background_error, axis) for axis in (1, 2)]
    line = displacements(images, masks) if steps.common_line else None
    for column, seen in enumerate(centres):
        if column == 0 and line is not None:
            # The common line knows the images relative to each other, the mass knows where all of them lie.
            offset = (seen.value - line.value).mean() if steps.centre_of_mass else 0.0
            seen = Measured(line.value + offset, line.error)
        elif not steps.centre_of_mass:
            continue
        # A specimen off the axis moves like a point on it; that and a constant are no noise.
        basis = np.column_stack([rotation(angles)[:, 1 - column], np.ones(len(angles))])
        shifts[:, column], errors[:, column] = -settled(seen, basis), seen.error
    return shifts, errors


def _scales(mass: Measured) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Factors (n,) that bring all masses to their mean, and the errors of the factors."""
    mean = mass.value.mean()
    relative = Measured(mass.value / mean, mass.error / mean)
    settled_mass = settled(relative, np.ones((len(mass.value), 1)), expected=1.0)
    return 1.0 / settled_mass, relative.error / settled_mass**2
