"""What the patterns themselves say about the experiment, before anything is reconstructed.

found = calibrate(counts, positions_A, pixel_mrad, optics, scan_shape)
patterns, optics = corrected(counts, positions_A, optics, found)
...
image = to_scan_frame(phase, found.rotation_deg, found.transposed)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ptycho.calibrate.aperture import measured_aperture

if TYPE_CHECKING:
    from ptycho.calibrate.calibration import Calibration, calibrate
    from ptycho.calibrate.correct import corrected
    from ptycho.calibrate.descan import Descan, centred, measure_descan
    from ptycho.calibrate.disk import Disk, measure_disk
    from ptycho.calibrate.dose import Dose, measure_dose
    from ptycho.calibrate.faults import Repaired, repair
    from ptycho.calibrate.frame import Frame, centre_of_mass, measure_frame, to_scan_frame
    from ptycho.calibrate.overlap import Illumination, frame_matrix
    from ptycho.calibrate.parallax import Parallax, measure_parallax

# A reconstruction needs none of these: scipy's optimisers and filters are imported on first use.
_LAZY = {
    "calibration": ("Calibration", "calibrate"),
    "correct": ("corrected",),
    "descan": ("Descan", "centred", "measure_descan"),
    "disk": ("Disk", "measure_disk"),
    "dose": ("Dose", "measure_dose"),
    "frame": ("Frame", "centre_of_mass", "measure_frame", "to_scan_frame"),
    "overlap": ("Illumination", "frame_matrix"),
    "parallax": ("Parallax", "measure_parallax"),
    "faults": ("Repaired", "repair"),
}

__all__ = [
    "Calibration",
    "Descan",
    "Disk",
    "Dose",
    "Frame",
    "Illumination",
    "Parallax",
    "Repaired",
    "calibrate",
    "centre_of_mass",
    "centred",
    "corrected",
    "frame_matrix",
    "measure_descan",
    "measure_disk",
    "measure_dose",
    "measure_frame",
    "measure_parallax",
    "measured_aperture",
    "repair",
    "to_scan_frame",
]


def __getattr__(name: str) -> Any:
    for module, names in _LAZY.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
