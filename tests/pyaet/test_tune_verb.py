"""`pyaet tune`: a wrong number is found, told with its error, and written only when that is asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import pytest

from pyaet.cli import main
from pyaet.plan import Input
from pyaet.stages.tuning import Found, plan_toml


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as leave:
        main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return int(leave.value.code or 0), out, err


@pytest.fixture
def misstated(tilt_series: Path, tmp_path: Path) -> Path:
    """A tilt taken at 120 Å of defocus whose file says 95 Å."""
    path = tmp_path / "tilt.h5"
    shutil.copy(tilt_series / "t_0.h5", path)
    with h5py.File(path, "a") as file:
        file.attrs["defocus_A"] = 95.0
    return path


def test_a_wrong_defocus_is_found(misstated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(misstated.parent.iterdir())
    wanted = ("--parameters", "defocus_A=60:180", "--subset", 100, "--threads", 1)
    code, out, _ = call(capsys, "tune", misstated, *wanted, "--json")
    found = json.loads(out)["defocus_A"]
    assert code == 0
    assert found["stated"] == 95
    assert found["found"] == pytest.approx(120, abs=3)
    assert 0 < found["sigma"] < 5
    assert not found["at_limit"]
    assert sorted(misstated.parent.iterdir()) == before


def test_the_table_and_the_lines_for_the_plan(misstated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = misstated.parent / "found.toml"
    wanted = ("--parameters", "defocus_A=100:140", "--subset", 64, "--budget", 12, "--threads", 1)
    code, said, _ = call(capsys, "tune", misstated, *wanted, "--out", out)
    assert code == 0
    assert said.split()[:3] == ["parameter", "stated", "found"]
    assert "defocus_A" in said
    text = out.read_text()
    assert text.startswith("[input]\ndefocus_A = 1")
    assert "95 was stated" in text or "100 was stated" in text


def test_lines_for_the_plan_have_their_sections_and_the_rest_is_a_remark() -> None:
    found = [
        Found("c12_A", 0.0, 14.2345, 0.31, False),
        Found("slice_A", 8.0, 6.5, float("nan"), True),
        Found("rotation_deg", 0.0, 1.234, 0.05, False),
    ]
    assert plan_toml(found).splitlines() == [
        "[input]",
        "c12_A = 14.23  # ± 0.31, 0 was stated",
        "[ptychography]",
        "slice_A = 6.5  # uncertainty unknown, 8 was stated, at the end of the range",
        "# rotation_deg = 1.234, ± 0.05, 0 was stated: belongs into the files; small ones are found by update_affine in "
        "[ptychography]",
    ]
    assert "pixel_mrad" in Input.model_fields


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("defocus", "'defocus' cannot be tuned; expected names out of pixel_mrad"),
        ("slice_A", "slice_A needs --set slices=2"),
        ("defocus_A=80", "expected a name, or name=low:high"),
        ("defocus_A=140:80", "parameter defocus_A: "),
    ],
)
def test_a_parameter_that_makes_no_sense_is_named(
    misstated: Path, capsys: pytest.CaptureFixture[str], wanted: str, expected: str
) -> None:
    code, _, err = call(capsys, "tune", misstated, "--parameters", wanted)
    assert code == 2
    assert expected in err


def test_orientations_are_listed_with_the_best_first(misstated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "tune", misstated, "--orientations", "--subset", 100, "--threads", 1, "--json")
    losses = json.loads(out)["loss by orientation"]
    assert code == 0
    assert "as given" in losses
    assert list(losses.values()) == sorted(losses.values())
