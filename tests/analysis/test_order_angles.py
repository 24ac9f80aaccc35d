"""Bond and dihedral angles: known molecules and crystals, signs, images, masks."""

from __future__ import annotations

import numpy as np
import pytest

from analysis import BondRule, Cell, Network, bonds
from analysis.order import angles_of, bond_angles, bond_lengths, dihedral_angles
from analysis.order.angles import chains_of

DIAMOND = np.array([[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0], [1, 1, 1], [1, 3, 3], [3, 1, 3], [3, 3, 1]]) * 1.3575


def chain(dihedral_deg: float) -> np.ndarray:
    """Four atoms in a chain with right angles; seen along the middle bond, z, the rear bond is turned clockwise."""
    phi = np.radians(dihedral_deg)
    return np.array([[1, 0, 0], [0, 0, 0], [0, 0, 1], [np.cos(phi), np.sin(phi), 1.0]])


LINE = Network(4, np.array([[0, 1], [1, 2], [2, 3]]))


def test_water_has_one_angle():
    half = np.radians(104.5 / 2)
    at = np.array([[0, 0, 0], [np.sin(half), np.cos(half), 0], [-np.sin(half), np.cos(half), 0]])
    found = bond_angles(Network(3, np.array([[0, 1], [0, 2]])), at, ["O", "H", "H"])
    assert list(found) == ["H-O-H"]
    np.testing.assert_allclose(found["H-O-H"], [104.5])


def test_lengths_of_bonds_by_elements_across_faces_and_of_chosen_atoms():
    at, symbols = [[0.1, 0, 0], [4.3, 0, 0], [1.6, 0, 0]], ["Si", "O", "O"]
    network = bonds(at, symbols, [BondRule("Si", "O", 1.7), BondRule("O", "O", 2.5)], Cell(np.eye(3) * 5.0))
    found = bond_lengths(network, at, symbols, Cell(np.eye(3) * 5.0))
    assert list(found) == ["O-O", "O-Si"]
    np.testing.assert_allclose(found["O-O"], [2.3])
    np.testing.assert_allclose(sorted(found["O-Si"]), [0.8, 1.5])
    one = bond_lengths(network, at, symbols, Cell(np.eye(3) * 5.0), of=[False, False, True])
    np.testing.assert_allclose([*one["O-O"], *one["O-Si"]], [2.3, 1.5])
    assert bond_lengths(Network(2, np.empty((0, 2), int)), np.zeros((2, 3)), ["O", "O"]) == {}


@pytest.mark.parametrize("copies", [1, 2])
def test_diamond_has_six_tetrahedral_angles_per_atom_and_staggered_dihedrals(copies):
    steps = np.array(np.meshgrid(*[range(copies)] * 3)).reshape(3, -1).T * 5.43
    at = (DIAMOND + steps[:, None]).reshape(-1, 3)
    cell = Cell(np.eye(3) * 5.43 * copies)
    symbols = ["Si"] * len(at)
    network = bonds(at, symbols, [BondRule.parse("Si-Si:2.6")], cell)
    angles = bond_angles(network, at, symbols, cell)["Si-Si-Si"]
    assert len(angles) == 6 * len(at)
    np.testing.assert_allclose(angles, np.degrees(np.arccos(-1 / 3)))
    turns = dihedral_angles(network, at, symbols, cell)["Si-Si-Si-Si"]
    assert len(turns) == 2 * len(at) * 9
    values, counts = np.unique(turns.round(6), return_counts=True)
    np.testing.assert_allclose(values, [-60, 60, 180])
    assert len(set(counts)) == 1


def test_an_atom_bonded_to_its_own_image_on_both_sides_is_a_straight_chain():
    network = Network(1, np.array([[0, 0]]), np.array([[1, 0, 0]]))
    cell = Cell(np.eye(3) * 2.0)
    np.testing.assert_allclose(bond_angles(network, [[0, 0, 0]], ["Au"], cell)["Au-Au-Au"], [180.0])
    assert dihedral_angles(network, [[0, 0, 0]], ["Au"], cell) == {}


@pytest.mark.parametrize("angle", [-179.0, -60.0, 0.0, 35.0, 120.0, 180.0])
def test_dihedral_angles_have_the_sign_of_the_iupac_from_either_end(angle):
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        found = dihedral_angles(LINE, chain(angle)[order], ["Si", "O", "Si", "O"])
        assert list(found) == ["O-Si-O-Si"]
        np.testing.assert_allclose(found["O-Si-O-Si"], [angle], atol=1e-9)


def test_hydrogen_peroxide_agrees_with_ase():
    ase = pytest.importorskip("ase")
    at = np.random.default_rng(4).normal(size=(4, 3))
    theirs = ase.Atoms("HOOH", at).get_dihedral(0, 1, 2, 3)
    ours = dihedral_angles(LINE, at, ["H", "O", "O", "H"])["H-O-O-H"][0]
    assert ours % 360 == pytest.approx(theirs)


