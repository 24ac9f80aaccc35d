"""Warren-Cowley parameters of ordered and random alloys."""

from __future__ import annotations

import numpy as np
import pytest

from analysis import BondRule, Cell, Network, bonds
from analysis.order import warren_cowley


def lattice(basis: list[list[float]], copies: int, cut: float) -> tuple[np.ndarray, Network]:
    steps = np.array(np.meshgrid(*[range(copies)] * 3)).reshape(3, -1).T
    at = (np.array(basis) + steps[:, None]).reshape(-1, 3)
    return at, bonds(at, ["Cu"] * len(at), [BondRule("any", "any", cut)], Cell(np.eye(3) * copies))


@pytest.mark.parametrize("copies", [1, 3])
def test_caesium_chloride_is_fully_ordered(copies):
    at, network = lattice([[0, 0, 0], [0.5, 0.5, 0.5]], copies, 0.9)
    found = warren_cowley(network, ["Al", "Ni"] * (len(at) // 2))
    assert found == {("Al", "Al"): 1, ("Al", "Ni"): -1, ("Ni", "Al"): -1, ("Ni", "Ni"): 1}


def test_rock_salt_has_unlike_first_and_like_second_neighbours():
    at, first = lattice([[0, 0, 0]], 4, 1.1)
    symbols = np.where(at.sum(axis=1) % 2 == 0, "Na", "Cl").tolist()
    assert warren_cowley(first, symbols)["Na", "Cl"] == -1
    _, both = lattice([[0, 0, 0]], 4, 1.5)
    assert warren_cowley(both, symbols)["Na", "Na"] == pytest.approx(1 - 12 / 18 / 0.5)


def test_a_random_alloy_has_none(rng):
    at, network = lattice([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]], 8, 0.75)
    symbols = rng.permutation(["Cu"] * (len(at) * 3 // 4) + ["Au"] * (len(at) // 4)).tolist()
    found = warren_cowley(network, symbols)
    for (a, b), value in found.items():
        c_a, c_b = (symbols.count(x) / len(at) for x in (a, b))
        assert abs(value) < 4 * np.sqrt((1 - c_b) / c_b / (12 * len(at) * c_a / 2))
    assert found["Cu", "Au"] == pytest.approx(found["Au", "Cu"])
    for a in ("Cu", "Au"):
        assert sum(symbols.count(b) * found[a, b] for b in ("Cu", "Au")) == pytest.approx(0, abs=1e-9)


def test_a_mask_picks_the_centres_and_their_composition():
    network = Network(4, np.array([[0, 1], [1, 2], [2, 3]]))
    of = np.array([False, True, True, False])
    found = warren_cowley(network, ["Si", "O", "Si", "C"], of)
    assert found == {("O", "O"): 1, ("O", "Si"): -1, ("Si", "O"): 0, ("Si", "Si"): 1}


def test_no_bonds_and_no_atoms():
    assert np.isnan(warren_cowley(Network(1, np.zeros((0, 2), int)), ["Si"])["Si", "Si"])
    assert warren_cowley(Network(0, np.zeros((0, 2), int)), []) == {}
