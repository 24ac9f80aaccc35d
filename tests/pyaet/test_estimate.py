"""What a run will need: work of the volume by method, and faults of the plan that only the data can tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyaet.estimate import _projections_made, estimate
from pyaet.io.errors import InputError
from pyaet.plan import Tomography, load_plan


def test_work_is_counted_in_projections() -> None:
    once = _projections_made(Tomography(iterations=200, quality=False))
    assert once == 400
    assert _projections_made(Tomography(iterations=200)) == 2 * once
    assert _projections_made(Tomography(iterations=200, method="sirt", quality=False)) == once
    assert _projections_made(Tomography(iterations="auto", quality=False)) == 2 * once
    assert _projections_made(Tomography(iterations="auto")) == 3 * once
    assert _projections_made(Tomography(method="fbp")) < 5


def with_settings(series: Path, text: str) -> Path:
    plan = series / "plan.toml"
    before = plan.read_text()
    assert "iterations = 30" in before
    plan.write_text(before.replace("iterations = 30", text))
    return plan


def test_more_held_out_tilts_than_the_series_can_spare_are_refused_at_once(series: Path) -> None:
    plan = with_settings(series, 'iterations = "auto"\nheld_out = 10')
    with pytest.raises(InputError, match=r"tomography\.held_out: 10 of 20 tilts; expected less than half"):
        estimate(load_plan(plan), "cpu")


def test_tilts_that_nobody_holds_out_are_not_counted(series: Path) -> None:
    plan = with_settings(series, "iterations = 9\nheld_out = 10")
    assert estimate(load_plan(plan), "cpu")["volume_voxels"] == [33, 33, 33]
