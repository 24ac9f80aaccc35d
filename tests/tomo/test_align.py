"""Alignment: known shifts, scales and backgrounds come back, aligned data stay as they are, errors are honest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tomo import align, rotation
from tomo.align.shift import shifted
from tomo.normalize import Measured, noise_variance, particle_mask, settled

N, TILTS = 64, 24
ANGLES = np.column_stack([np.zeros(TILTS), np.arange(TILTS) * 7.5, np.zeros(TILTS)])


def particle_images(rng: np.random.Generator, angles: np.ndarray = ANGLES, n: int = N) -> np.ndarray:
    """Exact images (n, y, x) of 60 Gaussian atoms at random in a ball of 14 px about their centre of mass."""
    atoms = rng.normal(size=(60, 3))
    atoms *= 14 * rng.random((60, 1)) ** (1 / 3) / np.linalg.norm(atoms, axis=1, keepdims=True)
    seen = np.einsum("tij,aj->tai", rotation(angles), atoms - atoms.mean(axis=0))
    line = np.arange(n) - n // 2
    x, y = (np.exp(-((line - seen[..., k, None]) ** 2) / (2 * 1.8**2)) for k in (0, 1))
    return np.einsum("tay,tax->tyx", y, x)


def moved(images: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    return np.stack([shifted(image, shift) for image, shift in zip(images, shifts, strict=True)])


def unseen_removed(errors: np.ndarray) -> np.ndarray:
    """Shift errors (n, 2) less what a translation of the specimen would do, which no alignment can or need find."""
    design = rotation(ANGLES)[:, [1, 0]].reshape(-1, 3)
    return errors - (design @ np.linalg.lstsq(design, errors.ravel(), rcond=None)[0]).reshape(errors.shape)


def test_known_errors_come_back(rng: np.random.Generator) -> None:
    clean = particle_images(rng)
    true = rng.normal(0, 3, (TILTS, 2))
    gain, level = rng.uniform(0.8, 1.25, TILTS), rng.uniform(2, 5, TILTS)
    raw = gain[:, None, None] * moved(clean, true) + level[:, None, None]
    found = align(raw, ANGLES)
    np.testing.assert_allclose(found.shifts_px, -true, atol=0.05)
    np.testing.assert_allclose(found.scales * gain, np.mean(found.scales * gain), rtol=2e-3)
    np.testing.assert_allclose(found.backgrounds, level, atol=0.01)
    np.testing.assert_allclose(found.projections / np.mean(found.scales * gain), clean, atol=0.06 * clean.max())
    assert found.projections.dtype == np.float32


@pytest.mark.parametrize("match", [False, True])
def test_errors_are_of_the_size_that_is_stated(rng: np.random.Generator, match: bool) -> None:
    true = rng.normal(0, 2, (TILTS, 2))
    counts = rng.poisson(2.0 * moved(particle_images(rng), true).clip(0) + 1.0)
    found = align(counts, ANGLES, match=match)
    error = unseen_removed(found.shifts_px + true)
    ratio = error.std(axis=0) / found.shift_errors_px.mean(axis=0)
    assert (ratio > 0.4).all()
    assert (ratio < 1.6).all()
    assert (error.std(axis=0) < (0.25 if match else 0.8)).all()


def test_aligned_data_are_left_alone(rng: np.random.Generator) -> None:
    counts = rng.poisson(2.0 * particle_images(rng) + 1.0).astype(np.float32)
    found = align(counts, ANGLES)
    np.testing.assert_array_equal(found.shifts_px, 0.0)
    np.testing.assert_array_equal(found.scales, 1.0)
    np.testing.assert_allclose(found.backgrounds, 1.0, atol=0.02)
    np.testing.assert_allclose(
        found.projections, counts - found.backgrounds[:, None, None].astype(np.float32), atol=1e-6
    )


def test_a_constant_offset_of_the_rotation_axis_is_removed(rng: np.random.Generator) -> None:
    counts = rng.poisson(5.0 * moved(particle_images(rng), np.tile([-1.0, 4.0], (TILTS, 1))).clip(0) + 0.5)
    np.testing.assert_allclose(align(counts, ANGLES).shifts_px, np.tile([1.0, -4.0], (TILTS, 1)), atol=0.3)


def test_centre_of_mass_alone_serves_general_rotations(rng: np.random.Generator) -> None:
    angles = ANGLES + rng.normal(0, 5, ANGLES.shape)
    true = rng.normal(0, 2, (TILTS, 2))
    raw = moved(particle_images(rng, angles), true)
    with pytest.raises(ValueError, match="set common_line to false"):
        align(raw, angles)
    found = align(raw, angles, common_line=False, match=False)
    np.testing.assert_allclose(found.shifts_px, -true, atol=0.05)


def test_an_image_without_a_particle_is_named_by_its_angle(rng: np.random.Generator) -> None:
    images = particle_images(rng) + 5
    images[3] = 5 - 0.2 * (images[3] - 5)
    with pytest.raises(ValueError, match=r"the image at θ = \+22\.5° \(number 3 from 0\) has no mass"):
        align(images, ANGLES)


def test_steps_can_be_left_out(rng: np.random.Generator) -> None:
    raw = 3.0 + moved(particle_images(rng), rng.normal(0, 2, (TILTS, 2)))
    kept = align(raw, ANGLES, centre_of_mass=False, common_line=False, match=False, normalise=False)
    np.testing.assert_array_equal(kept.shifts_px, 0.0)
    np.testing.assert_array_equal(kept.scales, 1.0)
    np.testing.assert_array_equal(kept.backgrounds, 0.0)
    np.testing.assert_allclose(kept.projections, raw, atol=1e-5)
    along = align(raw, ANGLES, centre_of_mass=False, match=False)
    assert not along.shifts_px[:, 1].any()
    assert along.shifts_px[:, 0].std() > 1.0


def test_progress_is_told(rng: np.random.Generator) -> None:
    calls: list[tuple[int, int, float]] = []
    raw = rng.poisson(2.0 * moved(particle_images(rng), rng.normal(0, 2, (TILTS, 2))).clip(0) + 1.0)
    align(raw, ANGLES, progress=lambda *call: calls.append(call))
    assert calls
    assert [call[0] for call in calls] == list(range(1, len(calls) + 1))
    assert all(0.0 < call[2] < 1.0 for call in calls)


def test_input_is_not_changed(rng: np.random.Generator) -> None:
    raw = particle_images(rng).astype(np.float32)
    kept = raw.copy()
    align(raw, ANGLES, match=False)
    np.testing.assert_array_equal(raw, kept)


@pytest.mark.parametrize("shape", [(31, 40), (32, 33)])
def test_shift_moves_content_towards_higher_indices(shape: tuple[int, int]) -> None:
    y, x = np.indices(shape)

    def spot(at: tuple[float, float]) -> np.ndarray:
        return np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / 8.0)

    np.testing.assert_allclose(shifted(spot((14, 15)), np.array([2.3, -3.6])), spot((16.3, 11.4)), atol=1e-6)


def test_shift_does_not_wrap_around() -> None:
    image = np.zeros((20, 20))
    image[:, 18:] = 1.0
    moved_out = shifted(image, np.array([0.0, 5.0]))
    np.testing.assert_allclose(moved_out, 0.0, atol=1e-12)


def test_noise_is_measured_through_structure(rng: np.random.Generator) -> None:
    clean = 20.0 * particle_images(rng)[:1]
    noisy = clean + rng.normal(0, 0.7, clean.shape)
    assert noise_variance(noisy).mean() == pytest.approx(0.49, rel=0.1)


def test_mask_covers_the_particle_and_leaves_a_rim(rng: np.random.Generator) -> None:
    y, x = np.indices((N, N)) - N // 2
    disc = 5.0 * (np.hypot(y - 4, x + 6) < 15)
    mask = particle_mask(rng.poisson(disc + 1.0))
    assert mask[disc > 0].all()
    assert not mask[np.hypot(y - 4, x + 6) > 24].any()


def test_settled_keeps_signal_and_drops_noise(rng: np.random.Generator) -> None:
    error, one = np.full(50, 0.5), np.ones((50, 1))
    noise = 0.5 * rng.normal(size=50)
    np.testing.assert_array_equal(settled(Measured(noise, error), one), 0.0)
    constant = settled(Measured(3.0 + noise, error), one)
    np.testing.assert_allclose(constant, 3.0 + noise.mean())
    true = 5.0 * rng.normal(size=50)
    np.testing.assert_allclose(settled(Measured(true + noise, error), one), true + noise, atol=0.2)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((3, 32, 32)), "angles_deg has 24 rows"),
        (np.full((TILTS, 32, 32), np.inf), "not finite"),
        ([[0.0]], "expected a numpy array"),
    ],
)
def test_bad_arguments_are_named(images: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        align(images, ANGLES)  # type: ignore[arg-type]


@pytest.mark.parametrize("dose", ["1p6e4", "1p6e5"])
def test_published_counts_need_no_shift(shared: Path, dose: str) -> None:
    from scipy.io import loadmat

    folder = shared / "si208"
    counts = loadmat(folder / f"aSi_2nmFosCetr_Dose{dose}_cov35pm_ForBM3D.mat")["Trunc_projections_forBM3D"]
    angles = loadmat(folder / "Si_Angle.mat")["Angle"]
    found = align(counts.transpose(2, 1, 0), angles)
    assert np.sqrt((found.shifts_px**2).mean()) < 0.1
