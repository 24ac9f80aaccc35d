"""What the patterns cannot tell, chosen the same way for every tilt.

A probe moved by s with the object moved by s, a probe c times brighter with an object c times darker, and a phase ramp moved from
one to the other leave all patterns as they are. The gauge: the intensity of the probe is centred at coordinate 0, the object has
amplitude 1 in the median of the scanned field, and the spectrum of the probe is centred on the detector. Global phase and ramp of
the phase image are set by its vacuum (`ptycho.phase`).

Standard shapes: object (slice, y, x), probe (mode, y, x), positions (n, 2) as (y, x).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ptycho.regularise import centroid_px, shifted
from ptycho.result import Result


def in_gauge(result: Result) -> tuple[Result, tuple[float, float]]:
    """The same reconstruction in the common gauge, and how far (y, x) in Å its object was moved for it."""
    move = -np.asarray(centroid_px(result.probe), np.float64)
    probe = shifted(result.probe, move)
    states = np.stack([shifted(state, move) for state in result.object_states])
    object_ = shifted(result.object, move)
    reach = np.maximum(np.floor(np.abs(result.positions_A).max(0) / result.pixel_A).astype(int), 1)
    field = tuple(slice(n // 2 - r, n // 2 + r + 1) for n, r in zip(object_.shape[-2:], reach.tolist(), strict=True))
    level = float(np.median(np.abs(object_[(slice(None), *field)]).prod(0)))
    each = level ** (1 / len(object_)) if level > 0 else 1.0
    moved = replace(
        result,
        object=(object_ / each).astype(np.complex64),
        object_states=(states / each).astype(np.complex64),
        probe=(probe * level).astype(np.complex64),
    )
    return moved, (float(move[0] * result.pixel_A), float(move[1] * result.pixel_A))
