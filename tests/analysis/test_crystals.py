"""Known truths about the nets of crystals: coordination sequences, vertex symbols, rings; periodic and cut out.

Every entry names where it comes from. "published" is a number read in the source named; "derived" is a number counted
from the definition alone by an independent brute-force count on the unfolded net; no source with it was at hand.

Sources, by the short names used below:
OEIS      The On-Line Encyclopedia of Integer Sequences, oeis.org, by A-number. The silica sequences are from
          R. W. Grosse-Kunstleve, G. O. Brunner, N. J. A. Sloane, Acta Cryst. A 52, 879 (1996).
RCSR      Reticular Chemistry Structure Resource, M. O'Keeffe, M. A. Peskov, S. J. Ramsden, O. M. Yaghi, Acc. Chem. Res.
          41, 1782 (2008), doi:10.1021/ar800124u; its data files 3dall-20080902.txt and 2dall.txt.
#284      The issue 284 of github.com/libAtoms/matscipy (2025): shortest-path rings of C60 by matscipy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pytest
from ase import Atoms
from ase.build import graphene as graphene_sheet
from ase.build import molecule
from ase.spacegroup import crystal

from analysis import BondRule, Cell, Network, RingList, bonds, coordination_sequences, linked, rings

Symbol = tuple[tuple[int, int], ...]  # (size, number of shortest rings) at each angle, sorted
Sizes = dict[int, int]  # how many rings of each size


def diamond() -> Atoms:
    """Cubic cell, 8 C. Fd-3m, C in 8a, a = 3.567 Å (R. W. G. Wyckoff, Crystal Structures 1, 1963: 3.5668 Å)."""
    return crystal("C", [(0.0, 0.0, 0.0)], spacegroup=227, cellpar=[3.567, 3.567, 3.567, 90, 90, 90])


def quartz() -> Atoms:
    """Alpha-quartz, hexagonal cell, 3 Si and 6 O. P3221, Si in 3a (x, 0, 2/3), O in 6c.

    L. Levien, C. T. Prewitt, D. J. Weidner, Am. Mineral. 65, 920 (1980), at 1 atm: a = 4.916, c = 5.4054 Å. These cell
    edges, and the mean Si-O of 1.6092(7) Å and Si-O-Si of 143.73(7)° that the coordinates give, are in its abstract.
    """
    sites = [(0.4697, 0.0, 2 / 3), (0.4135, 0.2669, 0.1191 + 2 / 3)]
    return crystal(["Si", "O"], sites, spacegroup=154, cellpar=[4.916, 4.916, 5.4054, 90, 90, 120])


def cristobalite() -> Atoms:
    """Ideal beta-cristobalite (C9), cubic cell, 8 Si and 16 O. Fd-3m, Si in 8a, O in 16c midway between two Si.

    R. W. G. Wyckoff, Z. Kristallogr. 62, 189 (1925), a = 7.16 Å (the length was not checked in print; the net does not
    depend on it). D. R. Peacor, Z. Kristallogr. 138, 274 (1973) spreads the O over 96g, of which 16c is the mean.
    """
    sites = [(0.0, 0.0, 0.0), (0.125, 0.125, 0.125)]
    return crystal(["Si", "O"], sites, spacegroup=227, cellpar=[7.16, 7.16, 7.16, 90, 90, 90])


def coesite() -> Atoms:
    """Monoclinic cell, 16 Si (first 8 Si1, then 8 Si2) and 32 O. C2/c, O1 in 4a, O2 in 4e, the others in 8f.

    L. Levien, C. T. Prewitt, Am. Mineral. 66, 324 (1981), at 1 atm. The coordinates were not compared with the printed
    table; they give Si-O of 1.595 to 1.619 Å, mean 1.610 Å, Si-O1-Si of 180°, 2.921 g/cm³ and the net coe of RCSR.
    """
    silicon = [(0.14033, 0.10833, 0.07227), (0.50682, 0.15799, 0.54077)]
    oxygen = [
        (0.0, 0.0, 0.0), (0.5, 0.11635, 0.75), (0.2661, 0.12335, 0.9401), (0.3114, 0.1038, 0.3282),
        (0.0172, 0.2117, 0.4782),
    ]  # fmt: skip
    cell = [7.1356, 12.3692, 7.1736, 90, 120.34, 90]
    return crystal(["Si"] * 2 + ["O"] * 5, silicon + oxygen, spacegroup=15, cellpar=cell)


def graphite() -> Atoms:
    """AB graphite, hexagonal cell, 4 C in two sheets. P63/mmc, C in 2b and 2c, a = 2.464, c = 6.711 Å.

    P. Trucano, R. Chen, Nature 258, 136 (1975).
    """
    sites = [(0.0, 0.0, 0.25), (1 / 3, 2 / 3, 0.25)]
    return crystal(["C", "C"], sites, spacegroup=194, cellpar=[2.464, 2.464, 6.711, 90, 90, 120])


def graphene() -> Atoms:
    """One sheet of graphite, 2 C, periodic in the sheet only. a = 2.464 Å as in graphite."""
    return graphene_sheet(a=2.464, vacuum=5.0)


def c60() -> Atoms:
    """Buckminsterfullerene, 60 C, free. ase.build.molecule("C60"), bonds of 1.384 to 1.385 and 1.435 to 1.438 Å.

    The molecule: H. W. Kroto, J. R. Heath, S. C. O'Brien, R. F. Curl, R. E. Smalley, Nature 318, 162 (1985).
    """
    return molecule("C60")


BUILDERS: dict[str, Callable[[], Atoms]] = {
    "diamond": diamond, "quartz": quartz, "cristobalite": cristobalite, "coesite": coesite,
    "graphite": graphite, "graphene": graphene, "c60": c60,
}  # fmt: skip
SILICAS = ("quartz", "cristobalite", "coesite")

# Å. Anything between the bond and the next distance serves: Si-O 1.55 to 1.62 and 2.5 or more, C-C 1.38 to 1.55 and
# 2.3 or more.
CUTOFF = {name: 2.0 if name in SILICAS else 1.8 for name in BUILDERS}

N_ATOMS = {"diamond": 8, "quartz": 9, "cristobalite": 24, "coesite": 48, "graphite": 4, "graphene": 2, "c60": 60}
N_T = {"quartz": 3, "cristobalite": 8, "coesite": 16}


class Shells(NamedTuple):
    """One kind of node: how many of the cell's nodes are of it, and its shells 1 to 10."""

    nodes_per_cell: int
    shells: tuple[int, ...]
    source: str


