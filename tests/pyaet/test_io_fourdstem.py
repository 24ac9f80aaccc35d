"""4D-STEM tilt files: what is written comes back, and every fault is one sentence that names it."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyaet.io.errors import InputError
from pyaet.io.fourdstem import inspect_tilt, list_tilts, positions_A, read_counts, scan_grid_A, write_tilt

OPTICS = {
    "energy_eV": 80e3,
    "semiangle_mrad": 30.0,
    "defocus_A": 120.0,
    "step_A": 0.5,
    "pixel_mrad": 10.0,
    "dose_e_per_A2": 1e4,
}


def make(path: Path, theta: float = 6.0, **changes: object) -> Path:
    counts = np.arange(3 * 4 * 8 * 6, dtype=np.uint16).reshape(3, 4, 8, 6)
    write_tilt(path, counts, angles_deg=(0, theta, 0), **(OPTICS | changes))  # type: ignore[arg-type]
    return path


def spoil(path: Path, **attributes: object) -> Path:
    with h5py.File(path, "a") as file:
        for name, value in attributes.items():
            if value is None:
                del file.attrs[name]
            else:
                file.attrs[name] = value
    return path


def test_round_trip(tmp_path: Path) -> None:
    tilt = inspect_tilt(make(tmp_path / "a.h5", theta=-12.5))
    assert tilt.shape == (3, 4, 8, 6)
    assert tilt.angles_deg == (0.0, -12.5, 0.0)
    assert {name: getattr(tilt, name) for name in OPTICS} == OPTICS
    counts = read_counts(tilt)
    assert counts.dtype == np.uint16
    np.testing.assert_array_equal(counts.ravel(), np.arange(576))
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_scan_grid_has_coordinate_zero_at_half() -> None:
    positions = scan_grid_A((3, 4), 0.5).reshape(3, 4, 2)
    np.testing.assert_allclose(positions[1, 2], [0.0, 0.0])
    np.testing.assert_allclose(positions[2, 3], [0.5, 0.5])
    np.testing.assert_allclose(positions[0, 0], [-0.5, -1.0])


def test_stored_positions_win_over_the_grid(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).normal(size=(12, 2))
    tilt = inspect_tilt(make(tmp_path / "a.h5", positions_A=stored))
    np.testing.assert_array_equal(positions_A(tilt), stored)
    np.testing.assert_array_equal(positions_A(inspect_tilt(make(tmp_path / "b.h5"))), scan_grid_A((3, 4), 0.5))


def test_whole_floats_are_counts(tmp_path: Path) -> None:
    path = make(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        del file["counts"]
        file["counts"] = np.full((2, 2, 8, 8), 300.0)
    counts = read_counts(inspect_tilt(path))
    assert counts.dtype == np.uint16
    assert (counts == 300).all()


@pytest.mark.parametrize(
    ("value", "sentence"), [(-1.0, "negative"), (np.nan, "not finite"), (0.5, "not a whole number")]
)
def test_impossible_counts(tmp_path: Path, value: float, sentence: str) -> None:
    path = make(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        del file["counts"]
        counts = np.zeros((2, 2, 8, 8))
        counts[1, 0, 3, 2] = value
        file["counts"] = counts
    with pytest.raises(InputError, match=rf"at \(1, 0, 3, 2\) is .*{sentence}"):
        read_counts(inspect_tilt(path))


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({"energy_eV": 80.0}, r"`energy_eV` is 80; did you mean 80e3\?"),
        ({"energy_eV": 80e9}, "above 5 MeV"),
        ({"energy_eV": "80 keV"}, "expected one number"),
        ({"semiangle_mrad": 0.03}, r"did you mean 30 \(in mrad\)"),
        ({"semiangle_mrad": 3000.0}, "above 300 mrad"),
        ({"semiangle_mrad": 45.0}, "lets a detector of 8 pixels reach 40 mrad only"),
        ({"pixel_mrad": 0.0}, "`pixel_mrad` is 0; expected a positive finite number"),
        ({"pixel_mrad": -1.0}, "`pixel_mrad` is -1"),
        ({"pixel_mrad": 0.01}, "reach 0.04 mrad only"),
        ({"step_A": np.nan}, "`step_A` is nan"),
        ({"defocus_A": np.inf}, "`defocus_A` is inf; expected a finite number"),
        ({"dose_e_per_A2": 0.0}, "`dose_e_per_A2` is 0"),
        ({"angles_deg": [0.0, 1.0]}, r"expected the three finite Euler angles"),
        ({"angles_deg": [0.0, np.nan, 1.0]}, r"expected the three finite Euler angles"),
    ],
)
def test_nonsense_metadata(tmp_path: Path, attributes: dict[str, object], sentence: str) -> None:
    path = spoil(make(tmp_path / "a.h5"), **attributes)
    with pytest.raises(InputError, match=sentence) as fault:
        inspect_tilt(path)
    assert str(path) in str(fault.value)
    assert "\n" not in str(fault.value)


def test_missing_attribute_is_named_beside_what_is_there(tmp_path: Path) -> None:
    path = spoil(make(tmp_path / "a.h5"), defocus_A=None)
    with pytest.raises(InputError, match=r"attribute .defocus_A. is missing; the file has .*energy_eV"):
        inspect_tilt(path)


def test_wrong_dimension_and_missing_dataset(tmp_path: Path) -> None:
    path = make(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file.move("counts", "patterns")
    with pytest.raises(InputError, match=r"no dataset `counts`.*the file holds `patterns`"):
        inspect_tilt(path)
    with h5py.File(path, "a") as file:
        file["counts"] = np.zeros((4, 8, 8), dtype=np.uint8)
    with pytest.raises(InputError, match=r"shape \(4, 8, 8\); expected \(scan_y, scan_x, ky, kx\)"):
        inspect_tilt(path)


def test_positions_of_another_scan(tmp_path: Path) -> None:
    path = make(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["positions_A"] = np.zeros((5, 2))
    with pytest.raises(InputError, match=r"`positions_A` has shape \(5, 2\); expected \(12, 2\)"):
        inspect_tilt(path)


def test_positions_and_counts_that_are_no_numbers_of_their_kind(tmp_path: Path) -> None:
    path = make(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["positions_A"] = np.full((12, 2), b"a")
    with pytest.raises(InputError, match=r"`positions_A` holds \|S1; expected numbers in Å"):
        inspect_tilt(path)
    path = make(tmp_path / "c.h5")
    with h5py.File(path, "a") as file:
        file.create_group("positions_A")
    with pytest.raises(InputError, match="`positions_A` is a group; expected numbers in Å"):
        inspect_tilt(path)
    path = make(tmp_path / "b.h5")
    with h5py.File(path, "a") as file:
        del file["counts"]
        file["counts"] = np.full((2, 2, 8, 8), 1e30)
    with pytest.raises(InputError, match=r"`counts` at \(0, 0, 0, 0\) is 1e\+30, more than any detector counts"):
        read_counts(inspect_tilt(path))


def test_unreadable_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no such file"):
        inspect_tilt(tmp_path / "none.h5")
    with pytest.raises(InputError, match=r"is a folder; expected one \.h5"):
        inspect_tilt(tmp_path)
    path = make(tmp_path / "a.h5")
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match="truncated"):
        inspect_tilt(path)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(h5py, "File", refuse)
    with pytest.raises(InputError, match="permission"):
        inspect_tilt(path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = make(tmp_path / "a.h5")
    before = path.read_bytes()
    with pytest.raises(InputError, match="negative"):
        write_tilt(path, np.full((2, 2, 8, 8), -1), angles_deg=(0, 0, 0), **OPTICS)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="did you mean 80e3"):
        make(path, energy_eV=80.0)
    assert path.read_bytes() == before


def test_series_is_sorted_and_selected(tmp_path: Path) -> None:
    for theta in (12, -6, 0, 6, -12):
        make(tmp_path / f"tilt_{theta:+d}.h5", theta)
    (tmp_path / "notes.txt").write_text("no tilt")

    def thetas(**kwargs: object) -> list[float]:
        return [tilt.angles_deg[1] for tilt in list_tilts(**({"source": tmp_path} | kwargs))]  # type: ignore[arg-type]

    assert thetas() == [-12, -6, 0, 6, 12]
    assert thetas(source=str(tmp_path / "tilt_+*.h5")) == [0, 6, 12]
    assert thetas(source=[tmp_path / "tilt_+6.h5", tmp_path / "tilt_-6.h5"]) == [-6, 6]
    assert thetas(angles=[6, -12]) == [-12, 6]
    assert thetas(angles=[(0, 6, 0)]) == [6]
    assert thetas(angles={"start": -12, "stop": 12, "step": 12}) == [-12, 0, 12]
    with pytest.raises(InputError, match="no file holds the tilt 3, 9 degrees; the files found hold -12, -6, 0, 6, 12"):
        thetas(angles=[3, 6, 9])
    with pytest.raises(InputError, match="turn the sign of the step"):
        thetas(angles={"start": 0, "stop": 12, "step": -3})
    with pytest.raises(InputError, match="no file matches this pattern"):
        thetas(source=str(tmp_path / "tlit_*.h5"))
    with pytest.raises(InputError, match="the list of 4D-STEM tilt files is empty"):
        thetas(source=[])
    make(tmp_path / "again.h5", 6)
    with pytest.raises(InputError, match=r"again.h5 .*hold the same tilt"):
        thetas()


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no \.h5 file in this folder"):
        list_tilts(tmp_path)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 40), start=st.floats(-90, 90), step=st.floats(0.1, 10))
def test_ranges_include_their_stop(n: int, start: float, step: float) -> None:
    from pyaet.io.fourdstem import _wanted_deg

    found = _wanted_deg({"start": start, "stop": start + (n - 1) * step, "step": step})
    assert len(found) == n
    assert found[-1][0] == pytest.approx(start + (n - 1) * step, abs=1e-9)


def test_published_series_reads(shared: Path) -> None:
    tilts = list_tilts(str(shared / "silica286" / "tilt_*.h5"))
    assert [tilt.angles_deg[1] for tilt in tilts] == list(range(-72, 73, 3))
    assert {tilt.shape for tilt in tilts} == {(56, 56, 106, 106)}
    counts = read_counts(tilts[0])
    assert counts.mean() * 106**2 == pytest.approx(1600 * 0.25, rel=0.01)
    np.testing.assert_allclose(positions_A(tilts[0])[[0, 28 * 56 + 28]], [[-14, -14], [0, 0]])
