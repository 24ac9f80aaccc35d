"""From coarse to fine: a volume, its peaks, the adjustment, and again, until the tilts stay where they are."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomo.calibrate import Calibration, NoAtomsError
from tomo.calibrate.points import Adjusted, Points, adjust, misfit, peaks
from tomo.calibrate.search import sought
from tomo.calibrate.tilts import Tilts, in_gauge, turns_between
from tomo.geometry import rotation
from tomo.kernels import available_threads
from tomo.normalize import noise_variance
from tomo.resire import resire

log = logging.getLogger(__name__)

Array = NDArray[np.float64]

VOXELS_PER_DISTANCE = 2.5
"""Coarsest voxels in which two atoms still have a valley between them."""
ITERATIONS, ROUNDS = (20, 25), (12, 16)
"""Of RESIRE and of the adjustment, for coarse and fine volumes."""
SHARES = (0.6, 1.1)
"""Height of the lowest peaks in units of the median of the volume: few good ones suffice at first."""
PEAK_BLUR_PX = (0.7, 1.0)
COARSE_BLUR = 0.5
FEWEST_POINTS = 20
COARSE_SETTLED = 3.0
"""A coarse level has settled at this many times the tolerance."""
WIDTHS_PX = np.geomspace(0.8, 5.0, 12)
NOISE_BLUR_PX = 3.0
STRAY_SIGMAS, STRAY_RATIO = 6.0, 1.3


def settle(
    images: NDArray[np.float32],
    angles_deg: Array,
    min_distance_px: float,
    free: NDArray[np.bool_],
    volumes: int,
    tolerance_deg: float,
    progress: Callable[[int, int, float], None] | None,
    threads: int | None,
    xp: ModuleType,
) -> Calibration:
    """The work of `tomo.calibrate` on checked images (n, y, x) on the host; volumes are made where the arrays of xp live."""
    reference = rotation(angles_deg)
    threads = available_threads() if threads is None else threads
    weights = _weights(images)
    tilts, coarse, turns = Tilts.at(angles_deg), _coarsest(min_distance_px), []
    fine = coarse == 1
    for done in range(1, volumes + 1):
        adjusted = _once(images, weights, tilts, angles_deg, 1 if fine else coarse, free, tolerance_deg, threads, xp)
        strays = _strays(adjusted.chi2)
        # What is sought again is right to a fraction of a degree: only another volume can adjust it.
        sought_again = _found_again(images, adjusted, strays, free) if done < volumes else adjusted.tilts
        moved, _, _ = in_gauge(sought_again, reference)
        turns.append(_moved_deg(moved, tilts, images.shape[2]))
        tilts = moved
        log.info("volume %d, voxels of %d px: turned by %.4f° rms", done, 1 if fine else coarse, turns[-1])
        if progress is not None:
            progress(done, volumes, turns[-1])
        if fine and turns[-1] < tolerance_deg and not strays:
            break
        fine = fine or turns[-1] < COARSE_SETTLED * tolerance_deg or done == volumes - 2
    return Calibration(
        angles_deg=tilts.angles_deg(angles_deg),
        shifts_px=tilts.shifts_px[:, ::-1].copy(),
        scales=tilts.scales,
        backgrounds=tilts.backgrounds,
        angle_sigma_deg=np.degrees(adjusted.turn_sigma_rad),
        shift_sigma_px=adjusted.shift_sigma_px[:, ::-1].copy(),
        scale_sigma=adjusted.scale_sigma,
        background_sigma=adjusted.background_sigma,
        chi2=adjusted.chi2,
        strays=strays,
        turns_deg=tuple(turns),
        converged=bool(fine and turns[-1] < COARSE_SETTLED * tolerance_deg),
    )


def _moved_deg(after: Tilts, before: Tilts, width_px: int) -> float:
    """Rms turn in degrees; shifts are counted as the turn that moves the particle's rim, a quarter of the width off, as far."""
    turns = turns_between(after.rotations, before.rotations)
    shifts = np.degrees((after.shifts_px - before.shifts_px) / (width_px / 4))
    return float(np.sqrt((turns**2).sum(axis=1).mean() + (shifts**2).sum(axis=1).mean()))


def _found_again(
    images: NDArray[np.float32], adjusted: Adjusted, strays: tuple[int, ...], free: NDArray[np.bool_]
) -> Tilts:
    """The adjusted tilts, those gone astray sought anew."""
    tilts = adjusted.tilts.some(slice(None))
    for k in strays:
        again = sought(images[k], tilts.some(slice(k, k + 1)), adjusted.points, free)
        tilts.rotations[k], tilts.shifts_px[k] = again.rotations[0], again.shifts_px[0]
        log.info("tilt %d fits worse than the others and was sought again", k)
    return tilts


