"""An unknown tilt axis is found from the images, and alignment works along it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tomo import align, rotation, tilt_axis
from tomo.align.shift import shifted, turned

N, TILTS = 64, 24
THETA = np.linspace(-70, 70, TILTS)


def particle_images(rng: np.random.Generator, phi: float) -> tuple[np.ndarray, np.ndarray]:
    """Exact images (n, y, x) of 60 Gaussian atoms tilted about an axis at φ, and the angles (n, 3)."""
    angles = np.column_stack([np.full(TILTS, phi), THETA, np.zeros(TILTS)])
    atoms = rng.normal(size=(60, 3))
    atoms *= 14 * rng.random((60, 1)) ** (1 / 3) / np.linalg.norm(atoms, axis=1, keepdims=True)
    seen = np.einsum("tij,aj->tai", rotation(angles), atoms - atoms.mean(axis=0))
    line = np.arange(N) - N // 2
    x, y = (np.exp(-((line - seen[..., k, None]) ** 2) / (2 * 1.8**2)) for k in (0, 1))
    return np.einsum("tay,tax->tyx", y, x), angles


def moved(images: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    return np.stack([shifted(image, shift) for image, shift in zip(images, shifts, strict=True)])


def apart_deg(a: float, b: float) -> float:
    return abs((a - b + 90) % 180 - 90)


def test_a_turned_image_holds_its_content_where_the_convention_says() -> None:
    image = np.zeros((41, 51))
    image[20, 25 + 10] = 1.0
    assert np.unravel_index(turned(image, 90.0).argmax(), image.shape) == (30, 25)
    image = np.zeros((40, 50))
    image[20, 25 - 8] = 1.0
    assert np.unravel_index(turned(image, -90.0).argmax(), image.shape) == (28, 25)


@pytest.mark.parametrize("phi", [0.0, 20.0, -77.3, 45.0, 90.0])
def test_the_axis_is_found_in_images_that_are_not_aligned(rng: np.random.Generator, phi: float) -> None:
    images, _ = particle_images(rng, phi)
    found = tilt_axis(moved(images, rng.normal(0, 2, (TILTS, 2))))
    assert found.clear
    assert found.contrast > 50
    assert apart_deg(found.direction_deg, phi) < 0.2


def test_noise_widens_the_error_that_is_stated(rng: np.random.Generator) -> None:
    off, stated = [], []
    for phi in (-60.0, -10.0, 30.0, 75.0):
        images, _ = particle_images(rng, phi)
        found = tilt_axis(rng.poisson(8 * images.clip(0) + 1.0))
        off.append(apart_deg(found.direction_deg, phi))
        stated.append(found.error_deg)
    assert 0.1 < np.sqrt(np.mean(np.square(off)) / np.mean(np.square(stated))) < 1.5
    assert max(off) < 3.0


def test_without_any_tilt_axis_none_is_claimed(rng: np.random.Generator) -> None:
    unlike = np.stack([particle_images(rng, phi)[0][TILTS // 2] for phi in rng.uniform(-90, 90, TILTS)])
    assert not tilt_axis(rng.poisson(8 * unlike.clip(0) + 1.0)).clear


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.ones((5, 8, 8)), "at least 12 images"),
        (np.full((12, 8, 8), np.nan), "not finite"),
    ],
)
def test_what_cannot_be_used_is_named(images: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tilt_axis(images)


def test_an_empty_image_is_named(rng: np.random.Generator) -> None:
    images, _ = particle_images(rng, 0.0)
    images[3] *= -1
    with pytest.raises(ValueError, match="image 3 has no mass"):
        tilt_axis(images)


def test_images_are_aligned_along_an_axis_that_is_not_y(rng: np.random.Generator) -> None:
    images, angles = particle_images(rng, 35.0)
    true = rng.normal(0, 3, (TILTS, 2))
    found = align(moved(images, true), angles, match=False)
    np.testing.assert_allclose(found.shifts_px, -true, atol=0.1)
    with pytest.raises(ValueError, match="about one axis"):
        align(images, angles + np.arange(TILTS)[:, None] * [0.2, 0, 0])


def test_the_published_series_tilts_about_y(shared: Path) -> None:
    loadmat = pytest.importorskip("scipy.io").loadmat
    path = shared / "si208" / "aSi_2nmFosCetr_Dose1p6e4_cov35pm_ForBM3D.mat"
    counts = loadmat(path)["Trunc_projections_forBM3D"].transpose(2, 1, 0).astype(np.float32)
    found = tilt_axis(counts)
    assert found.clear
    assert apart_deg(found.direction_deg, 0.0) < 3 * max(found.error_deg, 0.5)
