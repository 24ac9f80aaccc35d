"""One simulated tilt of the 286-atom silica sphere: the phase must agree with the true projected potential."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import ndimage

import ptycho


def tilt(path: Path, dose: int, scan: int = 56) -> tuple[ptycho.Patterns, np.ndarray, float]:
    """Patterns of the central scan × scan positions, and the true phase with its pixel."""
    with h5py.File(path) as f:
        counts, truth, pixel = f[f"counts_{dose}"][()], f["truth"][()], float(f.attrs["pixel_A"])
        step, pixel_mrad = float(f.attrs["step_A"]), float(f.attrs["mrad_per_px"])
    index = np.arange(56 // 2 - scan // 2, 56 // 2 + scan // 2)
    positions = np.stack(np.meshgrid(index, index, indexing="ij"), -1).reshape(-1, 2)
    chosen = counts[positions[:, 0], positions[:, 1]]
    return ptycho.Patterns(chosen, (positions - 28) * step, pixel_mrad), truth, pixel


def correlation(phase: np.ndarray, pixel: float, truth: np.ndarray, truth_pixel: float, window_A: float) -> float:
    """Of the phase with the truth, both blurred by 0.35 Å, ramp removed, in a central square."""
    n = int(window_A / truth_pixel) | 1
    grid = np.meshgrid(*(2 * [np.arange(n) - n // 2]), indexing="ij")
    a = ndimage.gaussian_filter(phase.astype(float), 0.35 / pixel)
    a = ndimage.map_coordinates(
        a, [g * truth_pixel / pixel + s // 2 for g, s in zip(grid, a.shape, strict=True)], order=3
    )
    b = ndimage.map_coordinates(
        ndimage.gaussian_filter(truth, 0.35 / truth_pixel), [g + s // 2 for g, s in zip(grid, truth.shape, strict=True)]
    )
    plane = np.stack([np.ones(n * n), grid[0].ravel(), grid[1].ravel()], 1)
    a = a.ravel() - plane @ np.linalg.lstsq(plane, (a - b).ravel(), rcond=None)[0]
    return float(np.corrcoef(a, b.ravel())[0, 1])


OPTICS = ptycho.Optics(80e3, 30.0, 180.0)


def test_part_of_a_tilt(shared, rng):
    patterns, truth, pixel = tilt(shared / "silica286" / "bench" / "tilt-72.h5", 1600, scan=32)
    result = ptycho.reconstruct(patterns, OPTICS, ptycho.Settings(), rng=rng)
    phase = np.angle(result.object).sum(0)
    assert correlation(phase, result.pixel_A, truth, pixel, 8.0) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize(("dose", "least"), [(1600, 0.96), (16000, 0.985)])
def test_whole_tilt(shared, rng, dose, least):
    patterns, truth, pixel = tilt(shared / "silica286" / "bench" / "tilt-72.h5", dose)
    result = ptycho.reconstruct(patterns, OPTICS, ptycho.Settings(), rng=rng)
    phase = ptycho.phase_projection(result, result.pixel_A, result.positions_A)
    assert correlation(phase, result.pixel_A, truth, pixel, 20.0) > least
    assert abs(np.median(phase[:8])) < 0.05
    assert result.cpu_s[-1] < 50
