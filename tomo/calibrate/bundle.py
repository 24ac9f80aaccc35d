"""Points and tilts adjusted together, linearised: the Gauss-Newton step, and how sure its end is.

    (H − Wᵀ V⁻¹ W) δ = −(g − Wᵀ V⁻¹ g_points)

with H the curvature in the tilts, V the 3 × 3 blocks of the points and W what couples them (bundle adjustment; Triggs et al.,
doi:10.1007/3-540-44480-7_21). C, the inverse of the left side, would be the covariance of the tilts if points explained the
images up to counting noise. They do not: their overlap and their surroundings are left over. So the right side is taken to
pieces, one for each point in each tilt, and what these pieces scatter is brought through C (White, doi:10.2307/1912934):

    covariance = C (Σ pieces · piecesᵀ) C
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomo.calibrate.tilts import Tilts

Array = NDArray[np.float64]

DAMPING, POINT_DAMPING = 1e-3, 0.01
MODES = 1e-7
"""Combinations of tilts whose curvature is a smaller share of the largest are those no image tells."""


@dataclass(frozen=True, eq=False)
class Linear:
    """The mismatch of n tilts and m points to first and second order.

    along_x, along_y: two (n, m, 5), how fast points move in the images with the turns and shifts of their tilt. pull: (n, m, 2),
    derivative in the place (x, y) where each is seen. rotations: (n, 3, 3). slope (n, 5), curvature (n, 5, 5), point_slope (m, 3),
    block (m, 3, 3), coupling (m, 3, n, 5).
    """

    along_x: Array
    along_y: Array
    pull: Array
    rotations: Array
    slope: Array
    curvature: Array
    coupling: NDArray[np.float32]
    point_slope: Array
    block: Array

    @property
    def size(self) -> tuple[int, int]:
        """Tilts and points."""
        return len(self.slope), len(self.point_slope)


def linearised(tilts: Tilts, places_seen: Array, pulls: Array) -> Linear:
    """From where points are seen (n, m, 3), and derivative and curvature in these places (n, m, 5) as (x, y, xx, xy, yy)."""
    n, m = pulls.shape[:2]
    s = tilts.scales[:, None]
    gx, gy = s * pulls[..., 0], s * pulls[..., 1]
    xx, xy, yy = (s * s * pulls[..., k] for k in (2, 3, 4))
    along = [_rates(seen - np.append(shift, 0.0)) for seen, shift in zip(places_seen, tilts.shifts_px, strict=True)]
    slope, curvature, coupling = np.zeros((n, 5)), np.zeros((n, 5, 5)), np.empty((m, 3, n, 5), np.float32)
    point_slope, block = np.zeros((m, 3)), np.zeros((m, 3, 3))
    for t, (jx, jy) in enumerate(along):
        a, b = tilts.rotations[t, 0], tilts.rotations[t, 1]
        slope[t] = gx[t] @ jx + gy[t] @ jy
        bent_x, bent_y = xx[t, :, None] * jx + xy[t, :, None] * jy, xy[t, :, None] * jx + yy[t, :, None] * jy
        curvature[t] = jx.T @ bent_x + jy.T @ bent_y
        coupling[:, :, t] = a[:, None] * bent_x[:, None] + b[:, None] * bent_y[:, None]
        point_slope += gx[t, :, None] * a + gy[t, :, None] * b
        block += xx[t, :, None, None] * np.outer(a, a) + yy[t, :, None, None] * np.outer(b, b)
        block += xy[t, :, None, None] * (np.outer(a, b) + np.outer(b, a))
    block += np.eye(3) * (POINT_DAMPING * np.einsum("mii->m", block).mean() / 3 + np.finfo(np.float64).tiny)
    along_x, along_y = (np.stack(part) for part in zip(*along, strict=True))
    pull = np.stack([gx, gy], axis=2)
    return Linear(along_x, along_y, pull, tilts.rotations, slope, curvature, coupling, point_slope, block)


def steps(linear: Linear, free: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Steps of the tilts (n, 5) and of the points (m, 3) that lead to the least mismatch; free: (5,), which may move."""
    n, m = linear.size
    covariance, lower, leaning = _inverse(linear, free)
    pulled = np.einsum("mij,mj->mi", lower, linear.point_slope).ravel()
    change = -covariance @ (linear.slope.ravel() - leaning.T @ pulled)
    own = linear.point_slope + (linear.coupling.reshape(m, 3, 5 * n) @ change.astype(np.float32)).astype(np.float64)
    return change.reshape(n, 5), -np.linalg.solve(linear.block, own[..., None])[..., 0]


def standard_errors(linear: Linear, free: NDArray[np.bool_]) -> Array:
    """Standard deviations (n, 5) of the turns and shifts, from the scatter of what each point in each tilt pulls at them."""
    n, m = linear.size
    covariance, lower, _ = _inverse(linear, free)
    inverse = (lower.transpose(0, 2, 1) @ lower).astype(np.float32)
    following = inverse @ linear.coupling.reshape(m, 3, 5 * n)
    scatter = np.zeros((5 * n, 5 * n))
    for t in range(n):
        gx, gy = linear.pull[t, :, :1], linear.pull[t, :, 1:]
        on_points = (gx * linear.rotations[t, 0] + gy * linear.rotations[t, 1]).astype(np.float32)
        pieces = -(on_points[:, None] @ following)[:, 0]
        pieces[:, 5 * t : 5 * t + 5] += gx * linear.along_x[t] + gy * linear.along_y[t]
        scatter += pieces.T @ pieces
    scatter *= 2 * n * m / max(2 * n * m - 3 * m - 5 * n, 1)
    return np.sqrt(np.maximum(np.diag(covariance @ scatter @ covariance), 0)).reshape(n, 5)


def _inverse(linear: Linear, free: NDArray[np.bool_]) -> tuple[Array, Array, NDArray[np.float32]]:
    """Inverse (5n, 5n) of the curvature in the tilts when the points follow, lower factors (m, 3, 3) of the inverse blocks, and
    these times the coupling (3m, 5n)."""
    n, m = linear.size
    lower = np.linalg.inv(np.linalg.cholesky(linear.block))
    leaning = (lower.astype(np.float32) @ linear.coupling.reshape(m, 3, 5 * n)).reshape(3 * m, 5 * n)
    system = np.zeros((5 * n, 5 * n))
    for t in range(n):
        part = slice(5 * t, 5 * t + 5)
        system[part, part] = linear.curvature[t] * (1 + DAMPING * np.eye(5))
    system -= (leaning.T @ leaning).astype(np.float64)
    moving = np.tile(free, n)
    inverse = np.zeros_like(system)
    inverse[np.ix_(moving, moving)] = np.linalg.pinv(system[np.ix_(moving, moving)], rcond=MODES, hermitian=True)
    return inverse, lower, leaning


def _rates(seen: Array) -> tuple[Array, Array]:
    """How fast points seen at (x, y, z) (m, 3) move along x and y with the turns and shifts of their tilt: two (m, 5)."""
    x, y, z = seen.T
    none, one = np.zeros_like(x), np.ones_like(x)
    return np.stack([none, z, -y, one, none], axis=1), np.stack([-z, none, x, none, one], axis=1)
