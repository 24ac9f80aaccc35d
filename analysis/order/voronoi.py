"""Voronoi cells: the part of space nearer to an atom than to any other, its volume, and the kind of polyhedron it is.

A polyhedron is told by the numbers ⟨n3, n4, n5, n6⟩ of its faces with three, four, five, six edges: J. L. Finney, Proc.
R. Soc. A 319, 479 (1970), doi:10.1098/rspa.1970.0189. Which of them make up metallic glasses: H. W. Sheng et al.,
Nature 439, 419 (2006), doi:10.1038/nature04421.

Small faces. Where more than four cells meet in a point, as in fcc, the least shift of an atom opens a small face or a
short edge there, and the polyhedron would have another name. So a face between two atoms counts only where its area is
at least `least_area` of the surface of their cells (the mean of both: a face counts for both atoms or for neither). A
face that does not count shrinks to a point, and its short edges vanish from all faces they belong to: the two faces
beside an edge are each seen without it, also where the face that is gone lies between two other atoms. An edge of it is
short if the square of its length is below 4 · least_area of the surface, so that the long sides of a sliver stay where
they are. With the default fcc keeps its ⟨0,12,0,0⟩, and bcc its ⟨0,6,0,8⟩, while atoms are off by up to 4 % of the
distance of neighbours. A simple cubic lattice, four cells of which meet along every edge, keeps its name only while it
is exact.

Closed cells. In a box periodic along all edges every cell is closed. In a particle a cell is closed where it is
bounded, all its vertices lie within the convex hull of the atoms, and none farther from the atom than `reach_A`. Cells
of atoms at the surface end in the open, far outside: they are not closed, and nothing is told of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import ArrayLike

from ..atoms import positions
from ..cell import Cell, images_within
from .ends import Array, Ints, Mask, chosen

MOTIFS: dict[tuple[int, int, int, int], str] = {
    (0, 0, 12, 0): "icosahedron <0,0,12,0>",
    (0, 1, 10, 2): "distorted icosahedron <0,1,10,2>",
    (0, 2, 8, 2): "distorted icosahedron <0,2,8,2>",
    (0, 2, 8, 1): "distorted icosahedron <0,2,8,1>",
    (0, 3, 6, 3): "mixed <0,3,6,3>",
    (0, 3, 6, 4): "mixed <0,3,6,4>",
    (0, 4, 4, 6): "crystal-like <0,4,4,6>",
    (0, 6, 0, 8): "bcc <0,6,0,8>",
    (0, 12, 0, 0): "fcc or hcp <0,12,0,0>",
    (0, 6, 0, 0): "simple cubic <0,6,0,0>",
    (0, 3, 6, 0): "Kasper Z9 <0,3,6,0>",
    (0, 2, 8, 0): "Kasper Z10 <0,2,8,0>",
    (0, 0, 12, 2): "Kasper Z14 <0,0,12,2>",
    (0, 0, 12, 3): "Kasper Z15 <0,0,12,3>",
    (0, 0, 12, 4): "Kasper Z16 <0,0,12,4>",
}
"""Names of polyhedra by ⟨n3, n4, n5, n6⟩. Kasper: F. C. Frank & J. S. Kasper, doi:10.1107/S0365110X58000487."""

FIRST_MARGIN = 3.5
"""Times the spacing of atoms, up to which images about a box are looked at first; it does for open networks such as silica."""
_LARGEST = 12
_CHUNK = 5_000_000


@dataclass(frozen=True, eq=False)
class VoronoiCells:
    """The Voronoi cell of every atom.

    faces: integers (n, 10), number of faces with 3, 4, … 12 edges; the last column holds those with more too.
    volume_A3: (n,), all small faces included. coordination: (n,) number of faces that count. closed: (n,); where False,
    volume is nan and the counts are 0.
    """

    faces: Ints
    volume_A3: Array
    closed: Mask
    coordination: Ints

    def __len__(self) -> int:
        return len(self.closed)

    @property
    def index(self) -> Ints:
        """⟨n3, n4, n5, n6⟩ of every atom, (n, 4)."""
        return self.faces[:, :4]

    @property
    def pentagons(self) -> Array:
        """Share of each cell's faces that have five edges, (n,); nan for open cells."""
        share = np.full(len(self), np.nan)
        total = self.faces.sum(axis=1)
        return np.divide(self.faces[:, 2], total, out=share, where=total > 0)


@dataclass(frozen=True, eq=False)
class _Diagram:
    """Faces between atoms and their images: atoms (f, 2), area (f,), apart (f,) in Å; corners in compressed rows.

    points: (k, 3), the n atoms first; face f separates points[pair[f]], and has the corners
    vertices[corner[start[f]:start[f + 1]]]; infinite: whether one of them is at infinity.
    """

    points: Array
    pair: Ints
    vertices: Array
    start: Ints
    corner: Ints
    infinite: Mask
    area: Array


