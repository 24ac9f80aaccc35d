"""Projection when all tilts turn about y: one sparse matrix, the same for every slice along y.

Voxel (z, x) is seen at x' = R00 x + R02 z, whatever its y. Its parts are shared bilinearly among pixels of tilt t. This
makes a sparse matrix W of n·nx rows (pixels) and nz·nx columns (voxels) with two to four entries per tilt and voxel.
With y contiguous in memory, forward is W times the array (nz·nx, ny) and the transpose is Wᵀ times the array
(n·nx, ny): the inner loop is an axpy over y, in vector registers. W and Wᵀ are both kept by rows, so that each output
row is written by one thread only: no atomics, and the same answer for any number of threads.

A volume does not fit into the caches of a CPU, and taken row by row W would read all of it anew for every tilt. There the
rows of W are therefore cut into segments, one for each tile of 16 × 16 voxel columns that the row crosses, and worked tile by
tile: a tile is read once for all tilts of a thread. Wᵀ is worked in the order of the same tiles.

CPU (numba) and CUDA versions of the product stand side by side.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from tomo.kernels import PARTS_PER_THREAD, compiled, cuda_types, share_parts
from tomo.kernels_euler import Geometry

CUDA_SOURCE = r"""
extern "C" __global__ void sparse_rows(
    const int rows, const int ny, const long long* start, const int* row, const int* column, const real* weight,
    const store* source, real* out)
{
    // Neighbouring threads hold neighbouring y, so that all reads of source are coalesced.
    const int y = blockIdx.y * blockDim.x + threadIdx.x;
    const int s = blockIdx.x * blockDim.y + threadIdx.y;
    if (y >= ny || s >= rows) return;
    real sum = 0;
    for (long long k = start[s]; k < start[s + 1]; ++k)
        sum += weight[k] * (real)source[(long long)column[k] * ny + y];
    out[(long long)row[s] * ny + y] = sum;
}
"""
CUDA_BLOCK = (32, 8)
TILE = 16
"""Voxels along z and x of a tile; with some hundred voxels along y it fits into the second cache of a core."""


@dataclass(frozen=True)
class SparseRows:
    """A sparse matrix of so many rows, kept by segments of rows (numpy or cupy arrays).

    Entries start[s] to start[s + 1] belong to segment s of row[s]. All segments of a row lie between two of the bounds.
    """

    rows: int
    start: Any
    row: Any
    column: Any
    weight: Any
    bounds: list[int]

    def on(self, xp: ModuleType) -> SparseRows:
        """The same matrix in the memory of another array module."""
        start, row, column, weight = map(xp.asarray, (self.start, self.row, self.column, self.weight))
        return SparseRows(self.rows, start, row, column, weight, self.bounds)


def tables(geometry: Geometry, dtype: np.dtype[Any], *, groups: int, tiled: bool) -> tuple[SparseRows, SparseRows]:
    """Matrix W (n·nx, nz·nx) and its transpose, for a geometry whose rotations turn about y.

    groups: how many threads can share the work. tiled: whether rows of W are cut into segments by tiles of the volume.
    """
    rotations, nx, nz = geometry.rotations, geometry.image_shape[1], geometry.planes
    z = geometry.first + np.arange(nz)
    tilts = [
        _tilt_entries(matrix[0], shift, nx, z, geometry.offsets, dtype)
        for matrix, shift in zip(rotations, geometry.shifts_px[:, 0], strict=True)
    ]
    row = np.concatenate([pixel + tilt * nx for tilt, (pixel, _, _) in enumerate(tilts)])
    column = np.concatenate([voxel for _, voxel, _ in tilts])
    weight = np.concatenate([share for _, _, share in tilts])
    tiles = _tile_of_voxels(nz, nx)
    return (
        _by_tiles(row, column, weight, tiles if tiled else tiles * 0, -(-len(tilts) // groups) * nx, len(tilts) * nx),
        _in_order_of(tiles, column, row, weight, groups),
    )


def multiply(matrix: SparseRows, source: Any, xp: ModuleType, threads: int) -> Any:
    """Product (rows, ny) of the matrix with source (columns, ny), C-contiguous, on the device where both lie.

    With cupy no row may have more than one segment, and the source may be of half precision.
    """
    segments, ny = len(matrix.row), source.shape[1]
    out = xp.zeros((matrix.rows, ny), matrix.weight.dtype)
    parts = (matrix.start, matrix.row, matrix.column, matrix.weight, source, out)
    if xp is np:
        share_parts(_sparse_rows, matrix.bounds, threads, *parts)
    elif segments:
        grid = (-(-segments // CUDA_BLOCK[1]), -(-ny // CUDA_BLOCK[0]))
        _cuda_kernel(out.dtype.char, source.dtype.char)(grid, CUDA_BLOCK, (np.int32(segments), np.int32(ny), *parts))
    return out


def _tile_of_voxels(nz: int, nx: int) -> NDArray[np.int64]:
    """Number of the tile of every voxel column (nz·nx,)."""
    z, x = np.arange(nz)[:, None] // TILE, np.arange(nx) // TILE
    return (z * -(-nx // TILE) + x).ravel()


def _by_tiles(
    row: NDArray[np.int32],
    column: NDArray[np.int32],
    weight: NDArray[Any],
    tiles: NDArray[np.int64],
    per_group: int,
    rows: int,
) -> SparseRows:
    """Rows cut into segments by the tiles of their columns; group by group of so many rows, then tile by tile."""
    count = int(tiles.max()) + 1
    segment = (row // per_group * count + tiles[column]) * per_group + row % per_group
    groups = -(-rows // per_group)
    entries = csr_array((weight, (segment, column)), shape=(groups * count * per_group, len(tiles)))
    filled = np.flatnonzero(np.diff(entries.indptr))
    start = np.append(entries.indptr[filled], entries.nnz).astype(np.int64)
    at = filled // (count * per_group) * per_group + filled % per_group
    bounds = np.searchsorted(filled, np.arange(groups + 1) * count * per_group).tolist()
    return SparseRows(rows, start, at.astype(np.int32), entries.indices.astype(np.int32), entries.data, bounds)


def _in_order_of(
    tiles: NDArray[np.int64], row: NDArray[np.int32], column: NDArray[np.int32], weight: NDArray[Any], groups: int
) -> SparseRows:
    """Whole rows, those of one tile after the other."""
    rows = len(tiles)
    order = np.argsort(tiles, kind="stable")
    rank = np.empty(rows, np.int64)
    rank[order] = np.arange(rows)
    entries = csr_array((weight, (rank[row], column)), shape=(rows, int(column.max(initial=0)) + 1))
    parts = groups * PARTS_PER_THREAD
    bounds = [rows * part // parts for part in range(parts + 1)]
    start, at = entries.indptr.astype(np.int64), order.astype(np.int32)
    return SparseRows(rows, start, at, entries.indices.astype(np.int32), entries.data, bounds)


def _tilt_entries(
    frame: NDArray[np.float64],
    shift_px: float,
    nx: int,
    z: NDArray[np.int64],
    offsets: NDArray[np.float64],
    dtype: np.dtype[Any],
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[Any]]:
    """Pixel, voxel and weight of every entry of one tilt, in the order of voxels; frame is the first row of R."""
    x = np.arange(nx) - nx // 2
    centre = (frame[0] * x + frame[2] * z[:, None]).ravel() + nx // 2 + shift_px
    shifts = offsets @ frame
    # All parts of a voxel are seen by the pixels from that of the first part to that behind the last.
    seen_by = np.arange(int(np.ceil(np.ptp(shifts))) + 2, dtype=np.int32)
    pixel = np.floor(centre + shifts.min()).astype(np.int32)[:, None] + seen_by
    distance = centre[:, None] - pixel
    weight = np.mean([np.maximum(1.0 - np.abs(distance + shift), 0.0) for shift in shifts], axis=0).astype(dtype)
    voxel = np.broadcast_to(np.arange(nx * len(z), dtype=np.int32)[:, None], pixel.shape)
    seen = (weight > 0.0) & (pixel >= 0) & (pixel < nx)
    return pixel[seen], voxel[seen], weight[seen]


@compiled
def _sparse_rows(
    start: int,
    stop: int,
    first: NDArray[np.int64],
    row: NDArray[np.int32],
    column: NDArray[np.int32],
    weight: NDArray[np.floating],
    source: NDArray[np.floating],
    out: NDArray[np.floating],
) -> None:
    """Segments of the product, added up; eight entries per pass over y: nine loads and one store serve eight products."""
    ny = source.shape[1]
    for segment in range(start, stop):
        o = out[row[segment]]
        k, end = first[segment], first[segment + 1]
        while k + 8 <= end:
            w0, w1, w2, w3 = weight[k], weight[k + 1], weight[k + 2], weight[k + 3]
            w4, w5, w6, w7 = weight[k + 4], weight[k + 5], weight[k + 6], weight[k + 7]
            s0, s1, s2, s3 = source[column[k]], source[column[k + 1]], source[column[k + 2]], source[column[k + 3]]
            s4, s5, s6, s7 = source[column[k + 4]], source[column[k + 5]], source[column[k + 6]], source[column[k + 7]]
            for y in range(ny):
                low = w0 * s0[y] + w1 * s1[y] + w2 * s2[y] + w3 * s3[y]
                high = w4 * s4[y] + w5 * s5[y] + w6 * s6[y] + w7 * s7[y]
                o[y] += low + high
            k += 8
        while k + 4 <= end:
            w0, w1, w2, w3 = weight[k], weight[k + 1], weight[k + 2], weight[k + 3]
            s0, s1, s2, s3 = source[column[k]], source[column[k + 1]], source[column[k + 2]], source[column[k + 3]]
            for y in range(ny):
                o[y] += w0 * s0[y] + w1 * s1[y] + w2 * s2[y] + w3 * s3[y]
            k += 4
        while k < end:
            w0, s0 = weight[k], source[column[k]]
            for y in range(ny):
                o[y] += w0 * s0[y]
            k += 1


@functools.cache
def _cuda_kernel(real: str, store: str) -> Any:
    """The CUDA product for dtype characters."""
    import cupy

    return cupy.RawKernel(cuda_types(real, store) + CUDA_SOURCE, "sparse_rows")
