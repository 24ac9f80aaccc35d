"""The network of atoms and bonds: pairs of atoms, across the faces of a periodic box where there is one.

Bond k joins atom pairs[k, 0] as it stands with atom pairs[k, 1] moved by shifts[k] edges of the cell. In a small cell two
atoms can share several bonds, and an atom can be bonded to its own image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import networkx as nx

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Network:
    """`n_atoms` atoms and their bonds, each once, smaller index first, sorted.

    pairs: integers (m, 2), 0-based; order within a bond and repeated bonds do not matter. shifts: integers (m, 3), see the
    head of this module; None for a free particle. ValueError for bonds that name no atom, or an atom with itself.
    """

    n_atoms: int
    pairs: Ints
    shifts: Ints = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        pairs = _checked_pairs(self.n_atoms, self.pairs)
        shifts = _checked_shifts(self.shifts, len(pairs))
        turned = (pairs[:, 0] > pairs[:, 1]) | ((pairs[:, 0] == pairs[:, 1]) & ~_ahead(shifts))
        pairs = np.where(turned[:, None], pairs[:, ::-1], pairs)
        shifts = np.where(turned[:, None], -shifts, shifts)
        loops = np.flatnonzero((pairs[:, 0] == pairs[:, 1]) & (shifts == 0).all(axis=1))
        if loops.size:
            raise ValueError(f"bond {pairs[loops[0]].tolist()} joins an atom to itself; expected two different atoms")
        order = np.lexsort((*shifts.T[::-1], pairs[:, 1], pairs[:, 0]))
        pairs, shifts = pairs[order], shifts[order]
        new = np.ones(len(pairs), bool)
        new[1:] = (pairs[1:] != pairs[:-1]).any(axis=1) | (shifts[1:] != shifts[:-1]).any(axis=1)
        object.__setattr__(self, "pairs", pairs[new])
        object.__setattr__(self, "shifts", shifts[new])

    def __len__(self) -> int:
        """The number of bonds."""
        return len(self.pairs)

    @property
    def periodic(self) -> bool:
        """Whether any bond leads into another image of the box."""
        return bool(self.shifts.any())

    @property
    def degree(self) -> Ints:
        """Number of bonds of every atom, (n_atoms,)."""
        return np.bincount(self.pairs.ravel(), minlength=self.n_atoms)

    def vectors_A(self, positions_A: ArrayLike, cell_vectors_A: ArrayLike | None = None) -> NDArray[np.float64]:
        """Vector (m, 3) in Å along every bond, from its first atom to its second."""
        at = np.asarray(positions_A, dtype=np.float64)
        along = at[self.pairs[:, 1]] - at[self.pairs[:, 0]]
        return along if cell_vectors_A is None else along + self.shifts @ np.asarray(cell_vectors_A, np.float64)

    def neighbours(self) -> tuple[Ints, Ints, Ints]:
        """Compressed rows: the bonds of atom a lead to `to[start[a]:start[a + 1]]`, moved by `shift` there."""
        ends = np.concatenate([self.pairs, self.pairs[:, ::-1]])
        order = np.lexsort((ends[:, 1], ends[:, 0]))
        start = np.concatenate([[0], np.cumsum(np.bincount(ends[:, 0], minlength=self.n_atoms))])
        return start, ends[order, 1], np.concatenate([self.shifts, -self.shifts])[order]

    def to_networkx(self) -> nx.MultiGraph:
        """A graph of nodes 0 … n_atoms − 1; edges carry `shift`, that of the larger index (a tuple of three)."""
        import networkx as nx

        graph = nx.MultiGraph()
        graph.add_nodes_from(range(self.n_atoms))
        both = zip(self.pairs.tolist(), self.shifts.tolist(), strict=True)
        graph.add_edges_from((a, b, {"shift": tuple(shift)}) for (a, b), shift in both)
        return graph

    @classmethod
    def from_networkx(cls, graph: nx.Graph) -> Network:
        """The network of a graph whose nodes are 0 … n − 1; an edge may carry `shift`, that of its larger index."""
        n = graph.number_of_nodes()
        if set(graph.nodes) != set(range(n)):
            raise ValueError(
                f"the {n} nodes of the graph are not numbered 0 to {n - 1}; use networkx.convert_node_labels_to_integers"
            )
        edges: list[tuple[Any, Any, dict[str, Any]]] = list(graph.edges(data=True))
        pairs = np.array([(min(a, b), max(a, b)) for a, b, _ in edges], dtype=np.int64).reshape(-1, 2)
        shifts = np.array([data.get("shift", (0, 0, 0)) for _, _, data in edges], dtype=np.int64).reshape(-1, 3)
        return cls(n, pairs, shifts)


def _checked_pairs(n_atoms: int, value: ArrayLike) -> Ints:
    pairs = np.asarray(value)
    if pairs.size == 0:
        return np.zeros((0, 2), dtype=np.int64)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        raise ValueError(
            f"bonds has shape {pairs.shape} of {pairs.dtype}; expected integers (m, 2), two atoms per bond"
        )
    outside = np.flatnonzero(((pairs < 0) | (pairs >= n_atoms)).any(axis=1))
    if outside.size:
        raise ValueError(f"bond {pairs[outside[0]].tolist()} names no atom; indices of {n_atoms} atoms run from 0")
    return pairs.astype(np.int64)


def _checked_shifts(value: ArrayLike | None, m: int) -> Ints:
    if value is None or np.size(value) == 0:
        return np.zeros((m, 3), dtype=np.int64)
    shifts = np.asarray(value)
    if shifts.shape != (m, 3) or shifts.dtype.kind not in "iu":
        raise ValueError(
            f"shifts has shape {shifts.shape} of {shifts.dtype}; expected integers ({m}, 3), one row per bond"
        )
    return shifts.astype(np.int64)


def _ahead(shifts: Ints) -> NDArray[np.bool_]:
    x, y, z = shifts.T
    return (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z >= 0))))
