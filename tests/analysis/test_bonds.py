"""Bond rules: what they say, which pairs they take, and the default read off g(r)."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import BondRule, Cell, bonds, default_rules, homopolar_rules
from analysis.atoms import SYMBOLS


def zincblende(cells: int, lattice_A: float = 4.36) -> tuple[np.ndarray, list[str]]:
    """Cube of SiC: every inner atom has four unlike neighbours at √3/4 of the lattice constant."""
    fcc = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    origin = np.stack(np.meshgrid(*[np.arange(cells)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    first, second = ((origin + fcc + shift).reshape(-1, 3) for shift in (0.0, 0.25))
    return np.concatenate([first, second]) * lattice_A, ["Si"] * len(first) + ["C"] * len(second)


def test_the_limits_belong_to_the_rule():
    line = np.array([[0, 0, 0], [1.5, 0, 0], [3.25, 0, 0]])
    symbols = ["Si", "O", "Si"]
    assert bonds(line, symbols, [BondRule("Si", "O", 1.5)]).pairs.tolist() == [[0, 1]]
    assert bonds(line, symbols, [BondRule("O", "Si", 1.75)]).pairs.tolist() == [[0, 1], [1, 2]]
    assert bonds(line, symbols, [BondRule("Si", "O", 1.75, 0.25)]).pairs.tolist() == [[0, 1], [1, 2]]
    assert bonds(line, symbols, [BondRule("Si", "O", 1.75, 0.24)]).pairs.tolist() == [[1, 2]]
    assert bonds(line, symbols, [BondRule("Si", "Si", 4.0)]).pairs.tolist() == [[0, 2]]
    assert bonds(line, symbols, [BondRule("any", "any", 4.0)]).pairs.tolist() == [[0, 1], [0, 2], [1, 2]]
    both = [BondRule("Si", "Si", 4.0), BondRule("any", "any", 1.5)]
    assert bonds(line, symbols, both).pairs.tolist() == [[0, 1], [0, 2]]


def test_against_all_distances(rng):
    positions = rng.uniform(0, 10, (200, 3))
    symbols = rng.choice(["Si", "O", "Ge"], 200).tolist()
    found = {tuple(pair) for pair in bonds(positions, symbols, [BondRule("Si", "O", 2.0, 0.4)]).pairs.tolist()}
    expected = {
        (i, j)
        for i in range(200)
        for j in range(i + 1, 200)
        if {symbols[i], symbols[j]} == {"Si", "O"} and abs(np.linalg.norm(positions[i] - positions[j]) - 2.0) <= 0.4
    }
    assert found == expected
    assert len(expected) > 50


def test_nothing_to_bond():
    for positions, symbols in (([], []), ([[0, 0, 0]], ["Si"])):
        assert bonds(positions, symbols, [BondRule("any", "any", 2.0)]).pairs.shape == (0, 2)
    assert bonds([[0, 0, 0], [1, 0, 0]], ["Si", "Si"], []).pairs.shape == (0, 2)
    assert default_rules([[0, 0, 0]], ["Si"]) == ()


def test_doubled_atoms_are_refused():
    with pytest.raises(ValueError, match="atoms 0 and 2 stand in the same place"):
        bonds([[0, 0, 0], [1, 0, 0], [0, 0, 0]], ["Si"] * 3, [BondRule("any", "any", 2.0)])


@given(
    pair=st.one_of(st.just(("any", "any")), st.tuples(st.sampled_from(SYMBOLS), st.sampled_from(SYMBOLS))),
    distance=st.floats(1e-3, 1e3),
    tolerance=st.one_of(st.none(), st.floats(0, 10)),
)
def test_a_rule_reads_what_it_writes(pair, distance, tolerance):
    rule = BondRule(*pair, distance, tolerance)
    assert BondRule.parse(str(rule)) == rule


def test_rules_as_users_write_them():
    assert BondRule.parse("Si-O:2.2") == BondRule("Si", "O", 2.2)
    assert BondRule.parse(" any : 1.66 ", 0.15) == BondRule("any", "any", 1.66, 0.15)
    assert BondRule.parse("any:1.66±0.15") == BondRule("any", "any", 1.66, 0.15)


@pytest.mark.parametrize(
    "text", ["", "Si-O", "Si:2.2", "Si-O-Si:2", "Si-O:", "Si-O:two", "any-O:2", "Si-O:-1", "Xx-O:2", "Si-O:nan"]
)
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match=r"bond rule|bond distance|not an element"):
        BondRule.parse(text)


def test_default_is_unlike_pairs_between_first_and_second_neighbours(rng):
    positions, symbols = zincblende(4)
    positions = positions + rng.normal(0, 0.05, positions.shape)
    (rule,) = default_rules(positions, symbols)
    bond = 4.36 * np.sqrt(3) / 4
    assert {rule.a, rule.b} == {"Si", "C"}
    assert 1.15 * bond < rule.distance_A < 1.6 * bond
    assert bonds(positions, symbols, [rule]).degree.max() == 4


def test_default_of_one_element_is_its_like_pairs(rng):
    positions, symbols = zincblende(4, 5.43)
    positions = positions + rng.normal(0, 0.08, positions.shape)
    (rule,) = default_rules(positions, ["Si"] * len(symbols))
    assert (rule.a, rule.b) == ("Si", "Si")
    assert 2.35 * 1.1 < rule.distance_A < 3.84 * 0.95


def test_homopolar_rules_reach_as_far_as_the_bonds():
    rules = [BondRule("Si", "O", 2.0), BondRule("Ge", "O", 1.8, 0.5)]
    assert homopolar_rules(rules) == (BondRule("Ge", "Ge", 2.3), BondRule("O", "O", 2.3), BondRule("Si", "Si", 2.0))


def test_published_glass_has_the_known_bonds(shared):
    """10074 Si-O bonds of 1.59-1.83 Å in 7704 atoms, none between 1.9 and 2.3 Å."""
    from scipy.io import loadmat

    file = loadmat(shared / "models" / "sio2_7704_GT.mat")
    symbols = [SYMBOLS[int(number)] for number in file["atomic_number"].ravel()]
    (rule,) = default_rules(file["pos"], symbols)
    assert 1.9 < rule.distance_A < 2.3
    assert len(bonds(file["pos"], symbols, [rule])) == 10074


def test_bonds_across_the_faces_of_a_skewed_box(rng):
    """Against every image by hand: which pairs, how many times, and along which vectors."""
    edges = np.array([[4.0, 0, 0], [1.5, 4.5, 0], [-1.0, 0.7, 5.0]])
    places = rng.random((20, 3)) @ edges + rng.integers(-2, 3, (20, 3)) @ edges
    found = bonds(places, ["C"] * 20, [BondRule("C", "C", 1.9)], Cell(edges))
    steps = np.array(list(product(range(-8, 9), repeat=3)))
    away = places[None, :, None] + steps @ edges - places[:, None, None]
    near = {tuple(map(int, (i, j, *steps[s]))) for i, j, s in np.argwhere(np.linalg.norm(away, axis=3) <= 1.9) if i < j}
    assert {(*pair, *shift) for pair, shift in zip(found.pairs.tolist(), found.shifts.tolist(), strict=True)} == near
    assert len(near) > 20
    lengths = np.linalg.norm(found.vectors_A(places, edges), axis=1)
    assert lengths.max() <= 1.9


def test_an_atom_is_bonded_to_its_own_images():
    found = bonds([[0.0, 0, 0]], ["Po"], [BondRule("Po", "Po", 3.5)], Cell(3.34 * np.eye(3)))
    assert found.pairs.tolist() == [[0, 0]] * 3
    assert found.degree.tolist() == [6]
    assert sorted(found.shifts.tolist()) == [[0, 0, 1], [0, 1, 0], [1, 0, 0]]


def test_a_box_that_repeats_along_some_edges_needs_no_others():
    sheet = Cell(np.array([[2.46, 0, 0], [-1.23, 2.13, 0], [0, 0, 0]]), (True, True, False))
    found = bonds([[0, 0, 5], [0, 1.42, 5]], ["C", "C"], [BondRule("C", "C", 1.6)], sheet)
    assert len(found) == 3
    assert not found.shifts[:, 2].any()
    for wrong in (np.zeros((3, 3)), np.array([[1.0, 0, 0], [2, 0, 0], [0, 0, 1]])):
        with pytest.raises(ValueError, match="span no volume"):
            Cell(wrong)


def test_atoms_that_crowd_are_refused():
    line = np.column_stack([0.01 * np.arange(5000), np.zeros(5000), np.zeros(5000)])
    with pytest.raises(ValueError, match="more than 64 neighbours"):
        bonds(line, ["Si"] * 5000, [BondRule("any", "any", 2.0)])


def test_like_pairs_are_bonded_on_demand(rng):
    positions, symbols = zincblende(3)
    rules = default_rules(positions + rng.normal(0, 0.05, positions.shape), symbols, pairs="all")
    assert {tuple(sorted((rule.a, rule.b))) for rule in rules} == {("C", "C"), ("C", "Si"), ("Si", "Si")}
    with pytest.raises(ValueError, match="'unlike' or 'all'"):
        default_rules(positions, symbols, pairs="some")


@pytest.mark.parametrize(("repeat", "neighbours"), [(1, 3), (3, 3)])
def test_default_rules_of_a_periodic_sheet(repeat, neighbours):
    """Graphene, from one cell of two atoms on: bonds of 1.42 Å, second neighbours at 2.46 Å."""
    from ase.build import graphene

    sheet = graphene(size=(repeat, repeat, 1), vacuum=5.0)
    cell = Cell(sheet.cell.array, tuple(sheet.pbc))
    (rule,) = default_rules(sheet.positions, ["C"] * len(sheet), cell)
    assert 1.45 < rule.distance_A < 2.44
    assert set(bonds(sheet.positions, ["C"] * len(sheet), [rule], cell).degree.tolist()) == {neighbours}


@pytest.mark.parametrize("name", ["diamond", "rocksalt", "bcc", "fcc"])
def test_default_rules_of_one_cell_of_a_crystal(name):
    from ase.build import bulk

    crystal = {
        "diamond": bulk("Si"),
        "rocksalt": bulk("MgO", "rocksalt", a=4.21),
        "bcc": bulk("W", cubic=True),
        "fcc": bulk("Cu"),
    }[name]
    cell, symbols = Cell(crystal.cell.array), crystal.get_chemical_symbols()
    rules = default_rules(crystal.positions, symbols, cell)
    degree = bonds(crystal.positions, symbols, rules, cell).degree
    assert set(degree.tolist()) == {{"diamond": 4, "rocksalt": 6, "bcc": 14, "fcc": 12}[name]}
