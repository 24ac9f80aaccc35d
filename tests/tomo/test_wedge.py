"""What a series does not see: wedges of known opening, whichever axis and convention they are given in."""

from __future__ import annotations

import numpy as np
import pytest

from tomo.wedge import crowther, sequence, unseen_share, wedge


def about(axis: int, theta_deg: np.ndarray) -> np.ndarray:
    """Angles (n, 3) of tilts about y (1) or x (2)."""
    angles = np.zeros((len(theta_deg), 3))
    angles[:, axis] = theta_deg
    return angles


WEDGED = np.arange(-72.0, 73.0, 6.0)
FULL = np.arange(-90.0, 90.0, 6.0)


def test_tilts_to_72_degrees_miss_a_wedge_of_36_degrees_about_z() -> None:
    found = wedge(about(1, WEDGED))
    assert found.opening_deg == pytest.approx(36.0)
    assert found.share == pytest.approx(0.2, abs=0.002)
    assert found.direction is not None
    np.testing.assert_allclose(np.abs(found.direction), [0, 0, 1], atol=1e-9)
    np.testing.assert_allclose(np.abs(found.axis), [0, 1, 0], atol=1e-9)


@pytest.mark.parametrize("theta_deg", [FULL, np.append(FULL, 90.0), np.arange(0.0, 180.0, 9.0)])
def test_a_full_series_misses_nothing(theta_deg: np.ndarray) -> None:
    found = wedge(about(1, theta_deg))
    assert found.opening_deg == 0.0
    assert found.direction is None
    assert found.share == 0.0


def test_the_wedge_turns_with_the_specimen() -> None:
    # Tilts about x from −50° to +30° have beams about z tilted by −10° in the plane of y and z; their wedge is 100° wide.
    found = wedge(about(2, np.arange(-50.0, 31.0, 5.0)))
    assert found.opening_deg == pytest.approx(100.0)
    assert found.share == pytest.approx(100 / 180, abs=0.002)
    np.testing.assert_allclose(np.abs(found.axis), [1, 0, 0], atol=1e-9)
    assert found.direction is not None
    middle = np.deg2rad(-10.0)
    beam = np.array([0.0, np.sin(middle), np.cos(middle)])
    assert abs(found.direction @ beam) == pytest.approx(1.0)


def test_an_image_turned_in_its_plane_sees_the_same() -> None:
    angles = about(1, WEDGED)
    angles[:, 0] = 37.0
    np.testing.assert_allclose(wedge(angles).plane_deg, wedge(about(1, WEDGED)).plane_deg, atol=1e-7)


def test_a_gap_inside_the_series_is_a_wedge_too() -> None:
    theta = np.concatenate([np.arange(-90.0, 0.0, 6.0), np.arange(24.0, 90.0, 6.0)])
    assert wedge(about(1, theta)).opening_deg == pytest.approx(30.0)
    both = np.concatenate([np.arange(-72.0, 0.0, 6.0), np.arange(24.0, 73.0, 6.0)])
    found = wedge(about(1, both))
    assert found.opening_deg == pytest.approx(36.0)
    assert found.share == pytest.approx((36 + 30) / 180, abs=0.002)


def test_the_sequence_runs_from_rim_to_rim() -> None:
    theta = np.array([12.0, -72.0, -60.0, 0.0, 60.0, -30.0, 30.0])
    order = sequence(about(1, theta))
    assert theta[order].tolist() == sorted(theta)


def test_a_thick_plane_sees_as_much_of_the_sphere_as_its_band() -> None:
    # One plane sees |cos| ≤ d / 2D: a band of height d / D between the poles, of 2 in all.
    assert unseen_share(about(1, np.zeros(1)), 0.4, 1.0) == pytest.approx(1 - 0.2, abs=1e-3)
    assert unseen_share(about(1, np.zeros(1)), 2.0, 1.0) == 0.0


def test_what_is_unseen_is_the_wedge_where_planes_touch() -> None:
    fine = about(1, np.arange(-72.0, 72.1, 0.5))
    assert unseen_share(fine, 1.0, 100.0) == pytest.approx(0.2, abs=0.01)
    assert unseen_share(about(1, FULL), crowther(len(FULL), 100.0), 100.0) < 0.01
    assert unseen_share(about(1, FULL), crowther(len(FULL), 100.0) / 2, 100.0) > 0.25


def test_crowther() -> None:
    assert crowther(60, 20.0) == pytest.approx(1.0472, abs=1e-4)


@pytest.mark.parametrize("theta_deg", [[10.0], [10.0, 10.0], [10.0, 20.0]])
def test_a_few_tilts_leave_nearly_everything(theta_deg: list[float]) -> None:
    found = wedge(about(1, np.array(theta_deg)))
    assert found.opening_deg == pytest.approx(180.0 - np.ptp(theta_deg))
    assert found.share == pytest.approx(1 - np.ptp(theta_deg) / 180, abs=0.002)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"expected \(n, 3\)"):
        wedge(FULL)
    with pytest.raises(ValueError, match=r"resolution is 0\.0 and diameter 1"):
        unseen_share(about(1, FULL), 0.0, 1.0)


def test_series_about_several_axes_have_no_wedge() -> None:
    theta = np.linspace(-60, 60, 41)
    one = np.column_stack([0 * theta, theta, 0 * theta])
    both = np.concatenate([one, one[:, [0, 2, 1]]])
    found = wedge(both)
    assert not found.one_axis and found.opening_deg == 0 and found.direction is None
    # Directions that lie in no plane of either axis, counted by chance: 0.162; half a gap at every rim is measured too.
    assert 0.11 < found.share < 0.165
    anyhow = wedge(np.random.default_rng(0).uniform(-180, 180, (60, 3)))
    assert not anyhow.one_axis and anyhow.share < 0.05
    assert wedge(one).one_axis
    assert wedge(one + np.random.default_rng(1).normal(0, 0.7, one.shape)).one_axis
