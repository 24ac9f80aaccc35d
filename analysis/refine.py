"""Atoms refined against the projections they were found in.

The image of tilt t is a background plus one Gaussian per atom: m_t(x) = c_t + Σ_a A_a G(x − P R_t r_a; w_a), where the
integrated intensity A and the width w belong to the element (or A to the atom). The weighted squared residual
L = ½ Σ w (m − b)² is lowered in turns: in A and w by Gauss-Newton, in the positions by L-BFGS with each atom scaled by
its own block of the Gauss-Newton matrix. The backgrounds are eliminated: each is the weighted mean of what is left.
No step raises L; only the removal of a collapsed atom may. Shot noise enters as weights 1/variance, with the variance
fitted to the residual of the start.

Standard shapes: projections (n, y, x), rotations (n, 3, 3), positions (n, 3) in Å as (x, y, z); a point r is seen at
R r, at image column (R r)_x / pixel + nx//2 and row (R r)_y / pixel + ny//2.
Source: coordinate refinement of atomic electron tomography, Yang et al., Nature 592, 60 (2021),
doi:10.1038/s41586-021-03354-0; L-BFGS: Liu and Nocedal (1989), doi:10.1007/BF01589116.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import OptimizeResult, minimize
from scipy.spatial import cKDTree

from .atoms import Atoms
from .image_model import Model
from .uncertainty import (
    NoiseModel,
    available_threads,
    coupled,
    covariance,
    inflation,
    information,
    measure_noise,
)

log = logging.getLogger(__name__)

Progress = Callable[[int, int, float], None]
Array = NDArray[np.float64]

COUPLED = 20.0
"""Atoms nearer than this many widths share their uncertainty."""


@dataclass(frozen=True, eq=False)
class Refined:
    """Refined atoms and what was learnt on the way.

    atoms: those that are left, with `sigma_A` (rms over the axes). sigma_axes_A: (n, 3) along x, y, z. kept: (n,) their
    indices in the atoms given; removed: the indices of those that collapsed onto another. amplitudes: integrated
    intensity of each element in units of the images × Å²; widths_A: standard deviation of its image. amplitude: (n,)
    per atom. backgrounds: (tilts,). noise: of a pixel. inflation: factor of the variances that the scatter between
    tilts asked for beyond the noise (1 = none). loss: after every step, per pixel, ½ when the model explains all.
    """

    atoms: Atoms
    sigma_axes_A: Array
    kept: NDArray[np.int64]
    removed: NDArray[np.int64]
    amplitudes: dict[str, float]
    widths_A: dict[str, float]
    amplitude: Array
    backgrounds: Array
    noise: NoiseModel
    inflation: float
    loss: Array


def refine(
    atoms: Atoms,
    projections: ArrayLike,
    rotations: ArrayLike,
    pixel_A: float,
    *,
    noise: Literal["shot", "white"] = "shot",
    weights: ArrayLike | None = None,
    min_distance_A: float | None = None,
    per_atom_amplitude: bool = False,
    rounds: int = 3,
    iterations: int = 60,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Refined:
    """Fit positions, and amplitude and width of every element, to `projections` (n, y, x); give error bars in Å.

    rotations: (n, 3, 3), a point r is seen at R r. noise: "shot" lets the variance of a pixel grow with its signal as
    the data show, "white" keeps it the same everywhere. weights: (n, y, x) ≥ 0, zero where a pixel does not count.
    min_distance_A: of two atoms nearer than this after a round the fainter is removed. per_atom_amplitude: each atom
    has its own integrated intensity. rounds: turns of profile and positions; iterations: L-BFGS steps of each.
    progress gets (steps, most steps, loss per pixel). ValueError for shapes that do not fit, values that are not
    finite, no atoms, or atoms that no image shows.
    """
    model = _model(atoms, projections, rotations, pixel_A, weights, threads)
    _check_options(noise, min_distance_A, rounds, iterations)
    state = _start(model, atoms.positions_A)
    model = _weighted(model, state, weights, shot=noise == "shot")
    kept, trail = np.arange(len(atoms)), _Trail(int(np.count_nonzero(model.weights)), rounds * iterations, progress)
    turn = 0
    while turn < rounds:
        state = _fit_profile(model, state, keep_amplitudes=per_atom_amplitude and turn > 0)
        trail.add(state.loss)
        state = _fit_positions(model, state, iterations, per_atom_amplitude, trail)
        alive = _survivors(state, atoms.select(kept), min_distance_A)
        turn += 1
        if not alive.all():
            kept, turn = kept[alive], min(turn, rounds - 1)
            model, state = replace(model, element=model.element[alive]), state.select(alive)
    return _finished(model, state, atoms, kept, weights, noise == "shot", per_atom_amplitude, trail)


@dataclass(frozen=True, eq=False)
class _State:
    """Positions (n, 3) in Å, amplitude (n,) and sigma (n,) in pixels of every atom, and the loss there."""

    positions_A: Array
    amplitude: Array
    sigma: Array
    loss: float = np.inf

    def select(self, keep: NDArray[np.bool_]) -> _State:
        return _State(self.positions_A[keep], self.amplitude[keep], self.sigma[keep])


class _Trail:
    """The loss per pixel after every step, told to the progress callback."""

    def __init__(self, pixels: int, most: int, progress: Progress | None) -> None:
        self.pixels, self.most, self.progress = pixels, most, progress
        self.loss: list[float] = []
        self.steps = 0

    def add(self, loss: float, *, step: bool = False) -> None:
        self.loss.append(loss / self.pixels)
        self.steps += step
        if step and self.progress is not None:
            self.progress(min(self.steps, self.most), self.most, self.loss[-1])


def _model(
    atoms: Atoms,
    projections: ArrayLike,
    rotations: ArrayLike,
    pixel_A: float,
    weights: ArrayLike | None,
    threads: int | None,
) -> Model:
    """The checked input, with equal weights where none are given."""
    images, turned = np.asarray(projections, dtype=np.float64), np.asarray(rotations, dtype=np.float64)
    if not len(atoms):
        raise ValueError("atoms is empty; expected at least one atom to refine")
    if images.ndim != 3 or 0 in images.shape:
        raise ValueError(f"projections has shape {images.shape}; expected (n, y, x), one image per tilt")
    if turned.shape != (len(images), 3, 3):
        raise ValueError(f"rotations has shape {turned.shape}; expected ({len(images)}, 3, 3), one matrix per image")
    if not np.allclose(turned @ turned.transpose(0, 2, 1), np.eye(3), atol=1e-6):
        raise ValueError("rotations holds a matrix that is not orthogonal; expected rotation matrices, R Rᵀ = 1")
    if not np.isfinite(images).all():
        raise ValueError("projections has pixels that are nan or infinite; mend them or give them weight 0 and a value")
    if not (np.isfinite(pixel_A) and pixel_A > 0):
        raise ValueError(f"pixel_A is {pixel_A}; expected the edge of a pixel in Å, a positive number")
    given = np.ones(images.shape) if weights is None else np.asarray(weights, dtype=np.float64)
    if given.shape != images.shape or not np.isfinite(given).all() or given.min() < 0 or given.max() == 0:
        raise ValueError(
            f"weights has shape {given.shape}; expected {images.shape}, finite, zero or more, not all zero"
        )
    element = np.array([atoms.elements.index(symbol) for symbol in atoms.symbols])
    model = Model(images, given, turned, float(pixel_A), element, available_threads() if threads is None else threads)
    at, size = model.project(atoms.positions_A), np.array(images.shape[:0:-1])
    unseen = np.flatnonzero(~((at > -1) & (at < size)).all(axis=2).any(axis=0))
    if unseen.size:
        raise ValueError(
            f"{unseen.size} atoms, the first at {atoms.positions_A[unseen[0]]} Å, project outside every image; "
            "check pixel_A and that the positions are about the centre of the volume"
        )
    return model


def _check_options(noise: str, min_distance_A: float | None, rounds: int, iterations: int) -> None:
    if noise not in ("shot", "white"):
        raise ValueError(f"noise is {noise!r}; expected 'shot' or 'white'")
    if min_distance_A is not None and not (np.isfinite(min_distance_A) and min_distance_A >= 0):
        raise ValueError(f"min_distance_A is {min_distance_A}; expected a distance in Å or None")
    if rounds < 1 or iterations < 1:
        raise ValueError(f"rounds is {rounds} and iterations {iterations}; expected one or more of each")


def _start(model: Model, positions_A: Array) -> _State:
    """Amplitudes by linear least squares, at the common width that fits best of a series from 0.1 to 1.2 Å."""
    at, best = model.project(positions_A), _State(positions_A, np.zeros(0), np.zeros(0))
    for sigma_A in np.geomspace(0.1, 1.2, 12):
        sigma = np.full(len(positions_A), max(sigma_A / model.pixel_A, 0.4))
        amplitude = _linear_amplitudes(model, at, sigma)[model.element]
        loss, _ = model.loss(at, amplitude, sigma)
        if loss < best.loss:
            best = _State(positions_A, amplitude, sigma, loss)
    return best


def _linear_amplitudes(model: Model, at: Array, sigma: Array) -> Array:
    """Best amplitude of every element; one for all where an element would be negative."""
    kinds = model.element.max() + 1
    each = [model.centred(model.render(at, (model.element == k).astype(float), sigma)) for k in range(kinds)]
    gram = np.array([[np.sum(model.weights * a * b) for b in each] for a in each])
    right = np.array([np.sum(model.weights * a * model.images) for a in each])
    found = np.linalg.lstsq(gram, right, rcond=1e-10)[0]
    if (found > 0).all():
        return found
    return np.full(kinds, max(right.sum() / gram.sum(), 1e-6 * np.abs(model.images).max()))


def _weighted(model: Model, state: _State, weights: ArrayLike | None, *, shot: bool) -> Model:
    """The model with weights 1/variance of the noise that the residual of the profile fit shows."""
    state = _fit_profile(model, state)
    noise, signal, _ = _noise(model, state, weights, shot)
    return replace(model, weights=(1.0 if weights is None else np.asarray(weights)) / noise.variance(signal))


def _noise(model: Model, state: _State, weights: ArrayLike | None, shot: bool) -> tuple[NoiseModel, Array, Array]:
    """Noise of the residual, the signal it was regressed on, and the residual."""
    at = model.project(state.positions_A)
    signal = model.render(at, state.amplitude, state.sigma)
    residual = model.centred(signal - model.images)
    given = None if weights is None else np.asarray(weights, dtype=np.float64)
    return measure_noise(residual, signal, given, shot=shot), signal, residual


def _fit_profile(model: Model, state: _State, *, keep_amplitudes: bool = False, steps: int = 20) -> _State:
    """Gauss-Newton in the logarithms of every element's amplitude and width; a step that does not help is halved.

    keep_amplitudes: only the widths move, the atoms keep their own amplitudes.
    """
    at, kinds = model.project(state.positions_A), model.element.max() + 1
    loss, residual = model.loss(at, state.amplitude, state.sigma)
    state = replace(state, loss=loss)
    for _ in range(steps):
        columns = [] if keep_amplitudes else _by_element(model, at, state, kinds, widen=False)
        columns += _by_element(model, at, state, kinds, widen=True)
        matrix = np.array([[np.sum(model.weights * a * b) for b in columns] for a in columns])
        slope = np.array([np.sum(model.weights * a * residual) for a in columns])
        move = -np.linalg.solve(matrix + 1e-9 * np.trace(matrix) * np.eye(len(slope)), slope)
        move = np.concatenate([np.zeros(2 * kinds - len(move)), move])
        before = state
        state, residual = _halved(model, at, state, move.reshape(2, kinds), residual)
        if before.loss - state.loss <= 1e-10 * before.loss:
            break
    return state


def _by_element(model: Model, at: Array, state: _State, kinds: int, *, widen: bool) -> list[Array]:
    return [
        model.centred(model.render(at, np.where(model.element == k, state.amplitude, 0.0), state.sigma, widen=widen))
        for k in range(kinds)
    ]


def _halved(model: Model, at: Array, state: _State, move: Array, residual: Array) -> tuple[_State, Array]:
    """The state after the longest of move, move/2, move/4 … that lowers the loss, or unchanged after ten."""
    for part in 0.5 ** np.arange(10):
        factor = np.exp(np.clip(part * move, -0.5, 0.5))[:, model.element]
        trial = _State(state.positions_A, state.amplitude * factor[0], np.maximum(state.sigma * factor[1], 0.3))
        loss, left = model.loss(at, trial.amplitude, trial.sigma)
        if loss < state.loss:
            return replace(trial, loss=loss), left
    return state, residual


def _fit_positions(model: Model, state: _State, iterations: int, free_amplitudes: bool, trail: _Trail) -> _State:
    """L-BFGS in the positions, and the amplitudes when they are free, scaled so that each atom's block is a unit."""
    size = 4 if free_amplitudes else 3
    start = np.concatenate([state.positions_A, state.amplitude[:, None]], axis=1)[:, :size]
    at = model.project(state.positions_A)
    fisher, _ = information(
        at, state.amplitude, state.sigma, model.weights, model.images, model.to_pixels, model.threads
    )
    scale = _inverse_root(fisher[:, :size, :size])

    def unpacked(u: Array) -> tuple[Array, Array]:
        p = start + np.einsum("aij,aj->ai", scale, u.reshape(-1, size))
        return p[:, :3], p[:, 3] if free_amplitudes else state.amplitude

    def objective(u: Array) -> tuple[float, Array]:
        loss, by_place, by_amplitude = model.gradient(*unpacked(u), state.sigma)
        slope = np.concatenate([by_place, by_amplitude[:, None]], axis=1)[:, :size]
        return loss, np.einsum("aij,ai->aj", scale, slope).ravel()

    def tell(intermediate_result: OptimizeResult) -> None:
        trail.add(float(intermediate_result.fun), step=True)

    options: Any = {"maxiter": iterations, "maxcor": 12, "ftol": 1e-11, "gtol": 1e-4, "maxls": 30}
    found = minimize(objective, np.zeros(start.size), jac=True, method="L-BFGS-B", callback=tell, options=options)
    if not found.fun <= state.loss:
        return state
    positions, amplitude = unpacked(found.x)
    return _State(positions, amplitude, state.sigma, float(found.fun))


