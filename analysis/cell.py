"""The box an amorphous or crystalline model may be periodic in, and the pairs of atoms near each other, images included.

A point r and its image r + s·V are the same atom, V the rows of edge vectors, s whole numbers, zero along an edge that is
not periodic. Of every pair of images one is told: atom i as it stands, and atom j moved by the shift s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_NEIGHBOURS = 64
"""Neighbours per atom on average above which a list of pairs is refused: no bonds are that many, and memory would run out."""
MOST_IMAGES = 50_000_000
_CHUNK, _CHUNK_PAIRS = 20_000, 4_000_000


@dataclass(frozen=True, eq=False)
class Cell:
    """Edges of a box and along which of them it repeats.

    vectors_A: (3, 3), one edge per row, Å; an edge along which nothing repeats may be zero. periodic: three flags. ValueError
    for edges that span no volume.
    """

    vectors_A: Array
    periodic: tuple[bool, bool, bool] = (True, True, True)

    def __post_init__(self) -> None:
        vectors = np.asarray(self.vectors_A, dtype=np.float64)
        if vectors.shape != (3, 3) or not np.isfinite(vectors).all():
            raise ValueError(f"cell has shape {vectors.shape}; expected three edges of three finite numbers, in Å")
        vectors = _completed(vectors, self.periodic)
        edges = np.linalg.norm(vectors, axis=1)
        if not abs(np.linalg.det(vectors)) > 1e-9 * edges.prod() > 0:
            raise ValueError(f"the edges {vectors.tolist()} of the cell span no volume; expected three that do")
        object.__setattr__(self, "vectors_A", vectors)
        object.__setattr__(self, "periodic", tuple(bool(flag) for flag in self.periodic))

    @property
    def volume_A3(self) -> float:
        return float(abs(np.linalg.det(self.vectors_A)))

    @property
    def heights_A(self) -> Array:
        """Distance between opposite faces along each edge, (3,)."""
        return 1 / np.linalg.norm(np.linalg.inv(self.vectors_A), axis=0)

    @property
    def whole(self) -> bool:
        """Whether the box repeats along all three edges, so that the model has no surface."""
        return all(self.periodic)


def _completed(vectors: Array, periodic: tuple[bool, bool, bool]) -> Array:
    """The edges, zero ones along which nothing repeats replaced by unit vectors across the others."""
    missing = [k for k in range(3) if not vectors[k].any() and not periodic[k]]
    if not missing:
        return vectors
    across = np.linalg.svd(vectors)[2][3 - len(missing) :]
    filled = vectors.copy()
    filled[missing] = across
    return filled


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of atoms: indices (m,) `first` and `second`, shift (m, 3) of the second, and the vector (m, 3) to it in Å."""

    first: Ints
    second: Ints
    shift: Ints
    vector_A: Array

    @property
    def distance_A(self) -> Array:
        return np.linalg.norm(self.vector_A, axis=1)

    def select(self, keep: ArrayLike) -> Pairs:
        """The pairs that a mask or an index array picks."""
        keep = np.asarray(keep)
        return Pairs(self.first[keep], self.second[keep], self.shift[keep], self.vector_A[keep])

    def both_ways(self) -> Pairs:
        """Every pair seen from either atom, sorted by the first."""
        ends = np.concatenate([self.first, self.second]), np.concatenate([self.second, self.first])
        both = Pairs(*ends, np.concatenate([self.shift, -self.shift]), np.concatenate([self.vector_A, -self.vector_A]))
        return both.select(np.lexsort((both.second, both.first)))


