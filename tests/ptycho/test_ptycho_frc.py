"""Halves of the data and the correlation of what is made of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

import ptycho
from ptycho.frc import half_sets, ring_correlation, split, thinned_halves

PIXEL_A = 0.5


def filtered(image: np.ndarray, gain) -> np.ndarray:
    """Image with its spectrum multiplied by gain(|k| in cycles per pixel)."""
    k = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in image.shape), indexing="ij"))
    return np.fft.ifft2(np.fft.fft2(image) * gain(k)).real


def test_correlation_is_the_signal_to_noise_ratio_of_each_ring(rng):
    def snr(k: np.ndarray) -> np.ndarray:
        return 8.0 * np.exp(-((k / 0.2) ** 2))

    shape = (320, 320)
    signal = filtered(rng.normal(size=shape), lambda k: np.sqrt(snr(k)))
    a, b = (signal + rng.normal(size=shape) for _ in range(2))
    found = ring_correlation(a, b, PIXEL_A, register=False)
    ratio = snr(found.frequency_per_A * PIXEL_A)
    error = (found.correlation - ratio / (ratio + 1)) * np.sqrt(2 * found.points)
    assert np.abs(error[2:]).max() < 4
    assert np.abs(error[2:].mean()) < 4 / np.sqrt(len(error))
    full = 2 * ratio / (2 * ratio + 1)
    assert np.abs(found.full - full)[(ratio > 0.3) & (found.points > 10)].max() < 0.15


def test_all_data_correlate_with_the_truth_as_predicted_from_halves(rng):
    shape = (256, 256)
    signal = filtered(rng.normal(size=shape), lambda k: np.exp(-((k / 0.2) ** 2)))
    a, b = (signal + 0.3 * rng.normal(size=shape) for _ in range(2))
    halves = ring_correlation(a, b, 1.0, register=False)
    against_truth = ring_correlation(0.5 * (a + b), signal, 1.0, register=False)
    rings = slice(4, 60)
    assert np.abs(np.sqrt(halves.full[rings]) - against_truth.correlation[rings]).max() < 0.1


def test_noise_scatters_as_the_independent_points_say(rng):
    runs = [
        ring_correlation(*rng.normal(size=(2, 64, 72)), 1.0, register=False)  # type: ignore[misc]
        for _ in range(60)
    ]
    scatter = np.std([r.correlation for r in runs], axis=0) * np.sqrt(2 * runs[0].points)
    assert scatter[2:].mean() == pytest.approx(1.0, abs=0.06)
    assert np.mean([np.mean(r.correlation[2:] > r.half_bit[2:]) for r in runs]) < 1e-2


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.3, -0.45), (2.3, -3.7), (-9.5, 6.25)])
def test_images_are_laid_on_each_other(rng, shift):
    wide = ndimage.gaussian_filter(rng.normal(size=(140, 150)), 1.6)
    moved = ndimage.shift(wide, shift, order=5)
    y, x = np.indices((110, 120))
    cut = (slice(15, 125), slice(15, 135))
    found = ring_correlation(wide[cut], 3 * moved[cut] + 0.01 * y - 0.02 * x + 5, PIXEL_A)
    assert np.allclose(found.shift_A, -PIXEL_A * np.array(shift), atol=0.02)
    assert found.correlation[:20].min() > 0.99


def test_resolution_is_where_the_signal_ends(rng):
    signal = filtered(rng.normal(size=(200, 200)), lambda k: 3.0 * (k < 0.25))
    a, b = (signal + rng.normal(size=signal.shape) for _ in range(2))
    assert ring_correlation(a, b, PIXEL_A).resolution_A == pytest.approx(PIXEL_A / 0.25, rel=0.04)
    assert ring_correlation(a, a, PIXEL_A).resolution_A == 2 * PIXEL_A


def test_images_that_cannot_be_compared_are_refused(rng):
    image = rng.normal(size=(32, 32))
    with pytest.raises(ValueError, match="one shape"):
        ring_correlation(image, image[:-1], 1.0)
    with pytest.raises(ValueError, match="constant"):
        ring_correlation(image, np.zeros((32, 32)), 1.0)


def test_thinned_counts_are_two_independent_poisson_halves(rng):
    mean = rng.uniform(0.05, 6, size=(50, 40))
    counts = rng.poisson(mean, size=(2000, 50, 40)).astype(np.uint16)
    a, b = thinned_halves(counts, rng)
    assert a.dtype == counts.dtype and np.array_equal(a + b, counts)
    da, db = a - mean / 2, b - mean / 2
    assert np.abs(da.mean(0) / np.sqrt(mean / 2 / 2000)).max() < 5.5
    assert da.var() / (mean / 2).mean() == pytest.approx(1, abs=0.01)
    assert (da * db).mean() / (mean / 2).mean() == pytest.approx(0, abs=0.005)


def test_thinning_takes_whole_electrons_only():
    with pytest.raises(ValueError, match="whole electrons"):
        thinned_halves(np.array([[[0.5, 2.0]]]), np.random.default_rng(0))


@pytest.mark.parametrize("degrees", [0, 17, 45])
def test_a_grid_becomes_a_chess_board(rng, degrees):
    grid = np.stack(np.meshgrid(np.arange(14), np.arange(17), indexing="ij"), -1).reshape(-1, 2)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    order = rng.permutation(len(grid))
    a, b = half_sets(0.4 * (grid @ np.array([[c, s], [-s, c]]))[order])
    colour = (grid.sum(1) % 2)[order]
    assert len(set(colour[a])) == len(set(colour[b])) == 1
    assert sorted([*a, *b]) == list(range(len(grid)))


def test_scattered_positions_are_halved_evenly_everywhere(rng):
    turn = np.sqrt(np.arange(1, 2001))
    positions = (turn * np.array([np.cos(2.399963 * turn**2), np.sin(2.399963 * turn**2)])).T
    for points in (positions, rng.uniform(-40, 40, (2000, 2))):
        a, b = half_sets(points)
        cells = [np.histogram2d(*points[i].T, bins=8, range=[[-40, 40]] * 2)[0] for i in (a, b)]
        filled = sum(cells) > 10
        chance = np.sqrt(sum(cells)[filled]).mean()
        assert np.abs(cells[0] - cells[1])[filled].mean() < 0.5 * chance
        assert abs(len(a) - len(b)) < 0.03 * len(points)


def test_patterns_are_split_both_ways(rng):
    grid = np.stack(np.meshgrid(np.arange(6), np.arange(6), indexing="ij"), -1).reshape(-1, 2).astype(float)
    patterns = ptycho.Patterns(rng.poisson(3.0, (36, 8, 8)).astype(np.uint8), grid, 1.0)
    a, b = split(patterns, rng)
    assert np.array_equal(a.counts + b.counts, patterns.counts)
    assert np.array_equal(a.positions_A, grid)
    a, b = split(patterns, rng, by="positions")
    assert len(a.counts) == len(b.counts) == 18
    assert np.array_equal(a.counts, patterns.counts[[np.flatnonzero((grid == p).all(1))[0] for p in a.positions_A]])
    with pytest.raises(ValueError, match="electrons"):
        split(patterns, rng, by="frames")  # type: ignore[arg-type]
