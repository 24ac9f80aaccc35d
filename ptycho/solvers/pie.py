"""Ptychographic iterative engine: one pattern after the other corrects the object under it.

With χ the change of the exit wave that the likelihood asks for (for "amplitude" without offset the projection onto the measured
moduli), ψ the wave that enters a slice and O the slice,

    O ← O + ψ* χ / ((1 − a) |ψ|² + a max |ψ|²),      ψ ← ψ + O* χ / ((1 − a) |O|² + a max |O|²)

and the change of ψ, carried back through free space, is the χ of the slice before or, at the first slice, the change of the
probe. a = 1 is ePIE, less is rPIE (Maiden, Johnson and Li, doi:10.1364/OPTICA.4.000736); several slices are 3PIE (Maiden,
Humphry and Rodenburg, doi:10.1364/JOSAA.29.001606), where each of S slices here takes 1 / S of its change: all of them are asked
for nearly the same one. In a batch of several patterns numerators and denominators add up. A phase object takes from each change
the part that turns its phase. Steps shrink as 1 / k with the number k of patterns that saw a place, so that the noise of the
patterns averages out.

Standard shapes: object (state, slice, Y, X), waves (pattern, mode, y, x).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ptycho.data import as_slice
from ptycho.forward import Multislice
from ptycho.grid import Array, fft2, ifft2, library_of
from ptycho.patches import multiply, scatter_add
from ptycho.problem import Problem, State, Waves
from ptycho.scan import Illumination, Scan, Variations
from ptycho.settings import Settings
from ptycho.solvers.potential import constrained, followed, potential, transmission

_SETTLED = 70
"""Patterns that saw a place after which steps of constant length there would only follow their noise."""


class PieSolver:
    """One update per batch; `init`, then `step` for each batch, `end_iteration` after each pass."""

    def __init__(self, problem: Problem, settings: Settings) -> None:
        self.problem, self.settings = problem, settings
        brightest = float(problem.counts.mean.max())
        self._wish = -0.5 / problem.likelihood.curvature_bound(brightest, problem.offset)

    def init(self, state: State) -> None:
        """Take a copy of the object, which is changed in place during a pass."""
        self._potential = potential(state.object, self.settings.object_type)
        self._object = state.object.copy()
        self._iteration, self._seen = 0, 0.0
        self._overlap = _overlap(self.problem, state)

    def step(self, state: State, ids: np.ndarray, probe: bool) -> tuple[State, Array]:
        """Update the object (and the probe) with the patterns `ids`; returns the new state and each pattern's loss."""
        xp = library_of(self._object)
        state = replace(state, object=self._object)
        box = self._box(state, ids)
        losses: list[Array] = []
        probe_change: Any = 0
        for part in self.problem.chunks(ids, state.probe):
            waves = self.problem.forward(state, part)
            losses.append(self.problem.residual(state, waves))
            change = self._carry_back(state, waves, box, probe)
            if change is not None:
                probe_change = probe_change + state.illumination.adjoint(part, change)
        relaxation = self._wish / (1 + self._seen / _SETTLED)
        together = self._overlap * len(ids) / len(self.problem.training)
        self._seen += min(together, 1 / together)
        self._object[box.place] = self._moved(box, relaxation)
        if probe:
            doses = len(ids) if state.scales is None else state.scales[ids].sum()
            step = (relaxation / doses * probe_change).astype(state.probe.dtype)
            state = replace(state, illumination=_Unshared.of(state.illumination, state.probe + step))
        return state, xp.concatenate(losses)

    def end_iteration(self, state: State) -> State:
        """Apply the constraints and hand out a copy of the object."""
        self._potential = followed(self._object, self._potential)
        self._potential = constrained(self._potential, self.problem, state, self.settings, self._iteration, 1.0)
        if self.settings.regularisers:
            self._object = transmission(self._potential, self._object.dtype)
        self._iteration += 1
        state = replace(state, object=self._object.copy())
        if not isinstance(state.illumination, _Unshared):
            return state
        own = state.illumination
        return replace(state, illumination=Illumination(own.scan, own.probe, own.threads, own.variations))

    def expected_noise(self, state: State) -> Array | None:
        """Not known: it depends on the order and the length of the steps."""
        return None

    def memory(self, state: State) -> dict[str, Array | float]:
        """Everything a later run needs to go on as if there had been no break."""
        return {
            "potential": self._potential,
            "iteration": self._iteration,
            "seen": self._seen,
            "overlap": self._overlap,
        }

    def recall(self, state: State, held: Mapping[str, Any]) -> None:
        """Take up what `memory` held."""
        self._potential, self._object = held["potential"], state.object.copy()
        self._iteration, self._seen = int(held["iteration"]), float(held["seen"])
        self._overlap = float(held["overlap"])

    def _box(self, state: State, ids: np.ndarray) -> _Box:
        """The part of the object that the patterns `ids` see."""
        xp = library_of(self._object)
        scan = state.illumination.scan
        low, high = scan.corners[ids].min(0), scan.corners[ids].max(0) + np.array(scan.window)
        place = (..., slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1])))
        object_ = xp.ascontiguousarray(self._object[place])
        weighted = object_
        if self.settings.object_type == "complex":
            weighted = object_ / self._weight(object_.real**2 + object_.imag**2)
        return _Box(place, xp.asarray(low), object_, weighted, xp.zeros_like(object_), xp.zeros_like(object_))

    def _weight(self, power: Array) -> Array:
        """(1 − a) |ψ|² + a max |ψ|² of each slice."""
        xp, alpha = library_of(power), self.settings.pie_alpha
        highest = xp.maximum(power.max(axis=(-2, -1), keepdims=True), np.finfo(power.dtype).tiny)
        return power.dtype.type(1 - alpha) * power + power.dtype.type(alpha) * highest

    def _carry_back(self, state: State, waves: Waves, box: _Box, probe: bool) -> Array | None:
        """Add up numerators and illumination of a chunk; returns the wanted changes of the waves that enter the specimen.

        All in units of the derivative of the loss: `_wish` and the patterns' doses are divided out in the end.
        """
        model = Multislice(state.space, self.settings.threads)
        corners = waves.corners - box.low
        total = None
        for k, residual in enumerate(self.problem.exits(waves)):
            wave = ifft2(residual, model.threads)
            for s in range(box.object.shape[1] - 1, -1, -1):
                incoming, index = waves.entering[k][s]
                light = incoming if index is None else incoming[index]
                if state.scales is not None:
                    light = light * state.scales[as_slice(waves.ids)][:, None, None, None]
                scatter_add(box.numerator[k, s], incoming, index, wave, corners)
                scatter_add(box.light[k, s], incoming, index, light, corners)
                if s > 0 or probe:
                    wave = multiply(wave, None, box.weighted[k, s], corners, conjugate=True)
                if s > 0:
                    wave = model.propagate_adjoint(wave, s - 1, waves.ids)
            total = wave if total is None else total + wave
        return total if probe else None

    def _moved(self, box: _Box, relaxation: float) -> Array:
        """The box of the object after its change."""
        states, slices = box.object.shape[:2]
        light = box.light.real
        factor = light.dtype.type(relaxation * states / slices)
        change = factor * box.numerator / self._weight(light)
        if self.settings.object_type == "complex":
            return box.object + change
        turn = (box.object.conj() * change).imag
        return box.object * transmission(turn[None], box.object.dtype)


