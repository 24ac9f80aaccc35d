"""Projection for any rotation: every part of every voxel is splatted bilinearly on the image, and gathered back.

Part s of voxel r is seen at p = (R (r + s))_{xy} + shift and shares its value among the four pixels round p. Volumes are
stored as (z, x, y) and images as (n, x, y), with y, the direction of the nominal tilt axis, contiguous. Along y a column of
voxels then runs along a column of pixels, and the two part only slowly: between two crossings of a pixel border the shares
change linearly, and the work is a few fused products over contiguous memory. Tilts turned far off the axis cross a border at
almost every voxel and are worked voxel by voxel.

On the CPU (numba) images lie in a frame wide enough for every voxel at every tilt, so that no pixel needs a bounds test;
forward cuts the image out of the frame (what fell outside is dropped), the transpose puts it into a frame of zeros. On CUDA the
shares of all parts of a voxel are summed in a small window of pixels first, so that each pixel is touched once per voxel; the
splat writes with atomic sums, the gather needs none. CPU and CUDA versions stand side by side.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomo.arrays import library_of
from tomo.kernels import compiled, cuda_types, share_out

CUDA_SOURCE = r"""
// Shares of all parts of a voxel seen at (cx, cy) in the window of WINDOW × WINDOW pixels (x, y) from (*ix, *iy) on.
// steps holds where the parts lie on the image beside the voxel's centre, at most `reach` from it.
__device__ inline void shares(
    const real* steps, const real* reach, int parts, real cx, real cy, int* ix, int* iy, real window[WINDOW][WINDOW])
{
    const real bx = floor(cx - reach[0]), by = floor(cy - reach[1]);
    *ix = (int)bx;
    *iy = (int)by;
    for (int i = 0; i < WINDOW; ++i) for (int j = 0; j < WINDOW; ++j) window[i][j] = 0;
    for (int part = 0; part < parts; ++part) {
        real x = cx + steps[2 * part] - bx, y = cy + steps[2 * part + 1] - by, wx[WINDOW], wy[WINDOW];
        for (int i = 0; i < WINDOW; ++i) {
            const real dx = x > i ? x - i : i - x, dy = y > i ? y - i : i - y;
            wx[i] = dx < 1 ? (1 - dx) / parts : 0;
            wy[i] = dy < 1 ? 1 - dy : 0;
        }
        for (int i = 0; i < WINDOW; ++i) for (int j = 0; j < WINDOW; ++j) window[i][j] += wx[i] * wy[j];
    }
}

// geometry of a tilt: the first two rows of R and the shift in pixels. Neighbouring threads hold neighbouring y, so that
// the volume is read and the image written along contiguous memory. Voxel (k, i, j) has the coordinates
// (i - nx / 2, j - ny / 2, k + first) and lies at (k * nx + i) * ny + j.
__device__ inline void centre(const real* tilt, int i, int j, int k, int nx, int ny, int first, real* cx, real* cy)
{
    const int x = i - nx / 2, y = j - ny / 2, z = k + first;
    *cx = tilt[0] * x + tilt[1] * y + tilt[2] * z + tilt[6];
    *cy = tilt[3] * x + tilt[4] * y + tilt[5] * z + tilt[7];
}

extern "C" __global__ void euler_forward(
    const int n, const int ny, const int nx, const int first, const int parts, const real* tilts, const real* steps,
    const real* reach, const store* volume, real* images)
{
    // Columns of the volume run along grid x, the only one that may exceed 65535 blocks.
    const int j = blockIdx.y * blockDim.x + threadIdx.x, i = blockIdx.x % nx, k = blockIdx.x / nx, t = blockIdx.z;
    if (j >= ny) return;
    const real value = (real)volume[(long long)blockIdx.x * ny + j];
    if (value == 0) return;
    real cx, cy, window[WINDOW][WINDOW];
    int ix, iy;
    centre(tilts + 8 * t, i, j, k, nx, ny, first, &cx, &cy);
    shares(steps + 2 * parts * t, reach + 2 * t, parts, cx, cy, &ix, &iy, window);
    ix += nx / 2;
    iy += ny / 2;
    real* image = images + (long long)t * nx * ny;
    for (int a = 0; a < WINDOW; ++a) for (int b = 0; b < WINDOW; ++b) {
        const int px = ix + a, py = iy + b;
        if (window[a][b] != 0 && px >= 0 && px < nx && py >= 0 && py < ny)
            atomicAdd(image + (long long)px * ny + py, value * window[a][b]);
    }
}

