"""Tilts of the 286-atom silica sphere: the stated inputs stand, wrong ones are found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

import ptycho
from ptycho.calibrate import Calibration, calibrate, frame_matrix

OPTICS = ptycho.Optics(80e3, 30.0, 180.0)
SCAN = (56, 56)
GRID_A = 0.5 * (np.stack(np.meshgrid(*(2 * [np.arange(56) - 28]), indexing="ij"), -1).reshape(-1, 2))


def tilt(shared: Path, name: str) -> tuple[np.ndarray, float]:
    path = shared / "silica286" / f"{name}.h5"
    if not path.is_file():
        pytest.skip(f"{path} not found")
    with h5py.File(path) as f:
        return f["counts"][()].reshape(-1, *f["counts"].shape[-2:]), float(f.attrs["pixel_mrad"])


def codes(found: Calibration) -> set[str]:
    return {finding.code for finding in found.findings}


@pytest.mark.parametrize("name", ["tilt_+00", "tilt_-45", "dose1.6e4_tilt_+36"])
def test_the_stated_inputs_stand(shared, name):
    counts, pixel_mrad = tilt(shared, name)
    found = calibrate(counts, GRID_A, pixel_mrad, OPTICS, SCAN)
    assert found.findings == ()
    assert found.parallax is not None
    assert found.parallax.illumination.defocus_A == pytest.approx(180, rel=0.04)
    assert found.parallax.illumination.rotation_deg == pytest.approx(0, abs=0.8)
    assert found.parallax.sign_sigmas > 20 and found.parallax.handed_sigmas > 7


@pytest.mark.parametrize("name", ["tilt_+24", "dose1.6e4_tilt_-72"])
def test_wrong_inputs_are_found(shared, rng, name):
    """The stated scan is 7° off and its axes are exchanged, the defocus has the wrong sign and is 20 % off, 1 % of the pixels
    is hot, the disk is off centre and the dose fades by a fifth."""
    counts, pixel_mrad = tilt(shared, name)
    fading = np.linspace(1, 0.8, len(counts))
    wrong = rng.binomial(counts, fading[:, None, None]).astype(np.uint16)
    hot = rng.choice(106 * 106, 112, replace=False)
    level = rng.uniform(3, 30, 112) * counts[:, 43:63, 43:63].mean()
    wrong.reshape(len(wrong), -1)[:, hot] = rng.poisson(level, (len(wrong), 112))
    wrong = np.roll(wrong.swapaxes(1, 2), (2, -1), (1, 2))
    found = calibrate(wrong, GRID_A @ frame_matrix(7, False).T, pixel_mrad, replace(OPTICS, defocus_A=-216.0), SCAN)
    assert codes(found) == {"hot_pixels", "centre", "dose_drift", "transposed", "rotation", "defocus"}
    assert found.defocus_A == pytest.approx(180, rel=0.05)
    assert found.rotation_deg == pytest.approx(7, abs=1)
    bad = np.zeros((106, 106), bool)
    bad.flat[hot] = True
    np.testing.assert_array_equal(~found.mask, np.roll(bad.T, (2, -1), (0, 1)))
    assert found.scales is not None
    np.testing.assert_allclose(found.scales, fading / fading.mean(), rtol=0.015)
