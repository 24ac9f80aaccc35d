"""The tilts of a series side by side: who strays is named, who does not is left in peace."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import ptycho
from pyaet.console import Console
from pyaet.stages.consistency import TiltNumbers, compared, table_cells

LENS = ptycho.Optics(80e3, 30.0, 120.0)


def probe(defocus_A: float) -> np.ndarray:
    return replace(LENS, defocus_A=defocus_A).probe((64, 64), (0.35, 0.35))


def series(rng: np.random.Generator, n: int = 9) -> tuple[list[TiltNumbers], np.ndarray]:
    """Tilts from −48° by 12° that differ by noise alone."""
    tilts = [
        TiltNumbers(
            tilt_deg=12.0 * i - 48,
            electrons_per_pattern=float(rng.normal(4000, 3)),
            loss=float(rng.normal(860, 0.5)),
            held_out_loss=None,
            loss_excess=float(rng.normal(-1, 0.5)),
            defocus_A=float(rng.normal(120, 0.3)),
            position_shift_rms_A=0.0,
            phase_total_rad_A2=float(rng.normal(38, 0.5)),
            gauge_shift_A=0.001,
        )
        for i in range(n)
    ]
    return tilts, np.stack([probe(tilt.defocus_A) for tilt in tilts])


def test_equal_tilts_give_no_sentence(rng: np.random.Generator) -> None:
    tilts, probes = series(rng)
    found = compared(tilts, probes)
    assert found.sentences() == []
    assert found.rows()[0]["held_out_loss"] is None
    assert all(row["probe_overlap"] > 0.999 for row in found.rows())


def test_a_tilt_with_another_probe_is_named_with_what_the_others_have(rng: np.random.Generator) -> None:
    tilts, probes = series(rng)
    tilts[6], probes[6] = replace(tilts[6], defocus_A=80.0), probe(80.0)
    sentences = compared(tilts, probes).sentences()
    assert len(sentences) == 2
    assert all(s.startswith("tilt +24°: ") for s in sentences)
    assert "the defocus of its probe is 80.0 Å (others 119." in sentences[0]
    assert "its probe overlaps the others by 0." in sentences[1]
    assert sentences[1].endswith("(others 1.000)")


def test_a_tilt_that_lost_half_its_phase_is_named(rng: np.random.Generator) -> None:
    tilts, probes = series(rng)
    tilts[0] = replace(tilts[0], phase_total_rad_A2=19.0)
    (sentence,) = compared(tilts, probes).sentences()
    assert sentence.startswith("tilt −48°: its phase adds up to 19 rad Å² (others 3")


def test_four_tilts_do_not_tell_which_of_them_strays(rng: np.random.Generator) -> None:
    tilts, probes = series(rng, 4)
    tilts[0] = replace(tilts[0], loss=2000.0)
    assert compared(tilts, probes).sentences() == []


def test_a_tilt_of_unknown_defocus_is_no_fault(rng: np.random.Generator) -> None:
    tilts, probes = series(rng)
    tilts[3] = replace(tilts[3], defocus_A=float("nan"))
    found = compared(tilts, probes)
    assert found.sentences() == []
    assert found.rows()[3]["defocus_A"] is None


def test_the_table_shows_what_differs_and_marks_what_strays(rng: np.random.Generator) -> None:
    tilts, probes = series(rng)
    tilts[8] = replace(tilts[8], electrons_per_pattern=2000.0)
    heads, rows = table_cells(compared(tilts, probes).rows())
    assert heads[:3] == ["tilt", "e⁻/pattern", "loss"]
    assert "positions moved (Å)" not in heads
    assert "held-out loss" not in heads
    assert [row[0] for row in rows] == ["−48°", "−36°", "−24°", "−12°", "0°", "+12°", "+24°", "+36°", "+48°"]
    assert rows[8][1] == "2000 ◄"
    assert sum("◄" in cell for row in rows for cell in row) == 1


def test_the_table_is_shown_on_a_terminal_alone(capsys: object) -> None:
    for terminal in (False, True):
        Console(terminal=terminal).table("tilts", ["tilt", "loss"], [["0°", "860 ◄"]])
        err = capsys.readouterr().err  # type: ignore[attr-defined]
        assert ("860 ◄" in err) == terminal
