"""Bad arguments are answered by one sentence that names them."""

from __future__ import annotations

import numpy as np
import pytest

import ptycho

COUNTS = np.ones((4, 8, 8), np.uint8)
POSITIONS = np.array([(0.0, 0.0), (0.0, 20.0), (20.0, 0.0), (20.0, 20.0)])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"counts": np.ones((2, 2, 8, 8), np.uint8)}, r"counts has shape \(2, 2, 8, 8\); expected \(n, ky, kx\)"),
        ({"counts": COUNTS.astype(complex)}, "counts has dtype complex128"),
        ({"counts": -COUNTS.astype(float)}, "negative or not finite"),
        ({"counts": np.full((4, 8, 8), np.nan)}, "negative or not finite"),
        ({"counts": 0 * COUNTS}, "zero everywhere"),
        (
            {"positions_A": np.zeros((4, 3))},
            r"positions_A has shape \(4, 3\); expected \(4, 2\), one row \(y, x\) per pattern",
        ),
        ({"positions_A": np.full((4, 2), np.inf)}, "not finite"),
        ({"pixel_mrad": 0.0}, "pixel_mrad is 0.0"),
        ({"mask": np.ones((8, 9), bool)}, r"mask is bool of shape \(8, 9\); expected bool of \(8, 8\)"),
    ],
)
def test_patterns(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        ptycho.Patterns(**({"counts": COUNTS, "positions_A": POSITIONS, "pixel_mrad": 1.0} | change))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"solver": "epie"}, 'solver is "epie"; expected one of gradient, lsqml'),
        ({"iterations": 0}, "iterations is 0; expected a whole number of at least 1"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"update_probe": -1}, "update_probe is -1"),
        ({"step": 2.0}, "step is 2.0; expected a number above 0, at most 1.5"),
        ({"offset": -1.0}, "offset is -1.0"),
        ({"prior_rad2_A2": "strong"}, 'prior_rad2_A2 is "strong"'),
        ({"prior_rad2_A2": 0.0}, "prior_rad2_A2 is 0.0"),
        ({"slices": 3}, "slice_A is None with 3 slices"),
    ],
)
def test_settings(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        ptycho.Settings(**settings)


def test_optics():
    with pytest.raises(ValueError, match="energy_eV is -1; expected a positive number"):
        ptycho.Optics(-1, 30.0, 0.0)
    with pytest.raises(ValueError, match="defocus_A is nan"):
        ptycho.Optics(80e3, 30.0, float("nan"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"probe": np.ones((7, 7))}, r"probe has shape \(7, 7\); expected finite values of shape \(8, 8\)"),
        ({"probe": np.zeros((8, 8))}, "probe has shape"),
        ({"object_": np.ones((2, 20, 20))}, r"object_ has shape \(2, 20, 20\); expected \(1, y, x\)"),
    ],
)
def test_starts(rng, arguments, sentence):
    patterns = ptycho.Patterns(COUNTS, POSITIONS, 1.0)
    with pytest.raises(ValueError, match=sentence):
        ptycho.reconstruct(patterns, ptycho.Optics(80e3, 3.0, 0.0), rng=rng, **arguments)


def test_a_phase_needs_its_pixel():
    with pytest.raises(ValueError, match="pixel_A and positions_A are missing"):
        ptycho.phase_projection(np.ones((20, 20), complex))


def test_memory_grows_with_what_is_asked():
    one = ptycho.memory_bytes(3136, (106, 106), (202, 202), ptycho.Settings())
    assert 3136 * 108**2 * 2 < one < 300e6
    more = ptycho.Settings(slices=6, slice_A=4.0, solver="lsqml")
    assert ptycho.memory_bytes(3136, (106, 106), (202, 202), more) > one
