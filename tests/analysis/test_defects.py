"""Defects by hand: a square lattice with a hole, silica with a broken bond; which atoms lie on a surface."""

from __future__ import annotations

import numpy as np
import pytest

from analysis import Atoms, BondRule, Cell, bonds, defects, formers_of, linked, q_n, surface_atoms
from analysis.defects import usual_bonds


def chain() -> Atoms:
    """Si-O-Si-O-Si along x, 1.6 Å bonds, and a like pair O-O beside it."""
    places = [[0, 0, 0], [1.6, 0, 0], [3.2, 0, 0], [4.8, 0, 0], [6.4, 0, 0], [20, 0, 0], [21.5, 0, 0]]
    return Atoms(places, ("Si", "O", "Si", "O", "Si", "O", "O"))


def of(atoms: Atoms, *rules: BondRule):
    return bonds(atoms.positions_A, atoms.symbols, rules, atoms.cell)


def test_a_chain_with_its_ends_and_a_like_pair():
    atoms = chain()
    network = of(atoms, BondRule("Si", "O", 1.7))
    found = defects(network, atoms, expected={"Si": 2, "O": 2}, homopolar=of(atoms, BondRule("O", "O", 1.7)))
    assert found.under.tolist() == [0, 4, 5, 6]
    assert found.dangling.tolist() == [0, 4, 5, 6]
    assert found.over.tolist() == []
    assert found.homopolar.tolist() == [[5, 6]]
    inner = np.arange(7) < 5
    assert defects(network, atoms, expected={"Si": 2, "O": 2}, of=inner).under.tolist() == [0, 4]
    assert defects(network, atoms, expected={"Si": 1}).over.tolist() == [2]


def test_the_usual_number_of_bonds_is_the_most_common():
    atoms = chain()
    assert usual_bonds(of(atoms, BondRule("Si", "O", 1.7)), atoms.symbols) == {"O": 2, "Si": 1}


def test_bonds_of_one_element_are_no_homopolar_defects():
    atoms = Atoms([[0, 0, 0], [2.3, 0, 0]], ("Si", "Si"))
    assert defects(of(atoms, BondRule("Si", "Si", 2.5)), atoms).homopolar.tolist() == []


def test_bridges_of_a_chain():
    """The middle Si has two bridges, the end ones have one; an O that leads nowhere is none."""
    atoms = chain()
    places = np.vstack([atoms.positions_A, [[-1.6, 0, 0]]])
    longer = Atoms(places, (*atoms.symbols, "O"))
    network = of(longer, BondRule("Si", "O", 1.7))
    assert q_n(network, longer.symbols, "Si") == {1: 2, 2: 1}
    assert formers_of(network, longer.symbols) in ("Si", None)
    net, chosen = linked(network, longer.symbols, "Si")
    assert chosen.tolist() == [0, 2, 4]
    assert net.pairs.tolist() == [[0, 1], [1, 2]]


def test_inner_atoms_of_a_ball_are_not_on_its_surface(rng):
    """A cut-out of amorphous density: all atoms far below the surface are inner, nearly all at it are not."""
    places = np.mgrid[-9:10, -9:10, -9:10].reshape(3, -1).T * 2.2 + rng.normal(0, 0.25, (19**3, 3))
    places = places[np.linalg.norm(places, axis=1) < 15]
    surface = surface_atoms(places)
    depth = 15 - np.linalg.norm(places, axis=1)
    assert not surface[depth > 4].any()
    assert surface[depth < 0.8].mean() > 0.9
    thicker = surface_atoms(places, depth_A=3.0)
    assert (thicker >= surface).all()
    assert thicker.sum() > 1.3 * surface.sum()


def test_a_cavity_has_a_surface_and_a_cage_has_none(rng):
    places = np.mgrid[-6:7, -6:7, -6:7].reshape(3, -1).T * 2.2
    hollow = places[np.linalg.norm(places, axis=1) > 7]
    around = np.abs(np.linalg.norm(hollow, axis=1) - 7) < 1
    assert surface_atoms(hollow)[around].mean() > 0.9
    vacancy = places[np.linalg.norm(places, axis=1) > 0.1]
    assert not surface_atoms(vacancy)[np.abs(vacancy).max(axis=1) < 10].any()


def test_a_periodic_box_has_no_surface_and_a_slab_has_two():
    places = np.mgrid[0:6, 0:6, 0:6].reshape(3, -1).T * 2.2
    box = np.eye(3) * 13.2
    assert not surface_atoms(places, Cell(box)).any()
    slab = surface_atoms(places, Cell(np.diag([13.2, 13.2, 40.0]), (True, True, False)))
    np.testing.assert_array_equal(slab, (places[:, 2] < 0.1) | (places[:, 2] > 10.9))


@pytest.mark.parametrize("places", [np.zeros((0, 3)), np.zeros((1, 3)), np.arange(30).reshape(10, 3), np.eye(3)])
def test_atoms_in_a_line_or_few_are_all_surface(places):
    assert surface_atoms(places).all()
