"""What is wrong with the stated numbers of a series, found in its patterns before anything is reconstructed.

Each tilt is calibrated by itself. Pixel, rotation and handedness belong to the microscope and must be the same for all tilts,
so they are changed only where most tilts ask for it, and then for all alike; what single tilts say beside that is told but
not done. Defocus, dose, descan and bad pixels are each tilt's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

import ptycho
from pyaet.io.errors import told_of
from pyaet.io.fourdstem import TiltFile, opened_counts, positions_A
from pyaet.memory import resident_bytes
from pyaet.plan import Ptychography
from pyaet.processes import in_processes

if TYPE_CHECKING:
    from ptycho.calibrate import Calibration

NOT_MEASURED = "not_measured"
"""Code of a finding that tells what could not be told: no fault of the data."""
_COMMON = {"pixel_mrad": "pixel_mrad", "rotation": "rotation_deg", "transposed": "transposed"}
"""Code of a finding of what all tilts share, and the field of a calibration it is about."""


@dataclass(frozen=True)
class CalibrationTask:
    """A tilt to be calibrated in another process; `resident_bytes` as for its reconstruction."""

    tilt: TiltFile
    resident_bytes: int | None = None


def optics_of(tilt: TiltFile) -> ptycho.Optics:
    """The lens as it was stated."""
    return ptycho.Optics(tilt.energy_eV, tilt.semiangle_mrad, tilt.defocus_A, **tilt.aberrations)


def calibrate_tilt(task: CalibrationTask) -> Calibration:
    """What the patterns of one tilt say about its stated numbers."""
    from ptycho.calibrate import calibrate

    tilt = task.tilt
    with opened_counts(tilt, task.resident_bytes) as counts, told_of(tilt.path):
        return calibrate(counts, positions_A(tilt), tilt.pixel_mrad, optics_of(tilt), tilt.shape[:2])


def made_common(found: Sequence[Calibration], tilts: Sequence[TiltFile]) -> list[Calibration]:
    """The calibrations with one pixel, one rotation and one handedness for all tilts, and one sign of the defocus."""
    ratio = _agreed(
        [one.pixel_mrad / tilt.pixel_mrad for one, tilt in zip(found, tilts, strict=True) if _asks(one, "pixel_mrad")],
        len(found),
        1.0,
    )
    transposed = bool(_agreed([1.0 for one in found if _asks(one, "transposed")], len(found), 0.0))
    # A mirrored scan is an exchange of y and x with a quarter turn, told as one finding.
    turned = [one for one in found if _asks(one, "rotation") or (transposed and _asks(one, "transposed"))]
    rotation = _agreed_angle([one.rotation_deg for one in turned], len(found))
    defocus = _agreed([one.defocus_A for one in found if _asks(one, "defocus")], len(found), math.nan)
    out = []
    for one, tilt in zip(found, tilts, strict=True):
        own = one.defocus_A
        if math.isnan(one.defocus_sigma_A):
            own = own if math.isnan(defocus) else defocus
        elif abs(_difference_deg(one.rotation_deg, rotation)) > 90:
            # A half turn of the scan and the other sign of the defocus explain the same patterns.
            own = -own
        pixel = tilt.pixel_mrad * ratio
        used = replace(one, pixel_mrad=pixel, rotation_deg=rotation, transposed=transposed, defocus_A=own)
        out.append(replace(used, findings=tuple(_as_used(finding, one, used) for finding in one.findings)))
    return out


def calibrated(tilts: Sequence[TiltFile], settings: Ptychography, workers: int) -> list[Calibration | None]:
    """The calibration of each tilt as it is to be used, None for all where none is asked for."""
    if settings.calibrate == "off":
        return [None] * len(tilts)
    limit = resident_bytes(min(workers, len(tilts)))
    tasks = [CalibrationTask(tilt, limit) for tilt in tilts]
    found = dict(in_processes(calibrate_tilt, tasks, workers))
    in_order = [found[i] for i in range(len(tilts))]
    if settings.calibrate == "report":
        return [not_applied(one) for one in in_order]
    return list(made_common(in_order, tilts))


def not_applied(found: Calibration) -> Calibration:
    """The calibration as a report: its findings say that nothing was done."""
    return replace(found, findings=tuple(_undone(finding) for finding in found.findings))


def _asks(one: Calibration, code: str) -> bool:
    return any(finding.code == code for finding in one.findings)


def _agreed(asked: Sequence[float], tilts: int, stated: float) -> float:
    """The median of what is asked for where most tilts ask, else what was stated."""
    return float(np.median(asked)) if 2 * len(asked) > tilts else stated


def _agreed_angle(asked_deg: Sequence[float], tilts: int) -> float:
    """`_agreed` for a rotation, whose median is taken about the mean direction."""
    mean = float(np.degrees(np.angle(np.exp(1j * np.radians(asked_deg)).sum()))) if len(asked_deg) else 0.0
    away = _agreed([_difference_deg(angle, mean) for angle in asked_deg], tilts, -mean)
    return _difference_deg(mean + away, 0.0)


def _difference_deg(a: float, b: float) -> float:
    """a − b in (−180, 180]."""
    return 180.0 - (180.0 - (a - b)) % 360.0


def _as_used(finding: ptycho.Finding, own: Calibration, used: Calibration) -> ptycho.Finding:
    """A finding about what all tilts share says so where the tilt's own value was not taken."""
    name = _COMMON.get(finding.code, "findings")
    if name == "findings" or _text(getattr(own, name)) == _text(getattr(used, name)):
        return finding
    taken = f"{finding.sentence} All tilts share one {name}: {_text(getattr(used, name))} was taken."
    return replace(finding, sentence=taken)


def _text(value: float | bool) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).lower()


def _undone(finding: ptycho.Finding) -> ptycho.Finding:
    if finding.code == NOT_MEASURED:
        return finding
    return replace(
        finding, sentence=f'would be put right with calibrate = "auto", nothing was changed: {finding.sentence}'
    )
