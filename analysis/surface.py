"""Which atoms of a particle lie on its surface: the alpha shape of the atoms.

Of the Delaunay tetrahedra those count as matter whose circumscribed sphere is smaller than a stated radius: a ball of
that radius cannot pass between their atoms. Atoms with a face towards the outside are surface atoms.
H. Edelsbrunner & E. P. Mücke, ACM Trans. Graph. 13, 43 (1994), doi:10.1145/174462.156635.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .atoms import positions
from .cell import Cell, images_within

PROBE = 2.0
"""Radius of the ball in units of the cube root of the volume per atom: it passes into no cage of a dense network."""


def surface_atoms(
    positions_A: ArrayLike, cell: Cell | None = None, *, probe_A: float | None = None, depth_A: float = 0.0
) -> NDArray[np.bool_]:
    """Which atoms (n,) lie on the surface, or within `depth_A` of an atom that does.

    positions_A: (n, 3). cell: a box that repeats in all directions has no surface. probe_A: radius of the ball that rolls
    over the particle; twice the cube root of the volume per atom where left out. Atoms in one plane are all surface.
    """
    at = positions(positions_A)
    if cell is not None and cell.whole:
        return np.zeros(len(at), bool)
    probe = probe_A or PROBE * _spacing(at, cell)
    _, _, images = images_within(at, 2 * probe, cell)
    outside = np.zeros(len(images), bool)
    outside[_outer_corners(images, probe)] = True
    surface = outside[: len(at)]
    if depth_A > 0 and outside.any():
        from scipy.spatial import cKDTree

        surface = cKDTree(images[outside]).query(at, distance_upper_bound=depth_A)[0] <= depth_A
    return surface


def _spacing(at: NDArray[np.float64], cell: Cell | None) -> float:
    """Cube root of the volume per atom."""
    from .pdf import occupied_A3

    if cell is None and (len(at) < 2 or not np.ptp(at, axis=0).any()):
        return 1.0
    return float((occupied_A3(at, cell) / len(at)) ** (1 / 3)) if len(at) else 1.0


def _outer_corners(at: NDArray[np.float64], probe: float) -> NDArray[np.int64]:
    """Atoms (with repeats) of the faces between matter and outside, and all that touch no matter."""
    from scipy.spatial import Delaunay, QhullError

    everything = np.arange(len(at))
    if len(at) < 5:
        return everything
    try:
        corners = Delaunay(at).simplices.astype(np.int64)
    except QhullError:
        return everything  # all in one plane
    corners = np.sort(corners[_circumradius(at[corners]) < probe], axis=1)
    faces = np.concatenate([np.delete(corners, k, axis=1) for k in range(4)])
    _, first, count = np.unique(faces, axis=0, return_index=True, return_counts=True)
    return np.concatenate([faces[first[count == 1]].ravel(), np.setdiff1d(everything, corners)])


def _circumradius(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Radius (m,) of the sphere through the four corners (m, 4, 3); of flat ones, as lattices have, half the longest edge."""
    edges = corners[:, 1:] - corners[:, :1]
    squares = (edges**2).sum(axis=2)
    volume = np.abs(np.linalg.det(edges))
    cross = np.cross(np.roll(edges, -1, axis=1), np.roll(edges, -2, axis=1))
    top = np.linalg.norm((squares[..., None] * cross).sum(axis=1), axis=1)
    pairs = corners[:, [0, 0, 0, 1, 1, 2]] - corners[:, [1, 2, 3, 2, 3, 3]]
    longest = np.linalg.norm(pairs, axis=2).max(axis=1)
    return np.divide(top, 2 * volume, out=longest / 2, where=volume > 1e-6 * longest**3)
