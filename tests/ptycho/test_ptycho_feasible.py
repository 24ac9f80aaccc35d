"""Scans and lenses off by orders of magnitude are refused in words, sound ones are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import ptycho
from ptycho.feasible import check_feasible, doubtful_units

OPTICS = ptycho.Optics(80e3, 30.0, 180.0)
PIXEL_MRAD = 1.16
GRID = np.stack(np.meshgrid(np.arange(6.0), np.arange(6.0), indexing="ij"), -1).reshape(-1, 2)


@pytest.mark.parametrize(
    ("positions_A", "optics", "sentence"),
    [
        (GRID[:1], OPTICS, "the scan has 1 pattern; expected at least 4"),
        (0 * GRID, OPTICS, "for all 36 patterns"),
        (0.05 * GRID, OPTICS, "most likely given in nm"),
        (1000 * GRID, OPTICS, "no two patterns overlap"),
        (GRID, replace(OPTICS, defocus_A=1e9), "defocus_A is 1e.09, which spreads the probe"),
    ],
)
def test_what_cannot_be_is_named(positions_A: np.ndarray, optics: ptycho.Optics, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_feasible(positions_A, PIXEL_MRAD, optics)
    counts = np.ones((len(positions_A), 16, 16), np.uint8)
    patterns = ptycho.Patterns(counts, positions_A, PIXEL_MRAD * 106 / 16)
    if "overlap" not in sentence:
        with pytest.raises(ValueError, match=sentence):
            ptycho.reconstruct(patterns, optics, rng=np.random.default_rng(0))


@pytest.mark.parametrize("step_A", [0.4, 2.0, 8.0])
@pytest.mark.parametrize("defocus_A", [-500.0, 0.0, 1.0, 3000.0])
def test_sound_scans_pass(step_A: float, defocus_A: float) -> None:
    optics = replace(OPTICS, defocus_A=defocus_A)
    check_feasible(step_A * GRID, PIXEL_MRAD, optics)
    assert not doubtful_units(optics)


def test_a_defocus_in_metres_is_doubted() -> None:
    (finding,) = doubtful_units(replace(OPTICS, defocus_A=1.8e-8))
    assert "looks like metres (180 Å)" in finding.sentence


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"offset": 1e9}, "0 ≤ offset ≤ 100"),
        ({"slices": 2, "slice_A": 1e9}, "expected at most 10000 Å"),
    ],
)
def test_absurd_settings_are_named(settings: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ptycho.Settings(**settings)
