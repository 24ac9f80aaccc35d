"""Atoms as the maxima of a volume: candidates, how much to smooth before looking, and positions below the voxel.

A maximum of the smoothed volume is a candidate. Its place is refined by a quartic, fitted with Gaussian weights to the
spline-interpolated volume in a small sphere and moved to the maximum until it rests there. Of two candidates nearer
than the minimum distance the weaker goes. A second search, smoothed less, adds the faint neighbours of bright atoms
that the first has blurred into shoulders. Nothing is cut at a height: whether a candidate is an atom is decided from
all of them together (`classify`), and the maxima outside the particle are kept as the measure of what noise looks like.

Standard shapes: volume (z, y, x), index n//2 at coordinate 0; positions (n, 3) in Å as (x, y, z).
Source of the fit: Liao et al., Nature (2026), doi:10.1038/s41586-025-09857-4, and Yang et al., Nature 592, 60 (2021),
doi:10.1038/s41586-021-03354-0.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, sparse
from scipy.spatial import cKDTree

from .atoms import positions as check_positions

log = logging.getLogger(__name__)

Progress = Callable[[int, int, float], None]
Array = NDArray[np.float64]
Candidates = tuple[Array, Array, NDArray[np.bool_]]

OVERSAMPLING = 3
FIT_RADIUS = 3.5
"""Radius of the fitted sphere in steps of the oversampled grid."""
MAX_MOVE = 0.5
"""Longest step of one iteration along an axis, in voxels."""
MAX_DRIFT = 1.5
"""A candidate that leaves its voxel by more than this, in voxels along an axis, is no maximum of its own."""
RESOLVED = 2.6
"""Two equal Gaussian atoms this many standard deviations apart stay two well separated maxima (they merge at 2)."""
FINER = 0.7
"""The second search smooths by this share of the first."""
MAX_OUTSIDE = 3000


@dataclass(frozen=True, eq=False)
class Peaks:
    """Candidate atoms, strongest first.

    positions_A: float64 (n, 3), x, y, z. height: (n,) fitted maximum of the smoothed volume. inside: (n,) bool, False
    for maxima in the empty part of the volume (a sample of at most 3000 of them). blur_A: standard deviation of the
    smoothing that was used. min_distance_A: no two candidates are nearer.
    """

    positions_A: Array
    height: Array
    inside: NDArray[np.bool_] = field(default=None)  # type: ignore[arg-type]
    blur_A: float = 0.0
    min_distance_A: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "positions_A", check_positions(self.positions_A))
        object.__setattr__(self, "height", np.asarray(self.height, dtype=np.float64))
        inside = np.ones(len(self.height), bool) if self.inside is None else np.asarray(self.inside, dtype=bool)
        object.__setattr__(self, "inside", inside)
        if not len(self.positions_A) == len(self.height) == len(inside):
            raise ValueError(
                f"positions_A, height and inside have {len(self.positions_A)}, {len(self.height)} and {len(inside)} "
                "entries; expected one of each per candidate"
            )

    def __len__(self) -> int:
        return len(self.height)

    def select(self, keep: ArrayLike) -> Peaks:
        """The candidates that a boolean mask (n,) or an index array picks, in that order."""
        chosen = np.arange(len(self))[np.asarray(keep)]
        return Peaks(
            self.positions_A[chosen], self.height[chosen], self.inside[chosen], self.blur_A, self.min_distance_A
        )


def trace(
    volume: ArrayLike,
    voxel_A: float,
    *,
    min_distance_A: float,
    blur_A: float | Literal["auto"] = "auto",
    particle: ArrayLike | None = None,
    iterations: int = 14,
    progress: Progress | None = None,
) -> Peaks:
    """Find the maxima of `volume` (z, y, x) and return their positions in Å about index n//2, strongest first.

    voxel_A: edge of a voxel. min_distance_A: no two atoms are nearer (centre to centre). blur_A: standard deviation of
    the Gaussian smoothing before the search, or "auto" (`automatic_blur`); the volume smoothed by 0.7 of it is searched
    for what is still missing. particle: boolean (z, y, x), where atoms may
    be; found by `find_particle` when not given. progress gets (iteration, iterations, largest move in voxels).
    ValueError for a volume that is not three-dimensional, empty, constant or not finite, or lengths that are not
    positive.
    """
    data = check_volume(volume, voxel_A)
    _check_lengths(min_distance_A, blur_A)
    mask = find_particle(data, voxel_A, min_distance_A) if particle is None else _check_mask(particle, data)
    blur = automatic_blur(data, voxel_A, min_distance_A, mask) if blur_A == "auto" else float(blur_A)
    reach = min_distance_A / voxel_A
    smooth = smoothed(data, blur / voxel_A)
    points, height, inside = _search(smooth, reach, mask, iterations, progress)
    if blur > 0:
        found = _search(smoothed(data, FINER * blur / voxel_A), reach, mask, iterations, None)
        points, height, inside = _joined((points, height, inside), found, smooth, reach)
    centre = np.array(data.shape) // 2
    peaks = Peaks((points - centre)[:, ::-1] * voxel_A, height, inside, blur, float(min_distance_A))
    log.info("%d candidates inside the particle, %d outside; blur %.3f Å", inside.sum(), (~inside).sum(), blur)
    return peaks.select(np.argsort(-height, kind="stable"))


def _search(
    smooth: NDArray, reach: float, mask: NDArray[np.bool_], iterations: int, progress: Progress | None
) -> Candidates:
    """Points (n, 3) in voxels, heights and whether inside, of the maxima of one smoothed volume `reach` apart."""
    start = _thinned(*_maxima(smooth), 0.7 * reach)
    if not len(start):
        raise ValueError("volume has no positive maximum; atoms must be bright on a background near zero")
    start, inside = _sample_outside(start, mask, seen_by_all_tilts(smooth.shape))
    points, height, good = fit_maxima(smooth, start, iterations=iterations, progress=progress)
    kept = np.flatnonzero(good)[suppress(points[good], height[good], reach)]
    return points[kept], height[kept], inside[kept]


def _joined(first: Candidates, finer: Candidates, smooth: NDArray, reach: float) -> Candidates:
    """The first candidates, and those of the finer volume that are `reach` away from all of them.

    A faint atom beside a bright one can be a shoulder of the smoothed volume and a maximum of the finer one. Its
    height is read off the first volume, so that all heights mean the same.
    """
    distance, _ = cKDTree(first[0]).query(finer[0]) if len(first[0]) else (np.full(len(finer[0]), np.inf), None)
    new = np.flatnonzero((distance >= reach) & finer[2])
    height = ndimage.map_coordinates(smooth, finer[0][new].T, order=1, mode="nearest", output=np.float64)
    return (
        np.concatenate([first[0], finer[0][new]]),
        np.concatenate([first[1], height]),
        np.concatenate([first[2], np.ones(len(new), dtype=bool)]),
    )


def check_volume(volume: ArrayLike, voxel_A: float) -> NDArray[np.floating]:
    """`volume` as float32 or float64; ValueError where it cannot be a volume of positive voxel size."""
    data = np.asarray(volume)
    data = data if data.dtype in (np.float32, np.float64) else data.astype(np.float64)
    if data.ndim != 3 or min(data.shape) < 5:
        raise ValueError(f"volume has shape {data.shape}; expected (z, y, x) with at least 5 voxels along every axis")
    if not np.isfinite(data).all():
        raise ValueError(f"volume has {np.count_nonzero(~np.isfinite(data))} voxels that are nan or infinite; mend it")
    if data.max() == data.min():
        raise ValueError(f"volume is empty: every voxel is {data.flat[0]}; check the reconstruction it comes from")
    if not (np.isfinite(voxel_A) and voxel_A > 0):
        raise ValueError(f"voxel_A is {voxel_A}; expected the edge of a voxel in Å, a positive number")
    return data


def _check_lengths(min_distance_A: float, blur_A: float | str) -> None:
    if not (np.isfinite(min_distance_A) and min_distance_A > 0):
        raise ValueError(f"min_distance_A is {min_distance_A}; expected the least distance of two atoms in Å")
    if blur_A != "auto" and (isinstance(blur_A, str) or not (np.isfinite(blur_A) and blur_A >= 0)):
        raise ValueError(f"blur_A is {blur_A!r}; expected 'auto' or a standard deviation in Å, zero or more")


def _check_mask(particle: ArrayLike, data: NDArray) -> NDArray[np.bool_]:
    mask = np.asarray(particle, dtype=bool)
    if mask.shape != data.shape or not mask.any():
        raise ValueError(f"particle has shape {mask.shape}, {mask.sum()} voxels set; expected {data.shape}, some set")
    return mask


def smoothed(data: NDArray, sigma_px: float) -> NDArray:
    """`data` convolved with a Gaussian of standard deviation `sigma_px` voxels."""
    return ndimage.gaussian_filter(data, sigma_px, mode="nearest") if sigma_px > 0 else data


def otsu(values: NDArray, bins: int = 256) -> float:
    """Threshold between two classes of `values` of greatest variance between them (doi:10.1109/TSMC.1979.4310076)."""
    count, edges = np.histogram(values, bins)
    middle = (edges[1:] + edges[:-1]) / 2
    below, moment = np.cumsum(count), np.cumsum(count * middle)
    above = below[-1] - below
    between = (moment[-1] * below - moment * below[-1]) ** 2 / np.maximum(below * above, 1)
    # Between two heaps with nothing in between every threshold is as good; the middle one is taken.
    return float(middle[between >= between.max() * (1 - 1e-12)].mean())


def find_particle(data: NDArray, voxel_A: float, min_distance_A: float) -> NDArray[np.bool_]:
    """Where atoms may be: the volume smoothed by the minimum distance, above 0.7 of Otsu's threshold, grown by it."""
    reach = min_distance_A / voxel_A
    dense = smoothed(data, reach)
    threshold = otsu(dense)
    empty = float(np.median(dense[dense <= threshold]))
    core = dense > empty + 0.7 * (threshold - empty)
    return ndimage.distance_transform_edt(~core) <= reach


