"""Maxima of a volume: where they are, how near each other, and how much is smoothed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.trace import (
    RESOLVED,
    _newton_step,
    automatic_blur,
    find_particle,
    fit_maxima,
    otsu,
    suppress,
    trace,
)


def gaussians(shape, positions_A, heights, voxel_A, width_A):
    """Sum of isotropic Gaussians, volume (z, y, x) with index n//2 at coordinate 0; positions (x, y, z)."""
    z, y, x = (voxel_A * (np.arange(n) - n // 2) for n in shape)
    volume = np.zeros(shape)
    for (px, py, pz), height in zip(positions_A, heights, strict=True):
        one = [np.exp(-((axis - p) ** 2) / 2 / width_A**2) for axis, p in ((z, pz), (y, py), (x, px))]
        volume += height * np.einsum("i,j,k->ijk", *one)
    return volume


@pytest.mark.parametrize("shape", [(30, 34, 41), (31, 28, 40)])
def test_two_atoms_are_found_within_a_hundredth_of_a_voxel(shape):
    voxel = 0.3
    truth = np.array([[1.234, -0.777, 0.555], [-1.111, 0.888, -0.999]])
    volume = gaussians(shape, truth, [2.0, 1.0], voxel, 1.5 * voxel)
    peaks = trace(volume, voxel, min_distance_A=1.5, blur_A=0.0)
    assert len(peaks) == 2
    assert np.abs(peaks.positions_A - truth).max() < 0.01 * voxel
    assert peaks.height == pytest.approx([2.0, 1.0], rel=0.01)


def test_axes_are_x_y_z_about_the_centre_index():
    volume = np.zeros((12, 14, 16))
    volume[8, 5, 10] = 1.0
    peaks = trace(volume, 0.5, min_distance_A=1.0, blur_A=0.5)
    assert peaks.positions_A == pytest.approx(np.array([[1.0, -1.0, 1.0]]), abs=1e-3)


def test_the_fit_reads_slope_and_curvature_off_a_cubic_exactly():
    """A spline reproduces cubics and the quartic holds them: the Newton step must be the analytic one."""
    z, y, x = np.meshgrid(*[np.arange(15) - 7.0] * 3, indexing="ij")
    volume = 5 + 0.06 * z - 0.04 * y + 0.02 * x - 0.5 * z**2 - 0.3 * y**2 - 0.4 * x**2 + 0.2 * x * y + 0.01 * x * y * z
    from scipy import ndimage

    spline = ndimage.spline_filter(volume, 3, mode="mirror")
    step, height = _newton_step(spline, np.full((1, 3), 7.0))
    hessian = np.array([[-1.0, 0, 0], [0, -0.6, 0.2], [0, 0.2, -0.8]])
    # the mirrored edge, seven voxels away, still reaches the centre by the decay 0.27 per voxel of the spline filter
    assert step[0] == pytest.approx(np.linalg.solve(-hessian, [0.06, -0.04, 0.02]), abs=2e-3)
    assert height[0] == pytest.approx(5.0, abs=2e-3)


def test_atoms_near_the_faces_are_found(rng):
    truth = np.array([[-3.1, 0.2, 0.1], [3.3, -0.4, 0.3], [0.0, 2.8, -3.1]])
    volume = gaussians((20, 20, 20), truth, [1.0, 1.0, 1.0], 0.4, 0.5)
    found = trace(volume, 0.4, min_distance_A=2.0, blur_A=0.0).positions_A
    distance = np.linalg.norm(found[:, None] - truth, axis=2).min(axis=0)
    assert distance[[0, 2]].max() < 0.03
    assert distance[1] < 0.1  # less than a voxel from the face: half of the fitted sphere is mirrored


@pytest.mark.parametrize("distance_A", [0.9, 1.7])
def test_minimum_distance_is_honoured_and_strength_decides(rng, distance_A):
    peaks = trace(rng.normal(size=(24, 24, 24)), 0.3, min_distance_A=distance_A, blur_A=0.2)
    gap = np.linalg.norm(peaks.positions_A[:, None] - peaks.positions_A, axis=2)
    assert gap[np.triu_indices(len(peaks), 1)].min() >= distance_A
    assert (np.diff(peaks.height) <= 0).all()
    assert len(peaks) > 20


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.floats(0.05, 0.6))
def test_suppression_equals_the_greedy_definition(seed, count, distance):
    rng = np.random.default_rng(seed)
    points, height = rng.random((count, 3)), rng.random(count)
    kept: list[int] = []
    for i in np.argsort(-height):
        if all(np.linalg.norm(points[i] - points[j]) >= distance for j in kept):
            kept.append(int(i))
    assert list(suppress(points, height, distance)) == kept


@pytest.mark.parametrize("width_A", [0.3, 0.5])
def test_automatic_blur_makes_the_atoms_as_wide_as_they_may_be(rng, width_A):
    truth = rng.uniform(-2.0, 2.0, (6, 3)) + np.array([[dx, dy, 0] for dx in (-4, 0, 4) for dy in (-3, 3)])
    volume = gaussians((40, 60, 72), truth, np.ones(6), 0.2, width_A)
    blur = automatic_blur(volume, 0.2, 1.8, np.ones(volume.shape, bool))
    assert blur == pytest.approx(np.sqrt((1.8 / RESOLVED) ** 2 - width_A**2), abs=0.04)


def test_a_volume_that_is_broad_already_is_not_smoothed():
    volume = gaussians((30, 30, 30), [[0, 0, 0]], [1.0], 0.3, 0.8)
    assert automatic_blur(volume, 0.3, 1.5, np.ones(volume.shape, bool)) == 0.0


def test_smoothing_by_the_automatic_rule_beats_none_in_noise(rng):
    truth = np.array([[x, y, z] for x in (-3.1, 0.05, 3.2) for y in (-3.15, 0.1, 3.0) for z in (-3.0, 0.15, 3.1)])
    volume = gaussians((50, 50, 50), truth, np.ones(27), 0.2, 0.4) + 0.35 * rng.normal(size=(50, 50, 50))
    rms = {}
    for blur in (0.05, "auto"):
        found = trace(volume, 0.2, min_distance_A=2.0, blur_A=blur).positions_A[:27]
        rms[blur] = np.sqrt((np.linalg.norm(found[:, None] - truth, axis=2).min(axis=0) ** 2).mean())
    assert rms["auto"] < 0.08
    assert rms["auto"] < 0.5 * rms[0.05]


def test_a_faint_neighbour_lost_in_the_smoothing_is_found_by_the_finer_search():
    """At a sixth of the height and 2 Å away it is a shoulder at total width 0.67 Å, a maximum at 0.56 Å."""
    truth = np.array([[-1.0, 0.05, 0.0], [1.0, 0.0, 0.1]])
    volume = gaussians((40, 40, 48), truth, [6.0, 1.0], 0.25, 0.42)
    broad = gaussians((40, 40, 48), truth, [6.0, 1.0], 0.25, np.hypot(0.42, 0.52))
    assert len(trace(broad, 0.25, min_distance_A=1.5, blur_A=0.0)) == 1
    peaks = trace(volume, 0.25, min_distance_A=1.5, blur_A=0.52)
    assert len(peaks) == 2
    assert np.linalg.norm(peaks.positions_A - truth, axis=1).max() < 0.15


def test_maxima_of_the_empty_part_are_marked_outside(rng):
    truth = np.array([[x, y, z] for x in (-1.5, 1.5) for y in (-1.5, 1.5) for z in (-1.5, 1.5)])
    volume = gaussians((48, 48, 48), truth, np.ones(8), 0.3, 0.45) + 0.03 * rng.normal(size=(48, 48, 48))
    peaks = trace(volume, 0.3, min_distance_A=1.5)
    away = np.linalg.norm(peaks.positions_A, axis=1)
    assert peaks.inside[:8].all() and (~peaks.inside).sum() > 30
    assert away[~peaks.inside].min() > away[:8].max() + 1.0
    assert away[peaks.inside].max() < 2.6 + 4.0
    inside = find_particle(volume, 0.3, 1.5)
    assert inside[24, 24, 24] and not inside[2, 2, 2]


def test_a_given_mask_is_used():
    volume = gaussians((20, 20, 40), [[-4.0, 0, 0], [4.0, 0, 0]], [1.0, 1.0], 0.4, 0.5)
    mask = np.zeros(volume.shape, bool)
    mask[:, :, 20:] = True
    peaks = trace(volume, 0.4, min_distance_A=2.0, blur_A=0.0, particle=mask)
    assert peaks.positions_A[peaks.inside][:, 0] == pytest.approx([4.0], abs=0.01)


def test_a_candidate_that_drifts_is_no_maximum():
    x = np.broadcast_to(np.arange(17.0), (17, 17, 17))
    slope = 1.0 + 0.1 * x
    _, _, good = fit_maxima(slope, np.array([[8, 8, 8]]))
    assert not good[0]


def test_otsu_separates_two_heaps(rng):
    values = np.concatenate([rng.normal(0, 0.1, 5000), rng.normal(3, 0.1, 500)])
    assert 0.4 < otsu(values) < 2.6


def test_float32_and_float64_agree():
    volume = gaussians((24, 24, 24), [[0.31, -0.22, 0.17]], [1.0], 0.3, 0.45)
    a = trace(volume, 0.3, min_distance_A=1.0, blur_A=0.2).positions_A
    b = trace(volume.astype(np.float32), 0.3, min_distance_A=1.0, blur_A=0.2).positions_A
    assert np.abs(a[0] - b[0]).max() < 1e-4


def test_progress_counts_up():
    seen = []
    volume = gaussians((20, 20, 20), [[0.3, 0, 0]], [1.0], 0.4, 0.5)
    trace(volume, 0.4, min_distance_A=1.0, progress=lambda *told: seen.append(told))
    assert [done for done, _, _ in seen] == list(range(1, len(seen) + 1)) and seen[-1][2] < 0.01


GOOD = gaussians((10, 10, 10), [[0, 0, 0]], [1.0], 0.4, 0.5)


@pytest.mark.parametrize(
    ("volume", "options", "says"),
    [
        (np.zeros((10, 10, 10)), {}, "empty"),
        (np.full((10, 10, 10), np.nan), {}, "nan"),
        (np.zeros((10, 10)), {}, r"\(z, y, x\)"),
        (GOOD, {"voxel_A": 0.0}, "voxel_A"),
        (GOOD, {"min_distance_A": -1.0}, "min_distance_A"),
        (GOOD, {"blur_A": "some"}, "blur_A"),
        (GOOD, {"blur_A": -0.1}, "blur_A"),
        (GOOD, {"particle": np.ones((3, 3, 3))}, "particle"),
        (-1 - GOOD, {"blur_A": 0.0}, "no positive maximum"),
    ],
)
def test_bad_arguments_are_named(volume, options, says):
    arguments = {"voxel_A": 0.4, "min_distance_A": 1.0, **options}
    with pytest.raises(ValueError, match=says):
        trace(volume, **arguments)
