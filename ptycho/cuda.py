"""CUDA texts are compiled at run time and launched one block per part of a pattern.

Every kernel starts with (int pixels, int parts): block b works on pattern b / parts, and its threads stride over the pixels of
part b % parts, so that one text serves few large and many small patterns.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ptycho.grid import Array, library_of

THREADS = 256
_PIXELS_PER_PART = 2048

PRELUDE = r"""
// Aligned as a whole, so that one load brings both parts.
template <typename T> struct alignas(2 * sizeof(T)) Complex { T re, im; };

template <typename T> __device__ Complex<T> operator*(Complex<T> a, Complex<T> b) {
    return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

// IEEE half precision from its bits, so that no header is needed.
struct Half {
    unsigned short bits;
    __device__ operator float() const {
        union { unsigned bits; float value; } wide;
        wide.bits = (bits & 0x7fffu) << 13;
        wide.value *= 5.192296858534828e33f;  // 2^112, the difference of the exponents' zero
        if ((bits & 0x7c00u) == 0x7c00u) wide.bits |= 0x7f800000u;
        return bits & 0x8000u ? -wide.value : wide.value;
    }
};
"""

_C_TYPES = {
    "u1": "unsigned char",
    "u2": "unsigned short",
    "u4": "unsigned int",
    "u8": "unsigned long long",
    "i1": "signed char",
    "i2": "short",
    "i4": "int",
    "i8": "long long",
    "f2": "Half",
    "f4": "float",
    "f8": "double",
    "c8": "float",
    "c16": "double",
}


def c_type(dtype: np.dtype) -> str:
    """C name of the numbers of an array (of the real and imaginary part of a complex one); ValueError for other kinds."""
    code = np.dtype(dtype).str[1:]
    if code not in _C_TYPES:
        raise ValueError(
            f"an array of dtype {dtype} cannot be used on the GPU; expected integers or floats of at most 8 bytes."
        )
    return _C_TYPES[code]


def parts(pixels: int) -> int:
    """Blocks that share the pixels of one pattern."""
    return max(1, -(-pixels // _PIXELS_PER_PART))


def launch(source: str, expression: str, patterns: int, pixels: int, *arguments: Any) -> None:
    """Run the kernel `expression` (name and template arguments) of a text over patterns × pixels.

    arguments: arrays, NumPy scalars of the kernel's own type, whole numbers for int, None for a null pointer.
    """
    if patterns == 0:
        return
    values = tuple(_argument(a) for a in (pixels, parts(pixels), *arguments))
    _kernel(source, expression)((patterns * parts(pixels),), (THREADS,), values)


def in_place(name: str, a: Array, dtype: np.dtype) -> Array:
    """The array itself, when a kernel can write into it; ValueError when its dtype or memory layout is another."""
    if a.dtype != dtype or not a.flags.c_contiguous:
        raise ValueError(f"{name} is {a.dtype}, C-contiguous: {a.flags.c_contiguous}; expected {dtype} in C order.")
    return a


def readable(a: Array | None, dtype: Any = None) -> Array | None:
    """The array in C order and the wanted dtype, copied only when it is not; None stays None."""
    if a is None:
        return None
    return library_of(a).ascontiguousarray(a, dtype)


def _argument(value: Any) -> Any:
    if value is None:
        return np.uintp(0)
    return np.int32(value) if isinstance(value, int) else value


@cache
def _kernel(source: str, expression: str) -> Any:
    import cupy

    module = cupy.RawModule(code=source, options=("--std=c++17",), name_expressions=(expression,))
    return module.get_function(expression)
