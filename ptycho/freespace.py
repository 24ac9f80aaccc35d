"""Free space between slices: the spectrum of the wave times the propagator, and times a ramp of each pattern.

The kernel exp(−iπλ d k²) is common to all patterns; the ramps (for a tilted specimen exp(2πi d k_y tan τ_y) and the same in x,
for a shifted probe exp(−2πi k·f)) are separable and differ from pattern to pattern. The adjoint and inverse is the same product
with the conjugate. The NumPy and CUDA texts stand side by side.

Standard shapes: spectrum (pattern, mode, ky, kx) complex, kernel (ky, kx), ramps (pattern, ky) and (pattern, kx).
"""

from __future__ import annotations

import numpy as np

from ptycho.cuda import PRELUDE, c_type, in_place, launch, readable
from ptycho.grid import Array

CUDA_SOURCE = (
    PRELUDE
    + r"""
template <typename T> __global__ void propagate(
        int pixels, int parts, int modes, int nx, int conjugate, const Complex<T>* kernel, const Complex<T>* ramp_y,
        const Complex<T>* ramp_x, Complex<T>* spectrum) {
    long long pattern = blockIdx.x / parts, plane = pixels;
    spectrum += pattern * modes * plane;
    for (int k = blockIdx.x % parts * blockDim.x + threadIdx.x; k < pixels; k += parts * blockDim.x) {
        Complex<T> factor = kernel[k];
        if (ramp_y) factor = factor * (ramp_y[pattern * (pixels / nx) + k / nx] * ramp_x[pattern * nx + k % nx]);
        if (conjugate) factor.im = -factor.im;
        for (int m = 0; m < modes; ++m) spectrum[m * plane + k] = spectrum[m * plane + k] * factor;
    }
}
"""
)


def through_free_space(
    spectrum: Array,
    kernel: Array,
    ramps: tuple[Array, Array] | None = None,
    *,
    conjugate: bool = False,
) -> Array:
    """`spectrum` × kernel × ramps, or × their conjugate, in place; ramps: (pattern, ky) and (pattern, kx)."""
    if not isinstance(spectrum, np.ndarray):
        _through_cuda(spectrum, kernel, ramps, conjugate)
        return spectrum
    factor = kernel
    if ramps is not None:
        factor = (ramps[0][:, :, None] * ramps[1][:, None, :])[:, None]
        factor *= kernel
    if conjugate:
        factor = factor.conj()
    spectrum *= factor
    return spectrum


def _through_cuda(spectrum: Array, kernel: Array, ramps: tuple[Array, Array] | None, conjugate: bool) -> None:
    patterns, modes, ky, kx = spectrum.shape
    dtype = spectrum.dtype
    y, x = ramps or (None, None)
    launch(
        CUDA_SOURCE,
        f"propagate<{c_type(dtype)}>",
        patterns,
        ky * kx,
        *(modes, kx, int(conjugate), readable(kernel, dtype), readable(y, dtype), readable(x, dtype)),
        in_place("spectrum", spectrum, dtype),
    )
