"""Least-squares maximum likelihood: directions shared by a batch, a step fitted to each pattern.

For each pattern χ = ψ' − ψ is the change of the exit wave that the likelihood asks for. All patterns of a batch share
ΔO = Σ ψ* χ / (Σ|ψ|² + δ·max) and ΔP = Σ O* χ / (Σ|O|² + δ·max). Each pattern then solves min |χ − α ΔO ψ − β ΔP O|² for its
own two steps, and the object moves by their mean weighted by the illumination. With several slices χ is carried back slice by slice.
Source: Odstrčil, Menzel and Guizar-Sicairos, doi:10.1364/OE.26.003108; several slices: Tsai et al., doi:10.1364/OE.24.029089.

Standard shapes: object (slice, Y, X), waves (pattern, mode, y, x).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ptycho.forward import Entering
from ptycho.grid import Array, ifft2
from ptycho.patches import multiply, scatter_add
from ptycho.problem import Problem, State
from ptycho.settings import Settings


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Waves of one chunk: those entering each slice, and the wanted change behind each slice."""

    ids: np.ndarray
    corners: Array
    entering: Entering
    change: list[Array]
    at_probe: Array | None


class LsqmlSolver:
    """One update per batch; `init`, then `step` for each batch, `end_iteration` after each pass."""

    def __init__(self, problem: Problem, settings: Settings) -> None:
        self.problem, self.settings = problem, settings

    def init(self, state: State) -> None:
        """Nothing to prepare."""

    def step(self, state: State, ids: np.ndarray, probe: bool) -> tuple[State, Array]:
        """Update the object (and the probe) with the patterns `ids`; returns the new state and each pattern's loss."""
        xp = state.object.__array_namespace__()
        numerator, illumination = xp.zeros_like(state.object), xp.zeros_like(state.object)
        losses, chunks = [], []
        for part in self.problem.chunks(ids, state.probe):
            loss, chunk = self._changes(state, part, probe)
            losses.append(loss)
            chunks.append(chunk)
            for s, (incoming, index) in enumerate(chunk.entering):
                scatter_add(numerator[s], incoming, index, chunk.change[s], chunk.corners)
                scatter_add(illumination[s], incoming, index, incoming[index], chunk.corners)
        light = illumination.real
        damping = light.max(axis=(1, 2), keepdims=True) * light.dtype.type(self.settings.delta_lsq)
        direction = self._tangent(state.object, numerator / (light + damping))
        probe_direction = self._probe_direction(state, chunks) if probe else None
        state = self._move(state, chunks, direction, light, damping, probe_direction)
        return state, xp.concatenate(losses)

    def end_iteration(self, state: State) -> None:
        """Nothing is carried from pass to pass."""

    def _changes(self, state: State, ids: np.ndarray, probe: bool) -> tuple[Array, _Chunk]:
        """Loss of each pattern, and the wanted change of the wave behind each slice."""
        model = self.problem.multislice
        probes, index, corners = state.probes.take(ids)
        entering, detector = model.forward(probes, index, state.object, corners)
        loss = self.problem.residual(detector, ids)
        detector *= detector.real.dtype.type(-0.5 / self.problem.likelihood.curvature)
        change = [ifft2(detector, model.threads)]
        for slice_ in state.object[:0:-1]:
            change.insert(0, model.adjoint_step(change[0], slice_, corners, last=False))
        at_probe = model.adjoint_step(change[0], state.object[0], corners, last=True) if probe else None
        return loss, _Chunk(ids, corners, entering, change, at_probe)

    def _tangent(self, object_: Array, direction: Array) -> Array:
        """For a phase object the part of the direction that turns the phase."""
        if self.settings.object_type == "complex":
            return direction
        return 1j * object_ * (object_.conj() * direction).imag

    def _probe_direction(self, state: State, chunks: list[_Chunk]) -> Array:
        numerator = sum(state.probes.adjoint(c.ids, c.at_probe) for c in chunks)
        patterns = sum(len(c.ids) for c in chunks)
        return numerator / numerator.real.dtype.type(patterns * (1 + self.settings.delta_lsq))

    def _move(
        self,
        state: State,
        chunks: list[_Chunk],
        direction: Array,
        light: Array,
        damping: Array,
        probe_direction: Array | None,
    ) -> State:
        """Fit the steps of each pattern and apply their weighted mean."""
        xp = direction.__array_namespace__()
        weighted, probe_steps = xp.zeros_like(direction), []
        shifted = None if probe_direction is None else state.with_probe(probe_direction).probes
        for chunk in chunks:
            for s, (incoming, index) in enumerate(chunk.entering):
                moved = multiply(incoming, index, direction[s], chunk.corners)
                other = None
                if s == 0 and shifted is not None:
                    probes, at, _ = shifted.take(chunk.ids)
                    other = multiply(probes, at, state.object[0], chunk.corners)
                alpha, beta = _steps(moved, other, chunk.change[s])
                scatter_add(weighted[s], incoming, index, alpha[:, None, None, None] * incoming[index], chunk.corners)
                if beta is not None:
                    probe_steps.append(beta)
        relaxation = light.dtype.type(self.settings.beta_lsq)
        change = relaxation * weighted.real / (light + damping) * direction
        state = replace(state, object=self._apply(state.object, change))
        if probe_direction is None:
            return state
        return state.with_probe(state.probe + relaxation * xp.concatenate(probe_steps).mean() * probe_direction)

    def _apply(self, object_: Array, change: Array) -> Array:
        if self.settings.object_type == "complex":
            return object_ + change
        xp = object_.__array_namespace__()
        return object_ * xp.exp(1j * (object_.conj() * change).imag)


def _dot(a: Array, b: Array) -> Array:
    """Re⟨a, b⟩ of each pattern."""
    return (a.real * b.real + a.imag * b.imag).sum((1, 2, 3))


def _steps(moved: Array, other: Array | None, change: Array) -> tuple[Array, Array | None]:
    """Per pattern the α (and β) that minimise |change − α·moved − β·other|², slightly damped."""
    xp = moved.__array_namespace__()
    a11, b1 = _dot(moved, moved), _dot(moved, change)
    ridge = b1.dtype.type(1e-3)
    a11 += ridge * a11.mean() + np.finfo(b1.dtype).tiny
    if other is None:
        return b1 / a11, None
    a12, a22, b2 = _dot(moved, other), _dot(other, other), _dot(other, change)
    a22 += ridge * a22.mean() + np.finfo(b1.dtype).tiny
    determinant = xp.maximum(a11 * a22 - a12 * a12, ridge * a11 * a22)
    return (a22 * b1 - a12 * b2) / determinant, (a11 * b2 - a12 * b1) / determinant