def voronoi(
    positions_A: ArrayLike, cell: Cell | None = None, *, least_area: float = 0.01, reach_A: float | None = None
) -> VoronoiCells:
    """Voronoi cells of atoms; the head of this module says which faces count and which cells are closed.

    positions_A: (n, 3) in Å; cell: the box of a periodic model. least_area: share of a cell's surface below which a
    face does not count, 0 ≤ … < 0.2; 0 counts all. reach_A: the farthest vertex of a closed cell in a particle; None =
    1.5 times the median of the bounded cells' within the hull. Atoms that span no volume have open cells only.
    ValueError for other shares, and for a periodic box with two atoms in the same place.
    """
    at = positions(positions_A)
    if not 0 <= least_area < 0.2:
        raise ValueError(f"least_area is {least_area}; expected a share of a cell's surface, from 0 to below 0.2")
    diagram, closed = _closed_diagram(at, cell, reach_A)
    if diagram is None:
        return _open_cells(len(at))
    return _told(diagram, closed, least_area)


def motifs(cells: VoronoiCells, of: ArrayLike | None = None) -> dict[str, int]:
    """How many closed cells have each of the known shapes, most frequent first; all others are told under "other".

    of: mask (n,) of the atoms that count; all if None.
    """
    faces = cells.faces[cells.closed & chosen(of, len(cells))].tolist()
    names = ["other" if any(more) else MOTIFS.get((a, b, c, d), "other") for a, b, c, d, *more in faces]
    return dict(Counter(names).most_common())


def pentagon_share(cells: VoronoiCells, of: ArrayLike | None = None) -> float:
    """Share of pentagons among all faces of the closed cells; nan where there is none.

    It tells the five-fold order of a glass: 0 in fcc and bcc, 1 in an icosahedron. of: mask (n,); all atoms if None.
    """
    faces = cells.faces[cells.closed & chosen(of, len(cells))].sum(axis=0)
    return float(faces[2] / faces.sum()) if faces.any() else float("nan")


def _open_cells(n: int) -> VoronoiCells:
    none = np.zeros(n, np.int64)
    return VoronoiCells(np.zeros((n, _LARGEST - 2), np.int64), np.full(n, np.nan), none.astype(bool), none)


def _closed_diagram(at: Array, cell: Cell | None, reach_A: float | None) -> tuple[_Diagram | None, Mask]:
    """The diagram of the atoms and of so many images that no closed cell would change with more."""
    n = len(at)
    closed = np.zeros(n, bool)
    if cell is None or not any(cell.periodic) or n == 0:
        diagram = _diagram(at)
        return diagram, closed if diagram is None else _closed(diagram, n, reach_A)
    margin = FIRST_MARGIN * (cell.volume_A3 / n) ** (1 / 3)
    while True:
        diagram = _diagram(images_within(at, margin, cell)[2])
        if diagram is not None:
            _refuse_doubled(diagram, n)
            far = _farthest(diagram, n)
            closed = np.ones(n, bool) if cell.whole else _closed(diagram, n, reach_A)
            needed = 2 * far[closed].max(initial=0)
            if needed <= margin:
                return diagram, closed
            # Cells only shrink as images are added, so this many are enough.
            if needed < 2 * margin:
                margin = needed * (1 + 1e-9)
                continue
        elif margin > 2 * np.linalg.norm(cell.vectors_A, axis=1).max():
            return None, closed
        margin *= 1.5


def _refuse_doubled(diagram: _Diagram, n: int) -> None:
    """An atom in the place of another has no face; its cell would never close."""
    alone = np.flatnonzero(np.bincount(diagram.pair.ravel(), minlength=n)[:n] == 0)
    if alone.size:
        raise ValueError(f"atom {alone[0]} stands in the same place as another; expected atoms in different places")


def _diagram(points: Array) -> _Diagram | None:
    """None where the points span no volume."""
    from scipy.spatial import QhullError, Voronoi

    if len(points) < 5:
        return None
    try:
        found = Voronoi(points - points.mean(axis=0))
    except QhullError:
        return None
    number = np.fromiter(map(len, found.ridge_vertices), np.int64, len(found.ridge_vertices))
    start = np.concatenate([[0], np.cumsum(number)])
    corner = np.fromiter(chain.from_iterable(found.ridge_vertices), np.int64, start[-1])
    infinite = np.logical_or.reduceat(corner < 0, start[:-1])
    vertices, pair = found.vertices + points.mean(axis=0), found.ridge_points.astype(np.int64)
    area = np.where(infinite, np.inf, _areas(vertices, start, corner))
    return _Diagram(points, pair, vertices, start, corner, infinite, area)


def _areas(vertices: Array, start: Ints, corner: Ints) -> Array:
    """Area (f,) of flat polygons in compressed rows."""
    number = np.diff(start)
    from_first = vertices[corner] - np.repeat(vertices[corner[start[:-1]]], number, axis=0)
    turn = np.cross(from_first, from_first[_following(start)])
    return 0.5 * np.linalg.norm(np.add.reduceat(turn, start[:-1]), axis=1)


def _following(start: Ints) -> Ints:
    """Place of the next corner along the polygon of each corner, round to its first."""
    after = np.arange(1, start[-1] + 1)
    after[start[1:] - 1] = start[:-1]
    return after


