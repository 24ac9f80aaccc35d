"""ADF simulation: where an atom appears, the two models against each other, counts against dose, one file a series."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from pyaet.simulate.adf import Imaging, simulate_adf_image, simulate_adf_series, simulate_adf_tilt
from tomo.geometry import rotation

LINEAR = Imaging(image_shape=(48, 40), pixel_A=0.3, source_sigma_A=0.2, model="linear")
ATOMS = np.array([[1.5, -0.9, 1.0], [-2.0, 1.2, -1.5]])


def coordinates_A(imaging: Imaging) -> tuple[np.ndarray, np.ndarray]:
    y, x = ((np.arange(n) - n // 2) * imaging.pixel_A for n in imaging.image_shape)
    return y, x


def peak_A(image: np.ndarray, imaging: Imaging) -> tuple[float, float]:
    """Centre of mass of what is above half of the maximum."""
    y, x = coordinates_A(imaging)
    weight = np.maximum(image - image.max() / 2, 0)
    return float(weight.sum(axis=1) @ y / weight.sum()), float(weight.sum(axis=0) @ x / weight.sum())


@pytest.mark.parametrize("theta", [0.0, 50.0, -50.0])
def test_atom_appears_where_the_rotation_puts_it(theta: float) -> None:
    angles = (10.0, theta, -5.0)
    image = simulate_adf_image(ATOMS[:1], ["Si"], angles, LINEAR, rng=np.random.default_rng(0))
    x, y, _ = rotation(np.array([angles]))[0] @ ATOMS[0]
    assert peak_A(image, LINEAR) == pytest.approx((y, x), abs=0.03)


def test_multislice_and_linear_agree_on_single_atoms() -> None:
    imaging = replace(
        LINEAR, image_shape=(32, 32), outer_mrad=80.0, model="multislice", phonon_sigma_A=0.0, window_A=9.0
    )
    atoms, symbols = ATOMS, ["Si", "O"]
    rng = np.random.default_rng(0)
    exact = simulate_adf_image(atoms, symbols, (0, 20, 0), imaging, rng=rng)
    fast = simulate_adf_image(atoms, symbols, (0, 20, 0), replace(imaging, model="linear"), rng=rng)
    assert np.corrcoef(exact.ravel(), fast.ravel())[0, 1] > 0.995
    assert 0.5 < fast.sum() / exact.sum() < 2.0


def test_brightness_grows_as_z_to_1_7() -> None:
    light, heavy = (
        simulate_adf_image(ATOMS[:1], [symbol], (0, 0, 0), LINEAR, rng=np.random.default_rng(0)).sum()
        for symbol in ("O", "Si")
    )
    assert heavy / light == pytest.approx((14 / 8) ** 1.7, rel=1e-3)


def test_finer_pixels_show_the_same_image() -> None:
    """Pixels below the band limit are interpolated: every second one of a twice finer image is the coarse image."""
    coarse = simulate_adf_image(ATOMS, ["Si", "O"], (0, 30, 0), LINEAR, rng=np.random.default_rng(0))
    fine = replace(LINEAR, image_shape=(96, 80), pixel_A=0.15)
    assert fine.scan_shape < fine.image_shape
    found = simulate_adf_image(ATOMS, ["Si", "O"], (0, 30, 0), fine, rng=np.random.default_rng(0))
    np.testing.assert_allclose(found[::2, ::2], coarse, atol=2e-3 * coarse.max())


def test_counts_follow_dose_background_and_gain() -> None:
    imaging = replace(LINEAR, dose_e_per_A2=3e6, background_e=5.0, gain=3.0)
    rng = np.random.default_rng(2)
    counts = simulate_adf_tilt(ATOMS, ["Si", "O"], (0, 0, 0), imaging, rng=rng)
    share = simulate_adf_image(ATOMS, ["Si", "O"], (0, 0, 0), imaging, rng=rng)
    expected = 3.0 * (share * 3e6 * 0.3**2 + 5.0)
    assert counts.mean() == pytest.approx(expected.mean(), rel=0.02)
    assert ((counts - expected) ** 2 / (3.0 * expected)).mean() == pytest.approx(1.0, abs=0.1)
    assert set(np.unique(counts % 3)) == {0}


def test_series_in_one_file(tmp_path: Path) -> None:
    angles = np.array([[0, -30, 0], [0, 0, 0], [0, 30, 0]])
    path = simulate_adf_series(ATOMS, ["Si", "O"], angles, LINEAR, tmp_path / "series.h5", seed=1)
    with h5py.File(path) as file:
        assert file["projections"].shape == (3, 48, 40)
        assert file["projections"].dtype.kind == "u"
        np.testing.assert_array_equal(file["angles_deg"], angles)
        assert file.attrs["pixel_A"] == 0.3
        first = file["projections"][...]
    stamp = path.stat().st_mtime_ns
    simulate_adf_series(ATOMS, ["Si", "O"], angles, LINEAR, path, seed=1)
    assert path.stat().st_mtime_ns == stamp
    simulate_adf_series(ATOMS, ["Si", "O"], angles, LINEAR, path, seed=2)
    with h5py.File(path) as file:
        assert not np.array_equal(file["projections"][...], first)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"inner_mrad": 200.0}, "expected 0 < inner < outer"),
        ({"pixel_A": 0.0}, "pixel_A is 0.0; expected a positive number"),
        ({"background_e": -1.0}, "background_e is -1.0; expected 0 or more"),
        ({"model": "fast"}, "expected 'multislice' or 'linear'"),
    ],
)
def test_impossible_imaging(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(LINEAR, **changes)  # type: ignore[arg-type]
