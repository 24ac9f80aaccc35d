"""Proximal operator of the isotropic total variation.

argmin_z ½‖z − a‖² + λ Σ|∇z| has the dual argmin ½‖a + div p‖² over |p| ≤ λ, with z = a + div p: projected gradient steps of
length 1/‖∇‖² with the momentum of Beck and Teboulle (doi:10.1109/TIP.2009.2028250; Chambolle,
doi:10.1023/B:JMIV.0000011325.36760.1e, without it). Forward differences, closed ends: the sum of z is that of a.

Standard shapes: a (..., slice, Y, X) real, dual field (axis, ..., slice, Y, X).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import EllipsisType

import numpy as np

from ptycho.grid import Array, library_of

_Index = tuple[slice | EllipsisType, ...]


def variation_prox(a: Array, weight: float, ratios: Sequence[float] = (), passes: int = 20) -> Array:
    """Proximal operator of weight·Σ|∇a| with ∇ = (∂y, ∂x, ratio·∂z) in differences of neighbours.

    a: (..., slice, Y, X) float32 or float64. ratios: (slice − 1,) factor of the difference between each slice and the next;
    none, or all zero, treats every slice on its own. passes: iterations of the dual.
    """
    if weight == 0:
        return a
    scales = _scales(a, ratios)
    length = 1 / (8 + 4 * max(ratios, default=0.0) ** 2)
    xp = library_of(a)
    dual = ahead = xp.zeros((len(scales), *a.shape), a.dtype)
    momentum = 1.0
    for _ in range(passes):
        moved = _project(ahead + length * _gradient(a + _divergence(ahead, scales), scales), weight)
        following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        ahead = moved + (momentum - 1) / following * (moved - dual)
        dual, momentum = moved, following
    return a + _divergence(dual, scales)


def _scales(a: Array, ratios: Sequence[float]) -> list[Array]:
    """Factor of the differences along x, y and, where asked for, z."""
    xp = library_of(a)
    one = xp.ones((1, 1, 1), a.dtype)
    if not any(ratios):
        return [one, one]
    return [one, one, xp.asarray(np.asarray(ratios, a.dtype)[:, None, None])]


def _sides(axis: int) -> tuple[_Index, _Index]:
    """All but the last, and all but the first, along the axis counted from the last: 0 = x, 1 = y, 2 = z."""
    rest = (slice(None),) * axis
    return (..., slice(None, -1), *rest), (..., slice(1, None), *rest)


def _gradient(a: Array, scales: list[Array]) -> Array:
    xp = library_of(a)
    out = xp.zeros((len(scales), *a.shape), a.dtype)
    for axis, scale in enumerate(scales):
        before, after = _sides(axis)
        out[axis][before] = scale * (a[after] - a[before])
    return out


def _divergence(dual: Array, scales: list[Array]) -> Array:
    """Negative adjoint of `_gradient`."""
    out = dual[0] * 0
    for axis, scale in enumerate(scales):
        before, after = _sides(axis)
        flux = scale * dual[axis][before]
        out[before] += flux
        out[after] -= flux
    return out


def _project(dual: Array, radius: float) -> Array:
    """Vectors longer than `radius` brought to that length, in place."""
    xp = library_of(dual)
    dual *= radius / xp.maximum(xp.sqrt((dual**2).sum(0)), radius)
    return dual
