"""Noise models, Fisher information and the covariance it leads to."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.uncertainty import NoiseModel, coupled, covariance, inflation, information, measure_noise


def views(degrees, pixel_A):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    zero, one = np.zeros_like(c), np.ones_like(c)
    return np.array([[c, zero, s], [zero, one, zero]]).transpose(2, 0, 1) / pixel_A


@pytest.fixture
def scene(rng):
    """Five atoms seen in nine tilts: project to pixels about the middle of 60 × 60 images."""
    to_pixels = views(np.arange(-60, 61, 15.0), 0.3)
    positions = np.array([[0.1, 0, 0], [1.2, 0.3, -0.4], [-0.8, 1.0, 0.9], [0.3, -1.4, 0.5], [2.0, 1.5, 1.0]])
    at = np.einsum("tij,aj->tai", to_pixels, positions) + 30.0
    return positions, to_pixels, at


def test_noise_of_known_gain_and_floor_is_recovered(rng):
    signal = rng.uniform(0, 8, (6, 80, 80))
    residual = rng.normal(size=signal.shape) * np.sqrt(0.7 * signal + 1.5)
    found = measure_noise(residual, signal, None, shot=True)
    assert (found.gain, found.floor) == (pytest.approx(0.7, rel=0.04), pytest.approx(1.5, rel=0.04))
    assert measure_noise(residual, signal, None, shot=False).floor == pytest.approx(0.7 * 4 + 1.5, rel=0.03)


def test_white_noise_has_no_gain_and_masked_pixels_do_not_count(rng):
    signal = rng.uniform(0, 8, (4, 60, 60))
    residual = 0.3 * rng.normal(size=signal.shape)
    weights = np.ones_like(signal)
    weights[0] = 0
    residual[0] = 99.0
    found = measure_noise(residual, signal, weights, shot=True)
    assert found.gain < 1e-3 and found.floor == pytest.approx(0.09, rel=0.05)
    assert NoiseModel(2.0, 1.0).variance(np.array([-5.0, 3.0])).tolist() == [1.0, 7.0]


def test_information_of_a_lone_atom_is_the_closed_form():
    """∫(∂m/∂x)² = A²/(8π w⁴) per tilt for a Gaussian of integral A: σ_y = √(8π/n) w² σ pixel / A."""
    to_pixels = views(np.arange(-60, 61, 15.0), 0.3)
    at = np.full((9, 1, 2), 30.0)
    amplitude, width, variance = 12.0, 1.6, 0.04
    shape = (9, 60, 60)
    fisher, _ = information(
        at, np.array([amplitude]), np.array([width]), np.full(shape, 1 / variance), np.zeros(shape), to_pixels
    )
    per_tilt = amplitude**2 / (8 * np.pi * width**4) / variance / 0.3**2
    assert fisher[0, 1, 1] == pytest.approx(9 * per_tilt, rel=1e-3)
    angles = np.deg2rad(np.arange(-60, 61, 15.0))
    assert fisher[0, 0, 0] == pytest.approx(per_tilt * (np.cos(angles) ** 2).sum(), rel=1e-3)
    assert fisher[0, 2, 2] == pytest.approx(per_tilt * (np.sin(angles) ** 2).sum(), rel=1e-3)
    assert fisher[0, 3, 3] == pytest.approx(9 / (4 * np.pi * width**2) / variance, rel=1e-3)
    assert np.abs(fisher[0, :3, 3]).max() < 1e-3 * fisher[0, 3, 3]


def test_scores_are_the_gradient_of_the_loss(scene, rng):
    positions, to_pixels, at = scene
    residual, weight = rng.normal(size=(9, 60, 60)), rng.uniform(0.5, 2, (9, 60, 60))
    amplitude, width = rng.uniform(5, 9, 5), np.full(5, 1.5)
    _, scores = information(at, amplitude, width, weight, residual, to_pixels)
    x = np.arange(60.0)

    def image(p, t):
        u, v = to_pixels[t] @ p + 30.0
        gauss = np.exp(-((x - u) ** 2 + (x[:, None] - v) ** 2) / 2 / 1.5**2) / (2 * np.pi * 1.5**2)
        return amplitude[2] * gauss

    for axis, t in ((0, 2), (1, 5), (2, 8)):
        step = 1e-5 * np.eye(3)[axis]
        slope = (image(positions[2] + step, t) - image(positions[2] - step, t)) / 2e-5
        assert scores[2, t, axis] == pytest.approx(np.sum(weight[t] * residual[t] * slope), rel=1e-3, abs=1e-3)


def test_depth_is_undetermined_by_a_single_image():
    to_pixels = views(np.array([0.0]), 0.3)
    shape = (1, 60, 60)
    fisher, _ = information(
        np.full((1, 1, 2), 30.0), np.ones(1), np.full(1, 1.5), np.ones(shape), np.zeros(shape), to_pixels
    )
    assert np.isnan(covariance(fisher[:, :3, :3])).all()
    assert np.isfinite(covariance(fisher[:, :2, :2])).all()


def test_neighbours_raise_the_covariance_as_the_whole_matrix_says(scene):
    """Second order of the inverse against the inverse of the whole matrix, assembled by brute force."""
    positions, to_pixels, at = scene
    amplitude, width, weight = np.array([9.0, 7, 8, 6, 9]), np.full(5, 1.5), np.full((9, 60, 60), 25.0)
    x = np.arange(60.0)
    whole = np.zeros((15, 15))
    for t in range(9):
        rows = []
        for (u, v), a in zip(at[t], amplitude, strict=True):
            g = a * np.exp(-((x - u) ** 2 + (x[:, None] - v) ** 2) / 4.5) / (2 * np.pi * 2.25**2)
            rows += [
                ((x - u) * g)[None] * to_pixels[t, 0, k] + ((x[:, None] - v) * g)[None] * to_pixels[t, 1, k]
                for k in range(3)
            ]
        jacobian = np.array(rows).reshape(15, -1)
        whole += 25.0 * jacobian @ jacobian.T
    fisher, _ = information(at, amplitude, width, weight, np.zeros_like(weight), to_pixels)
    blocks = covariance(fisher[:, :3, :3])
    raised = coupled(blocks, positions, 20.0, at, amplitude, width, weight, to_pixels)
    exact = np.diag(np.linalg.inv(whole)).reshape(5, 3)
    plain, better = (np.einsum("aii->ai", c) for c in (blocks, raised))
    assert np.abs(plain / exact - 1).max() > 0.08
    assert np.abs(better / exact - 1).max() < 0.35 * np.abs(plain / exact - 1).max()


def test_inflation_is_the_ratio_of_scatter_to_information(rng):
    """Scores drawn with three times the variance that F promises ask for a factor of three."""
    root = rng.normal(size=(200, 3, 3)) + 3 * np.eye(3)
    per_tilt = root @ root.transpose(0, 2, 1)
    scores = np.einsum("aij,atj->ati", root, rng.normal(size=(200, 40, 3)))
    cov = np.linalg.inv(40 * per_tilt)
    free = 1 - 3 / 80
    assert inflation(cov, np.sqrt(3 * free) * scores) == pytest.approx(3, rel=0.05)
    assert inflation(cov, 0.5 * scores) == 1.0
    assert inflation(np.full((1, 3, 3), np.nan), scores[:1]) == 1.0
