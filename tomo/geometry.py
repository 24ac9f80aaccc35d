"""Where a point of the specimen is seen: the one owner of the tilt convention.

A tilt is three intrinsic Euler angles (φ, θ, ψ) in degrees about Z, Y, X. The point r = (x, y, z) of the specimen is
seen at R r, with R = Rz(φ) Ry(θ) Rx(ψ); the beam runs along +z, so its image lies at the first two components of R r.
In words: +90° about z sends x to y, +90° about y sends z to x, +90° about x sends y to z.

Index n // 2 is coordinate 0 along every axis of images (y, x) and volumes (z, y, x).
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def rotation(angles_deg: ArrayLike) -> NDArray[np.float64]:
    """Rotation matrices R = Rz(φ) Ry(θ) Rx(ψ) that act on (x, y, z) column vectors.

    angles_deg: (n, 3) Euler angles (φ, θ, ψ) in degrees. Returns (n, 3, 3) float64.
    Raises ValueError when angles_deg is not (n, 3) or holds a value that is not finite.
    """
    angles = checked_angles(angles_deg)
    (cz, cy, cx), (sz, sy, sx) = (_cos_deg(angles).T, _cos_deg(90.0 - angles).T)
    return np.stack(
        [
            np.stack([cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx], axis=-1),
            np.stack([sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx], axis=-1),
            np.stack([-sy, cy * sx, cy * cx], axis=-1),
        ],
        axis=-2,
    )


def checked_angles(angles_deg: ArrayLike) -> NDArray[np.float64]:
    """Euler angles as float64 (n, 3); integer types as narrow as uint8 are welcome. Raises ValueError otherwise."""
    angles = np.asarray(angles_deg, dtype=np.float64)
    if angles.ndim != 2 or angles.shape[1] != 3:
        raise ValueError(
            f"angles_deg has shape {angles.shape}; expected (n, 3), one row (φ, θ, ψ) in degrees per tilt; "
            "for tilts θ about y alone give rows (0, θ, 0)."
        )
    if not len(angles):
        raise ValueError("angles_deg has no rows; expected at least one tilt (φ, θ, ψ) in degrees.")
    if not np.isfinite(angles).all():
        raise ValueError("angles_deg holds values that are not finite; expected degrees; drop or repair those tilts.")
    return angles


def checked_stack(projections: Any, angles_deg: ArrayLike) -> NDArray[np.float64]:
    """Check that projections are (n, y, x) with one row of angles per image, and return the angles (n, 3)."""
    angles = checked_angles(angles_deg)
    if projections.ndim != 3 or len(projections) != len(angles):
        raise ValueError(
            f"projections have shape {projections.shape} but angles_deg has {len(angles)} rows; "
            "expected (n, y, x) with one row of angles per image."
        )
    return angles


def is_tilt_about_y(rotations: NDArray[np.float64]) -> bool:
    """Whether every rotation (n, 3, 3) leaves the y axis in place, so that slices along y are independent."""
    return bool(np.allclose(rotations[:, 1], [0.0, 1.0, 0.0], rtol=0.0, atol=1e-12))


def subvoxel_offsets(subvoxels: tuple[int, int, int]) -> NDArray[np.float64]:
    """Centres of the equal parts of a voxel, (m, 3) as (x, y, z) in voxels, for subvoxels parts along (z, y, x).

    Two parts lie at ±1/4, three at 0 and ±1/3. Raises ValueError for factors that are no whole numbers of at least 1.
    """
    if len(subvoxels) != 3 or any(int(parts) != parts or parts < 1 for parts in subvoxels):
        raise ValueError(f"subvoxels is {subvoxels}; expected three factors (z, y, x), each a whole number.")
    z, y, x = ((np.arange(parts) + 0.5) / parts - 0.5 for parts in subvoxels)
    return np.array([(xi, yi, zi) for zi, yi, xi in itertools.product(z, y, x)])


def _cos_deg(angles_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosine that is exact at multiples of 90°, where cos(π/2) in floating point would leave 6e-17."""
    quarter = np.round(angles_deg / 90.0)
    rest = np.deg2rad(angles_deg - 90.0 * quarter)
    turn = quarter.astype(np.int64) % 4
    return np.choose(turn, [np.cos(rest), -np.sin(rest), -np.cos(rest), np.sin(rest)])


def nearest_angles(rotations: NDArray[np.float64], near_deg: ArrayLike) -> NDArray[np.float64]:
    """Euler angles (n, 3) in degrees of rotations (n, 3, 3): of the two ways to write each, and of all full turns, the one
    nearest to near_deg (n, 3)."""
    near = checked_angles(near_deg)
    theta = np.arcsin(np.clip(-rotations[:, 2, 0], -1.0, 1.0))
    phi = np.arctan2(rotations[:, 1, 0], rotations[:, 0, 0])
    psi = np.arctan2(rotations[:, 2, 1], rotations[:, 2, 2])
    first = np.rad2deg(np.stack([phi, theta, psi], axis=1))
    second = first * [1.0, -1.0, 1.0] + [180.0, 180.0, 180.0]
    both = np.stack([first, second])
    both += 360.0 * np.round((near - both) / 360.0)
    nearer = np.abs(both - near).sum(axis=2).argmin(axis=0)
    return both[nearer, np.arange(len(near))]
