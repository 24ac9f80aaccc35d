"""Numbers of a set of rings: how many per atom, which atoms have them, and their shape in space.

R_N, P_N, P_min and P_max follow S. Le Roux & P. Jund, Comput. Mater. Sci. 49, 70 (2010),
doi:10.1016/j.commatsci.2010.04.023, an atom "having" a ring where the ring passes through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .collection import RingList

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RingStatistics:
    """Per ring size: rings, and shares of the atoms that count.

    count: rings. r_n: rings per atom. p_n: share of the atoms that have a ring of that size; p_min, p_max: of those, the
    share for which it is the smallest, and the largest, they have.
    """

    count: dict[int, int]
    r_n: dict[int, float]
    p_n: dict[int, float]
    p_min: dict[int, float]
    p_max: dict[int, float]


def ring_statistics(rings: RingList, n_atoms: int, of: NDArray[np.bool_] | None = None) -> RingStatistics:
    """R_N, P_N, P_min, P_max of `rings` in a network of `n_atoms`.

    of: mask (n,) of the atoms that count. A ring that passes through atoms that do not counts by its share of those that do.
    """
    counted = np.ones(n_atoms, bool) if of is None else np.asarray(of, bool)
    sizes = list(rings.sizes)
    n = max(int(counted.sum()), 1)
    having = np.array([np.bincount(rings.tables[size].ravel(), minlength=n_atoms) > 0 for size in sizes])
    having = having.reshape(len(sizes), n_atoms)[:, counted]
    first = np.cumsum(having, axis=0) == 1
    last = np.cumsum(having[::-1], axis=0)[::-1] == 1
    share = {size: float(counted[rings.tables[size]].mean(axis=1).sum()) for size in sizes}
    own = having.sum(axis=1)
    return RingStatistics(
        rings.sizes,
        {size: share[size] / n for size in sizes},
        {size: float(own[k] / n) for k, size in enumerate(sizes)},
        {size: float((having & first)[k].sum() / max(own[k], 1)) for k, size in enumerate(sizes)},
        {size: float((having & last)[k].sum() / max(own[k], 1)) for k, size in enumerate(sizes)},
    )


def former_sizes(rings: RingList, symbols: Sequence[str], former: str) -> dict[int, int]:
    """How many rings there are by the number of atoms of the element `former` in them."""
    is_former = np.array([symbol == former for symbol in symbols])
    counts = [is_former[table].sum(axis=1) for table in rings.tables.values()]
    values, number = np.unique(np.concatenate([np.zeros(0, np.int64), *counts]), return_counts=True)
    return dict(zip(values.tolist(), number.tolist(), strict=True))


@dataclass(frozen=True, eq=False)
class RingShapes:
    """Shape of every ring, (rings,), in the order of the rings.

    out_of_plane_A: rms distance of its atoms from their plane of least squares, 0 = flat. roundness: short over long axis
    in that plane, 1 = round, 0 = drawn out to a line. radius_A: rms distance of the atoms from their centre.
    """

    out_of_plane_A: Array
    roundness: Array
    radius_A: Array


def ring_shapes(rings: RingList, positions_A: ArrayLike, cell_vectors_A: ArrayLike | None = None) -> RingShapes:
    """Flatness, roundness and radius of rings from the singular values of their atoms about their centre.

    positions_A: (n, 3). cell_vectors_A: (3, 3) of a periodic box. The ratio of the singular values as roundness: M. Shiga
    et al., Commun. Mater. 4, 91 (2023), doi:10.1038/s43246-023-00416-w.
    """
    at = np.asarray(positions_A, dtype=np.float64)
    values = [np.zeros((0, 3))]
    for size, table in rings.tables.items():
        points = at[table]
        if cell_vectors_A is not None and size in rings.shift_tables:
            points = points + rings.shift_tables[size] @ np.asarray(cell_vectors_A, np.float64)
        centred = points - points.mean(axis=1, keepdims=True)
        values.append(np.linalg.svd(centred, compute_uv=False) / np.sqrt(size))
    spread = np.concatenate(values)
    roundness = np.divide(spread[:, 1], spread[:, 0], out=np.zeros(len(spread)), where=spread[:, 0] > 0)
    return RingShapes(spread[:, 2], roundness, np.sqrt((spread**2).sum(axis=1)))
