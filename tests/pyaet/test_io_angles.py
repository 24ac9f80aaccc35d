"""Tilt angles: every spelling of the same tilts reads the same, ambiguous and unfit ones are refused."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyaet.io.angles import match_angles, read_angles
from pyaet.io.errors import InputError

degrees = st.floats(-180, 180, allow_subnormal=False)


def about_y(theta: np.ndarray | list[float]) -> np.ndarray:
    theta = np.asarray(theta, dtype=float)
    return np.stack([0 * theta, theta, 0 * theta], axis=1)


def write(path: Path, values: np.ndarray) -> Path:
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".mat":
        scipy.io.savemat(path, {"Angle": values})
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["angles_deg"] = values
    else:
        np.savetxt(path, values, delimiter="," if path.suffix == ".csv" else " ", fmt="%.17g")
    return path


@pytest.mark.parametrize("suffix", [".npy", ".mat", ".h5", ".txt", ".csv", ".tlt", ".rawtlt"])
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(theta=st.lists(degrees, min_size=4, max_size=9), form=st.sampled_from(["column", "row", "triples", "turned"]))
def test_every_format_and_shape_gives_the_same_angles(tmp_path, suffix, theta, form):
    triples = about_y(theta) + np.array([1.0, 0.0, -2.0])
    values = {
        "column": np.array(theta)[:, None],
        "row": np.array(theta)[None],
        "triples": triples,
        "turned": triples.T,
    }[form]
    expected = about_y(theta) if form in ("column", "row") else triples
    np.testing.assert_array_equal(read_angles(write(tmp_path / f"angles{suffix}", values)), expected)


def test_lists_are_tilts_about_y_or_triples():
    np.testing.assert_array_equal(read_angles([-60, 0, 60.5]), [[0, -60, 0], [0, 0, 0], [0, 60.5, 0]])
    np.testing.assert_array_equal(read_angles([(1, 2, 3)]), [[1, 2, 3]])
    np.testing.assert_array_equal(read_angles([[1, 2, 3], [4, 5, 6], [7, 8, 9]]), [[1, 2, 3], [4, 5, 6], [7, 8, 9]])


@given(start=st.integers(-90, 90), n=st.integers(1, 80), step=st.sampled_from([-3, -0.1, 0.7, 1, 1 / 3, 3]))
def test_a_range_includes_both_ends(start, n, step):
    angles = read_angles({"start": start, "stop": start + (n - 1) * step, "step": step})
    assert angles.shape == (n, 3)
    np.testing.assert_allclose(angles[:, 1], start + step * np.arange(n), atol=1e-9)


def test_published_range():
    angles = read_angles({"start": -72, "stop": 72, "step": 3})
    assert angles.shape == (49, 3) and angles[0, 1] == -72 and angles[-1, 1] == 72


def test_small_integers_become_floats_before_anything_else(tmp_path):
    angles = read_angles(write(tmp_path / "angles.mat", np.arange(0, 180, 3, dtype=np.uint8)[:, None]))
    assert angles.dtype == np.float64
    assert (-angles)[-1, 1] == -177


def test_text_files_may_have_comments_and_a_heading(tmp_path):
    path = tmp_path / "angles.txt"
    path.write_text("\ufefftheta (deg)\n# first half\n-3.5\n\n0 % centre\n+3.5\n1e1\n")
    np.testing.assert_array_equal(read_angles(path), about_y([-3.5, 0, 3.5, 10]))
    path.write_text("phi;theta;psi\n1;2;3\n4;5;6\n")
    np.testing.assert_array_equal(read_angles(path), [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("1\n2\nthree\n", "line 3 reads 'three'"),
        ("a\nb\n1\n", "line 2 reads 'b'"),
        ("# nothing\n", "no numbers found"),
        ("1 2 3\n4 5\n", "lines of 2 and 3 numbers"),
        ("1 2\n3 4\n5 6\n7 8\n", r"angles of shape \(4, 2\); expected \(n,\)"),
        ("1\nnan\n3\n4\n", "1 of 4 tilts are NaN or infinite, the first is tilt 1"),
        ("0\n400\n3\n4\n", "an angle of 400"),
    ],
)
def test_text_files_that_are_no_angles(tmp_path, text, named):
    (tmp_path / "angles.txt").write_text(text)
    with pytest.raises(InputError, match=named):
        read_angles(tmp_path / "angles.txt")


@pytest.mark.parametrize("shape", [(3, 3), (1, 3), (3, 1)])
def test_shapes_with_two_readings_are_refused(tmp_path, shape):
    with pytest.raises(InputError, match="two ways; give them as a list"):
        read_angles(write(tmp_path / "angles.npy", np.ones(shape)))


@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 4), ()])
def test_shapes_that_are_no_angles_are_refused(tmp_path, shape):
    with pytest.raises(InputError, match="expected"):
        read_angles(write(tmp_path / "angles.npy", np.ones(shape)))


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"start": 0, "stop": 10}, "keys start, stop; expected start, stop, step"),
        ({"start": 0, "stop": 10, "step": 0}, "a step other than 0"),
        ({"start": 0, "stop": 10, "step": -1}, "turn the sign of step"),
        ({"start": 0, "stop": 10, "step": 3}, "whole number"),
        ({"start": 0, "stop": "ten", "step": 3}, "expected numbers"),
        ({"start": 0, "stop": float("inf"), "step": 3}, "expected finite"),
        ([], "list of shape"),
        ([1, [2, 3]], "expected a list of numbers"),
        ([[1, 2], [3, 4]], r"list of shape \(2, 2\)"),
        ([0.0, float("nan")], "tilt 1"),
    ],
)
def test_lists_and_ranges_that_are_no_angles(spec, named):
    with pytest.raises(InputError, match=named):
        read_angles(spec)


def test_variables_are_chosen_by_name(tmp_path):
    angles = about_y([0, 30, 60, 90])
    path = tmp_path / "out.mat"
    scipy.io.savemat(path, {"R_values": np.ones((1, 7)), "Angle_out": angles, "n": 4})
    np.testing.assert_array_equal(read_angles(path), angles)
    assert read_angles({"path": str(path), "variable": "R_values"}).shape == (7, 3)
    with pytest.raises(InputError, match=r"variable 'Angel_out' not in file.*did you mean 'Angle_out'"):
        read_angles(path, variable="Angel_out")
    scipy.io.savemat(path, {"a": np.ones((1, 7)), "b": np.ones((1, 7))})
    with pytest.raises(InputError, match=r"2 variables can be tilt angles.*a, b; name one"):
        read_angles(path)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_angles(tmp_path / "angles.txt")
    with pytest.raises(InputError, match="is a folder"):
        read_angles(tmp_path)
    (tmp_path / "angles.txt").write_bytes(bytes(range(128, 255)))
    with pytest.raises(InputError, match="not a text file"):
        read_angles(tmp_path / "angles.txt")
    (tmp_path / "angles.doc").write_text("0 3 6")
    with pytest.raises(InputError, match="unknown file type"):
        read_angles(tmp_path / "angles.doc")


def test_radians_are_suspected(caplog):
    read_angles(np.linspace(-1.2, 1.2, 40))
    assert "radians" in caplog.text


def test_angles_must_match_the_images():
    angles = about_y(np.arange(60))
    match_angles(60, angles, "a.mat")
    with pytest.raises(InputError, match=r"a\.mat: 61 images but 60 tilt angles; give one angle per image"):
        match_angles(61, angles, "a.mat")
    with pytest.raises(InputError, match=r"axis 2 of the file, of shape \(128, 128, 60\).*set `axes`"):
        match_angles(128, angles, "a.mat", (128, 128, 60))


@pytest.mark.parametrize(
    ("name", "n", "first"),
    [
        ("si208/Si_Angle.mat", 60, (0, 0, 0)),
        ("models/SiGeSn_Angle.mat", 60, (0, 0, 0)),
        ("models/CoPdPt_Angle_Dose1p7e4.mat", 55, (1.80, -68.7861, -1.20)),
        ("models/CoPdPt_ExperimentalAngles.mat", 55, (0, -66.5861, 0)),
        ("models/CoPdPt_RefinedAngles.mat", 55, (1.825, -68.7611, -1.225)),
    ],
)
def test_published_angles(shared, name, n, first):
    angles = read_angles(shared / name)
    assert angles.shape == (n, 3) and angles.dtype == np.float64
    np.testing.assert_allclose(angles[0], first, atol=1e-4)
