"""What the tilts of a series have in common: aberrations of a probe, overlaps, totals, outliers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptycho import Optics
from ptycho.series import low_aberrations, median_probe, overlap, robust_z, total_phase

PIXEL_A = 0.35
SHAPE = (96, 96)


@pytest.mark.parametrize("z_A", [0.0, -12.0])
@pytest.mark.parametrize("off_A", [-60.0, 0.0, 25.0])
def test_defocus_and_astigmatism_of_a_probe_are_read_back(z_A: float, off_A: float, rng: np.random.Generator) -> None:
    stated = Optics(80e3, 30.0, 150.0, c30_A=2e5, c12_A=10.0, phi12_deg=20.0)
    true = replace(stated, defocus_A=150.0 + off_A, c12_A=25.0, phi12_deg=-35.0)
    probe = true.probe(SHAPE, (PIXEL_A, PIXEL_A), z_A) * 40 * np.exp(1.3j)
    probe = np.roll(probe, (2, -1), axis=(0, 1)) + 0.01 * rng.standard_normal((*SHAPE, 2)) @ [1, 1j]
    found = low_aberrations(probe[None], PIXEL_A, stated, z_A)
    assert found.defocus_A == pytest.approx(150.0 + off_A, abs=0.5)
    assert found.c12_A == pytest.approx(25.0, abs=0.5)
    assert found.phi12_deg == pytest.approx(-35.0, abs=1.0)


def test_an_aperture_of_a_few_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least 20"):
        low_aberrations(np.ones((1, 16, 16), complex), PIXEL_A, Optics(80e3, 5.0, 0.0))


def test_overlap_forgets_brightness_and_global_phase(rng: np.random.Generator) -> None:
    a, b = (rng.standard_normal((2, 32, 32, 2)) @ [1, 1j]).astype(np.complex64)
    assert overlap(a, 3 * a * np.exp(0.7j)) == pytest.approx(1, abs=1e-6)
    assert overlap(a, b) < 0.1


def test_the_median_probe_is_the_common_one_though_one_tilt_strays(rng: np.random.Generator) -> None:
    lens = Optics(80e3, 30.0, 120.0)
    common = lens.probe(SHAPE, (PIXEL_A, PIXEL_A))
    stray = replace(lens, defocus_A=40.0).probe(SHAPE, (PIXEL_A, PIXEL_A))
    turns = np.exp(2j * np.pi * rng.random(7)) * rng.uniform(0.5, 2, 7)
    probes = np.stack([common] * 6 + [stray]) * turns[:, None, None]
    middle = median_probe(probes)
    assert overlap(middle, common) == pytest.approx(1, abs=1e-6)
    assert overlap(middle, stray) < 0.9


def test_the_total_phase_is_the_integral_of_the_particle() -> None:
    """Of a Gaussian of height h and width w: 2π h w²."""
    y, x = np.meshgrid(*(np.arange(121) - 60,) * 2, indexing="ij")
    phase = 0.8 * np.exp(-((y * 0.2) ** 2 + (x * 0.2) ** 2) / (2 * 2.0**2))
    assert total_phase(phase, 0.2) == pytest.approx(2 * np.pi * 0.8 * 4.0, rel=0.05)


def test_robust_z_names_the_stray_value_and_respects_the_floor(rng: np.random.Generator) -> None:
    values = np.append(rng.normal(10, 1, 40), 20.0)
    z = robust_z(values, 0.1)
    assert z[-1] > 6
    assert np.abs(z[:-1]).max() < 5
    np.testing.assert_allclose(robust_z(np.array([1.0, 1.0, 1.0, 1.2]), 0.5)[-1], 0.4)
