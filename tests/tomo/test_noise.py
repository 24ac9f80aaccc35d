"""Noise of detector images: known detectors are recovered, stabilised noise has variance 1, the inverse is unbiased."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tomo.noise import Noise, estimate_noise, estimate_noises, noise_left, stabilise, unstabilise


def particle(peak: float, *, blob_px: float = 2.2, size: int = 96) -> np.ndarray:
    """A ball of blobs on one electron per pixel of background; electrons per pixel."""
    rng = np.random.default_rng(3)
    direction = rng.normal(size=(120, 3))
    radius = 0.35 * size * rng.random((120, 1)) ** (1 / 3)
    centres = radius * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    y, x = np.mgrid[:size, :size] - size // 2
    blobs = sum(np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * blob_px**2)) for cx, cy, _ in centres)
    return 1 + peak * blobs / np.max(blobs)


def readings(electrons: np.ndarray, noise: Noise, n: int, rng: np.random.Generator) -> np.ndarray:
    shape = (n, *electrons.shape)
    counts = noise.gain * rng.poisson(electrons, shape) + noise.offset
    return counts + noise.read_noise * rng.normal(size=shape)


@pytest.mark.parametrize("gain", [0.02, 3.7, 150.0])
@pytest.mark.parametrize("peak", [1.0, 30.0])
def test_gain_of_pure_poisson_noise_is_found_within_three_percent(gain, peak, rng):
    found = estimate_noise(readings(particle(peak), Noise(gain), 12, rng))
    assert found.gain == pytest.approx(gain, rel=0.03)
    assert found.read_noise == 0 and found.offset == 0


def test_gain_and_read_noise_are_found_together(rng):
    found = estimate_noise(readings(particle(80.0), Noise(3.7, 9.0), 20, rng))
    assert found.gain == pytest.approx(3.7, rel=0.05)
    assert found.read_noise == pytest.approx(9.0, rel=0.05)


def test_detector_offset_does_not_spoil_the_gain(rng):
    found = estimate_noise(readings(particle(40.0), Noise(12.0, 5.0, 300.0), 20, rng))
    assert found.gain == pytest.approx(12.0, rel=0.05)
    # Only offset − read_noise²/gain can be seen in variances: 300 − 25/12.
    assert found.offset - found.read_noise**2 / found.gain == pytest.approx(297.9, abs=2.0)


def test_read_noise_at_a_known_gain_needs_no_contrast(rng):
    flat = np.full((96, 96), 5.0)
    found = estimate_noise(readings(flat, Noise(2.0, 6.0), 10, rng), gain=2.0)
    assert found.gain == 2.0
    assert found.read_noise == pytest.approx(6.0, rel=0.03)


def test_counted_electrons_have_gain_one_exactly(rng):
    assert estimate_noise(rng.poisson(particle(1.0), (4, 96, 96)).astype(np.uint8)) == Noise(1.0)


def test_sharp_structure_is_not_taken_for_noise(rng):
    found = estimate_noise(readings(particle(200.0, blob_px=1.4), Noise(2.0), 12, rng))
    assert found.gain == pytest.approx(2.0, rel=0.03)


def test_hot_pixels_do_not_set_the_gain(rng):
    images = readings(particle(10.0), Noise(2.0), 8, rng)
    images.ravel()[rng.integers(0, images.size, 40)] = 1e4
    assert estimate_noise(images).gain == pytest.approx(2.0, rel=0.05)


def test_images_without_noise_give_gain_one_and_say_so(caplog):
    assert estimate_noise(particle(30.0)) == Noise(1.0)
    assert "no white noise" in caplog.text


@pytest.mark.parametrize("dose", ["8p0e3", "1p6e4", "1p6e5"])
def test_published_counts_have_gain_one(shared: Path, dose):
    scipy_io = pytest.importorskip("scipy.io")
    file = shared / "si208" / f"aSi_2nmFosCetr_Dose{dose}_cov35pm_ForBM3D.mat"
    counts = scipy_io.loadmat(file)["Trunc_projections_forBM3D"].T.astype(np.float64)
    assert estimate_noise(counts) == Noise(1.0)
    # Away from whole numbers the special case of counted electrons cannot help.
    assert estimate_noise(2.3 * counts).gain == pytest.approx(2.3, rel=0.02)


@pytest.mark.parametrize("read_noise", [0.0, 4.0, 30.0])
@pytest.mark.parametrize("electrons", [5.0, 20.0, 400.0])
def test_stabilised_noise_has_variance_one(read_noise, electrons, rng):
    noise = Noise(3.0, read_noise, 50.0)
    z = readings(np.full((400, 400), electrons), noise, 1, rng)
    assert stabilise(z, noise).var() == pytest.approx(1.0, abs=0.05 if electrons < 10 else 0.02)


@pytest.mark.parametrize("read_noise", [0.0, 0.3, 1.0, 8.0])
@pytest.mark.parametrize("electrons", [0.0, 0.2, 1.0, 3.0, 20.0, 190.0, 500.0])
def test_inverse_gives_back_the_mean(read_noise, electrons, rng):
    noise = Noise(2.0, 2.0 * read_noise, 10.0)
    z = readings(np.full((500, 800), electrons), noise, 1, rng)
    mean = unstabilise(np.array([stabilise(z, noise).mean()]), noise)[0]
    standard_error = 2.0 * np.sqrt((electrons + read_noise**2) / z.size)
    assert mean == pytest.approx(10.0 + 2.0 * electrons, abs=5 * standard_error + 1e-3)


@pytest.mark.parametrize("read_noise", [0.0, 0.4, 2.0])
@pytest.mark.parametrize("electrons", [0.3, 0.7, 2.0, 10.0, 100.0])
def test_inverse_is_unbiased_within_one_percent_of_the_electrons(read_noise, electrons, rng):
    noise = Noise(1.7, 1.7 * read_noise)
    z = readings(np.full((1500, 1500), electrons), noise, 1, rng)
    mean = unstabilise(np.array([stabilise(z, noise).mean()]), noise)[0]
    assert mean == pytest.approx(1.7 * electrons, rel=0.01)


@pytest.mark.parametrize(("electrons", "deviation"), [(0.3, 0.560), (1.0, 0.847), (2.0, 0.962), (50.0, 1.0)])
def test_noise_left_by_the_transform_is_measured_on_flat_images(electrons, deviation, rng):
    z = readings(np.full((300, 300), electrons), Noise(2.0), 1, rng)[0]
    assert noise_left(z, Noise(2.0)) == pytest.approx(deviation, abs=0.01)
    assert noise_left(z, Noise(2.0)) == pytest.approx(stabilise(z, Noise(2.0)).std(), abs=0.01)


def test_gain_and_read_noise_of_each_image_are_found(rng):
    truth = [Noise(gain, gain * read) for gain in np.linspace(0.4, 3.0, 8) for read in (0.0, 2.0)]
    images = np.stack([readings(particle(30.0), noise, 1, rng)[0] for noise in truth])
    found = estimate_noises(images)
    gain, true_gain, read, true_read = (
        np.array([getattr(one, name) for one in many]) for name in ("gain", "read_noise") for many in (found, truth)
    )
    assert np.abs(gain / true_gain - 1).max() < 0.35
    assert np.sqrt(np.mean((gain / true_gain - 1) ** 2)) < 0.12
    noisy = true_read > 0
    assert np.abs(read[noisy] / true_read[noisy] - 1).max() < 0.3
    assert (read[~noisy] < 0.5 * gain[~noisy]).mean() > 0.8


def test_equal_gains_are_pooled_and_an_odd_image_keeps_its_own(rng):
    same = readings(particle(10.0), Noise(2.5), 12, rng)
    gains = np.array([noise.gain for noise in estimate_noises(same)])
    assert np.ptp(gains) == 0 and gains[0] == pytest.approx(2.5, rel=0.03)
    same[4] *= 2
    gains = np.array([noise.gain for noise in estimate_noises(same)])
    assert gains[4] == pytest.approx(5.0, rel=0.15)
    assert np.delete(gains, 4) == pytest.approx(2.5, rel=0.15)


def test_a_known_gain_holds_for_each_image(rng):
    images = readings(np.full((96, 96), 5.0), Noise(2.0, 6.0), 4, rng)
    found = estimate_noises(images, gain=2.0)
    assert [noise.gain for noise in found] == [2.0] * 4
    assert [noise.read_noise for noise in found] == pytest.approx([6.0] * 4, rel=0.1)


def test_inverse_known_values():
    # E[2√(k + 3/8)] of a Poisson variable, summed by hand: mean 0 gives 2√(3/8); for mean 1 see the sum.
    k = np.arange(60)
    factorial = np.cumprod(np.maximum(k, 1).astype(float))
    of_one = np.sum(2 * np.sqrt(k + 0.375) * np.exp(-1.0) / factorial)
    values = unstabilise(np.array([2 * np.sqrt(0.375), of_one]), Noise(1.0))
    np.testing.assert_allclose(values, [0.0, 1.0], atol=1e-4)


def test_inverse_is_monotone_and_continuous():
    values = unstabilise(np.linspace(0, 40, 40_001), Noise(1.0, 0.7))
    steps = np.diff(values)
    assert steps.min() > 0
    assert steps.max() < 0.025


def test_undershoot_stays_negative():
    assert unstabilise(np.array([0.9]), Noise(1.0))[0] < -0.1


@pytest.mark.parametrize(
    ("gain", "read_noise", "named"), [(0.0, 0.0, "gain is 0.0"), (1.0, -1.0, "read_noise is -1.0")]
)
def test_impossible_noise_is_refused(gain, read_noise, named):
    with pytest.raises(ValueError, match=named):
        Noise(gain, read_noise)


def test_unusable_images_are_refused(rng):
    with pytest.raises(ValueError, match="16 × 16"):
        estimate_noise(np.ones((3, 8, 8)))
    with pytest.raises(ValueError, match="expected real"):
        estimate_noise(np.ones((3, 32, 32), complex))
    broken = np.ones((3, 32, 32))
    broken[1, 4, 5] = np.nan
    with pytest.raises(ValueError, match="first in image 1"):
        estimate_noise(broken)
    with pytest.raises(ValueError, match="mean below zero"):
        estimate_noise(rng.normal(-100, 1, (2, 32, 32)))
