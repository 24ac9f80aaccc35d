"""How many iterations: as many as held-out tilts are predicted best with.

A reconstruction without some tilts is asked how well it explains them: first ever better, then, when it begins to fit noise, ever
worse. All tilts together are then given the number of iterations at which that turned (cross-validation as Brünger's free R,
doi:10.1038/355472a0, here on squared differences).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tomo.descent import Reconstruction
from tomo.resire import resire
from tomo.wedge import sequence

log = logging.getLogger(__name__)

MOST_ITERATIONS = 1000


@dataclass(frozen=True, eq=False)
class Stopping:
    """iterations: after how many the held-out tilts were explained best. trial: the reconstruction without them."""

    iterations: int
    trial: Reconstruction

    @property
    def turned(self) -> bool:
        """Whether the held-out tilts were explained worse again before the iterations ended."""
        return self.iterations < len(self.trial.r_factor)


def chosen_iterations(
    projections: Any,
    angles_deg: ArrayLike,
    *,
    method: Callable[..., Reconstruction] = resire,
    tilts: int = 5,
    patience: int = 20,
    most: int = MOST_ITERATIONS,
    **settings: Any,
) -> Stopping:
    """The best number of iterations for projections (n, y, x) at angles_deg (n, 3).

    method: `resire` or `sirt`, which settings are for. tilts: how many are held out. patience: the trial ends when they have not
    been explained better for so many iterations, or at `most` iterations.
    Raises ValueError for arguments that do not fit.
    """
    held_out = spread_tilts(angles_deg, tilts)
    trial = method(
        projections, angles_deg, iterations=most, held_out=held_out, patience=patience, **settings
    )  # fmt: skip
    assert trial.mismatch_free is not None
    found = Stopping(int(np.nanargmin(trial.mismatch_free)) + 1, trial)
    log.info("held-out tilts are explained best after %d of %d iterations", found.iterations, len(trial.r_factor))
    return found


def spread_tilts(angles_deg: ArrayLike, count: int) -> NDArray[np.bool_]:
    """`count` tilts (n,) bool spread evenly over a series, the two at its rims never among them.

    Raises ValueError where that is less than 1 or more than half of the tilts.
    """
    order = sequence(angles_deg)
    if not 1 <= count <= (len(order) - 1) // 2:
        raise ValueError(
            f"held-out tilts: {count} of {len(order)}; expected at least 1 and less than half of them, so that a volume remains."
        )
    out = np.zeros(len(order), bool)
    out[order[np.linspace(0, len(order) - 1, count + 2).round().astype(int)[1:-1]]] = True
    return out
