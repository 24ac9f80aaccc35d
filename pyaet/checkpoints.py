"""A reconstruction that is under way, on disk: written at most every half minute, taken up again, removed at its end.

Beside `tilt_000.h5` it is `tilt_000.checkpoint.h5`. It carries the key of the file it is on the way to, so that one made with
other data or settings is never taken up.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from pyaet.artifacts import Data, write_h5

SUFFIX = ".checkpoint.h5"
INTERVAL_S = 30.0
"""What an interruption costs at most, beside the iteration under way."""


def checkpoint_of(target: Path) -> Path:
    return target.with_suffix(SUFFIX)


def finished_tilts(folder: Path) -> list[Path]:
    """The reconstructed tilts of a folder, without what is still under way."""
    return sorted(path for path in folder.glob("tilt_*.h5") if not path.name.endswith(SUFFIX))


def read_checkpoint(path: Path, key: str) -> tuple[dict[str, np.ndarray] | None, str]:
    """The arrays of a checkpoint made with `key`, by their names; None and a note where there is none to go on from."""
    if not path.exists():
        return None, ""
    arrays: dict[str, np.ndarray] = {}

    def collect(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            arrays[name] = item[()]

    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("made_by") != key:
                return None, f"{path.name} was left by other data or settings and is not used"
            file.visititems(collect)
    except (OSError, RuntimeError) as error:
        return None, f"{path.name} cannot be read and is not used ({error})"
    return arrays, ""


class CheckpointWriter:
    """Says when the next checkpoint is due and writes it."""

    def __init__(self, path: Path, key: str, interval_s: float) -> None:
        self._path, self._key, self._interval_s = path, key, interval_s
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        return time.monotonic() - self._last >= self._interval_s

    def write(self, arrays: Mapping[str, np.ndarray]) -> None:
        write_h5(self._path, {name: Data(array, "") for name, array in arrays.items()}, {}, self._key)
        self._last = time.monotonic()
