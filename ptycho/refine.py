"""Refinement of everything that is neither object nor probe: one damped Gauss–Newton step on the measured counts.

From the normal equations of `ptycho.linearise` the parameters of one pattern (position, dose, background) are eliminated, those of
the whole scan (affine map, tilt, thickness, aberrations) are solved for, then the former follow. The inverse of the information
is their covariance; it holds for the object as it is.

Standard shapes: positions (n, 2) (y, x) in px, gradient (n, parameter), information (n, parameter, parameter).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ptycho.grid import Array, ifft2, irfft2, library_of, rfft2, to_numpy
from ptycho.linearise import normal_equations, parameter_names, probe_rate
from ptycho.problem import Problem, State

_LARGEST_STEP_PX = 0.5
_LARGEST_SHIFT_PX = 3.0
_LARGEST_THICKNESS_STEP = 0.1
_LARGEST_DEFOCUS_STEP_A = 30.0
_DAMPING = 1e-3
_NOISE_PATTERNS = 400
_MOMENTUM = 0.9


@dataclass(frozen=True)
class Refined:
    """The moved state and what was learnt on the way.

    given_px: (n, 2) reference positions, turned with the affine map.
    steps: change of each scan-wide parameter in its own unit; sigma: its standard deviation. position_sigma_px: (n, 2)
    standard deviation of each position as (y, x), nan where positions are held.
    """

    state: State
    given_px: np.ndarray
    steps: dict[str, float]
    sigma: dict[str, float]
    position_sigma_px: np.ndarray


def noise_information(problem: Problem, state: State, noise: Array, rng: np.random.Generator) -> float:
    """Information about a position (mean of y and x, per px²) that the patterns seem to hold where the object is noise.

    noise: standard deviation (slice, Y, X // 2 + 1) of the unitary Fourier coefficients of the phase of each slice.
    """
    xp = library_of(state.object)
    shape = state.object.shape[-2:]
    white = xp.asarray(rng.standard_normal((len(noise), *shape)).astype(state.object.real.dtype))
    phase = irfft2(rfft2(white, problem.threads) * noise, shape, problem.threads)
    object_ = xp.broadcast_to(xp.exp(1j * phase).astype(state.object.dtype), state.object.shape)
    ids = np.sort(rng.permutation(problem.training)[:_NOISE_PATTERNS])
    information = normal_equations(problem, replace(state, object=object_), ids, ("y", "x")).information
    return float(np.einsum("ipp->i", information).mean()) / 2


def refine(
    problem: Problem,
    state: State,
    what: Sequence[str],
    given_px: np.ndarray,
    sigma_px: float,
    noise: float = 0.0,
    carried: Mapping[str, float] | None = None,
) -> Refined:
    """The state after one step of the parameters in `what` (names of `Settings.update_*`), for the training patterns.

    given_px: (n, 2) positions as given; refined ones are drawn to them with `sigma_px`, keep their mean, and end within 3 px.
    noise: `noise_information`. The noise in an object looks like structure and would pull the positions to itself, so a
    pattern is trusted as far as it holds more information than that.
    carried: `Refined.steps` of the call before. The object hinders parameters of the whole scan, it follows them only in the
    next pass; part of the last step is repeated as long as it points the same way.
    """
    ids = problem.training
    names = parameter_names(what, len(state.space.gaps_A))
    normal = normal_equations(problem, state, ids, names)
    gradient, information = normal.gradient, normal.information
    if "positions" in what:
        trust = np.clip(1 - 2 * noise / np.maximum(np.einsum("ipp->i", information[:, :2, :2]), 1e-30), 0, 1)
        gradient[:, :2] *= trust[:, None]
        information[:, :2, :2] *= trust[:, None, None]
        information[:, :2, 2:] *= trust[:, None, None]
        information[:, 2:, :2] *= trust[:, None, None]
        prior = problem.likelihood.curvature / sigma_px**2
        gradient[:, :2] += prior * (state.positions_px - given_px)[ids]
        information[:, (0, 1), (0, 1)] += prior
    spread, local, shared = _layout(names, what, state.positions_px[ids])
    gradient = np.einsum("iqp,iq->ip", spread, gradient)
    information = np.einsum("iqp,iqr,irs->ips", spread, information, spread)
    own, whole, covariance = _solve(gradient, information, len(local))
    last = np.array([(carried or {}).get(name, 0.0) for name in shared])
    if float(last @ (whole / np.diag(covariance))) > 0:
        whole = whole + _MOMENTUM * last
    sigma = dict(zip(shared, np.sqrt(np.diag(covariance)).tolist(), strict=True))
    steps = dict(zip(shared, whole.tolist(), strict=True))
    position_sigma = np.full((len(given_px), 2), np.nan)
    if "positions" in what:
        position_sigma[ids] = np.sqrt(np.einsum("ipp->ip", np.linalg.inv(information[:, :2, :2])))
    moved, given_px = _moved(state, ids, dict(zip(local, own.T, strict=True)), steps, given_px)
    return Refined(moved, given_px, steps, sigma, position_sigma)


def _layout(
    names: Sequence[str], what: Sequence[str], positions_px: np.ndarray
) -> tuple[np.ndarray, list[str], list[str]]:
    """How the unknowns move the columns of the normal equations: (pattern, column, unknown), and the unknowns' names, first
    those of each pattern, then those of the scan."""
    local = [
        n for n in names if n in ("y", "x", "scale", "background") and (n not in ("y", "x") or "positions" in what)
    ]
    shared = [n for n in names if n not in ("y", "x", "scale", "background")]
    affine = ["affine_yy", "affine_yx", "affine_xy", "affine_xx"] if "affine" in what else []
    unknowns = [*local, *shared, *affine]
    spread = np.zeros((len(positions_px), len(names), len(unknowns)))
    for name in [*local, *shared]:
        spread[:, names.index(name), unknowns.index(name)] = 1
    about_centre = positions_px - positions_px.mean(0)
    for name in affine:
        spread[:, names.index(name[-2]), unknowns.index(name)] = about_centre[:, "yx".index(name[-1])]
    return spread, local, shared + affine


def _solve(gradient: np.ndarray, information: np.ndarray, n_local: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps of each pattern's own unknowns (n, local), of the shared ones (shared,), and the covariance of the latter."""
    diagonal = np.einsum("ipp->ip", information)
    floor = 1e-9 * diagonal.mean(0) + np.finfo(np.float64).tiny
    damped = information + np.einsum("ip,pq->ipq", _DAMPING * diagonal + floor, np.eye(information.shape[1]))
    here, there = slice(None, n_local), slice(n_local, None)
    h_ll, h_lg = damped[:, here, here], damped[:, here, there]
    back = np.linalg.solve(h_ll, np.concatenate([gradient[:, here, None], h_lg], axis=2)) if n_local else None
    total = damped[:, there, there].sum(0)
    slope = gradient[:, there].sum(0)
    if back is not None:
        total = total - np.einsum("ilg,ilh->gh", h_lg, back[:, :, 1:])
        slope = slope - np.einsum("ilg,il->g", h_lg, back[:, :, 0])
    covariance = np.linalg.inv(total)
    whole = -covariance @ slope
    own = np.zeros((len(gradient), 0)) if back is None else -back[:, :, 0] - back[:, :, 1:] @ whole
    return own, whole, covariance


def _moved(
    state: State, ids: np.ndarray, own: dict[str, np.ndarray], steps: dict[str, float], given_px: np.ndarray
) -> tuple[State, np.ndarray]:
    """The state after limited steps, and the reference positions turned with it."""
    positions = state.positions_px
    if "affine_yy" in steps:
        turn = np.array([[steps[f"affine_{a}{b}"] for b in "yx"] for a in "yx"])
        limit = _LARGEST_STEP_PX / max(np.abs(turn @ (given_px - given_px.mean(0)).T).max(), _LARGEST_STEP_PX)
        positions = positions + limit * (positions - positions.mean(0)) @ turn.T
        given_px = given_px + limit * (given_px - given_px.mean(0)) @ turn.T
    if "y" in own:
        step = np.clip(np.stack([own["y"], own["x"]], axis=1), -_LARGEST_STEP_PX, _LARGEST_STEP_PX)
        shift = positions - given_px
        shift[ids] += step
        shift -= shift.mean(0)
        positions = given_px + np.clip(shift, -_LARGEST_SHIFT_PX, _LARGEST_SHIFT_PX)
    if positions is not state.positions_px:
        state = state.with_positions(positions)
    return _moved_optics(_moved_counts(state, ids, own), steps), given_px


def _moved_counts(state: State, ids: np.ndarray, own: dict[str, np.ndarray]) -> State:
    """Dose and background of each pattern; the mean dose stays with the probe."""
    xp = library_of(state.object)
    n, real = len(state.positions_px), state.object.real.dtype
    if "scale" in own:
        scales = np.ones(n) if state.scales is None else to_numpy(state.scales).astype(np.float64)
        scales[ids] = np.clip(scales[ids] + own["scale"], 0.5 * scales[ids], 2 * scales[ids])
        state = replace(state, scales=xp.asarray((scales / scales.mean()).astype(real)))
    if "background" in own:
        levels = np.zeros(n) if state.backgrounds is None else to_numpy(state.backgrounds).astype(np.float64)
        levels[ids] = np.maximum(levels[ids] + own["background"], 0)
        state = replace(state, backgrounds=xp.asarray(levels.astype(real)))
    return state


def _moved_optics(state: State, steps: dict[str, float]) -> State:
    """Tilt, distances between slices, and the aberrations of the probe."""
    space = state.space
    if "tilt_y" in steps:
        space = replace(space, tilts_mrad=space.tilts_mrad + np.array([steps["tilt_y"], steps["tilt_x"]]))
    if "gap_0" in steps:
        change = np.array([steps[f"gap_{g}"] for g in range(len(space.gaps_A))])
        limit = _LARGEST_THICKNESS_STEP * space.gaps_A
        space = replace(space, gaps_A=space.gaps_A + np.clip(change, -limit, limit))
    if space is not state.space:
        state = replace(state, space=space)
    named = [name for name in ("defocus", "astigmatism_a", "astigmatism_b") if name in steps]
    if not named:
        return state
    limited = np.clip([steps[name] for name in named], -_LARGEST_DEFOCUS_STEP_A, _LARGEST_DEFOCUS_STEP_A)
    phase = np.tensordot(limited, np.stack([probe_rate(state, name) for name in named]), axes=1)
    xp = library_of(state.object)
    factor = xp.asarray(np.exp(1j * phase).astype(state.probe.dtype))
    return state.with_probe(ifft2(state.illumination.spectrum * factor, state.illumination.threads))
