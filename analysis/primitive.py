"""Primitive (shortest-path) rings by breadth-first search from all atoms at once, one bit per pair of atoms.

`reach[k]` is a bit matrix: bit s of row v tells whether atoms s and v are at most k bonds apart. A ring is found from
its smallest index s, the root, going out: two arms of equal length meet in one atom k bonds away (ring of 2k atoms) or
in a bond whose two ends are k bonds away (2k + 1). Which roots and which tops may have a ring is decided for all roots
together by logic on whole rows; only those few are then walked back, both arms in step, dropping a pair of arms as soon
as two of its atoms are nearer in the network than along the ring. It is enough to compare the most distant pairs: if
opposite atoms have no shortcut, no others have. D. S. Franzblau, Phys. Rev. B 44, 4925 (1991),
doi:10.1103/PhysRevB.44.4925.

Standard shapes: bit matrices (n + 1, words) uint64, the last row always empty; neighbours (n, degree) int64 padded with n.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint64]
Ints = NDArray[np.int64]

_CHUNK = 1 << 17
_BLOCK = 32
"""Words of roots searched together: some bit matrices of that width stay in the processor's cache."""


def primitive_rings(n: int, pairs: Ints, max_size: int) -> list[list[int]]:
    """Every primitive ring of at most `max_size` atoms, canonical (smallest index first, second < last), unsorted.

    pairs: int64 (m, 2), the distinct bonds of n atoms.
    """
    if len(pairs) == 0:
        return []
    near = _neighbour_table(n, pairs)
    search = _Search(near, _reach(near, max_size // 2 - 1))
    return [ring for rows in search.found(pairs, max_size) for ring in rows.tolist()]


def _neighbour_table(n: int, pairs: Ints) -> Ints:
    """Neighbours of every atom (n, largest degree), filled up with n."""
    ends = np.concatenate([pairs, pairs[:, ::-1]])
    ends = ends[np.lexsort((ends[:, 1], ends[:, 0]))]
    degree = np.bincount(ends[:, 0], minlength=n)
    slot = np.arange(len(ends)) - np.repeat(np.cumsum(degree) - degree, degree)
    near = np.full((n, degree.max()), n, dtype=np.int64)
    near[ends[:, 0], slot] = ends[:, 1]
    return near


def _identity(n: int) -> Bits:
    """Bit v of row v, in rows of whole 64-bit words; bit s is in byte s // 8, highest bit first; one empty row more."""
    rows = np.zeros((n + 1, -(-n // 64) * 8), dtype=np.uint8)
    atom = np.arange(n)
    rows[atom, atom >> 3] = 128 >> (atom & 7)
    return rows.view(np.uint64)


def _smaller(n: int) -> Bits:
    """Bits 0 ... v - 1 of row v, laid out as in `_identity`."""
    rows = np.zeros((n + 1, -(-n // 64) * 8), dtype=np.uint8)
    atom = np.arange(n)
    rows[:n][np.arange(rows.shape[1]) < (atom >> 3)[:, None]] = 255
    rows[atom, atom >> 3] = 0xFF00 >> (atom & 7) & 0xFF
    return rows.view(np.uint64)


def _rows_of_slots(near: Ints) -> Iterator[tuple[Ints, Ints]]:
    """For each slot of the neighbour table the atoms that have one there, and that neighbour."""
    for slot in near.T:
        atoms = np.flatnonzero(slot < len(near))
        yield atoms, slot[atoms]


def _reach(near: Ints, steps: int) -> Bits:
    """Pairs at most 0, 1, ... `steps` bonds apart, (steps + 1, n + 1, words)."""
    n = len(near)
    slots = list(_rows_of_slots(near))
    start = _identity(n)
    reach = np.empty((steps + 1, *start.shape), dtype=np.uint64)
    reach[0] = start
    for k in range(steps):
        now, further = reach[k], reach[k + 1]
        further[:] = now
        for atoms, others in slots:
            further[atoms] |= now[others]
    return reach


def _set_bits(rows: Bits, begin: int) -> tuple[Ints, Ints]:
    """Row and bit number of every bit that is set in rows whose first word is word `begin`."""
    row, word = np.nonzero(rows)
    bits = np.unpackbits(rows[row, word][:, None].view(np.uint8), axis=1)
    entry, bit = np.nonzero(bits)
    return row[entry], (begin + word[entry]) * 64 + bit


class _Search:
    """Walks from tops back to roots; holds what every step looks up.

    A half-walked ring is a row of atoms: root, top, then from the top downwards the left and the right atom of each
    level; `level` is the distance from the root. Rings with a bond for a top repeat the root in place of the top.
    """

    def __init__(self, near: Ints, reach: Bits) -> None:
        self.near = near
        self.slots = list(_rows_of_slots(near))
        self.reach = reach
        self.bytes = reach.view(np.uint8)

    def found(self, pairs: Ints, max_size: int) -> Iterator[Ints]:
        """Rings of 3 ... `max_size` atoms as integer arrays (rings, size), one block of roots after the other."""
        smaller = _smaller(len(self.near))
        for begin in range(0, smaller.shape[1], _BLOCK):
            block = slice(begin, begin + _BLOCK)
            paths = self.reach[0, :, block]
            for k in range(1, max_size // 2 + 1):
                paths, forks = self._step(paths, smaller[:, block] & ~self.reach[k - 1, :, block])
                for top, root in _chunks(*_set_bits(forks, begin)):
                    yield self._walk(self._fork(root, top, k), 2 * k)
                if 2 * k < max_size:
                    for bond, root in _chunks(*_set_bits(paths[pairs[:, 0]] & paths[pairs[:, 1]], begin)):
                        yield self._walk(np.column_stack([root, root, pairs[bond]]), 2 * k + 1)

    def _step(self, paths: Bits, allowed: Bits) -> tuple[Bits, Bits]:
        """Roots with a shortest path one bond longer to each atom over larger indices, and those with two last steps."""
        once = np.zeros_like(paths)
        twice = np.zeros_like(paths)
        for atoms, others in self.slots:
            arriving = paths[others]
            known = once[atoms]
            twice[atoms] |= known & arriving
            once[atoms] = known | arriving
        return once & allowed, twice & allowed

    def _fork(self, root: Ints, top: Ints, k: int) -> Ints:
        """Rows (root, top, left, right) for every two last steps towards each top, k bonds from its root."""
        left, right = np.triu_indices(self.near.shape[1], 1)
        back = self._back(root, top, k - 1)
        which, pair = np.nonzero(back[:, left] & back[:, right])
        steps = self.near[top[which]]
        each = np.arange(len(which))
        return np.column_stack([root[which], top[which], steps[each, left[pair]], steps[each, right[pair]]])

    def _back(self, root: Ints, atom: Ints, level: int) -> NDArray[np.bool_]:
        """Which neighbours of each atom lie `level` bonds from the root and above it in index, (rows, degree)."""
        steps = self.near[atom]
        return (steps > root[:, None]) & self._within(level, steps, root[:, None])

    def _walk(self, rows: Ints, size: int) -> Ints:
        """Complete rings (rings, size) that grow from rows whose two arms stand at their topmost level."""
        level = (size - 1) // 2
        rows = self._without_shortcut(rows, 1, level, size)
        while level > 1 and len(rows):
            level -= 1
            for side in (0, 1):
                back = self._back(rows[:, 0], rows[:, -2], level)
                which, slot = np.nonzero(back)
                rows = np.column_stack([rows[which], self.near[rows[which, -2], slot]])
                rows = self._without_shortcut(rows, side, level, size)
        return _in_ring_order(rows, size) if level == 1 else np.zeros((0, size), dtype=np.int64)

    def _without_shortcut(self, rows: Ints, side: int, level: int, size: int) -> Ints:
        """Rows whose newest atom has no shortcut to the atoms of the other arm most distant from it along the ring."""
        half, first = size // 2, (size - 1) // 2
        for partner in {half - level, size - half - level, level}:
            along = min(level + partner, size - level - partner)
            column = 2 + 2 * (first - partner) + (1 - side)
            if level <= partner <= first and along > 1 and column < rows.shape[1] - 1:
                rows = rows[~self._within(along - 1, rows[:, -1], rows[:, column])]
        return rows

    def _within(self, steps: int, atom: Ints, other: Ints) -> NDArray[np.bool_]:
        """Whether each atom is at most `steps` bonds away from the other."""
        return (self.bytes[steps][atom, other >> 3] >> (7 - (other & 7)).astype(np.uint8) & 1).astype(bool)


def _chunks(top: Ints, root: Ints) -> Iterator[tuple[Ints, Ints]]:
    for begin in range(0, len(top), _CHUNK):
        yield top[begin : begin + _CHUNK], root[begin : begin + _CHUNK]


def _in_ring_order(rows: Ints, size: int) -> Ints:
    """Rows (root, top, left, right, left, right, ...) as rings that start at the root towards its smaller neighbour."""
    left, right = rows[:, 2::2], rows[:, 3::2]
    swap = (left[:, -1] > right[:, -1])[:, None]
    up, down = np.where(swap, right, left), np.where(swap, left, right)
    top = [rows[:, 1]] if size % 2 == 0 else []
    return np.column_stack([rows[:, 0], up[:, ::-1], *top, down])
