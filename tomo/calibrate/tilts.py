"""What is refined of every tilt, as one value: how it is turned, shifted, scaled, and its background.

The model of an image is  scale · (A x, moved by shift) + background. A turn is a rotation vector ω in the frame of the image
(x, y, beam): R ← exp(ω×) R. What no image can tell is fixed: the mean turn against the angles given (a rotation of the
specimen), the translation of the specimen that the shifts have in common, and the mean of the scales.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tomo.geometry import nearest_angles, rotation

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Tilts:
    """rotations (n, 3, 3), shifts_px (n, 2) as (x, y), scales (n,), backgrounds (n,) in the units of the images."""

    rotations: Array
    shifts_px: Array
    scales: Array
    backgrounds: Array

    @classmethod
    def at(cls, angles_deg: Array) -> Tilts:
        """Unshifted, equally bright, without background."""
        n = len(angles_deg)
        return cls(rotation(angles_deg), np.zeros((n, 2)), np.ones(n), np.zeros(n))

    def some(self, which: NDArray[np.integer] | slice) -> Tilts:
        """A copy of some of the tilts, by their numbers."""
        parts = (self.rotations, self.shifts_px, self.scales, self.backgrounds)
        return Tilts(*(part[which].copy() for part in parts))

    def seen(self, points_px: Array) -> Array:
        """Where points (m, 3) as (x, y, z) in px are seen: (n, m, 3), the third along the beam."""
        out = points_px @ self.rotations.transpose(0, 2, 1)
        out[..., :2] += self.shifts_px[:, None]
        return out

    def turned(self, turns_rad: Array, shifts_px: Array) -> Tilts:
        """After turns by rotation vectors (n, 3) and shifts (n, 2) as (x, y)."""
        from scipy.spatial.transform import Rotation

        rotations = Rotation.from_rotvec(turns_rad).as_matrix() @ self.rotations
        return replace(self, rotations=rotations, shifts_px=self.shifts_px + shifts_px)

    def angles_deg(self, near_deg: Array) -> Array:
        """Euler angles (n, 3) of the rotations, of the two ways to write each the one nearer to `near_deg`."""
        return nearest_angles(self.rotations, near_deg)


def common_turn(rotations: Array, reference: Array) -> Array:
    """The rotation G (3, 3) of the specimen for which reference · G is nearest to the rotations (n, 3, 3)."""
    u, _, vt = np.linalg.svd(np.einsum("nji,njk->ik", reference, rotations))
    return u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt


def turns_between(rotations: Array, reference: Array) -> Array:
    """Rotation vectors (n, 3) in degrees that lead from reference · G to the rotations, G their common turn."""
    from scipy.spatial.transform import Rotation

    start = reference @ common_turn(rotations, reference)
    return Rotation.from_matrix(rotations @ start.transpose(0, 2, 1)).as_rotvec(degrees=True)


def common_translation(rotations: Array, shifts_px: Array) -> Array:
    """The translation (x, y, z) in px of the specimen that explains most of the shifts (n, 2) as (x, y)."""
    return np.asarray(np.linalg.lstsq(rotations[:, :2].reshape(-1, 3), shifts_px.ravel(), rcond=None)[0], np.float64)


def in_gauge(tilts: Tilts, reference: Array) -> tuple[Tilts, Array, Array]:
    """The tilts with the common turn, translation and scale taken out, and with them the turn G (3, 3) and the translation
    (3,): a point at r before is at G (r + translation) after."""
    translation = common_translation(tilts.rotations, tilts.shifts_px)
    shifts = tilts.shifts_px - tilts.rotations[:, :2] @ translation
    turn = common_turn(tilts.rotations, reference)
    fixed = Tilts(tilts.rotations @ turn.T, shifts, tilts.scales / tilts.scales.mean(), tilts.backgrounds)
    return fixed, turn, translation
