"""The command as a user meets it: exit codes, one sentence for each fault, nothing overwritten."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from pyaet.cli import main

ROOT = Path(__file__).parents[2]


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as leave:
        main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return int(leave.value.code or 0), out, err


def edit(folder: Path, old: str, new: str) -> None:
    path = folder / "plan.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def truncated_h5(folder: Path) -> None:
    with h5py.File(folder / "counts.h5", "w") as file:
        file["counts"] = np.load(folder / "counts.npy")
    whole = (folder / "counts.h5").read_bytes()
    (folder / "counts.h5").write_bytes(whole[: len(whole) // 2])
    edit(folder, "counts.npy", "counts.h5")


def wrong_variable(folder: Path) -> None:
    with h5py.File(folder / "counts.h5", "w") as file:
        file["projections"] = np.load(folder / "counts.npy")
    edit(folder, 'path = "counts.npy"', 'path = "counts.h5"\nvariable = "projektions"')


def changed_counts(folder: Path, value: float) -> None:
    counts = np.load(folder / "counts.npy").astype(float)
    counts[2, 3, 4] = value
    np.save(folder / "counts.npy", counts)


FAULTS = {
    "missing file": (lambda f: (f / "counts.npy").unlink(), "counts.npy: no such file"),
    "truncated HDF5": (truncated_h5, "counts.h5"),
    "wrong variable": (wrong_variable, "did you mean 'projections'"),
    "angles that do not match": (lambda f: edit(f, "stop = 171", "stop = 162"), "20"),
    "NaN in the data": (lambda f: changed_counts(f, np.nan), "NaN"),
    "negative counts": (lambda f: changed_counts(f, -3), "negative"),
    "pixel size zero": (lambda f: edit(f, "pixel_A = 0.5", "pixel_A = 0"), "input.pixel_A: found 0"),
    "unknown element": (lambda f: edit(f, '"Si"', '"Sy"'), "specimen.elements: 'Sy' is not a chemical element"),
    "unknown key": (
        lambda f: edit(f, "iterations", "iteratons"),
        "tomography.iteratons: unknown; did you mean iterations?",
    ),
    "CUDA without CUDA": (lambda f: edit(f, "[output]", '[compute]\ndevice = "cuda"\n[output]'), "device"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("verb", ["run", "validate"])
def test_bad_input_is_one_sentence_and_exit_code_2(
    series: Path, capsys: pytest.CaptureFixture[str], fault: str, verb: str
) -> None:
    spoil, expected = FAULTS[fault]
    if verb == "validate" and fault in ("NaN in the data", "negative counts"):
        pytest.skip("validate looks at shapes, not at every value")
    if fault == "CUDA without CUDA" and _has_cuda():
        pytest.skip("there is a CUDA device")
    spoil(series)
    code, out, err = call(capsys, verb, series / "plan.toml")
    assert code == 2, (out, err)
    assert expected in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err
    assert not any((series / "run").glob("*.h5"))


def _has_cuda() -> bool:
    try:
        import cupy

        return cupy.cuda.runtime.getDeviceCount() > 0
    except Exception:
        return False


def bound_by_permissions() -> list[str]:
    """Start of a command under which file permissions bind; root reads and writes everything without it."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("this user may read everything")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


