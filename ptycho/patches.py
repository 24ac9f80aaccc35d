"""Windows of the object under the probe: multiply a wave by them, and add a wave back into them.

`multiply` is the gather (wave = incoming × object window), `scatter_add` its adjoint with respect to the object
(object window += conj(incoming) × wave). The NumPy and CUDA texts stand side by side; both take the incoming waves as
(u, mode, y, x) with an index (pattern,) into u, so that patterns with the same sub-pixel shift share one probe.

Standard shapes: slice (Y, X) complex; waves (pattern, mode, y, x) complex; corners (pattern, 2) int32 (y, x).
"""

from __future__ import annotations

from functools import cache

import numpy as np

from ptycho.grid import Array

CUDA_SOURCE = r"""
template <typename T> struct Complex { T re, im; };

template <typename T> __global__ void multiply_patches(
        const Complex<T>* incoming, const int* index, const Complex<T>* slice, const int* corners,
        int modes, int ny, int nx, int width, long long total, Complex<T>* out) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= total) return;
    int x = i % nx, y = (i / nx) % ny;
    long long block = (long long)ny * nx * modes;
    long long pattern = i / block;
    Complex<T> a = incoming[index[pattern] * block + i % block];
    Complex<T> b = slice[(long long)(corners[2 * pattern] + y) * width + corners[2 * pattern + 1] + x];
    out[i].re = a.re * b.re - a.im * b.im;
    out[i].im = a.re * b.im + a.im * b.re;
}

template <typename T> __global__ void scatter_add_patches(
        const Complex<T>* incoming, const int* index, const Complex<T>* waves, const int* corners,
        int modes, int ny, int nx, int width, long long total, Complex<T>* target) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= total) return;
    int x = i % nx, y = (i / nx) % ny;
    long long window = (long long)ny * nx;
    long long pattern = i / window, inside = i % window;
    T re = 0, im = 0;
    for (int m = 0; m < modes; ++m) {
        Complex<T> a = incoming[(index[pattern] * (long long)modes + m) * window + inside];
        Complex<T> b = waves[(pattern * modes + m) * window + inside];
        re += a.re * b.re + a.im * b.im;
        im += a.re * b.im - a.im * b.re;
    }
    Complex<T>* place = target + (long long)(corners[2 * pattern] + y) * width + corners[2 * pattern + 1] + x;
    atomicAdd(&place->re, re);
    atomicAdd(&place->im, im);
}
"""


def multiply(incoming: Array, index: Array, slice_: Array, corners: Array) -> Array:
    """Waves (pattern, mode, y, x) = incoming[index] × the windows of `slice_` at `corners`."""
    if not isinstance(incoming, np.ndarray):
        return _multiply_cuda(incoming, index, slice_, corners)
    ny, nx = incoming.shape[-2:]
    out = np.empty((len(corners), *incoming.shape[1:]), incoming.dtype)
    for wave, i, (y, x) in zip(out, index.tolist(), corners.tolist(), strict=True):
        np.multiply(incoming[i], slice_[y : y + ny, x : x + nx], out=wave)
    return out


def scatter_add(target: Array, incoming: Array, index: Array, waves: Array, corners: Array) -> None:
    """Add Σ_mode conj(incoming[index]) × waves into the windows of `target` (Y, X) at `corners`, in place."""
    if not isinstance(incoming, np.ndarray):
        _scatter_add_cuda(target, incoming, index, waves, corners)
        return
    ny, nx = incoming.shape[-2:]
    incoming = incoming.conj()
    product = np.empty(incoming.shape[1:], incoming.dtype)
    for wave, i, (y, x) in zip(waves, index.tolist(), corners.tolist(), strict=True):
        np.multiply(incoming[i], wave, out=product)
        window = target[y : y + ny, x : x + nx]
        for mode in product:
            window += mode


def _multiply_cuda(incoming: Array, index: Array, slice_: Array, corners: Array) -> Array:
    xp = incoming.__array_namespace__()
    modes, ny, nx = incoming.shape[1:]
    out = xp.empty((len(corners), modes, ny, nx), incoming.dtype)
    arguments = (incoming, index, slice_, corners, modes, ny, nx, slice_.shape[1], out.size, out)
    _launch("multiply_patches", incoming.dtype, out.size, arguments)
    return out


def _scatter_add_cuda(target: Array, incoming: Array, index: Array, waves: Array, corners: Array) -> None:
    modes, ny, nx = incoming.shape[1:]
    total = len(corners) * ny * nx
    arguments = (incoming, index, waves, corners, modes, ny, nx, target.shape[1], total, target)
    _launch("scatter_add_patches", incoming.dtype, total, arguments)


@cache
def _kernel(name: str, real: str) -> Array:
    import cupy

    expression = f"{name}<{real}>"
    module = cupy.RawModule(code=CUDA_SOURCE, options=("--std=c++17",), name_expressions=(expression,))
    return module.get_function(expression)


def _launch(name: str, dtype: np.dtype, total: int, arguments: tuple) -> None:
    threads = 256
    scalars = tuple(np.int32(a) if isinstance(a, int) else a for a in arguments[:-2])
    kernel = _kernel(name, "float" if np.dtype(dtype) == np.complex64 else "double")
    kernel(((total + threads - 1) // threads,), (threads,), (*scalars, np.int64(total), arguments[-1]))
