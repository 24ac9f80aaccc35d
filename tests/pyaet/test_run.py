"""Whole runs: right atoms, what is current is kept, what is stale is redone, a killed run resumes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from pyaet.io.errors import InputError, RunError
from pyaet.plan import load_plan
from pyaet.run import run_plan

ARTIFACTS = (
    "projections.h5",
    "aligned.h5",
    "volume.h5",
    "candidates.h5",
    "traced.extxyz",
    "atoms.extxyz",
    "rings.json",
)


pytestmark = pytest.mark.usefixtures("no_report")


def run(folder: Path, **options: object) -> dict:
    return run_plan(load_plan(folder / "plan.toml"), folder / "run", **options)  # type: ignore[arg-type]


def stamps(folder: Path) -> dict[str, int]:
    return {name: (folder / "run" / name).stat().st_mtime_ns for name in ARTIFACTS}


def change(folder: Path, old: str, new: str) -> None:
    path = folder / "plan.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_road_from_counts_to_report(finished: Path) -> None:
    summary = json.loads((finished / "run" / "summary.json").read_text())
    strict = summary["score"]["strict"]
    assert strict["found"] == 9
    assert strict["precision"] == 1.0
    assert strict["rmsd_pm"] < 15
    (probe,) = summary["warnings"]
    assert "the plan does not state the probe" in probe
    assert (finished / "run" / "report.html").stat().st_size > 100_000
    for name in ARTIFACTS:
        assert (finished / "run" / name).is_file(), name
    with h5py.File(finished / "run" / "volume.h5") as file:
        assert file["volume"].ndim == 3
        assert file.attrs["voxel_A"] == 0.5


def test_current_stages_are_kept_and_stale_ones_redone(finished: Path) -> None:
    before = stamps(finished)
    first = run(finished)
    assert list(stamps(finished).values())[:-1] == list(before.values())[:-1], "only the truth is in another folder"
    before = stamps(finished)
    change(finished, "iterations = 30", "iterations = 31")
    second = run(finished)
    after = stamps(finished)
    assert [name for name in ARTIFACTS if after[name] != before[name]] == list(ARTIFACTS[2:])
    assert second["stages"]["tomography"]["iterations"] == 31
    assert first["stages"]["alignment"] == second["stages"]["alignment"]


def test_a_damaged_artifact_is_made_again(finished: Path) -> None:
    volume = finished / "run" / "volume.h5"
    volume.write_bytes(volume.read_bytes()[:2000])
    run(finished)
    with h5py.File(volume) as file:
        assert np.isfinite(file["volume"][()]).all()


def test_changed_counts_redo_everything(finished: Path) -> None:
    before = stamps(finished)
    counts = np.load(finished / "counts.npy")
    counts[0, 0, 0] += 1
    np.save(finished / "counts.npy", counts)
    run(finished)
    assert all(new != before[name] for name, new in stamps(finished).items())


def test_a_folder_of_something_else_is_left_alone(series: Path) -> None:
    (series / "run").mkdir()
    (series / "run" / "thesis.tex").write_text("years of work")
    for fresh in (False, True):
        with pytest.raises(InputError, match="holds files but no pyaet run"):
            run(series, fresh=fresh)
    assert os.listdir(series / "run") == ["thesis.tex"]


def test_the_run_of_other_data_is_not_overwritten_unless_asked(finished: Path) -> None:
    before = stamps(finished)
    np.save(finished / "other.npy", np.load(finished / "counts.npy")[:, ::-1])
    change(finished, "counts.npy", "other.npy")
    with pytest.raises(
        InputError, match=r"holds the run of other data \(.*counts\.npy\); choose another --out, or --fresh"
    ):
        run(finished)
    assert stamps(finished) == before
    own = [finished / "run" / "notes.txt", finished / "run" / "ptychography" / "notes.txt"]
    for notes in own:
        notes.parent.mkdir(exist_ok=True)
        notes.write_text("mine")
    run(finished, fresh=True)
    assert [notes.read_text() for notes in own] == ["mine", "mine"]
    assert all(new != before[name] for name, new in stamps(finished).items())


def test_two_runs_do_not_share_a_folder(series: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    (series / "run").mkdir()
    with open(series / "run" / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="another pyaet run is working here"):
            run(series)


@pytest.mark.parametrize(
    "moment",
    [
        "projections.h5",
        "volume.h5",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("aligned.h5", "atoms.extxyz")),
    ],
)
def test_a_killed_run_resumes(series: Path, moment: str) -> None:
    """SIGKILL as soon as an artifact appears; the next run keeps it and ends as an undisturbed one does."""
    command = [sys.executable, "-m", "pyaet", "run", str(series / "plan.toml")]
    killed = subprocess.Popen(command, cwd=series, stdout=subprocess.DEVNULL)
    artifact = series / "run" / moment
    deadline = time.monotonic() + 60
    while not artifact.exists() and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert artifact.exists()
    content = artifact.read_bytes()
    summary = run(series)
    assert summary["score"]["strict"]["found"] == 9
    assert artifact.read_bytes() == content or moment == "atoms.extxyz"
    assert not list((series / "run").glob(".*.part"))


def test_the_resolved_plan_repeats_the_run_where_it_was_made(run_once: Path) -> None:
    plan = load_plan(run_once / "plan.toml")
    again = load_plan(run_once / "run" / "plan.toml")
    assert again.output.directory == str(run_once / "run")
    assert again.model_copy(update={"output": plan.output}) == plan


@pytest.mark.parametrize("angles", ["[0.0]", "[0.0, 0.0, 0.0]"])
def test_too_few_tilts_are_refused_at_once(series: Path, angles: str) -> None:
    counts = np.load(series / "counts.npy")
    np.save(series / "counts.npy", counts[: len(json.loads(angles))])
    change(series, "angles = {start = 0, stop = 171, step = 9}", f"angles = {angles}")
    with pytest.raises(InputError, match="1 distinct tilt; expected at least 3"):
        run(series)
    assert not (series / "run").exists()
