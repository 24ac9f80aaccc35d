"""Names of atoms by their neighbours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis import (
    Atoms,
    BondRule,
    Cell,
    bonds,
    draws,
    likely_bonds,
    likely_names,
    network_bands,
    possible_names,
)


def misnamed(truth: Atoms, share: float, seed: int, moved_A: float = 0.05) -> Atoms:
    """Some atoms with another name, all with the probability that names have; no atom is where it was."""
    rng = np.random.default_rng(seed)
    elements = np.array(truth.elements)
    kind = _kinds(truth)
    step = np.where(kind == 0, 1, np.where(kind == len(elements) - 1, -1, rng.choice([-1, 1], len(kind))))
    named = np.where(rng.random(len(kind)) < share, kind + step, kind)
    right = np.array([np.mean(kind[named == one] == one) for one in range(len(elements))])
    moved = truth.positions_A + rng.normal(0, moved_A, truth.positions_A.shape)
    return replace(truth, positions_A=moved, symbols=tuple(elements[named].tolist()), species_probability=right[named])


def _kinds(atoms: Atoms) -> np.ndarray:
    return np.array([atoms.elements.index(symbol) for symbol in atoms.symbols])


def wrong(atoms: Atoms, truth: Atoms) -> int:
    return int((np.array(atoms.symbols) != np.array(truth.symbols)).sum())


def zincblende(share_exchanged: float, seed: int) -> Atoms:
    from ase.build import bulk

    cell = bulk("SiC", "zincblende", a=4.36, cubic=True) * (5, 5, 5)
    names = np.array(cell.get_chemical_symbols())
    exchanged = np.random.default_rng(seed).random(len(names)) < share_exchanged
    names[exchanged] = np.where(names[exchanged] == "Si", "C", "Si")
    return Atoms(cell.positions, tuple(names.tolist()), cell=Cell(cell.cell.array))


@pytest.mark.parametrize("share", [0.01, 0.03, 0.1])
def test_all_wrong_names_of_a_network_are_found(silica, share):
    given = misnamed(silica, share, 1)
    assert wrong(given, silica) > 10
    found = likely_names(given, 2.2)
    assert wrong(found, silica) == 0
    assert (1 - found.species_probability).sum() < 0.5


@pytest.mark.parametrize("share", [0.03, 0.1])
def test_wrong_names_are_found_where_their_probability_is_that_of_all_names(silica, share):
    """One probability for all: of the names of silicon, which are fewer, more are wrong than that says."""
    given = misnamed(silica, share, 1)
    given = replace(given, species_probability=np.full(len(silica), 1 - share))
    assert wrong(likely_names(given, 2.2), silica) == 0


@pytest.mark.parametrize("elements", [("Cu", "Au"), ("Cu", "Ag", "Pt")])
def test_the_neighbours_of_a_random_alloy_say_nothing(elements):
    from ase.build import bulk

    cell = bulk("Cu", a=3.9, cubic=True) * (6, 6, 6)
    names = np.random.default_rng(2).choice(elements, len(cell))
    truth = Atoms(cell.positions, tuple(names.tolist()), cell=Cell(cell.cell.array))
    given = misnamed(truth, 0.1, 3, moved_A=0.1)
    found = likely_names(given, 3.3)
    assert found.symbols == given.symbols
    assert possible_names(given, 3.3).others(3, np.random.default_rng(4)) == []
    np.testing.assert_allclose(found.species_probability, given.species_probability, atol=0.05)
    assert (1 - found.species_probability).sum() == pytest.approx(wrong(found, truth), rel=0.1)


def test_pairs_of_unlike_atoms_have_the_names_of_bayes_rule():
    """Dimers that are all of one C and one O: the names of both ends together tell which end is which."""
    n, sure = 30_000, 0.9
    rng = np.random.default_rng(4)
    places = np.repeat(50.0 * np.arange(n), 2)[:, None] * [1, 0, 0] + np.tile([[0, 0, 0], [1.1, 0, 0]], (n, 1))
    places = places + rng.normal(0, 0.03, places.shape)
    true = np.stack([np.arange(n) % 2, 1 - np.arange(n) % 2], axis=1).ravel()
    named = np.where(rng.random(2 * n) < sure, true, 1 - true)
    atoms = Atoms(places, tuple(np.array(["C", "O"])[named].tolist()), species_probability=np.full(2 * n, sure))
    found = likely_names(atoms, 1.5)
    both = found.species_probability.reshape(n, 2)
    alike = named.reshape(n, 2)[:, 0] == named.reshape(n, 2)[:, 1]
    assert alike.sum() > 500
    assert both[alike].mean() == pytest.approx(0.5, abs=0.08)
    assert both[~alike].mean() == pytest.approx(sure**2 / (sure**2 + (1 - sure) ** 2), abs=0.01)


def test_a_bond_between_like_atoms_is_not_a_wrong_name(silica):
    """Silicon atoms on either side of a missing oxygen, 2.4 Å apart."""
    start, to, shift = bonds(silica.positions_A, silica.symbols, [BondRule("Si", "O", 2.2)], silica.cell).neighbours()
    moved, kept, done = silica.positions_A.copy(), np.ones(len(silica), bool), set()
    for oxygen in np.flatnonzero(np.array(silica.symbols) == "O")[::20]:
        ends = to[start[oxygen] : start[oxygen + 1]].tolist()
        if not done & set(ends):
            done |= set(ends)
            kept[oxygen] = False
            for end, images in zip(ends, shift[start[oxygen] : start[oxygen + 1]], strict=True):
                along = silica.positions_A[end] + images @ silica.cell.vectors_A - silica.positions_A[oxygen]
                moved[end] += along * (1.2 / np.linalg.norm(along) - 1)
    assert len(done) > 80
    truth = Atoms(moved[kept], tuple(np.array(silica.symbols)[kept].tolist()), cell=silica.cell)
    given = misnamed(truth, 0.03, 5)
    assert wrong(likely_names(given, 2.5), truth) <= 2


def test_some_of_the_renamed_atoms_may_be_real(silica):
    """Atoms in the place of the other element look as wrong names do: up to the excess, and what chance may hide, are set back."""
    truth = zincblende(0.03, 24)
    given = misnamed(truth, 0.05, 34)
    found = possible_names(given, 2.4)
    own, names = np.array(given.symbols), np.array(found.likely.symbols)
    assert np.flatnonzero(names != own).tolist() == found.renamed.tolist()
    real = (names != own) & (own == np.array(truth.symbols))
    assert real.sum() > 15
    assert real.sum() <= found.right <= 2.5 * real.sum()
    lots = [found.restored(found.right, np.random.default_rng(seed)) for seed in (1, 2)]
    backs = [np.array(one.symbols) != names for one in lots]
    assert [back.sum() for back in backs] == [found.right] * 2
    assert (backs[0] != backs[1]).any()
    for one, back in zip(lots, backs, strict=True):
        assert (np.array(one.symbols)[back] == own[back]).all()
    sure = replace(silica, species_probability=np.ones(len(silica)))
    assert possible_names(sure, 2.2).likely is sure
    assert possible_names(sure, 2.2).right == 0


def test_names_of_low_probability_are_hardly_set_back(silica):
    """Of those that neighbours contradict, names that are right at 0.98 are rather real than those at 0.8."""
    sure = np.where(np.arange(len(silica)) % 2 == 0, 0.8, 0.98)
    rng = np.random.default_rng(17)
    other = np.where(np.array(silica.symbols) == "Si", "O", "Si")
    names = np.where(rng.random(len(silica)) < sure, np.array(silica.symbols), other)
    found = possible_names(replace(silica, symbols=tuple(names.tolist()), species_probability=sure), 2.2)
    likely, surer = np.array(found.likely.symbols), sure > 0.9
    assert 8 < surer[found.renamed].sum() < 0.2 * len(found.renamed)
    back = [np.array(found.restored(10, rng).symbols) != likely for _ in range(20)]
    assert np.mean([surer[one].sum() for one in back]) > 2


@pytest.mark.parametrize(("share", "seed", "trusted"), [(0.03, 21, True), (0.08, 20, False), (0.08, 22, True)])
def test_limits_hold_with_atoms_in_the_place_of_others(share, seed, trusted):
    truth = zincblende(share, seed)
    given = misnamed(truth, 0.05, seed + 10)
    rules, rng = [BondRule("Si", "C", 2.4)], np.random.default_rng(seed + 20)
    found = possible_names(given, 2.4)
    assert (found.right > 0) == trusted
    likely = likely_bonds(found.likely, rules, rng, 16)
    assert (found.contradicted > 0) != trusted
    readings = [None, found.others(16, rng)]
    limits = [
        network_bands(found.likely, likely, lambda atoms, network: {"bonds": len(network)}, rng, named)["bonds"]
        for named in readings
    ]
    true = len(bonds(truth.positions_A, truth.symbols, rules, truth.cell))
    low, high = min(band.low for band in limits), max(band.high for band in limits)
    assert low <= true <= high
    assert high - low < 0.25 * true


def test_names_stay_where_neighbours_leave_most_doubts():
    """As many atoms are truly exchanged as are named wrong: neighbours contradict both and tell neither from the other."""
    truth = zincblende(0.08, 20)
    given = misnamed(truth, 0.05, 30)
    assert likely_names(given, 2.4).symbols != given.symbols
    found = possible_names(given, 2.4)
    assert found.likely is given
    assert found.contradicted > 100
    instead = found.others(2, np.random.default_rng(1))
    assert [one.symbols for one in instead] == [likely_names(given, 2.4).symbols] * 2


def test_names_do_not_depend_on_the_order_of_atoms():
    """In Cu3Au written cell by cell every fourth atom is gold."""
    from ase.build import bulk

    cell = bulk("Cu", a=3.75, cubic=True) * (6, 6, 6)
    names = tuple(("Au", "Cu", "Cu", "Cu") * 216)
    truth = Atoms(cell.positions, names, cell=Cell(cell.cell.array))
    given = misnamed(truth, 0.03, 11)
    order = np.random.default_rng(12).permutation(len(truth))
    mixed = Atoms(
        given.positions_A[order], tuple(np.array(given.symbols)[order].tolist()), cell=truth.cell,
        species_probability=given.species_probability[order],
    )  # fmt: skip
    found, other = likely_names(given, 3.2), likely_names(mixed, 3.2)
    assert wrong(given, truth) > 20 > 3 * wrong(found, truth)
    assert (np.array(found.symbols)[order] != np.array(other.symbols)).sum() <= 3


def test_unknown_elements_are_nobodys_name(silica):
    unknown = np.random.default_rng(13).random(len(silica)) < 0.05
    truth = replace(silica, symbols=tuple(np.where(unknown, "X", np.array(silica.symbols)).tolist()))
    given = replace(truth, species_probability=np.full(len(truth), 0.97))
    assert likely_names(given, 2.2).symbols == truth.symbols
    (drawn,) = draws(given, 1, np.random.default_rng(14))
    assert ((np.array(drawn.symbols) == "X") == unknown).all()


def test_doubts_do_not_vanish():
    """However much neighbours say: bonds are thought of for all names of atoms in doubt, and some names may be set back."""
    from ase.build import bulk

    cell = bulk("NaCl", "rocksalt", a=5.6, cubic=True) * (8, 8, 8)
    truth = Atoms(cell.positions, tuple(cell.get_chemical_symbols()), cell=Cell(cell.cell.array))
    given = misnamed(truth, 0.002, 18)
    found = possible_names(given, 4.5).likely
    assert wrong(given, truth) > 3
    assert wrong(found, truth) == 0
    assert (found.species_probability < 1).all()


def test_names_that_are_sure_stay(silica):
    given = misnamed(silica, 0.03, 8)
    known = replace(given, species_probability=np.ones(len(given)))
    assert likely_names(known, 2.2) is known
    unknown = replace(given, species_probability=np.full(len(given), np.nan))
    assert likely_names(unknown, 2.2) is unknown
    half = np.arange(len(given)) % 2 == 0
    found = likely_names(replace(given, species_probability=np.where(half, given.species_probability, np.nan)), 2.2)
    assert np.array(found.symbols)[~half].tolist() == np.array(given.symbols)[~half].tolist()
    assert np.isnan(found.species_probability[~half]).all()
    assert np.isfinite(found.species_probability[half]).all()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_atoms_keep_their_names(count):
    atoms = Atoms(
        np.arange(3.0 * count).reshape(count, 3), ("Si", "O")[:count], species_probability=np.full(count, 0.9)
    )
    assert likely_names(atoms, 2.0).symbols == atoms.symbols


def test_names_as_probable_as_others_stay():
    atoms = Atoms(
        [[0, 0, 0], [1.6, 0, 0], [3.2, 0, 0], [90, 0, 0]],
        ("Si", "O", "Si", "Si"),
        species_probability=[0.5, 0.5, 0.5, 0.2],
    )
    found = likely_names(atoms, 2.0)
    assert found.symbols == atoms.symbols
    np.testing.assert_allclose(found.species_probability, atoms.species_probability, atol=0.1)
