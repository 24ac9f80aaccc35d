"""Pair distribution function: absolute height, known distances, first minimum."""

from __future__ import annotations

import numpy as np
import pytest

from analysis import first_minimum, pair_distribution


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