_DIA = (4, 12, 24, 42, 64, 92, 124, 162, 204, 252)
_HCB = (3, 6, 9, 12, 15, 18, 21, 24, 27, 30)
_COE_1 = (4, 10, 23, 47, 83, 127, 174, 221, 276, 356)
_COE_2 = (4, 10, 22, 47, 83, 125, 171, 215, 288, 349)

# Coordination sequences, of the net of Si for the silicas (two Si linked by an O), of all atoms for carbon.
# Levien & Prewitt's Si1 of coesite is T2 of OEIS and V1 of RCSR; their Si2 is T1 of OEIS and V2 of RCSR.
COORDINATION: dict[str, tuple[Shells, ...]] = {
    "diamond": (Shells(8, _DIA, "published: OEIS A008253; RCSR dia-c"),),
    "quartz": (Shells(3, (4, 12, 30, 52, 80, 116, 156, 204, 258, 318), "published: OEIS A008261; RCSR qtz-c"),),
    "cristobalite": (Shells(8, _DIA, "published: OEIS A008253; RCSR dia-c (its Si net is that of diamond)"),),
    "coesite": (
        Shells(8, _COE_1, "published: OEIS A008268; RCSR coe V1"),
        Shells(8, _COE_2, "published: OEIS A008267; RCSR coe V2"),
    ),
    "graphite": (Shells(4, _HCB, "published: OEIS A008486; RCSR hcb"),),
    "graphene": (Shells(2, _HCB, "published: OEIS A008486; RCSR hcb"),),
    "c60": (Shells(60, (3, 6, 8, 10, 10, 10, 8, 3, 1, 0), "derived"),),
}


