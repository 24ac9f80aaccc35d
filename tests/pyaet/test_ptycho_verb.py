"""`pyaet ptycho` and `pyaet validate` on 4D-STEM tilts as a user meets them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from pyaet.cli import main
from pyaet.report import write_report


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as leave:
        main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return int(leave.value.code or 0), out, err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--picture", "nowhere/x.png"], "its folder does not exist; expected the name of a .png"),
        (["--picture", "x.tif"], "it ends in '.tif'; expected the name of a .png"),
        (["--set", "detector=200000"], "GB are free; expected a smaller problem"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(
    tilt_series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    code, _, said = call(capsys, "ptycho", tilt_series / "t_0.h5", "--out", tmp_path / "r.h5", *options)
    assert code == 2 and sentence in said
    assert not (tmp_path / "r.h5").exists()


def test_one_tilt_gives_one_file_and_a_picture(
    tilt_series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, picture = tmp_path / "r.h5", tmp_path / "live.png"
    code, said, _ = call(
        capsys, "ptycho", tilt_series / "t_0.h5", "--out", out, "--iterations", 2, "--picture", picture, "--json"
    )
    assert code == 0
    assert json.loads(said)["out"] == str(out)
    assert picture.read_bytes().startswith(b"\x89PNG")
    with h5py.File(out) as file:
        assert len(file["loss"]) == 2


def test_several_tilts_give_a_folder_and_a_comparison(
    tilt_series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "series"
    code, said, _ = call(
        capsys,
        "ptycho",
        tilt_series,
        "--out",
        out,
        "--iterations",
        2,
        "--threads",
        1,
        "--set",
        "update_probe=1",
        "--json",
    )
    assert code == 0
    told = json.loads(said)
    assert [row["tilt_deg"] for row in told["consistency"]] == [-48, -24, 0, 24, 48]
    assert all(row["probe_overlap"] > 0.95 for row in told["consistency"])
    assert len(list(out.glob("tilt_*.h5"))) == 5
    with h5py.File(out / "projections.h5") as file:
        assert file["projections"].shape[0] == 5
    code, said, _ = call(capsys, "ptycho", tilt_series, "--out", tilt_series)
    assert code == 2
    code, said, err = call(capsys, "ptycho", tilt_series, "--out", tmp_path / "r.h5")
    assert (code, "expected a folder for the 5 tilts" in err) == (2, True)


PLAN = """
[input]
kind = "4dstem"
path = "{path}"
[specimen]
elements = ["Si"]
min_distance_A = 1.8
[ptychography]
iterations = {iterations}
update_probe = 1
[compute]
device = "cpu"
workers = 1
"""


def test_validate_states_memory_chunks_and_streaming(
    tilt_series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN.format(path=tilt_series, iterations=2))
    code, out, _ = call(capsys, "validate", plan, "--json")
    told = json.loads(out)
    assert code == 0
    assert told["patterns_per_update"] == told["patterns_per_tilt"] == 144
    assert told["patterns_per_chunk"] == {"cpu": 101, "gpu": 144}
    assert 0.3 < told["memory_cpu_GB"] < 1
    assert told["memory_gpu_GB"] > 0
    assert told["counts_stay_on_disk"] is False
    monkeypatch.setattr("pyaet.memory.RESIDENT_SHARE", 1e-9)
    assert json.loads(call(capsys, "validate", plan, "--json")[1])["counts_stay_on_disk"] is True


def test_an_interrupted_series_goes_on_behind_its_checkpoint(tilt_series: Path, tmp_path: Path) -> None:
    """Ctrl-C in the middle of a tilt; the same command takes it up and ends with the bits of an undisturbed one."""

    def command(folder: Path) -> list[str]:
        return ["ptycho", str(tilt_series), "--out", str(folder), "--threads", "1", "--set", "update_probe=1"]

    # Checkpoints at once, and iterations slow enough to be caught between two of them.
    slow = (
        "import time, pyaet.checkpoints as c, pyaet.stages.tilt as t\n"
        "class Slow(c.CheckpointWriter):\n"
        "    due = True\n"
        "    def write(self, arrays):\n"
        "        super().write(arrays); time.sleep(0.5)\n"
        "t.CheckpointWriter = Slow\n"
        "from pyaet.cli import main\n"
        f"main({command(tmp_path / 'broken')!r})\n"
    )
    folder = tmp_path / "broken"
    running = subprocess.Popen([sys.executable, "-c", slow], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(folder.glob("*.checkpoint.h5")) and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert len(list(folder.glob("*.checkpoint.h5"))) == 1
    for out in ("broken", "whole"):
        subprocess.run([sys.executable, "-m", "pyaet", *command(tmp_path / out)], cwd=tmp_path, check=True)
    assert not list(folder.glob("*.checkpoint.h5"))
    with h5py.File(folder / "projections.h5") as a, h5py.File(tmp_path / "whole" / "projections.h5") as b:
        np.testing.assert_array_equal(a["projections"], b["projections"])


def test_the_report_sets_the_tilts_side_by_side(
    tilt_series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run" / "ptychography"
    _, said, _ = call(capsys, "ptycho", tilt_series, "--out", out, "--iterations", 1, "--json")
    summary = {"kind": "4dstem", "stages": {"ptychography": json.loads(said)}}
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "The tilts side by side" in page
    assert '<th scope="row">+24°</th>' in page
