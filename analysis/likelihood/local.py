"""One atom at a time against all counts: what it is worth, where it wants to go, and the expected counts without it.

An atom is seen in tilt t at place · to_pixels[t] + origin[t] with brightness bright[t]; `table` is that of its element, (tilts, entries).
All functions see the expected counts λ (tilts, y, x) as they are at that moment and some change them, so they are exact however
atoms overlap. Gains are differences of the log-likelihood of Poisson counts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.compiled import compiled
from analysis.likelihood.kernels import ONE
from analysis.likelihood.model import DARKEST
from analysis.likelihood.psf import STEPS_PER_PX2

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

FAR_A = 1e9
STIFFNESS = 1e-3
HALVINGS = 5


@compiled
def seen(place: Array, to_pixels: Array, origin: Array, t: int) -> tuple[float, float]:  # pragma: no cover - compiled
    """Pixel (x, y) of a place (3,) in Å in tilt t."""
    m = to_pixels[t]
    x = m[0, 0] * place[0] + m[0, 1] * place[1] + m[0, 2] * place[2] + origin[t, 0]
    y = m[1, 0] * place[0] + m[1, 1] * place[1] + m[1, 2] * place[2] + origin[t, 1]
    return x, y


@compiled
def distances(place: Array, positions: Array, alive: NDArray[np.bool_]) -> Array:  # pragma: no cover - compiled
    """In Å from a place (3,) to all positions (n, 3); FAR_A to those not alive (n,)."""
    out = np.full(len(positions), FAR_A)
    for a in range(len(positions)):
        if alive[a]:
            dx, dy, dz = positions[a, 0] - place[0], positions[a, 1] - place[1], positions[a, 2] - place[2]
            out[a] = np.sqrt(dx * dx + dy * dy + dz * dz)
    return out


@compiled
def paint(  # pragma: no cover - compiled
    place: Array,
    sign: float,
    bright: Array,
    table: Array,
    reach: float,
    to_pixels: Array,
    origin: Array,
    expected: Array,
) -> None:
    """Add the atom's image to the expected counts, or with sign −1 take it off."""
    ny, nx = expected.shape[1:]
    for t in range(len(expected)):
        x0, y0 = seen(place, to_pixels, origin, t)
        height, entries = sign * bright[t], table[t]
        last = min(reach * reach * STEPS_PER_PX2, entries.shape[0] - 1.001)
        left, right = max(0, int(np.ceil(x0 - reach))), min(nx - 1, int(np.floor(x0 + reach)))
        for y in range(max(0, int(np.ceil(y0 - reach))), min(ny - 1, int(np.floor(y0 + reach))) + 1):
            line, dy2 = expected[t, y], (y - y0) ** 2
            for x in range(left, right + 1):
                s = (dy2 + (x - x0) ** 2) * STEPS_PER_PX2
                if s >= last:
                    continue
                k = np.uint32(s)
                line[np.uint32(x)] += height * (entries[k] + (s - k) * (entries[k + ONE] - entries[k]))


@compiled
def gain(  # pragma: no cover - compiled
    place: Array,
    bright: Array,
    table: Array,
    reach: float,
    to_pixels: Array,
    origin: Array,
    expected: Array,
    counts: Array,
) -> float:
    """Log-likelihood that an atom at the place would add to expected counts without it."""
    ny, nx = expected.shape[1:]
    total = 0.0
    for t in range(len(expected)):
        x0, y0 = seen(place, to_pixels, origin, t)
        entries = table[t]
        last = min(reach * reach * STEPS_PER_PX2, entries.shape[0] - 1.001)
        left, right = max(0, int(np.ceil(x0 - reach))), min(nx - 1, int(np.floor(x0 + reach)))
        for y in range(max(0, int(np.ceil(y0 - reach))), min(ny - 1, int(np.floor(y0 + reach))) + 1):
            dy2, line, counted = (y - y0) ** 2, expected[t, y], counts[t, y]
            for x in range(left, right + 1):
                s = (dy2 + (x - x0) ** 2) * STEPS_PER_PX2
                if s >= last:
                    continue
                k, there = np.uint32(s), np.uint32(x)
                value = bright[t] * (entries[k] + (s - k) * (entries[k + ONE] - entries[k]))
                count = counted[there]
                total -= value
                if count > 0:
                    total += count * np.log1p(value / max(line[there], DARKEST))
    return total


