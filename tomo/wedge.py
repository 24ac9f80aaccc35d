"""What a tilt series does not see, from its rotations alone.

By the central slice theorem a tilt measures the plane of frequencies perpendicular to its beam. The planes of a series about one
axis share that axis and follow one another round it; the gap that is much wider than the others is the missing wedge. A
particle of diameter D gives every plane the thickness 1 / D, so that N planes spread over 180° fill space up to the frequency
N / (π D) (Crowther et al., doi:10.1098/rspa.1970.0119).

Directions and frequencies are (x, y, z) of the specimen; planes are counted by the angle, in degrees from x towards z for an axis
near y, at which they meet the plane perpendicular to the axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tomo.geometry import rotation

WIDE = 2.0
"""A gap wider than so many median gaps is a wedge that nobody measured."""

ONE_AXIS_DEG = 5.0
"""Beams of a series about one axis lie in a plane to within this angle; refined angles scatter by less."""
SAME_TILT_DEG = 0.1

_DIRECTIONS = 20_000


@dataclass(frozen=True, eq=False)
class Wedge:
    """The missing wedge of a series.

    axis: (3,) unit vector, the tilt axis. plane_deg: (n,) angle of the plane of each tilt, 0 to 180. opening_deg: the widest gap
    between neighbouring planes, 0 where all are alike. direction: (3,) unit vector in its middle, None without a wedge.
    share: part of all directions that no plane passed on its way from one tilt to the next. one_axis: whether the tilts share an
    axis; where they do not there is no wedge, and the share is that of directions far from every plane.
    """

    axis: NDArray[np.float64]
    plane_deg: NDArray[np.float64]
    opening_deg: float
    direction: NDArray[np.float64] | None
    share: float
    one_axis: bool


def wedge(angles_deg: ArrayLike) -> Wedge:
    """The missing wedge of tilts (n, 3); ValueError where the angles do not fit."""
    beams = rotation(angles_deg)[:, 2]
    axis, across, up = _frame(beams)
    plane_deg = _plane_deg(beams, axis, across, up)
    if np.abs(beams @ axis).max() > math.sin(math.radians(ONE_AXIS_DEG)):
        far = ~near_planes(_directions(), beams)
        return Wedge(axis, plane_deg, 0.0, None, float(far.mean()), False)
    order = in_sequence(plane_deg)
    gaps = _gaps(plane_deg[order])
    missing = _missing(gaps)
    share = float(1 - _swept(beams[order], missing).mean())
    if not missing[-1]:
        return Wedge(axis, plane_deg, 0.0, None, share, True)
    middle = np.deg2rad(plane_deg[order[-1]] + gaps[-1] / 2)
    return Wedge(axis, plane_deg, float(gaps[-1]), np.cos(middle) * across + np.sin(middle) * up, share, True)


def near_planes(directions: NDArray[np.floating], beams: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which directions (..., 3), of any length, lie near the plane of one of the tilts with beams (n, 3).

    Near is half a wide gap: what lies between neighbouring tilts is measured, what lies in a wedge is not.
    """
    between = np.degrees(np.arccos(np.clip(np.abs(beams @ beams.T), 0, 1)))
    between[between < SAME_TILT_DEG] = np.inf
    nearest = between.min(axis=1)
    usual = float(np.median(nearest[np.isfinite(nearest)])) if np.isfinite(nearest).any() else SAME_TILT_DEG
    within = math.sin(math.radians(min(WIDE * usual / 2, 90.0)))
    length = np.linalg.norm(directions, axis=-1)
    near = np.zeros(directions.shape[:-1], bool)
    for beam in beams:
        near |= np.abs(directions @ beam.astype(directions.dtype)) <= within * length
    return near


def sequence(angles_deg: ArrayLike) -> NDArray[np.int64]:
    """Numbers of the tilts (n,) in the order of their planes, from one rim of the widest gap to the other."""
    beams = rotation(angles_deg)[:, 2]
    return in_sequence(_plane_deg(beams, *_frame(beams)))


def in_sequence(plane_deg: NDArray[np.float64]) -> NDArray[np.int64]:
    """Numbers of planes (n,) by their angle, beginning behind the widest gap."""
    order = np.argsort(plane_deg, kind="stable")
    return np.roll(order, -1 - int(np.argmax(_gaps(plane_deg[order]))))


def unseen_share(angles_deg: ArrayLike, resolution: float, diameter: float) -> float:
    """Part of the directions in which the frequency 1 / resolution lies in no plane of thickness 1 / diameter.

    angles_deg: (n, 3) of any geometry. resolution, diameter: in one unit. ValueError where they are not positive.
    """
    if not (resolution > 0 and diameter > 0):
        raise ValueError(f"resolution is {resolution} and diameter {diameter}; expected positive lengths in one unit.")
    beams, directions = rotation(angles_deg)[:, 2], _directions()
    within = resolution / (2 * diameter)
    seen = np.zeros(len(directions), bool)
    for beam in beams:
        seen |= np.abs(directions @ beam) <= within
    return float(1 - seen.mean())


def crowther(count: int, diameter: float) -> float:
    """The finest detail π D / N that `count` evenly spread tilts fill space for, in the unit of the diameter."""
    return np.pi * diameter / count


def _frame(beams: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """The tilt axis, to which all beams (n, 3) are most nearly perpendicular, and two directions across it."""
    axis = np.linalg.eigh(beams.T @ beams)[1][:, 0]
    axis = axis * np.sign(axis[np.abs(axis).argmax()]) + 0.0
    across = np.eye(3)[0] if abs(axis[0]) < 0.9 else np.eye(3)[1]
    across = across - (across @ axis) * axis
    across /= np.linalg.norm(across)
    return axis, across, np.cross(across, axis)


def _plane_deg(
    beams: NDArray[np.float64], axis: NDArray[np.float64], across: NDArray[np.float64], up: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Where the planes perpendicular to the beams meet the plane of `across` and `up`, in degrees from 0 to 180."""
    line = np.cross(axis, beams)
    # Rounding must not part equal planes at either end of the half turn.
    return np.mod(np.round(np.degrees(np.arctan2(line @ up, line @ across)), 9), 180.0)


def _gaps(sorted_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angle from each plane to the next, (n,), the last to the first; half a turn where there is one plane only."""
    gaps = np.mod(np.roll(sorted_deg, -1) - sorted_deg, 180.0)
    return gaps if gaps.any() else np.append(gaps[1:], 180.0)


def _missing(gaps: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which gaps are wedges, by the median of all but the widest; tilts taken twice leave no gap and do not count."""
    usual = np.sort(gaps[gaps > 1e-6])[:-1]
    return gaps > (WIDE * np.median(usual) if len(usual) else 0.0)


def _swept(beams: NDArray[np.float64], missing: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which directions a plane passes between two neighbouring tilts (n, 3) in sequence, wedges left out."""
    facing = [beams[0]]
    for beam in np.roll(beams, -1, axis=0):
        facing.append(beam if beam @ facing[-1] >= 0 else -beam)
    side = _directions() @ np.array(facing).T > 0
    return (side[:, 1:] != side[:, :-1])[:, ~missing].any(axis=1)


def _directions() -> NDArray[np.float64]:
    """Unit vectors (m, 3) spread evenly over half a sphere along a Fibonacci spiral (doi:10.1007/s11004-009-9257-x)."""
    k = np.arange(_DIRECTIONS) + 0.5
    z, turn = 1 - k / _DIRECTIONS, np.pi * (1 + np.sqrt(5)) * k
    r = np.sqrt(1 - z**2)
    return np.column_stack([r * np.cos(turn), r * np.sin(turn), z])
