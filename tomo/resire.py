"""RESIRE: projected gradient descent on the mismatch of measured and computed projections.

    minimise ½ ‖A x − b‖²  with x ≥ 0,     x ← max(0, x − t Aᵀ(A x − b))

The step is t = step / ‖A‖²: below 2 the loss never rises. The published codes write t = s / (4 · n · depth); as ‖A‖² is
close to n · depth, a published s corresponds to step ≈ s / 4 (s = 1 and 2 are common there). On noisy data the number
of iterations also regularises: step times iterations is what counts.

Sources: Yuan, Cichocki et al., doi:10.1038/s41586-021-03354-0 (first use); Pham et al., doi:10.1038/s41598-023-31124-7.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tomo.geometry import checked_stack
from tomo.projector import Projector

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reconstruction:
    """Volume float32 (z, y, x), R-factor after each iteration (iterations,), and the step t that was applied."""

    volume: Any
    r_factor: NDArray[np.float64]
    step: float


def resire(
    projections: Any,
    angles_deg: ArrayLike,
    *,
    iterations: int = 200,
    step: float | None = None,
    positivity: bool = True,
    subvoxels: tuple[int, int, int] = (2, 1, 2),
    depth: int | None = None,
    initial: Any | None = None,
    support: Any | None = None,
    progress: Callable[[int, int, float], None] | None = None,
    threads: int | None = None,
) -> Reconstruction:
    """Reconstruct the volume (z, y, x) whose projections at angles_deg (n, 3) are nearest to projections (n, y, x).

    The arrays decide the device: numpy or cupy; float64 projections are worked on in float64, all others in float32.
    step: fraction of 1 / ‖A‖², above 0 and below 2; 1 when None. initial: volume (z, y, x) to start from, else zero.
    support: array (z, y, x), zero where the volume must stay zero. depth: voxels along z, the image width when None.
    progress(done, total, r_factor) may raise StopIteration: the volume reached so far is then returned.
    Raises ValueError for arguments that do not fit or data that are not finite.
    """
    checked_stack(projections, angles_deg)
    step = _checked_step(step, iterations)
    xp = projections.__array_namespace__()
    dtype = np.float64 if projections.dtype == np.float64 else np.float32
    A = Projector(
        angles_deg, projections.shape[1:], depth=depth, subvoxels=subvoxels, xp=xp, dtype=dtype, threads=threads
    )
    b = A.stored(projections)
    if not bool(xp.isfinite(b).all()):
        raise ValueError("projections hold values that are not finite; mask or repair those pixels first.")
    x = A.stored(xp.zeros(A.domain_shape, A.dtype)) if initial is None else _volume(A, "initial", initial)
    allowed = None if support is None else A.stored(_volume(A, "support", support) != 0)
    t = step / A.norm()
    log.info("RESIRE: %d iterations, step %.3e, volume %s", iterations, t, A.domain_shape)

    total = _sum_per_tilt(xp, b)
    r_factor: list[float] = []
    residual = -b if initial is None else A(x) - b
    for done in range(1, iterations + 1):
        residual *= t
        x -= A.T(residual)
        _constrain(xp, x, positivity, allowed)
        residual = A(x)
        residual -= b
        r_factor.append(_r_factor(xp, residual, total))
        if not _carry_on(progress, done, iterations, r_factor[-1]):
            break
    volume = xp.ascontiguousarray(x).astype(np.float32, copy=False)
    return Reconstruction(volume, np.array(r_factor), t)


def _checked_step(step: float | None, iterations: int) -> float:
    if iterations < 1:
        raise ValueError(f"iterations is {iterations}; expected a positive whole number.")
    if step is not None and not 0.0 < step < 2.0:
        raise ValueError(f"step is {step}; expected a fraction of 1/‖A‖² above 0 and below 2, where RESIRE converges.")
    return 1.0 if step is None else float(step)


def _volume(A: Projector, name: str, array: Any) -> Any:
    if array.shape != A.domain_shape:
        raise ValueError(f"{name} has shape {array.shape}; expected {A.domain_shape} as (z, y, x); set depth to match.")
    # A copy, because the iteration works in place.
    return A.stored(array.astype(A.dtype))


def _constrain(xp: Any, x: Any, positivity: bool, allowed: Any | None) -> None:
    if positivity:
        xp.maximum(x, 0, out=x)
    if allowed is not None:
        x *= allowed


def _sum_per_tilt(xp: Any, images: Any) -> Any:
    return xp.abs(images).sum(axis=(1, 2), dtype=np.float64)


def _r_factor(xp: Any, residual: Any, total: Any) -> float:
    """Mean over tilts of Σ|b − A x| / Σ|b|; tilts without any signal are left out."""
    lit = total > 0
    return float((_sum_per_tilt(xp, residual)[lit] / total[lit]).mean()) if bool(lit.any()) else math.nan


def _carry_on(progress: Callable[[int, int, float], None] | None, done: int, total: int, value: float) -> bool:
    if progress is None:
        return True
    try:
        progress(done, total, value)
    except StopIteration:
        log.info("RESIRE stopped on request after %d of %d iterations", done, total)
        return False
    return True
