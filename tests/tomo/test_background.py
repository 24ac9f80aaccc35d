"""Masks find known particles; backgrounds reproduce levels and harmonic functions hidden behind them."""

from __future__ import annotations

import numpy as np
import pytest

from tomo.background import (
    check_masks,
    constant_background,
    constant_backgrounds,
    fill_harmonic,
    is_uneven,
    laplace_background,
    particle_mask,
)

Y, X = np.mgrid[:128, :128] - 64.0
RADIUS = np.hypot(Y - 4, X + 6)


def ball(radius_px: float) -> np.ndarray:
    """Projected thickness of a ball, 1 at its centre (4, -6)."""
    return np.sqrt(np.maximum(1 - (RADIUS / radius_px) ** 2, 0))


@pytest.mark.parametrize("contrast", [1.0, 20.0])
def test_mask_covers_a_ball_and_little_more(contrast, rng):
    mask = particle_mask(rng.poisson(1 + contrast * ball(40)))
    assert mask[RADIUS < 39].mean() > 0.995
    assert not mask[RADIUS > 56].any()


def test_mask_of_a_sharp_disk_is_the_disk_grown_by_the_margin():
    mask = particle_mask(np.where(RADIUS <= 30, 5.0, 1.0), smooth_px=1.0, grow_px=6.0)
    assert np.sqrt(mask.sum() / np.pi) == pytest.approx(36.0, abs=1.0)


def test_mask_ignores_dust_and_fills_holes():
    image = np.where(RADIUS <= 30, 5.0, 1.0)
    image[RADIUS < 5] = 1.0
    image[2:6, 2:6] = 5.0
    mask = particle_mask(image, smooth_px=1.0)
    assert mask[RADIUS < 30].all()
    assert not mask[:10, :10].any()


def test_mask_finds_a_ball_on_a_slope_as_high_as_itself(rng):
    mask = particle_mask(rng.poisson(8 + 0.08 * X + 8 * ball(40)))
    assert mask[RADIUS < 38].mean() > 0.99
    assert mask[RADIUS > 58].mean() < 0.01


def test_mask_margin_leaves_surroundings():
    mask = particle_mask(np.where(RADIUS <= 58, 5.0, 1.0), smooth_px=1.0, grow_px=60.0)
    assert 0.05 < 1 - mask.mean() < 0.15


def test_constant_background_is_the_level_despite_tails_and_hot_pixels(rng):
    tails = 3.0 / (1 + (np.maximum(RADIUS - 40, 0) / 3) ** 2)
    image = rng.poisson(1 + 10 * ball(40) + tails).astype(float)
    image[0, :6] = 1e4
    mask = RADIUS < 44
    assert image[~mask].mean() > 1.2
    assert constant_background(image, mask)[0] == pytest.approx(1.0, abs=0.07)


def test_constant_background_of_pure_noise_is_unbiased(rng):
    levels = np.array([constant_background(rng.poisson(1.0, X.shape), RADIUS < 45) for _ in range(40)])
    assert levels[:, 0].mean() == pytest.approx(1.0, abs=0.01)
    assert levels[:, 0].std() == pytest.approx(levels[:, 1].mean(), rel=0.4)


def test_levels_that_agree_are_pooled_and_levels_that_differ_kept(rng):
    masks = np.repeat((RADIUS < 45)[None], 30, axis=0)
    same = constant_backgrounds(rng.poisson(1.0, (30, 128, 128)), masks)
    assert np.abs(same - 1).max() < 0.012
    drift = np.linspace(1, 3, 30)
    different = constant_backgrounds(rng.poisson(drift[:, None, None], (30, 128, 128)), masks)
    np.testing.assert_allclose(different, drift, atol=0.08)
    assert constant_backgrounds(np.full((1, 128, 128), 2.0), masks[:1]) == pytest.approx(2.0)


