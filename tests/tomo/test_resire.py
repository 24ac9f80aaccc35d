"""RESIRE: the loss falls, the volume comes back, and arguments are obeyed."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tomo import Projector, resire

N = 24
ANGLES = np.column_stack([np.zeros(30), np.arange(30) * 6.0, np.zeros(30)])


def blobs(n: int = N) -> np.ndarray:
    """Gaussian atoms of two weights at places without symmetry, (z, y, x)."""
    z, y, x = np.indices((n, n, n)) - n // 2
    atoms = [(1.0, -5, 2, 3), (1.0, 4, -3, -4), (0.6, 0, 5, 1), (0.6, 3, 1, 6), (1.0, -2, -6, 0)]
    return sum(w * np.exp(-((z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2) / 4.5) for w, a, b, c in atoms)


def as_numpy(array: object) -> np.ndarray:
    return array.get() if hasattr(array, "get") else np.asarray(array)


def test_reconstructs_a_phantom(xp: ModuleType) -> None:
    truth = xp.asarray(blobs(), np.float32)
    result = resire(Projector(ANGLES, (N, N), xp=xp)(truth), ANGLES, iterations=150)
    found, wanted = as_numpy(result.volume), as_numpy(truth)
    assert found.dtype == np.float32
    assert np.linalg.norm(found - wanted) < 0.05 * np.linalg.norm(wanted)
    assert result.r_factor[-1] < 0.01


def test_reconstructs_from_general_rotations(rng: np.random.Generator) -> None:
    angles = ANGLES + np.column_stack([rng.normal(0, 3, 30), np.zeros(30), rng.normal(0, 3, 30)])
    truth = blobs().astype(np.float32)
    result = resire(Projector(angles, (N, N))(truth), angles, iterations=100)
    assert np.linalg.norm(result.volume - truth) < 0.08 * np.linalg.norm(truth)


@pytest.mark.parametrize("step", [None, 1.9])
@pytest.mark.parametrize("positivity", [True, False])
def test_loss_never_rises(rng: np.random.Generator, step: float | None, positivity: bool) -> None:
    A = Projector(ANGLES, (N, N), dtype=np.float64)
    images = A(blobs()) + rng.normal(0, 0.3, A.range_shape)
    volume, losses = None, []
    for _ in range(12):
        volume = resire(images, ANGLES, iterations=1, step=step, positivity=positivity, initial=volume).volume
        losses.append(0.5 * float(((A(volume.astype(np.float64)) - images) ** 2).sum()))
    assert (np.diff(losses) < 1e-6 * losses[0]).all()
    assert losses[-1] < 0.5 * losses[0]


def test_first_step_is_the_scaled_back_projection() -> None:
    A = Projector(ANGLES, (N, N), dtype=np.float64)
    images = A(blobs())
    result = resire(images, ANGLES, iterations=1, step=0.5)
    assert result.step == pytest.approx(0.5 / A.norm())
    np.testing.assert_allclose(result.volume, result.step * A.T(images), rtol=1e-5, atol=1e-8)


def test_r_factor_is_that_of_the_volume_it_belongs_to(rng: np.random.Generator) -> None:
    A = Projector(ANGLES, (N, N))
    images = A(blobs().astype(np.float32)) + rng.normal(0, 0.2, A.range_shape).astype(np.float32)
    images[3] *= 2.0  # tilts of unlike brightness count alike
    result = resire(images, ANGLES, iterations=7)
    per_tilt = np.abs(A(result.volume) - images).sum(axis=(1, 2)) / np.abs(images).sum(axis=(1, 2))
    assert result.r_factor.shape == (7,)
    assert result.r_factor[-1] == pytest.approx(per_tilt.mean(), rel=1e-4)


def test_positivity_and_support_hold(rng: np.random.Generator) -> None:
    images = rng.normal(0, 1, (30, N, N)).astype(np.float32)
    support = np.zeros((N, N, N), bool)
    support[8:16, 8:16, 8:16] = True
    bounded = resire(images, ANGLES, iterations=3, support=support).volume
    assert bounded.min() == 0.0
    assert bounded.max() > 0.0
    assert not bounded[~support].any()
    assert resire(images, ANGLES, iterations=3, positivity=False).volume.min() < 0.0


def test_going_on_from_a_volume_is_going_on() -> None:
    images = Projector(ANGLES, (N, N))(blobs().astype(np.float32))
    half = resire(images, ANGLES, iterations=4).volume
    kept = half.copy()
    np.testing.assert_allclose(
        resire(images, ANGLES, iterations=4, initial=half).volume,
        resire(images, ANGLES, iterations=8).volume,
        atol=1e-5,
    )
    np.testing.assert_array_equal(half, kept)


def test_progress_is_told_and_may_stop() -> None:
    images = Projector(ANGLES, (N, N))(blobs().astype(np.float32))
    calls: list[tuple[int, int, float]] = []

    def watch(done: int, total: int, value: float) -> None:
        calls.append((done, total, value))
        if done == 3:
            raise StopIteration

    result = resire(images, ANGLES, iterations=9, progress=watch)
    assert [call[:2] for call in calls] == [(1, 9), (2, 9), (3, 9)]
    np.testing.assert_array_equal(result.r_factor, [call[2] for call in calls])
    np.testing.assert_array_equal(result.volume, resire(images, ANGLES, iterations=3).volume)


def test_depth_may_differ_from_the_width() -> None:
    assert resire(np.ones((30, 6, 8), np.float32), ANGLES, iterations=1, depth=5).volume.shape == (5, 6, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": 2.0}, "below 2"),
        ({"step": 0.0}, "above 0"),
        ({"step": 1.5, "momentum": True}, "at most 1"),
        ({"held_out": [30]}, "numbers of tilts from 0 to 29"),
        ({"held_out": np.ones(30, bool)}, "at least one tilt left"),
        ({"patience": 3}, "tilts to judge by"),
        ({"iterations": 0}, "iterations is 0"),
        ({"initial": np.zeros((3, 8, 8))}, r"initial has shape \(3, 8, 8\); expected \(8, 8, 8\)"),
        ({"support": np.zeros((3, 8, 8))}, r"support has shape"),
        ({"projections": np.zeros((4, 8, 8))}, r"shape \(4, 8, 8\) but angles_deg has 30 rows"),
        ({"projections": np.full((30, 8, 8), np.nan)}, "not finite"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    good: dict[str, object] = {"projections": np.zeros((30, 8, 8)), "angles_deg": ANGLES, "iterations": 1}
    with pytest.raises(ValueError, match=message):
        resire(**(good | arguments))  # type: ignore[arg-type]


def test_published_counts_show_the_true_atoms(shared: Path) -> None:
    from scipy.io import loadmat
    from scipy.ndimage import gaussian_filter, map_coordinates

    folder = shared / "si208"
    counts = loadmat(folder / "aSi_2nmFosCetr_Dose1p6e5_cov35pm_ForBM3D.mat")["Trunc_projections_forBM3D"]
    angles = loadmat(folder / "Si_Angle.mat")["Angle"].astype(float)
    result = resire(counts.transpose(2, 1, 0).astype(np.float32) - 1, angles, iterations=15)
    first, second, third = np.loadtxt(folder / "aSi_208atoms_GT.txt", skiprows=2, usecols=(1, 2, 3)).T
    # In these files the tilt axis is the first column, and the beam meets the specimen from the other side.
    atoms = np.array([-(third - third.mean()), first - first.mean(), second - second.mean()]) / 0.195 + 64
    volume = gaussian_filter(result.volume, 1.0)
    at_atoms = map_coordinates(volume, atoms, order=1)
    assert at_atoms.min() > np.percentile(volume, 90)
    assert at_atoms.mean() > 3.0 * volume[32:96, 32:96, 32:96].mean()


def test_momentum_needs_fewer_than_half_the_iterations() -> None:
    images = Projector(ANGLES, (N, N))(blobs().astype(np.float32))
    plain = resire(images, ANGLES, iterations=100).r_factor[-1]
    fast = resire(images, ANGLES, iterations=100, momentum=True).r_factor
    assert (fast < plain).argmax() < 50


def test_momentum_ends_where_plain_steps_end() -> None:
    truth = blobs().astype(np.float64)
    images = Projector(ANGLES, (N, N), dtype=np.float64)(truth)
    found = resire(images, ANGLES, iterations=120, momentum=True)
    assert np.linalg.norm(found.volume - truth) < 0.02 * np.linalg.norm(truth)
    assert found.r_factor[-1] < 1e-3


@pytest.mark.parametrize("momentum", [False, True])
def test_held_out_tilts_are_judged_but_not_fitted(rng: np.random.Generator, momentum: bool) -> None:
    A = Projector(ANGLES, (N, N))
    images = A(blobs().astype(np.float32)) + rng.normal(0, 0.5, A.range_shape).astype(np.float32)
    out = np.arange(0, 30, 10)
    result = resire(images, ANGLES, iterations=60, held_out=out, momentum=momentum)
    other = images.copy()
    other[out] += 7.0
    np.testing.assert_array_equal(
        result.volume, resire(other, ANGLES, iterations=60, held_out=result.held_out, momentum=momentum).volume
    )
    per_tilt = np.abs(A(result.volume) - images).sum(axis=(1, 2)) / np.abs(images).sum(axis=(1, 2))
    np.testing.assert_allclose(result.tilt_r, per_tilt, rtol=1e-4)
    assert result.r_free is not None
    assert result.r_free[-1] == pytest.approx(per_tilt[out].mean(), rel=1e-4)
    assert result.r_free.argmin() < 59 < 60 == len(result.r_factor)


def test_patience_ends_the_run_when_noise_is_being_fitted(rng: np.random.Generator) -> None:
    A = Projector(ANGLES, (N, N))
    images = A(blobs().astype(np.float32)) + rng.normal(0, 1.0, A.range_shape).astype(np.float32)
    result = resire(images, ANGLES, iterations=500, held_out=[3, 13, 23], patience=4, momentum=True)
    assert result.r_free is not None
    assert len(result.r_free) - 1 - result.r_free.argmin() == 4 < len(result.r_free) < 500


@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("psi", [0.0, 2.0])
def test_slab_by_slab_gives_the_same_volume(xp: ModuleType, momentum: bool, psi: float) -> None:
    angles = ANGLES + np.array([0.0, 0.0, psi])
    images = Projector(angles, (N, N), xp=xp, dtype=np.float64)(xp.asarray(blobs()))
    whole = resire(images, angles, iterations=9, momentum=momentum, step=0.5)
    plane = 5 * N * N * 8
    parts = resire(images, angles, iterations=9, momentum=momentum, memory_bytes=7 * plane, step=0.5)
    assert parts.step == pytest.approx(whole.step)
    np.testing.assert_allclose(as_numpy(parts.volume), as_numpy(whole.volume), atol=1e-6)
    np.testing.assert_allclose(parts.r_factor, whole.r_factor, rtol=1e-6)
    with pytest.raises(ValueError, match="a single plane of this volume needs"):
        resire(images, angles, iterations=1, memory_bytes=plane - 1)


@pytest.mark.parametrize("momentum", [False, True])
def test_a_resumed_run_ends_as_if_it_had_never_stopped(momentum: bool) -> None:
    images = Projector(ANGLES, (N, N))(blobs().astype(np.float32))
    given = {"iterations": 12, "momentum": momentum, "held_out": [4, 20]}
    kept: list[dict[str, np.ndarray]] = []
    whole = resire(images, ANGLES, watch=lambda now: kept.append(now.checkpoint()), **given)
    again = resire(images, ANGLES, resume=kept[4], **given)
    np.testing.assert_array_equal(again.volume, whole.volume)
    np.testing.assert_array_equal(again.r_factor, whole.r_factor)
    np.testing.assert_array_equal(again.r_free, whole.r_free)
    with pytest.raises(ValueError, match="belongs to other data"):
        resire(images[:, :-1], ANGLES, resume=kept[4], **given)


def test_shifts_and_scales_are_those_of_the_images() -> None:
    truth = blobs().astype(np.float32)
    rng = np.random.default_rng(1)
    given = {"shifts_px": rng.normal(0, 1.5, (30, 2)), "scales": rng.uniform(0.5, 2.0, 30)}
    images = Projector(ANGLES, (N, N), **given)(truth)
    found = resire(images, ANGLES, iterations=60, momentum=True, **given).volume
    assert np.linalg.norm(found - truth) < 0.05 * np.linalg.norm(truth)
    blind = resire(images, ANGLES, iterations=60, momentum=True).volume
    assert np.linalg.norm(blind - truth) > 0.5 * np.linalg.norm(truth)
