"""Self-calibration: known errors of every kind come back, what no image can tell stays as given."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from tomo import calibrate, rotation
from tomo.calibrate.levels import coarsened
from tomo.calibrate.points import Points, _model, adjust, peaks
from tomo.calibrate.search import sought
from tomo.calibrate.tilts import Tilts, common_turn, in_gauge, turns_between
from tomo.geometry import nearest_angles

N, TILTS, SIGMA_PX, APART_PX = 96, 31, 1.5, 6.0
THETA = np.linspace(-70, 70, TILTS)
TRUE = np.column_stack([np.zeros(TILTS), THETA, np.zeros(TILTS)])


def particle(rng: np.random.Generator, radius: float = 26.0) -> np.ndarray:
    """Places (m, 3) in a ball, none nearer to another than APART_PX."""
    kept: list[np.ndarray] = []
    for at in rng.uniform(-radius, radius, (6000, 3)):
        if np.linalg.norm(at) < radius and all(np.linalg.norm(at - other) > APART_PX for other in kept):
            kept.append(at)
    return np.array(kept)


def images_of(
    places: np.ndarray, tilts: Tilts, rng: np.random.Generator | None = None, peak: float = 60.0
) -> np.ndarray:
    """Images (n, y, x) of equal points, with Poisson noise if `rng` is given."""
    amplitude = np.full(len(places), peak * 2 * np.pi * SIGMA_PX**2)
    model = _model(tilts, Points(places, amplitude, SIGMA_PX), (N, N), 1)[1]
    counts = tilts.scales[:, None, None] * model + tilts.backgrounds[:, None, None]
    return (counts if rng is None else rng.poisson(counts)).astype(np.float32)


def errors_deg(angles_deg: np.ndarray) -> np.ndarray:
    """Angles (n,) in degrees between found and true turns, up to a common one."""
    return np.linalg.norm(turns_between(rotation(angles_deg), rotation(TRUE)), axis=1)


@pytest.fixture(scope="module")
def wrong() -> tuple[np.ndarray, Tilts, np.ndarray]:
    """Noisy images, the tilts they were made at, and wrong angles to start from (0.6° rms and one off by 3°)."""
    rng = np.random.default_rng(3)
    turns = Tilts.at(TRUE)
    true = Tilts(
        turns.rotations, rng.uniform(-2, 2, (TILTS, 2)), rng.uniform(0.9, 1.1, TILTS), rng.uniform(2.0, 20.0, TILTS)
    )
    start = TRUE + rng.normal(0, 0.35, TRUE.shape)
    start[20, 1] += 3.0
    return images_of(particle(rng), true, rng), true, start


def test_errors_of_every_kind_come_back(wrong: tuple[np.ndarray, Tilts, np.ndarray], xp: ModuleType) -> None:
    images, true, start = wrong
    found = calibrate(xp.asarray(images), start, min_distance_px=APART_PX)
    assert found.converged and not found.strays
    assert errors_deg(start).max() > 2.5
    assert np.sqrt((errors_deg(found.angles_deg) ** 2).mean()) < 0.15
    assert errors_deg(found.angles_deg).max() < 0.4
    rotations = rotation(found.angles_deg)
    rest = found.shifts_px[:, ::-1] - true.shifts_px
    rest -= rotations[:, :2] @ np.linalg.lstsq(rotations[:, :2].reshape(-1, 3), rest.ravel(), rcond=None)[0]
    assert np.sqrt((rest**2).mean()) < 0.05
    np.testing.assert_allclose(found.scales, true.scales / true.scales.mean(), rtol=0.02)
    np.testing.assert_allclose(found.backgrounds, true.backgrounds, atol=1.0)
    assert 0.8 < np.median(found.chi2) < 1.6
    turns = turns_between(rotations, rotation(TRUE))
    for error, stated in (
        (turns, found.angle_sigma_deg),
        (rest, found.shift_sigma_px),
        (found.scales * true.scales.mean() / true.scales - 1, found.scale_sigma),
        (found.backgrounds - true.backgrounds, found.background_sigma),
    ):
        assert 0.5 < np.sqrt((error**2).mean() / (stated**2).mean()) < 1.7


def test_what_is_not_to_be_refined_stays(wrong: tuple[np.ndarray, Tilts, np.ndarray]) -> None:
    images, _, start = wrong
    found = calibrate(images, start, min_distance_px=APART_PX, angles=False, volumes=2)
    np.testing.assert_allclose(found.angles_deg, start, atol=1e-6)
    assert np.abs(found.shifts_px).max() > 1.0
    assert not found.angle_sigma_deg.any()
    held = calibrate(images, start, min_distance_px=APART_PX, shifts=False, scales=False, backgrounds=False, volumes=2)
    assert not held.shifts_px.any()
    np.testing.assert_allclose(held.scales, 1.0)
    assert not held.backgrounds.any() and not held.background_sigma.any() and not held.scale_sigma.any()


def test_an_image_of_something_else_is_named(wrong: tuple[np.ndarray, Tilts, np.ndarray]) -> None:
    images, _, _ = wrong
    images = images.copy()
    images[7] = images[7][::-1]
    found = calibrate(images, TRUE, min_distance_px=APART_PX, volumes=4)
    assert found.strays == (7,)


def test_it_says_when_the_start_was_too_far_off(wrong: tuple[np.ndarray, Tilts, np.ndarray]) -> None:
    images, _, _ = wrong
    start = TRUE + np.random.default_rng(1).normal(0, 12.0, TRUE.shape)
    found = calibrate(images, start, min_distance_px=APART_PX, volumes=3)
    assert not found.converged or found.strays
    assert np.isfinite(found.angles_deg).all()


def test_a_step_lowers_the_misfit_and_its_errors_are_those_stated() -> None:
    rng = np.random.default_rng(5)
    places, turns = particle(rng), Tilts.at(TRUE)
    points = Points(places, np.full(len(places), 60.0 * 2 * np.pi * SIGMA_PX**2), SIGMA_PX)
    images = images_of(places, Tilts(turns.rotations, turns.shifts_px, turns.scales, np.full(TILTS, 4.0)), rng)
    weights = 1 / np.maximum(images_of(places, turns) + 4.0, 1.0)
    off = turns.turned(rng.normal(0, 2e-3, (TILTS, 3)), rng.normal(0, 0.1, (TILTS, 2)))
    done = adjust(
        images, weights, off, points, rounds=25, tolerance_rad=0, free=np.ones(7, bool), threads=1
    )  # fmt: skip
    assert done.chi2.mean() == pytest.approx(1.0, abs=0.05)
    turned = np.radians(turns_between(done.tilts.rotations, turns.rotations))
    assert 0.5 < np.sqrt(((turned / done.turn_sigma_rad) ** 2).mean()) < 2.0


def test_peaks_are_the_atoms() -> None:
    line = np.arange(24) - 12
    at = np.array([(3.3, -2.2, 0.4), (-4.0, 3.0, 5.0)])  # (x, y, z)
    z, y, x = np.meshgrid(line, line, line, indexing="ij")
    volume = sum(np.exp(-((x - p[0]) ** 2 + (y - p[1]) ** 2 + (z - p[2]) ** 2) / 4.5) for p in at)
    found = peaks(volume, 1.0)
    assert len(found.amplitudes) == 2
    order = np.argsort(-found.places_px[:, 0])
    np.testing.assert_allclose(found.places_px[order], at, atol=0.06)


def test_a_stray_tilt_is_found_again() -> None:
    places, true = particle(np.random.default_rng(2)), Tilts.at(TRUE[12:13])
    points = Points(places, np.ones(len(places)), SIGMA_PX)
    image = images_of(places, Tilts(true.rotations, np.array([[3.0, -2.0]]), true.scales, true.backgrounds))[0]
    lost = true.turned(np.radians([[0.6, -3.4, 1.2]]), np.zeros((1, 2)))
    found = sought(image, lost, points, np.ones(7, bool))
    left = np.degrees(np.arccos((np.trace(found.rotations[0] @ true.rotations[0].T) - 1) / 2))
    assert left < 0.5
    np.testing.assert_allclose(found.shifts_px, [[3.0, -2.0]], atol=1.0)


def test_the_gauge_takes_out_what_no_image_tells() -> None:
    rng = np.random.default_rng(4)
    tilts = Tilts.at(TRUE).turned(rng.normal(0, 0.01, (TILTS, 3)), rng.normal(0, 1, (TILTS, 2)))
    turn = rotation([(4.0, -3.0, 7.0)])[0]
    moved = Tilts(tilts.rotations @ turn, tilts.shifts_px, 3 * tilts.scales, tilts.backgrounds)
    fixed, found, translation = in_gauge(moved, rotation(TRUE))
    np.testing.assert_allclose(common_turn(fixed.rotations, rotation(TRUE)), np.eye(3), atol=1e-9)
    np.testing.assert_allclose(fixed.scales, 1.0)
    places = rng.normal(0, 5, (7, 3))
    seen = fixed.seen((places + translation) @ found.T)
    np.testing.assert_allclose(seen[..., :2], moved.seen(places)[..., :2], atol=1e-9)


def test_angles_of_a_rotation_are_those_it_was_made_of() -> None:
    angles = np.array([(2.0, 75.0, -3.0), (-1.0, 91.0, 2.0), (1.0, 177.0, -2.0), (190.0, -10.0, 360.5)])
    np.testing.assert_allclose(nearest_angles(rotation(angles), angles + 1.5), angles, atol=1e-9)


@pytest.mark.parametrize("n", [127, 128, 129, 286, 288, 289])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_coarse_images_keep_their_centre(n: int, step: int) -> None:
    image = np.zeros((1, n, n), np.float32)
    image[0, n // 2, n // 2] = 1.0
    small = coarsened(image, step)[0]
    assert np.unravel_index(small.argmax(), small.shape) == (small.shape[0] // 2, small.shape[1] // 2)


def test_bad_arguments_are_named() -> None:
    images = np.zeros((TILTS, 16, 16), np.float32)
    with pytest.raises(ValueError, match="min_distance_px is 1; expected at least 3"):
        calibrate(images, TRUE, min_distance_px=1)
    with pytest.raises(ValueError, match="not finite"):
        calibrate(images * np.nan, TRUE, min_distance_px=5)
    with pytest.raises(ValueError, match="shows 0 separate peaks"):
        calibrate(images, TRUE, min_distance_px=5)
