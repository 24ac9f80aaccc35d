"""How many pairs of atoms there are at which distance, counted in cells no larger than it takes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .cell import Cell, images_within, positive
from .compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

_PER_REACH, _MOST_CELLS = 3, 2_000_000
"""Cells along the longest distance, and at most along an edge of all."""
_BLOCK = 2000


def count_pairs(
    positions_A: ArrayLike, element: Ints, n_elements: int, width_A: float, bins: int, cell: Cell | None = None
) -> Ints:
    """Pairs of atoms up to bins · width_A apart, each once, images included: (n_elements, n_elements, bins), upper triangle filled.

    positions_A: (n, 3); element: (n,) number of each atom's element.
    """
    from .uncertainty import available_threads

    at, reach = np.asarray(positions_A, np.float64), bins * width_A
    which, shift, everywhere = images_within(at, reach, cell)
    ahead = positive(shift - shift[which])  # atoms as they stand come first, so that shift[which] is theirs
    edge = max(reach / _PER_REACH, float(np.ptp(everywhere, axis=0).max()) / _MOST_CELLS)
    low = everywhere.min(axis=0)
    place = ((everywhere - low) / edge).astype(np.int64)
    shape = place.max(axis=0) + 1
    number = np.ravel_multi_index(tuple(place.T), tuple(shape))
    order = np.argsort(number, kind="stable")
    sorted_by_cell = number[order], everywhere[order], which[order], ahead[order], element[which[order]]

    def counted(first: int) -> Ints:
        found = np.zeros((n_elements, n_elements, bins), np.int64)
        some = slice(first, first + _BLOCK)
        steps = int(np.ceil(reach / edge))
        _count(
            everywhere[: len(at)][some],
            first,
            element[some],
            place[some],
            *sorted_by_cell,
            shape,
            steps,
            width_A,
            found,
        )
        return found

    with ThreadPoolExecutor(available_threads()) as pool:
        total: Ints = sum(
            pool.map(counted, range(0, len(at), _BLOCK)), np.zeros((n_elements, n_elements, bins), np.int64)
        )
    lower = np.tril(np.ones((n_elements, n_elements)), -1).astype(bool)
    total.transpose(1, 0, 2)[lower] += total[lower]
    total[lower] = 0
    return total


@compiled
def _count(
    at: Array,
    first: int,
    element: Ints,
    place: Ints,
    number: Ints,
    others: Array,
    which: Ints,
    ahead: NDArray[np.bool_],
    other_element: Ints,
    shape: Ints,
    steps: int,
    width: float,
    counts: Ints,
) -> None:  # pragma: no cover - compiled
    """Adds to counts (elements, elements, bins) the pairs of some atoms, the first one of them number `first`, with all others.

    The others are sorted by the number of their cell. A pair counts where the other atom is a later one, or a later image
    (`ahead`) of the same.
    """
    bins = counts.shape[2]
    reach = bins * width * (1 + 1e-12) + 1e-12
    for i in range(len(at)):
        for x in range(max(place[i, 0] - steps, 0), min(place[i, 0] + steps + 1, shape[0])):
            for y in range(max(place[i, 1] - steps, 0), min(place[i, 1] + steps + 1, shape[1])):
                row = (x * shape[1] + y) * shape[2]
                begin = np.searchsorted(number, row + max(place[i, 2] - steps, 0))
                end = np.searchsorted(number, row + min(place[i, 2] + steps + 1, shape[2]))
                for j in range(begin, end):
                    if which[j] < first + i or (which[j] == first + i and not ahead[j]):
                        continue
                    u, v, w = others[j, 0] - at[i, 0], others[j, 1] - at[i, 1], others[j, 2] - at[i, 2]
                    square = u * u + v * v + w * w
                    if square <= reach * reach:
                        counts[element[i], other_element[j], min(int(np.sqrt(square) / width), bins - 1)] += 1
