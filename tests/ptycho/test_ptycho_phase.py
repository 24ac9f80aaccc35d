"""The projected phase: offset, ramp, wraps, crop."""

from __future__ import annotations

import numpy as np
import pytest

import ptycho

PIXEL = 0.35
POSITIONS = np.stack(np.meshgrid(*(2 * [np.linspace(-14, 14, 29)]), indexing="ij"), -1).reshape(-1, 2)


def particle(n: int, height: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sphere of 8 Å with structure: phase, y and x in Å."""
    y, x = np.meshgrid(*(2 * [(np.arange(n) - n // 2) * PIXEL]), indexing="ij")
    thickness = np.sqrt(np.clip(1 - (y**2 + x**2) / 64, 0, None))
    return height * thickness * (0.7 + 0.3 * np.cos(2 * y) * np.cos(2 * x)), y, x


@pytest.mark.parametrize("radius", [None, 9.0])
@pytest.mark.parametrize("height", [0.4, 3.0, 9.0])
def test_offset_and_ramp_are_removed_and_wraps_undone(rng, height, radius):
    phase, y, x = particle(200, height, rng)
    given = phase + 1.1 + 0.03 * y - 0.02 * x + 0.02 * rng.standard_normal(phase.shape)
    found = ptycho.phase_projection(np.exp(1j * given)[None], PIXEL, POSITIONS, vacuum_radius_A=radius)
    assert found.dtype == np.float32
    assert found.shape == (81, 81)
    half = found.shape[0] // 2
    truth = phase[100 - half : 101 + half, 100 - half : 101 + half]
    assert np.abs(found - truth).max() < 0.15
    assert abs((found - truth).mean()) < 0.005


def test_slices_are_summed(rng):
    phase, *_ = particle(200, 4.0, rng)
    slices = np.exp(1j * np.stack([0.25 * phase, 0.75 * phase]))
    whole = ptycho.phase_projection(np.exp(1j * phase), PIXEL, POSITIONS)
    assert np.abs(ptycho.phase_projection(slices, PIXEL, POSITIONS) - whole).max() < 1e-4


def test_the_centre_stays_the_centre():
    phase = np.zeros((201, 200))
    phase[100, 100] = 0.5
    found = ptycho.phase_projection(np.exp(1j * phase), PIXEL, POSITIONS, vacuum_radius_A=5.0)
    assert np.unravel_index(found.argmax(), found.shape) == (found.shape[0] // 2, found.shape[1] // 2)


def test_a_radius_beyond_the_field_is_refused():
    with pytest.raises(ValueError, match="vacuum_radius_A is 40"):
        ptycho.phase_projection(np.ones((200, 200), complex), PIXEL, POSITIONS, vacuum_radius_A=40.0)
