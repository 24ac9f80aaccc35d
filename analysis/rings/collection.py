"""Rings as a value: flat arrays inside, a sequence of tuples of atom indices outside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

Ring = tuple[int, ...]
Ints = NDArray[np.int64]
Piece = tuple[NDArray[np.int32], Ints, Ints]


@dataclass(frozen=True, eq=False)
class RingList(Sequence[Ring]):
    """Rings in canonical form and order: tuples of atom indices, smallest first, second ≤ last; by size, then by indices.

    tables: {size: atoms (rings, size)}, ascending. shift_tables: {size: shifts (rings, size, 3)} in edges of the periodic
    box, the first atom's zero; empty where nothing is periodic.
    """

    tables: dict[int, NDArray[np.int32]]
    shift_tables: dict[int, NDArray[np.int16]]

    def __len__(self) -> int:
        return sum(map(len, self.tables.values()))

    @overload
    def __getitem__(self, index: int) -> Ring: ...
    @overload
    def __getitem__(self, index: slice) -> list[Ring]: ...
    def __getitem__(self, index: int | slice) -> Ring | list[Ring]:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        at = index + len(self) if index < 0 else index
        for table in self.tables.values():
            if 0 <= at < len(table):
                return tuple(table[at].tolist())
            at -= len(table)
        raise IndexError(f"ring {index} of {len(self)}")

    def __iter__(self) -> Iterator[Ring]:
        for table in self.tables.values():
            yield from map(tuple, table.tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    @property
    def shifts(self) -> list[list[list[int]]]:
        """Per ring, the shift of every atom; empty where nothing is periodic."""
        return [ring for table in self.shift_tables.values() for ring in table.tolist()]

    @property
    def sizes(self) -> dict[int, int]:
        """How many rings there are of each size that occurs, smallest first."""
        return {size: len(table) for size, table in self.tables.items() if len(table)}

    def of_sizes(self, least: int, most: int) -> RingList:
        """The rings of `least` to `most` atoms."""
        inside = [size for size in self.tables if least <= size <= most]
        shifts = {size: self.shift_tables[size] for size in inside if size in self.shift_tables}
        return RingList({size: self.tables[size] for size in inside}, shifts)

    def through(self, n_atoms: int) -> dict[int, Ints]:
        """Per size, how many rings pass through each atom, (n_atoms,)."""
        return {size: np.bincount(table.ravel(), minlength=n_atoms) for size, table in self.tables.items()}


def size_histogram(rings: Iterable[Sequence[int]]) -> dict[int, int]:
    """How many rings there are of each size that occurs, smallest first."""
    return rings.sizes if isinstance(rings, RingList) else dict(sorted(Counter(map(len, rings)).items()))


def alternating_share(rings: Iterable[Sequence[int]], symbols: Sequence[str]) -> dict[int, float]:
    """Share of the rings of each size in which no two neighbours are of the same element; 0 for odd sizes of two."""
    tables = rings.tables if isinstance(rings, RingList) else _tables(rings)
    names = np.unique(np.array(symbols, dtype=np.str_), return_inverse=True)[1]
    found = {}
    for size, table in sorted(tables.items()):
        elements = names[table]
        if len(table):
            found[size] = float((elements != np.roll(elements, 1, axis=1)).all(axis=1).mean())
    return found


def _tables(rings: Iterable[Sequence[int]]) -> dict[int, NDArray[np.int32]]:
    by_size: dict[int, list[Sequence[int]]] = {}
    for ring in rings:
        by_size.setdefault(len(ring), []).append(ring)
    return {size: np.array(some, dtype=np.int32) for size, some in by_size.items()}


def gathered(pieces: list[Piece], labels: Ints, periodic: bool) -> RingList:
    """All rings of the pieces, each once, atoms named by their labels, in canonical form and order."""
    every = sorted({int(size) for sizes, _, _ in pieces for size in np.unique(sizes)})
    tables, shift_tables = {}, {}
    for size in every:
        atoms, shifts = _of_size(pieces, size)
        atoms, shifts = _turned(labels[atoms], shifts)
        if periodic:
            atoms, shifts = _one_of_images(atoms, shifts)
        keys = (*shifts.reshape(len(atoms), -1).T[::-1], *atoms.T[::-1]) if periodic else tuple(atoms.T[::-1])
        order = np.lexsort(keys)
        atoms, shifts = atoms[order], shifts[order]
        new = np.ones(len(atoms), bool)
        new[1:] = (atoms[1:] != atoms[:-1]).any(axis=1) | (shifts[1:] != shifts[:-1]).any(axis=(1, 2))
        tables[size] = atoms[new].astype(np.int32)
        if periodic:
            shift_tables[size] = shifts[new].astype(np.int16)
    return RingList(tables, shift_tables)


def _of_size(pieces: list[Piece], size: int) -> tuple[Ints, Ints]:
    """Atoms (rings, size) and shifts (rings, size, 3) of the rings of one size."""
    atoms, shifts = [], []
    for sizes, members, moved in pieces:
        begin = np.cumsum(sizes) - sizes
        which = begin[sizes == size][:, None] + np.arange(size)
        atoms.append(members[which])
        shifts.append(moved[which])
    return np.concatenate(atoms), np.concatenate(shifts)


def _turned(atoms: Ints, shifts: Ints) -> tuple[Ints, Ints]:
    """Every ring read from its smallest index, the first of equals, towards the smaller neighbour; first shift zero."""
    n, size = atoms.shape
    start = atoms.argmin(axis=1)
    rows = np.arange(n)
    ahead, behind = atoms[rows, (start + 1) % size], atoms[rows, start - 1]
    step = np.where(ahead <= behind, 1, -1)
    order = (start[:, None] + step[:, None] * np.arange(size)) % size
    shifts = shifts[rows[:, None], order]
    return atoms[rows[:, None], order], shifts - shifts[:, :1]


def _one_of_images(atoms: Ints, shifts: Ints) -> tuple[Ints, Ints]:
    """Rings whose form is not told by their indices alone are read in the least of all ways, so that images are equal."""
    least = atoms[:, :1]
    doubtful = ((atoms == least).sum(axis=1) > 1) | (atoms[:, 1] == atoms[:, -1])
    for k in np.flatnonzero(doubtful):
        atoms[k], shifts[k] = _least_reading(atoms[k], shifts[k])
    return atoms, shifts


def _least_reading(atoms: Ints, shifts: Ints) -> tuple[Ints, Ints]:
    size = len(atoms)
    ways = []
    for start in np.flatnonzero(atoms == atoms.min()):
        for step in (1, -1):
            order = (start + step * np.arange(size)) % size
            moved = shifts[order] - shifts[order[0]]
            ways.append((atoms[order].tolist(), moved.tolist()))
    found, moved = min(ways)
    return np.array(found), np.array(moved)
