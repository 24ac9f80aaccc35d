"""Filtered back-projection and SIRT against analytic Gaussians."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tomo import Projector, fbp, resire, rotation, sirt
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


def test_all_methods_give_the_height_of_the_truth() -> None:
    angles = tilts(3.0)
    images = gaussian_images(angles)
    at = tuple(AT[::-1].astype(int) + N // 2)
    heights = [fbp(images, angles)[at], *(m(images, angles, iterations=60).volume[at] for m in (resire, sirt))]
    np.testing.assert_allclose(heights, 1.0, atol=0.08)


@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("psi", [0.0, 2.0])
def test_sirt_slab_by_slab_gives_the_same_volume(xp: ModuleType, momentum: bool, psi: float) -> None:
    angles = tilts(9.0) + np.array([0.0, 0.0, psi])
    images = xp.asarray(gaussian_images(angles))
    given: dict[str, Any] = {"iterations": 8, "momentum": momentum, "held_out": [3, 11]}
    whole = sirt(images, angles, **given)
    parts = sirt(images, angles, memory_bytes=7 * 5 * 4 * N * N, **given)
    np.testing.assert_allclose(as_numpy(parts.volume), as_numpy(whole.volume), atol=2e-5)
    np.testing.assert_allclose(parts.r_free, whole.r_free, rtol=1e-4)


def test_back_projection_slab_by_slab_is_the_same(xp: ModuleType) -> None:
    images = xp.asarray(gaussian_images(tilts(9.0)))
    parts = fbp(images, tilts(9.0), memory_bytes=7 * 5 * 4 * N * N)
    np.testing.assert_allclose(as_numpy(parts), as_numpy(fbp(images, tilts(9.0))), atol=1e-5)


def test_sirt_neither_fits_nor_weighs_held_out_tilts() -> None:
    images = gaussian_images(tilts(9.0))
    out = np.isin(np.arange(20), [3, 11])
    found = sirt(images, tilts(9.0), iterations=8, held_out=out)
    np.testing.assert_allclose(found.volume, sirt(images[~out], tilts(9.0)[~out], iterations=8).volume, atol=1e-5)
    assert found.r_free is not None and found.mismatch_free is not None
    seen = Projector(tilts(9.0), (N, N))(found.volume)[out]
    expected = float(((seen - images[out]) ** 2).sum() / (images[out] ** 2).sum())
    assert found.mismatch_free[-1] == pytest.approx(expected, rel=1e-4)


def test_momentum_brings_sirt_there_sooner() -> None:
    images = gaussian_images(tilts(6.0))
    plain, fast = (sirt(images, tilts(6.0), iterations=20, momentum=m).r_factor[-1] for m in (False, True))
    assert fast < 0.5 * plain


def test_a_resumed_sirt_ends_as_if_it_had_never_stopped() -> None:
    images = gaussian_images(tilts(9.0))
    kept: list[dict[str, np.ndarray]] = []
    whole = sirt(images, tilts(9.0), iterations=9, watch=lambda now: kept.append(now.checkpoint()))
    again = sirt(images, tilts(9.0), iterations=9, resume=kept[3])
    np.testing.assert_array_equal(again.volume, whole.volume)
