"""What is not as it should be in a network: too few or too many bonds, bonds between like atoms; and Qⁿ.

The number of bonds an element should have is its most common one unless it is stated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .atoms import Atoms, check_symbols
from .network import Network

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Defects:
    """Atoms and bonds out of order, as indices.

    expected: bonds that each element should have. under, over: atoms (k,) with fewer, and with more. dangling: those of
    `under` that hang by one bond or none although two are due. homopolar: pairs (m, 2) of like atoms as near as bonded ones.
    """

    expected: dict[str, int]
    under: Ints
    over: Ints
    dangling: Ints
    homopolar: Ints

    def counts(self) -> dict[str, int]:
        names = ("under", "over", "dangling", "homopolar")
        return {name: len(getattr(self, name)) for name in names}


def usual_bonds(network: Network, symbols: Sequence[str], of: NDArray[np.bool_] | None = None) -> dict[str, int]:
    """The most common number of bonds of each element, the larger of equals; of: mask (n,) of the atoms that are asked."""
    names, degree = np.array(check_symbols(symbols, network.n_atoms)), network.degree
    counted = np.ones(len(names), bool) if of is None or not of.any() else of
    found = {}
    for element in sorted(set(names.tolist())):
        own = degree[(names == element) & counted]
        own = own if own.size else degree[names == element]
        found[element] = max(Counter(own.tolist()).items(), key=lambda item: (item[1], item[0]))[0]
    return found


def defects(
    network: Network,
    atoms: Atoms,
    *,
    expected: Mapping[str, int] | None = None,
    homopolar: Network | None = None,
    of: NDArray[np.bool_] | None = None,
) -> Defects:
    """Atoms with the wrong number of bonds, and bonds between like atoms.

    network: bonds of `atoms`. expected: bonds an element should have; its most common number where left out. homopolar:
    a network of like pairs as near as bonds, see `homopolar_rules`; like pairs of `network` count in any case where it
    also has unlike ones. of: mask (n,) of the atoms that count, to leave out the surface; a pair counts if both do.
    """
    counted = np.ones(len(atoms), bool) if of is None else np.asarray(of, bool)
    due = usual_bonds(network, atoms.symbols, counted) | dict(expected or {})
    names, degree = np.array(atoms.symbols), network.degree
    wanted = np.array([due[name] for name in atoms.symbols], dtype=np.int64)
    return Defects(
        due,
        np.flatnonzero((degree < wanted) & counted),
        np.flatnonzero((degree > wanted) & counted),
        np.flatnonzero((degree < 2) & (wanted >= 2) & counted),
        _like_pairs([network] if homopolar is None else [network, homopolar], names, counted),
    )


def q_n(network: Network, symbols: Sequence[str], former: str, of: NDArray[np.bool_] | None = None) -> dict[int, int]:
    """How many atoms of the element `former` have n bridges: bonded atoms of another element that lead on to a former.

    Qⁿ of silicates: E. Lippmaa et al., J. Am. Chem. Soc. 102, 4889 (1980), doi:10.1021/ja00535a008.
    """
    names = np.array(check_symbols(symbols, network.n_atoms))
    is_former = names == former
    ends = np.concatenate([network.pairs, network.pairs[:, ::-1]])
    across = ends[is_former[ends[:, 0]] & ~is_former[ends[:, 1]]]
    bridging = np.bincount(across[:, 1], minlength=network.n_atoms) >= 2
    bridges = np.bincount(across[bridging[across[:, 1]], 0], minlength=network.n_atoms)
    chosen = is_former if of is None else is_former & of
    return dict(sorted(Counter(bridges[chosen].tolist()).items()))


def formers_of(network: Network, symbols: Sequence[str]) -> str | None:
    """The element that forms the network: that with the most bonds per atom if the others only link it; else None."""
    names = np.array(symbols)
    elements = sorted(set(symbols))
    if len(elements) < 2 or len(network) == 0 or (names[network.pairs[:, 0]] == names[network.pairs[:, 1]]).any():
        return None
    mean = {element: float(network.degree[names == element].mean()) for element in elements}
    most = max(elements, key=lambda element: mean[element])
    return most if all(mean[e] < mean[most] for e in elements if e != most) else None


def linked(network: Network, symbols: Sequence[str], former: str) -> tuple[Network, Ints]:
    """The network of the atoms of one element alone, joined where an atom of another element links two; and their indices."""
    names = np.array(check_symbols(symbols, network.n_atoms))
    chosen = np.flatnonzero(names == former)
    new = np.full(network.n_atoms, -1, np.int64)
    new[chosen] = np.arange(len(chosen))
    start, to, shift = network.neighbours()
    pairs, shifts = [], []
    for bridge in np.flatnonzero(names != former):
        reach = np.arange(start[bridge], start[bridge + 1])
        reach = reach[new[to[reach]] >= 0]
        one, other = np.triu_indices(len(reach), 1)
        pairs.append(np.column_stack([new[to[reach[one]]], new[to[reach[other]]]]))
        shifts.append(shift[reach[other]] - shift[reach[one]])
    empty = np.zeros((0, 2), np.int64), np.zeros((0, 3), np.int64)
    return Network(len(chosen), np.concatenate([empty[0], *pairs]), np.concatenate([empty[1], *shifts])), chosen


def _like_pairs(networks: list[Network], names: NDArray[np.str_], counted: NDArray[np.bool_]) -> Ints:
    """Bonds between atoms of one element, where bonds between unlike ones are the rule."""
    found = []
    for k, network in enumerate(networks):
        pairs = network.pairs[counted[network.pairs].all(axis=1)]
        like = names[pairs[:, 0]] == names[pairs[:, 1]]
        if k or not like.all():
            found.append(pairs[like])
    return np.unique(np.concatenate([np.zeros((0, 2), np.int64), *found]), axis=0)
