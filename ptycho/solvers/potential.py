"""The object as phase φ and absorption μ, object = exp(iφ − μ), and the constraints put on it.

Standard shapes: object (state, slice, Y, X) complex, potential (part, state, slice, Y, X) real with part 0 = φ and, for
complex objects, part 1 = μ.
"""

from __future__ import annotations

import numpy as np

from ptycho.grid import Array, library_of
from ptycho.problem import Problem, State
from ptycho.regularise import regularise_object
from ptycho.settings import Settings


def potential(object_: Array, object_type: str) -> Array:
    """Phase (and absorption) of an object; the phase lies within ±π."""
    xp = library_of(object_)
    phase = xp.angle(object_)
    if object_type == "phase":
        return phase[None]
    return xp.stack([phase, -xp.log(xp.maximum(xp.abs(object_), 1e-3))])


def transmission(value: Array, dtype: np.dtype) -> Array:
    """The object of a potential."""
    xp = library_of(value)
    out = xp.empty(value.shape[1:], dtype)
    out.real, out.imag = xp.cos(value[0]), xp.sin(value[0])
    if len(value) == 2:
        out *= xp.exp(-value[1])
    return out


def constrained(value: Array, problem: Problem, state: State, settings: Settings, iteration: int, step: float) -> Array:
    """The potential after the regularisers that are due; `step` is the length of the last step in Newton units."""
    if not settings.regularisers:
        return value
    return regularise_object(
        value, settings.regularisers, iteration, pixel_A=problem.pixel_A, gaps_A=state.space.gaps_A.tolist(), step=step
    )


def followed(object_: Array, earlier: Array) -> Array:
    """Potential of an object that came from the potential `earlier` by turning its phase by less than π: phases beyond ±π
    survive."""
    turned = potential(
        object_ * transmission(earlier[:1], object_.dtype).conj(), "complex" if len(earlier) == 2 else "phase"
    )
    turned[0] += earlier[0]
    return turned