@pytest.mark.parametrize(
    "harmonic",
    [0.03 * X - 0.02 * Y + 2, 1e-3 * (X**2 - Y**2), 1e-3 * X * Y],
    ids=["plane", "saddle", "turned saddle"],
)
def test_harmonic_function_is_filled_in_exactly(harmonic):
    # These three solve the five-point equations exactly, not only the differential ones.
    filled = fill_harmonic(np.where(RADIUS < 45, 99.0, harmonic), RADIUS < 45)
    np.testing.assert_allclose(filled, harmonic, atol=1e-9)


def test_fill_at_the_edge_of_the_image_lets_nothing_through():
    mask = X > 0
    filled = fill_harmonic(np.where(mask, 99.0, 0.5 * np.ones_like(X)), mask)
    np.testing.assert_allclose(filled, 0.5, atol=1e-9)


def test_fill_obeys_the_maximum_principle(rng):
    mask = RADIUS < 30
    values = rng.normal(size=X.shape)
    filled = fill_harmonic(values, mask)
    assert values[~mask].min() < filled[mask].min() < filled[mask].max() < values[~mask].max()


def test_fill_without_a_boundary_is_refused():
    with pytest.raises(ValueError, match="covers the whole image"):
        fill_harmonic(np.zeros((8, 8)), np.ones((8, 8), bool))


def test_laplace_background_of_a_noise_free_plane_is_the_plane():
    plane = 4 + 0.03 * X - 0.02 * Y
    found = laplace_background(plane + 10 * (RADIUS < 40), RADIUS < 45)
    np.testing.assert_allclose(found, plane, atol=0.05)


def test_laplace_background_finds_a_slope_under_a_noisy_particle(rng):
    background = 4 + 0.03 * X + 0.02 * Y
    image = rng.poisson(background + 10 * ball(40))
    found = laplace_background(image, RADIUS < 45)
    error = (found - background)[RADIUS < 45]
    assert np.sqrt(np.mean(error**2)) < 0.15
    assert abs(error.mean()) < 0.08


def test_only_uneven_surroundings_are_called_uneven(rng):
    particle = 10 * ball(40)
    masks = np.repeat((RADIUS < 45)[None], 6, axis=0)
    flat, sloped = 1 + particle, 2 + 0.02 * X + particle
    assert not is_uneven(rng.poisson(flat, (6, 128, 128)), masks)
    assert is_uneven(rng.poisson(sloped, (6, 128, 128)), masks)


@pytest.mark.parametrize("peak", [3.0, 20.0])
def test_edge_preserving_mask_keeps_the_outline_of_a_notched_particle(peak, rng):
    particle = (RADIUS < 34) & ~((X > 0) & (np.abs(Y) < 7))
    wrong = {"gaussian": 0, "edge_preserving": 0}
    for _ in range(4):
        image = rng.poisson(1 + peak * particle)
        for smoothing in wrong:
            wrong[smoothing] += np.count_nonzero(particle_mask(image, smoothing=smoothing, grow_px=0) ^ particle) / 4
    assert wrong["edge_preserving"] < 0.5 * wrong["gaussian"]
    assert wrong["edge_preserving"] < 0.02 * particle.sum()


def test_edge_preserving_mask_of_a_noise_free_disk_is_the_disk():
    mask = particle_mask(1.0 + 4.0 * (RADIUS < 30), smoothing="edge_preserving", grow_px=0)
    np.testing.assert_array_equal(mask, RADIUS < 30)


def test_unknown_smoothing_is_named():
    with pytest.raises(ValueError, match="smoothing is 'median'; expected 'gaussian' or 'edge_preserving'"):
        particle_mask(1.0 + (RADIUS < 30), smoothing="median")


def test_images_without_particle_or_surroundings_are_refused():
    with pytest.raises(ValueError, match="constant"):
        particle_mask(np.ones((32, 32)))
    with pytest.raises(ValueError, match="1 % of the image"):
        particle_mask(np.eye(200)[:, ::-1] * np.eye(200)[100], smooth_px=0.5)
    full = np.zeros((2, 32, 32), bool)
    full[1] = True
    with pytest.raises(ValueError, match=r"image 1 leaves 0.0%"):
        check_masks(full)
