"""RESIRE: projected gradient descent on the mismatch of measured and computed projections.

    minimise ½ ‖A x − b‖²  with x ≥ 0,     x ← max(0, x − t Aᵀ(A x − b))

The step is t = step / ‖A‖²: below 2 the loss never rises. The published codes write t = s / (4 · n · depth); as ‖A‖² is
close to n · depth, a published s corresponds to step ≈ s / 4 (s = 1 and 2 are common there). On noisy data the number
of iterations also regularises: step times iterations is what counts, and held-out tilts tell where to stop.

Sources: Yuan, Cichocki et al., doi:10.1038/s41586-021-03354-0 (first use); Pham et al., doi:10.1038/s41598-023-31124-7.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tomo.arrays import library_of
from tomo.descent import Descent, Iteration, Progress, Reconstruction, Rules, on_host, run
from tomo.geometry import checked_stack
from tomo.projector import Projector

log = logging.getLogger(__name__)

NORM_TOLERANCE, NORM_ITERATIONS = 1e-3, 50
"""As those of `Projector.norm`."""
COPIES = 5
"""Volumes alive at once while a slab is worked: before, earlier, gradient, moved, and one under way."""


def resire(
    projections: Any,
    angles_deg: ArrayLike,
    *,
    iterations: int = 200,
    step: float | None = None,
    momentum: bool = False,
    positivity: bool = True,
    subvoxels: tuple[int, int, int] = (2, 1, 2),
    depth: int | None = None,
    shifts_px: ArrayLike | None = None,
    scales: ArrayLike | None = None,
    initial: Any | None = None,
    support: Any | None = None,
    held_out: ArrayLike | None = None,
    patience: int | None = None,
    memory_bytes: int | None = None,
    half_storage: bool = False,
    progress: Progress | None = None,
    watch: Callable[[Iteration], None] | None = None,
    resume: Mapping[str, NDArray[Any]] | None = None,
    threads: int | None = None,
) -> Reconstruction:
    """Reconstruct the volume (z, y, x) whose projections at angles_deg (n, 3) are nearest to projections (n, y, x).

    The arrays decide the device: numpy or cupy; float64 projections are worked on in float64, all others in float32.
    step: fraction of 1 / ‖A‖², above 0 and below 2 (at most 1 with momentum); 1 when None. momentum: Nesterov's, with
    restarts. depth: voxels along z, the image width when None. shifts_px (n, 2) as (y, x) and scales (n,): where and how
    bright each tilt sees the volume. initial: volume (z, y, x) to start from, else zero. support: array (z, y, x), zero
    where the volume must stay zero. held_out: (n,) bool or numbers of the tilts that are judged by but not fitted; patience:
    end when their mismatch has not fallen for so many iterations. memory_bytes: work slab by slab so that no more is needed
    for volumes on the device; the volume then lives in the memory of the host. half_storage: as that of `Projector`.
    progress(done, total, r_factor) is told of each iteration, watch likewise with an `Iteration`, from which it may take a
    checkpoint; resume takes one up and goes on as if there had been no break. Either may raise StopIteration: the volume
    reached so far is then returned.
    Raises ValueError for arguments that do not fit or data that are not finite.
    """
    angles = checked_stack(projections, angles_deg)
    rules = checked_rules(iterations, positivity, momentum, support, held_out, patience, len(angles))
    step = _checked_step(step, momentum)
    slabs = slabs_of(
        projections, angles, memory_bytes, depth=depth, subvoxels=subvoxels, shifts_px=shifts_px, scales=scales,
        half_storage=half_storage, threads=threads,
    )  # fmt: skip
    b = checked_images(projections, slabs[0])
    for name, volume in (("initial", initial), ("support", support)):
        _check_volume(name, volume, slabs)
    t = step / norm_of(slabs)
    log.info("RESIRE: %d iterations, step %.3e, %d slabs of %s", iterations, t, len(slabs), slabs[0].domain_shape)
    descent = Descent(slabs, b, b.dtype.type(1), [b.dtype.type(t)] * len(slabs), rules)
    return run(descent, initial, t, progress, watch, resume)


def slabs_of(projections: Any, angles_deg: ArrayLike, memory_bytes: int | None, **given: Any) -> list[Projector]:
    """Projectors of consecutive planes, as many as `memory_bytes` asks for; one of the whole volume for None."""
    xp = library_of(projections)
    dtype = np.float64 if projections.dtype == np.float64 else np.float32
    shape = projections.shape[1:]
    depth = given["depth"] or shape[1]
    plane = COPIES * math.prod(shape) * np.dtype(dtype).itemsize
    if memory_bytes is not None and memory_bytes < plane:
        raise ValueError(f"memory_bytes is {memory_bytes}; a single plane of this volume needs {plane}.")
    planes = depth if memory_bytes is None else min(depth, memory_bytes // plane)
    edges = np.linspace(0, depth, -(-depth // planes) + 1).round().astype(int).tolist()
    return [
        Projector(angles_deg, shape, planes=(start, stop), xp=xp, dtype=dtype, **given)
        for start, stop in itertools.pairwise(edges)
    ]


def norm_of(slabs: list[Projector]) -> float:
    """Largest eigenvalue of AᵀA of the whole volume, whose parts wait in the memory of the host."""
    if len(slabs) == 1:
        return slabs[0].norm()
    xp, dtype = slabs[0].xp, slabs[0].dtype
    parts, estimate = [np.ones(A.domain_shape, dtype) for A in slabs], 0.0
    for _ in range(NORM_ITERATIONS):
        size = math.sqrt(sum(float(np.vdot(part.ravel(order="K"), part.ravel(order="K"))) for part in parts))
        images = sum(A(xp.asarray(part / dtype.type(size))) for A, part in zip(slabs, parts, strict=True))
        previous, estimate = estimate, float(xp.square(images).sum(dtype=np.float64))
        if abs(estimate - previous) <= NORM_TOLERANCE * estimate:
            break
        parts = [on_host(A.T(images)) for A in slabs]
    return estimate


def checked_images(projections: Any, A: Projector) -> Any:
    """The projections in the dtype and memory order of the projector; ValueError where they are not finite."""
    b = A.stored(projections)
    if not bool(A.xp.isfinite(b).all()):
        raise ValueError("projections hold values that are not finite; mask or repair those pixels first.")
    return b


def checked_tilts(name: str, tilts: ArrayLike | None, count: int) -> NDArray[np.bool_]:
    """Tilts given as (n,) bool or by their numbers, as bool; ValueError when they do not fit or none is left."""
    given = np.zeros(count, bool) if tilts is None else np.asarray(tilts)
    if given.dtype != np.bool_:
        if given.ndim != 1 or (
            given.size and not (np.issubdtype(given.dtype, np.integer) and given.min() >= 0 and given.max() < count)
        ):
            raise ValueError(
                f"{name} is {tilts!r}; expected numbers of tilts from 0 to {count - 1}, or one bool per tilt."
            )
        given = np.isin(np.arange(count), given)
    if given.shape != (count,) or given.all():
        raise ValueError(
            f"{name} has shape {given.shape}, {given.sum()} set; expected ({count},) with at least one tilt left to fit."
        )
    return given


def checked_rules(
    iterations: int,
    positivity: bool,
    momentum: bool,
    support: Any | None,
    held_out: ArrayLike | None,
    patience: int | None,
    count: int,
) -> Rules:
    """The rules of the loop for `count` tilts; ValueError where they do not fit."""
    if not isinstance(iterations, int | np.integer) or iterations < 1:
        raise ValueError(f"iterations is {iterations}; expected a positive whole number.")
    tilts = checked_tilts("held_out", held_out, count)
    return Rules(iterations, positivity, momentum, support, tilts, _checked_patience(patience, held_out))


def _checked_step(step: float | None, momentum: bool) -> float:
    if step is not None and not 0.0 < step < 2.0:
        raise ValueError(f"step is {step}; expected a fraction of 1/‖A‖² above 0 and below 2, where RESIRE converges.")
    if step is not None and momentum and step > 1.0:
        raise ValueError(f"step is {step} with momentum; expected at most 1, where accelerated steps converge.")
    return 1.0 if step is None else float(step)


def _checked_patience(patience: int | None, held_out: ArrayLike | None) -> int | None:
    if patience is not None and (patience < 1 or held_out is None):
        raise ValueError(
            f"patience is {patience} with held_out {held_out!r}; expected a positive whole number and tilts to judge by."
        )
    return patience


def _check_volume(name: str, array: Any | None, slabs: list[Projector]) -> None:
    shape = (slabs[0].depth, *slabs[0].image_shape)
    if array is not None and array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; expected {shape} as (z, y, x); set depth to match.")