def _coarsest(min_distance_px: float) -> int:
    return max(1, int(min_distance_px / VOXELS_PER_DISTANCE))


def _once(
    images: NDArray[np.float32],
    weights: NDArray[np.float32],
    tilts: Tilts,
    angles_deg: Array,
    voxel_px: int,
    free: NDArray[np.bool_],
    tolerance_deg: float,
    threads: int,
    xp: ModuleType,
) -> Adjusted:
    """A volume with voxels of so many pixels, and the tilts adjusted with its peaks."""
    level = int(voxel_px == 1)
    small = coarsened(images - tilts.backgrounds[:, None, None].astype(np.float32), voxel_px)
    volume = resire(
        xp.asarray(small),
        tilts.angles_deg(angles_deg),
        iterations=ITERATIONS[level],
        momentum=True,
        subvoxels=(1, 1, 1),
        shifts_px=tilts.shifts_px[:, ::-1] / voxel_px,
        scales=tilts.scales,
        threads=threads,
    ).volume
    found = peaks(volume if xp is np else volume.get(), 1.0, PEAK_BLUR_PX[level], SHARES[level])
    if len(found.amplitudes) < FEWEST_POINTS:
        raise NoAtomsError(
            f"the volume shows {len(found.amplitudes)} separate peaks; expected at least {FEWEST_POINTS}: the images do not show "
            "atoms, or the angles are too far off."
        )
    points = Points(
        found.places_px * voxel_px, found.amplitudes, _width(images, weights, tilts, found, voxel_px, threads)
    )
    return adjust(
        images,
        weights,
        tilts,
        points,
        rounds=ROUNDS[level],
        tolerance_rad=np.radians(tolerance_deg) / 10,
        free=free,
        threads=threads,
    )


def coarsened(images: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    """Images (n, y, x) blurred and read at every so many pixels, coordinate 0 again at index n // 2."""
    if step == 1:
        return images
    blurred = ndimage.gaussian_filter(images, (0, COARSE_BLUR * step, COARSE_BLUR * step))
    rows, columns = (_read(n, step) for n in images.shape[1:])
    return np.ascontiguousarray(blurred[:, rows, columns])


def _read(n: int, step: int) -> slice:
    """Every so many indices of n, with n // 2 in their middle."""
    before, after = n // 2 // step, (n - 1 - n // 2) // step
    after = min(after, before)
    before = min(before, after + 1)
    return slice(n // 2 - before * step, n // 2 + after * step + 1, step)


def _width(
    images: NDArray[np.float32],
    weights: NDArray[np.float32],
    tilts: Tilts,
    found: Points,
    voxel_px: int,
    threads: int,
) -> float:
    """Width in px with which the points explain some of the images best."""
    some = np.unique(np.linspace(0, len(images) - 1, 5).astype(int))
    few = tilts.some(some)
    at = replace(found, places_px=found.places_px * voxel_px)
    chi2 = [misfit(images[some], weights[some], few, replace(at, sigma_px=float(s)), threads) for s in WIDTHS_PX]
    k = int(np.clip(np.argmin(chi2), 1, len(chi2) - 2))
    bend = chi2[k - 1] - 2 * chi2[k] + chi2[k + 1]
    part = 0.5 * (chi2[k - 1] - chi2[k + 1]) / bend if bend > 0 else 0.0
    return float(WIDTHS_PX[k] * (WIDTHS_PX[1] / WIDTHS_PX[0]) ** np.clip(part, -1, 1))


def _weights(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inverse variance of every pixel, from what neighbouring pixels differ by."""
    variance = ndimage.gaussian_filter(noise_variance(images), (0, NOISE_BLUR_PX, NOISE_BLUR_PX))
    # Where nothing was counted the variance is not zero, only small.
    floor = 0.01 * np.median(variance[variance > 0]) if (variance > 0).any() else 1.0
    return (1 / np.maximum(variance, floor)).astype(np.float32)


def _strays(chi2: Array) -> tuple[int, ...]:
    """Numbers of the tilts whose misfit stands out."""
    middle = np.median(chi2)
    spread = 1.4826 * np.median(np.abs(chi2 - middle))
    out = (chi2 > middle + STRAY_SIGMAS * spread) & (chi2 > STRAY_RATIO * middle)
    return tuple(np.flatnonzero(out).tolist())
