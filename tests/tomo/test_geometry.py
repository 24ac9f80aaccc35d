"""The tilt convention in sentences, and the matrices as rotations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tomo import rotation
from tomo.geometry import is_tilt_about_y, subvoxel_offsets

X, Y, Z = np.eye(3)


@pytest.mark.parametrize(
    ("angles", "start", "end"),
    [
        ((90, 0, 0), X, Y),  # +90° about z sends x to y
        ((90, 0, 0), Y, -X),  # and y to −x
        ((90, 0, 0), Z, Z),  # and leaves z alone
        ((0, 90, 0), Z, X),  # +90° about y sends z to x
        ((0, 90, 0), X, -Z),  # and x to −z
        ((0, 90, 0), Y, Y),  # and leaves the tilt axis alone
        ((0, 0, 90), Y, Z),  # +90° about x sends y to z
        ((0, 0, 90), Z, -Y),  # and z to −y
        ((0, 0, 90), X, X),  # and leaves x alone
        ((0, 90, 90), Y, X),  # ψ acts first: y goes to z about x, then z to x about y
        ((90, 90, 0), Z, Y),  # φ acts last: z goes to x about y, then x to y about z
    ],
)
def test_right_angles_send_axes_where_the_sentences_say(
    angles: tuple[float, float, float], start: np.ndarray, end: np.ndarray
) -> None:
    np.testing.assert_array_equal(rotation([angles])[0] @ start, end)


def test_thirty_degrees_about_y_by_hand() -> None:
    x, y, z = rotation([(0, 30, 0)])[0] @ (2.0, 5.0, 4.0)
    np.testing.assert_allclose((x, y, z), (2 * np.sqrt(0.75) + 4 * 0.5, 5.0, -2 * 0.5 + 4 * np.sqrt(0.75)))


def test_general_angles_are_the_product_of_the_three_turns() -> None:
    phi, theta, psi = (rotation([row])[0] for row in ((12, 0, 0), (0, -34, 0), (0, 0, 56)))
    np.testing.assert_allclose(rotation([(12, -34, 56)])[0], phi @ theta @ psi, atol=1e-15)


@given(arrays(np.float64, (3, 3), elements=st.floats(-720, 720)))
def test_rotations_are_proper_and_keep_lengths(angles: np.ndarray) -> None:
    matrices = rotation(angles)
    np.testing.assert_allclose(
        matrices @ matrices.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (3, 3, 3)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(matrices), 1.0, atol=1e-12)


def test_narrow_integer_angles_are_not_wrapped() -> None:
    stored = np.array([(0, 177, 0)], np.uint8)
    np.testing.assert_array_equal(rotation(stored), rotation([(0.0, 177.0, 0.0)]))


def test_only_turns_about_y_leave_slices_independent() -> None:
    assert is_tilt_about_y(rotation([(0, 10, 0), (0, -75.5, 0), (0, 180, 0)]))
    assert not is_tilt_about_y(rotation([(0, 10, 0), (0, 20, 0.01)]))
    assert not is_tilt_about_y(rotation([(0.01, 0, 0)]))


def test_parts_of_a_voxel_lie_symmetrically_at_quarters() -> None:
    parts = subvoxel_offsets((2, 1, 2))
    assert {tuple(part) for part in parts} == {(x, 0.0, z) for x in (-0.25, 0.25) for z in (-0.25, 0.25)}
    np.testing.assert_allclose(sorted(set(subvoxel_offsets((1, 3, 1))[:, 1].round(12))), (-1 / 3, 0, 1 / 3))


@pytest.mark.parametrize(
    ("angles", "message"),
    [
        ([0.0, 3.0, 6.0], r"shape \(3,\); expected \(n, 3\)"),
        (np.zeros((0, 3)), "no rows"),
        ([(0, np.nan, 0)], "not finite"),
    ],
)
def test_bad_angles_are_named(angles: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rotation(angles)  # type: ignore[arg-type]


@pytest.mark.parametrize("factors", [(2, 2), (2, 0, 2), (1.5, 1, 1)])
def test_bad_subvoxels_are_named(factors: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="each a whole number"):
        subvoxel_offsets(factors)  # type: ignore[arg-type]