class Vertex(NamedTuple):
    """One kind of node and the shortest rings at its angles, (size, number), sorted."""

    nodes_per_cell: int
    symbol: Symbol
    source: str


_DIA_V: Symbol = ((6, 2),) * 6
_HCB_V: Symbol = ((6, 1),) * 3

# Vertex symbols: at each angle of a node, the shortest of the rings WITHOUT A SHORTCUT (primitive rings). In the
# order of COORDINATION, same net. RCSR writes the six angles in opposite pairs, here they are sorted. The definition,
# with ring and cycle kept apart: V. A. Blatov, M. O'Keeffe, D. M. Proserpio, CrystEngComm 12, 44 (2010),
# doi:10.1039/B910671E.
VERTEX_SYMBOL: dict[str, tuple[Vertex, ...]] = {
    "diamond": (Vertex(8, _DIA_V, "published: RCSR dia-c, 6(2).6(2).6(2).6(2).6(2).6(2)"),),
    "quartz": (
        Vertex(3, ((6, 1), (6, 1), (6, 2), (6, 2), (8, 7), (8, 7)), "published: RCSR qtz-c, 6.6.6(2).6(2).8(7).8(7)"),
    ),
    "cristobalite": (Vertex(8, _DIA_V, "published: RCSR dia-c, 6(2).6(2).6(2).6(2).6(2).6(2)"),),
    "coesite": (
        Vertex(8, ((4, 1), (4, 1), (6, 1), (8, 1), (8, 1), (9, 7)), "published: RCSR coe V1, 4.8.4.9(7).6.8"),
        Vertex(8, ((4, 1), (4, 1), (6, 1), (6, 1), (8, 1), (9, 2)), "published: RCSR coe V2, 4.6.4.6.8.9(2)"),
    ),
    "graphite": (Vertex(4, _HCB_V, "published: RCSR hcb, 6^3"),),
    "graphene": (Vertex(2, _HCB_V, "published: RCSR hcb, 6^3"),),
    "c60": (Vertex(60, ((5, 1), (6, 1), (6, 1)), "derived; the faces 5.6.6 of the truncated icosahedron"),),
}

# The same with ALL shortest closed paths at each angle, shortcuts allowed (King's rings): an extended point symbol.
# It differs from the vertex symbol in quartz (8_9 for 8_7) and coesite: some of King's rings have a shortcut.
KING_SYMBOL: dict[str, tuple[Vertex, ...]] = {
    "diamond": (Vertex(8, _DIA_V, "published: topoCIF 0.9.6 (IUCr), 6(2).6(2).6(2).6(2).6(2).6(2)"),),
    "quartz": (Vertex(3, ((6, 1), (6, 1), (6, 2), (6, 2), (8, 9), (8, 9)), "derived"),),
    "cristobalite": (Vertex(8, _DIA_V, "as diamond"),),
    "coesite": (
        Vertex(8, ((4, 1), (4, 1), (6, 2), (8, 1), (8, 1), (9, 7)), "derived"),
        Vertex(8, ((4, 1), (4, 1), (6, 1), (6, 1), (6, 1), (8, 5)), "derived"),
    ),
    "graphite": (Vertex(4, _HCB_V, "derived"),),
    "graphene": (Vertex(2, _HCB_V, "derived"),),
    "c60": (Vertex(60, ((5, 1), (6, 1), (6, 1)), "derived"),),
}

MAX_SIZE = 24

