"""A running reconstruction as named arrays, and back.

The names are flat ("object", "solver/momentum"), the values numpy arrays, so that any container of arrays can hold them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ptycho.grid import Array, library_of, to_numpy
from ptycho.problem import State
from ptycho.scan import Variations

_SOLVER = "solver/"


def pack(state: State, solver: Mapping[str, Array | float], **beside: Any) -> dict[str, np.ndarray]:
    """State, the solver's memory and whatever stands `beside` them as numpy arrays in their own precision."""
    out = {
        "object": state.object,
        "probe": state.probe,
        "positions_px": state.positions_px,
        "gaps_A": state.space.gaps_A,
        "tilts_mrad": state.space.tilts_mrad,
    }
    variations = state.illumination.variations
    if variations is not None:
        out |= {"variations": variations.modes, "coefficients": variations.coefficients}
    out |= {name: a for name in ("scales", "backgrounds") if (a := getattr(state, name)) is not None}
    out |= {_SOLVER + name: value for name, value in solver.items()}
    return {name: _host(value) for name, value in (out | beside).items()}


def unpack(state: State, held: Mapping[str, Any]) -> tuple[State, dict[str, Array]]:
    """The state of a checkpoint, on the device and in the precision of `state`, and the solver's memory.

    Raises ValueError when the checkpoint belongs to another problem.
    """
    xp = library_of(state.object)
    for name, own in (
        ("object", state.object.shape),
        ("probe", state.probe.shape),
        ("positions_px", state.positions_px.shape),
    ):
        found = np.shape(held[name]) if name in held else None
        if found != own:
            raise ValueError(
                f"resume holds {name} of shape {found}; expected {own}: the checkpoint belongs to other patterns or settings, "
                "start afresh."
            )
    variations = None
    if "variations" in held:
        variations = Variations(xp.asarray(held["variations"]), xp.asarray(held["coefficients"]))
    illumination = state.illumination.with_probe(xp.asarray(held["probe"]))
    illumination = illumination.with_variations(variations)
    illumination = illumination.with_positions(np.asarray(held["positions_px"]), state.object.shape[-2:])
    space = replace(state.space, gaps_A=np.asarray(held["gaps_A"]), tilts_mrad=np.asarray(held["tilts_mrad"]))
    scales, backgrounds = (xp.asarray(held[n]) if n in held else None for n in ("scales", "backgrounds"))
    restored = State(xp.asarray(held["object"]), illumination, space, scales, backgrounds)
    solver = {n.removeprefix(_SOLVER): xp.asarray(held[n]) for n in held if n.startswith(_SOLVER)}
    return restored, solver


def _host(value: Any) -> np.ndarray:
    return np.asarray(value) if isinstance(value, int | float | list) else to_numpy(value)
