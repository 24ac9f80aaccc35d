"""Refinement of the probe positions: one Gauss–Newton step per pass.

The derivative of the detector wave with respect to a position is the multislice wave of the probe's derivative, which gives
∂I/∂y and ∂I/∂x for each pattern, hence the gradient and the 2 × 2 information of its position. The given positions act as a
prior of known width, so that patterns that see little of the object stay where they were.

Standard shapes: positions (n, 2) (y, x) in px.
"""

from __future__ import annotations

import numpy as np

from ptycho.grid import Array, to_numpy
from ptycho.likelihood import intensity
from ptycho.problem import Problem, State

_LARGEST_STEP_PX = 0.5
_LARGEST_SHIFT_PX = 3.0


def position_derivatives(problem: Problem, state: State, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """∂L/∂(y, x) per px (n, 2) and its mean curvature (n, 2, 2) for the patterns `ids`, float64."""
    gradients, curvatures = [], []
    for chunk in problem.chunks(ids, state.probe):
        g, h = _chunk_derivatives(problem, state, chunk)
        gradients.append(to_numpy(g))
        curvatures.append(to_numpy(h))
    return np.concatenate(gradients).astype(np.float64), np.concatenate(curvatures).astype(np.float64)


def _chunk_derivatives(problem: Problem, state: State, ids: np.ndarray) -> tuple[Array, Array]:
    probes, index, corners = state.probes.take(ids)
    xp = state.object.__array_namespace__()
    each = xp.arange(len(ids), dtype="int32")

    def wave(incoming: Array, at: Array) -> Array:
        return problem.multislice.forward(incoming, at, state.object, corners)[1]

    detector = wave(probes, index)
    turned = [wave(d, each) for d in state.probes.derivatives(ids)]
    model = intensity(detector) + detector.real.dtype.type(problem.offset)
    slopes = [2 * (detector.real * t.real + detector.imag * t.imag).sum(1) for t in turned]
    problem.residual(detector, ids)
    gradient = [2 * (detector.real * t.real + detector.imag * t.imag).sum((1, 2, 3)) for t in turned]
    weight = problem.likelihood.curvature / xp.maximum(model, np.finfo(model.dtype).tiny)
    if problem.mask is not None:
        weight = weight * problem.mask
    rows = [[(weight * a * b).sum((1, 2)) for b in slopes] for a in slopes]
    return xp.stack(gradient, axis=1), xp.stack([xp.stack(r, axis=1) for r in rows], axis=1)


def refine_positions(problem: Problem, state: State, given_px: np.ndarray, sigma_px: float) -> State:
    """The state with every position moved by one step; their mean stays, none moves more than 3 px from `given_px`."""
    now = state.probes.scan.positions_px
    gradient, curvature = position_derivatives(problem, state, np.arange(len(now)))
    prior = problem.likelihood.curvature / sigma_px**2
    step = -np.linalg.solve(curvature + prior * np.eye(2), (gradient + prior * (now - given_px))[..., None])[..., 0]
    shift = now + np.clip(step, -_LARGEST_STEP_PX, _LARGEST_STEP_PX) - given_px
    shift -= shift.mean(0)
    return state.with_positions(given_px + np.clip(shift, -_LARGEST_SHIFT_PX, _LARGEST_SHIFT_PX))
