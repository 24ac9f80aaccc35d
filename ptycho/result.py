"""What a reconstruction hands back, and the sentence that names its failure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


class Diverged(RuntimeError):
    """The loss became infinite or far larger than at the start; the message says at which iteration and what to try."""


@dataclass(frozen=True, eq=False)
class Result:
    """Reconstruction of one tilt, all of it numpy arrays.

    object: complex64 (slice, y, x), transmission of each slice; index n // 2 is coordinate 0.
    probe: complex64 (mode, y, x) entering the first slice, in sqrt(electrons), centred at index n // 2.
    positions_A: float64 (n, 2) as (y, x), refined where that was asked for.
    loss: float64 (iterations,), per pattern, at the object each iteration started from.
    cpu_s, wall_s: float64 (iterations,), processor and wall seconds from the start to the end of each iteration.
    pixel_A: pixel of object and probe; slice_A: distance between slices (0 for one slice).
    """

    object: np.ndarray
    probe: np.ndarray
    positions_A: np.ndarray
    loss: np.ndarray
    cpu_s: np.ndarray
    wall_s: np.ndarray
    pixel_A: float
    slice_A: float
