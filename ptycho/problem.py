"""Everything that stays fixed in a run, the state that moves, and the gradient of the loss for any set of patterns.

A batch is worked through in chunks small enough for the processor's cache; the gradients add up over them.

Standard shapes: object (slice, Y, X), probe (mode, y, x), counts (n, ky, kx) with zero frequency at [0, 0].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ptycho.forward import Multislice
from ptycho.grid import Array
from ptycho.likelihood import Likelihood
from ptycho.patches import scatter_add
from ptycho.scan import Scan, ShiftedProbes

CPU_CHUNK_BYTES = 1 << 20
GPU_CHUNK_BYTES = 1 << 28


@dataclass(frozen=True, eq=False)
class State:
    """What a solver moves: object (slice, Y, X) and probe (mode, y, x) with its shifted copies."""

    object: Array
    probe: Array
    probes: ShiftedProbes

    @classmethod
    def start(cls, object_: Array, probe: Array, scan: Scan, threads: int) -> State:
        """State with the probe shifted to the positions of `scan`."""
        return cls(object_, probe, ShiftedProbes(scan, probe, threads))

    def with_probe(self, probe: Array) -> State:
        """The same state with another probe."""
        return State.start(self.object, probe, self.probes.scan, self.probes.threads)

    def with_positions(self, positions_px: np.ndarray) -> State:
        """The same state with other positions (n, 2) in px."""
        scan = Scan(positions_px, self.object.shape[-2:], self.probe.shape[-2:])
        return State.start(self.object, self.probe, scan, self.probes.threads)


@dataclass(frozen=True, eq=False)
class Gradients:
    """Loss of each pattern and the Wirtinger derivatives ∂L/∂O* and ∂L/∂P* (None where not asked for)."""

    loss: Array
    object: Array
    probe: Array | None = None


@dataclass(frozen=True, eq=False)
class Problem:
    """Patterns, forward model and likelihood; `offset` in electrons per pixel."""

    counts: Array
    mask: Array | None
    likelihood: Likelihood
    offset: float
    multislice: Multislice
    pixel_A: float

    @property
    def window(self) -> tuple[int, int]:
        """Size (y, x) of the wave."""
        return self.counts.shape[1], self.counts.shape[2]

    def chunks(self, ids: np.ndarray, probe: Array) -> Iterator[np.ndarray]:
        """Pieces of `ids` whose waves fit the cache of a CPU, or fill a GPU."""
        limit = CPU_CHUNK_BYTES if isinstance(probe, np.ndarray) else GPU_CHUNK_BYTES
        size = max(1, limit // probe.nbytes)
        for start in range(0, len(ids), size):
            yield ids[start : start + size]

    def residual(self, detector: Array, ids: np.ndarray) -> Array:
        """Loss of each pattern; `detector` (pattern, mode, ky, kx) becomes ∂L/∂Ψ*."""
        return self.likelihood.evaluate(detector, self.counts[ids], self.mask, self.offset)

    def gradients(self, object_: Array, probes: ShiftedProbes, ids: np.ndarray, probe: bool = False) -> Gradients:
        """Loss and derivatives summed over the patterns `ids`."""
        xp = object_.__array_namespace__()
        gradient = xp.zeros_like(object_)
        probe_gradient = xp.zeros_like(probes.spectrum) if probe else None
        losses = []
        for chunk in self.chunks(ids, probes.spectrum):
            taken, index, corners = probes.take(chunk)
            entering, detector = self.multislice.forward(taken, index, object_, corners)
            losses.append(self.residual(detector, chunk))
            back = self.multislice.adjoint(detector, entering, object_, corners, gradient, probe)
            if probe_gradient is not None:
                probe_gradient += probes.adjoint(chunk, back)
        return Gradients(xp.concatenate(losses), gradient, probe_gradient)

    def illumination(self, state: State, ids: np.ndarray) -> Array:
        """Σ |P|² over the patterns `ids` and all modes on the object canvas, real (Y, X)."""
        target = state.object[0] * 0
        for chunk in self.chunks(ids, state.probe):
            probes, index, corners = state.probes.take(chunk)
            scatter_add(target, probes, index, probes[index], corners)
        return target.real
