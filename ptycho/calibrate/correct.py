"""Apply a calibration: patterns and optics that a reconstruction can take as they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ptycho.calibrate.calibration import Calibration
from ptycho.calibrate.descan import centred
from ptycho.calibrate.overlap import frame_matrix
from ptycho.data import Patterns
from ptycho.optics import Optics


def corrected(
    counts: np.ndarray, positions_A: np.ndarray, optics: Optics, calibration: Calibration
) -> tuple[Patterns, Optics]:
    """Good patterns, centred, masked and in the frame of the detector, and the optics they were taken with.

    counts (n, ky, kx) and positions_A (n, 2) are those that were calibrated. Where nothing is wrong the counts are handed on
    without a copy. The relative dose of the patterns that are returned is `calibration.scales[calibration.kept]`; the object
    lies in the frame of the detector and comes back with `to_scan_frame(image, rotation_deg, transposed)`.
    """
    kept, mask = calibration.kept, calibration.mask
    moved = bool(np.rint(calibration.centres_px[kept]).any())
    invalid = counts.dtype.kind != "u" and not counts.min() >= 0
    if moved or invalid or not (kept.all() and mask.all()):
        counts, mask = centred(counts, mask, calibration.centres_px, kept)
    positions = np.asarray(positions_A, np.float64)[kept]
    if calibration.rotation_deg or calibration.transposed:
        positions = positions @ frame_matrix(calibration.rotation_deg, calibration.transposed).T
    patterns = Patterns(counts, positions, calibration.pixel_mrad, None if mask.all() else mask)
    return patterns, replace(optics, defocus_A=calibration.defocus_A)
