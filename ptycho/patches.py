"""Windows of the object under the probe: multiply a wave by them, and add a wave back into them.

`multiply` is the gather (wave = incoming × object window), `scatter_add` its adjoint with respect to the object
(object window += conj(incoming) × wave), `scatter_back` that together with the adjoint with respect to the incoming wave
(wave ← conj(object window) × wave). The NumPy and CUDA texts stand side by side; both take the incoming waves as (u, mode, y, x)
with an index (pattern,) into u, so that patterns with the same sub-pixel shift share one probe; index None: one for each pattern.

The CUDA scatter adds with atomics, so that its sums repeat to rounding only. A gather over the patterns that cover each object
pixel would read the same 2 · modes complex numbers per pattern pixel from memory and save only the atomics, which stay in the
second-level cache because the canvas (some MB) fits there; it would need sorted lists and leave the crowded centre to few threads.

Standard shapes: slice (Y, X) complex; waves (pattern, mode, y, x) complex; corners (pattern, 2) int32 (y, x).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ptycho.cuda import PRELUDE, c_type, in_place, launch, readable
from ptycho.grid import Array, library_of

CUDA_SOURCE = (
    PRELUDE
    + r"""
// Where pattern p's pixel k lies in a canvas of `width` pixels.
__device__ long long place(const int* corners, long long pattern, int k, int nx, int width) {
    return (long long)(corners[2 * pattern] + k / nx) * width + corners[2 * pattern + 1] + k % nx;
}

template <typename T> __global__ void multiply_patches(
        int pixels, int parts, int modes, int nx, int width, int conjugate, const Complex<T>* incoming, const int* index,
        const Complex<T>* slice, const int* corners, Complex<T>* out) {
    long long pattern = blockIdx.x / parts, plane = pixels;
    const Complex<T>* in = incoming + (index ? index[pattern] : pattern) * modes * plane;
    out += pattern * modes * plane;
    for (int k = blockIdx.x % parts * blockDim.x + threadIdx.x; k < pixels; k += parts * blockDim.x) {
        Complex<T> b = slice[place(corners, pattern, k, nx, width)];
        if (conjugate) b.im = -b.im;
        for (int m = 0; m < modes; ++m) out[m * plane + k] = in[m * plane + k] * b;
    }
}

// Adds into the target; where a slice is given the waves are then multiplied by its conjugate windows.
template <typename T> __global__ void scatter_patches(
        int pixels, int parts, int modes, int nx, int width, const Complex<T>* incoming, const int* index,
        Complex<T>* waves, const int* corners, const Complex<T>* slice, Complex<T>* target) {
    long long pattern = blockIdx.x / parts, plane = pixels;
    const Complex<T>* in = incoming + (index ? index[pattern] : pattern) * modes * plane;
    waves += pattern * modes * plane;
    for (int k = blockIdx.x % parts * blockDim.x + threadIdx.x; k < pixels; k += parts * blockDim.x) {
        long long at = place(corners, pattern, k, nx, width);
        Complex<T> sum = {0, 0}, window = {0, 0};
        if (slice) window = {slice[at].re, -slice[at].im};
        for (int m = 0; m < modes; ++m) {
            Complex<T> a = in[m * plane + k], b = waves[m * plane + k];
            sum.re += a.re * b.re + a.im * b.im;
            sum.im += a.re * b.im - a.im * b.re;
            if (slice) waves[m * plane + k] = b * window;
        }
        atomicAdd(&target[at].re, sum.re);
        atomicAdd(&target[at].im, sum.im);
    }
}
"""
)


def multiply(
    incoming: Array,
    index: Array | None,
    slice_: Array,
    corners: Array,
    *,
    conjugate: bool = False,
    out: Array | None = None,
) -> Array:
    """Waves (pattern, mode, y, x) = incoming[index] × the windows of `slice_`, or of its conjugate, at `corners`.

    out: where to write them; with index None it may be `incoming` itself.
    """
    xp = library_of(incoming)
    if out is None:
        out = xp.empty((len(corners), *incoming.shape[1:]), incoming.dtype)
    if not isinstance(incoming, np.ndarray):
        _multiply_cuda(incoming, index, slice_, corners, conjugate, out)
        return out
    if conjugate:
        slice_ = slice_.conj()
    for wave, a, window in zip(out, _each(incoming, index), _windows(slice_, corners, incoming.shape), strict=True):
        np.multiply(a, window, out=wave)
    return out


def scatter_add(target: Array, incoming: Array, index: Array | None, waves: Array, corners: Array) -> None:
    """Add Σ_mode conj(incoming[index]) × waves into the windows of `target` (Y, X) at `corners`, in place."""
    if not isinstance(incoming, np.ndarray):
        _scatter_cuda(target, incoming, index, waves, corners, None)
        return
    product = np.empty(incoming.shape[1:], incoming.dtype)
    for wave, a, window in zip(waves, _each(incoming, index), _windows(target, corners, incoming.shape), strict=True):
        np.conjugate(a, out=product)
        product *= wave
        for mode in product:
            window += mode


def scatter_back(
    target: Array, incoming: Array, index: Array | None, waves: Array, corners: Array, slice_: Array
) -> None:
    """`scatter_add`, then the waves × the conjugate windows of `slice_`, in place: the adjoint of `multiply` in both factors."""
    if not isinstance(incoming, np.ndarray):
        _scatter_cuda(target, incoming, index, waves, corners, slice_)
        return
    scatter_add(target, incoming, index, waves, corners)
    multiply(waves, None, slice_, corners, conjugate=True, out=waves)


def _each(incoming: np.ndarray, index: np.ndarray | None) -> Iterator[np.ndarray]:
    return iter(incoming) if index is None else (incoming[i] for i in index.tolist())


def _windows(canvas: np.ndarray, corners: np.ndarray, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    ny, nx = shape[-2:]
    return (canvas[y : y + ny, x : x + nx] for y, x in corners.tolist())


def _multiply_cuda(
    incoming: Array, index: Array | None, slice_: Array, corners: Array, conjugate: bool, out: Array
) -> None:
    modes, ny, nx = incoming.shape[1:]
    dtype = incoming.dtype
    launch(
        CUDA_SOURCE,
        f"multiply_patches<{c_type(dtype)}>",
        len(corners),
        ny * nx,
        *(modes, nx, slice_.shape[1], int(conjugate), readable(incoming), readable(index, np.int32)),
        *(readable(slice_, dtype), readable(corners, np.int32), in_place("out", out, dtype)),
    )


def _scatter_cuda(
    target: Array, incoming: Array, index: Array | None, waves: Array, corners: Array, slice_: Array | None
) -> None:
    modes, ny, nx = incoming.shape[1:]
    dtype = incoming.dtype
    launch(
        CUDA_SOURCE,
        f"scatter_patches<{c_type(dtype)}>",
        len(corners),
        ny * nx,
        *(modes, nx, target.shape[1], readable(incoming), readable(index, np.int32)),
        readable(waves, dtype) if slice_ is None else in_place("waves", waves, dtype),
        *(readable(corners, np.int32), readable(slice_, dtype), in_place("target", target, dtype)),
    )