# Rings of at most MAX_SIZE atoms PER CELL (N_ATOMS atoms; of the whole molecule for c60), in the net of all atoms, Si
# and O alike; half the size is the number of Si. Each ring is counted once per class of translates. "primitive":
# Franzblau's shortest-path rings; "king": all shortest rings through an atom and two neighbours; "guttman": all
# shortest rings through a bond. All derived; "primitive" also agrees with matscipy 1.3.1, a third
# implementation, and that of c60 is published in #284. King's and Guttman's have no larger rings here: each angle and
# bond has one within MAX_SIZE. Nor were larger primitive rings found up to 20 Si in quartz and coesite.
RINGS: dict[str, dict[str, Sizes]] = {
    "diamond": {"primitive": {6: 16}, "king": {6: 16}, "guttman": {6: 16}},
    "quartz": {"primitive": {12: 3, 16: 15}, "king": {12: 3, 16: 21}, "guttman": {12: 3}},
    "cristobalite": {"primitive": {12: 16}, "king": {12: 16}, "guttman": {12: 16}},
    "coesite": {
        "primitive": {8: 8, 12: 4, 16: 4, 18: 16, 20: 4, 22: 16, 24: 12},
        "king": {8: 8, 12: 12, 16: 28, 18: 16},
        "guttman": {8: 8, 12: 4, 16: 4},
    },
    "graphite": {"primitive": {6: 2}, "king": {6: 2}, "guttman": {6: 2}},
    "graphene": {"primitive": {6: 1}, "king": {6: 1}, "guttman": {6: 1}},
    "c60": {"primitive": {5: 12, 6: 20, 18: 10}, "king": {5: 12, 6: 20}, "guttman": {5: 12, 6: 20}},
}


def network_of(atoms: Atoms, name: str) -> Network:
    cell = Cell(atoms.cell.array, tuple(atoms.pbc)) if atoms.pbc.any() else None
    return bonds(atoms.positions, atoms.get_chemical_symbols(), [BondRule("any", "any", CUTOFF[name])], cell)


def t_network(atoms: Atoms, name: str) -> Network:
    """The net of Si of a silica, of all atoms of a carbon."""
    network = network_of(atoms, name)
    return linked(network, atoms.get_chemical_symbols(), "Si")[0] if name in SILICAS else network


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("definition", ["primitive", "king", "guttman"])
def test_rings_of_one_cell_are_those_of_the_endless_net(name, definition):
    assert rings(network_of(BUILDERS[name](), name), definition=definition).sizes == RINGS[name][definition]


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("definition", ["primitive", "king", "guttman"])
def test_rings_do_not_depend_on_the_box(name, definition):
    """A box of several cells, shifted and with its atoms shuffled and strewn over other boxes."""
    one = BUILDERS[name]()
    repeats = tuple(2 + k if flag else 1 for k, flag in enumerate(one.pbc))
    many = one * repeats
    rng = np.random.default_rng(5)
    many = many[rng.permutation(len(many))]
    many.positions += (rng.integers(-2, 3, (len(many), 3)) * many.pbc) @ many.cell.array + rng.normal(size=3)
    found = rings(network_of(many, name), definition=definition)
    assert found.sizes == {size: count * np.prod(repeats) for size, count in RINGS[name][definition].items()}


@pytest.mark.parametrize("name", BUILDERS)
def test_rings_close_in_space_over_bonds(name):
    atoms = BUILDERS[name]()
    found = rings(network_of(atoms, name))
    for ring, shifts in zip(found, found.shifts or [[[0, 0, 0]] * len(r) for r in found], strict=True):
        places = atoms.positions[list(ring)] + np.array(shifts) @ atoms.cell.array
        steps = np.linalg.norm(places - np.roll(places, 1, axis=0), axis=1)
        assert steps.max() < CUTOFF[name]
        assert len(np.unique(places.round(6), axis=0)) == len(ring)


@pytest.mark.parametrize("name", [name for name in BUILDERS if name != "c60"])
@pytest.mark.parametrize("definition", ["primitive", "king", "guttman"])
def test_an_atom_deep_in_a_cut_out_has_the_rings_of_the_periodic_net(name, definition):
    """All atoms up to 12 bonds from the middle one: every ring of at most 24 atoms through it is there."""
    one = BUILDERS[name]()
    periodic = rings(network_of(one, name), definition=definition)
    piece, middle = cut_out(one, name)
    found = rings(network_of(piece, name), definition=definition)
    home = int(piece.arrays["home"][middle])
    for size, table in periodic.tables.items():
        assert (found.tables[size] == middle).sum() == (table == home).sum()


