"""All positions together: L-BFGS on the Poisson likelihood, each atom scaled by its own Fisher information.

No step raises the misfit. Source: Liu and Nocedal (1989), doi:10.1007/BF01589116.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, minimize

from analysis.likelihood.model import Model, State

Array = NDArray[np.float64]

WEAKEST = 1e-6
"""Directions that an atom's images hardly determine are held to this share of its best one."""


def fit_places(
    model: Model, state: State, iterations: int, told: Callable[[float], None] | None = None
) -> tuple[State, float]:
    """The state with better positions, and its misfit; told(misfit) after every step."""
    tables = model.tables(state)
    expected = model.expected(state, tables)
    before = model.misfit(expected)
    scale = inverse_root(information(model, state, expected, tables)[:, :3, :3])

    def moved(u: Array) -> State:
        return replace(state, positions_A=state.positions_A + np.einsum("aij,aj->ai", scale, u.reshape(-1, 3)))

    def objective(u: Array) -> tuple[float, Array]:
        trial = moved(u)
        expected = model.expected(trial, tables)
        pulls = model.pulls(trial, 1 - model.counts / expected, tables)[..., :2]
        slope = np.einsum("tij,tai->aj", model.to_pixels, pulls)
        return model.misfit(expected), np.einsum("aij,ai->aj", scale, slope).ravel()

    def tell(intermediate_result: OptimizeResult) -> None:
        if told is not None:
            told(float(intermediate_result.fun))

    found = minimize(
        objective,
        np.zeros(state.positions_A.size),
        jac=True,
        method="L-BFGS-B",
        callback=tell,
        options={"maxiter": iterations, "maxcor": 12, "ftol": 1e-10, "gtol": 1e-3, "maxls": 20},
    )
    return (moved(found.x), float(found.fun)) if found.fun < before else (state, before)


def information(model: Model, state: State, expected: Array, tables: Array) -> Array:
    """Fisher information (atoms, 4, 4) of each atom's x, y, z in Å and its electrons, all else known."""
    chain = np.zeros((len(model.counts), 3, 4))
    chain[:, :2, :3] = model.to_pixels
    chain[:, 2, 3] = state.scales
    return np.einsum("tik,taij,tjl->akl", chain, model.sharpness(state, 1 / expected, tables), chain, optimize=True)


def inverse_root(blocks: Array) -> Array:
    """S with S Sᵀ = F⁻¹ for every symmetric block (atoms, k, k), weak directions held."""
    size = np.sqrt(np.maximum(np.einsum("aii->ai", blocks), 1e-300))
    values, vectors = np.linalg.eigh(blocks / (size[:, :, None] * size[:, None, :]))
    return np.asarray(vectors / np.sqrt(np.maximum(values, WEAKEST))[:, None, :] / size[:, :, None])