extern "C" __global__ void euler_transpose(
    const int n, const int ny, const int nx, const int first, const int parts, const real* tilts, const real* steps,
    const real* reach, const store* images, real* volume)
{
    const int j = blockIdx.y * blockDim.x + threadIdx.x, i = blockIdx.x % nx, k = blockIdx.x / nx;
    if (j >= ny) return;
    real sum = 0;
    for (int t = 0; t < n; ++t) {
        const store* image = images + (long long)t * nx * ny;
        real cx, cy, window[WINDOW][WINDOW];
        int ix, iy;
        centre(tilts + 8 * t, i, j, k, nx, ny, first, &cx, &cy);
        shares(steps + 2 * parts * t, reach + 2 * t, parts, cx, cy, &ix, &iy, window);
        ix += nx / 2;
        iy += ny / 2;
        for (int a = 0; a < WINDOW; ++a) for (int b = 0; b < WINDOW; ++b) {
            const int px = ix + a, py = iy + b;
            if (px >= 0 && px < nx && py >= 0 && py < ny) sum += window[a][b] * (real)image[(long long)px * ny + py];
        }
    }
    volume[(long long)blockIdx.x * ny + j] = sum;
}
"""
CUDA_BLOCK = (128,)
WINDOWS = (3, 4)
"""Widths for which the CUDA text is compiled: two parts of a voxel need 3 pixels, more parts 4."""

_STEEP = 0.12
"""Crossings of pixel borders per voxel beyond which runs are too short to pay."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where voxels are seen: rotations (n, 3, 3), shifts (n, 2) as (x, y) in px, part centres (m, 3) as (x, y, z), the image
    (y, x), and the z coordinates first … first + planes − 1 of the volume's planes."""

    rotations: NDArray[np.float64]
    shifts_px: NDArray[np.float64]
    offsets: NDArray[np.float64]
    image_shape: tuple[int, int]
    first: int
    planes: int

    @property
    def half(self) -> int:
        """Half width of a frame in which every part of every voxel lands, however the volume is turned."""
        farthest = max(abs(self.first), abs(self.first + self.planes - 1)) + 2
        reach = np.linalg.norm([self.image_shape[0] / 2 + 1, self.image_shape[1] / 2 + 1, farthest])
        return int(np.ceil(reach + np.abs(self.shifts_px).max())) + 2


def forward(volume: Any, geometry: Geometry, threads: int, dtype: np.dtype[Any]) -> Any:
    """Images (n, x, y) of the dtype of a C-contiguous volume (z, x, y), which with cupy may be of half precision."""
    ny, nx = geometry.image_shape
    count = len(geometry.rotations)
    if not isinstance(volume, np.ndarray):
        images = library_of(volume).zeros((count, nx, ny), dtype)
        _launch("euler_forward", volume, images, geometry, tilts_in_grid=count)
        return images
    half = geometry.half
    frame = np.zeros((count, 2 * half + 1, 2 * half + 1), volume.dtype)
    share_out(_splat, count, threads, *_arguments(geometry), volume, _extents(volume), frame)
    columns, rows = _window(half, (nx, ny))
    return np.ascontiguousarray(frame[:, columns, rows])


def transpose(images: Any, geometry: Geometry, threads: int, dtype: np.dtype[Any]) -> Any:
    """Volume (z, x, y) of the dtype that C-contiguous images (n, x, y) are smeared back into: the exact transpose of forward."""
    ny, nx = geometry.image_shape
    shape = (geometry.planes, nx, ny)
    if not isinstance(images, np.ndarray):
        volume = library_of(images).empty(shape, dtype)
        _launch("euler_transpose", images, volume, geometry, tilts_in_grid=1)
        return volume
    half = geometry.half
    frame = np.zeros((len(images), 2 * half + 1, 2 * half + 1), images.dtype)
    columns, rows = _window(half, (nx, ny))
    frame[:, columns, rows] = images
    volume = np.zeros(shape, images.dtype)
    share_out(_gather, geometry.planes, threads, *_arguments(geometry), frame, volume)
    return volume