def cut_out(one: Atoms, name: str) -> tuple[Atoms, int]:
    """A free ball about atom 0 that holds what 13 bonds can reach, each atom with its index in the cell; and its middle."""
    radius = 13 * CUTOFF[name] * (0.75 if name in SILICAS else 0.7)
    edges = np.linalg.norm(one.cell.array, axis=1)
    repeats = tuple(
        2 * int(np.ceil(radius / (0.8 * edge))) + 1 if flag else 1 for edge, flag in zip(edges, one.pbc, strict=True)
    )
    many = one * repeats
    many.set_array("home", np.tile(np.arange(len(one)), int(np.prod(repeats))))
    middle = one.positions[0] + (np.array(repeats) // 2) @ one.cell.array
    many = many[np.linalg.norm(many.positions - middle, axis=1) < radius]
    many.pbc = False
    return many, int(np.argmin(np.linalg.norm(many.positions - middle, axis=1)))


@pytest.mark.parametrize("name", BUILDERS)
def test_published_coordination_sequences(name):
    network = t_network(BUILDERS[name](), name)
    found = Counter(map(tuple, coordination_sequences(network, 10).tolist()))
    expected: Counter[tuple[int, ...]] = Counter()
    for kind in COORDINATION[name]:
        expected[kind.shells] += kind.nodes_per_cell
    assert found == expected


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize(("definition", "symbols"), [("primitive", VERTEX_SYMBOL), ("king", KING_SYMBOL)])
def test_published_vertex_symbols(name, definition, symbols):
    network = t_network(BUILDERS[name](), name)
    found = Counter(vertex_symbols(network, rings(network, definition=definition, max_size=12)))
    expected: Counter[Symbol] = Counter()
    for kind in symbols[name]:
        expected[kind.symbol] += kind.nodes_per_cell
    assert found == expected


def vertex_symbols(network: Network, found: RingList) -> list[Symbol]:
    """At every angle of every node, size and number of the smallest rings through it."""
    start, to, shift = network.neighbours()
    at_angle: dict[tuple, Counter[int]] = {}
    for ring, shifts in zip(found, found.shifts or [[[0, 0, 0]] * len(r) for r in found], strict=True):
        for k, atom in enumerate(ring):
            ends = ((ring[k - 1], shifts[k - 1]), (ring[(k + 1) % len(ring)], shifts[(k + 1) % len(ring)]))
            legs = frozenset((end, *(np.subtract(s, shifts[k]).tolist())) for end, s in ends)
            at_angle.setdefault((atom, legs), Counter())[len(ring)] += 1
    symbols = []
    for atom in range(network.n_atoms):
        legs = [(int(to[k]), *shift[k].tolist()) for k in range(start[atom], start[atom + 1])]
        angles = [at_angle[atom, frozenset(pair)] for pair in combinations(legs, 2)]
        symbols.append(tuple(sorted((min(sizes), sizes[min(sizes)]) for sizes in angles)))
    return symbols


@pytest.mark.parametrize("name", ["diamond", "quartz", "cristobalite", "coesite"])
def test_minimum_cycle_basis_of_a_periodic_box_is_complete(name):
    """All sums of rings of a box: bonds − atoms + 1 independent cycles, less the three that run around the box."""
    atoms = BUILDERS[name]() * (3, 3, 3)
    network = network_of(atoms, name)
    assert len(rings(network, definition="mcb")) == len(network) - len(atoms) + 1 - 3


def test_minimum_cycle_basis_of_a_box_too_small_is_refused():
    with pytest.raises(ValueError, match="larger box"):
        rings(network_of(quartz(), "quartz"), definition="mcb")


def test_every_atom_of_a_silica_has_its_bonds():
    for name in SILICAS:
        atoms = BUILDERS[name]()
        degree = network_of(atoms, name).degree
        assert {s: set(degree[np.array(atoms.get_chemical_symbols()) == s].tolist()) for s in ["O", "Si"]} == {
            "O": {2},
            "Si": {4},
        }
