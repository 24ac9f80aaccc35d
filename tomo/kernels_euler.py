"""Projection for any rotation: every part of every voxel is splatted bilinearly on the image, and gathered back.

Part s of voxel r is seen at p = (R (r + s))_{xy} and shares its value among the four pixels round p. On the CPU the
images lie in a frame wide enough for every voxel at every tilt, so that no pixel needs a bounds test; forward cuts the
image out of the frame (what fell outside is dropped), the transpose puts it into a frame of zeros. On CUDA the splat is
written with atomic sums, the gather without.

CPU (numba) and CUDA versions stand side by side.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomo.kernels import compiled, share_out

CUDA_SOURCE = r"""
// Position of a voxel part on the image of one tilt; frame holds the first two rows of R.
__device__ inline void seen_at(const real* frame, real x, real y, real z, real* px, real* py)
{
    *px = frame[0] * x + frame[1] * y + frame[2] * z;
    *py = frame[3] * x + frame[4] * y + frame[5] * z;
}

extern "C" __global__ void euler_forward(
    const int n, const int ny, const int nx, const int nz, const int parts, const real* frames, const real* offsets,
    const real* volume, real* images)
{
    // Rows of the volume run along grid x, the only one that may exceed 65535 blocks.
    const int i = blockIdx.y * blockDim.x + threadIdx.x;
    const int j = blockIdx.x % ny, k = blockIdx.x / ny, tilt = blockIdx.z;
    if (i >= nx) return;
    const real value = volume[((long long)k * ny + j) * nx + i] / parts;
    if (value == 0) return;
    real* image = images + (long long)tilt * ny * nx;
    for (int part = 0; part < parts; ++part) {
        const real* s = offsets + 3 * part;
        real px, py;
        seen_at(frames + 6 * tilt, i - nx / 2 + s[0], j - ny / 2 + s[1], k - nz / 2 + s[2], &px, &py);
        const real fx = floor(px), fy = floor(py), wx = px - fx, wy = py - fy;
        const int ix = (int)fx + nx / 2, iy = (int)fy + ny / 2;
        const bool x0 = ix >= 0 && ix < nx, x1 = ix >= -1 && ix < nx - 1;
        const bool y0 = iy >= 0 && iy < ny, y1 = iy >= -1 && iy < ny - 1;
        const long long at = (long long)iy * nx + ix;
        if (y0 && x0) atomicAdd(image + at, value * (1 - wy) * (1 - wx));
        if (y0 && x1) atomicAdd(image + at + 1, value * (1 - wy) * wx);
        if (y1 && x0) atomicAdd(image + at + nx, value * wy * (1 - wx));
        if (y1 && x1) atomicAdd(image + at + nx + 1, value * wy * wx);
    }
}

