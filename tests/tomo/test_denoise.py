"""Denoisers bring counts nearer to a known truth, without shifting their mean."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy import ndimage

from tomo.denoise import denoise
from tomo.noise import Noise


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """Blurred points in a disk on one electron per pixel; brightest about ten electrons."""
    points = np.zeros((96, 96))
    y, x = np.mgrid[:96, :96] - 48
    inside = np.flatnonzero(np.hypot(y, x) < 33)
    points.ravel()[np.random.default_rng(1).choice(inside, 70, replace=False)] = 1
    blurred = ndimage.gaussian_filter(points, 2.5)
    return 1 + 9 * blurred / blurred.max()


@pytest.mark.parametrize("method", ["wavelet", "nlm"])
@pytest.mark.parametrize(("scale", "gain", "read_noise"), [(0.3, 1.0, 0.0), (1.0, 4.0, 3.0), (10.0, 0.1, 0.05)])
def test_denoisers_halve_the_error(truth, method, scale, gain, read_noise, rng):
    electrons = scale * truth
    shape = (3, *truth.shape)
    counts = gain * rng.poisson(electrons, shape) + read_noise * rng.normal(size=shape)
    clean = denoise(counts, Noise(gain, read_noise), method, threads=1)
    error = np.sqrt(np.mean((clean - gain * electrons) ** 2))
    noise = np.sqrt(np.mean((counts - gain * electrons) ** 2))
    assert error < 0.5 * noise
    assert clean.mean() == pytest.approx(counts.mean(), rel=0.02)


def test_bm3d_beats_a_third_of_the_error(truth, rng):
    pytest.importorskip("bm3d")
    counts = rng.poisson(truth, (3, *truth.shape)).astype(np.float64)
    clean = denoise(counts, Noise(1.0), "bm3d")
    assert clean.shape == counts.shape
    assert np.sqrt(np.mean((clean - truth) ** 2)) < 0.33 * np.sqrt(np.mean((counts - truth) ** 2))


@pytest.mark.parametrize("method", ["wavelet", "nlm", "bm3d"])
def test_less_strength_leaves_more_noise_and_more_of_the_peaks(truth, method, rng):
    if method == "bm3d":
        pytest.importorskip("bm3d")
    counts = rng.poisson(truth).astype(np.float64)
    weak, full = (denoise(counts, Noise(1.0), method, strength=strength, threads=1) for strength in (0.5, 1.0))
    assert np.std(counts - weak) < 0.98 * np.std(counts - full)


def test_each_image_may_have_a_noise_of_its_own(truth, rng):
    images = np.stack([gain * rng.poisson(truth) for gain in (1.0, 4.0)])
    together = denoise(images, [Noise(1.0), Noise(4.0)], "nlm", threads=1)
    alone = np.stack([denoise(image, Noise(gain), "nlm") for image, gain in zip(images, (1.0, 4.0), strict=True)])
    np.testing.assert_array_equal(together, alone)
    with pytest.raises(ValueError, match="noise has 1 entries; expected one for each of the 2 images"):
        denoise(images, [Noise(1.0)], "nlm")


@pytest.mark.parametrize("strength", [0.0, -1.0, float("nan")])
def test_strength_is_positive(truth, strength):
    with pytest.raises(ValueError, match=r"strength is .*; expected a positive number"):
        denoise(truth, Noise(1.0), "nlm", strength=strength)


def test_missing_bm3d_names_the_extra(truth, monkeypatch):
    monkeypatch.setitem(sys.modules, "bm3d", None)
    with pytest.raises(ImportError, match=r"pip install pyaet\[bm3d\]"):
        denoise(truth, Noise(1.0), "bm3d")


def test_none_returns_the_counts(truth):
    np.testing.assert_array_equal(denoise(truth, Noise(1.0), "none"), truth.astype(np.float32))


def test_threads_do_not_change_the_result_and_progress_counts_images(truth, rng):
    counts = rng.poisson(truth, (4, *truth.shape))
    seen: list[tuple[int, int]] = []
    one = denoise(counts, Noise(1.0), "nlm", threads=1, progress=lambda done, total, value: seen.append((done, total)))
    two = denoise(counts, Noise(1.0), "nlm", threads=2)
    np.testing.assert_array_equal(one, two)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_unknown_method_is_named(truth):
    with pytest.raises(ValueError, match="denoise is 'median'; expected one of none, wavelet, nlm, bm3d"):
        denoise(truth, Noise(1.0), "median")
