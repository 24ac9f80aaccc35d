"""Agreement of halves: known noise, known resolutions, directions, the mask; and the mismatch that was not fitted."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from tomo import Projector, quality, resire, rotation, strays, tilt_r
from tomo.fsc import THRESHOLD, particle_mask, resolution_of, shell_correlation
from tomo.quality import halves

N = 48


def radius() -> np.ndarray:
    """|k| in cycles per voxel (N, N, N)."""
    k = np.fft.fftfreq(N)
    return np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)


def kept(volume: np.ndarray, which: np.ndarray) -> np.ndarray:
    return np.fft.ifftn(np.fft.fftn(volume) * which).real.astype(np.float32)


def ball(side: float = 0.3) -> np.ndarray:
    line = np.arange(N) - N // 2
    return line[:, None, None] ** 2 + line[:, None] ** 2 + line**2 < (side * N) ** 2


def test_a_volume_agrees_with_itself(xp: ModuleType, rng: np.random.Generator) -> None:
    volume = xp.asarray(rng.normal(size=(N, N, N)), np.float32)
    found = shell_correlation(volume, volume)
    for curve in found.fsc.values():
        np.testing.assert_allclose(curve[~np.isnan(curve)], 1.0, atol=1e-6)
    reached = resolution_of(found.frequency, found.fsc["all"])
    assert reached.voxels == 2.0
    assert "never falls below 0.143" in reached.note


def test_independent_noise_does_not_agree(xp: ModuleType, rng: np.random.Generator) -> None:
    first, second = (xp.asarray(rng.normal(size=(N, N, N)), np.float32) for _ in range(2))
    found = shell_correlation(first, second)
    # Three standard deviations; half of a shell's frequencies repeat the other half only where x has the frequency 0.
    assert (np.abs(found.fsc["all"]) < 3 / np.sqrt(found.points)).mean() > 0.95
    assert np.abs(found.fsc["all"]).max() < 5 / np.sqrt(found.points.min())
    # The first shells hold too few frequencies to say nothing by chance.
    assert not resolution_of(found.frequency, found.fsc["all"]).voxels < N / 5


@pytest.mark.parametrize("cut", [0.15, 0.25, 0.4])
def test_a_signal_that_ends_gives_the_resolution_at_which_it_ends(rng: np.random.Generator, cut: float) -> None:
    signal = kept(rng.normal(size=(N, N, N)), radius() <= cut)
    halves_ = [(signal + 0.05 * rng.normal(size=signal.shape)).astype(np.float32) for _ in range(2)]
    found = shell_correlation(*halves_)
    # A shell is 1/N wide.
    assert 1 / resolution_of(found.frequency, found.fsc["all"]).voxels == pytest.approx(cut, abs=1.5 / N)


def test_the_curve_is_that_of_signal_and_noise(rng: np.random.Generator) -> None:
    signal, sigma = rng.normal(size=(N, N, N)), 0.7
    first, second = ((signal + sigma * rng.normal(size=signal.shape)).astype(np.float32) for _ in range(2))
    found = shell_correlation(first, second)
    np.testing.assert_allclose(found.fsc["all"][5:], 1 / (1 + sigma**2), atol=0.06)


def test_a_wedge_without_signal_shows_along_its_axis_alone(rng: np.random.Generator) -> None:
    k = np.fft.fftfreq(N)
    near_z = np.abs(k)[:, None, None] > np.cos(np.deg2rad(35)) * radius()
    signal = kept(rng.normal(size=(N, N, N)), ~near_z | (radius() < 0.1))
    pair = [(signal + 0.2 * rng.normal(size=signal.shape)).astype(np.float32) for _ in range(2)]
    found = shell_correlation(*pair)
    voxels = {part: resolution_of(found.frequency, found.fsc[part]).voxels for part in found.fsc}
    assert voxels["x"] == voxels["y"] == 2.0
    assert voxels["z"] == pytest.approx(10, abs=2)


def test_what_a_mask_correlates_by_itself_is_taken_off(rng: np.random.Generator) -> None:
    # The halves share what is slower than 0.1 per voxel; the edges of the mask carry that to every frequency.
    shared = 8.0 * kept(rng.normal(size=(N, N, N)), radius() < 0.1) / 0.06
    blocks = np.kron(rng.random((N // 6,) * 3) < 0.5, np.ones((6, 6, 6)))
    mask = (blocks * ball(0.45)).astype(np.float32)
    pair = [(shared + 5 * rng.normal(size=mask.shape)).astype(np.float32) for _ in range(2)]
    raw, found = shell_correlation(*pair, mask=mask), shell_correlation(*pair, mask=mask, rng=rng)
    fast = found.frequency > 0.3
    assert not raw.random.any()
    np.testing.assert_array_equal(raw.fsc["all"], found.masked)
    assert found.masked[fast].mean() > 0.25
    assert abs(found.fsc["all"][fast].mean()) < 0.05


def test_the_correction_begins_behind_the_last_ring_of_the_signal(rng: np.random.Generator) -> None:
    mask, signal = ball(0.4).astype(np.float32), rng.normal(size=(N, N, N))
    rings = kept(signal, (radius() < 0.08) | (abs(radius() - 0.25) < 0.05))
    pair = [(rings + 0.35 * rng.normal(size=mask.shape)).astype(np.float32) for _ in range(2)]
    found = shell_correlation(*pair, mask=mask, rng=rng)
    assert found.masked[np.abs(found.frequency - 0.14).argmin()] < 0.8
    assert not found.random[found.frequency < 0.28].any()
    assert found.random[found.frequency > 0.35].any()


def test_resolution_needs_more_than_one_shell_below() -> None:
    q = np.arange(1, 11) / 20
    curve = np.array([1, 1, 0.0, 0.9, 0.8, 0.5, 0.243, 0.043, 0.0, 0.0])
    assert resolution_of(q, curve).voxels == pytest.approx(1 / np.interp(-THRESHOLD, [-0.243, -0.043], q[6:8]))
    low = resolution_of(q, np.full(10, 0.1))
    assert np.isnan(low.voxels)
    assert "not reached" in low.note
    assert np.isnan(resolution_of(q, np.full(10, np.nan)).voxels)


def test_a_mask_holds_the_particle_and_its_diameter(xp: ModuleType, rng: np.random.Generator) -> None:
    noisy = 3.0 * ball() + np.abs(rng.normal(size=(N, N, N)))
    mask, diameter = particle_mask(xp.asarray(noisy, np.float32))
    mask = mask.get() if hasattr(mask, "get") else mask
    assert mask[ball(0.28)].min() > 0.95
    assert mask[~ball(0.45)].max() == 0.0
    assert diameter == pytest.approx(0.6 * N, rel=0.05)
    with pytest.raises(ValueError, match="one value only"):
        particle_mask(np.ones((8, 8, 8), np.float32))


ANGLES = np.column_stack([np.zeros(24), np.arange(24) * 6.0 - 69.0, np.zeros(24)])


@pytest.fixture(scope="module")
def series() -> np.ndarray:
    """Noisy projections (24, N, N) of atoms in a ball."""
    rng = np.random.default_rng(4)
    line = np.arange(N) - N // 2
    volume = np.zeros((N, N, N), np.float32)
    for z, y, x in rng.uniform(-12, 12, (60, 3)):
        a, b, c = (np.exp(-((line - at) ** 2) / 4.0) for at in (z, y, x))
        volume += (a[:, None, None] * b[:, None] * c).astype(np.float32)
    images = Projector(ANGLES, (N, N))(volume)
    return images + rng.normal(0, 0.5, images.shape).astype(np.float32)


def test_halves_are_every_second_plane() -> None:
    shuffled = np.random.default_rng(0).permutation(24)
    half = halves(ANGLES[shuffled])
    np.testing.assert_array_equal(half[np.argsort(shuffled)] % 2, np.arange(24) % 2)


def test_a_judged_volume(series: np.ndarray) -> None:
    whole = resire(series, ANGLES, iterations=40)
    asked: list[np.ndarray] = []

    def reconstruct(tilts: np.ndarray) -> np.ndarray:
        asked.append(tilts)
        return resire(series[tilts], ANGLES[tilts], iterations=40).volume

    found = quality(series, ANGLES, whole.volume, reconstruct, rng=np.random.default_rng(0))
    assert [len(tilts) for tilts in asked] == [12, 12]
    assert sorted(np.concatenate(asked)) == list(range(24))
    # The half that a tilt was not in, and not the one that it was in, predicts it.
    other = resire(series[asked[1]], ANGLES[asked[1]], iterations=40).volume
    np.testing.assert_allclose(found.unseen_r[asked[0]], tilt_r(series[asked[0]], ANGLES[asked[0]], other), rtol=1e-5)
    assert (found.unseen_r > whole.tilt_r).all()
    assert found.wedge.opening_deg == pytest.approx(42.0)
    assert all(2.0 < found.resolution[part].voxels < 6.0 for part in ("all", "x", "y"))
    # The wedge lies about z: whatever the halves hold there alike, no tilt measured it.
    assert not found.resolution["z"].voxels < found.resolution["x"].voxels
    assert found.crowther == pytest.approx(np.pi * found.diameter / 24)


def test_mismatch_of_each_tilt(xp: ModuleType, series: np.ndarray) -> None:
    volume = resire(series, ANGLES, iterations=5).volume
    expected = np.abs(Projector(ANGLES, (N, N))(volume) - series).sum(axis=(1, 2)) / np.abs(series).sum(axis=(1, 2))
    given = xp.asarray(series), ANGLES, xp.asarray(volume)
    np.testing.assert_allclose(tilt_r(*given), expected, rtol=1e-5)
    np.testing.assert_allclose(tilt_r(*given, memory_bytes=5 * 4 * N * N * 9), expected, rtol=1e-5)


def test_tilts_that_stand_out_are_named_worst_first() -> None:
    r = 0.2 + 0.01 * np.random.default_rng(0).normal(size=30)
    assert not len(strays(r))
    r[[4, 17]] = 0.4, 0.5
    r[2] = np.nan
    assert strays(r).tolist() == [17, 4]
    assert not len(strays(np.append(np.full(20, 0.2), 0.22)))  # stands out of nothing but is hardly worse


def test_bad_arguments_are_named() -> None:
    cube = np.ones((8, 8, 8), np.float32)
    with pytest.raises(ValueError, match=r"expected one shape \(z, y, x\)"):
        shell_correlation(cube, cube[1:])
    with pytest.raises(ValueError, match="the mask is empty"):
        shell_correlation(cube, cube, mask=0 * cube)
    with pytest.raises(ValueError, match="at least two tilts"):
        halves(ANGLES[:1])


def test_what_no_tilt_measured_does_not_agree(rng: np.random.Generator) -> None:
    volume = rng.normal(size=(48, 48, 48))
    angles = np.column_stack([np.zeros(41), np.linspace(-60, 60, 41), np.zeros(41)])
    beams = rotation(angles)[:, 2]
    found = shell_correlation(volume, volume, beams=beams)
    assert np.nanmax(found.fsc["z"][8:]) < 0.2
    assert np.nanmin(found.fsc["x"][4:]) > 0.99
    # 120 of 180 degrees were measured, and half a gap at either rim.
    assert np.mean(found.fsc["all"][8:]) == pytest.approx(126 / 180, abs=0.03)
    everything = shell_correlation(volume, volume)
    assert np.nanmin(everything.fsc["z"]) > 0.999


def test_mere_background_is_not_judged(rng: np.random.Generator) -> None:
    angles = np.column_stack([np.zeros(20), np.linspace(-70, 70, 20), np.zeros(20)])
    noise = rng.poisson(20, (20, N, N)).astype(np.float32)

    def reconstruct(tilts: np.ndarray) -> np.ndarray:
        return resire(noise[tilts], angles[tilts], iterations=20).volume

    found = quality(noise, angles, reconstruct(np.arange(20)), reconstruct, rng=np.random.default_rng(0))
    assert all(np.isnan(one.voxels) and "no particle stands out" in one.note for one in found.resolution.values())


def test_no_tilt_stands_out_of_a_perfect_series() -> None:
    assert not len(strays(np.array([0.001, 0.002, 0.001, 0.001, 0.004, 0.001])))
    assert not len(strays(np.full(5, np.nan)))
