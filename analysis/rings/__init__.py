"""Rings of a bond network: which closed paths of bonds count, and which atoms each one passes through.

Four definitions, on the network of atoms and bonds:

primitive  shortest-path rings: every two atoms of the ring are as near along the ring as in the whole network.
           D. S. Franzblau, Phys. Rev. B 44, 4925 (1991), doi:10.1103/PhysRevB.44.4925. It does not depend on where the
           search starts. A large closed cage has primitive rings around its waist: they are rings by this definition.
king       for every atom and every two of its neighbours, all shortest rings through the three.
           S. V. King, Nature 213, 1112 (1967), doi:10.1038/2131112a0.
guttman    for every bond, all shortest rings through it. L. Guttman, J. Non-Cryst. Solids 116, 145 (1990),
           doi:10.1016/0022-3093(90)90686-G.
mcb        a minimum cycle basis: the fewest, shortest rings from which all others can be added up. Its sizes are
           unique, its members are not; of equals the one first in the order of atom indices is taken.

In a periodic box a ring closes in space: a path that ends in another image of its first atom is none. Rings that are
images of each other are one ring. So a box of any size, one unit cell included, has the rings of the endless network.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import local
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..network import Network
from . import ball
from .ball import FAR, NODES, Graph, Roots, blocks_of, core_of, room_for, unfolded
from .basis import minimum_cycle_basis
from .closures import guttman_of, king_of
from .collection import Piece, Ring, RingList, alternating_share, gathered, size_histogram
from .primitive import primitive_of
from .statistics import RingShapes, RingStatistics, former_sizes, ring_shapes, ring_statistics

if TYPE_CHECKING:
    import networkx as nx

__all__ = [
    "DEFINITIONS",
    "Ring",
    "RingList",
    "RingShapes",
    "RingStatistics",
    "alternating_share",
    "coordination_sequences",
    "former_sizes",
    "ring_shapes",
    "ring_statistics",
    "rings",
    "size_histogram",
]

Ints = NDArray[np.int64]
Search = Callable[..., tuple[NDArray[np.int32], NDArray[np.int32]]]

_SEARCHES: dict[str, Search] = {
    "primitive": primitive_of,
    "king": king_of,
    "guttman": guttman_of,
    "mcb": primitive_of,  # a ring of a minimum cycle basis has no shortcut: it would split it into two shorter ones
}
DEFINITIONS = tuple(_SEARCHES)


def rings(
    network: Network | nx.Graph,
    *,
    definition: str = "primitive",
    min_size: int = 3,
    max_size: int = 24,
    threads: int | None = None,
) -> RingList:
    """Every ring of `min_size` to `max_size` atoms in the network.

    network: a `Network`, as `bonds` gives it, or a networkx graph of nodes 0 … n − 1, whose edges may carry `shift`.
    definition: "primitive", "king", "guttman" or "mcb", see the head of this module with the sources. threads: all cores
    where left out. Returns a sequence of tuples of atom indices in ring order, smallest index first, second ≤ last, sorted
    by size, then by indices; in a periodic box each ring once, with the images of its atoms in `shifts`.
    Time and memory of all but "mcb" grow in proportion to the number of atoms.
    ValueError: unknown definition, sizes that make no sense, bonds that name no atom or an atom with itself.
    """
    if definition not in _SEARCHES:
        raise ValueError(f"definition is {definition!r}; expected one of {', '.join(_SEARCHES)}")
    if not 3 <= min_size <= max_size < 2 * FAR:
        raise ValueError(
            f"min_size is {min_size} and max_size is {max_size}; expected 3 <= min_size <= max_size < {2 * FAR}"
        )
    if not isinstance(network, Network):
        network = Network.from_networkx(network)
    graph, labels = core_of(network)
    found = gathered(_pieces(graph, _SEARCHES[definition], max_size, threads), labels, network.periodic)
    if definition == "mcb":
        found = minimum_cycle_basis(found, network)
    return found.of_sizes(min_size, max_size)


def coordination_sequences(network: Network | nx.Graph, shells: int = 10) -> Ints:
    """Number of atoms exactly 1, 2, … `shells` bonds away from every atom, (n_atoms, shells); images count apart.

    G. O. Brunner & F. Laves, Wiss. Z. Tech. Univ. Dresden 20, 387 (1971); R. W. Grosse-Kunstleve, G. O. Brunner &
    N. J. A. Sloane, Acta Cryst. A 52, 879 (1996), doi:10.1107/S0108767396007519.
    """
    if not isinstance(network, Network):
        network = Network.from_networkx(network)
    if not 1 <= shells <= FAR:
        raise ValueError(f"shells is {shells}; expected a number from 1 to {FAR}")
    return ball.shells(Graph(*network.neighbours()), shells)


def _pieces(graph: Graph, search: Search, max_size: int, threads: int | None) -> list[Piece]:
    """Sizes, atoms and shifts that the search finds, block by block."""
    from ..uncertainty import available_threads

    own = local()

    def of_block(roots: Roots) -> list[Piece]:
        around = unfolded(graph, roots, max_size // 2)
        if len(around.atom) > 2 * NODES and len(roots.atom) > 1:
            half = len(roots.atom) // 2
            first, rest = (Roots(roots.atom[part], roots.shift[part]) for part in (slice(half), slice(half, None)))
            return [*of_block(first), *of_block(rest)]
        rows, own.spare = room_for(around, getattr(own, "spare", np.empty(0, np.uint8)))
        sizes, nodes = search(around, rows, max_size)
        return [(sizes, around.atom[nodes], around.shift[nodes])]

    blocks = blocks_of(graph, max_size // 2)
    threads = threads or available_threads()
    if threads == 1 or len(blocks) < 2:
        return [piece for roots in blocks for piece in of_block(roots)]
    with ThreadPoolExecutor(threads) as pool:
        return [piece for pieces in pool.map(of_block, blocks) for piece in pieces]
