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
    numbers: dict[str, Any] = {}
    doubts = _few_tilts(given.angles_deg)
    angles_deg = given.angles_deg
    if settings.tilt_axis == "search":
        angles_deg = _about_axis_found(source, given, numbers, doubts)
    if settings.common_line and not tomo.share_axis(angles_deg):
        settings = settings.model_copy(update={"common_line": False})
        doubts.append("the tilts share no axis, φ or ψ differ by more than 1°: the common line was left out")
    result = _aligned(source, replace(given, angles_deg=angles_deg), settings, context)
    data, found = {}, None
    if settings.calibrate and min_distance_A is not None:
        found = _calibrated(source, result.projections, angles_deg, min_distance_A / given.pixel_A, context, doubts)
    if found is not None:
        numbers |= _calibration_numbers(found, angles_deg)
        doubts += _doubts(found, angles_deg)
        if _is_known(found, angles_deg):
            result, angles_deg = _recalibrated(result, found), found.angles_deg
            data["angle_sigma_deg"] = Data(found.angle_sigma_deg, "deg")
    if angles_deg is not given.angles_deg:
        data["given_angles_deg"] = Data(given.angles_deg, "deg")
    shifts_A = result.shifts_px * given.pixel_A
    data |= {
        "shifts_A": Data(shifts_A, "Å"),
        "scales": Data(result.scales, ""),
        "backgrounds": Data(result.backgrounds, given.unit),
    }
    write_projections(target, Projections(result.projections, angles_deg, given.pixel_A, given.unit), context.key, data)
    return numbers | {
        "warnings": doubts,
        "shift_rms_A": float(np.sqrt(np.mean(shifts_A**2))),
        "shift_max_A": float(np.abs(shifts_A).max()),
        "scale_spread": float(np.std(result.scales)),
    }


def _few_tilts(angles_deg: np.ndarray) -> list[str]:
    count = len(np.unique(np.round(angles_deg, 3), axis=0))
    return [f"{count} tilts are few for a volume: atoms may be missing or invented"] if count < FEW_TILTS else []


def _about_axis_found(source: Path, given: Projections, numbers: dict[str, Any], doubts: list[str]) -> np.ndarray:
    """The angles (n, 3) with the tilt axis that the images show, or as given where they show none."""
    import tomo

    with told_of(source):
        axis = tomo.tilt_axis(given.images)
    numbers |= {
        "tilt_axis_deg": axis.direction_deg,
        "tilt_axis_error_deg": axis.error_deg,
        "tilt_axis_contrast": axis.contrast,
        "tilt_axis_note": "if the axis points the other way (φ + 180°), the atoms are mirrored; no image can tell",
    }
    if not axis.clear:
        doubts.append(
            f"the images do not show about which axis they were tilted ({axis.direction_deg:.3g} ± {axis.error_deg:.2g}°, contrast "
            f"{axis.contrast:.2f}): it is left as given"
        )
        return given.angles_deg
    angles_deg = given.angles_deg.copy()
    # Of the two ends of the axis the one nearer to where it was said to be: the hand of the specimen hangs on it.
    said = angles_deg[:, 0].mean()
    angles_deg[:, 0] = axis.direction_deg + 180.0 * np.round((said - axis.direction_deg) / 180.0)
    return angles_deg


def _aligned(source: Path, given: Projections, settings: Alignment, context: Context) -> tomo.Alignment:
    import tomo

    with told_of(source), context.console.task("alignment") as progress:
        return tomo.align(
            given.images,
            given.angles_deg,
            **settings.model_dump(exclude={"calibrate", "tilt_axis"}),
            match_blur_px=MATCH_BLUR_A / given.pixel_A,
            progress=progress,
        )


def _calibrated(
    source: Path,
    images: np.ndarray,
    angles_deg: np.ndarray,
    min_distance_px: float,
    context: Context,
    doubts: list[str],
) -> tomo.Calibration | None:
    """The calibration, or None and a doubt where the images show too few atoms for one."""
    import tomo

    try:
        with told_of(source), context.console.task("calibration", "turn°") as progress:
            return tomo.calibrate(
                images, angles_deg, min_distance_px=min_distance_px, progress=progress, threads=context.workers
            )
    except InputError as error:
        if not isinstance(error.__cause__, tomo.NoAtomsError):
            raise
        doubts.append(f"the tilts are not calibrated: {error.__cause__}")
        return None


def _recalibrated(aligned: tomo.Alignment, found: tomo.Calibration) -> tomo.Alignment:
    """The alignment with what calibration found beyond it: images moved once more, scales and backgrounds put together."""
    return replace(
        aligned,
        projections=found.applied(aligned.projections),
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
        "calibration_used": _is_known(found, given_deg),
    }


def _change_and_error(found: tomo.Calibration, given_deg: np.ndarray) -> tuple[float, float]:
    """Rms of the turns about each axis and of their standard errors, in degrees."""
    from tomo.calibrate.tilts import turns_between
    from tomo.geometry import rotation

    turns = turns_between(rotation(found.angles_deg), rotation(given_deg))
    return float(np.sqrt((turns**2).mean())), float(np.sqrt((found.angle_sigma_deg**2).mean()))


def _is_known(found: tomo.Calibration, given_deg: np.ndarray) -> bool:
    """Whether the refined angles can be told from the given ones."""
    change, sigma = _change_and_error(found, given_deg)
    return change >= WITHIN_ERRORS * sigma


def _doubts(found: tomo.Calibration, given_deg: np.ndarray) -> list[str]:
    """What a user should know before trusting the refined angles."""
    said = []
    if not found.converged:
        said.append(
            f"the tilt angles did not settle: the last of {len(found.turns_deg)} volumes still turned them by "
            f"{found.turns_deg[-1]:.2g}° rms; the start may be too far off"
        )
    if not _is_known(found, given_deg):
        change, sigma = _change_and_error(found, given_deg)
        said.append(
            f"the refined angles differ from the given ones by {change:.2g}° rms, their errors are {sigma:.2g}°: the images cannot "
            "better the given angles, which are kept, shifts and scales with them"
        )
    if found.strays:
        named = ", ".join(f"{given_deg[k, 1]:+.4g}°" for k in found.strays)
        said.append(
            f"the images at {named} fit worse than the others with the refined angles: look at them, or leave them out"
        )
    return said
