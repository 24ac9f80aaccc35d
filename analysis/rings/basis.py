"""A minimum cycle basis out of primitive rings, shortest first, by elimination modulo 2."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..network import Network
from .collection import RingList

Ints = NDArray[np.int64]


def minimum_cycle_basis(rings: RingList, network: Network) -> RingList:
    """The rings that are no sum of those before them; rings are sums of bonds modulo 2.

    In a periodic box it is the basis of all sums of rings of that box, paths around the box left out. ValueError where a
    ring passes the same bond of the box twice: the box is too small to tell.
    """
    basis: dict[int, int] = {}
    tables, shift_tables = {}, {}
    for size, atoms in rings.tables.items():
        keep = [k for k, bonds in enumerate(_bonds_of(rings, size, network)) if _is_new(bonds.tolist(), basis)]
        tables[size] = atoms[keep]
        if size in rings.shift_tables:
            shift_tables[size] = rings.shift_tables[size][keep]
    return RingList(tables, shift_tables)


def _is_new(bonds: list[int], basis: dict[int, int]) -> bool:
    """Whether a ring of these bonds is no sum of the rings in the basis, keyed by their highest bond; if so it joins them."""
    vector = sum(1 << bond for bond in bonds)
    while vector and (lead := vector.bit_length()) in basis:
        vector ^= basis[lead]
    if vector:
        basis[vector.bit_length()] = vector
    return bool(vector)


def _bonds_of(rings: RingList, size: int, network: Network) -> Ints:
    """Index (rings, size) of every bond that the rings of one size pass."""
    atoms = rings.tables[size].astype(np.int64)
    shifts = rings.shift_tables.get(size, np.zeros((*atoms.shape, 3), np.int64)).astype(np.int64)
    ahead, step = np.roll(atoms, -1, axis=1), np.roll(shifts, -1, axis=1) - shifts
    turned = atoms > ahead
    one, other = np.where(turned, ahead, atoms), np.where(turned, atoms, ahead)
    step = np.where(turned[..., None], -step, step)
    index = {bond: k for k, bond in enumerate(map(tuple, np.column_stack([network.pairs, network.shifts]).tolist()))}
    rows = np.concatenate([one[..., None], other[..., None], step], axis=2).reshape(-1, 5).tolist()
    found = np.array([index.get((a, b, x, y, z), -1) for a, b, x, y, z in rows], dtype=np.int64).reshape(atoms.shape)
    if (found < 0).any() or (np.diff(np.sort(found, axis=1), axis=1) == 0).any():
        raise ValueError("a ring passes the same bond of the periodic box twice; a cycle basis needs a larger box")
    return found
