"""The tomography stage: methods, automatic iterations, interruptions, bounded memory, and what it says of its volume."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pyaet import memory
from pyaet.cli import main
from pyaet.console import Console
from pyaet.io.errors import InputError
from pyaet.plan import Tomography
from pyaet.stages.context import Context
from pyaet.stages.projections import Projections, read_projections, write_projections
from pyaet.stages.quality import resolution_doubts
from pyaet.stages.tomography import TITLES, checkpoint_of, reconstruct
from tomo import Projector

SIDE, PIXEL_A = 32, 0.5
ANGLES_DEG = np.column_stack([np.zeros(25), np.linspace(-72, 72, 25), np.zeros(25)])
CONTEXT = Context("cpu", 1, 0, Console(terminal=False), "key")


class Watching(Console):
    """A console that hands the progress of every task to a function."""

    def __init__(self, told: Callable[[str, int], None]) -> None:
        super().__init__(terminal=False)
        self.told = told

    @contextmanager
    def task(self, title: str, value_name: str = "") -> Iterator[Callable[[int, int, float], None]]:
        yield lambda done, total, value: self.told(title, done)


def watched(told: Callable[[str, int], None]) -> Context:
    return Context("cpu", 1, 0, Watching(told), "key")


def interrupting(title: str, at: int) -> Context:
    """A context in which the user presses Ctrl-C at an iteration of a task."""

    def told(task: str, done: int) -> None:
        if (task, done) == (title, at):
            raise KeyboardInterrupt

    return watched(told)


def images_of(angles_deg: np.ndarray = ANGLES_DEG, noise: float = 0.3) -> np.ndarray:
    line, rng = np.arange(SIDE) - SIDE // 2, np.random.default_rng(7)
    volume = np.zeros((SIDE, SIDE, SIDE), np.float32)
    for z, y, x in rng.uniform(-8, 8, (25, 3)):
        a, b, c = (np.exp(-((line - at) ** 2) / 3.0) for at in (z, y, x))
        volume += (a[:, None, None] * b[:, None] * c).astype(np.float32)
    images = Projector(angles_deg, (SIDE, SIDE))(volume)
    return images + rng.normal(0, noise, images.shape).astype(np.float32)


@pytest.fixture
def aligned(tmp_path: Path) -> Path:
    path = tmp_path / "aligned.h5"
    write_projections(path, Projections(images_of(), ANGLES_DEG, PIXEL_A, "electrons"), "key")
    return path


def volume_of(path: Path) -> np.ndarray:
    with h5py.File(path) as file:
        return file["volume"][()]


def checkpoints(target: Path) -> list[str]:
    return [work for work in TITLES if checkpoint_of(target, work).exists()]


def test_a_judged_volume_on_disk(aligned: Path, tmp_path: Path) -> None:
    told = reconstruct(aligned, tmp_path / "v.h5", Tomography(iterations=30), CONTEXT)
    with h5py.File(tmp_path / "v.h5") as file:
        held = {name: file[name][()] for name in file}
        attributes = dict(file.attrs)
    assert held["volume"].shape == (SIDE, SIDE, SIDE)
    assert len(held["r_factor"]) == told["iterations"] == 30
    assert told["r_factor"] == held["r_factor"][-1]
    assert "r_free" not in held and "r_free" not in told
    assert held["tilt_r"].mean() == pytest.approx(told["r_factor"])
    assert (held["unseen_r"] > held["tilt_r"]).all()
    assert told["worst_tilt"] == held["tilt_r"].argmax()
    assert told["worst_tilt_deg"] == ANGLES_DEG[told["worst_tilt"], 1]
    assert told["r_factor_unseen"] == pytest.approx(held["unseen_r"].mean())
    assert len(held["fsc"]) == len(held["fsc_frequency_per_A"]) == len(held["fsc_z"])
    # The field is 32 voxels of 0.5 Å, and the box about the particle is at most that; Nyquist is 1 per Å.
    assert held["fsc_frequency_per_A"][-1] == pytest.approx(1.0, abs=0.05)
    assert 2 * PIXEL_A <= told["resolution_A"] == attributes["resolution_A"] < 4
    assert told["wedge_deg"] == attributes["wedge_deg"] == pytest.approx(36.0)
    assert told["wedge_about"] == "z"
    assert told["missing_share"] == pytest.approx(0.2, abs=0.01)
    # The half that has not seen a rim of the wedge predicts it poorly, which says nothing against that tilt.
    assert held["unseen_r"].argmax() in (0, 24)
    assert told["warnings"] == [] and held["stray_tilts"].shape == (0,)


def test_without_quality_nothing_is_judged(aligned: Path, tmp_path: Path) -> None:
    titles: set[str] = set()
    context = watched(lambda title, done: titles.add(title))
    told = reconstruct(aligned, tmp_path / "v.h5", Tomography(iterations=3, quality=False), context)
    assert titles == {"tomography"}
    with h5py.File(tmp_path / "v.h5") as file:
        assert set(file) == {"volume", "angles_deg", "r_factor", "tilt_r", "stray_tilts"}
    assert not {"resolution_A", "wedge_deg", "r_factor_unseen"} & set(told)


def test_all_methods_write_volumes_on_one_scale(aligned: Path, tmp_path: Path) -> None:
    tops = []
    for method in ("resire", "sirt", "fbp"):
        told = reconstruct(aligned, tmp_path / "v.h5", Tomography(method=method, iterations=60), CONTEXT)
        assert told["method"] == method
        assert ("iterations" in told) == (method != "fbp")
        tops.append(np.sort(volume_of(tmp_path / "v.h5"), axis=None)[-500:].mean())
    # Back-projection leaves the wedge of 36° empty, and with it a fifth of an atom's height.
    assert tops[1] == pytest.approx(tops[0], rel=0.05)
    assert tops[2] == pytest.approx(0.8 * tops[0], rel=0.1)


@pytest.mark.parametrize("momentum", [False, True])
def test_automatic_iterations_use_all_tilts_in_the_end(aligned: Path, tmp_path: Path, momentum: bool) -> None:
    settings = Tomography(iterations="auto", momentum=momentum, patience=8, quality=False)
    told = reconstruct(aligned, tmp_path / "v.h5", settings, CONTEXT)
    with h5py.File(tmp_path / "v.h5") as file:
        r_free, free, held_out = (file[name][()] for name in ("r_free", "mismatch_free", "held_out"))
    assert told["iterations"] == free.argmin() + 1 == len(free) - 8
    assert told["r_free"] == r_free[told["iterations"] - 1]
    assert held_out.sum() == 5 and not held_out[[0, -1]].any()
    again = settings.model_copy(update={"iterations": told["iterations"]})
    reconstruct(aligned, tmp_path / "w.h5", again, CONTEXT)
    np.testing.assert_array_equal(volume_of(tmp_path / "v.h5"), volume_of(tmp_path / "w.h5"))


def test_empty_projections_are_refused(aligned: Path, tmp_path: Path) -> None:
    given = read_projections(aligned)
    write_projections(
        tmp_path / "e.h5", Projections(given.images * 0, given.angles_deg, given.pixel_A, given.unit), "key"
    )
    with pytest.raises(InputError, match="every pixel of every projection is zero"):
        reconstruct(tmp_path / "e.h5", tmp_path / "v.h5", Tomography(), CONTEXT)
    assert not (tmp_path / "v.h5").exists()


def test_too_many_held_out_tilts_are_refused(aligned: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"aligned\.h5: held-out tilts: 13 of 25; expected"):
        reconstruct(aligned, tmp_path / "v.h5", Tomography(iterations="auto", held_out=13), CONTEXT)


WAYS: list[dict[str, Any]] = [
    {"iterations": 12},
    {"iterations": 12, "momentum": True},
    {"iterations": 12, "method": "sirt", "memory_GB": 1.1e-4},
    {"iterations": "auto", "patience": 6, "memory_GB": 1.1e-4},
]


STEPS = [(way, title) for way in WAYS for title in ("tomography", "even tilts", "odd tilts")]


@pytest.mark.parametrize(("way", "title"), [*STEPS, (WAYS[-1], "held-out tilts")])
def test_an_interrupted_run_ends_as_an_undisturbed_one(
    aligned: Path, tmp_path: Path, way: dict[str, Any], title: str
) -> None:
    settings, whole, broken = Tomography(**way), tmp_path / "whole.h5", tmp_path / "broken.h5"
    reconstruct(aligned, whole, settings, CONTEXT)
    with pytest.raises(KeyboardInterrupt):
        reconstruct(aligned, broken, settings, interrupting(title, 7), checkpoint_s=0)
    assert not broken.exists()
    assert next(work for work in TITLES if TITLES[work] == title) in checkpoints(broken)
    begun: dict[str, int] = {}
    context = watched(lambda task, done: begun.setdefault(task, done) and None)
    told = reconstruct(aligned, broken, settings, context)
    # The interruption fell between iteration 7 and its checkpoint.
    assert begun[title] == 7
    assert f"{title}: resumed behind iteration 6" in told["note"]
    with h5py.File(whole) as first, h5py.File(broken) as second:
        assert set(first) == set(second)
        for name in first:
            np.testing.assert_array_equal(first[name][()], second[name][()], err_msg=name)
    assert checkpoints(broken) == []


@pytest.mark.parametrize("change", ["settings", "images"])
def test_a_checkpoint_of_something_else_is_not_taken_up(aligned: Path, tmp_path: Path, change: str) -> None:
    settings, target = Tomography(iterations=12, quality=False), tmp_path / "v.h5"
    with pytest.raises(KeyboardInterrupt):
        reconstruct(aligned, target, settings, interrupting("tomography", 7), checkpoint_s=0)
    if change == "settings":
        settings = settings.model_copy(update={"positivity": False})
    else:
        write_projections(aligned, Projections(1.1 * images_of(), ANGLES_DEG, PIXEL_A, "electrons"), "key")
    told = reconstruct(aligned, target, settings, CONTEXT)
    assert "left by other data or settings" in told["note"]
    reconstruct(aligned, tmp_path / "w.h5", settings, CONTEXT)
    np.testing.assert_array_equal(volume_of(target), volume_of(tmp_path / "w.h5"))


def test_a_killed_verb_resumes_to_the_same_volume(aligned: Path, tmp_path: Path) -> None:
    """SIGKILL as soon as the first checkpoint is there."""
    script = tmp_path / "verb.py"
    script.write_text(
        "import sys\nfrom pyaet import checkpoints\nfrom pyaet.stages import tomography\n"
        "tomography.reconstruct.__kwdefaults__['checkpoint_s'] = 0.05\n"
        "from pyaet.cli import main\nmain(sys.argv[1:])\n"
    )
    command = [sys.executable, str(script), "tomo", str(aligned), "--set", "iterations=500", "--set", "quality=false"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    killed = subprocess.Popen([*command, "--device", "cpu", "--out", str(tmp_path / "v.h5")], env=environment)
    deadline = time.monotonic() + 60
    while not checkpoints(tmp_path / "v.h5") and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert checkpoints(tmp_path / "v.h5") == ["volume"]
    assert not (tmp_path / "v.h5").exists()
    for out in ("v.h5", "w.h5"):
        subprocess.run([*command, "--device", "cpu", "--out", str(tmp_path / out)], env=environment, check=True)
    np.testing.assert_array_equal(volume_of(tmp_path / "v.h5"), volume_of(tmp_path / "w.h5"))


def test_the_verb_takes_every_key_of_the_plan(
    aligned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "v.h5")
    given = ["--iterations", "auto", "--set", "momentum=true", "--set", "held_out=3", "--set", "patience=4"]
    with pytest.raises(SystemExit) as ended:
        main(["tomo", str(aligned), *given, "--out", out])
    assert ended.value.code == 0
    assert "r_free" in capsys.readouterr().out
    with h5py.File(out) as file:
        assert file["held_out"][()].sum() == 3
    with pytest.raises(SystemExit) as ended:
        main(["tomo", str(aligned), "--iterations", "soon", "--out", out])
    assert ended.value.code == 2
    assert "iterations: found 'soon'; expected a whole number or 'auto'" in capsys.readouterr().err


def test_a_wide_wedge_and_a_bad_tilt_are_named(tmp_path: Path) -> None:
    angles_deg = np.column_stack([np.zeros(21), np.linspace(-50, 50, 21), np.zeros(21)])
    images = images_of(angles_deg, noise=0.1)
    images[6] = np.roll(images[6], 9, axis=1)
    write_projections(tmp_path / "a.h5", Projections(images, angles_deg, PIXEL_A, "electrons"), "key")
    told = reconstruct(tmp_path / "a.h5", tmp_path / "v.h5", Tomography(iterations=30), CONTEXT)
    wedge, tilt = told["warnings"]
    assert "a wedge of 80° about z unmeasured, 44 % of all directions" in wedge
    assert "tilt 6 (-20°) worse than the others" in tilt
    assert told["worst_tilt"] == 6
    with h5py.File(tmp_path / "v.h5") as file:
        assert file["stray_tilts"][()].tolist() == [6]


def test_poor_resolution_is_doubted_where_atoms_are_sought(tmp_path: Path) -> None:
    path = tmp_path / "v.h5"
    with h5py.File(path, "w") as file:
        file["volume"] = np.zeros((2, 2, 2))
    assert resolution_doubts(path, 1.0) == []
    with h5py.File(path, "a") as file:
        file.attrs.update(resolution_A=1.2, resolution_x_A=1.1, resolution_y_A=1.1, resolution_z_A=2.5)
    assert resolution_doubts(path, 3.0) == []
    (told,) = resolution_doubts(path, 2.0)
    assert "the resolution of the volume is 2.5 Å along z: atoms 2 Å apart" in told
    with h5py.File(path, "a") as file:
        file.attrs["resolution_z_A"] = np.nan
    assert "is not reached along z: atoms" in resolution_doubts(path, 3.0)[0]
    with h5py.File(path, "a") as file:
        file.attrs["resolution_A"] = np.nan
    assert "shows no particle" in resolution_doubts(path, 3.0)[0]


SHAPE = (20, 64, 64)


def test_volumes_are_bounded_by_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Tomography()
    whole = memory.tomography_bytes(SHAPE, settings, None, "cpu")
    assert whole > 5 * 4 * 64**3
    assert (
        memory.tomography_bytes(SHAPE, settings, 4 * 64**3, "cuda")
        < memory.tomography_bytes(SHAPE, settings, 4 * 64**3, "cpu")
        < whole
    )
    for free, expected in ((0, None), (2 * whole, None)):
        monkeypatch.setattr(memory, "available_memory_bytes", lambda device, free=free: free)
        assert memory.volume_bytes(SHAPE, settings, "cpu") is expected
    monkeypatch.setattr(memory, "available_memory_bytes", lambda device: int(1.1 * whole))
    limit = memory.volume_bytes(SHAPE, settings, "cuda")
    assert limit is not None and 5 * 4 * 64**2 <= limit < 5 * 4 * 64**3
    assert memory.tomography_bytes(SHAPE, settings, limit, "cuda") <= 0.85 * 1.1 * whole
    monkeypatch.setattr(memory, "available_memory_bytes", lambda device: 1000)
    assert memory.volume_bytes(SHAPE, settings, "cuda") == 5 * 4 * 64**2
    assert memory.volume_bytes(SHAPE, Tomography(memory_GB=0.5), "cpu") == 500_000_000


def test_too_little_memory_is_a_sentence(aligned: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"memory_bytes is 1000; a single plane of this volume needs 20480"):
        reconstruct(aligned, tmp_path / "v.h5", Tomography(memory_GB=1e-6), CONTEXT)
