"""Everything that stays fixed in a run, and the gradient of the loss for any set of patterns.

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
from ptycho.scan import ShiftedProbes

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class Gradients:
    """Loss of each pattern and the Wirtinger derivatives ∂L/∂O*, ∂L/∂P* and ∂L/∂(y, x) per px; None where not asked for."""

    loss: Array
    object: Array
    probe: Array | None = None
    positions: Array | None = None


@dataclass(frozen=True, eq=False)
class Problem:
    """Patterns, forward model and likelihood."""

    counts: Array
    mask: Array | None
    likelihood: Likelihood
    offset: float
    multislice: Multislice
    pixel_A: tuple[float, float]

    @property
    def window(self) -> tuple[int, int]:
        """Size (y, x) of the wave."""
        return self.counts.shape[1], self.counts.shape[2]

    def chunks(self, ids: np.ndarray, probe: Array) -> Iterator[np.ndarray]:
        """Pieces of `ids` whose waves fit the cache of a CPU; one piece on a GPU."""
        size = max(1, _CHUNK_BYTES // probe.nbytes) if isinstance(probe, np.ndarray) else len(ids)
        for start in range(0, len(ids), size):
            yield ids[start : start + size]

    def residual(self, detector: Array, ids: np.ndarray) -> Array:
        """Loss of each pattern; `detector` (pattern, mode, ky, kx) becomes ∂L/∂Ψ*."""
        return self.likelihood(detector, self.counts[ids], self.mask, self.offset)

    def gradients(
        self, object_: Array, probes: ShiftedProbes, ids: np.ndarray, probe: bool = False, positions: bool = False
    ) -> Gradients:
        """Loss and derivatives summed over the patterns `ids` (positions: one row per pattern)."""
        xp = object_.__array_namespace__()
        gradient = xp.zeros_like(object_)
        losses, rows = [], []
        probe_gradient = xp.zeros_like(probes.spectrum) if probe else None
        for chunk in self.chunks(ids, probes.spectrum):
            taken, index, corners = probes.take(chunk)
            entering, detector = self.multislice.forward(taken, index, object_, corners)
            losses.append(self.residual(detector, chunk))
            back = self.multislice.adjoint(detector, entering, object_, corners, gradient, probe or positions)
            if probe_gradient is not None:
                probe_gradient += probes.adjoint(chunk, back)
            if positions:
                rows.append(probes.position_gradient(chunk, back))
        moved = xp.concatenate(rows) if positions else None
        return Gradients(xp.concatenate(losses), gradient, probe_gradient, moved)
