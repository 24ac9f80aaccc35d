"""One tilt through the stage: what its file holds, checkpoints, patterns that stay on disk, the picture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

import ptycho
from pyaet.checkpoints import checkpoint_of, finished_tilts
from pyaet.io.fourdstem import inspect_tilt, opened_counts, read_counts, write_tilt
from pyaet.plan import Ptychography
from pyaet.simulate.fourdstem import Recording, simulate_tilt
from pyaet.stages.calibration import CalibrationTask, calibrate_tilt, optics_of
from pyaet.stages.tilt import TiltTask, _size, reconstruct_tilt, tilt_key

RECORDING = Recording(scan_shape=(14, 12), window_A=12.0, dose_e_per_A2=1e5, phonons=1, slice_A=4.0)
SETTINGS = Ptychography(
    iterations=4, update_probe=1, update_positions=1, held_out=0.1, slices=2, slice_A=3.0, probe_modes=2
)


@pytest.fixture(scope="module")
def tilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tilt") / "tilt.h5"
    counts = simulate_tilt(
        np.array([[1.0, -1.0, 0.5]]), ("Si",), (0.0, 24.0, 0.0), RECORDING, rng=np.random.default_rng(1)
    )
    write_tilt(
        path, counts, energy_eV=80e3, semiangle_mrad=30.0, defocus_A=120.0, step_A=0.5, pixel_mrad=RECORDING.pixel_mrad,
        angles_deg=(0.0, 24.0, 0.0), dose_e_per_A2=1e5,
    )  # fmt: skip
    return path


def task_for(tilt: Path, target: Path, settings: Ptychography = SETTINGS, **changes: object) -> TiltTask:
    file = inspect_tilt(tilt)
    task = TiltTask(file, target, settings, "cpu", 1, 0, tilt_key(file, settings, 0))
    return replace(task, **changes)  # type: ignore[arg-type]


def content(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a reconstruction but its seconds."""
    with h5py.File(path) as file:
        return {name: file[name][()] for name in file if name not in ("cpu_s", "wall_s")}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name], equal_nan=True) for name in a)


class Stopped(Exception):
    pass


def interrupted(task: TiltTask, after: int) -> None:
    def stop(done: int, total: int, value: float) -> None:
        if done > after:
            raise Stopped

    with pytest.raises(Stopped):
        reconstruct_tilt(task, stop)


