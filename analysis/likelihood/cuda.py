"""The sums of `kernels` on a GPU: one thread for each atom in each tilt, and the same text line for line."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from analysis.likelihood.psf import STEPS_PER_PX2

THREADS = 128

ARGUMENTS = (
    "int tilts, int atoms, int kinds, int entries, int ny, int nx, double reach, const double* at, const double* bright, "
    "const long long* element, const double* tables"
)

SOURCE = (
    f"""
#define ARGUMENTS {ARGUMENTS}
#define STEPS_PER_PX2 {STEPS_PER_PX2!r}"""
    r"""
// Names of an atom in a tilt: where it is seen, its brightness and table, and the box of pixels (y, x) that it reaches.
#define ATOM \
    const long long number = (long long)blockIdx.x * blockDim.x + threadIdx.x; \
    if (number >= (long long)tilts * atoms) return; \
    const int t = (int)(number / atoms); \
    const double x0 = at[2 * number], y0 = at[2 * number + 1], height = bright[number]; \
    const double* table = tables + ((long long)t * kinds + element[number % atoms]) * entries; \
    const double end = entries - 1.001; \
    const int left = max(0, (int)ceil(x0 - reach)), right = min(nx - 1, (int)floor(x0 + reach)); \
    const int low = max(0, (int)ceil(y0 - reach)), high = min(ny - 1, (int)floor(y0 + reach));

// Distance, the entry k of the table, what is left of it, and how the table falls there.
#define PIXEL \
    const double dx = x - x0, dy = y - y0; \
    const double s = min((dy * dy + dx * dx) * STEPS_PER_PX2, end); \
    const int k = (int)s; \
    const double fall = table[k + 1] - table[k];

extern "C" __global__ void render(ARGUMENTS, double* out)
{
    ATOM
    for (int y = low; y <= high; ++y)
        for (int x = left; x <= right; ++x) {
            PIXEL
            atomicAdd(out + ((long long)t * ny + y) * nx + x, height * (table[k] + (s - k) * fall));
        }
}

extern "C" __global__ void pulls(ARGUMENTS, const double* slope, double* out)
{
    ATOM
    double along_x = 0, along_y = 0, plain = 0;
    for (int y = low; y <= high; ++y)
        for (int x = left; x <= right; ++x) {
            PIXEL
            const double here = slope[((long long)t * ny + y) * nx + x];
            plain += here * (table[k] + (s - k) * fall);
            along_x += here * fall * dx;
            along_y += here * fall * dy;
        }
    const double chain = -2 * STEPS_PER_PX2 * height;
    out[3 * number] = chain * along_x;
    out[3 * number + 1] = chain * along_y;
    out[3 * number + 2] = plain;
}

extern "C" __global__ void sharpness(ARGUMENTS, const double* weight, double* out)
{
    ATOM
    const double chain = -2 * STEPS_PER_PX2 * height;
    double xx = 0, xy = 0, xb = 0, yy = 0, yb = 0, bb = 0;
    for (int y = low; y <= high; ++y)
        for (int x = left; x <= right; ++x) {
            PIXEL
            const double here = weight[((long long)t * ny + y) * nx + x];
            const double value = table[k] + (s - k) * fall, slope = chain * fall;
            xx += here * slope * slope * dx * dx;
            xy += here * slope * slope * dx * dy;
            yy += here * slope * slope * dy * dy;
            xb += here * slope * value * dx;
            yb += here * slope * value * dy;
            bb += here * value * value;
        }
    double* mine = out + 6 * number;
    mine[0] = xx; mine[1] = xy; mine[2] = xb; mine[3] = yy; mine[4] = yb; mine[5] = bb;
}
"""
)


def launch(name: str, at: Any, bright: Any, element: Any, table: Any, reach: float, *images: Any) -> None:
    """Run a kernel for all tilts; arguments as those of `kernels`, the last ones (image to read, out) on the GPU."""
    import cupy

    tilts, atoms = bright.shape
    kinds, entries = table.shape[1:]
    ny, nx = images[0].shape[1:]
    sizes = [np.int32(n) for n in (tilts, atoms, kinds, entries, ny, nx)]
    doubles = [cupy.ascontiguousarray(cupy.asarray(a, np.float64)) for a in (at, bright)]
    which, tables = cupy.asarray(element, np.int64), cupy.ascontiguousarray(cupy.asarray(table, np.float64))
    blocks = -(-tilts * atoms // THREADS)
    if blocks:
        _kernel(name)((blocks,), (THREADS,), (*sizes, np.float64(reach), *doubles, which, tables, *images))


@cache
def _kernel(name: str) -> Any:
    import cupy

    return cupy.RawKernel(SOURCE, name)
