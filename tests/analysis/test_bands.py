"""Error bars of statistics: they hold the truth when the atoms are the truth plus the stated noise."""

from __future__ import annotations

import numpy as np
import pytest

from analysis import (
    Atoms,
    BondRule,
    Cell,
    bonds,
    dihedral_angles,
    likely_bonds,
    network_bands,
    pair_distribution,
    rings,
)
from analysis.bands import dihedral_bands, length_bands, pair_bands
from analysis.ensemble import band_of, draws
from analysis.unfold import raised, unfold

RULES = [BondRule("Si", "O", 2.2)]


def measured(truth: Atoms, sigma_A: float, seed: int) -> Atoms:
    noise = np.random.default_rng(seed).normal(0, sigma_A, truth.positions_A.shape)
    return Atoms(truth.positions_A + noise, truth.symbols, sigma_A=np.full(len(truth), sigma_A), cell=truth.cell)


def network_of(model: Atoms):
    return bonds(model.positions_A, model.symbols, RULES, model.cell)


def numbers(model: Atoms, network) -> dict[str, np.ndarray]:
    """How many atoms of each element have 0, 1, … bonds, and how many rings of each size there are."""
    names = np.array(model.symbols)
    told = {element: np.bincount(network.degree[names == element], minlength=17) for element in set(model.symbols)}
    return told | {"rings": np.bincount(list(map(len, rings(network))), minlength=25)}


def inside(truth, band) -> np.ndarray:
    """Which bins that hold anything, in truth or in the band, have the truth in their band."""
    held = (truth >= band.low - 1e-9) & (truth <= band.high + 1e-9)
    return held[(truth > 0) | (band.high > 0)]


def test_draws_have_the_stated_errors(rng):
    cov = np.array([[4.0, 1, 0], [1, 2, 0], [0, 0, 1]]) * 1e-4
    atoms = Atoms(np.zeros((20_000, 3)), ("Si",) * 10_000 + ("O",) * 10_000, covariance_A2=np.tile(cov, (20_000, 1, 1)),
                  species_probability=np.full(20_000, 0.9))  # fmt: skip
    (one,) = draws(atoms, 1, rng)
    np.testing.assert_allclose(np.cov(one.positions_A.T), cov, atol=8e-6)
    wrong = np.array(one.symbols) != np.array(atoms.symbols)
    assert 0.094 < wrong.mean() < 0.106


def test_names_are_drawn_as_true_atoms_get_them(rng):
    """Of 10 000 Si and 90 000 O one in ten gets the other name; half of those named Si are O, yet one in ten errs again."""
    true = np.repeat([0, 1], [10_000, 90_000])
    named = np.where(rng.random(len(true)) < 0.1, 1 - true, true)
    probability = np.array([np.mean(true[named == kind] == kind) for kind in (0, 1)])
    assert probability[0] == pytest.approx(0.5, abs=0.02)
    atoms = Atoms(np.zeros((len(true), 3)), tuple(np.array(["Si", "O"])[named]), species_probability=probability[named])
    (one,) = draws(atoms, 1, rng)
    again = np.where(np.array(one.symbols) == "Si", 0, 1)
    for kind in (0, 1):
        assert np.mean(again[named == kind] != kind) == pytest.approx(0.1, abs=0.01)


def test_atoms_without_errors_are_drawn_as_they_are(rng):
    atoms = Atoms([[0, 0, 0], [1, 2, 3]], ("Si", "O"))
    (one,) = draws(atoms, 1, rng)
    np.testing.assert_array_equal(one.positions_A, atoms.positions_A)
    assert one.symbols == atoms.symbols


