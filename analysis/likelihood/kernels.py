"""Compiled sums over the pixels round atoms: their image, what a mismatch pulls, and how sharp it holds them.

Atom a is seen in tilt t at pixel at[t, a] = (x, y) with brightness bright[t, a]; its image is bright · P(distance²), P linear between
the entries of table[t, element[a]], within `reach` px. Kernels take (first, last, ...) and do those tilts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.compiled import compiled
from analysis.likelihood.psf import STEPS_PER_PX2

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
ONE = np.uint32(1)
"""Unsigned indices need not be checked for counting from the end: kernels take half the time."""


@compiled
def render(  # pragma: no cover - compiled
    first: int, last: int, at: Array, bright: Array, element: Ints, table: Array, reach: float, out: Array
) -> None:
    """Add the image of every atom to out (tilts, y, x)."""
    ny, nx = out.shape[1:]
    for t in range(first, last):
        for a in range(at.shape[1]):
            x0, y0, height, entries = at[t, a, 0], at[t, a, 1], bright[t, a], table[t, element[a]]
            left, right = max(0, int(np.ceil(x0 - reach))), min(nx - 1, int(np.floor(x0 + reach)))
            for y in range(max(0, int(np.ceil(y0 - reach))), min(ny - 1, int(np.floor(y0 + reach))) + 1):
                line, dy2 = out[t, y], (y - y0) ** 2
                for x in range(left, right + 1):
                    s = min((dy2 + (x - x0) ** 2) * STEPS_PER_PX2, entries.shape[0] - 1.001)
                    k = np.uint32(s)
                    line[np.uint32(x)] += height * (entries[k] + (s - k) * (entries[k + ONE] - entries[k]))


@compiled
def pulls(  # pragma: no cover - compiled
    first: int,
    last: int,
    at: Array,
    bright: Array,
    element: Ints,
    table: Array,
    reach: float,
    slope: Array,
    out: Array,
) -> None:
    """out[t, a] = Σ slope · ∂image/∂(x, y, brightness), with slope (tilts, y, x)."""
    ny, nx = slope.shape[1:]
    for t in range(first, last):
        for a in range(at.shape[1]):
            x0, y0, entries = at[t, a, 0], at[t, a, 1], table[t, element[a]]
            left, right = max(0, int(np.ceil(x0 - reach))), min(nx - 1, int(np.floor(x0 + reach)))
            along_x, along_y, plain = 0.0, 0.0, 0.0
            for y in range(max(0, int(np.ceil(y0 - reach))), min(ny - 1, int(np.floor(y0 + reach))) + 1):
                dy, line, row = y - y0, slope[t, y], 0.0
                for x in range(left, right + 1):
                    dx = x - x0
                    s = min((dy * dy + dx * dx) * STEPS_PER_PX2, entries.shape[0] - 1.001)
                    k = np.uint32(s)
                    fall = entries[k + ONE] - entries[k]
                    plain += line[np.uint32(x)] * (entries[k] + (s - k) * fall)
                    along_x += line[np.uint32(x)] * fall * dx
                    row += line[np.uint32(x)] * fall
                along_y += row * dy
            chain = -2 * STEPS_PER_PX2 * bright[t, a]
            out[t, a, 0], out[t, a, 1], out[t, a, 2] = chain * along_x, chain * along_y, plain


@compiled
def sharpness(  # pragma: no cover - compiled
    first: int,
    last: int,
    at: Array,
    bright: Array,
    element: Ints,
    table: Array,
    reach: float,
    weight: Array,
    out: Array,
) -> None:
    """out[t, a] = Σ weight J Jᵀ as xx, xy, xb, yy, yb, bb, with J = ∂image/∂(x, y, brightness) and weight (tilts, y, x)."""
    ny, nx = weight.shape[1:]
    for t in range(first, last):
        for a in range(at.shape[1]):
            x0, y0, entries = at[t, a, 0], at[t, a, 1], table[t, element[a]]
            chain = -2 * STEPS_PER_PX2 * bright[t, a]
            xx, xy, xb, yy, yb, bb = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            left, right = max(0, int(np.ceil(x0 - reach))), min(nx - 1, int(np.floor(x0 + reach)))
            for y in range(max(0, int(np.ceil(y0 - reach))), min(ny - 1, int(np.floor(y0 + reach))) + 1):
                dy, line = y - y0, weight[t, y]
                for x in range(left, right + 1):
                    dx = x - x0
                    s = min((dy * dy + dx * dx) * STEPS_PER_PX2, entries.shape[0] - 1.001)
                    k = np.uint32(s)
                    fall = entries[k + ONE] - entries[k]
                    value, slope = entries[k] + (s - k) * fall, chain * fall
                    w, ws = line[np.uint32(x)], line[np.uint32(x)] * slope
                    xx += ws * slope * dx * dx
                    xy += ws * slope * dx * dy
                    yy += ws * slope * dy * dy
                    xb += ws * value * dx
                    yb += ws * value * dy
                    bb += w * value * value
            out[t, a, 0], out[t, a, 1], out[t, a, 2] = xx, xy, xb
            out[t, a, 3], out[t, a, 4], out[t, a, 5] = yy, yb, bb
