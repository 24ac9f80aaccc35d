"""All positions together: L-BFGS on the Poisson likelihood, each atom scaled by its own Fisher information.

That no two atoms are nearer than the minimum distance is known beforehand: a soft wall holds them apart. Where noise is strong, few
counts decide between two atoms that are drawn together and two that are not, and the wall takes away what cannot be.
No step raises the misfit and the wall together. Source: Liu and Nocedal (1989), doi:10.1007/BF01589116.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, minimize
from scipy.spatial import cKDTree

from analysis.likelihood.model import Model, State

Array = NDArray[np.float64]

WEAKEST = 1e-6
"""Directions that an atom's images hardly determine are held to this share of its best one."""
SOFT = 0.05
"""Of the minimum distance: two atoms that much nearer cost half a unit of log-likelihood, and the square of it beyond."""
SETTLED = 1e-5
"""Log-likelihood per coordinate: a step that gains less is the last. An error of one standard deviation costs half a unit."""
WATCHED = 1.6
"""Pairs nearer than so many minimum distances may come to touch while the positions are fitted."""


@dataclass(frozen=True, eq=False)
class Wall:
    """What it costs that the pairs (m, 2) of atoms are nearer than they can be."""

    pairs: NDArray[np.int64]
    apart_A: float

    @classmethod
    def among(cls, positions_A: Array, apart_A: float) -> Wall:
        """Between all atoms that may come to touch."""
        near = cKDTree(positions_A).query_pairs(WATCHED * apart_A, output_type="ndarray") if apart_A > 0 else []
        return cls(np.asarray(near, np.int64).reshape(-1, 2), apart_A)

    def __call__(self, positions_A: Array) -> tuple[float, Array]:
        """The cost in units of log-likelihood, and its slope (atoms, 3) per Å."""
        slope = np.zeros_like(positions_A)
        if not len(self.pairs):
            return 0.0, slope
        one, other = self.pairs.T
        between = positions_A[one] - positions_A[other]
        distance = np.sqrt((between**2).sum(axis=1))
        deep = np.flatnonzero(distance < self.apart_A)
        lacking = (self.apart_A - distance[deep]) / (SOFT * self.apart_A)
        push = (-lacking / (SOFT * self.apart_A * np.maximum(distance[deep], 1e-9)))[:, None] * between[deep]
        np.add.at(slope, one[deep], push)
        np.add.at(slope, other[deep], -push)
        return 0.5 * float((lacking**2).sum()), slope


def fit_places(
    model: Model, state: State, iterations: int, apart_A: float = 0.0, told: Callable[[float], None] | None = None
) -> tuple[State, float]:
    """The state with better positions, and its misfit; no two atoms come much nearer than apart_A, told(misfit) after every step."""
    tables = model.tables(state)
    expected = model.expected(state, tables)
    wall = Wall.among(state.positions_A, apart_A)
    before = model.misfit(expected) + wall(state.positions_A)[0]
    scale = inverse_root(information(model, state, expected, tables)[:, :3, :3])

    def moved(u: Array) -> State:
        return replace(state, positions_A=state.positions_A + np.einsum("aij,aj->ai", scale, u.reshape(-1, 3)))

    def objective(u: Array) -> tuple[float, Array]:
        trial = moved(u)
        expected = model.expected(trial, tables)
        pulls = model.pulls(trial, 1 - model.counts / expected, tables)[..., :2]
        slope = np.einsum("tij,tai->aj", model.to_pixels, pulls)
        cost, pushed = wall(trial.positions_A)
        return model.misfit(expected) + cost, np.einsum("aij,ai->aj", scale, slope + pushed).ravel()

    def tell(intermediate_result: OptimizeResult) -> None:
        if told is not None:
            told(float(intermediate_result.fun))

    found = minimize(
        objective,
        np.zeros(state.positions_A.size),
        jac=True,
        method="L-BFGS-B",
        callback=tell,
        options={
            "maxiter": iterations,
            "maxcor": 12,
            "ftol": SETTLED * state.positions_A.size / max(before, 1.0),
            "gtol": 1e-3,
            "maxls": 20,
        },
    )
    better = moved(found.x) if found.fun < before else state
    return better, min(float(found.fun), before) - wall(better.positions_A)[0]


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
