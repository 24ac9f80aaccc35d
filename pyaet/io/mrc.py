"""MRC stacks: sections as (section, y, x).

Header of 1024 bytes, then `nsymbt` bytes of extended header, then the values, x fastest. Source: Cheng et al.,
J. Struct. Biol. 192, 146 (2015), doi:10.1016/j.jsb.2015.04.002. Rows are returned in the order of the file.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from pyaet.io.errors import InputError
from pyaet.io.source import FileArray, reading

HEADER_BYTES = 1024
_MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_IMOD_STAMP = 1146047817


def open_mrc(path: Path) -> FileArray:
    """Describe the sections of an MRC file (modes 0, 1, 2, 6, 12) as one array (section, y, x)."""
    with reading(path, "MRC"):
        header = _header(path)
        order = _byte_order(path, header)
        nx, ny, nz, mode = struct.unpack_from(order + "4i", header, 0)
        shape, dtype = (nz, ny, nx), _dtype(path, header, order, mode)
        offset = HEADER_BYTES + struct.unpack_from(order + "i", header, 92)[0]
        _check_axes(path, header, order)
        _check_length(path, offset, shape, dtype)

    def read() -> np.ndarray:
        with reading(path, "MRC"):
            values = np.fromfile(path, dtype=dtype, count=int(np.prod(shape, dtype=np.int64)), offset=offset)
            return values.reshape(shape)

    return FileArray(path, None, shape, dtype, read, _pixel_A(header, order))


def _header(path: Path) -> bytes:
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        raise InputError(f"{path}: truncated: {len(header)} bytes, an MRC header alone has {HEADER_BYTES}")
    return header


def _byte_order(path: Path, header: bytes) -> str:
    """Return '<' or '>' from the machine stamp, or from which order makes sense where old files have none."""
    if header[212] in (0x44, 0x11):
        return "<" if header[212] == 0x44 else ">"
    for order in "<>":
        nx, ny, nz, mode = struct.unpack_from(order + "4i", header, 0)
        if min(nx, ny, nz) > 0 and max(nx, ny, nz) < 1 << 20 and 0 <= mode < 128:
            return order
    raise InputError(f"{path}: is not an MRC file (no machine stamp, no sensible size in its header)")


def _dtype(path: Path, header: bytes, order: str, mode: int) -> np.dtype:
    if mode not in _MODES:
        raise InputError(f"{path}: MRC mode {mode} is not supported; expected one of {', '.join(map(str, _MODES))}")
    stamp, flags = struct.unpack_from(order + "2i", header, 152)
    if mode == 0 and stamp == _IMOD_STAMP and not flags & 1:  # IMOD wrote bytes unsigned unless bit 0 says otherwise
        return np.dtype("u1")
    return np.dtype(order + _MODES[mode])


def _check_axes(path: Path, header: bytes, order: str) -> None:
    axes = struct.unpack_from(order + "3i", header, 64)
    if axes not in ((1, 2, 3), (0, 0, 0)):
        raise InputError(
            f"{path}: columns, rows, sections are the axes {axes}; expected (1, 2, 3); rewrite the file so"
        )


def _check_length(path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if min(shape) <= 0 or offset < HEADER_BYTES:
        raise InputError(f"{path}: the MRC header is damaged: size {shape}, data from byte {offset}")
    expected = offset + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    length = path.stat().st_size
    if length < expected:
        raise InputError(f"{path}: truncated: {length} bytes, its header announces {expected}; copy the file again")


def _pixel_A(header: bytes, order: str) -> float | None:
    samples = struct.unpack_from(order + "i", header, 28)[0]
    length = struct.unpack_from(order + "f", header, 40)[0]
    return length / samples if samples > 0 and np.isfinite(length) and length > 0 else None
