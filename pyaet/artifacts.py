"""Results on disk: written whole or not at all, each carrying the key of what made it.

Every artifact is written to a temporary name in its own folder, flushed to disk and renamed over its final name, so a
reader never meets half a file, whenever the writer is killed. The key is a SHA-256 over the settings of the stage, the
keys of what it read and the version of pyaet; `made_by(path)` reads it back without reading the data.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

import pyaet
from pyaet.io.errors import InputError, RunError

UNFINISHED = ".*.part"
"""Names of files whose writer was killed; nobody reads them."""

_WHOLE_FILE_BYTES = 256 * 2**20
_SAMPLES = 64
_SAMPLE_BYTES = 2**20


class Data(NamedTuple):
    """An array on its way into a file, with its unit (`""` for a pure number)."""

    array: Any
    unit: str


def key_of(*parts: Any) -> str:
    """Hash of JSON-able parts and of the version of pyaet."""
    text = json.dumps([pyaet.__version__, *parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def refuse_foreign(*paths: Path) -> None:
    """Raise `InputError` for a file that is about to be replaced and was not made by pyaet."""
    for path in paths:
        if path.exists() and made_by(path) is None:
            raise InputError(f"{path}: exists and was not made by pyaet; choose another --out, or move it away")


def fingerprint(path: Path) -> str:
    """Hash of a file's content; files above 256 MiB by size, time and 64 samples of 1 MiB."""
    digest = hashlib.sha256()
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            if size <= _WHOLE_FILE_BYTES:
                while block := file.read(_SAMPLE_BYTES):
                    digest.update(block)
            else:
                digest.update(f"{size} {path.stat().st_mtime_ns}".encode())
                for offset in np.linspace(0, size - _SAMPLE_BYTES, _SAMPLES).astype(int):
                    file.seek(int(offset))
                    digest.update(file.read(_SAMPLE_BYTES))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    return digest.hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it becomes `path`, on any failure it is removed."""
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(f"{path}: the disk is full; free some space and run the same command to resume") from error
        if isinstance(error, PermissionError):
            raise InputError(f"{path}: cannot be written (permission denied); choose another --out") from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EROFS):
            raise InputError(f"{path}: cannot be written ({error.strerror}); choose another --out") from error
        raise
    finally:
        if temporary is not None:
            with suppress(FileNotFoundError):
                temporary.unlink()


def write_h5(path: Path, data: Mapping[str, Data], attributes: Mapping[str, Any], key: str = "") -> None:
    """Write datasets with their units, attributes and the key, atomically."""
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        for name, (array, unit) in data.items():
            dataset = file.create_dataset(name, data=np.asarray(array))
            dataset.attrs["unit"] = unit
        file.attrs.update(attributes)
        file.attrs["made_by"] = key
        file.attrs["pyaet_version"] = pyaet.__version__


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """JSON that any reader takes: numbers that are not finite become null."""
    return json.dumps(_finite(value), indent=1, allow_nan=False) + "\n"


@contextmanager
def reading_h5(path: Path, *datasets: str) -> Iterator[h5py.File]:
    """Open an artifact; whatever is wrong with it becomes one sentence."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        file = h5py.File(path, "r")
    except PermissionError:
        raise InputError(f"{path}: cannot be read (permission denied)") from None
    except OSError:
        raise InputError(f"{path}: not a readable HDF5 file (truncated or of another kind); make it again") from None
    with file:
        for name in datasets:
            if name not in file:
                found = ", ".join(file) or "nothing"
                raise InputError(f"{path}: dataset {name!r} is missing; the file holds {found}")
        yield file


def attribute(file: h5py.File, name: str) -> Any:
    if name not in file.attrs:
        found = ", ".join(file.attrs) or "none"
        raise InputError(f"{file.filename}: attribute {name!r} is missing; the file has {found}")
    return file.attrs[name]


def made_by(path: Path) -> str | None:
    """The key inside an artifact, or None where there is no readable artifact."""
    try:
        if path.suffix == ".h5":
            with h5py.File(path, "r") as file:
                return str(file.attrs["made_by"]) if "made_by" in file.attrs else None
        if path.suffix == ".json":
            return json.loads(path.read_text()).get("made_by")
        if path.suffix == ".extxyz":
            with open(path) as file:
                file.readline()
                return next(
                    (w.split("=")[1].strip('"') for w in file.readline().split() if w.startswith("made_by=")), None
                )
    except (OSError, ValueError, AttributeError):
        return None
    return None


def _finite(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
