"""The sums of `kernels` on a GPU, with the same arithmetic: one thread for each column of pixels of each atom in each tilt.

Neighbouring threads read neighbouring pixels; the columns of an atom are added up by atomic operations.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from analysis.likelihood.psf import STEPS_PER_PX2

THREADS = 128

ARGUMENTS = (
    "int tilts, int atoms, int kinds, int entries, int ny, int nx, int columns, double reach, const double* positions, "
    "const double* to_pixels, const double* origin, const double* bright, const long long* element, const double* tables"
)

SOURCE = (
    f"""
#define ARGUMENTS {ARGUMENTS}
#define STEPS_PER_PX2 {STEPS_PER_PX2!r}"""
    r"""
// Names of an atom in a tilt: where it is seen, its brightness and table; one column x of its pixels, and its rows.
#define COLUMN_OF_ATOM \
    const long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x, number = index / columns; \
    if (number >= (long long)tilts * atoms) return; \
    const int t = (int)(number / atoms), a = (int)(number % atoms); \
    const double *m = to_pixels + 6 * t, *r = positions + 3 * a; \
    const double x0 = m[0] * r[0] + m[1] * r[1] + m[2] * r[2] + origin[2 * t]; \
    const double y0 = m[3] * r[0] + m[4] * r[1] + m[5] * r[2] + origin[2 * t + 1]; \
    const int x = (int)ceil(x0 - reach) + (int)(index % columns); \
    if (x < 0 || x >= nx || x > x0 + reach) return; \
    const double height = bright[number], dx = x - x0, end = entries - 1.001; \
    const double* table = tables + ((long long)t * kinds + element[a]) * entries; \
    const int low = max(0, (int)ceil(y0 - reach)), high = min(ny - 1, (int)floor(y0 + reach));

// Distance, the entry k of the table, what is left of it, and how the table falls there.
#define PIXEL \
    const double dy = y - y0; \
    const double s = min((dy * dy + dx * dx) * STEPS_PER_PX2, end); \
    const int k = (int)s; \
    const double fall = table[k + 1] - table[k]; \
    const long long pixel = ((long long)t * ny + y) * nx + x;

extern "C" __global__ void render(ARGUMENTS, double* out)
{
    COLUMN_OF_ATOM
    for (int y = low; y <= high; ++y) {
        PIXEL
        atomicAdd(out + pixel, height * (table[k] + (s - k) * fall));
    }
}

extern "C" __global__ void pulls(ARGUMENTS, const double* slope, double* out)
{
    COLUMN_OF_ATOM
    double across = 0, along_y = 0, plain = 0;
    for (int y = low; y <= high; ++y) {
        PIXEL
        const double here = slope[pixel];
        plain += here * (table[k] + (s - k) * fall);
        across += here * fall;
        along_y += here * fall * dy;
    }
    const double chain = -2 * STEPS_PER_PX2 * height;
    atomicAdd(out + 3 * number, chain * across * dx);
    atomicAdd(out + 3 * number + 1, chain * along_y);
    atomicAdd(out + 3 * number + 2, plain);
}

extern "C" __global__ void sharpness(ARGUMENTS, const double* weight, double* out)
{
    COLUMN_OF_ATOM
    const double chain = -2 * STEPS_PER_PX2 * height;
    double plain = 0, along_y = 0, square_y = 0, bright_x = 0, bright_y = 0, square = 0;
    for (int y = low; y <= high; ++y) {
        PIXEL
        const double here = weight[pixel], value = table[k] + (s - k) * fall, slope = chain * fall;
        plain += here * slope * slope;
        along_y += here * slope * slope * dy;
        square_y += here * slope * slope * dy * dy;
        bright_x += here * slope * value;
        bright_y += here * slope * value * dy;
        square += here * value * value;
    }
    double* mine = out + 6 * number;
    atomicAdd(mine, plain * dx * dx);
    atomicAdd(mine + 1, along_y * dx);
    atomicAdd(mine + 2, bright_x * dx);
    atomicAdd(mine + 3, square_y);
    atomicAdd(mine + 4, bright_y);
    atomicAdd(mine + 5, square);
}
"""
)


def launch(
    name: str,
    positions: Any,
    to_pixels: Any,
    origin: Any,
    bright: Any,
    element: Any,
    tables: Any,
    reach_px: float,
    *images: Any,
) -> None:
    """Run a kernel for all tilts: positions (atoms, 3) seen at to_pixels (tilts, 2, 3) · position + origin (tilts, 2); the others as
    those of `kernels`, the last ones (image to read, out) on the GPU."""
    tilts, atoms = bright.shape
    ny, nx = images[0].shape[1:]
    columns = 2 * int(np.ceil(reach_px)) + 1
    sizes = [np.int32(n) for n in (tilts, atoms, *tables.shape[1:], ny, nx, columns)]
    doubles = [_there(array, np.float64) for array in (positions, to_pixels, origin, bright)]
    blocks = -(-tilts * atoms * columns // THREADS)
    if blocks:
        read = (*sizes, np.float64(reach_px), *doubles, _there(element, np.int64), _there(tables, np.float64))
        _kernel(name)((blocks,), (THREADS,), (*read, *images))


def _there(array: Any, dtype: Any) -> Any:
    import cupy

    return cupy.ascontiguousarray(cupy.asarray(array, dtype))


@cache
def _kernel(name: str) -> Any:
    import cupy

    return cupy.RawKernel(SOURCE, name)
