"""Self-calibration of a tilt series: turns, shifts, scale and background of every tilt from the images alone.

    volume by RESIRE at the tilts as they are known → its peaks → peaks and tilts adjusted together → better volume → …

first with coarse, then with the given pixels. A volume alone would not do: made with wrong angles, it explains its images nearly
as well as one made with the right ones. See `tomo.calibrate.points`. It needs images in which atoms can be told apart, and a start
that is right to a few degrees and about one atomic distance; it says so when it does not settle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tomo.arrays import library_of
from tomo.geometry import checked_stack

Array = NDArray[np.float64]


class NoAtomsError(ValueError):
    """The images do not show enough separate atoms to calibrate by."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """What was found of every tilt; a projection is  scale · (A x at angles_deg, moved by shifts_px) + background.

    angles_deg: (n, 3) Euler angles. shifts_px: (n, 2) as (y, x). scales: (n,), mean 1. backgrounds: (n,) in the units of the images.
    angle_sigma_deg: (n, 3) standard deviations of turns about the x and y axis of the image and about the beam; shift_sigma_px:
    (n, 2) as (y, x); scale_sigma, background_sigma: (n,). They hold counting noise and what the points leave unexplained, if that
    is independent from point to point. What is not refined has zero.
    chi2: (n,) mean square of what is left in units of the noise. strays: numbers of the tilts that fit worse than the others.
    turns_deg: rms turn of all tilts by each volume that was made, shifts counted as the turn that moves the rim as far. converged:
    whether the last of them was small.
    """

    angles_deg: Array
    shifts_px: Array
    scales: Array
    backgrounds: Array
    angle_sigma_deg: Array
    shift_sigma_px: Array
    scale_sigma: Array
    background_sigma: Array
    chi2: Array
    strays: tuple[int, ...]
    turns_deg: tuple[float, ...]
    converged: bool

    def applied(self, projections: NDArray[np.floating]) -> NDArray[np.floating]:
        """The calibrated projections (n, y, x) put right: background taken off, equally bright, moved back."""
        from tomo.align.shift import shifted

        level, scale = (a.astype(projections.dtype)[:, None, None] for a in (self.backgrounds, self.scales))
        even = (projections - level) / scale
        return np.stack([shifted(image, -shift) for image, shift in zip(even, self.shifts_px, strict=True)])


def calibrate(
    projections: Any,
    angles_deg: ArrayLike,
    *,
    min_distance_px: float,
    angles: bool | tuple[bool, bool, bool] = True,
    shifts: bool | tuple[bool, bool] = True,
    scales: bool = True,
    backgrounds: bool = True,
    volumes: int = 6,
    tolerance_deg: float = 0.02,
    progress: Callable[[int, int, float], None] | None = None,
    threads: int | None = None,
) -> Calibration:
    """Calibrate projections (n, y, x) that are nearly aligned, at nearly right angles_deg (n, 3).

    Of cupy projections volumes are made on the device, and adjusted on the host.
    min_distance_px: least distance of two atoms in pixels; it sets how coarse the first volumes may be. angles: whether turns about
    the x and y axis of the image and about the beam are refined, shifts: likewise along y and x, scales and backgrounds likewise.
    volumes: most volumes that are made. tolerance_deg: rms turn between two volumes below which the tilts have settled.
    progress(done, most, rms turn in degrees) is told of each volume.
    Angles and shifts are given in the gauge of the input: what all tilts turn or move in common is left out, for it would only
    turn or move the specimen.
    Raises ValueError for arguments that do not fit, NoAtomsError where the images show too few separate atoms.
    """
    given = _checked(projections, angles_deg, min_distance_px)
    if volumes < 1:
        raise ValueError(f"volumes is {volumes}; expected a positive whole number.")
    free = np.array([*_each(angles, 3), *_each(shifts, 2)[::-1], scales, backgrounds])
    # Imported here: the image filters behind it take longer to import than all the rest of the library.
    from tomo.calibrate.levels import settle

    images = projections.astype(np.float32)
    return settle(
        images.get() if hasattr(images, "get") else images,
        given,
        min_distance_px,
        free,
        volumes,
        tolerance_deg,
        progress,
        threads,
        library_of(images),
    )


def _each(switch: bool | tuple[bool, ...], count: int) -> tuple[bool, ...]:
    return (switch,) * count if isinstance(switch, bool) else switch


def _checked(projections: Any, angles_deg: ArrayLike, min_distance_px: float) -> Array:
    angles = checked_stack(projections, angles_deg)
    if not bool(library_of(projections).isfinite(projections).all()):
        raise ValueError("projections hold values that are not finite; mask or repair those pixels first.")
    if not min_distance_px >= 3:
        raise ValueError(f"min_distance_px is {min_distance_px}; expected at least 3 pixels from atom to atom.")
    return angles