def test_the_file_of_a_tilt_holds_what_the_contract_names(tilt: Path, tmp_path: Path) -> None:
    reconstruct_tilt(task_for(tilt, tmp_path / "tilt_000.h5"))
    with h5py.File(tmp_path / "tilt_000.h5") as file:
        held = {name: (item.dtype.str[1:], item.ndim) for name, item in file.items()}
        assert held["phase"] == ("f4", 2)
        assert held["object"] == ("c8", 3)
        assert held["probe"] == ("c8", 3)
        assert {"positions_A", "loss", "cpu_s", "wall_s", "validation", "gaps_A", "tilts_mrad"} <= set(held)
        assert len(file["validation"]) == len(file["loss"]) == 4
        np.testing.assert_array_equal(file["gaps_A"], [3.0])
        assert file["loss"].attrs["unit"] == ""
        assert all(finding["sentence"] for finding in json.loads(file.attrs["findings"]))
        assert abs(file.attrs["loss_excess"]) < 0.3 * file["loss"][-1]
        assert file.attrs["slice_A"] == 3.0
        assert file.attrs["defocus_A"] == pytest.approx(120, abs=15)
        intensity = (np.abs(file["probe"][()]) ** 2).sum(0)
    axes = [np.arange(n) - n // 2 for n in intensity.shape]
    centroid = [(intensity.sum(1 - i) * axis).sum() / intensity.sum() for i, axis in enumerate(axes)]
    np.testing.assert_allclose(centroid, 0, atol=0.05)


def test_an_interrupted_tilt_ends_as_an_undisturbed_one(tilt: Path, tmp_path: Path) -> None:
    whole, broken = task_for(tilt, tmp_path / "a" / "tilt_000.h5"), task_for(tilt, tmp_path / "b" / "tilt_000.h5")
    reconstruct_tilt(whole)
    broken = replace(broken, checkpoint_s=0.0)
    interrupted(broken, after=2)
    assert checkpoint_of(broken.target).exists()
    assert finished_tilts(broken.target.parent) == []
    assert reconstruct_tilt(broken)["note"] == "resumed behind iteration 2"
    assert same(content(whole.target), content(broken.target))
    assert not checkpoint_of(broken.target).exists()
    assert reconstruct_tilt(broken) == {}


def test_a_checkpoint_of_other_settings_or_a_broken_one_is_not_used(tilt: Path, tmp_path: Path) -> None:
    target = tmp_path / "tilt_000.h5"
    other = task_for(tilt, target, Ptychography(iterations=4, update_probe=2))
    interrupted(replace(other, checkpoint_s=0.0), after=2)
    checkpoint = checkpoint_of(target)
    assert "other data or settings" in reconstruct_tilt(task_for(tilt, target))["note"]
    right = content(target)
    for damage in (b"not a file", None):
        target.unlink()
        if damage is None:
            with h5py.File(checkpoint, "w") as file:
                file["object"] = np.zeros(3)
                file.attrs["made_by"] = task_for(tilt, target).key
        else:
            checkpoint.write_bytes(damage)
        assert "is not used" in reconstruct_tilt(task_for(tilt, target))["note"]
        assert same(content(target), right)
        assert not checkpoint.exists()


def test_checkpoints_are_not_written_more_often_than_asked(tilt: Path, tmp_path: Path) -> None:
    task = task_for(tilt, tmp_path / "tilt_000.h5")
    interrupted(task, after=2)
    assert not checkpoint_of(task.target).exists()


STORED = {
    "contiguous": {},
    "row by row": {"chunks": (1, 12), "compression": "gzip"},
    "blocks": {"chunks": (4, 5), "compression": "gzip"},
    "patterns": {"chunks": (1, 1), "compression": "lzf"},
    "big-endian": {"dtype": ">u2"},
    "float": {"dtype": "f4", "chunks": (3, 4)},
    "signed": {"dtype": "i4"},
}


def stored(tilt: Path, path: Path, kind: str) -> Path:
    """The same tilt with its counts laid out in another way."""
    options = dict(STORED[kind])
    with h5py.File(tilt) as source, h5py.File(path, "w") as file:
        counts = source["counts"][()]
        if "chunks" in options:
            options["chunks"] += counts.shape[2:]
        file.create_dataset("counts", counts.shape, data=counts.astype(options.pop("dtype", counts.dtype)), **options)
        file.attrs.update(source.attrs)
    return path


@pytest.mark.parametrize("kind", STORED)
def test_patterns_on_disk_are_those_in_memory(tilt: Path, tmp_path: Path, kind: str) -> None:
    file = inspect_tilt(stored(tilt, tmp_path / "t.h5", kind))
    known = read_counts(file).reshape(-1, *file.shape[2:])
    assert known.dtype.isnative
    with opened_counts(file, 0) as counts:
        assert isinstance(counts, np.memmap) == (kind == "contiguous")
        assert (counts.shape, counts.dtype, len(counts)) == (known.shape, known.dtype, len(known))
        shuffled = np.random.default_rng(0).permutation(len(known))[:40]
        some = np.isin(np.arange(len(known)), shuffled)
        part = slice(7, 31), slice(3, 20), slice(None, None, 2)
        for rows in (slice(None), slice(7, 31), slice(3, 3), np.sort(shuffled), shuffled, some, 5, part, (5, 3)):
            np.testing.assert_array_equal(counts[rows], known[rows])


def test_few_blocks_are_held_whatever_is_asked_for(tilt: Path, tmp_path: Path) -> None:
    from pyaet.io.counts_on_disk import BlockReader

    path = stored(tilt, tmp_path / "t.h5", "blocks")
    with h5py.File(path) as file:
        reader = BlockReader(file["counts"], np.uint16, cache_bytes=1)
        np.testing.assert_array_equal(reader[:], file["counts"][()].reshape(reader.shape))
        assert len(reader._blocks) == 1


@pytest.mark.parametrize("kind", ["contiguous", "row by row", "float"])
def test_a_tilt_that_stays_on_disk_gives_the_same_bits(tilt: Path, tmp_path: Path, kind: str) -> None:
    path = stored(tilt, tmp_path / "t.h5", kind)
    settings = Ptychography(iterations=2, solver="lsqml", batch_size=50)
    found = [calibrate_tilt(CalibrationTask(inspect_tilt(path), limit)) for limit in (None, 0)]
    assert found[0].findings == found[1].findings
    np.testing.assert_array_equal(found[0].centres_px, found[1].centres_px)
    in_memory, on_disk = (
        task_for(path, tmp_path / name, settings, resident_bytes=limit, calibration=one)
        for name, limit, one in (("memory.h5", None, found[0]), ("disk.h5", 0, found[1]))
    )
    reconstruct_tilt(in_memory)
    reconstruct_tilt(on_disk)
    assert same(content(in_memory.target), content(on_disk.target))


def test_the_picture_is_a_picture_and_is_drawn_seldom(tilt: Path, tmp_path: Path) -> None:
    from matplotlib.image import imread

    task = task_for(tilt, tmp_path / "tilt_000.h5", picture=tmp_path / "live.png")
    reconstruct_tilt(task)
    assert not (tmp_path / "live.png").exists()
    task.target.unlink()
    reconstruct_tilt(replace(task, picture_at_end=True))
    image = imread(tmp_path / "live.png")
    assert min(image.shape[:2]) > 300
    assert np.ptp(image[..., :3]) > 0.9


def test_the_lens_of_the_file_reaches_the_engine_and_the_key(tilt: Path, tmp_path: Path) -> None:
    path = stored(tilt, tmp_path / "t.h5", "contiguous")
    plain = inspect_tilt(path)
    with h5py.File(path, "a") as file:
        file.attrs["c30_A"] = 5e4
    found = inspect_tilt(path)
    assert optics_of(plain).c30_A == 0
    assert optics_of(found).c30_A == 5e4
    assert tilt_key(found, SETTINGS, 0) != tilt_key(replace(found, aberrations={}), SETTINGS, 0)


def test_memory_is_counted_from_coordinate_0_wherever_the_scan_lies() -> None:
    class Task:
        tilt = type("Tilt", (), {"energy_eV": 80e3})()

    grid = np.stack(np.meshgrid(np.arange(6.0), np.arange(6.0), indexing="ij"), -1).reshape(-1, 2)
    patterns = ptycho.Patterns(np.ones((36, 16, 16), np.uint8), grid + np.array([1000.0, -3000.0]), 2.0)
    assert _size(Task(), patterns).field_A == (2010.0, 6000.0)
