"""Rings of a bond network: which closed paths of bonds count, and which atoms each one passes through.

Four definitions, all on the graph of atoms and bonds, none periodic:

primitive  shortest-path rings: every two atoms of the ring are as near along the ring as in the whole network.
           D. S. Franzblau, Phys. Rev. B 44, 4925 (1991), doi:10.1103/PhysRevB.44.4925. It does not depend on where the
           search starts. A large closed cage has primitive rings around its waist: they are rings by this definition.
king       for every atom and every two of its neighbours, all shortest rings through the three.
           S. V. King, Nature 213, 1112 (1967), doi:10.1038/2131112a0.
guttman    for every bond, all shortest rings through it. L. Guttman, J. Non-Cryst. Solids 116, 145 (1990),
           doi:10.1016/0022-3093(90)90686-G.
mcb        a minimum cycle basis: the fewest, shortest rings from which all others can be added up. Its sizes are
           unique, its members are not; of equals the one first in the order of atom indices is taken.

A ring is a tuple of atom indices in ring order, smallest index first, its second smaller than its last. Lists are
sorted by size, then by indices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .primitive import primitive_rings

Ring = tuple[int, ...]
Neighbours = list[list[int]]


def rings(
    n_atoms: int, bonds: ArrayLike, *, definition: str = "primitive", min_size: int = 3, max_size: int = 24
) -> list[Ring]:
    """Every ring of `min_size` to `max_size` atoms in the network of `n_atoms` atoms and `bonds`.

    bonds: integer (m, 2), 0-based atom indices; order within a bond and repeated bonds do not matter.
    definition: "primitive", "king", "guttman" or "mcb", see the head of this module with the sources.
    Returns the rings in canonical form: smallest index first, second < last, sorted by size, then by indices.
    Time and memory of "primitive" and "mcb" grow as n_atoms² · max_size / 16 bytes (90 MB for 7704 atoms, 24).
    ValueError: unknown definition, sizes that make no sense, bonds that name no atom or an atom with itself.
    """
    if definition not in _SEARCHES:
        raise ValueError(f"definition is {definition!r}; expected one of {', '.join(_SEARCHES)}")
    if not 3 <= min_size <= max_size:
        raise ValueError(f"min_size is {min_size} and max_size is {max_size}; expected 3 <= min_size <= max_size")
    pairs = check_bonds(n_atoms, bonds)
    core, labels = _two_core(n_atoms, pairs)
    found = _SEARCHES[definition](len(labels), core, max_size)
    chosen = [tuple(labels[ring]) for ring in found if len(ring) >= min_size]
    return sorted(chosen, key=lambda ring: (len(ring), ring))


def size_histogram(rings: Iterable[Sequence[int]]) -> dict[int, int]:
    """How many rings there are of each size that occurs, smallest first."""
    return dict(sorted(Counter(map(len, rings)).items()))


def alternating_share(rings: Iterable[Sequence[int]], symbols: Sequence[str]) -> dict[int, float]:
    """Share of the rings of each size in which no two neighbours are of the same element; 0 for odd sizes of two."""
    totals: Counter[int] = Counter()
    alternating: Counter[int] = Counter()
    for ring in rings:
        elements = [symbols[atom] for atom in ring]
        totals[len(ring)] += 1
        alternating[len(ring)] += all(elements[i] != elements[i - 1] for i in range(len(ring)))
    return {size: alternating[size] / totals[size] for size in sorted(totals)}


def check_bonds(n_atoms: int, bonds: ArrayLike) -> NDArray[np.int64]:
    """The distinct bonds as int64 (m, 2), smaller index first, sorted; ValueError where one names no two atoms."""
    pairs = np.asarray(bonds)
    if pairs.size == 0:
        return np.zeros((0, 2), dtype=np.int64)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        raise ValueError(
            f"bonds has shape {pairs.shape} of {pairs.dtype}; expected integers (m, 2), two atoms per bond"
        )
    outside = np.flatnonzero(((pairs < 0) | (pairs >= n_atoms)).any(axis=1))
    if outside.size:
        raise ValueError(f"bond {pairs[outside[0]].tolist()} names no atom; indices of {n_atoms} atoms run from 0")
    loops = np.flatnonzero(pairs[:, 0] == pairs[:, 1])
    if loops.size:
        raise ValueError(f"bond {pairs[loops[0]].tolist()} joins an atom to itself; expected two different atoms")
    return np.unique(np.sort(pairs.astype(np.int64), axis=1), axis=0)


def _two_core(n_atoms: int, pairs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
    """Bonds left when dangling atoms are stripped again and again, in new labels, and the old label of each.

    No ring and no shortest path between ring atoms passes through a dangling atom.
    """
    while len(pairs):
        degree = np.bincount(pairs.ravel(), minlength=n_atoms)
        keep = (degree[pairs] > 1).all(axis=1)
        if keep.all():
            break
        pairs = pairs[keep]
    labels, core = np.unique(pairs, return_inverse=True)
    return core.reshape(-1, 2), labels.astype(object)


def _neighbours(n: int, pairs: NDArray[np.int64]) -> Neighbours:
    near: Neighbours = [[] for _ in range(n)]
    for a, b in pairs.tolist():
        near[a].append(b)
        near[b].append(a)
    return near


def _king(n: int, pairs: NDArray[np.int64], max_size: int) -> list[list[int]]:
    """All shortest closures of every angle b-a-c that avoid its middle atom a."""
    near = _neighbours(n, pairs)
    found: set[Ring] = set()
    for atom in range(n):
        for i, first in enumerate(near[atom]):
            others = near[atom][i + 1 :]
            if others:
                paths = _shortest_paths(near, first, others, max_size - 2, forbidden=atom)
                found.update(_canonical((atom, *path)) for path in paths)
    return [list(ring) for ring in found]


def _guttman(n: int, pairs: NDArray[np.int64], max_size: int) -> list[list[int]]:
    """All shortest closures of every bond that do not use the bond itself."""
    near = _neighbours(n, pairs)
    found: set[Ring] = set()
    for a, b in pairs.tolist():
        near[a].remove(b)
        found.update(map(_canonical, _shortest_paths(near, a, [b], max_size - 1, forbidden=-1)))
        near[a].append(b)
    return [list(ring) for ring in found]


def _minimum_cycle_basis(n: int, pairs: NDArray[np.int64], max_size: int) -> list[list[int]]:
    """Greedy basis of the cycle space out of primitive rings, shortest first.

    Every ring of a minimum cycle basis is primitive: a shortcut would split it into two shorter ones. Rings are bit
    vectors over the bonds; one that reduces to zero modulo 2 is a sum of those already taken.
    """
    bit = {pair: 1 << k for k, pair in enumerate(map(tuple, pairs.tolist()))}
    basis: dict[int, int] = {}
    chosen = []
    for ring in sorted(primitive_rings(n, pairs, max_size), key=lambda ring: (len(ring), ring)):
        edges = zip(ring, ring[1:] + ring[:1], strict=True)
        vector = sum(bit[(a, b) if a < b else (b, a)] for a, b in edges)
        while vector and (lead := vector.bit_length()) in basis:
            vector ^= basis[lead]
        if vector:
            basis[lead] = vector
            chosen.append(ring)
    return chosen


def _shortest_paths(near: Neighbours, start: int, ends: list[int], longest: int, forbidden: int) -> list[Ring]:
    """Every shortest path from `start` to each of `ends` over at most `longest` bonds that avoids `forbidden`."""
    distance = {forbidden: -2, start: 0}
    frontier, wanted, step = [start], set(ends), 0
    while frontier and wanted and step < longest:
        step += 1
        reached = []
        for atom in frontier:
            for other in near[atom]:
                if other not in distance:
                    distance[other] = step
                    reached.append(other)
        wanted.difference_update(reached)
        frontier = reached
    return [path for end in ends if end in distance for path in _backtrack(near, distance, end)]


def _backtrack(near: Neighbours, distance: dict[int, int], end: int) -> list[Ring]:
    """Every path along falling `distance` from `end` to the atom at distance 0."""
    paths: list[Ring] = [(end,)]
    for step in range(distance[end] - 1, -1, -1):
        paths = [(*path, a) for path in paths for a in near[path[-1]] if distance.get(a) == step]
    return paths


def _canonical(ring: Ring) -> Ring:
    """The same ring read from its smallest index towards the smaller of that atom's two neighbours."""
    at = ring.index(min(ring))
    turned = ring[at:] + ring[:at]
    return turned if turned[1] < turned[-1] else (turned[0], *reversed(turned[1:]))


_SEARCHES: dict[str, Callable[[int, NDArray[np.int64], int], list[list[int]]]] = {
    "primitive": primitive_rings,
    "king": _king,
    "guttman": _guttman,
    "mcb": _minimum_cycle_basis,
}
