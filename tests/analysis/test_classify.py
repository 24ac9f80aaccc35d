"""Elements from intensities, and the rejection of what is no atom."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from analysis.classify import classify, integrated_intensity
from analysis.mixture import brightness_ratios, fit_mixture, k_means
from analysis.trace import Peaks, trace

VOXEL = 0.35


def specimen(rng, heights, *, noise, positive=False, width_A=0.4, spacing_A=2.0, n=44):
    """A cluster on a jittered cubic lattice inside a sphere; returns the volume, the positions and each one's kind."""
    side = np.arange(-2, 3) * spacing_A
    grid = np.stack(np.meshgrid(side, side, side, indexing="ij"), axis=-1).reshape(-1, 3)
    grid = grid[np.linalg.norm(grid, axis=1) < 4.6]
    truth = grid + rng.uniform(-0.15, 0.15, grid.shape)
    kind = rng.permutation(np.arange(len(truth)) % len(heights))
    axis = VOXEL * (np.arange(n) - n // 2)
    volume = np.zeros((n, n, n))
    for r, k in zip(truth, kind, strict=True):
        ex, ey, ez = (np.exp(-((axis - c) ** 2) / 2 / width_A**2) for c in r)
        volume += heights[k] * np.einsum("i,j,k->ijk", ez, ey, ex)
    volume += noise * rng.normal(size=volume.shape)
    return (np.maximum(volume, 0) if positive else volume), truth, kind


def owners(positions, truth):
    """Index of the true atom of each position, -1 when none is within 0.5 Å."""
    gap = np.linalg.norm(positions[:, None] - truth, axis=2)
    return np.where(gap.min(axis=1) < 0.5, gap.argmin(axis=1), -1)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize(
    ("elements", "heights"), [(("Si",), (1.0,)), (("Si", "O"), (1.0, 2.0)), (("Sn", "Si", "Ge"), (1.0, 2.0, 3.4))]
)
def test_all_atoms_are_found_named_and_nothing_else(rng, elements, heights, positive):
    volume, truth, kind = specimen(rng, heights, noise=0.12, positive=positive)
    peaks = trace(volume, VOXEL, min_distance_A=1.5)
    assert peaks.inside.sum() > len(truth)
    found = classify(volume, VOXEL, peaks, elements, rng=rng)
    owner = owners(found.atoms.positions_A, truth)
    assert sorted(owner) == list(range(len(truth)))
    order = ("O", "Si") if len(elements) == 2 else ("Si", "Ge", "Sn")[: len(elements)]
    assert found.elements == order
    assert [order[k] for k in kind[owner]] == list(found.atoms.symbols)
    assert (found.atoms.species_probability > 0.9).all()
    assert len(found.rejected) + len(found.atoms) == peaks.inside.sum()
    limits = np.append(found.boundaries, np.inf)
    assert (np.diff(limits) > 0).all()
    for k, centre in enumerate(found.centres):
        assert limits[k] < centre < limits[k + 1]


@pytest.mark.parametrize("noise_known", [True, False])
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize(("elements", "heights"), [(("Si",), (1.0,)), (("O", "Si"), (1.0, 2.0))])
def test_no_atom_is_lost_when_there_is_nothing_to_reject(rng, elements, heights, positive, noise_known):
    volume, truth, _ = specimen(rng, heights, noise=0.12, positive=positive)
    peaks = trace(volume, VOXEL, min_distance_A=1.5)
    real = np.zeros(len(peaks), bool)
    real[: len(truth)] = owners(peaks.positions_A[: len(truth)], truth) >= 0
    assert real.sum() == len(truth)
    chosen = peaks.select(real | (~peaks.inside & noise_known))
    found = classify(volume, VOXEL, chosen, elements, rng=rng)
    assert len(found.atoms) == len(truth) and len(found.rejected) == 0
    assert np.isneginf(found.boundaries[0]) == (not noise_known)


@pytest.mark.parametrize("noise_known", [True, False])
def test_non_atoms_are_rejected_with_and_without_an_empty_part(rng, noise_known):
    volume, truth, _ = specimen(rng, (1.0, 2.0), noise=0.1)
    peaks = trace(volume, VOXEL, min_distance_A=1.5)
    chosen = peaks if noise_known else peaks.select(peaks.inside)
    assert chosen.inside.sum() > 1.3 * len(truth)
    found = classify(volume, VOXEL, chosen, ("O", "Si"), rng=rng)
    assert sorted(owners(found.atoms.positions_A, truth)) == list(range(len(truth)))


def test_noise_free_atoms_are_kept(rng):
    volume, truth, _ = specimen(rng, (1.0, 2.0), noise=0.0)
    peaks = trace(volume, VOXEL, min_distance_A=1.5)
    found = classify(volume, VOXEL, peaks, ("O", "Si"), rng=rng)
    assert sorted(owners(found.atoms.positions_A, truth)) == list(range(len(truth)))


def test_probability_says_how_often_the_name_is_right(rng):
    """Two overlapping normal classes: the error of the named share must be what the probabilities promise."""
    kind = rng.random(8000) < 0.4
    values = np.where(kind, rng.normal(2.0, 0.3, 8000), rng.normal(1.0, 0.25, 8000))
    mixture = fit_mixture(values, np.zeros(0), 2, rng)
    density = mixture.density(values)
    right = density.argmax(axis=1) == kind
    promised = density.max(axis=1) / density.sum(axis=1)
    assert mixture.mean == pytest.approx([1.0, 2.0], abs=0.02)
    assert mixture.share == pytest.approx([0.6, 0.4], abs=0.02)
    assert right.mean() == pytest.approx(promised.mean(), abs=0.005)
    doubtful = promised < 0.8
    assert right[doubtful].mean() == pytest.approx(promised[doubtful].mean(), abs=0.05)


def test_integral_of_a_constant_is_the_sphere():
    volume = np.full((20, 20, 20), 3.0)
    value = integrated_intensity(volume, 0.5, np.array([[0.3, -0.2, 0.1]]), 1.2)
    assert value[0] == pytest.approx(3.0 * 4 / 3 * np.pi * 1.2**3)


def test_integral_is_taken_at_the_position_and_not_at_its_mirror_image():
    volume = np.zeros((16, 18, 20))
    volume[8 + 2, 9 - 3, 10 + 4] = 1.0
    at = np.array([[4.0, -3.0, 2.0], [2.0, -3.0, 4.0]])
    assert (integrated_intensity(volume, 1.0, at, 1.5) > 0).tolist() == [True, False]


def test_integral_of_a_gaussian(rng):
    axis = 0.2 * (np.arange(41) - 20)
    one = np.exp(-(axis**2) / 2 / 0.5**2)
    volume = np.einsum("i,j,k->ijk", one, one, one)
    from scipy.special import erf

    a = 1.0 / 0.5
    share = erf(a / np.sqrt(2)) - np.sqrt(2 / np.pi) * a * np.exp(-(a**2) / 2)
    value = integrated_intensity(volume, 0.2, np.zeros((1, 3)), 1.0)[0]
    assert value == pytest.approx(share * (2 * np.pi * 0.25) ** 1.5, rel=0.05)


def test_k_means_finds_the_best_split(rng):
    values = np.sort(np.concatenate([rng.normal(m, 0.3, 8) for m in (0.0, 2.0, 5.0)]))
    costs = {}
    for a, b in combinations(range(1, len(values)), 2):
        parts = np.split(values, [a, b])
        costs[sum(((p - p.mean()) ** 2).sum() for p in parts)] = [p.mean() for p in parts]
    assert k_means(values, 3, rng) == pytest.approx(costs[min(costs)])


def test_the_histogram_density_integrates_to_one(rng):
    volume, _, _ = specimen(rng, (1.0, 2.0), noise=0.12, positive=True)
    found = classify(volume, VOXEL, trace(volume, VOXEL, min_distance_A=1.5), ("O", "Si"), rng=rng)
    x = np.linspace(1e-6, 3 * found.centres[-1], 20000)
    assert found.power == 0.5
    total = float(found.density(x).sum(axis=1).mean() * (x[-1] - x[0]))
    assert total == pytest.approx(1.0, abs=0.02)


def test_overlapping_elements_are_announced(rng, caplog):
    volume, _, _ = specimen(rng, (1.0, 1.05), noise=0.1)
    with caplog.at_level("WARNING"):
        classify(volume, VOXEL, trace(volume, VOXEL, min_distance_A=1.5), ("O", "Si"), rng=rng)
    assert "do not tell O from Si" in caplog.text


PEAKS = Peaks(np.array([[0.0, 0, 0], [1.0, 0, 0]]), np.array([2.0, 1.0]), min_distance_A=1.0)
VOLUME = np.random.default_rng(0).random((12, 12, 12))


@pytest.mark.parametrize(
    ("peaks", "elements", "says"),
    [
        (PEAKS, (), "elements"),
        (PEAKS, ("Si", "Si"), "each once"),
        (PEAKS, ("Qq",), "not an element"),
        (PEAKS, ("X",), "known elements"),
        (PEAKS, ("O", "Si", "Sn"), "distinct"),
        (Peaks(np.zeros((0, 3)), np.zeros(0)), ("Si",), "no candidate"),
        (Peaks(np.zeros((2, 3)), np.ones(2), np.zeros(2, bool)), ("Si",), "no candidate"),
    ],
)
def test_bad_arguments_are_named(rng, peaks, elements, says):
    with pytest.raises(ValueError, match=says):
        classify(VOLUME, 0.5, peaks, elements, rng=rng)


def test_a_volume_of_noise_has_no_atoms(rng):
    volume = rng.normal(size=(40, 40, 40))
    particle = np.linalg.norm(np.indices(volume.shape) - 20, axis=0) < 10
    peaks = trace(volume, VOXEL, min_distance_A=1.5, blur_A=0.4, particle=particle)
    with pytest.raises(ValueError, match="no atom was found"):
        classify(volume, VOXEL, peaks, ("Si",), rng=rng)


def test_peaks_of_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="one of each per candidate"):
        Peaks(np.zeros((2, 3)), np.zeros(3))


@pytest.mark.parametrize("clutter", [40, 230, 1200])
def test_skewed_clutter_is_not_an_element(rng, clutter):
    """Maxima between atoms are brighter and broader than the noise outside and more numerous than the atoms."""
    noise = rng.gamma(4.0, 0.004, 500)
    values = np.concatenate(
        [rng.gamma(3.0, 0.008, clutter), rng.normal(0.131, 0.003, 42), rng.normal(0.166, 0.003, 21)]
    )
    mixture = fit_mixture(values, noise, 2, rng, faint=0.63, ratios=brightness_ratios(("O", "Si"), 0.5))
    assert mixture.mean[-2:] == pytest.approx([0.131, 0.166], abs=0.003)
    assert mixture.share[-2:] * len(values) == pytest.approx([42, 21], abs=1)


def test_brightness_follows_the_atomic_numbers():
    (least, most), second = brightness_ratios(("O", "Si", "Ge"))
    assert least < (14 / 8) ** 0.7 < (14 / 8) ** 1.8 < most
    assert brightness_ratios(("O", "Si", "Ge"), 0.5)[1] == pytest.approx(np.sqrt(second))