@compiled
def newton(  # pragma: no cover - compiled
    place: Array,
    bright: Array,
    table: Array,
    reach: float,
    to_pixels: Array,
    origin: Array,
    expected: Array,
    counts: Array,
) -> Array:
    """Fisher scoring step (3,) in Å of an atom that the expected counts contain."""
    ny, nx = expected.shape[1:]
    slope, bend = np.zeros(3), np.zeros((3, 3))
    for t in range(len(expected)):
        x0, y0 = seen(place, to_pixels, origin, t)
        entries = table[t]
        gx, gy, xx, xy, yy = 0.0, 0.0, 0.0, 0.0, 0.0
        last = min(reach * reach * STEPS_PER_PX2, entries.shape[0] - 1.001)
        left, right = max(0, int(np.ceil(x0 - reach))), min(nx - 1, int(np.floor(x0 + reach)))
        for y in range(max(0, int(np.ceil(y0 - reach))), min(ny - 1, int(np.floor(y0 + reach))) + 1):
            dy, line, counted = y - y0, expected[t, y], counts[t, y]
            for x in range(left, right + 1):
                dx = x - x0
                s = (dy * dy + dx * dx) * STEPS_PER_PX2
                if s >= last:
                    continue
                k, there = np.uint32(s), np.uint32(x)
                fall = -2 * STEPS_PER_PX2 * bright[t] * (entries[k + ONE] - entries[k])
                inverse = 1 / max(line[there], DARKEST)
                pull, weight = (1 - counted[there] * inverse) * fall, inverse * fall * fall
                gx += pull * dx
                gy += pull * dy
                xx += weight * dx * dx
                xy += weight * dx * dy
                yy += weight * dy * dy
        m = to_pixels[t]
        for i in range(3):
            slope[i] += gx * m[0, i] + gy * m[1, i]
            for j in range(3):
                bend[i, j] += xx * m[0, i] * m[0, j] + yy * m[1, i] * m[1, j]
                bend[i, j] += xy * (m[0, i] * m[1, j] + m[1, i] * m[0, j])
    held = STIFFNESS * (bend[0, 0] + bend[1, 1] + bend[2, 2]) / 3 + 1e-12
    for i in range(3):
        bend[i, i] += held
    return -np.linalg.solve(bend, slope)  # type: ignore[return-value]


@compiled
def shifted_by(  # pragma: no cover - compiled
    place: Array,
    step: Array,
    bright: Array,
    table: Array,
    reach: float,
    to_pixels: Array,
    origin: Array,
    expected: Array,
    counts: Array,
    moves: bool,
) -> float:
    """Log-likelihood gained by moving an atom that the expected counts contain by a step (3,); `moves` changes them so."""
    ny, nx = expected.shape[1:]
    total, square = 0.0, reach * reach
    for t in range(len(expected)):
        x0, y0 = seen(place, to_pixels, origin, t)
        x1, y1 = seen(place + step, to_pixels, origin, t)
        entries, height = table[t], bright[t]
        last = entries.shape[0] - 1.001
        left, right = max(0, int(np.ceil(min(x0, x1) - reach))), min(nx - 1, int(np.floor(max(x0, x1) + reach)))
        for y in range(max(0, int(np.ceil(min(y0, y1) - reach))), min(ny - 1, int(np.floor(max(y0, y1) + reach))) + 1):
            line, counted = expected[t, y], counts[t, y]
            for x in range(left, right + 1):
                there = np.uint32(x)
                before, after = (y - y0) ** 2 + (x - x0) ** 2, (y - y1) ** 2 + (x - x1) ** 2
                change = 0.0
                if before < square:
                    s = min(before * STEPS_PER_PX2, last)
                    k = np.uint32(s)
                    change -= entries[k] + (s - k) * (entries[k + ONE] - entries[k])
                if after < square:
                    s = min(after * STEPS_PER_PX2, last)
                    k = np.uint32(s)
                    change += entries[k] + (s - k) * (entries[k + ONE] - entries[k])
                change *= height
                if moves:
                    line[there] += change
                    continue
                total -= change
                count = counted[there]
                if count > 0:
                    held = max(line[there], DARKEST)
                    total += count * np.log(max(held + change, DARKEST) / held)
    return total