def pairs_within(positions_A: Array, reach_A: float, cell: Cell | None = None) -> Pairs:
    """All pairs of atoms up to `reach_A` apart, each once, first ≤ second, sorted; images of an atom are its neighbours too.

    positions_A: (n, 3). ValueError where there are more than 64 neighbours per atom.
    """
    parts, count, most = [], 0, MOST_NEIGHBOURS // 2 * max(len(positions_A), 100)
    for part in pairs_in_chunks(positions_A, reach_A, cell):
        parts.append(part)
        count += len(part.first)
        if count > most:
            raise ValueError(
                f"more than {MOST_NEIGHBOURS} neighbours per atom lie within {reach_A:g} Å; expected those of bonds: "
                "the distance is too long, or the coordinates are not in Å"
            )
    if not parts:
        none = np.zeros(0, np.int64)
        return Pairs(none, none, np.zeros((0, 3), np.int64), np.zeros((0, 3)))
    names = ("first", "second", "shift", "vector_A")
    pairs = Pairs(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
    return pairs.select(np.lexsort((*pairs.shift.T[::-1], pairs.second, pairs.first)))


def images_within(positions_A: Array, reach_A: float, cell: Cell | None) -> tuple[Ints, Ints, Array]:
    """Atoms and all images up to `reach_A` outside the box: index (k,), shift (k, 3), position (k, 3); the atoms come first.

    Shifts are counted from where the atoms stand, wherever that is.
    """
    n = len(positions_A)
    index, home = np.arange(n), np.zeros((n, 3), np.int64)
    if cell is None or not any(cell.periodic):
        return index, home, positions_A
    periodic = np.array(cell.periodic)
    inside = positions_A @ np.linalg.inv(cell.vectors_A)
    whole = np.where(periodic, np.floor(inside), 0).astype(np.int64)
    inside = inside - whole
    margin = np.where(periodic, reach_A / cell.heights_A * (1 + 1e-9) + 1e-9, np.inf)
    copies = np.where(periodic, np.ceil(margin), 0).astype(int)
    images = n * float(np.prod(1 + 2 * np.where(periodic, margin, 0)))
    if images > MOST_IMAGES:
        raise ValueError(
            f"{images:.2g} images of atoms lie within {reach_A:g} Å of the box; expected at most {MOST_IMAGES:.0e}: "
            "the distance is too long for this box"
        )
    every = [(index, home)]
    for step in product(*(range(-c, c + 1) for c in copies)):
        if any(step):
            near = ((inside + step >= -margin) & (inside + step <= 1 + margin)).all(axis=1)
            every.append((index[near], np.asarray(step) + np.zeros((near.sum(), 1), np.int64)))
    which: Ints = np.concatenate([one for one, _ in every])
    # Images are images of the atom moved into the box; the shift is told against where it stands.
    shift = np.concatenate([one for _, one in every])
    moved = shift - whole[which]
    return which, moved, positions_A[which] + moved @ cell.vectors_A


def pairs_in_chunks(positions_A: Array, reach_A: float, cell: Cell | None = None) -> Iterator[Pairs]:
    """The same pairs in pieces of bounded memory, in no order."""
    from scipy.spatial import cKDTree

    n = len(positions_A)
    if n == 0:
        return
    which, shift, at = images_within(positions_A, reach_A, cell)
    tree = cKDTree(at)
    # Room for rounding: distances are computed afresh, and whoever asks decides at the very limit.
    reach = reach_A * (1 + 1e-12) + 1e-12
    size = min(_CHUNK, max(1, _CHUNK_PAIRS // max(_crowd(tree, at[:n], reach), 1)))
    for begin in range(0, n, size):
        some = cKDTree(at[begin : begin + size])
        near = some.sparse_distance_matrix(tree, reach, output_type="ndarray")
        first, image = near["i"] + begin, near["j"]
        second, apart = which[image], shift[image] - shift[first]
        ahead = (first < second) | ((first == second) & positive(apart))
        first, image, second, apart = first[ahead], image[ahead], second[ahead], apart[ahead]
        yield Pairs(first, second, apart, at[image] - at[first])


def _crowd(tree: cKDTree, at: Array, reach: float) -> int:
    """The most images within reach of some of the atoms."""
    some = at[:: max(1, len(at) // 50)]
    return int(tree.query_ball_point(some, reach, return_length=True).max())


def positive(shift: Ints) -> NDArray[np.bool_]:
    """Whether the first number of each shift that is not zero is positive: of s and −s this takes one."""
    x, y, z = shift.T
    return (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