def seen_by_all_tilts(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The elliptic cylinder about the tilt axis y, (z, 1, x): its corners are covered by few tilts and tell nothing."""
    z, x = (np.arange(n) - n // 2 for n in (shape[0], shape[2]))
    return ((z / (shape[0] / 2 - 1)) ** 2)[:, None, None] + ((x / (shape[2] / 2 - 1)) ** 2)[None, None, :] < 1


def automatic_blur(data: NDArray, voxel_A: float, min_distance_A: float, particle: NDArray[np.bool_]) -> float:
    """Smoothing (Å) that makes the atoms as wide as they may be and still stay apart at the minimum distance.

    Positions gain from smoothing until the peak is about as wide as the atom's own image allows (matched filter); what
    limits it is the neighbour. The width w of the strong maxima is measured from their curvature, and the blur b
    raised until w(b) = min_distance / 2.6; a volume that is wider than this already is not smoothed.
    """
    target = (min_distance_A / RESOLVED / voxel_A) ** 2
    low, high = 0.0, float(np.sqrt(target))
    if _peak_width_squared(data, particle) >= target:
        return 0.0
    for _ in range(6):
        middle = (low + high) / 2
        if _peak_width_squared(smoothed(data, middle), particle) < target:
            low = middle
        else:
            high = middle
    return (low + high) / 2 * voxel_A


def _peak_width_squared(smooth: NDArray, particle: NDArray[np.bool_]) -> float:
    """Median squared width (voxels²) of the maxima above half the strong ones, from height and second difference."""
    index, height = _maxima(smooth)
    kept = particle[tuple(index.T)]
    index, height = index[kept], height[kept]
    if not len(height):
        return np.inf
    strong = height > 0.5 * np.sort(height)[-min(10, len(height))]
    index, height = index[strong], height[strong]
    around = np.concatenate([np.eye(3, dtype=int), -np.eye(3, dtype=int)])
    beside = np.mean([smooth[tuple((index + step).T)] for step in around], axis=0)
    ratio = np.clip(beside / height, 1e-6, 1 - 1e-6)
    return float(np.median(-0.5 / np.log(ratio)))


def _maxima(smooth: NDArray) -> tuple[NDArray[np.int64], Array]:
    """Positive voxels that top their 26 neighbours, not on the faces of the volume: index (n, 3) and value."""
    top = (smooth == ndimage.maximum_filter(smooth, size=3, mode="nearest")) & (smooth > 0)
    index = np.argwhere(top[1:-1, 1:-1, 1:-1]) + 1
    return index, smooth[tuple(index.T)].astype(np.float64)


def _thinned(index: NDArray[np.int64], height: Array, distance: float) -> NDArray[np.int64]:
    return index[suppress(index.astype(np.float64), height, distance)]


def suppress(points: Array, height: Array, distance: float) -> NDArray[np.int64]:
    """Indices, strongest first, of the points (n, d) that no stronger kept point comes nearer to than `distance`."""
    n = len(points)
    pairs = (
        cKDTree(points).query_pairs(np.nextafter(distance, 0), output_type="ndarray") if n else np.zeros((0, 2), int)
    )
    near = sparse.csr_matrix((np.ones(len(pairs), bool), tuple(pairs.T)), shape=(n, n))
    near = (near + near.T).tocsr()
    dead = np.zeros(n, dtype=bool)
    kept = []
    for i in np.argsort(-height, kind="stable"):
        if not dead[i]:
            kept.append(i)
            dead[near.indices[near.indptr[i] : near.indptr[i + 1]]] = True
    return np.array(kept, dtype=np.int64)


def _sample_outside(
    index: NDArray[np.int64], particle: NDArray[np.bool_], covered: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Candidates inside the particle and an even sample, over their heights, of those in the covered empty part."""
    inside = particle[tuple(index.T)]
    outside = np.flatnonzero(~inside & covered[index[:, 0], 0, index[:, 2]])
    stride = -(-len(outside) // MAX_OUTSIDE) or 1
    chosen = np.concatenate([np.flatnonzero(inside), outside[::stride]])
    return index[chosen], inside[chosen]


@lru_cache(maxsize=1)
def _quartic() -> tuple[Array, Array]:
    """Sample offsets in voxels (m, 3) and the weighted least-squares fit (10, m): value, gradient, Hessian terms."""
    reach = np.arange(-int(FIT_RADIUS), int(FIT_RADIUS) + 1)
    grid = np.stack(np.meshgrid(reach, reach, reach, indexing="ij"), axis=-1).reshape(-1, 3)
    grid = grid[(grid**2).sum(axis=1) <= FIT_RADIUS**2]
    weight = np.exp(-(grid**2).sum(axis=1) / 18)
    powers = [(a, b, d - a - b) for d in range(5) for a in range(d, -1, -1) for b in range(d - a, -1, -1)]
    offsets = grid / OVERSAMPLING
    terms = np.stack([np.prod(offsets ** np.array(p), axis=1) for p in powers], axis=1)
    return offsets, (np.linalg.pinv(terms * weight[:, None]) * weight)[:10]


def fit_maxima(
    smooth: NDArray, start: NDArray[np.int64], *, iterations: int = 14, progress: Progress | None = None
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Move every candidate (n, 3) (z, y, x) to the maximum of the quartic fitted around it.

    Returns the points in voxels, the fitted heights, and which of them are positive and stayed near their start.
    """
    spline = ndimage.spline_filter(smooth, 3, mode="mirror", output=smooth.dtype)
    points, height = start.astype(np.float64), np.zeros(len(start))
    good = np.ones(len(start), dtype=bool)
    active = np.arange(len(start))
    for iteration in range(iterations):
        move, height[active] = _newton_step(spline, points[active])
        points[active] += move
        good[active] = (np.abs(points[active] - start[active]) <= MAX_DRIFT).all(axis=1)
        largest = float(np.abs(move).max(initial=0.0))
        if progress is not None:
            progress(iteration + 1, iterations, largest)
        active = active[good[active] & (np.abs(move) > 1e-4).any(axis=1)]
        if not len(active):
            break
    return points, height, good & (height > 0)


def _newton_step(spline: NDArray, points: Array, chunk: int = 20000) -> tuple[Array, Array]:
    """Step to the maximum of the local fit (n, 3) and the fitted height before the step."""
    offsets, fit = _quartic()
    fitted = np.empty((len(points), 10))
    for first in range(0, len(points), chunk):
        at = (points[first : first + chunk, None, :] + offsets).reshape(-1, 3).T
        values = ndimage.map_coordinates(spline, at, order=3, prefilter=False, mode="mirror", output=np.float64)
        fitted[first : first + chunk] = values.reshape(-1, len(offsets)) @ fit.T
    zz, zy, zx, yy, yx, xx = fitted[:, 4:].T
    hessian = np.stack([2 * zz, zy, zx, zy, 2 * yy, yx, zx, yx, 2 * xx], axis=1).reshape(-1, 3, 3)
    values, vectors = np.linalg.eigh(hessian)
    # Along an axis without curvature the step is clipped; the sign of |λ| makes it always uphill.
    along = np.einsum("nji,nj->ni", vectors, fitted[:, 1:4]) / np.maximum(np.abs(values), 1e-12)
    step = np.clip(np.einsum("nij,nj->ni", vectors, along), -MAX_MOVE, MAX_MOVE)
    return step, fitted[:, 0]
