"""Bond lengths, bond angles and dihedral angles of a network, by the elements along them.

Angles are in degrees. A dihedral angle has the sign of the IUPAC (Compendium of Chemical Terminology, "torsion angle",
doi:10.1351/goldbook.T06406): looking along the middle bond, positive where the front bond must be turned clockwise to
cover the rear one. It does not depend on the direction of reading.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..atoms import check_symbols
from ..cell import Cell
from ..network import Network
from .ends import Array, Ends, Ints, bond_vectors, chosen, ends_of, runs

LINEAR_DEG = 0.01
"""Three atoms of a chain nearer than this to a straight line leave a dihedral angle undefined."""
_CHUNK = 2_000_000


@dataclass(frozen=True, eq=False)
class Chains:
    """Chains of three bonds: bonds (m, 3) by their numbers in the network, and signs (m, 3) that lead from one end to the other."""

    bonds: Ints
    signs: Ints

    def __len__(self) -> int:
        return len(self.bonds)

    def select(self, some: Ints) -> Chains:
        return Chains(self.bonds[some], self.signs[some])

    def angles_deg(self, vectors_A: Array) -> Array:
        """Dihedral angles (m,) in degrees, of the vectors (bonds, 3) of the network; nan where three atoms are in line."""
        along = self.signs[..., None] * vectors_A[self.bonds]
        return dihedral_deg(along[:, 0], along[:, 1], along[:, 2])


@dataclass(frozen=True, eq=False)
class AngleList:
    """Pairs of bonds that share an atom, each once, sorted by that atom.

    atoms: (m, 3), the shared atom in the middle. bonds: (m, 2) numbers of the two bonds in the network. signs: (m, 2),
    so that signs[:, k] · network.vectors_A(...)[bonds[:, k]] leads from the middle atom to the end k.
    """

    atoms: Ints
    bonds: Ints
    signs: Ints

    def __len__(self) -> int:
        return len(self.atoms)


def angles_of(network: Network, of: ArrayLike | None = None) -> AngleList:
    """Every two bonds of every atom. of: mask (n,) of the middle atoms that count; all if None."""
    ends = ends_of(network)
    one, other = _pairs_of_ends(ends, np.flatnonzero(chosen(of, network.n_atoms)))
    atoms = np.column_stack([ends.to[one], ends.origin[one], ends.to[other]])
    both = np.column_stack([one, other])
    return AngleList(atoms, ends.bond[both], ends.sign[both])


def bond_lengths(
    network: Network,
    positions_A: ArrayLike,
    symbols: Sequence[str],
    cell: Cell | None = None,
    of: ArrayLike | None = None,
) -> dict[str, Array]:
    """Lengths of bonds in Å, each once, under names as "O-Si", in alphabetical order.

    of: mask (n,) of atoms, at least one of which a bond must have, all if None. The other arguments are those of `bond_angles`.
    """
    names = np.array(check_symbols(symbols, network.n_atoms))
    counted = np.flatnonzero(chosen(of, network.n_atoms)[network.pairs].any(axis=1))
    lengths = np.linalg.norm(bond_vectors(network, positions_A, cell)[counted], axis=1)
    kinds = np.array(["-".join(sorted(pair)) for pair in names[network.pairs[counted]].tolist()], dtype=np.str_)
    return {kind: lengths[kinds == kind] for kind in np.unique(kinds).tolist()}


def bond_angles(
    network: Network,
    positions_A: ArrayLike,
    symbols: Sequence[str],
    cell: Cell | None = None,
    of: ArrayLike | None = None,
) -> dict[str, Array]:
    """Angles between the bonds of each atom in degrees, each once, under names as "O-Si-O", read through the atom.

    The ends of a name are in alphabetical order. positions_A: (n, 3) in Å; symbols: n element symbols; cell: the box of
    a periodic network; of: mask (n,) of the middle atoms that count, all if None. Only names that occur are there.
    ValueError for inputs that do not fit the network.
    """
    vectors = bond_vectors(network, positions_A, cell)
    names, element = _elements(symbols, network.n_atoms)
    mask, ends = chosen(of, network.n_atoms), ends_of(network)
    towards = ends.sign[:, None] * vectors[ends.bond]
    found: dict[str, list[Array]] = defaultdict(list)
    for atoms in _atoms_in_chunks(network.degree, mask):
        one, other = _pairs_of_ends(ends, atoms)
        angle = between_deg(towards[one], towards[other])
        _gather(found, angle, element[np.column_stack([ends.to[one], ends.origin[one], ends.to[other]])], names)
    return {name: np.concatenate(parts) for name, parts in sorted(found.items())}


def dihedral_angles(
    network: Network,
    positions_A: ArrayLike,
    symbols: Sequence[str],
    cell: Cell | None = None,
    of: ArrayLike | None = None,
) -> dict[str, Array]:
    """Signed dihedral angles in degrees, −180 < φ ≤ 180, of every chain of three bonds, each once, as "O-Si-O-Si".

    A chain is read in the direction whose name comes first in the alphabet. Left out are chains that close
    (three-membered rings), and those of which three atoms stand in a line. of: mask (n,) of the atoms that may be in
    the middle: both must be in it. The other arguments are those of `bond_angles`. A network of twelve bonds per atom
    has 726 chains per atom, 8 bytes each.
    """
    vectors = bond_vectors(network, positions_A, cell)
    names, element = _elements(symbols, network.n_atoms)
    mask, ends = chosen(of, network.n_atoms), ends_of(network)
    towards = ends.sign[:, None] * vectors[ends.bond]
    found: dict[str, list[Array]] = defaultdict(list)
    for one, middle, other in _chains(ends, mask):
        angle = dihedral_deg(-towards[one], towards[middle], towards[other])
        along = [ends.to[one], ends.origin[middle], ends.to[middle], ends.to[other]]
        fine = np.isfinite(angle)
        _gather(found, angle[fine], element[np.column_stack(along)[fine]], names)
    return {name: np.concatenate(parts) for name, parts in sorted(found.items())}


def chains_of(network: Network, symbols: Sequence[str], of: ArrayLike | None = None) -> dict[str, Chains]:
    """The chains of `dihedral_angles` by their names, those in line among them."""
    names, element = _elements(symbols, network.n_atoms)
    mask, ends = chosen(of, network.n_atoms), ends_of(network)
    found: dict[str, list[Array]] = defaultdict(list)
    for one, middle, other in _chains(ends, mask):
        along = [ends.to[one], ends.origin[middle], ends.to[middle], ends.to[other]]
        both = np.column_stack([one, middle, other])
        rows = np.column_stack([ends.bond[both], ends.sign[both] * [-1, 1, 1]])
        _gather(found, rows, element[np.column_stack(along)], names)
    whole = {name: np.concatenate(parts).astype(np.int64) for name, parts in sorted(found.items())}
    return {name: Chains(rows[:, :3], rows[:, 3:]) for name, rows in whole.items()}


def between_deg(a: Array, b: Array) -> Array:
    """Angle (m,) in degrees between vectors (m, 3), accurate near 0 and 180 too."""
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=1), _dot(a, b)))


def dihedral_deg(first: Array, middle: Array, last: Array) -> Array:
    """Dihedral angle (m,) in degrees of three successive bonds (m, 3), head to tail; nan where two are in line."""
    one, other = np.cross(first, middle), np.cross(middle, last)
    length = np.linalg.norm(middle, axis=1)
    angle = np.degrees(np.arctan2(length * _dot(first, other), _dot(one, other)))
    angle[angle <= -180] = 180.0
    least = np.sin(np.radians(LINEAR_DEG)) * length
    bent = (np.linalg.norm(one, axis=1) > least * np.linalg.norm(first, axis=1)) & (
        np.linalg.norm(other, axis=1) > least * np.linalg.norm(last, axis=1)
    )
    return np.where(bent, angle, np.nan)


def _dot(a: Array, b: Array) -> Array:
    return np.einsum("ij,ij->i", a, b)


def _elements(symbols: Sequence[str], n: int) -> tuple[list[str], Ints]:
    """The distinct elements in alphabetical order, and the place of each atom's among them (n,)."""
    names, element = np.unique(np.array(check_symbols(symbols, n), dtype=str), return_inverse=True)
    return [str(name) for name in names], element.astype(np.int64)


