"""Projection when all tilts turn about y: one sparse matrix, the same for every slice along y.

Voxel (z, x) is seen at x' = R00 x + R02 z, whatever its y. Its parts are shared bilinearly among pixels of tilt t. This
makes a sparse matrix W of n·nx rows (pixels) and nz·nx columns (voxels) with two to four entries per tilt and voxel.
With y contiguous in memory, forward is W times the array (nz·nx, ny) and the transpose is Wᵀ times the array
(n·nx, ny): the inner loop is an axpy over y, in vector registers. W and Wᵀ are both kept by rows, so that each output
row is written by one thread only: no atomics, and the same answer for any number of threads.

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

from tomo.kernels import compiled, share_out
from tomo.kernels_euler import Geometry

CUDA_SOURCE = r"""
extern "C" __global__ void sparse_rows(
    const int rows, const int ny, const long long* start, const int* column, const real* weight,
    const real* source, real* out)
{
    // Neighbouring threads hold neighbouring y, so that all reads of source are coalesced.
    const int y = blockIdx.y * blockDim.x + threadIdx.x;
    const int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (y >= ny || row >= rows) return;
    real sum = 0;
    for (long long k = start[row]; k < start[row + 1]; ++k)
        sum += weight[k] * source[(long long)column[k] * ny + y];
    out[(long long)row * ny + y] = sum;
}
"""
CUDA_BLOCK = (32, 8)


@dataclass(frozen=True)
class SparseRows:
    """A sparse matrix kept by rows: entries start[i] to start[i + 1] belong to row i (numpy or cupy arrays)."""

    start: Any
    column: Any
    weight: Any

    def on(self, xp: ModuleType) -> SparseRows:
        """The same matrix in the memory of another array module."""
        return SparseRows(xp.asarray(self.start), xp.asarray(self.column), xp.asarray(self.weight))


def tables(geometry: Geometry, dtype: np.dtype[Any]) -> tuple[SparseRows, SparseRows]:
    """Matrix W (n·nx, nz·nx) and its transpose, for a geometry whose rotations turn about y."""
    rotations, nx, nz = geometry.rotations, geometry.image_shape[1], geometry.planes
    z = geometry.first + np.arange(nz)
    tilts = [
        _tilt_entries(matrix[0], shift, nx, z, geometry.offsets, dtype)
        for matrix, shift in zip(rotations, geometry.shifts_px[:, 0], strict=True)
    ]
    row = np.concatenate([pixel + tilt * nx for tilt, (pixel, _, _) in enumerate(tilts)])
    column = np.concatenate([voxel for _, voxel, _ in tilts])
    weight = np.concatenate([share for _, _, share in tilts])
    w = csr_array((weight, (row, column)), shape=(len(rotations) * nx, nz * nx))
    return _kept_by_rows(w), _kept_by_rows(w.T.tocsr())


def multiply(matrix: SparseRows, source: Any, xp: ModuleType, threads: int) -> Any:
    """Product (rows, ny) of the matrix with source (columns, ny), C-contiguous, on the device where both lie."""
    rows, ny = len(matrix.start) - 1, source.shape[1]
    out = xp.empty((rows, ny), source.dtype)
    if xp is np:
        share_out(_sparse_rows, rows, threads, matrix.start, matrix.column, matrix.weight, source, out)
        return out
    grid = (-(-rows // CUDA_BLOCK[1]), -(-ny // CUDA_BLOCK[0]))
    arguments = (np.int32(rows), np.int32(ny), matrix.start, matrix.column, matrix.weight, source, out)
    _cuda_kernel(source.dtype.char)(grid, CUDA_BLOCK, arguments)
    return out


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


def _kept_by_rows(matrix: csr_array) -> SparseRows:
    return SparseRows(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data)


@compiled
def _sparse_rows(
    start: int,
    stop: int,
    row_start: NDArray[np.int64],
    column: NDArray[np.int32],
    weight: NDArray[np.floating],
    source: NDArray[np.floating],
    out: NDArray[np.floating],
) -> None:
    """Rows of the product; eight entries per pass over y, so that nine loads and one store serve eight products."""
    ny = source.shape[1]
    for row in range(start, stop):
        o = out[row]
        o[:] = 0.0
        k, end = row_start[row], row_start[row + 1]
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
        while k < end:
            w0, s0 = weight[k], source[column[k]]
            for y in range(ny):
                o[y] += w0 * s0[y]
            k += 1


@functools.cache
def _cuda_kernel(kind: str) -> Any:
    """The CUDA product for dtype character "f" or "d"."""
    import cupy

    real = {"f": "float", "d": "double"}[kind]
    return cupy.RawKernel(f"typedef {real} real;\n{CUDA_SOURCE}", "sparse_rows")
