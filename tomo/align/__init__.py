"""Alignment of a tilt series from the images alone: no markers, no reference.

Perpendicular to the tilt axis images are brought together by their centre of mass, along it by their common line, as in
Scott et al., doi:10.1038/nature10934; intensities by the conservation of mass. Every correction comes with its standard
error, and is applied only as far as it stands clear of it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tomo.align.common_line import displacements
from tomo.align.mass import centres_of_mass
from tomo.align.shift import shifted
from tomo.geometry import checked_stack, rotation
from tomo.normalize import Measured, backgrounds, masses, particle_masks, settled

log = logging.getLogger(__name__)

# Turned further than this off the common axis, images share no common line to a fraction of a pixel.
COMMON_AXIS_DEG = 1.0


@dataclass(frozen=True)
class Alignment:
    """Aligned projections (n, y, x) float32, and what was done to each: scale · shifted(image − background).

    shifts_px (n, 2) as (y, x): content moved by so much; scales (n,); backgrounds (n,) in the units of the input.
    shift_errors_px (n, 2) and scale_errors (n,): standard errors of the measurements behind them.
    """

    projections: NDArray[np.float32]
    shifts_px: NDArray[np.float64]
    scales: NDArray[np.float64]
    backgrounds: NDArray[np.float64]
    shift_errors_px: NDArray[np.float64]
    scale_errors: NDArray[np.float64]


def align(
    projections: NDArray[np.floating],
    angles_deg: ArrayLike,
    *,
    centre_of_mass: bool = True,
    common_line: bool = True,
    normalise: bool = True,
) -> Alignment:
    """Align and normalise numpy projections (n, y, x) at angles_deg (n, 3); afterwards index n // 2 is the rotation centre.

    centre_of_mass: move centres of mass to coordinate 0; with common_line across the tilt axis only, else along both axes.
    common_line: bring images together along y by their common profile; all φ and ψ must be near zero.
    normalise: subtract the background of the rim and bring all images to the same mass.
    Raises ValueError when shapes or angles do not fit, or an image holds no particle or values that are not finite.
    """
    angles = checked_stack(projections, angles_deg)
    _check(projections, angles, common_line)
    images = projections.astype(np.float32)
    masks = particle_masks(images)
    measured = backgrounds(images, masks)
    level = settled(measured, np.ones((len(images), 1)))
    images -= level.astype(np.float32)[:, None, None]
    mass = masses(images, masks, measured.error)
    if not (mass.value > 0).all():
        raise ValueError(f"tilt {int(np.argmin(mass.value))} has no mass above its background; leave it out.")
    shifts, shift_errors = _shifts(images, masks, measured.error, angles, centre_of_mass, common_line)
    images = np.stack([shifted(image, shift) for image, shift in zip(images, shifts, strict=True)])
    scales, scale_errors = _scales(mass)
    log.info("alignment: rms shift (y, x) %s px", np.sqrt((shifts**2).mean(axis=0)).round(3))
    if normalise:
        images *= scales.astype(np.float32)[:, None, None]
    else:
        images += level.astype(np.float32)[:, None, None]
        scales, level = np.ones(len(images)), np.zeros(len(images))
    return Alignment(images, shifts, scales, level, shift_errors, scale_errors)


def _shifts(
    images: NDArray[np.float32],
    masks: NDArray[np.bool_],
    background_error: NDArray[np.float64],
    angles: NDArray[np.float64],
    centre_of_mass: bool,
    common_line: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shifts (n, 2) as (y, x) to apply, and the standard errors of their measurement."""
    shifts, errors = np.zeros((len(images), 2)), np.zeros((len(images), 2))
    centres = [centres_of_mass(images, masks, background_error, axis) for axis in (1, 2)]
    line = displacements(images, masks) if common_line else None
    for column, seen in enumerate(centres):
        if column == 0 and line is not None:
            # The common line knows the images relative to each other, the mass knows where all of them lie.
            offset = (seen.value - line.value).mean() if centre_of_mass else 0.0
            seen = Measured(line.value + offset, line.error)
        elif not centre_of_mass:
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


def _check(projections: NDArray[np.floating], angles: NDArray[np.float64], common_line: bool) -> None:
    if not isinstance(projections, np.ndarray):
        raise ValueError(f"projections are a {type(projections).__name__}; expected a numpy array (n, y, x).")
    if not np.isfinite(projections).all():
        raise ValueError("projections hold values that are not finite; mask or repair those pixels first.")
    off = np.abs(angles[:, [0, 2]]).max()
    if common_line and off > COMMON_AXIS_DEG:
        raise ValueError(
            f"common_line needs all tilts about y, but φ or ψ reaches {off:.3g}° (limit {COMMON_AXIS_DEG:g}°); "
            "pass common_line=False to align by the centre of mass along both axes."
        )
