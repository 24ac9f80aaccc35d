"""Projections to aligned, equally bright projections (`tomo.align`), on request with refined angles
(`tomo.calibrate`)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyaet.artifacts import Data
from pyaet.io.errors import InputError, told_of
from pyaet.plan import Alignment
from pyaet.stages.context import Context
from pyaet.stages.projections import Projections, read_projections, write_projections

if TYPE_CHECKING:
    import tomo

MATCH_BLUR_A = 0.4
"""About the width of an atom's image: what is finer is noise when images are matched."""

WITHIN_ERRORS = 2.0
"""Refined angles that differ by less than so many of their errors are no better than the given ones."""

FEW_TILTS = 15
"""Below this many tilts a volume of atoms is doubtful whatever its noise."""


def align(
    source: Path, target: Path, settings: Alignment, context: Context, min_distance_A: float | None = None
) -> dict[str, Any]:
    """Align `projections.h5` into `aligned.h5`; return the stage's numbers. `min_distance_A` is needed to calibrate."""
    import tomo

    given = read_projections(source)
    if settings.calibrate and min_distance_A is None:
        raise InputError("calibrate is true without a least distance of two atoms; expected --min-distance-A in Å")
    with told_of(source), context.console.task("alignment") as progress:
        result = tomo.align(
            given.images,
            given.angles_deg,
            **settings.model_dump(exclude={"calibrate"}),
            match_blur_px=MATCH_BLUR_A / given.pixel_A,
            progress=progress,
        )
    calibration = None
    if settings.calibrate and min_distance_A is not None:
        with told_of(source), context.console.task("calibration", "turn°") as progress:
            calibration = tomo.calibrate(
                result.projections,
                given.angles_deg,
                min_distance_px=min_distance_A / given.pixel_A,
                progress=progress,
                threads=context.workers,
            )
        result = _recalibrated(result, calibration)
    shifts_A = result.shifts_px * given.pixel_A
    data = {
        "shifts_A": Data(shifts_A, "Å"),
        "scales": Data(result.scales, ""),
        "backgrounds": Data(result.backgrounds, given.unit),
    }
    angles_deg = given.angles_deg
    if calibration is not None:
        angles_deg = calibration.angles_deg
        data["given_angles_deg"] = Data(given.angles_deg, "deg")
        data["angle_sigma_deg"] = Data(calibration.angle_sigma_deg, "deg")
    write_projections(target, Projections(result.projections, angles_deg, given.pixel_A, given.unit), context.key, data)
    theta = np.unique(np.round(given.angles_deg, 3), axis=0)
    few = (
        [f"{len(theta)} tilts are few for a volume: atoms may be missing or invented"] if len(theta) < FEW_TILTS else []
    )
    numbers: dict[str, Any] = {
        "warnings": few,
        "shift_rms_A": float(np.sqrt(np.mean(shifts_A**2))),
        "shift_max_A": float(np.abs(shifts_A).max()),
        "scale_spread": float(np.std(result.scales)),
    }
    if calibration is not None:
        numbers |= _calibration_numbers(calibration, given.angles_deg)
        numbers["warnings"] = [*few, *_doubts(calibration, given.angles_deg)]
    return numbers


def _recalibrated(aligned: tomo.Alignment, found: tomo.Calibration) -> tomo.Alignment:
    """The alignment with what calibration found beyond it: images moved once more, scales and backgrounds put together."""
    from tomo.align.shift import shifted

    scale, level = (a.astype(np.float32)[:, None, None] for a in (found.scales, found.backgrounds))
    even = (aligned.projections - level) / scale
    return replace(
        aligned,
        projections=np.stack([shifted(image, -shift) for image, shift in zip(even, found.shifts_px, strict=True)]),
        shifts_px=aligned.shifts_px - found.shifts_px,
        scales=aligned.scales / found.scales,
        backgrounds=aligned.backgrounds + found.backgrounds / aligned.scales,
    )


def _calibration_numbers(found: tomo.Calibration, given_deg: np.ndarray) -> dict[str, Any]:
    change = found.angles_deg - given_deg
    return {
        "angle_change_rms_deg": float(np.sqrt((change**2).sum(axis=1).mean())),
        "angle_change_max_deg": float(np.abs(change).max()),
        "angle_sigma_deg": float(np.median(found.angle_sigma_deg)),
        "calibration_volumes": len(found.turns_deg),
        "calibration_settled": found.converged,
    }


def _doubts(found: tomo.Calibration, given_deg: np.ndarray) -> list[str]:
    """What a user should know before trusting the refined angles."""
    said = []
    if not found.converged:
        said.append(
            f"the tilt angles did not settle: the last of {len(found.turns_deg)} volumes still turned them by "
            f"{found.turns_deg[-1]:.2g}° rms; the start may be too far off"
        )
    change, sigma = (float(np.sqrt((a**2).mean())) for a in (found.angles_deg - given_deg, found.angle_sigma_deg))
    if change < WITHIN_ERRORS * sigma:
        said.append(
            f"the refined angles differ from the given ones by {change:.2g}° rms, their errors are {sigma:.2g}°: the images cannot "
            "better the angles given, leave calibrate off"
        )
    if found.strays:
        named = ", ".join(f"{given_deg[k, 1]:+.4g}°" for k in found.strays)
        said.append(
            f"the images at {named} fit worse than the others with the refined angles: look at them, or leave them out"
        )
    return said
