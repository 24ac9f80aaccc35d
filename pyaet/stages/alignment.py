"""Projections to aligned, equally bright projections (`tomo.align`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pyaet.artifacts import Data
from pyaet.io.errors import told_of
from pyaet.plan import Alignment
from pyaet.stages.context import Context
from pyaet.stages.projections import Projections, read_projections, write_projections

MATCH_BLUR_A = 0.4
"""About the width of an atom's image: what is finer is noise when images are matched."""

FEW_TILTS = 15
"""Below this many tilts a volume of atoms is doubtful whatever its noise."""


def align(source: Path, target: Path, settings: Alignment, context: Context) -> dict[str, Any]:
    """Align `projections.h5` into `aligned.h5`; return the stage's numbers."""
    import tomo

    given = read_projections(source)
    with told_of(source), context.console.task("alignment") as progress:
        result = tomo.align(
            given.images,
            given.angles_deg,
            **settings.model_dump(),
            match_blur_px=MATCH_BLUR_A / given.pixel_A,
            progress=progress,
        )
    shifts_A = result.shifts_px * given.pixel_A
    data = {
        "shifts_A": Data(shifts_A, "Å"),
        "scales": Data(result.scales, ""),
        "backgrounds": Data(result.backgrounds, given.unit),
    }
    value = Projections(result.projections, given.angles_deg, given.pixel_A, given.unit)
    write_projections(target, value, context.key, data)
    theta = np.unique(np.round(given.angles_deg, 3), axis=0)
    few = (
        [f"{len(theta)} tilts are few for a volume: atoms may be missing or invented"] if len(theta) < FEW_TILTS else []
    )
    return {
        "warnings": few,
        "shift_rms_A": float(np.sqrt(np.mean(shifts_A**2))),
        "shift_max_A": float(np.abs(shifts_A).max()),
        "scale_spread": float(np.std(result.scales)),
    }