def test_straight_chains_and_triangles_have_no_dihedral_angle():
    straight = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 1, 0.0]])
    assert dihedral_angles(LINE, straight, ["C"] * 4) == {}
    triangle = Network(3, np.array([[0, 1], [1, 2], [0, 2]]))
    assert dihedral_angles(triangle, [[0, 0, 0], [1, 0, 0], [0, 1, 0]], ["C"] * 3) == {}


def test_all_angles_of_a_random_network_are_there_once(rng):
    at, symbols = rng.normal(size=(40, 3)) * 2, list(rng.choice(["Zr", "Cu", "Al"], 40))
    network = bonds(at, symbols, [BondRule.parse("any:1.8")])
    graph = network.to_networkx()
    expected: dict[str, list[float]] = {}
    for b in graph:
        near = sorted(set(graph[b]))
        for a in near:
            for c in (c for c in near if c > a):
                u, v = at[a] - at[b], at[c] - at[b]
                ends = sorted([symbols[a], symbols[c]])
                angle = np.degrees(np.arccos(u @ v / np.linalg.norm(u) / np.linalg.norm(v)))
                expected.setdefault(f"{ends[0]}-{symbols[b]}-{ends[1]}", []).append(angle)
    found = bond_angles(network, at, symbols)
    assert sorted(found) == list(found) == sorted(expected)
    for name, angles in expected.items():
        np.testing.assert_allclose(np.sort(found[name]), np.sort(angles), atol=1e-5)
    chains = {(a, b, c, d) for b in graph for a in graph[b] for c in graph[b] for d in graph[c]
              if len({a, b, c, d}) == 4}  # fmt: skip
    assert 2 * sum(map(len, dihedral_angles(network, at, symbols).values())) == len(chains)


def test_bonds_and_signs_of_a_list_of_angles_lead_from_the_middle(rng):
    at = rng.random((60, 3)) * 6
    cell = Cell(np.eye(3) * 6)
    network = bonds(at, ["Au"] * 60, [BondRule.parse("any:1.7")], cell)
    found = angles_of(network)
    assert len(found) == (network.degree * (network.degree - 1) // 2).sum()
    vectors = network.vectors_A(at, cell.vectors_A)
    for k in (0, 1):
        to = found.signs[:, k, None] * vectors[found.bonds[:, k]]
        apart = (at[found.atoms[:, 1]] + to - at[found.atoms[:, 2 * k]]) / 6
        np.testing.assert_allclose(apart, apart.round(), atol=1e-12)
    assert (found.bonds[:, 0] != found.bonds[:, 1]).all()


def test_a_mask_picks_the_middle_atoms():
    at, symbols = chain(60), ["C"] * 4
    of = np.array([True, True, False, True])
    assert len(bond_angles(LINE, at, symbols, of=of)["C-C-C"]) == 1
    assert len(angles_of(LINE, of)) == 1
    assert dihedral_angles(LINE, at, symbols, of=of) == {}
    assert len(dihedral_angles(LINE, at, symbols, of=~np.array([1, 0, 0, 1], bool))["C-C-C-C"]) == 1


def test_nothing_to_measure_and_inputs_that_do_not_fit():
    none = Network(2, np.zeros((0, 2), int))
    assert bond_angles(none, np.eye(3)[:2], ["C", "C"]) == {} == dihedral_angles(none, np.eye(3)[:2], ["C", "C"])
    assert len(angles_of(none)) == 0
    with pytest.raises(ValueError, match="booleans"):
        bond_angles(LINE, chain(0), ["C"] * 4, of=[1, 2])
    with pytest.raises(ValueError, match="expected the same atoms"):
        bond_angles(LINE, chain(0)[:3], ["C"] * 3)
    with pytest.raises(ValueError, match="expected its cell"):
        bond_angles(Network(1, np.array([[0, 0]]), np.array([[1, 0, 0]])), [[0, 0, 0]], ["C"])


def test_chains_have_the_dihedral_angles_of_their_network(rng):
    box = Cell(np.eye(3) * 5.43)
    at = DIAMOND + rng.normal(0, 0.1, DIAMOND.shape)
    symbols = ["Si", "O"] * 4
    network = bonds(at, symbols, [BondRule("any", "any", 2.8)], box)
    every = dihedral_angles(network, at, symbols, box)
    chains = chains_of(network, symbols)
    assert set(chains) == set(every)
    for name, chain_list in chains.items():
        found = chain_list.angles_deg(network.vectors_A(at, box.vectors_A))
        np.testing.assert_allclose(np.sort(found), np.sort(every[name]), atol=1e-9)
        assert len(chain_list.select(np.arange(2))) == 2
