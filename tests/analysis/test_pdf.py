"""Pair distribution function: absolute height, known distances, first minimum."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from analysis import Cell, first_minimum, pair_distribution
from analysis.pair_counts import count_pairs
from analysis.pdf import semi_axes


def ball(rng: np.random.Generator, n: int, radius: float) -> np.ndarray:
    direction = rng.normal(size=(n, 3))
    return direction / np.linalg.norm(direction, axis=1, keepdims=True) * radius * rng.random((n, 1)) ** (1 / 3)


def test_random_ball_has_g_of_one_at_all_distances(rng):
    positions = ball(rng, 3000, 15.0)
    symbols = ["Si"] * 1000 + ["O"] * 2000
    found = pair_distribution(positions, symbols, r_max_A=20.0, bin_A=1.0)
    np.testing.assert_allclose(found.total[2:], 1.0, atol=0.06)
    assert list(found.g) == [("O", "O"), ("O", "Si"), ("Si", "Si")]
    for g in found.g.values():
        np.testing.assert_allclose(g[4:], 1.0, atol=0.12)


def test_every_pair_is_counted_once_in_its_bin():
    positions = np.array([[0, 0, 0], [1.05, 0, 0], [0, 2.05, 0]])
    found = pair_distribution(positions, ["Si", "O", "O"], r_max_A=4.0, bin_A=0.1)
    at = {pair: {int(k): int(counts[k]) for k in np.flatnonzero(counts)} for pair, counts in found.counts.items()}
    assert at == {("O", "O"): {23: 1}, ("O", "Si"): {10: 1, 20: 1}, ("Si", "Si"): {}}
    np.testing.assert_allclose(found.r_A[[0, 10]], [0.05, 1.05])


def test_first_minimum_is_between_the_shells_and_in_the_middle_of_a_gap():
    r = np.arange(0, 8, 0.02)
    shells = 30 * np.exp(-((r - 2.4) ** 2) / 0.02) + 10 * np.exp(-((r - 3.9) ** 2) / 0.1) + 0.1
    assert 2.7 < first_minimum(r, shells) < 3.3
    gap = np.where((r > 1.5) & (r < 1.7), 20.0, 0.0) + np.where(r > 2.4, 1.0, 0.0)
    assert first_minimum(r, gap) == pytest.approx((1.7 + 2.4) / 2, abs=0.06)


def test_nothing_to_tell_by():
    r = np.arange(0, 8, 0.02)
    assert first_minimum(r, np.zeros_like(r)) is None
    with pytest.raises(ValueError, match="at least two atoms"):
        pair_distribution([[0, 0, 0]], ["Si"])
    with pytest.raises(ValueError, match="same place"):
        pair_distribution([[0, 0, 0]] * 2, ["Si"] * 2)
    with pytest.raises(ValueError, match="bin_A"):
        pair_distribution([[0, 0, 0], [1, 0, 0]], ["Si"] * 2, bin_A=0)


def silica(repeat: int):
    from importlib.resources import as_file, files

    from ase.io import read

    with as_file(files("pyaet.simulate") / "silica_network.extxyz") as path:
        return read(path) * repeat


def test_a_ball_cut_out_has_the_g_of_the_bulk():
    """Amorphous silica, a ball of 36 Å radius: every bin beyond the first peak within 2 % of the periodic box's."""
    one, many = silica(1), silica(3)
    bulk = pair_distribution(one.positions, one.get_chemical_symbols(), cell=Cell(one.cell.array), bin_A=0.2)
    away = many.positions - many.cell.array.sum(axis=0) / 2
    inside = np.linalg.norm(away, axis=1) < 36
    ball = pair_distribution(away[inside], np.array(many.get_chemical_symbols())[inside], bin_A=0.2)
    beyond = bulk.r_A > 2.2
    np.testing.assert_allclose(ball.total[beyond] / bulk.total[beyond], 1, atol=0.02)


def test_a_flat_ellipsoid_has_g_of_one(rng):
    axes = np.array([24.0, 16.0, 8.0])
    places = ball(rng, 4000, 1.0) * axes
    found = pair_distribution(places, ["Si"] * 4000, r_max_A=20.0, bin_A=1.0)
    np.testing.assert_allclose(found.total[2:], 1.0, atol=0.04)
    np.testing.assert_allclose(semi_axes(places), axes, rtol=0.03)


def test_a_periodic_box_against_freud_and_by_hand(rng):
    freud = pytest.importorskip("freud")
    cell = np.array([[12.0, 0, 0], [2.5, 11.0, 0], [1.0, -1.5, 10.0]])
    places = rng.random((400, 3)) @ cell
    found = pair_distribution(places, ["Si"] * 400, r_max_A=4.5, bin_A=0.05, cell=Cell(cell))
    box = freud.box.Box.from_matrix(cell.T)
    rdf = freud.density.RDF(bins=90, r_max=4.5, normalization_mode="exact")
    rdf.compute((box, box.wrap(places)))
    np.testing.assert_allclose(found.total, rdf.rdf, atol=1e-4 + 0.003 * rdf.rdf.max())


def test_small_boxes_count_every_image():
    """One atom in a cubic box: 6, 12 and 8 images at the known distances, each pair once."""
    found = pair_distribution(
        [[0.3, 0.1, 7.0], [1.325, 1.125, 8.025]], ["Si", "O"], cell=Cell(2.05 * np.eye(3)), r_max_A=3.6, bin_A=0.1
    )
    own = found.counts["Si", "Si"]
    assert {int(k): int(own[k]) for k in np.flatnonzero(own)} == {20: 3, 28: 6, 35: 4}
    across = found.counts["O", "Si"]
    assert {int(k): int(across[k]) for k in np.flatnonzero(across)} == {17: 8, 33: 24}


@pytest.mark.parametrize(
    "cell",
    [
        None,
        Cell(np.array([[3.0, 0, 0], [1, 4, 0], [0.5, 0.3, 5]])),
        Cell(np.diag([3.0, 4, 0]), (True, True, False)),
        Cell(np.diag([2.5, 0, 0]), (True, False, False)),
    ],
)
def test_pairs_are_counted_as_one_by_one(cell, rng):
    """Every atom with every image of every other within reach, each pair of images once: half of what all atoms see."""
    at, element, width, bins = 4 * rng.random((5, 3)), np.array([0, 1, 1, 0, 2]), 0.0199, 400
    steps = [range(-4, 5) if cell is not None and cell.periodic[k] else [0] for k in range(3)]
    found = np.zeros((3, 3, bins))
    for i, j in itertools.product(range(5), repeat=2):
        for shift in itertools.product(*steps):
            apart = np.linalg.norm(at[j] - at[i] + (0 if cell is None else np.array(shift) @ cell.vectors_A))
            if 0 < apart < width * bins:
                found[min(element[i], element[j]), max(element[i], element[j]), int(apart / width)] += 0.5
    np.testing.assert_array_equal(count_pairs(at, element, 3, width, bins, cell), found)


def test_a_line_across_a_large_empty_space_is_counted():
    """As many cells as the space has would not fit in memory, as few as fit would hold too many atoms each."""
    n = 100_000
    line = np.arange(n)[:, None] * np.array([1.1, 1.1, 1.1])
    counts = count_pairs(line, np.zeros(n, np.int64), 1, 0.1, 40)[0, 0]
    spacing = 1.1 * 3**0.5
    assert counts.sum() == (n - 1) + (n - 2)
    assert counts[int(spacing / 0.1)] == n - 1
    assert counts[int(2 * spacing / 0.1)] == n - 2
