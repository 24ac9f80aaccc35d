"""Probes that differ from pattern to pattern: orthogonal probe relaxation.

Each pattern asks for a change of the first probe mode of its own. The few shapes that explain most of these changes, found by
one step of subspace iteration per pass, become the variations, and each pattern's share of them its coefficients
(Odstrcil et al., doi:10.1364/OE.24.008360).

Standard shapes: variations (variation, y, x) orthonormal, coefficients (n, variation), wanted changes (pattern, y, x).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ptycho.data import as_slice
from ptycho.grid import Array, library_of, to_numpy
from ptycho.problem import Problem, State
from ptycho.scan import Variations

_RELAXATION = 0.5


def start(state: State, count: int, rng: np.random.Generator) -> State:
    """The state with `count` random orthonormal variations of the probe that no pattern uses yet."""
    xp = library_of(state.object)
    shape = (count, *state.probe.shape[-2:])
    envelope = np.abs(to_numpy(state.probe[0]))
    modes = envelope * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))
    modes = np.linalg.qr(modes.reshape(count, -1).T)[0].T.reshape(shape)
    dtype = state.probe.dtype
    variations = Variations(xp.asarray(modes.astype(dtype)), xp.zeros((len(state.positions_px), count), dtype))
    return replace(state, illumination=state.illumination.with_variations(variations))


def refine_variations(problem: Problem, state: State) -> State:
    """The state with the variations turned towards what the patterns ask for, one pass over the training patterns."""
    variations = state.illumination.variations
    if variations is None:
        raise ValueError("the state has no probe variations; expected those of `start`.")
    xp = library_of(state.object)
    basis = variations.modes.reshape(len(variations.modes), -1)
    sketch = xp.zeros_like(basis)
    coefficients = xp.zeros_like(variations.coefficients)
    discarded = xp.zeros_like(state.object)
    step = -_RELAXATION / problem.likelihood.curvature
    for ids in problem.chunks(problem.training, state.probe):
        waves = problem.forward(state, ids)
        problem.residual(state, waves)
        back = problem.adjoint(state, waves, state.object, discarded, True)
        assert back is not None
        change = state.illumination.back_shifted(ids, xp.ascontiguousarray(back[:, 0]))
        change = change.reshape(len(ids), -1) * change.real.dtype.type(step)
        wanted = change @ basis.conj().T + variations.coefficients[as_slice(ids)]
        coefficients[as_slice(ids)] = wanted
        sketch += wanted.conj().T @ change + wanted.conj().T @ variations.coefficients[as_slice(ids)] @ basis
    coefficients -= coefficients[problem.training].mean(0) * _member(coefficients, problem.training)
    modes, _ = xp.linalg.qr(sketch.T)
    modes = modes.T
    turned = coefficients @ (basis @ modes.conj().T)
    shape = variations.modes.shape
    dtype = state.probe.dtype
    new = Variations(xp.ascontiguousarray(modes.reshape(shape)).astype(dtype), turned.astype(dtype))
    return replace(state, illumination=state.illumination.with_variations(new))


def _member(coefficients: Array, training: np.ndarray) -> Array:
    """1 for patterns that are fitted, 0 for others: (n, 1)."""
    xp = library_of(coefficients)
    member = np.zeros((len(coefficients), 1))
    member[training] = 1
    return xp.asarray(member.astype(coefficients.real.dtype))