@pytest.mark.parametrize(("closed", "mode"), [("counts.npy", 0o000), (".", 0o500)])
def test_missing_permissions_are_named(series: Path, closed: str, mode: int) -> None:
    (series / closed).chmod(mode)
    command = [*bound_by_permissions(), sys.executable, "-m", "pyaet", "run", str(series / "plan.toml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    (series / closed).chmod(0o700)
    assert done.returncode == 2, done.stderr
    assert "ermission denied" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (series / "run").exists()


def test_the_output_folder_of_another_run_is_left_alone(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (finished / "run" / "atoms.extxyz").read_bytes()
    np.save(finished / "other.npy", np.load(finished / "counts.npy")[:, ::-1])
    edit(finished, "counts.npy", "other.npy")
    code, _, err = call(capsys, "run", finished / "plan.toml")
    assert code == 2
    assert "holds the run of other data" in err
    assert (finished / "run" / "atoms.extxyz").read_bytes() == before


def test_validate_states_memory_and_time(series: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "validate", series / "plan.toml", "--json")
    told = json.loads(out)
    assert code == 0
    assert told["images"] == [20, 33, 33]
    assert 0 < told["memory_GB"] < 5
    assert told["seconds_estimated"] >= 0
    assert not (series / "run").exists()


def test_stages_alone_do_what_the_run_does(series: Path, capsys: pytest.CaptureFixture[str]) -> None:
    angles = series / "angles.txt"
    np.savetxt(angles, np.arange(0, 180, 9.0))
    at = series.joinpath
    assert call(capsys, "adf", at("counts.npy"), "--angles", angles, "--pixel-A", 0.5, "--out", at("p.h5"))[0] == 0
    assert call(capsys, "align", at("p.h5"), "--out", at("a.h5"))[0] == 0
    assert call(capsys, "tomo", at("a.h5"), "--iterations", 30, "--out", at("v.h5"), "--json")[0] == 0
    trace = ("trace", at("v.h5"), "--elements", "Si", "--min-distance-A", 1.8, "--out", at("t.extxyz"))
    assert call(capsys, *trace)[0] == 0
    assert call(capsys, "refine", at("t.extxyz"), at("a.h5"), "--min-distance-A", 1.8, "--out", at("r.extxyz"))[0] == 0
    code, out, _ = call(capsys, "score", at("r.extxyz"), at("truth.extxyz"), "--json")
    assert code == 0
    assert json.loads(out)["strict"]["found"] == 9
    code, out, _ = call(capsys, "rings", at("r.extxyz"), "--bond", "any:3.4", "--json")
    assert json.loads(out)["sizes"] == {"3": 12, "4": 6}


def test_a_reference_that_is_not_there_is_told_before_the_run(series: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = series / "plan.toml"
    path.write_text(path.read_text() + '\n[structure]\nreference = "nowhere.cif"\n')
    code, _, err = call(capsys, "run", path)
    assert code == 2
    assert "nowhere.cif" in err
    assert not (series / "run" / "projections.h5").exists()


def test_a_stage_does_not_overwrite_its_input(series: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = series / "counts.npy"
    before = path.read_bytes()
    code, _, err = call(capsys, "align", path, "--out", path)
    assert code == 2
    assert "is also the input" in err
    assert path.read_bytes() == before


def test_bad_usage_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["run"], ["fly"], ["run", "a", "b"], ["trace", "v.h5", "--elements", "Si"]):
        code, _, err = call(capsys, *arguments)
        assert code == 2
        assert "Traceback" not in err


def test_a_bad_setting_of_a_stage_is_named(series: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "tomo", series / "a.h5", "--set", "iteratons=3")
    assert code == 2
    assert "iteratons: unknown; did you mean iterations?" in err


@pytest.mark.usefixtures("no_report")
def test_ctrl_c_exits_130_and_the_run_resumes(series: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(series, "iterations = 30", "iterations = 100000")
    command = [sys.executable, "-m", "pyaet", "run", str(series / "plan.toml")]
    running = subprocess.Popen(command, cwd=series, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (series / "run" / "aligned.h5").exists() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert err == "pyaet: interrupted; run the same command again: what is finished is kept\n"
    edit(series, "iterations = 100000", "iterations = 30")
    assert call(capsys, "run", series / "plan.toml")[0] == 0


def test_an_interruption_is_heard_where_python_drops_exceptions() -> None:
    code = """
import os, signal, time
from pyaet import cli

class Dying:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)

def work(*_, **__):
    Dying()
    time.sleep(60)

cli.app = work
cli.main([])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (
        130,
        "pyaet: interrupted; run the same command again: what is finished is kept\n",
    )


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "--help")
    assert code == 0
    verbs = [
        "demo",
        "run",
        "validate",
        "simulate",
        "ptycho",
        "adf",
        "align",
        "tomo",
        "trace",
        "refine",
        "rings",
        "report",
        "score",
        "tune",
    ]
    assert all(verb in out for verb in verbs)


def test_a_pipe_stays_quiet(finished: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pyaet", "run", str(finished / "plan.toml")],
        cwd=finished,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert "report.html" in done.stdout


def test_heavy_libraries_are_not_imported_for_help() -> None:
    code = "import sys; from pyaet.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += (
        "print([m for m in ('numpy', 'h5py', 'scipy', 'pydantic', 'abtem', 'numba', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
