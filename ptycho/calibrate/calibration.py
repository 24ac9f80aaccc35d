"""Wrong inputs of a tilt, found in its patterns before anything is reconstructed.

The order follows from what each step needs: detector faults, the disk and its movement over the scan, the dose, and last
the images in the disk, which tell defocus, rotation and handedness. Everything carries a standard deviation; `verdict` says
which deviations from the stated values are large enough to be corrected.

Standard shapes: counts (n, ky, kx) in the order of the acquisition, positions_A (n, 2) (y, x).
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace

import numpy as np

from ptycho.calibrate import verdict
from ptycho.calibrate.blocks import grouped_means, project
from ptycho.calibrate.descan import Descan, centred, measure_descan
from ptycho.calibrate.disk import Disk, centred_grid, measure_disk
from ptycho.calibrate.dose import Dose, measure_dose
from ptycho.calibrate.faults import repair
from ptycho.calibrate.overlap import measure_overlap, scan_frequencies, super_pixels
from ptycho.calibrate.parallax import Parallax, measure_parallax
from ptycho.feasible import check_feasible
from ptycho.findings import Finding
from ptycho.optics import Optics

log = logging.getLogger(__name__)

_MARGIN_PX = 1.5
_LEAST_DARK_AREA = 0.5
_LEAST_SCAN = 8


@dataclass(frozen=True, eq=False)
class Calibration:
    """What holds for a tilt: stated values where the data agree with them, measured ones where they do not.

    mask: (ky, kx) bool of the detector as it was read, True = good. kept: (n,) bool, True = good pattern.
    centres_px: (n, 2) centre of the disk of each pattern (y, x) about index n // 2.
    pixel_mrad, defocus_A: to be used; pixel_sigma_mrad, defocus_sigma_A of the measured ones, nan when not measured.
    rotation_deg, transposed: positions in the frame of the detector are M r, see `frame_matrix`; 0 and False when the stated
        frame stands. rotation_sigma_deg: of the measured rotation, nan when not measured.
    scales: (n,) relative dose, mean 1, or None when it does not drift.
    disk, descan, parallax, dose: the measurements themselves; None where nothing could be measured.
    findings: what differs from the stated values; empty when nothing does.
    """

    mask: np.ndarray
    kept: np.ndarray
    centres_px: np.ndarray
    pixel_mrad: float
    defocus_A: float
    rotation_deg: float = 0.0
    transposed: bool = False
    scales: np.ndarray | None = None
    pixel_sigma_mrad: float = math.nan
    defocus_sigma_A: float = math.nan
    rotation_sigma_deg: float = math.nan
    disk: Disk | None = None
    descan: Descan | None = None
    dose: Dose | None = None
    parallax: Parallax | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def remainder_px(self) -> tuple[float, float]:
        """Mean distance (y, x) of the disk from index n // 2 that stays after rolling by whole pixels."""
        left = (self.centres_px - np.rint(self.centres_px))[self.kept].mean(0)
        return float(left[0]), float(left[1])


def calibrate(
    counts: np.ndarray,
    positions_A: np.ndarray,
    pixel_mrad: float,
    optics: Optics,
    scan_shape: tuple[int, int] | None = None,
    mask: np.ndarray | None = None,
) -> Calibration:
    """Compare what was stated about a tilt with what its patterns say.

    counts: (n, ky, kx) integers or floats in the order of the acquisition, may lie on disk, may hold NaN, infinite and
        negative values. positions_A: (n, 2) (y, x). pixel_mrad, optics: as stated.
    scan_shape: (ny, nx) of a regular scan, needed for defocus, rotation and handedness. mask: (ky, kx) bool, True where
        the detector measured.
    Raises ValueError when the arguments do not fit together, or nothing can be made of the scan or the defocus.
    """
    positions_A = np.asarray(positions_A, np.float64)
    _check(counts, positions_A, scan_shape, mask)
    check_feasible(positions_A, pixel_mrad, optics)
    clean = repair(counts, mask)
    findings = list(clean.findings)
    stated = Calibration(clean.mask, clean.kept, np.zeros((len(counts), 2)), pixel_mrad, optics.defocus_A)
    disk = measure_disk(clean.mean, clean.mask, int(clean.kept.sum()))
    if disk is None:
        sentence = (
            "the mean pattern shows no bright-field disk: centre, pixel size, frame and defocus were not measured."
        )
        return replace(stated, findings=(*findings, Finding(verdict.NOT_MEASURED, sentence)))
    descan = measure_descan(clean.counts, clean.mask, clean.kept, positions_A, disk)
    centres = verdict.centring(disk, descan, positions_A, findings)
    used, good = clean.counts, clean.mask
    if descan is not None and descan.significant:
        used, good = centred(used, good, centres)
        mean = grouped_means(used, np.where(clean.kept, 0, -1), (slice(None), slice(None)))[0]
        disk = measure_disk(mean, good, int(clean.kept.sum())) or disk
    pixel, pixel_sigma = verdict.detector_scale(disk, pixel_mrad, optics, findings)
    images = _images(used, good, disk, clean.totals)
    dose = measure_dose(images.totals, images.scattered, clean.kept, scan_shape)
    found = replace(
        stated,
        centres_px=centres,
        pixel_mrad=pixel,
        pixel_sigma_mrad=pixel_sigma,
        scales=verdict.drift(dose, findings),
        disk=disk,
        descan=descan,
        dose=dose,
    )
    found = _frame_and_defocus(found, images, positions_A, optics, scan_shape, findings)
    for finding in findings:
        log.info(finding.sentence)
    return replace(found, findings=tuple(findings))