@compiled
def relax(  # pragma: no cover - compiled
    place: Array,
    longest: float,
    bright: Array,
    table: Array,
    reach: float,
    to_pixels: Array,
    origin: Array,
    expected: Array,
    counts: Array,
) -> float:
    """Move an atom that the expected counts contain to where it fits better, and them with it; the gain, never negative."""
    step = newton(place, bright, table, reach, to_pixels, origin, expected, counts)
    length = np.sqrt((step**2).sum())
    if length > longest:
        step *= longest / length
    for _ in range(HALVINGS):
        got = shifted_by(place, step, bright, table, reach, to_pixels, origin, expected, counts, False)
        if got > 0:
            shifted_by(place, step, bright, table, reach, to_pixels, origin, expected, counts, True)
            place += step
            return got
        step *= 0.5
    return 0.0


@compiled
def with_neighbours(  # pragma: no cover - compiled
    which: Ints,
    sweeps: int,
    longest: float,
    positions: Array,
    element: Ints,
    bright: Array,
    tables: Array,
    reach: float,
    to_pixels: Array,
    origin: Array,
    expected: Array,
    counts: Array,
) -> float:
    """Relax some atoms in turns, positions and expected counts with them; the gain. bright: (elements, tilts), tables: (elements,
    tilts, entries)."""
    total = 0.0
    for _ in range(sweeps):
        better = 0.0
        for a in which:
            e = element[a]
            better += relax(positions[a], longest, bright[e], tables[e], reach, to_pixels, origin, expected, counts)
        total += better
        if better < 0.05:
            break
    return total


@compiled
def worths(  # pragma: no cover - compiled
    first: int,
    last: int,
    positions: Array,
    element: Ints,
    bright: Array,
    tables: Array,
    reach: float,
    to_pixels: Array,
    origin: Array,
    expected: Array,
    counts: Array,
    out: Array,
) -> None:
    """out[a, e] = log-likelihood that atom a as element e adds to all the others. The expected counts are put back as they were;
    threads may not share them."""
    for a in range(first, last):
        own = element[a]
        paint(positions[a], -1.0, bright[own], tables[own], reach, to_pixels, origin, expected)
        for e in range(out.shape[1]):
            out[a, e] = gain(positions[a], bright[e], tables[e], reach, to_pixels, origin, expected, counts)
        paint(positions[a], 1.0, bright[own], tables[own], reach, to_pixels, origin, expected)


@compiled
def survey(  # pragma: no cover - compiled
    first: int, last: int, sites: Array, to_pixels: Array, origin: Array, pull: Array, hold: Array, out: Array
) -> None:
    """out[i] = (Σ pull, Σ hold) over the tilts where site i (3,) in Å is seen, linear between pixels; images (tilts, y, x)."""
    ny, nx = pull.shape[1:]
    for i in range(first, last):
        for t in range(len(pull)):
            x, y = seen(sites[i], to_pixels, origin, t)
            ix, iy = int(np.floor(x)), int(np.floor(y))
            if ix < 0 or iy < 0 or ix >= nx - 1 or iy >= ny - 1:
                continue
            fx, fy = x - ix, y - iy
            for dy in range(2):
                for dx in range(2):
                    share = (fx if dx else 1 - fx) * (fy if dy else 1 - fy)
                    out[i, 0] += share * pull[t, iy + dy, ix + dx]
                    out[i, 1] += share * hold[t, iy + dy, ix + dx]
