"""Filtered back-projection and SIRT against analytic Gaussians."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from tomo import Projector, fbp, rotation, sirt
from tomo.baselines import angular_weights

N, SIGMA = 40, 3.0
AT = np.array([5.0, -4.0, 6.0])  # (x, y, z)
LINE = np.arange(N) - N // 2


def gaussian_images(angles: np.ndarray, sigma: float = SIGMA, n: int = N) -> np.ndarray:
    """Exact projections (n, y, x) of a Gaussian of height 1 at AT."""
    line = np.arange(n) - n // 2
    x, y = (rotation(angles) @ AT)[:, :2].T
    across = np.exp(-((line - x[:, None]) ** 2) / (2 * sigma**2))[:, None, :]
    along = np.exp(-((line - y[:, None]) ** 2) / (2 * sigma**2))[:, :, None]
    return (np.sqrt(2 * np.pi) * sigma * across * along).astype(np.float32)


def gaussian_volume(sigma: float = SIGMA, height: float = 1.0) -> np.ndarray:
    z, y, x = (np.exp(-((LINE - c) ** 2) / (2 * sigma**2)) for c in AT[::-1])
    return height * z[:, None, None] * y[:, None] * x


def tilts(step: float, phi: float = 0.0) -> np.ndarray:
    theta = np.arange(0.0, 180.0, step)
    return np.column_stack([np.full_like(theta, phi), theta, np.zeros_like(theta)])


def as_numpy(array: object) -> np.ndarray:
    return array.get() if hasattr(array, "get") else np.asarray(array)


@pytest.mark.parametrize("phi", [0.0, 30.0])
@pytest.mark.parametrize("filter_", ["ramp", "hann"])
def test_fbp_of_a_gaussian_has_its_height_and_place(xp: ModuleType, phi: float, filter_: str) -> None:
    angles = tilts(3.0, phi)
    volume = as_numpy(fbp(xp.asarray(gaussian_images(angles)), angles, filter_=filter_))
    # Interpolation and the taper both widen the blob a little and lower it by less than 8 %.
    assert np.abs(volume - gaussian_volume()).max() < 0.08
    peak = np.array(np.unravel_index(volume.argmax(), volume.shape)) - N // 2
    np.testing.assert_array_equal(peak, AT[::-1])


def test_fbp_blur_is_a_gaussian_blur_of_the_volume() -> None:
    wide = np.hypot(SIGMA, 2.0)
    volume = fbp(gaussian_images(tilts(3.0)), tilts(3.0), blur_px=2.0)
    assert np.abs(volume - gaussian_volume(wide, (SIGMA / wide) ** 3)).max() < 0.02


def test_fbp_uneven_angles_keep_the_height() -> None:
    uneven = tilts(3.0)[np.r_[0:30, 30:60:2]]
    volume = fbp(gaussian_images(uneven), uneven)
    assert volume[tuple(AT[::-1].astype(int) + N // 2)] == pytest.approx(1.0, abs=0.06)


def test_angular_weights_are_the_quadrature() -> None:
    np.testing.assert_allclose(angular_weights(np.arange(0.0, 180.0, 3.0)), np.deg2rad(3.0))
    np.testing.assert_allclose(np.rad2deg(angular_weights(np.arange(-72.0, 73.0, 3.0))), 3.0)
    assert np.rad2deg(angular_weights(np.array([0.0, 0.0, 60.0, 120.0]))) == pytest.approx([30, 30, 60, 60])
    np.testing.assert_allclose(angular_weights(np.array([17.0])), np.pi)


def test_sirt_approaches_a_gaussian(xp: ModuleType) -> None:
    angles = tilts(6.0)
    truth = xp.asarray(gaussian_volume(), np.float32)
    images = Projector(angles, (N, N), xp=xp)(truth)
    errors = [float(xp.linalg.norm((sirt(images, angles, iterations=i).volume - truth).ravel())) for i in (5, 40)]
    assert errors[1] < 0.3 * errors[0]
    assert errors[1] < 0.1 * float(xp.linalg.norm(truth.ravel()))


def test_bad_arguments_are_named() -> None:
    images = gaussian_images(tilts(20.0))
    with pytest.raises(ValueError, match="filter_ is 'cosine'; expected one of ramp, hann"):
        fbp(images, tilts(20.0), filter_="cosine")
    with pytest.raises(ValueError, match=r"blur_px is -1\.0"):
        fbp(images, tilts(20.0), blur_px=-1.0)
    with pytest.raises(ValueError, match="angles_deg has 60 rows"):
        fbp(images, tilts(3.0))
