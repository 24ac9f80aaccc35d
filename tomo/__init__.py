"""Tomography: images of a particle at known tilts become conditioned, aligned projections, and these a volume.

Images (y, x), stacks (n, y, x), volumes (z, y, x); the beam runs along +z and the tilt axis is nominally y.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Bound at once, because these functions are named like the modules they live in; all of this is light.
from tomo.align import Alignment, align, share_axis
from tomo.baselines import fbp, sirt
from tomo.calibrate import Calibration, NoAtomsError, calibrate
from tomo.descent import Iteration, Reconstruction
from tomo.geometry import rotation
from tomo.projector import Projector
from tomo.quality import Quality, quality, strays, tilt_r
from tomo.resire import resire
from tomo.stopping import Stopping, chosen_iterations
from tomo.wedge import Wedge, sequence, wedge

if TYPE_CHECKING:
    from tomo.adf import Conditioned, condition_adf
    from tomo.align.axis import TiltAxis, tilt_axis

# Public names whose modules bring heavier packages: imported on first use.
_LAZY = {
    "Conditioned": "tomo.adf",
    "TiltAxis": "tomo.align.axis",
    "condition_adf": "tomo.adf",
    "tilt_axis": "tomo.align.axis",
}

__all__ = [
    "Alignment",
    "Calibration",
    "Conditioned",
    "Iteration",
    "NoAtomsError",
    "Projector",
    "Quality",
    "Reconstruction",
    "Stopping",
    "TiltAxis",
    "Wedge",
    "align",
    "calibrate",
    "chosen_iterations",
    "condition_adf",
    "fbp",
    "quality",
    "resire",
    "rotation",
    "sequence",
    "share_axis",
    "sirt",
    "strays",
    "tilt_axis",
    "tilt_r",
    "wedge",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