def test_a_wrong_name_is_that_of_the_next_element(rng):
    n = 3000
    atoms = Atoms(np.zeros((n, 3)), ("C",) * (n // 3) + ("Si",) * (n // 3) + ("Sn",) * (n // 3),
                  species_probability=np.zeros(n))  # fmt: skip
    (one,) = draws(atoms, 1, rng)
    assert set(one.symbols[: n // 3]) == {"Si"} == set(one.symbols[-n // 3 :])
    middle = one.symbols[n // 3 : 2 * n // 3]
    assert 0.42 < middle.count("C") / len(middle) < 0.58
    assert "Si" not in middle


def test_unfolding_keeps_what_does_not_move():
    band = unfold([5, 0, 7], np.diag([9, 0, 4]), np.random.default_rng(0))
    assert band.best == pytest.approx([5, 0, 7], abs=1e-6)
    np.testing.assert_array_equal(band.low, [5, 0, 7])
    np.testing.assert_array_equal(band.high, [5, 0, 7])


@pytest.mark.parametrize("steps", [1, 10, 100, 1000])
def test_a_peak_without_width_narrows_as_gaussians_do(steps):
    """Estimate, kernel and their ratio stay Gaussian, so that the variance v of the estimate follows a recursion, v → s²/√(2k)."""
    from scipy.sparse import csr_array

    at, error = np.arange(241.0), 12.0
    kernel = np.exp(-0.5 * ((at[:, None] - at) / error) ** 2)
    kernel /= kernel.sum(axis=0)
    peak = 1e6 * kernel[:, [120]]
    estimate = raised(peak, csr_array(kernel), steps, peak)[:, 0]
    v = error**2
    for _ in range(steps):
        v = 1 / (1 / v + 1 / (error**2 * (v + error**2) / v + error**2))
    assert np.average((at - 120) ** 2, weights=estimate) == pytest.approx(v, rel=1e-3)
    if steps == 1000:
        assert v == pytest.approx(error**2 / (2 * steps) ** 0.5, rel=0.05)


def test_unfolding_narrows_a_peak_that_noise_widened(rng):
    """10 000 members in one bin, seen through a Gaussian of 2 bins: the estimate puts most of them back."""
    at = np.arange(41)
    kernel = np.exp(-0.5 * ((at[:, None] - at) / 2.0) ** 2)
    moves = rng.poisson(1e4 * kernel / kernel.sum(axis=0))
    seen = rng.multinomial(10_000, kernel[:, 20] / kernel[:, 20].sum())
    band = unfold(seen, moves, rng)
    assert band.best[18:23].sum() > 0.97 * 10_000 > seen[18:23].sum() * 1.2
    assert band.best.sum() == pytest.approx(10_000, rel=0.02)


def test_bands_of_flat_counts_are_as_wide_as_counting_makes_them():
    """Many bins of 100 members each that half of the time move one bin on: 95 of 100 true counts lie in the band."""
    rng = np.random.default_rng(8)
    n = 400
    true = rng.poisson(100, n)
    step = rng.binomial(true, 0.5)
    seen = true - step + np.roll(step, 1)
    moves = 1000 * (np.eye(n) + np.roll(np.eye(n), 1, axis=0))
    band = unfold(seen, moves, rng)
    share = np.mean((true >= band.low) & (true <= band.high))
    assert 0.90 < share <= 0.995
    assert np.mean(band.high - band.low) < 60


@pytest.mark.parametrize("sigma_A", [0.03, 0.06])
def test_bands_of_distances_bonds_and_rings_hold_the_truth(silica, sigma_A):
    atoms = measured(silica, sigma_A, 11)
    rng = np.random.default_rng(4)
    held = []
    seen, known = (
        pair_distribution(m.positions_A, m.symbols, cell=m.cell, r_max_A=8, bin_A=0.04) for m in (atoms, silica)
    )
    for pair, band in pair_bands(atoms, seen, rng).items():
        held.append(inside(known.counts[pair] / seen.expected[pair], band))
        assert len(held[-1]) > 100
        assert held[-1].mean() >= 0.9
        naive = np.isclose(seen.counts[pair], known.counts[pair]) & (known.counts[pair] > 0)
        assert naive.mean() < 0.5  # the noise does move pairs
    lengths = np.linalg.norm(network_of(silica).vectors_A(silica.positions_A, silica.cell.vectors_A), axis=1)
    (binned,) = length_bands(atoms, network_of(atoms), rng).values()
    held.append(inside(np.histogram(lengths, binned.edges)[0], binned.counts))
    truth = numbers(silica, network_of(silica))
    for name, band in network_bands(atoms, likely_bonds(atoms, RULES, rng, 4), numbers, rng).items():
        held.append(inside(truth[name], band))
    assert np.concatenate(held).mean() >= 0.9


def test_what_no_draw_keeps_has_limits_that_reach_back_to_none():
    """One rare ring of the measured atoms, in no draw: there may truly be none, one, or more."""
    atoms = Atoms(np.arange(9.0).reshape(3, 3), ("C", "O", "O"), covariance_A2=np.tile(np.eye(3), (3, 1, 1)))
    bands = band_of(atoms, lambda one: {"rare": int(one is atoms), "atoms": len(one)}, np.random.default_rng(1), 6)
    assert bands["rare"].low <= 0
    assert bands["rare"].high >= 1
    assert (bands["atoms"].low, bands["atoms"].high) == (3, 3)


def test_bands_hold_the_shells_of_a_crystal_at_rest():
    """All distances of a kind are equal there, and the errors so large that shells run into one another."""
    from ase.build import bulk

    cell = bulk("C", "diamond", a=3.567, cubic=True) * 4
    truth = Atoms(cell.positions, ("C",) * len(cell), cell=Cell(cell.cell.array))
    atoms = measured(truth, 0.1, 5)
    rules = [BondRule("C", "C", 1.85)]
    rng = np.random.default_rng(6)
    seen, known = (
        pair_distribution(m.positions_A, m.symbols, cell=m.cell, r_max_A=6, bin_A=0.04) for m in (atoms, truth)
    )
    band = pair_bands(atoms, seen, rng)["C", "C"]
    held = inside(known.counts["C", "C"] / seen.expected["C", "C"], band)
    assert held.mean() >= 0.9
    assert not band.high[seen.r_A < 0.7].any()
    network = bonds(atoms.positions_A, atoms.symbols, rules, atoms.cell)
    (lengths,) = length_bands(atoms, network, rng).values()
    assert inside(np.histogram(np.full(len(network.pairs), 3.567 * 3**0.5 / 4), lengths.edges)[0], lengths.counts).all()


def test_bands_hold_the_shells_of_a_small_particle_at_rest():
    """147 atoms: too few for the data to tell that all peaks are without width, enough to ask for narrow ones."""
    from ase.cluster import Icosahedron

    at = Icosahedron("Au", 4).positions
    truth = Atoms(at, ("Au",) * len(at))
    atoms = measured(truth, 0.08, 12)
    seen, known = (pair_distribution(m.positions_A, m.symbols) for m in (atoms, truth))
    band = pair_bands(atoms, seen, np.random.default_rng(13))["Au", "Au"]
    assert inside(known.counts["Au", "Au"] / seen.expected["Au", "Au"], band).mean() >= 0.9
    there = known.counts["Au", "Au"] > 0
    assert (known.counts["Au", "Au"] <= band.high * seen.expected["Au", "Au"] + 1e-6)[there].mean() >= 0.7


def test_bands_hold_the_dihedral_angles_of_a_crystal_at_rest():
    """Of diamond they are 60 and 180°, and errors carry them across 180° to the other end of the axis."""
    from ase.build import bulk

    cell = bulk("C", "diamond", a=3.567, cubic=True) * 4
    truth = Atoms(cell.positions, ("C",) * len(cell), cell=Cell(cell.cell.array))
    atoms, edges = measured(truth, 0.08, 5), np.arange(-180.0, 181.0, 10.0)
    network = bonds(truth.positions_A, truth.symbols, [BondRule("C", "C", 1.85)], truth.cell)
    band = dihedral_bands(atoms, network, np.random.default_rng(7), edges)["C-C-C-C"]
    true, seen = (
        np.histogram(dihedral_angles(network, m.positions_A, m.symbols, m.cell)["C-C-C-C"], edges)[0]
        for m in (truth, atoms)
    )
    assert np.count_nonzero(true) <= 4
    assert np.count_nonzero(seen) > 15
    assert inside(true, band).mean() >= 0.9
    np.testing.assert_array_equal(band.value, seen)


def test_one_axis_takes_nothing_from_the_next(rng):
    """Two histograms in one row, all members at the end of the first: none is possible at the beginning of the second."""
    kernel = np.exp(-0.5 * ((np.arange(40)[:, None] - np.arange(40)) / 3.0) ** 2)
    kernel[:20, 20:] = kernel[20:, :20] = 0
    moves = 1000 * kernel / kernel.sum(axis=0)
    seen = rng.multinomial(50_000, kernel[:, 19] / kernel[:, 19].sum())
    band = unfold(seen, moves, rng, runs=[20, 20])
    assert band.low[19] == 0  # any of the last two bins may hold them all
    assert band.high[19] >= 50_000
    assert not band.high[20:].any()


def test_an_axis_may_go_on_where_it_ends(rng):
    """A peak at the end of a full turn, half of which errors carried to its beginning, is put together again."""
    n, error = 60, 3.0
    apart = (np.arange(n)[:, None] - np.arange(n) + n / 2) % n - n / 2
    kernel = np.exp(-0.5 * (apart / error) ** 2)
    seen = rng.multinomial(20_000, kernel[:, n - 1] / kernel[:, n - 1].sum())
    band = unfold(seen, 1000 * kernel / kernel.sum(axis=0), rng, around=True)
    assert seen[:5].sum() > 5000
    assert band.best[[n - 2, n - 1, 0]].sum() > 0.8 * 20_000
    assert band.high[n - 1] >= 20_000
    assert band.low[0] == 0


def test_a_number_is_moved_back_by_as_much_as_noise_moved_it(rng):
    """The mean square of coordinates grows by the noise; the band is about the true one."""
    truth = rng.normal(size=(4000, 3))
    sigma = 0.4
    atoms = Atoms(truth + rng.normal(0, sigma, truth.shape), ("Si",) * 4000, sigma_A=np.full(4000, sigma))
    band = band_of(atoms, lambda m: {"square": (m.positions_A**2).mean()}, rng)["square"]
    assert band.value - (truth**2).mean() > 0.14
    assert band.low < (truth**2).mean() < band.high
    assert band.high - band.low < 0.08  # ten standard deviations of the mean square


def test_a_choice_of_pairs_tells_how_all_of_them_move(silica, monkeypatch):
    atoms = measured(silica, 0.05, 3)
    seen, known = (
        pair_distribution(m.positions_A, m.symbols, cell=m.cell, r_max_A=6, bin_A=0.1) for m in (atoms, silica)
    )
    monkeypatch.setattr("analysis.bands.MOST_MEMBERS", 20_000)
    held = [
        inside(known.counts[pair] / seen.expected[pair], band)
        for pair, band in pair_bands(atoms, seen, np.random.default_rng(1)).items()
    ]
    assert sum(seen.counts["O", "Si"]) > 20_000
    assert np.concatenate(held).mean() >= 0.9