def _farthest(diagram: _Diagram, n: int) -> Array:
    """Distance (n,) of the farthest vertex of each atom's cell; inf for open cells and atoms without one."""
    face = np.repeat(np.arange(len(diagram.pair)), np.diff(diagram.start))
    far = np.zeros(len(diagram.points))
    distance = np.linalg.norm(diagram.vertices[diagram.corner] - diagram.points[diagram.pair[face, 0]], axis=1)
    distance[diagram.corner < 0] = np.inf
    for side in (0, 1):
        np.maximum.at(far, diagram.pair[face, side], distance)
    return np.where(far > 0, far, np.inf)[:n]


def _closed(diagram: _Diagram, n: int, reach_A: float | None) -> Mask:
    """Which of the first n cells of a particle are closed."""
    far, inside = _farthest(diagram, n), _within_hull(diagram, n)
    bounded = np.isfinite(far) & inside
    if not bounded.any():
        return bounded
    return bounded & (far <= (1.5 * np.median(far[bounded]) if reach_A is None else reach_A))


def _within_hull(diagram: _Diagram, n: int) -> Mask:
    """Whether all vertices of each of the first n cells lie in the convex hull of the points."""
    from scipy.spatial import ConvexHull

    planes = ConvexHull(diagram.points).equations
    tolerance = 1e-9 * np.ptp(diagram.points, axis=0).max()
    middle = diagram.points.mean(axis=0)
    inner = -(planes[:, :3] @ middle + planes[:, 3]).max()  # a ball about the middle that is all inside
    asked = np.flatnonzero(np.linalg.norm(diagram.vertices - middle, axis=1) >= inner)
    outside = np.zeros(len(diagram.vertices), bool)
    for some in np.array_split(asked, 1 + len(asked) * len(planes) // _CHUNK):
        outside[some] = (diagram.vertices[some] @ planes[:, :3].T + planes[:, 3]).max(axis=1) > tolerance
    sticks = np.logical_or.reduceat(outside[diagram.corner] | (diagram.corner < 0), diagram.start[:-1])
    inside = np.ones(len(diagram.points), bool)
    inside[diagram.pair[sticks].ravel()] = False
    return inside[:n]


def _told(diagram: _Diagram, closed: Mask, least_area: float) -> VoronoiCells:
    """Counts and volumes of the closed cells."""
    n, ends = len(closed), diagram.pair.ravel()
    surface = np.bincount(ends, np.repeat(diagram.area, 2), minlength=len(diagram.points))
    shared = _shared_surface(np.asarray(surface[diagram.pair], np.float64))
    kept = diagram.area >= np.maximum(least_area, 1e-12) * np.where(np.isfinite(shared), shared, 0)
    edges = _edges(diagram, kept, shared, least_area)
    of_kept = diagram.pair[kept]
    column = np.clip(edges[kept], 3, _LARGEST) - 3
    table = np.zeros((len(diagram.points), _LARGEST - 2), np.int64)
    for side in (0, 1):
        np.add.at(table, (of_kept[:, side], column), 1)
    faces = np.where(closed[:, None], table[:n], 0)
    volume = np.where(closed, _volumes(diagram)[:n], np.nan)
    return VoronoiCells(faces, volume, closed, faces.sum(axis=1))


def _shared_surface(both: Array) -> Array:
    """Mean surface (f,) of the two cells beside a face, that of the bounded one where the other is open."""
    finite = np.isfinite(both)
    total = np.where(finite, both, 0).sum(axis=1)
    return np.where(finite.any(axis=1), total / np.maximum(finite.sum(axis=1), 1), np.inf)


def _volumes(diagram: _Diagram) -> Array:
    """Volume of every cell, as pyramids from the atom on its faces; half the atoms' distance is their height."""
    apart = np.linalg.norm(diagram.points[diagram.pair[:, 0]] - diagram.points[diagram.pair[:, 1]], axis=1)
    pyramids = np.repeat(diagram.area * apart / 6, 2)
    return np.bincount(diagram.pair.ravel(), pyramids, minlength=len(diagram.points)).astype(np.float64)


def _edges(diagram: _Diagram, kept: Mask, shared: Array, least_area: float) -> Ints:
    """Number of edges (f,) of every face that are left when the faces not kept have shrunk to points."""
    corner, after = diagram.corner, diagram.corner[_following(diagram.start)]
    low, high = np.minimum(corner, after), np.maximum(corner, after)
    face = np.repeat(np.arange(len(kept)), np.diff(diagram.start))
    length = np.linalg.norm(diagram.vertices[low] - diagram.vertices[high], axis=1)
    _, edge = np.unique((low + 1) * (len(diagram.vertices) + 1) + high + 1, return_inverse=True)
    loose = np.bincount(edge, ~kept[face])[edge] > 0
    limit = np.where(np.isfinite(shared), shared, 0)[face]
    vanishes = (loose & (length**2 < 4 * least_area * limit)) | (length**2 < 1e-12 * limit)
    return np.bincount(face, ~(vanishes & (low >= 0)), minlength=len(kept)).astype(np.int64)
