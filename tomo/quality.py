"""How far a volume can be trusted, from the data alone: two halves of the series, and what neither of them was told.

The odd and the even tilts, in the order of their planes, are reconstructed apart. Where the two volumes agree is what the particle
looks like (`tomo.fsc`); how well each explains the images of the other is a mismatch that was not fitted; and the rotations
tell what no tilt saw (`tomo.wedge`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tomo.arrays import library_of
from tomo.descent import Descent, Rules
from tomo.fsc import (
    PARTS,
    Resolution,
    ShellCorrelation,
    fills_the_frame,
    particle_mask,
    resolution_of,
    shell_correlation,
)
from tomo.geometry import checked_stack, rotation
from tomo.resire import checked_images, slabs_of
from tomo.wedge import Wedge, crowther, sequence, unseen_share, wedge

STRAY_SIGMAS, STRAY_FACTOR, STRAY_STEP = 5.0, 1.5, 0.02
"""A tilt stands out by so many robust standard deviations, and by this factor and this much at least."""

NO_PARTICLE = "not judged: no particle stands out with room round it; take the background off, or choose a wider frame"

_ROBUST = 1.4826
"""Standard deviation of a normal distribution in median absolute deviations."""


@dataclass(frozen=True, eq=False)
class Quality:
    """Lengths are in voxels.

    correlation: of the two halves. resolution: for "all", "x", "y", "z". half: (n,) which half each tilt was in, 0 or 1. unseen_r:
    (n,) R-factor of each tilt with the half that it was not in. diameter: of the particle. wedge: the missing wedge. unseen_share:
    part of the directions that no tilt measured at the resolution. crowther: finest detail that so many tilts fill space for.
    """

    correlation: ShellCorrelation
    resolution: dict[str, Resolution]
    half: NDArray[np.int64]
    unseen_r: NDArray[np.float64]
    diameter: float
    wedge: Wedge
    unseen_share: float
    crowther: float


def quality(
    projections: Any,
    angles_deg: ArrayLike,
    volume: Any,
    reconstruct: Callable[[NDArray[np.int64]], Any],
    *,
    rng: np.random.Generator,
    **settings: Any,
) -> Quality:
    """Judge the volume (z, y, x) of projections (n, y, x) at angles_deg (n, 3).

    reconstruct: makes a volume of those tilts alone whose numbers it is given, in the way `volume` was made of all. rng: for the
    phases that tell what the mask does. settings: of `tilt_r`.
    Raises ValueError for arguments that do not fit or fewer than two tilts.
    """
    angles = checked_stack(projections, angles_deg)
    half = halves(angles)
    volumes = [reconstruct(np.flatnonzero(half == k)) for k in (0, 1)]
    unseen_r = np.empty(len(angles))
    for k, other in enumerate(reversed(volumes)):
        mine = np.flatnonzero(half == k)
        images = projections[library_of(projections).asarray(mine)]
        unseen_r[mine] = tilt_r(images, angles[mine], other, **settings)
    mask, diameter = particle_mask(volume)
    correlation = shell_correlation(*volumes, mask=mask, rng=rng, beams=rotation(angles)[:, 2])
    found = {part: resolution_of(correlation.frequency, correlation.fsc[part]) for part in PARTS}
    if fills_the_frame(mask):
        found = dict.fromkeys(PARTS, Resolution(np.nan, NO_PARTICLE))
    reached = found["all"].voxels
    share = unseen_share(angles, reached, diameter) if np.isfinite(reached) else np.nan
    return Quality(
        correlation, found, half, unseen_r, diameter, wedge(angles), share, crowther(len(angles), diameter)
    )  # fmt: skip


def halves(angles_deg: ArrayLike) -> NDArray[np.int64]:
    """0 or 1 for every tilt (n,): every second one in the order of their planes; ValueError for fewer than two tilts."""
    order = sequence(angles_deg)
    if len(order) < 2:
        raise ValueError("angles_deg has one row; expected at least two tilts to make halves of.")
    half = np.empty(len(order), np.int64)
    half[order] = np.arange(len(order)) % 2
    return half


def tilt_r(
    projections: Any,
    angles_deg: ArrayLike,
    volume: Any,
    *,
    subvoxels: tuple[int, int, int] = (2, 1, 2),
    memory_bytes: int | None = None,
    threads: int | None = None,
) -> NDArray[np.float64]:
    """Σ|b − A x| / Σ|b| (n,) of each of the projections (n, y, x) with a volume (z, y, x); nan for empty ones."""
    angles = checked_stack(projections, angles_deg)
    slabs = slabs_of(
        projections, angles, memory_bytes, depth=volume.shape[0], subvoxels=subvoxels, threads=threads
    )  # fmt: skip
    rules = Rules(1, False, False, None, np.zeros(len(angles), bool), None)
    seen = Descent(slabs, checked_images(projections, slabs[0]), 1, [1] * len(slabs), rules)
    seen.init(volume)
    return seen.tilt_r()


def strays(r: NDArray[np.float64]) -> NDArray[np.int64]:
    """Numbers of the tilts whose R-factor (n,) stands out from the others', worst first; nan never does."""
    if np.isnan(r).all():
        return np.zeros(0, np.int64)
    middle = float(np.nanmedian(r))
    spread = _ROBUST * float(np.nanmedian(np.abs(r - middle)))
    limit = max(middle + STRAY_SIGMAS * spread, STRAY_FACTOR * middle, middle + STRAY_STEP)
    out = np.flatnonzero(r > limit)
    return out[np.argsort(-r[out])]