def _inverse_root(blocks: Array) -> Array:
    """S with S Sᵀ = F⁻¹ for every symmetric block (n, k, k), directions without information held to the weakest 1e-6."""
    size = np.sqrt(np.maximum(np.einsum("aii->ai", blocks), 1e-300))
    values, vectors = np.linalg.eigh(blocks / (size[:, :, None] * size[:, None, :]))
    return vectors / np.sqrt(np.maximum(values, 1e-6))[:, None, :] / size[:, :, None]


def _survivors(state: _State, atoms: Atoms, min_distance_A: float | None) -> NDArray[np.bool_]:
    """False for the fainter of each pair nearer than the minimum distance; the given intensity decides if known."""
    alive = np.ones(len(state.positions_A), dtype=bool)
    if not min_distance_A:
        return alive
    bright = np.where(np.isfinite(atoms.intensity), atoms.intensity, state.amplitude)
    pairs = cKDTree(state.positions_A).query_pairs(min_distance_A, output_type="ndarray")
    gap = np.linalg.norm(np.diff(state.positions_A[pairs], axis=1)[:, 0], axis=1)
    for i, j in pairs[np.argsort(gap)]:
        if alive[i] and alive[j]:
            alive[i if bright[i] < bright[j] else j] = False
    if not alive.all():
        log.warning("removed for having come nearer than %.2f Å to a brighter atom: %d", min_distance_A, (~alive).sum())
    return alive


