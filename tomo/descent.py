"""The one loop of all iterative reconstructions: a step against the mismatch, constraints, R-factors, an end.

    x ← max(0, y − C Aᵀ R (A y − b)),      y = x, or with momentum  y = x + β (x − x of the step before)

RESIRE has one number for C and no R, SIRT the inverse column and row sums of A. Momentum is Nesterov's with a restart
whenever the mismatch rises (O'Donoghue and Candès, doi:10.1007/s10208-013-9150-3): 25 iterations then reach what takes 100
plain ones on 55 tilts of a metal particle. As A is linear, the projections of y follow from those of x: one projection and
one back-projection per iteration all the same.

Volumes larger than the memory are worked slab by slab along z: every slab is back-projected, stepped and projected on its
own, and the projections of all slabs add up. Held-out tilts are projected but not fitted; their mismatch falls as long as the
volume learns and rises when it learns noise. It is counted in squares, as the fit is: sums of absolute values (R-free) are
least for the median, and that of sparse counts is 0, so that R-free of noisy counts is best for hardly any volume.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomo.arrays import library_of
from tomo.projector import Projector

log = logging.getLogger(__name__)

Progress = Callable[[int, int, float], None]

_TRACES = ("r_factor", "r_free", "mismatch_free")


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A volume and how well it explains the projections.

    volume: float32 (z, y, x). r_factor: (iterations,) mean over the fitted tilts of Σ|b − A x| / Σ|b|; r_free: the same of the
    held-out tilts, None without; mismatch_free: Σ(b − A x)² / Σb² of these. tilt_r: (n,) R-factor of each tilt at the end.
    held_out: (n,) bool. step: what the derivative was multiplied by, nan where it differs from voxel to voxel.
    """

    volume: Any
    r_factor: NDArray[np.float64]
    step: float
    r_free: NDArray[np.float64] | None
    mismatch_free: NDArray[np.float64] | None
    tilt_r: NDArray[np.float64]
    held_out: NDArray[np.bool_]


@dataclass(frozen=True)
class Iteration:
    """A finished iteration, for those who watch: R-factors, and on demand everything needed to go on from here."""

    done: int
    total: int
    r_factor: float
    r_free: float | None
    checkpoint: Callable[[], dict[str, NDArray[Any]]]


@dataclass(frozen=True, eq=False)
class Rules:
    """How the loop runs: constraints, momentum, and when it ends.

    support: array (z, y, x), zero where the volume must stay zero. held_out: (n,) bool. patience: end when the
    mismatch of the held-out tilts has not fallen for so many iterations, None never.
    """

    iterations: int
    positivity: bool
    momentum: bool
    support: Any | None
    held_out: NDArray[np.bool_]
    patience: int | None


