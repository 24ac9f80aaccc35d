"""Bonds seen from their ends: every bond twice, once from either atom; and the checks that all measures share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..atoms import positions
from ..cell import Cell
from ..network import Network

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Ends:
    """Both ends of all m bonds of a network, sorted by the atom they leave; 2m entries in every field but `start`.

    start: (n + 1,), atom a has the ends start[a]:start[a + 1]. origin, to: the atom left and the atom reached, moved
    there by `shift` (2m, 3). bond: the bond's number in the network. sign: 1 where that bond is told in this direction,
    −1 where it is told the other way. back: which end is the same bond seen from the other atom.
    """

    start: Ints
    origin: Ints
    to: Ints
    shift: Ints
    bond: Ints
    sign: Ints
    back: Ints


def ends_of(network: Network) -> Ends:
    """All bonds of the network seen from both atoms."""
    m = len(network)
    both = np.concatenate([network.pairs, network.pairs[:, ::-1]])
    shift = np.concatenate([network.shifts, -network.shifts])
    order = np.lexsort((*shift.T[::-1], both[:, 1], both[:, 0]))
    place = np.empty(2 * m, np.int64)
    place[order] = np.arange(2 * m)
    start = np.concatenate([[0], np.cumsum(network.degree)])
    sign = np.where(order < m, 1, -1)
    back = place[(order + m) % (2 * m)] if m else place
    return Ends(start, both[order, 0], both[order, 1], shift[order], order % max(m, 1), sign, back)


def bond_vectors(network: Network, positions_A: ArrayLike, cell: Cell | None) -> Array:
    """Vector (m, 3) in Å along every bond; ValueError where atoms are missing, or the box that bonds leave."""
    at = positions(positions_A)
    if len(at) != network.n_atoms:
        raise ValueError(
            f"positions_A holds {len(at)} atoms and the network {network.n_atoms}; expected the same atoms"
        )
    if network.periodic and cell is None:
        raise ValueError("the network has bonds across the faces of a box; expected its cell")
    return network.vectors_A(at, None if cell is None else cell.vectors_A)


def chosen(of: ArrayLike | None, n: int) -> Mask:
    """`of` as a mask (n,), all True when it is None; ValueError for anything else."""
    if of is None:
        return np.ones(n, bool)
    mask = np.asarray(of)
    if mask.shape != (n,) or mask.dtype != bool:
        raise ValueError(f"of has shape {mask.shape} of {mask.dtype}; expected ({n},) booleans, one per atom")
    return mask


def runs(begin: Ints, count: Ints) -> Ints:
    """The numbers begin[0] … begin[0] + count[0] − 1, then those of begin[1], and so on."""
    first = np.cumsum(count) - count
    return np.arange(count.sum()) + np.repeat(begin - first, count)
