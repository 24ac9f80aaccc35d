"""TIFF stacks: all pages of a file as (page, y, x), read with tifffile.

A cut file can still look like a shorter one, so the page chain and every strip are checked against the file's length.
"""

from __future__ import annotations

import logging
import struct
from pathlib import Path
from typing import Any

import numpy as np

from pyaet.io.errors import InputError
from pyaet.io.source import FileArray, reading


def open_tiff(path: Path) -> FileArray:
    """Describe the images of a TIFF file as one array."""
    # tifffile logs what it finds odd and carries on; here each such thing is an error with its own sentence.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    import tifffile

    with reading(path, "TIFF"), tifffile.TiffFile(path) as file:
        _check_complete(path, file)
        if len(file.series) != 1:
            shapes = ", ".join(str(series.shape) for series in file.series)
            raise InputError(f"{path}: the pages form {len(file.series)} arrays {shapes}; expected images of one size")
        series = file.series[0]
        if series.axes.endswith("S"):
            raise InputError(f"{path}: holds colour images {series.shape}; expected grey values, one per pixel")
        shape, dtype = tuple(series.shape), np.dtype(series.dtype)

    def read() -> np.ndarray:
        with reading(path, "TIFF"), tifffile.TiffFile(path) as file:
            return file.series[0].asarray()

    return FileArray(path, None, shape, dtype, read)


def _check_complete(path: Path, file: Any) -> None:
    length = path.stat().st_size
    last = 0
    for number, page in enumerate(file.pages):
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            if offset + count > length:
                end = offset + count
                raise InputError(f"{path}: truncated: page {number} ends at byte {end}, the file at {length}")
        last = page.offset
    if _next_page(path, file.tiff, last) != 0:
        raise InputError(f"{path}: truncated: page {len(file.pages)} is announced and missing; copy the file again")


def _next_page(path: Path, layout: Any, offset: int) -> int:
    """Return where the page after the one at this offset begins, 0 after the last one (TIFF 6.0, section 2)."""
    with path.open("rb") as raw:
        raw.seek(offset)
        (tags,) = struct.unpack(layout.tagnoformat, raw.read(layout.tagnosize))
        raw.seek(offset + layout.tagnosize + tags * layout.tagsize)
        (following,) = struct.unpack(layout.offsetformat, raw.read(layout.offsetsize))
    return int(following)
