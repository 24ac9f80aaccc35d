"""ADF-STEM counts to projections: read, condition (`tomo.condition_adf`), write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pyaet.artifacts import Data
from pyaet.io.angles import match_angles, read_angles
from pyaet.io.errors import InputError, told_of
from pyaet.io.images import inspect_stack, read_stack
from pyaet.plan import Adf, AngleRange, Input
from pyaet.stages.context import Context
from pyaet.stages.projections import Projections, write_projections


def angle_spec(angles: Any) -> Any:
    """The `angles` of a plan in the form the readers take."""
    return angles.model_dump() if isinstance(angles, AngleRange) else angles


def checked_angles(source: Input) -> np.ndarray:
    """Euler angles (n, 3) of an ADF series in degrees, one row per image of its stack."""
    stack = inspect_stack(source.path, variable=source.variable, axes=source.axes, pixel_A=source.pixel_A)
    angles_deg = read_angles(angle_spec(source.angles), variable=source.angles_variable)
    match_angles(stack.shape[0], angles_deg, source.path, stack.file_shape)
    return angles_deg


def condition(source: Input, target: Path, settings: Adf, context: Context) -> dict[str, Any]:
    """Read the counts of `source`, condition them and write `projections.h5`; return the stage's numbers."""
    import tomo

    if source.pixel_A is None:
        raise InputError("input.pixel_A: missing; expected the pixel size of the images in Å")
    angles_deg = checked_angles(source)
    counts = read_stack(source.path, variable=source.variable, axes=source.axes, pixel_A=source.pixel_A, counts=True)
    with told_of(source.path), context.console.task("ADF images") as progress:
        result = tomo.condition_adf(counts, **settings.model_dump(), progress=progress)
    middle = int(np.argmin(np.abs(angles_deg[:, 1])))
    level = result.backgrounds
    even = level[:, :1, :1] if np.ptp(level, axis=(1, 2)).max() == 0 else level
    data = {
        "raw": Data(counts[middle].astype(np.float32), "counts"),
        "masks": Data(result.masks, ""),
        "backgrounds": Data(even, "electrons"),
        "gain": Data(result.gain, "counts/electron"),
        "read_noise": Data(result.read_noise, "counts"),
    }
    value = Projections(result.projections, angles_deg, source.pixel_A, "electrons")
    noise = float(np.sqrt(np.mean((result.read_noise / result.gain) ** 2)))
    write_projections(
        target,
        value,
        context.key,
        data,
        kind="adf",
        raw_index=middle,
        denoise=settings.denoise,
        read_noise_electrons=noise,
    )
    return {
        "tilts": len(counts),
        "image_px": list(counts.shape[1:]),
        "pixel_A": source.pixel_A,
        "gain_counts_per_electron": float(np.mean(result.gain)),
        "gain_spread": float(np.std(result.gain)),
        "read_noise_counts": float(np.mean(result.read_noise)),
        "background_electrons": float(np.mean(result.backgrounds)),
        "electrons_in_total": float((counts.sum(axis=(1, 2)) / result.gain).sum()),
        "denoiser": settings.denoise,
    }