def _atoms_in_chunks(degree: Ints, mask: np.ndarray) -> Iterator[Ints]:
    """The atoms of the mask, so many at a time that their angles are a bounded number."""
    atoms = np.flatnonzero(mask & (degree > 1))
    total = np.cumsum(degree[atoms] * (degree[atoms] - 1) // 2)
    cuts = np.flatnonzero(np.diff(total // _CHUNK)) + 1
    yield from (part for part in np.split(atoms, cuts) if len(part))


def _pairs_of_ends(ends: Ends, atoms: Ints) -> tuple[Ints, Ints]:
    """Every two ends of each of the atoms, once."""
    degree = np.diff(ends.start)[atoms]
    one = runs(ends.start[atoms], degree)
    rest = np.repeat(ends.start[atoms] + degree, degree) - one - 1
    return np.repeat(one, rest), runs(one + 1, rest)


def _chains(ends: Ends, mask: np.ndarray) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Chains a-b-c-d as ends b→a, b→c, c→d: every bond b-c once, in pieces of bounded memory."""
    degree = np.diff(ends.start)
    middle = np.flatnonzero((ends.sign > 0) & mask[ends.origin] & mask[ends.to])
    total = np.cumsum(degree[ends.origin[middle]] * degree[ends.to[middle]])
    cuts = np.flatnonzero(np.diff(total // _CHUNK)) + 1
    for some in np.split(middle, cuts):
        b, c = ends.origin[some], ends.to[some]
        one, of_one = runs(ends.start[b], degree[b]), np.repeat(np.arange(len(some)), degree[b])
        open_ = one != some[of_one]
        one, of_one = one[open_], of_one[open_]
        other = runs(ends.start[c][of_one], degree[c][of_one])
        one, along = (np.repeat(each, degree[c][of_one]) for each in (one, some[of_one]))
        closes = (ends.to[one] == ends.to[other]) & (ends.shift[one] == ends.shift[along] + ends.shift[other]).all(
            axis=1
        )
        keep = (other != ends.back[along]) & ~closes
        yield one[keep], along[keep], other[keep]


def _gather(found: dict[str, list[Array]], values: Array, elements: Ints, names: list[str]) -> None:
    """Adds each value under the name of its row of elements (m, k), read from the end first in the alphabet."""
    base = len(names)
    weight = base ** np.arange(elements.shape[1])[::-1]
    code = np.minimum(elements @ weight, elements @ weight[::-1])
    for one in np.unique(code):
        name = "-".join(names[int(one) // int(w) % base] for w in weight)
        found[name].append(values[code == one])