def _arguments(geometry: Geometry) -> tuple[Any, ...]:
    return geometry.rotations, geometry.shifts_px, geometry.offsets, geometry.first


def _window(half: int, shape: tuple[int, int]) -> tuple[slice, slice]:
    """The part of the frame that is the image of this shape; index n // 2 lies at the centre of both."""
    first, second = (slice(half - n // 2, half - n // 2 + n) for n in shape)
    return first, second


@compiled
def _extents(volume: NDArray[np.floating]) -> NDArray[np.int64]:
    """First and past-the-last index along y that is not zero, for every column of a volume (z, x, y): (z · x, 2)."""
    nz, nx, ny = volume.shape
    out = np.empty((nz * nx, 2), np.int64)
    for row in range(nz * nx):
        line = volume[row // nx, row % nx]
        low, high = 0, ny
        while low < ny and line[low] == 0:
            low += 1
        while high > low and line[high - 1] == 0:
            high -= 1
        out[row, 0], out[row, 1] = low, high
    return out


@compiled
def _run_end(at: Any, slope: Any, cell: Any, j: Any, stop: Any) -> Any:
    """First index after j, at most stop, at which at + slope · index leaves the interval from cell to cell + 1."""
    if slope == 0.0:
        return stop
    crossing = (cell + 1 - at) / slope if slope > 0.0 else (cell - at) / slope
    if crossing >= stop:
        return stop
    return max(np.int64(np.ceil(crossing)), j + 1)


@compiled
def _splat(
    start: int,
    stop: int,
    rotations: NDArray[np.float64],
    shifts_px: NDArray[np.float64],
    offsets: NDArray[np.float64],
    first: int,
    volume: NDArray[np.floating],
    extents: NDArray[np.int64],
    frame: NDArray[np.floating],
) -> None:
    nz, nx, ny = volume.shape
    parts, half, width = offsets.shape[0], frame.shape[1] // 2, frame.shape[2]
    real = volume.dtype.type
    share, one = real(1.0 / parts), real(1.0)
    for tilt in range(start, stop):
        image = frame[tilt].ravel()
        a, b = rotations[tilt, 0], rotations[tilt, 1]
        steep = abs(a[1]) + abs(b[1] - 1.0) > _STEEP
        slope_x, slope_y = real(a[1]), real(b[1] - 1.0)
        for row in range(nz * nx):
            low, high = extents[row, 0], extents[row, 1]
            if low == high:
                continue
            k, i = row // nx, row % nx
            line = volume[k, i]
            for part in range(parts):
                x, y, z = offsets[part, 0] + i - nx // 2, offsets[part, 1] - ny // 2, offsets[part, 2] + k + first
                px0 = a[0] * x + a[1] * y + a[2] * z + shifts_px[tilt, 0] + half
                py0 = b[0] * x + b[1] * y + b[2] * z + shifts_px[tilt, 1] + half
                j = low
                while j < high:
                    px, py = px0 + a[1] * j, py0 + b[1] * j
                    ix, iy = np.int64(px), np.int64(py)
                    wx0, wy0 = real(px - ix), real(py - iy)
                    at = ix * width + iy
                    if steep:
                        low_x, high_x = line[j] * share * (one - wx0), line[j] * share * wx0
                        image[at] += low_x * (one - wy0)
                        image[at + 1] += low_x * wy0
                        image[at + width] += high_x * (one - wy0)
                        image[at + width + 1] += high_x * wy0
                        j += 1
                        continue
                    end = min(_run_end(px0, a[1], ix, j, high), _run_end(py0, b[1] - 1.0, iy - j, j, high))
                    count = end - j
                    run = line[j:end]
                    # Twice over the run, for the lower and the upper pixel: within each pass no two voxels share a pixel.
                    near, far = image[at : at + count], image[at + width : at + width + count]
                    for m in range(count):
                        value = run[m] * share * (one - (wy0 + slope_y * real(m)))
                        moved = value * (wx0 + slope_x * real(m))
                        near[m] += value - moved
                        far[m] += moved
                    near, far = image[at + 1 : at + 1 + count], image[at + width + 1 : at + width + 1 + count]
                    for m in range(count):
                        value = run[m] * share * (wy0 + slope_y * real(m))
                        moved = value * (wx0 + slope_x * real(m))
                        near[m] += value - moved
                        far[m] += moved
                    j = end


@compiled
def _gather(
    start: int,
    stop: int,
    rotations: NDArray[np.float64],
    shifts_px: NDArray[np.float64],
    offsets: NDArray[np.float64],
    first: int,
    frame: NDArray[np.floating],
    volume: NDArray[np.floating],
) -> None:
    nx, ny = volume.shape[1:]
    parts, half, width = offsets.shape[0], frame.shape[1] // 2, frame.shape[2]
    real = volume.dtype.type
    share = real(1.0 / parts)
    for k in range(start, stop):
        for tilt in range(frame.shape[0]):
            image = frame[tilt].ravel()
            a, b = rotations[tilt, 0], rotations[tilt, 1]
            steep = abs(a[1]) + abs(b[1] - 1.0) > _STEEP
            slope_x, slope_y = real(a[1]), real(b[1] - 1.0)
            for i in range(nx):
                line = volume[k, i]
                for part in range(parts):
                    x, y, z = offsets[part, 0] + i - nx // 2, offsets[part, 1] - ny // 2, offsets[part, 2] + k + first
                    px0 = a[0] * x + a[1] * y + a[2] * z + shifts_px[tilt, 0] + half
                    py0 = b[0] * x + b[1] * y + b[2] * z + shifts_px[tilt, 1] + half
                    j = 0
                    while j < ny:
                        px, py = px0 + a[1] * j, py0 + b[1] * j
                        ix, iy = np.int64(px), np.int64(py)
                        wx0, wy0 = real(px - ix), real(py - iy)
                        at = ix * width + iy
                        if steep:
                            low_x = image[at] + wy0 * (image[at + 1] - image[at])
                            high_x = image[at + width] + wy0 * (image[at + width + 1] - image[at + width])
                            line[j] += share * (low_x + wx0 * (high_x - low_x))
                            j += 1
                            continue
                        end = min(_run_end(px0, a[1], ix, j, ny), _run_end(py0, b[1] - 1.0, iy - j, j, ny))
                        count = end - j
                        run = line[j:end]
                        here, beside = image[at : at + count + 1], image[at + width : at + width + count + 1]
                        for m in range(count):
                            wx = wx0 + slope_x * real(m)
                            low = here[m] + wx * (beside[m] - here[m])
                            high = here[m + 1] + wx * (beside[m + 1] - here[m + 1])
                            run[m] += share * (low + (wy0 + slope_y * real(m)) * (high - low))
                        j = end


def cuda_tables(geometry: Geometry) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], int]:
    """What the CUDA text reads of a geometry: (n, 8) rotations and shifts, (n, parts, 2) steps of the parts on the image,
    (n, 2) their reach, and the width of the window that holds them all."""
    frames = geometry.rotations[:, :2]
    tilts = np.concatenate([frames.reshape(-1, 6), geometry.shifts_px], axis=1)
    steps = np.einsum("nij,pj->npi", frames, geometry.offsets)
    reach = np.abs(steps).max(axis=1)
    return tilts, steps, reach, WINDOWS[int(2 * reach.max() > 1.0)]


def _launch(name: str, source: Any, out: Any, geometry: Geometry, tilts_in_grid: int) -> None:
    cupy = library_of(source)
    ny, nx = geometry.image_shape
    *tables, window = cuda_tables(geometry)
    sizes = (len(geometry.rotations), ny, nx, geometry.first, len(geometry.offsets))
    arguments = tuple(np.int32(size) for size in sizes) + tuple(cupy.asarray(t, out.dtype) for t in tables)
    grid = (nx * geometry.planes, -(-ny // CUDA_BLOCK[0]), tilts_in_grid)
    _cuda_kernel(name, out.dtype.char, source.dtype.char, window)(grid, CUDA_BLOCK, (*arguments, source, out))


@functools.cache
def _cuda_kernel(name: str, real: str, store: str, window: int) -> Any:
    """One of the CUDA kernels for dtype characters."""
    import cupy

    return cupy.RawKernel(f"{cuda_types(real, store)}#define WINDOW {window}\n{CUDA_SOURCE}", name)
