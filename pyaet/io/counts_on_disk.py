"""Diffraction patterns that stay in their file and are read where they are asked for.

A data set that lies in one piece is mapped into memory. Of a compressed one whole blocks of its chunks are read, and the last
ones kept, so that a pass through the scan decompresses every block once. Either way the patterns are one stack (n, ky, kx) in
row-major scan order, indexed as a NumPy array is; the first index says what is read.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import h5py
import numpy as np

CACHE_BYTES = 256 << 20
_BLOCK_BYTES = 1 << 20


def mapped(dataset: h5py.Dataset, path: Path) -> np.ndarray | None:
    """The data set (scan_y, scan_x, ky, kx) as a map (n, ky, kx) of its file, or None where it does not lie in one piece."""
    plain = dataset.chunks is None and not dataset.is_virtual and dataset.external is None
    offset = dataset.id.get_offset() if plain else None
    if offset is None or not dataset.dtype.isnative:
        return None
    ny, nx, *detector = dataset.shape
    stack = np.memmap(path, dataset.dtype, "r", offset, (ny * nx, *detector))
    return stack if np.array_equal(stack[0], dataset[0, 0]) else None


class BlockReader:
    """The patterns (n, ky, kx) of a data set (scan_y, scan_x, ky, kx), in the type `dtype`, a few blocks of it in memory."""

    def __init__(self, dataset: h5py.Dataset, dtype: Any, cache_bytes: int = CACHE_BYTES) -> None:
        self._dataset, self.dtype, self._cache_bytes = dataset, np.dtype(dtype), cache_bytes
        ny, nx, *detector = dataset.shape
        self.shape = (ny * nx, *detector)
        self.ndim = 3
        self._block = _block_of(dataset)
        self._blocks: OrderedDict[int, np.ndarray] = OrderedDict()
        self._held_bytes = 0

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def block_bytes(self) -> int:
        return math.prod(self._block) * math.prod(self.shape[1:]) * self.dtype.itemsize

    def __getitem__(self, index: Any) -> np.ndarray:
        rows, *pixels = index if isinstance(index, tuple) else (index,)
        ids = np.arange(len(self))[rows]
        if ids.ndim == 0:
            return self._rows(ids[None])[0][tuple(pixels)]
        return self._rows(ids)[(slice(None), *pixels)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def _rows(self, ids: np.ndarray) -> np.ndarray:
        (y, x), (by, bx) = np.divmod(ids, self._dataset.shape[1]), self._block
        across = -(-self._dataset.shape[1] // bx)
        blocks = (y // by) * across + x // bx
        out = np.empty((len(ids), *self.shape[1:]), self.dtype)
        for number in np.unique(blocks):
            here = np.flatnonzero(blocks == number)
            out[here] = self._read(int(number), across)[y[here] % by, x[here] % bx]
        return out

    def _read(self, number: int, across: int) -> np.ndarray:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        (row, column), (by, bx) = divmod(number, across), self._block
        block = self._dataset[row * by : (row + 1) * by, column * bx : (column + 1) * bx].astype(self.dtype, copy=False)
        self._blocks[number] = block
        self._held_bytes += block.nbytes
        while self._held_bytes > self._cache_bytes and len(self._blocks) > 1:
            self._held_bytes -= self._blocks.popitem(last=False)[1].nbytes
        return block


def _block_of(dataset: h5py.Dataset) -> tuple[int, int]:
    """Scan positions (y, x) that are read together: whole chunks, about a megabyte at least."""
    ny, nx, ky, kx = dataset.shape
    by, bx = dataset.chunks[:2] if dataset.chunks else (1, 1)
    each = by * bx * ky * kx * dataset.dtype.itemsize
    return min(by, ny), min(bx * max(1, _BLOCK_BYTES // each), nx)
