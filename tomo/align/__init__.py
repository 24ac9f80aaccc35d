"""Alignment of a tilt series from the images alone: no markers, no reference.

Perpendicular to the tilt axis images are brought together by their centre of mass, along it by their common line, as in
Scott et al., doi:10.1038/nature10934, and both are refined against projections of the volume from the other tilts;
intensities are evened out by the conservation of mass. Every correction comes with its standard error, and is applied
only where the series shows more than noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tomo.geometry import checked_stack

# Turned further than this off the common axis, images share no common line to a fraction of a pixel.
COMMON_AXIS_DEG = 1.0


@dataclass(frozen=True)
class Steps:
    """What align is asked to do; see there."""

    centre_of_mass: bool
    common_line: bool
    normalise: bool
    match: bool
    match_blur_px: float


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
    match: bool = True,
    match_blur_px: float = 2.0,
    progress: Callable[[int, int, float], None] | None = None,
) -> Alignment:
    """Align and normalise numpy projections (n, y, x) at angles_deg (n, 3): index n // 2 becomes the rotation centre.

    centre_of_mass: move centres of mass to coordinate 0, along both axes; with common_line, along y only on average.
    common_line: bring images together along the tilt axis by their common profile; all φ must be near each other, ψ near zero.
    normalise: subtract the background of the rim and bring all images to the same mass.
    match: refine both positions against projections of the volume from the other tilts, seen at a blur of match_blur_px
    (about the width of an atom); needs 12 tilts. progress(done, total, rms step in px) is told of its rounds.
    Raises ValueError when shapes or angles do not fit, or an image holds no particle or values that are not finite.
    """
    angles = _checked(projections, angles_deg, common_line)
    # Imported here: the image filters behind it take longer to import than all the rest of the library.
    from tomo.align.series import aligned

    steps = Steps(centre_of_mass, common_line, normalise, match, match_blur_px)
    return aligned(projections, angles, steps, progress)


def _checked(projections: NDArray[np.floating], angles_deg: ArrayLike, common_line: bool) -> NDArray[np.float64]:
    if not isinstance(projections, np.ndarray):
        raise ValueError(f"projections are a {type(projections).__name__}; expected a numpy array (n, y, x).")
    angles = checked_stack(projections, angles_deg)
    if not np.isfinite(projections).all():
        raise ValueError("projections hold values that are not finite; mask or repair those pixels first.")
    if common_line and not share_axis(angles):
        raise ValueError(
            f"common_line needs all tilts about one axis, but φ or ψ is off by more than {COMMON_AXIS_DEG:g}°; "
            "set common_line to false to align by the centre of mass along both axes."
        )
    return angles


def share_axis(angles_deg: ArrayLike) -> bool:
    """Whether all tilts (n, 3) turn about one axis, near enough to share a common line."""
    angles = np.asarray(angles_deg, np.float64)
    return bool(np.abs(angles[:, [0, 2]] - [angles[:, 0].mean(), 0.0]).max() <= COMMON_AXIS_DEG)
