"""Bonds of the true atoms, as far as measured ones tell them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis import Atoms, BondRule, Cell, bonds, likely_bonds, network_bands, rings

WINDOW = [BondRule("any", "any", 1.66, 0.15)]


def measured(truth: Atoms, sigma_A: float, seed: int) -> Atoms:
    noise = np.random.default_rng(seed).normal(0, sigma_A, truth.positions_A.shape)
    return Atoms(truth.positions_A + noise, truth.symbols, sigma_A=np.full(len(truth), sigma_A), cell=truth.cell)


def as_set(network) -> set[tuple[int, ...]]:
    return set(map(tuple, np.column_stack([network.pairs, network.shifts]).tolist()))


@pytest.mark.parametrize("sigma_A", [0.05, 0.08])
def test_bonds_that_errors_broke_are_found_again(silica, sigma_A):
    atoms = measured(silica, sigma_A, 2)
    true = bonds(silica.positions_A, silica.symbols, WINDOW, silica.cell)
    seen = bonds(atoms.positions_A, atoms.symbols, WINDOW, atoms.cell)
    assert len(true) == 2560
    assert len(as_set(true) - as_set(seen)) > 150
    likely = likely_bonds(atoms, WINDOW, np.random.default_rng(3))
    assert as_set(likely.as_measured()) == as_set(seen)
    assert len(as_set(likely.likeliest()) ^ as_set(true)) <= 5
    assert likely.unsure < 0.1


def test_limits_of_bonds_within_the_errors_leave_bands_that_hold_the_rings(silica):
    """The measured atoms have lost most rings there."""
    atoms = measured(silica, 0.08, 4)

    def sizes(_: Atoms, network) -> dict[str, np.ndarray]:
        return {"rings": np.bincount(list(map(len, rings(network))), minlength=25)}

    true = sizes(silica, bonds(silica.positions_A, silica.symbols, WINDOW, silica.cell))["rings"]
    rng = np.random.default_rng(5)
    band = network_bands(atoms, likely_bonds(atoms, WINDOW, rng, 9), sizes, rng)["rings"]
    assert band.value.sum() < 0.4 * true.sum()
    held = (true >= band.low - 1e-9) & (true <= band.high + 1e-9)
    assert held[(true > 0) | (band.high > 0.5)].mean() >= 0.9
    assert (band.high - band.low).sum() < 0.5 * true.sum()


def test_chances_are_those_of_a_known_mixture(rng):
    """Dimers of 1.0 and of 1.4 Å, three to one, seen with errors of 0.15 Å in their length: Bayes' rule tells which is which."""
    n, error = 20_000, 0.15
    long = rng.random(n) < 0.25
    places = 100.0 * np.arange(n)[:, None] * [1, 0, 0]
    length = np.where(long, 1.4, 1.0) + rng.normal(0, error, n)
    along = np.zeros((2 * n, 3, 3))
    along[:, 0, 0] = error**2 / 2  # no errors across
    atoms = Atoms(
        np.concatenate([places, places + length[:, None] * [1, 0, 0]]), ("Si",) * n + ("O",) * n, covariance_A2=along
    )
    likely = likely_bonds(atoms, [BondRule("Si", "O", 1.2)], rng, 6)
    seen = length[likely.pairs.first]
    odds = 3 * np.exp((0.5 * (seen - 1.4) ** 2 - 0.5 * (seen - 1.0) ** 2) / error**2)
    chance = likely.chance.mean(axis=1)[1]  # kinds are O-O, O-Si, Si-Si
    unsure = (seen > 1.1) & (seen < 1.4)
    np.testing.assert_allclose(chance[unsure], (odds / (1 + odds))[unsure], atol=0.12)
    assert chance[unsure].mean() == pytest.approx((~long[likely.pairs.first][unsure]).mean(), abs=0.03)


def test_atoms_without_errors_have_the_bonds_they_are_measured_with(silica):
    likely = likely_bonds(silica, WINDOW, np.random.default_rng(1), 3)
    own = as_set(bonds(silica.positions_A, silica.symbols, WINDOW, silica.cell))
    assert as_set(likely.likeliest()) == as_set(likely.as_measured()) == own
    assert all(as_set(likely.drawn(k)) == own for k in range(3))
    assert likely.unsure == 0


def test_one_atom_of_large_error_takes_no_certainty_from_others(silica):
    sigma = np.full(len(silica), 0.02)
    sigma[0] = 3.0
    atoms = replace(silica, covariance_A2=sigma[:, None, None] ** 2 * np.eye(3))
    rule = [BondRule("Si", "O", 2.2)]
    likely = likely_bonds(atoms, rule, np.random.default_rng(1), 3)
    others = {bond for bond in as_set(likely.likeliest()) if 0 not in bond[:2]}
    own = as_set(bonds(silica.positions_A, silica.symbols, rule, silica.cell))
    assert others == {bond for bond in own if 0 not in bond[:2]}


def test_errors_as_large_as_bonds_leave_all_of_them_in_doubt(silica):
    atoms = replace(silica, covariance_A2=np.tile(4 * np.eye(3), (len(silica), 1, 1)))
    likely = likely_bonds(atoms, [BondRule("Si", "O", 2.2)], np.random.default_rng(1), 3)
    assert likely.unsure > 0.3


def test_another_name_breaks_and_makes_bonds(silica):
    atoms = replace(measured(silica, 0.02, 1), species_probability=np.full(len(silica), 0.9))
    likely = likely_bonds(atoms, [BondRule("Si", "O", 2.2)], np.random.default_rng(1), 2)
    changed = list(atoms.symbols)
    changed[0] = "O" if changed[0] == "Si" else "Si"
    before, after = likely.drawn(0), likely.drawn(0, changed)
    assert before.degree[0] > 0
    assert after.degree[0] == 0  # all its neighbours are of its own kind now


def test_an_image_moves_with_its_atom():
    """A chain of one atom per box: its bonds are as long as the box, whatever the error of the atom."""
    atoms = Atoms([[0, 0, 0]], ("Si",), sigma_A=[0.3], cell=Cell(np.diag([2.0, 9, 9])))
    likely = likely_bonds(atoms, [BondRule("Si", "Si", 2.01)], np.random.default_rng(1), 3)
    assert [len(likely.drawn(k)) for k in range(3)] == [1, 1, 1]


def test_no_atoms_no_rules_no_draws(silica):
    rng = np.random.default_rng(1)
    assert len(likely_bonds(Atoms(np.zeros((0, 3)), ()), WINDOW, rng, 3).likeliest()) == 0
    assert len(likely_bonds(measured(silica, 0.05, 1), [], rng, 3).likeliest()) == 0
    none = likely_bonds(measured(silica, 0.05, 1), WINDOW, rng, 0)
    assert len(none) == 0
    assert none.unsure == 0
    assert network_bands(silica, none, lambda atoms, network: {"bonds": len(network)}, rng) == {}
