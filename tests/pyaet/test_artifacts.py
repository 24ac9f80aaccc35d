"""Artifacts: whole or absent, with their key and units."""

from __future__ import annotations

import errno
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

from pyaet import artifacts
from pyaet.artifacts import Data
from pyaet.io.errors import InputError, RunError


def test_an_h5_artifact_carries_units_and_key(tmp_path: Path) -> None:
    path = tmp_path / "volume.h5"
    artifacts.write_h5(path, {"volume": Data(np.ones((2, 3, 4)), "rad/voxel")}, {"voxel_A": 0.3}, "abc")
    with h5py.File(path) as file:
        assert file["volume"].attrs["unit"] == "rad/voxel"
        assert file.attrs["voxel_A"] == 0.3
    assert artifacts.made_by(path) == "abc"
    assert [p.name for p in tmp_path.iterdir()] == ["volume.h5"]


def test_a_json_artifact_carries_its_key_and_numpy_numbers(tmp_path: Path) -> None:
    path = tmp_path / "rings.json"
    artifacts.write_json(path, {"made_by": "k", "n": np.int64(3), "list": np.arange(2)})
    assert artifacts.made_by(path) == "k"


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    artifacts.write_text(path, "old")
    with pytest.raises(ZeroDivisionError), artifacts.replacing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="the disk is full"), artifacts.replacing(tmp_path / "a.h5"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_a_killed_writer_leaves_no_half_file_under_the_final_name(tmp_path: Path) -> None:
    path = tmp_path / "big.h5"
    code = f"""
import numpy as np
from pathlib import Path
from pyaet.artifacts import Data, write_h5
while True:
    write_h5(Path({str(path)!r}), {{"a": Data(np.ones(2_000_000), "")}}, {{}}, "key")
"""
    writer = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    for _ in range(5):
        while not path.exists():
            time.sleep(0.02)
            assert writer.poll() is None
        time.sleep(0.05)
        with h5py.File(path) as file:
            assert file["a"][-1] == 1
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    with h5py.File(path) as file:
        assert file["a"].shape == (2_000_000,)
        assert file["a"][()].min() == 1
    assert artifacts.made_by(path) == "key"


def test_a_truncated_artifact_has_no_key_and_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "volume.h5"
    artifacts.write_h5(path, {"volume": Data(np.ones(100_000), "")}, {}, "abc")
    path.write_bytes(path.read_bytes()[:50_000])
    assert artifacts.made_by(path) is None
    with pytest.raises(InputError, match="not a readable HDF5 file"), artifacts.reading_h5(path, "volume"):
        pass


def test_a_missing_dataset_or_attribute_names_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "volume.h5"
    artifacts.write_h5(path, {"density": Data(np.ones(3), "")}, {}, "abc")
    with (
        pytest.raises(InputError, match=r"'volume' is missing; the file holds density"),
        artifacts.reading_h5(path, "volume"),
    ):
        pass
    with (
        artifacts.reading_h5(path) as file,
        pytest.raises(InputError, match=r"'voxel_A' is missing; the file has made_by"),
    ):
        artifacts.attribute(file, "voxel_A")


def test_the_fingerprint_follows_the_content_and_not_the_name(tmp_path: Path) -> None:
    for name, text in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / name).write_text(text)
    a, b, c = (artifacts.fingerprint(tmp_path / name) for name in "abc")
    assert a == b != c


def test_the_key_covers_every_part_and_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = artifacts.key_of("stage", {"a": 1}, "upstream")
    assert before == artifacts.key_of("stage", {"a": 1}, "upstream")
    assert before != artifacts.key_of("stage", {"a": 2}, "upstream")
    monkeypatch.setattr("pyaet.__version__", "9")
    assert before != artifacts.key_of("stage", {"a": 1}, "upstream")


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    value = {"a": float("nan"), "b": [np.float64("inf"), np.array([1.0, np.nan])], "c": (1, True, "x", None)}
    assert json.loads(artifacts.json_text(value)) == {"a": None, "b": [None, [1.0, None]], "c": [1, True, "x", None]}


def test_foreign_files_are_not_replaced(tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine.json", tmp_path / "theirs.h5"
    artifacts.write_json(mine, {"made_by": ""})
    artifacts.refuse_foreign(mine, tmp_path / "absent.h5")
    with h5py.File(theirs, "w") as file:
        file["x"] = 1
    with pytest.raises(InputError, match=r"theirs\.h5: exists and was not made by pyaet"):
        artifacts.refuse_foreign(mine, theirs)
