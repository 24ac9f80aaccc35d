"""Chemical short-range order: who sits next to whom, against a random mixture of the same composition.

J. M. Cowley, Phys. Rev. 77, 669 (1950), doi:10.1103/PhysRev.77.669.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..atoms import atomic_number, check_symbols
from ..network import Network
from .ends import chosen, ends_of


def warren_cowley(
    network: Network, symbols: Sequence[str], of: ArrayLike | None = None
) -> dict[tuple[str, str], float]:
    """α_ab = 1 − P(b | bonded to a) / c_b for every ordered pair of elements, lighter first.

    0 for a random mixture, negative where a prefers b, 1 where they never meet. symbols: n element symbols. of: mask
    (n,) of the atoms whose bonds count, and whose composition is c; their neighbours may be any atoms. Elements are
    those of the atoms that count. nan where no atom of element a has a bond.
    """
    kind = np.array(check_symbols(symbols, network.n_atoms), dtype=str)
    mask, ends = chosen(of, network.n_atoms), ends_of(network)
    elements = sorted({str(symbol) for symbol in kind[mask]}, key=atomic_number)
    share = {b: float((kind[mask] == b).mean()) for b in elements}
    counted = mask[ends.origin]
    origin, to = kind[ends.origin[counted]], kind[ends.to[counted]]
    found = {}
    for a in elements:
        near = to[origin == a]
        for b in elements:
            found[a, b] = 1 - float((near == b).mean()) / share[b] if len(near) else np.nan
    return found
