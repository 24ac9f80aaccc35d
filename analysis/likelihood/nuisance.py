"""Everything but the positions: brightness of elements and tilts, backgrounds, defocus, blur, shifts.

What differs from tilt to tilt (defocus, shift, scale) is measured once for each and drawn towards what the tilts have in common by as
much as it is mere noise: free numbers without need would only fit the noise, and cost accuracy.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from analysis.likelihood.model import Model, State, on_host
from analysis.likelihood.places import information
from analysis.likelihood.psf import Spread
from analysis.uncertainty import covariance

Array = NDArray[np.float64]

NEWTON_STEPS, HALVINGS = 8, 6
SETTLED = 1e-3
"""Of the misfit: a step that gains less is the last."""
MOST_DEFOCUS_A, DEFOCUS_SCAN_A = 120.0, 8.0
DEFOCUS_PROBE, DEFOCUS_PROBE_A2 = 0.3, 100.0
"""Steps of the parabola, in units of the squared defocus and at least in Å²."""
SHIFT_PROBE_PX = 0.05
WIDTH_FACTOR, WIDTH_STEPS, WIDTH_RESTS = 1.06, 8, 0.1
FIRST_WIDTHS_A, FIRST_WIDTHS = (0.15, 1.5), 12
NARROWEST_A, WIDEST_A = 0.05, 2.0


def shrunk(values: Array, information: Array, centre: float | None = None) -> Array:
    """Values (n,) measured with so much information each, drawn towards the centre as far as their scatter is mere noise.

    The scatter of the true values about the centre (about their mean when None) is what is left of that of the measured ones
    when their errors are taken off (empirical Bayes; Efron and Morris 1973, doi:10.2307/2284155).
    """
    error = 1 / np.maximum(information, 1e-300)
    middle = float((values * information).sum() / information.sum()) if centre is None else centre
    weight = information / information.sum()
    scatter = max(float((weight * ((values - middle) ** 2 - error)).sum()), 0.0)
    return np.asarray(middle + (values - middle) * scatter / (scatter + error))


def fit_light(model: Model, state: State, *, scales: bool = False) -> State:
    """Electrons of each element, backgrounds, and with `scales` the brightness of each tilt, by Gauss-Newton."""
    tables = model.tables(state)
    images = [
        model.atoms(state, tables, np.broadcast_to(one, (len(model.counts), len(one))).copy())
        for one in (state.element == np.arange(len(state.amplitudes))[:, None]).astype(float)
    ]
    misfit = np.inf
    for _ in range(NEWTON_STEPS):
        lit = _lit(model, images, state)
        before = model.misfit(lit) if misfit == np.inf else misfit
        change = _light_step(model, images, state, lit, scales)
        state, misfit = _longest(model, images, state, change, before)
        if before - misfit < SETTLED:
            break
    if scales:
        atoms, lit = model.atoms(state, tables), _lit(model, images, state)
        squares, sums, ones = (on_host((part / lit).sum(axis=(1, 2))) for part in (atoms**2, atoms, 0 * atoms + 1))
        held = (squares - sums**2 / ones) / state.scales**2
        state = fit_light(model, replace(state, scales=shrunk(state.scales / state.scales.mean(), held)))
    mean = state.scales.mean()
    return replace(state, scales=state.scales / mean, amplitudes=state.amplitudes * mean)


def _lit(model: Model, images: list[Array], state: State) -> Array:
    atoms = sum(a * image for a, image in zip(state.amplitudes, images, strict=True))
    return model.lit(model.xp.asarray(state.scales)[:, None, None] * atoms, state.backgrounds)


def _light_step(model: Model, images: list[Array], state: State, lit: Array, scales: bool) -> Array:
    """Gauss-Newton step of (amplitudes, backgrounds, scales or none)."""
    n, kinds = len(model.counts), len(images)
    weight, slope = 1 / lit, 1 - model.counts / lit
    xp = model.xp
    ground = xp.broadcast_to(xp.asarray(model.ground), lit.shape)
    shape = sum(a * image for a, image in zip(state.amplitudes, images, strict=True))
    local = [ground, *([shape] if scales else [])]
    size = kinds + n * len(local)
    bend, pull = np.zeros((size, size)), np.zeros(size)
    for t in range(n):
        columns = [*(float(state.scales[t]) * image[t] for image in images), *(part[t] for part in local)]
        at = [*range(kinds), *(kinds + t + n * k for k in range(len(local)))]
        flat = xp.stack([c.ravel() for c in columns])
        bend[np.ix_(at, at)] += on_host((flat * weight[t].ravel()) @ flat.T)
        pull[at] += on_host(flat @ slope[t].ravel())
    size_of = np.sqrt(np.maximum(np.diag(bend), 1e-300))
    return -np.asarray(np.linalg.lstsq(bend / np.outer(size_of, size_of), pull / size_of, rcond=1e-10)[0] / size_of)


def _longest(model: Model, images: list[Array], state: State, change: Array, before: float) -> tuple[State, float]:
    """The state after the longest part of the change that lowers the misfit."""
    n, kinds = len(model.counts), len(images)
    for part in 0.5 ** np.arange(HALVINGS):
        step = part * change
        scales = state.scales + step[kinds + n :] if len(step) > kinds + n else state.scales
        trial = replace(
            state,
            amplitudes=state.amplitudes + step[:kinds],
            backgrounds=np.maximum(state.backgrounds + step[kinds : kinds + n], 0),
            scales=scales,
        )
        misfit = model.misfit(_lit(model, images, trial))
        if misfit < before and (trial.amplitudes > 0).all() and (trial.scales > 0).all():
            return trial, misfit
    return state, before


def fit_defocus(model: Model, state: State) -> State:
    """Defocus of every tilt, up to its sign: scanned, where it is not known roughly yet, then bettered in place.

    What widens a spread is the square of the defocus; it is measured by a parabola through three misfits, and shrunk.
    """
    if model.spread.optics is None:
        return state
    square = state.defocus_A**2
    if np.ptp(square) == 0:
        grid = np.arange(DEFOCUS_SCAN_A / 2, MOST_DEFOCUS_A, DEFOCUS_SCAN_A)
        misfits = np.stack([_misfits_at(model, state, np.full(len(model.counts), q)) for q in grid])
        square = grid[misfits.argmin(axis=0)] ** 2
    step = np.maximum(DEFOCUS_PROBE * square, DEFOCUS_PROBE_A2)
    low, middle, high = (_misfits_at(model, state, np.sqrt(np.maximum(square + d, 0))) for d in (-step, 0 * step, step))
    # A step down to below zero was cut short there.
    down = square - np.maximum(square - step, 0)
    bend = 2 * ((high - middle) / step + (low - middle) / down) / (step + down)
    slope = (high - middle) / step - bend * step / 2
    curved = bend > 0
    measured = square - np.clip(slope / np.where(curved, bend, np.inf), -step, step)
    best = shrunk(measured, np.where(curved, bend, 1e-3 * np.abs(bend).max()))
    return replace(state, defocus_A=np.sqrt(np.maximum(best, 1.0)))


def _misfits_at(model: Model, state: State, defocus_A: Array) -> Array:
    return model.misfits(model.expected(replace(state, defocus_A=defocus_A)))


def fit_widths(model: Model, state: State) -> State:
    """Blur of every element, each by parabolas through three misfits until it rests."""
    middle = model.misfit(model.expected(state))
    for e in range(len(state.widths_A)):
        factor = np.where(np.arange(len(state.widths_A)) == e, WIDTH_FACTOR, 1.0)
        for _ in range(WIDTH_STEPS):
            sides = [model.misfit(model.expected(replace(state, widths_A=state.widths_A * factor**p))) for p in (-1, 1)]
            bend = sides[0] - 2 * middle + sides[1]
            move = np.clip(0.5 * (sides[0] - sides[1]) / bend, -3, 3) if bend > 0 else 2 * np.sign(sides[0] - sides[1])
            trial = replace(state, widths_A=np.clip(state.widths_A * factor**move, NARROWEST_A, WIDEST_A))
            misfit = model.misfit(model.expected(trial))
            if misfit >= middle:
                break
            state, middle = trial, misfit
            if abs(move) < WIDTH_RESTS:
                break
    return state


def unnarrowed(model: Model, state: State) -> State:
    """The state with widths as they would be at the true positions: where fitted positions follow the noise, images seem narrower
    by the variance of the positions."""
    tables = model.tables(state)
    variance = (
        np.einsum("aii->a", covariance(information(model, state, model.expected(state, tables), tables)[:, :3, :3])) / 3
    )
    wider = state.widths_A**2
    for e in range(len(wider)):
        known = variance[(state.element == e) & np.isfinite(variance)]
        wider[e] += known.mean() if known.size else 0.0
    return replace(state, widths_A=np.minimum(np.sqrt(wider), WIDEST_A))


def first_width(model: Model, state: State) -> tuple[Model, State]:
    """The common width of Gaussians that suits best of a series, and the model with a reach that suits it."""
    best: tuple[float, Model, State] | None = None
    for width in np.geomspace(FIRST_WIDTHS_A[0], FIRST_WIDTHS_A[1], FIRST_WIDTHS):
        reaching = replace(model, spread=Spread.of(None, model.pixel_A, 1.2 * float(width)))
        trial = fit_light(reaching, replace(state, widths_A=np.full(len(state.widths_A), width)))
        misfit = reaching.misfit(reaching.expected(trial))
        if best is None or misfit < best[0]:
            best = misfit, reaching, trial
    assert best is not None
    return best[1:]


def fit_shifts(model: Model, state: State, start_px: Array) -> State:
    """Where every tilt sees the origin, drawn towards `start_px` (tilts, 2); what a translation of the specimen would do is left."""
    tables = model.tables(state)
    expected = model.expected(state, tables)
    step = np.zeros((len(model.counts), 2))
    bend = np.zeros((len(model.counts), 2, 2))
    slopes = [_by_shift(model, state, tables, axis) for axis in (0, 1)]
    for i, along in enumerate(slopes):
        step[:, i] = on_host((along * (model.counts / expected - 1)).sum(axis=(1, 2)))
        for j, other in enumerate(slopes):
            bend[:, i, j] = on_host((along * other / expected).sum(axis=(1, 2)))
    off = state.shifts_px + np.linalg.solve(bend, step[..., None])[..., 0] - start_px
    design = model.rotations[:, :2].reshape(-1, 3)
    off -= (design @ np.linalg.lstsq(design, off.ravel(), rcond=None)[0]).reshape(off.shape)
    best = np.stack([shrunk(off[:, i], bend[:, i, i], 0.0) for i in (0, 1)], axis=1)
    return replace(state, shifts_px=start_px + best)


def _by_shift(model: Model, state: State, tables: Array, axis: int) -> Array:
    """∂λ/∂(shift along x or y) (tilts, y, x), by a central difference."""
    move = SHIFT_PROBE_PX * np.eye(2)[axis]
    ahead, behind = (model.atoms(replace(state, shifts_px=state.shifts_px + sign * move), tables) for sign in (1, -1))
    return (ahead - behind) / (2 * SHIFT_PROBE_PX)