class Descent:
    """A reconstruction under way.

    slabs: projectors of consecutive planes. rows, columns: R (n, y, x) or a number, and for each slab C as an array or a number.
    """

    def __init__(self, slabs: Sequence[Projector], b: Any, rows: Any, columns: Iterable[Any], rules: Rules) -> None:
        self.slabs, self.b, self.rows, self.rules = slabs, b, rows, rules
        self.xp = slabs[0].xp
        self._streams = len(slabs) > 1
        self.columns = [self._to_store(c) for c in columns]
        self._kept = self.xp.asarray(~rules.held_out, b.dtype)[:, None, None]
        self._total = np.maximum(per_tilt(self.xp, b), 0)
        self._inertia = 1.0
        self.r_factor: list[float] = []
        self.r_free: list[float] = []
        self.mismatch_free: list[float] = []

    def init(self, initial: Any | None) -> None:
        """Start from a volume (z, y, x), or from nothing."""
        self.x = [self._to_store(self._part(initial, A)) for A in self.slabs]
        self._earlier = [x.copy() for x in self.x] if self.rules.momentum else self.x
        self._seen = self._projected() if initial is not None else self.b * 0
        self._seen_earlier = self._seen
        self._mismatch = math.inf

    def step(self) -> None:
        """One iteration."""
        following = (1 + math.sqrt(1 + 4 * self._inertia**2)) / 2
        share = self.b.dtype.type((self._inertia - 1) / following if self.rules.momentum else 0.0)
        residual = (self._seen - self.b + share * (self._seen - self._seen_earlier)) * self._kept
        residual *= self.rows
        seen = None
        for s, (A, columns) in enumerate(zip(self.slabs, self.columns, strict=True)):
            x, moved = self._from_store(self.x[s]), A.T(residual)
            # In place: fresh memory for a large volume costs as much as the projection.
            moved *= self._from_store(columns)
            self.xp.subtract(x, moved, out=moved)
            if share:
                ahead = x - self._from_store(self._earlier[s])
                ahead *= share
                moved += ahead
            self._constrain(moved, A)
            if self.rules.momentum:
                self._earlier[s] = self.x[s]
            self.x[s] = self._to_store(moved)
            images = A(moved)
            seen = images if seen is None else seen + images
        self._seen_earlier, self._seen, self._inertia = self._seen, seen, following
        self._judge()

    def tilt_r(self) -> NDArray[np.float64]:
        """R-factor (n,) of each tilt; nan for tilts without any signal."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self._total > 0, per_tilt(self.xp, self._seen - self.b) / self._total, np.nan)

    def over(self) -> bool:
        """Whether the mismatch of the held-out tilts has stopped falling."""
        patience, free = self.rules.patience, self.mismatch_free
        if patience is None or len(free) <= patience:
            return False
        return min(free[-patience:]) >= min(free[:-patience])

    def volume(self) -> Any:
        """The volume (z, y, x) so far, in C order."""
        whole = self.x[0] if not self._streams else np.concatenate(self.x)
        xp = library_of(whole)
        return xp.ascontiguousarray(whole).astype(np.float32, copy=False)

    def checkpoint(self) -> dict[str, NDArray[Any]]:
        """The whole run as named numpy arrays."""
        host = [on_host(x) for x in self.x]
        out = {"volume": np.concatenate(host), "seen": on_host(self._seen), "inertia": np.array(self._inertia)}
        if self.rules.momentum:
            earlier = [on_host(x) for x in self._earlier]
            out |= {"earlier": np.concatenate(earlier), "seen_earlier": on_host(self._seen_earlier)}
        out["mismatch"] = np.array(self._mismatch)
        return out | {name: np.array(getattr(self, name)) for name in _TRACES}

    def resume(self, held: Mapping[str, NDArray[Any]]) -> None:
        """Go on behind the last iteration of a checkpoint; ValueError when it belongs to other data."""
        missing = {"volume", "seen", "inertia", "mismatch", *(("earlier",) if self.rules.momentum else ())} - set(held)
        if missing:
            raise ValueError(
                f"the checkpoint lacks {', '.join(sorted(missing))}; expected one of a run with the same settings: start afresh."
            )
        depth = sum(A.domain_shape[0] for A in self.slabs)
        shape = (depth, *self.slabs[0].domain_shape[1:])
        if held["volume"].shape != shape or held["seen"].shape != self.b.shape:
            raise ValueError(
                f"the checkpoint holds a volume of shape {held['volume'].shape} and projections of {held['seen'].shape}; "
                f"expected {shape} and {self.b.shape}: it belongs to other data, start afresh."
            )
        self.x = [self._to_store(self._part(held["volume"], A)) for A in self.slabs]
        earlier = held["earlier"] if self.rules.momentum else None
        self._earlier = self.x if earlier is None else [self._to_store(self._part(earlier, A)) for A in self.slabs]
        self._seen = self.slabs[0].stored(self.xp.asarray(held["seen"]))
        self._seen_earlier = (
            self._seen if earlier is None else self.slabs[0].stored(self.xp.asarray(held["seen_earlier"]))
        )
        self._inertia, self._mismatch = float(held["inertia"]), float(held["mismatch"])
        for name in _TRACES:
            setattr(self, name, held[name].tolist())

    def _judge(self) -> None:
        residual = self._seen - self.b
        each = per_tilt(self.xp, residual)
        with np.errstate(divide="ignore", invalid="ignore"):
            r = np.where(self._total > 0, each / self._total, np.nan)
        out = self.rules.held_out
        self.r_factor.append(_mean(r[~out]))
        if out.any():
            self.r_free.append(_mean(r[out]))
            free = self.xp.asarray(out)
            squares = [float(self.xp.square(images[free]).sum(dtype=np.float64)) for images in (residual, self.b)]
            self.mismatch_free.append(squares[0] / squares[1] if squares[1] else math.nan)
        if self.rules.momentum:
            residual *= self._kept
            mismatch = float(self.xp.vdot(residual.ravel(order="K"), (residual * self.rows).ravel(order="K")))
            if mismatch > self._mismatch:
                log.debug("the mismatch rose: momentum dropped")
                self._inertia = 1.0
            self._mismatch = mismatch

    def _constrain(self, x: Any, A: Projector) -> None:
        if self.rules.positivity:
            self.xp.maximum(x, 0, out=x)
        if self.rules.support is not None:
            x *= self._part(self.rules.support, A) != 0

    def _projected(self) -> Any:
        return sum(A(self._from_store(x)) for A, x in zip(self.slabs, self.x, strict=True))

    def _part(self, volume: Any | None, A: Projector) -> Any:
        """A copy of the planes of a volume that belong to a slab, on the device; zeros for None."""
        if volume is None:
            return A.stored(self.xp.zeros(A.domain_shape, A.dtype))
        start = A.geometry.first + A.depth // 2
        planes = volume[start : start + A.domain_shape[0]]
        return A.stored(self.xp.array(planes, A.dtype))

    def _to_store(self, x: Any) -> Any:
        """One slab stays on the device; several wait in the memory of the host."""
        return on_host(x) if self._streams else x

    def _from_store(self, x: Any) -> Any:
        return self.xp.asarray(x) if self._streams else x


def run(
    descent: Descent,
    initial: Any | None,
    step: float,
    progress: Progress | None,
    watch: Callable[[Iteration], None] | None,
    resume: Mapping[str, NDArray[Any]] | None,
) -> Reconstruction:
    """Iterate to the end; progress or watch may raise StopIteration to end earlier."""
    if resume is None:
        descent.init(initial)
    else:
        descent.resume(resume)
    total = descent.rules.iterations
    while len(descent.r_factor) < total and not descent.over():
        descent.step()
        done, r = len(descent.r_factor), descent.r_factor[-1]
        try:
            if progress is not None:
                progress(done, total, r)
            if watch is not None:
                watch(Iteration(done, total, r, descent.r_free[-1] if descent.r_free else None, descent.checkpoint))
        except StopIteration:
            log.info("stopped on request after %d of %d iterations", done, total)
            break
    r_free, mismatch_free = (np.array(trace) if trace else None for trace in (descent.r_free, descent.mismatch_free))
    return Reconstruction(
        descent.volume(),
        np.array(descent.r_factor),
        step,
        r_free,
        mismatch_free,
        descent.tilt_r(),
        descent.rules.held_out,
    )


def per_tilt(xp: Any, images: Any) -> NDArray[np.float64]:
    """Σ|image| (n,) of each image, on the host."""
    return on_host(xp.abs(images).sum(axis=(1, 2), dtype=np.float64))


def _mean(values: NDArray[np.float64]) -> float:
    """Mean of those values that are numbers."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def on_host(array: Any) -> NDArray[Any]:
    """The same array for numpy."""
    return array.get() if hasattr(array, "get") else np.asarray(array)