extern "C" __global__ void euler_transpose(
    const int n, const int ny, const int nx, const int nz, const int parts, const real* frames, const real* offsets,
    const real* images, real* volume)
{
    const int i = blockIdx.y * blockDim.x + threadIdx.x;
    const int j = blockIdx.x % ny, k = blockIdx.x / ny;
    if (i >= nx) return;
    real sum = 0;
    for (int tilt = 0; tilt < n; ++tilt) {
        const real* image = images + (long long)tilt * ny * nx;
        for (int part = 0; part < parts; ++part) {
            const real* s = offsets + 3 * part;
            real px, py;
            seen_at(frames + 6 * tilt, i - nx / 2 + s[0], j - ny / 2 + s[1], k - nz / 2 + s[2], &px, &py);
            const real fx = floor(px), fy = floor(py), wx = px - fx, wy = py - fy;
            const int ix = (int)fx + nx / 2, iy = (int)fy + ny / 2;
            const bool x0 = ix >= 0 && ix < nx, x1 = ix >= -1 && ix < nx - 1;
            const bool y0 = iy >= 0 && iy < ny, y1 = iy >= -1 && iy < ny - 1;
            const long long at = (long long)iy * nx + ix;
            if (y0 && x0) sum += image[at] * (1 - wy) * (1 - wx);
            if (y0 && x1) sum += image[at + 1] * (1 - wy) * wx;
            if (y1 && x0) sum += image[at + nx] * wy * (1 - wx);
            if (y1 && x1) sum += image[at + nx + 1] * wy * wx;
        }
    }
    volume[((long long)k * ny + j) * nx + i] = sum / parts;
}
"""
CUDA_BLOCK = (128,)


def forward(
    volume: Any,
    rotations: NDArray[np.float64],
    offsets: NDArray[np.float64],
    image_shape: tuple[int, int],
    threads: int,
) -> Any:
    """Images (n, y, x) of a C-contiguous volume (z, y, x); rotations (n, 3, 3), part centres (m, 3) as (x, y, z)."""
    if not isinstance(volume, np.ndarray):
        return _forward_cuda(volume, rotations, offsets, image_shape)
    half = _frame_half(volume.shape)
    frame = np.zeros((len(rotations), 2 * half + 1, 2 * half + 1), volume.dtype)
    share_out(_splat, len(rotations), threads, rotations, offsets, volume, frame)
    rows, columns = _window(half, image_shape)
    return np.ascontiguousarray(frame[:, rows, columns])


def transpose(
    images: Any,
    rotations: NDArray[np.float64],
    offsets: NDArray[np.float64],
    volume_shape: tuple[int, int, int],
    threads: int,
) -> Any:
    """Volume (z, y, x) that C-contiguous images (n, y, x) are smeared back into: the exact transpose of forward."""
    if not isinstance(images, np.ndarray):
        return _transpose_cuda(images, rotations, offsets, volume_shape)
    half = _frame_half(volume_shape)
    frame = np.zeros((len(images), 2 * half + 1, 2 * half + 1), images.dtype)
    rows, columns = _window(half, images.shape[1:])
    frame[:, rows, columns] = images
    volume = np.zeros(volume_shape, images.dtype)
    share_out(_gather, volume_shape[0] * volume_shape[1], threads, rotations, offsets, frame, volume)
    return volume


def _frame_half(volume_shape: tuple[int, ...]) -> int:
    """Half width of a frame in which every part of every voxel lands, however the volume is turned."""
    return int(np.ceil(np.linalg.norm([n / 2 + 1 for n in volume_shape]))) + 2


def _window(half: int, image_shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of the frame that are the image; index n // 2 lies at the centre of both."""
    (top, ny), (left, nx) = ((half - n // 2, n) for n in image_shape)
    return slice(top, top + ny), slice(left, left + nx)


@compiled
def _splat(
    start: int,
    stop: int,
    rotations: NDArray[np.float64],
    offsets: NDArray[np.float64],
    volume: NDArray[np.floating],
    frame: NDArray[np.floating],
) -> None:
    nz, ny, nx = volume.shape
    parts, half, width = offsets.shape[0], frame.shape[1] // 2, frame.shape[2]
    share, one = volume.dtype.type(1.0 / parts), volume.dtype.type(1.0)
    for tilt in range(start, stop):
        image = frame[tilt].ravel()
        a, b = rotations[tilt, 0], rotations[tilt, 1]
        for row in range(nz * ny):
            k, j = row // ny, row % ny
            line = volume[k, j]
            for part in range(parts):
                x, y, z = offsets[part, 0] - nx // 2, offsets[part, 1] + j - ny // 2, offsets[part, 2] + k - nz // 2
                px0 = a[0] * x + a[1] * y + a[2] * z + half
                py0 = b[0] * x + b[1] * y + b[2] * z + half
                for i in range(nx):
                    px, py = px0 + i * a[0], py0 + i * b[0]
                    ix, iy = np.int64(px), np.int64(py)
                    wx, wy = volume.dtype.type(px - ix), volume.dtype.type(py - iy)
                    value = line[i] * share
                    low, high = value * (one - wy), value * wy
                    # An unsigned index spares the test for negative ones, a third of the time here.
                    at = np.uint64(iy * width + ix)
                    image[at] += low * (one - wx)
                    image[at + np.uint64(1)] += low * wx
                    image[at + np.uint64(width)] += high * (one - wx)
                    image[at + np.uint64(width + 1)] += high * wx


@compiled
def _gather(
    start: int,
    stop: int,
    rotations: NDArray[np.float64],
    offsets: NDArray[np.float64],
    frame: NDArray[np.floating],
    volume: NDArray[np.floating],
) -> None:
    nz, ny, nx = volume.shape
    parts, half, width = offsets.shape[0], frame.shape[1] // 2, frame.shape[2]
    share, one = volume.dtype.type(1.0 / parts), volume.dtype.type(1.0)
    for row in range(start, stop):
        k, j = row // ny, row % ny
        line = volume[k, j]
        for tilt in range(frame.shape[0]):
            image = frame[tilt].ravel()
            a, b = rotations[tilt, 0], rotations[tilt, 1]
            for part in range(parts):
                x, y, z = offsets[part, 0] - nx // 2, offsets[part, 1] + j - ny // 2, offsets[part, 2] + k - nz // 2
                px0 = a[0] * x + a[1] * y + a[2] * z + half
                py0 = b[0] * x + b[1] * y + b[2] * z + half
                for i in range(nx):
                    px, py = px0 + i * a[0], py0 + i * b[0]
                    ix, iy = np.int64(px), np.int64(py)
                    wx, wy = volume.dtype.type(px - ix), volume.dtype.type(py - iy)
                    at = np.uint64(iy * width + ix)
                    low = image[at] * (one - wx) + image[at + np.uint64(1)] * wx
                    high = image[at + np.uint64(width)] * (one - wx) + image[at + np.uint64(width + 1)] * wx
                    line[i] += share * (low * (one - wy) + high * wy)


def _forward_cuda(
    volume: Any, rotations: NDArray[np.float64], offsets: NDArray[np.float64], image_shape: tuple[int, int]
) -> Any:
    images = volume.__array_namespace__().zeros((len(rotations), *image_shape), volume.dtype)
    _launch("euler_forward", volume, images, volume.shape, rotations, offsets, tilts_in_grid=len(rotations))
    return images


def _transpose_cuda(
    images: Any, rotations: NDArray[np.float64], offsets: NDArray[np.float64], volume_shape: tuple[int, int, int]
) -> Any:
    volume = images.__array_namespace__().empty(volume_shape, images.dtype)
    _launch("euler_transpose", images, volume, volume_shape, rotations, offsets, tilts_in_grid=1)
    return volume


def _launch(
    name: str,
    source: Any,
    out: Any,
    volume_shape: tuple[int, int, int],
    rotations: NDArray[np.float64],
    offsets: NDArray[np.float64],
    tilts_in_grid: int,
) -> None:
    cupy = source.__array_namespace__()
    nz, ny, nx = volume_shape
    frames = cupy.asarray(np.ascontiguousarray(rotations[:, :2]), source.dtype)
    sizes = tuple(np.int32(size) for size in (len(rotations), ny, nx, nz, len(offsets)))
    grid = (ny * nz, -(-nx // CUDA_BLOCK[0]), tilts_in_grid)
    arguments = (*sizes, frames, cupy.asarray(offsets, source.dtype), source, out)
    _cuda_kernel(name, source.dtype.char)(grid, CUDA_BLOCK, arguments)


@functools.cache
def _cuda_kernel(name: str, kind: str) -> Any:
    """One of the CUDA kernels for dtype character "f" or "d"."""
    import cupy

    real = {"f": "float", "d": "double"}[kind]
    return cupy.RawKernel(f"typedef {real} real;\n{CUDA_SOURCE}", name)