def _finished(
    model: Model,
    state: _State,
    atoms: Atoms,
    kept: NDArray[np.int64],
    weights: ArrayLike | None,
    shot: bool,
    per_atom_amplitude: bool,
    trail: _Trail,
) -> Refined:
    """Error bars from the noise of the final residual, and the result in the caller's units."""
    noise, signal, residual = _noise(model, state, weights, shot)
    mask = 1.0 if weights is None else np.asarray(weights) > 0
    inverse_variance = mask / noise.variance(signal)
    size = 4 if per_atom_amplitude else 3
    at = model.project(state.positions_A)
    fisher, scores = information(
        at, state.amplitude, state.sigma, inverse_variance, residual, model.to_pixels, model.threads
    )
    cov = covariance(fisher[:, :size, :size])
    factor = inflation(cov, scores[..., :size])
    whole = coupled(
        cov[:, :3, :3],
        state.positions_A,
        COUPLED * model.pixel_A * float(state.sigma.max()),
        at,
        state.amplitude,
        state.sigma,
        inverse_variance,
        model.to_pixels,
        model.threads,
    )
    sigma_axes = np.sqrt(factor * np.einsum("aii->ai", whole))
    chosen = atoms.select(kept)
    area = model.pixel_A**2
    members = {name: model.element == k for k, name in enumerate(atoms.elements)}
    return Refined(
        atoms=replace(chosen, positions_A=state.positions_A, sigma_A=np.sqrt(np.mean(sigma_axes**2, axis=1))),
        sigma_axes_A=sigma_axes,
        kept=kept,
        removed=np.setdiff1d(np.arange(len(atoms)), kept),
        amplitudes={name: float(state.amplitude[of].mean()) * area for name, of in members.items() if of.any()},
        widths_A={name: float(state.sigma[of].mean()) * model.pixel_A for name, of in members.items() if of.any()},
        amplitude=state.amplitude * area,
        backgrounds=model.means(model.images - signal),
        noise=noise,
        inflation=factor,
        loss=np.array(trail.loss),
    )