def _overlap(problem: Problem, state: State) -> float:
    """Mean number of patterns that see a place: all of them × the area of the probe over that of the field."""
    light = problem.illuminated(state, problem.training)
    power = (state.probe.real**2 + state.probe.imag**2).sum(0)
    probe, field = (float(a.sum()) ** 2 / float((a * a).sum()) for a in (power, light))
    return len(problem.training) * probe / field


@dataclass(frozen=True, eq=False)
class _Box:
    """Part of the object (state, slice, y, x) at `place`, with its lowest index `low` (y, x); the same over its weight; Σ ψ* χ
    and Σ |ψ|² as they add up."""

    place: tuple[Any, ...]
    low: Array
    object: Array
    weighted: Array
    numerator: Array
    light: Array


class _Unshared(Illumination):
    """Shifts the probe for the patterns at hand only: it will have changed before the next ones."""

    def __init__(self, scan: Scan, probe: Array, threads: int = 1, variations: Variations | None = None) -> None:
        self.scan, self.probe, self.threads, self.variations = scan, probe, threads, variations
        self.spectrum = fft2(probe.copy(), threads)
        self._shared = None
        self._own = None if variations is None else fft2(variations.modes.copy(), threads)

    @classmethod
    def of(cls, illumination: Illumination, probe: Array) -> _Unshared:
        """The same scan and variations with another probe."""
        return cls(illumination.scan, probe, illumination.threads, illumination.variations)