@dataclass(frozen=True, eq=False)
class _Images:
    """Counts (n, pixel) of super-pixels of the disk at centres_px (2, pixel), of all good pixels and of the dark field, (n,);
    `sees_dark_field` when the detector reaches far enough beyond the disk."""

    values: np.ndarray
    centres_px: np.ndarray
    side_px: float
    totals: np.ndarray
    dark: np.ndarray
    sees_dark_field: bool

    @property
    def scattered(self) -> np.ndarray:
        """Share of the electrons in the dark field (n,)."""
        return self.dark / np.maximum(self.totals, 1.0)


def _images(counts: np.ndarray, mask: np.ndarray, disk: Disk, totals: np.ndarray) -> _Images:
    weights, centres, side = super_pixels(disk, mask)
    y, x = centred_grid(mask.shape, disk.centre_px)
    bright = mask & (np.hypot(y, x) < disk.radius_px + _MARGIN_PX)
    values = project(counts, np.concatenate([weights, bright[..., None]], -1))
    dark_area = (mask & ~bright).sum() / max(bright.sum(), 1)
    return _Images(values[:, :-1], centres, side, totals, totals - values[:, -1], bool(dark_area > _LEAST_DARK_AREA))


def _frame_and_defocus(
    now: Calibration,
    images: _Images,
    positions_A: np.ndarray,
    optics: Optics,
    scan_shape: tuple[int, int] | None,
    findings: list[Finding],
) -> Calibration:
    """The calibration with rotation, handedness and defocus from the images in the disk."""
    q = None if scan_shape is None or min(scan_shape) < _LEAST_SCAN else scan_frequencies(positions_A, scan_shape)
    if q is None or now.disk is None:
        sentence = (
            f"the positions are no regular grid of known shape, {_LEAST_SCAN} × {_LEAST_SCAN} or more: rotation, handedness "
            "and defocus were not measured."
        )
        findings.append(Finding(verdict.NOT_MEASURED, sentence))
        return now
    # Where the detector ends at the disk, the specimen shows in what is missing.
    dose = now.scales if now.scales is not None else np.ones(len(images.totals))
    overlap = measure_overlap(
        images.values / dose[:, None],
        images.centres_px,
        images.side_px,
        images.scattered if images.sees_dark_field else -images.totals / dose,
        now.kept,
        q,
        now.disk.radius_px,
        optics,
    )
    parallax = measure_parallax(overlap, optics.defocus_A)
    if parallax is None:
        sentence = (
            "the images in the disk do not tell one hand of the frame from the other (no structure, or that of a crystal): "
            "rotation, handedness and defocus were not measured."
        )
        findings.append(Finding(verdict.NOT_MEASURED, sentence))
        return now
    defocus, rotation, transposed = verdict.illumination(parallax, optics, findings)
    return replace(
        now,
        defocus_A=defocus,
        rotation_deg=rotation,
        transposed=transposed,
        defocus_sigma_A=parallax.defocus_sigma_A,
        rotation_sigma_deg=parallax.rotation_sigma_deg,
        parallax=parallax,
    )


def _check(
    counts: np.ndarray, positions_A: np.ndarray, scan_shape: tuple[int, int] | None, mask: np.ndarray | None
) -> None:
    if counts.ndim != 3 or 0 in counts.shape or counts.dtype.kind not in "uif":
        raise ValueError(
            f"counts is {counts.dtype} of shape {counts.shape}; expected numbers (n, ky, kx), flatten the scan axes into one."
        )
    if positions_A.shape != (len(counts), 2) or not np.isfinite(positions_A).all():
        raise ValueError(
            f"positions_A has shape {positions_A.shape}; expected finite ({len(counts)}, 2), one row (y, x) per pattern."
        )
    if scan_shape is not None and scan_shape[0] * scan_shape[1] != len(counts):
        raise ValueError(f"scan_shape is {scan_shape}; expected a product of {len(counts)}, the number of patterns.")
    if mask is not None and (mask.shape != counts.shape[1:] or mask.dtype != bool):
        raise ValueError(f"mask is {mask.dtype} of shape {mask.shape}; expected bool of {counts.shape[1:]}.")
