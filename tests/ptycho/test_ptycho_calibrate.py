"""The aperture read off the mean pattern."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho.calibrate import measured_aperture

N, RADIUS_PX = 64, 15.8


def radii() -> np.ndarray:
    k = np.fft.fftfreq(N) * N
    return np.hypot(k[:, None], k[None, :])


@pytest.mark.parametrize("softness_px", [0.8, 1.6])
def test_the_edge_is_the_measured_one(softness_px: float) -> None:
    """An aperture with a known soft edge, counted with scattered background, comes back as its amplitude."""
    share = 1 / (1 + np.exp((radii() - RADIUS_PX) / (softness_px / 4)))
    counts = np.random.default_rng(1).poisson(4000 * share + 20)
    amplitude = measured_aperture(counts.astype(float), RADIUS_PX)
    np.testing.assert_allclose(amplitude**2, share, atol=0.05)
    ideal = np.clip(RADIUS_PX - radii() + 0.5, 0, 1)
    assert np.abs(amplitude**2 - share).sum() < 0.3 * np.abs(ideal - share).sum()


def test_masked_pixels_do_not_count() -> None:
    share = (radii() < RADIUS_PX).astype(float)
    counts, mask = 1000 * share, np.ones((N, N), bool)
    counts[:, :5], mask[:, :5] = 1e9, False
    np.testing.assert_allclose(measured_aperture(counts, RADIUS_PX, mask)[:, 6:], np.sqrt(share)[:, 6:], atol=0.4)
    assert measured_aperture(counts, RADIUS_PX, mask)[0, 0] == pytest.approx(1.0)


def test_without_a_disk_the_edge_is_ideal() -> None:
    ideal = np.sqrt(np.clip(RADIUS_PX - radii() + 0.5, 0, 1))
    for flat in (np.ones((N, N)), np.zeros((N, N))):
        np.testing.assert_array_equal(measured_aperture(flat, RADIUS_PX), ideal)
    np.testing.assert_array_equal(measured_aperture(np.ones((8, 8)), 30.0) > 0, True)
