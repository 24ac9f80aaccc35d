"""The distances of all pairs of atoms of a particle, counted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..compiled import compiled
from .ends import Array, Ints


@compiled
def count_distances(
    at: Array, element: Ints, per_A: float, counts: NDArray[np.int64]
) -> None:  # pragma: no cover - compiled
    """Adds every pair of atoms to counts (elements, elements, bins), the later atom first; per_A is bins per Å."""
    for i in range(len(at)):
        for j in range(i):
            x, y, z = at[i, 0] - at[j, 0], at[i, 1] - at[j, 1], at[i, 2] - at[j, 2]
            counts[element[i], element[j], int(np.sqrt(x * x + y * y + z * z) * per_A + 0.5)] += 1
