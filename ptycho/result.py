"""What a reconstruction hands back, and the sentence that names its failure."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


class Diverged(RuntimeError):
    """The loss became infinite or far larger than at the start; the message says at which iteration and what to try."""


@dataclass(frozen=True, eq=False)
class Result:
    """Reconstruction of one tilt, all of it numpy arrays.

    object: complex64 (slice, y, x), transmission of each slice; index n // 2 is coordinate 0. Of a mixed object the mean phase
        and absorption of its states.
    probe: complex64 (mode, y, x) entering the first slice, in sqrt(electrons), centred at index n // 2.
    positions_A: float64 (n, 2) as (y, x), refined where that was asked for.
    loss: float64 (iterations,), per pattern, at the object each iteration started from.
    cpu_s, wall_s: float64 (iterations,), processor and wall seconds from the start to the end of each iteration.
    pixel_A: pixel of object and probe; slice_A: mean distance between slices (0 for one slice).
    validation: float64 (iterations,), loss per held-out pattern, at the same objects as `loss`; None without held-out patterns.
    gaps_A: float64 (slice − 1,) distances between slices. tilts_mrad: float64 (1 or n, 2) as (y, x).
    scales, backgrounds: float64 (n,), dose relative to the mean and electrons per pixel, where they were refined or given.
    object_states: complex64 (state, slice, y, x). variations, coefficients: complex64 (variation, y, x) and (n, variation),
        the changes of the first probe mode from pattern to pattern, or None.
    sigma: standard deviation of each scan-wide parameter refined in the last step; position_sigma_A: (n, 2).
    training: numbers of the patterns that were fitted. offset: electrons per pixel added to model and data.
    """

    object: np.ndarray
    probe: np.ndarray
    positions_A: np.ndarray
    loss: np.ndarray
    cpu_s: np.ndarray
    wall_s: np.ndarray
    pixel_A: float
    slice_A: float
    validation: np.ndarray | None
    gaps_A: np.ndarray
    tilts_mrad: np.ndarray
    scales: np.ndarray | None
    backgrounds: np.ndarray | None
    object_states: np.ndarray
    variations: np.ndarray | None
    coefficients: np.ndarray | None
    training: np.ndarray
    offset: float
    sigma: dict[str, float] = field(default_factory=dict)
    position_sigma_A: np.ndarray | None = None
