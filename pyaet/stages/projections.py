"""The file both inputs lead to and the common road starts from: `projections.h5`, and `aligned.h5` after it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyaet.artifacts import Data, attribute, reading_h5, write_h5
from pyaet.io.errors import InputError


@dataclass(frozen=True)
class Projections:
    """Images (n, y, x) float32, their Euler angles (n, 3) in degrees, the pixel in Å and the unit of the values."""

    images: np.ndarray
    angles_deg: np.ndarray
    pixel_A: float
    unit: str


def write_projections(
    path: Path, value: Projections, key: str, data: dict[str, Data] | None = None, **attributes: Any
) -> None:
    """Write projections, with further datasets and attributes of the stage that made them."""
    own = {"projections": Data(value.images, value.unit), "angles_deg": Data(value.angles_deg, "deg")}
    write_h5(path, {**own, **(data or {})}, {"pixel_A": value.pixel_A, "unit": value.unit, **attributes}, key)


def read_projections(path: Path) -> Projections:
    """Read `projections.h5` or `aligned.h5`; an `InputError` names whatever does not fit."""
    with reading_h5(path, "projections", "angles_deg") as file:
        images = np.asarray(file["projections"], dtype=np.float32)
        angles_deg = np.asarray(file["angles_deg"], dtype=np.float64)
        pixel_A = float(attribute(file, "pixel_A"))
        unit = str(file.attrs.get("unit", ""))
    if images.ndim != 3 or angles_deg.shape != (len(images), 3):
        raise InputError(
            f"{path}: projections {images.shape} and angles_deg {angles_deg.shape}; expected (n, y, x) and (n, 3)"
        )
    if not (np.isfinite(images).all() and np.isfinite(angles_deg).all()):
        raise InputError(f"{path}: projections or angles_deg hold NaN or infinite values; expected finite numbers")
    if not pixel_A > 0:
        raise InputError(f"{path}: pixel_A is {pixel_A}; expected the pixel size in Å, a positive number")
    return Projections(images, angles_deg, pixel_A, unit)
