"""Everything that stays fixed in a run, the state that moves, and the gradient of the loss for any set of patterns.

The modelled intensity of pattern i is s_i Σ |Ψ|² + b_i, summed over the modes of the probe and, with equal weights, over the
states of the object. A batch is worked through in chunks small enough for the cache; the gradients add up over them.

Standard shapes: object (state, slice, Y, X), probe (mode, y, x), counts (n, ky, kx) with zero frequency at [0, 0].
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ptycho.data import Counts, as_slice
from ptycho.forward import Entering, Multislice
from ptycho.grid import Array, library_of
from ptycho.likelihood import Likelihood
from ptycho.patches import scatter_add
from ptycho.propagate import FreeSpace
from ptycho.scan import Illumination

CPU_CHUNK_BYTES = 1 << 20
GPU_CHUNK_BYTES = 1 << 26
"""A few waves of this size and the object fit the second-level cache of a data-centre GPU."""


@dataclass(frozen=True, eq=False)
class State:
    """What is moved: object (state, slice, Y, X), illumination, free space, dose s (n,) and background b (n,) per pattern."""

    object: Array
    illumination: Illumination
    space: FreeSpace
    scales: Array | None = None
    backgrounds: Array | None = None

    @property
    def probe(self) -> Array:
        """Probe (mode, y, x)."""
        return self.illumination.probe

    @property
    def positions_px(self) -> np.ndarray:
        """Positions (n, 2) as (y, x) in px about coordinate 0."""
        return self.illumination.scan.positions_px

    def with_probe(self, probe: Array) -> State:
        """The same state with another probe."""
        return replace(self, illumination=self.illumination.with_probe(probe))

    def with_positions(self, positions_px: np.ndarray) -> State:
        """The same state with other positions (n, 2) in px."""
        return replace(self, illumination=self.illumination.with_positions(positions_px, self.object.shape[-2:]))


@dataclass(frozen=True, eq=False)
class Gradients:
    """Loss of each pattern and the Wirtinger derivatives ∂L/∂O* and ∂L/∂P* (None where not asked for)."""

    loss: Array
    object: Array
    probe: Array | None = None


@dataclass(frozen=True, eq=False)
class Waves:
    """A chunk on its way: the patterns `ids`, their corners, the waves entering each slice of each state of the object, and
    the waves on the detector (pattern, state · mode, ky, kx)."""

    ids: np.ndarray
    corners: Array
    entering: list[Entering]
    detector: Array


@dataclass(frozen=True, eq=False)
class Problem:
    """Patterns and likelihood; `offset` in electrons per pixel, `training` (n,) the numbers of the patterns to fit."""

    counts: Counts
    likelihood: Likelihood
    offset: float
    pixel_A: float
    training: np.ndarray
    threads: int = 1

    @cached_property
    def held_out(self) -> np.ndarray:
        """Numbers of the patterns that are only judged by."""
        return np.setdiff1d(np.arange(len(self.counts)), self.training)

    def chunks(self, ids: np.ndarray, probe: Array) -> Iterator[np.ndarray]:
        """Pieces of `ids` whose waves fit the cache of a CPU or GPU."""
        limit = CPU_CHUNK_BYTES if isinstance(probe, np.ndarray) else GPU_CHUNK_BYTES
        size = max(1, limit // probe.nbytes)
        for start in range(0, len(ids), size):
            yield ids[start : start + size]

    def forward(self, state: State, ids: np.ndarray, object_: Array | None = None) -> Waves:
        """Waves of a chunk; `object_` stands in for the state's own."""
        object_ = state.object if object_ is None else object_
        model = Multislice(state.space, self.threads)
        incoming, index, corners = state.illumination.take(ids)
        passes = [model.forward(incoming, index, slices, corners, ids) for slices in object_]
        if len(passes) == 1:
            return Waves(ids, corners, [passes[0][0]], passes[0][1])
        xp = library_of(object_)
        detector = xp.concatenate([wave for _, wave in passes], axis=1)
        detector *= detector.real.dtype.type(1 / math.sqrt(len(passes)))
        return Waves(ids, corners, [entering for entering, _ in passes], detector)

    def residual(self, state: State, waves: Waves) -> Array:
        """Loss of each pattern; `waves.detector` becomes ∂L/∂Ψ*."""
        rows = as_slice(waves.ids)
        scale, background = (None if a is None else a[rows] for a in (state.scales, state.backgrounds))
        counts = self.counts.take(waves.ids)
        return self.likelihood.evaluate(waves.detector, counts, self.counts.mask, self.offset, scale, background)

    def exits(self, waves: Waves) -> list[Array]:
        """The derivative on the detector, one piece (pattern, mode, ky, kx) for each state of the object."""
        states = len(waves.entering)
        if states == 1:
            return [waves.detector]
        xp = library_of(waves.detector)
        parts = xp.split(waves.detector, states, axis=1)
        return [xp.ascontiguousarray(p) * p.real.dtype.type(1 / math.sqrt(states)) for p in parts]

    def gradients(
        self, state: State, ids: np.ndarray, object_: Array | None = None, *, probe: bool = False
    ) -> Gradients:
        """Loss and derivatives summed over the patterns `ids`; `object_` stands in for the state's own."""
        object_ = state.object if object_ is None else object_
        xp = library_of(object_)
        gradient = xp.zeros_like(object_)
        probe_gradient = xp.zeros_like(state.probe) if probe else None
        losses = []
        for chunk in self.chunks(ids, state.probe):
            waves = self.forward(state, chunk, object_)
            losses.append(self.residual(state, waves))
            back = self.adjoint(state, waves, object_, gradient, probe)
            if probe_gradient is not None:
                probe_gradient += state.illumination.adjoint(chunk, back)
        return Gradients(xp.concatenate(losses), gradient, probe_gradient)

    def adjoint(self, state: State, waves: Waves, object_: Array, gradient: Array, probe: bool) -> Array | None:
        """Add ∂L/∂O* to `gradient` and return ∂L/∂P* (pattern, mode, y, x) at the shifted probes, or None."""
        model = Multislice(state.space, self.threads)
        total = None
        for s, exit_wave in enumerate(self.exits(waves)):
            back = model.adjoint(exit_wave, waves.entering[s], object_[s], waves.corners, waves.ids, gradient[s], probe)
            total = back if total is None else total + back
        return total

    def losses(self, state: State, ids: np.ndarray) -> Array:
        """Loss of each of the patterns `ids`."""
        xp = library_of(state.object)
        return xp.concatenate([self.residual(state, self.forward(state, c)) for c in self.chunks(ids, state.probe)])

    def illuminated(self, state: State, ids: np.ndarray) -> Array:
        """Σ s_i |P_i|² over the patterns `ids` and all modes on the object canvas, real (Y, X)."""
        target = state.object[0, 0] * 0
        for chunk in self.chunks(ids, state.probe):
            incoming, index, corners = state.illumination.take(chunk)
            light = incoming[index]
            if state.scales is not None:
                light = light * state.scales[as_slice(chunk)][:, None, None, None]
            scatter_add(target, incoming, index, light, corners)
        return target.real
