"""Tilt angles from files, lists and ranges, as intrinsic Euler angles (φ, θ, ψ) in degrees about z, y, x.

One number per tilt is θ, the rotation about the tilt axis y; φ and ψ are then 0.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pyaet.io.errors import InputError
from pyaet.io.images import open_array
from pyaet.io.source import readable_path

logger = logging.getLogger(__name__)

TEXT_SUFFIXES = (".txt", ".csv", ".dat", ".tlt", ".rawtlt", ".tsv")
AngleSpec = str | Path | Sequence[float] | Sequence[Sequence[float]] | Mapping[str, Any] | np.ndarray


def read_angles(spec: AngleSpec, *, variable: str | None = None) -> np.ndarray:
    """Return the tilt angles as (n, 3) float64: φ, θ, ψ in degrees.

    spec : path to a .mat, .h5, .npy, .txt, .csv, .tlt or .rawtlt file; a list of numbers (θ) or of triples (φ, θ, ψ);
        a mapping start, stop, step of θ, both ends included; or a mapping path, variable.
    variable : name in a .mat or .h5 file; may be left out where one array fits or one is named …angle….

    Arrays in files may be (n,), (n, 1), (1, n): θ; (n, 3) or (3, n): triples. (3, 3), (1, 3) and (3, 1) could be either
    and are refused. Raises InputError.
    """
    if isinstance(spec, Mapping):
        return _from_mapping(spec)
    if isinstance(spec, str | Path):
        path = readable_path(spec)
        return _checked(_as_triples(_read_file(path, variable), str(path)), str(path))
    return _checked(_from_list(spec), "angles")


def match_angles(n_images: int, angles_deg: np.ndarray, path: object, shape: tuple[int, ...] | None = None) -> None:
    """Raise InputError unless there is one row of angles (n, 3) per image.

    path : the file the images came from; shape : its shape in the file, to say which axis may hold the tilts.
    """
    n_angles = len(angles_deg)
    if n_angles == n_images:
        return
    fitting = [i for i, n in enumerate(shape or ()) if n == n_angles]
    advice = "give one angle per image"
    if fitting:
        advice = f"axis {fitting[0]} of the file, of shape {shape}, has that length: set `axes` so that n stands there"
    raise InputError(f"{path}: {n_images} images but {n_angles} tilt angles; {advice}")


def _read_file(path: Path, variable: str | None) -> np.ndarray:
    if path.is_dir():
        raise InputError(f"{path}: is a folder; expected a file of tilt angles")
    if path.suffix.lower() in TEXT_SUFFIXES:
        return _read_text(path)
    source = open_array(path, variable, _fits, "tilt angles (n,), (n, 1), (n, 3) or transposed", hint="angle")
    if source.dtype.kind not in "iuf":
        raise InputError(f"{path}: values of type {source.dtype}; expected tilt angles in degrees")
    return source.read().astype(np.float64)  # before any sign or trigonometry: angles are often stored as uint8


def _fits(shape: tuple[int, ...]) -> bool:
    return bool(shape) and len(shape) <= 2 and max(shape) > 1 and (len(shape) == 1 or not {1, 3}.isdisjoint(shape))


def _read_text(path: Path) -> np.ndarray:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not a text file; expected one tilt per line") from None
    rows: list[list[float]] = []
    header_allowed = True
    for number, line in enumerate(lines, 1):
        fields = line.split("#")[0].split("%")[0].replace(",", " ").replace(";", " ").split()
        if not fields:
            continue
        try:
            rows.append([float(field) for field in fields])
        except ValueError:
            if not header_allowed:
                raise InputError(f"{path}: line {number} reads '{line.strip()[:60]}'; expected numbers") from None
        header_allowed = False
    if not rows:
        raise InputError(f"{path}: no numbers found; expected one tilt per line: θ, or φ θ ψ, in degrees")
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise InputError(
            f"{path}: lines of {' and '.join(map(str, sorted(widths)))} numbers; expected the same in each"
        )
    return np.array(rows)


def _as_triples(values: np.ndarray, where: str) -> np.ndarray:
    if values.shape in ((3, 3), (1, 3), (3, 1)):
        raise InputError(
            f"{where}: angles of shape {values.shape} can be read in two ways; give them as a list in the plan: "
            "[θ1, θ2, …] or [[φ1, θ1, ψ1], …]"
        )
    if values.ndim == 1 or (values.ndim == 2 and 1 in values.shape):
        return _about_y(values.ravel())
    if values.ndim == 2 and 3 in values.shape:
        return values if values.shape[1] == 3 else values.T
    raise InputError(f"{where}: angles of shape {values.shape}; expected (n,), (n, 1), (1, n), (n, 3) or (3, n)")


def _about_y(theta_deg: np.ndarray) -> np.ndarray:
    zero = np.zeros(len(theta_deg))
    return np.stack([zero, theta_deg, zero], axis=1)


def _from_list(values: Sequence[Any] | np.ndarray) -> np.ndarray:
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError("angles: expected a list of numbers (θ) or of triples (φ, θ, ψ) in degrees") from None
    if array.ndim == 1 and array.size:
        return _about_y(array)
    if array.ndim == 2 and array.shape[1] == 3 and array.size:
        return array
    raise InputError(f"angles: a list of shape {array.shape}; expected n numbers (θ) or n triples (φ, θ, ψ) in degrees")


def _from_mapping(spec: Mapping[str, Any]) -> np.ndarray:
    keys = set(spec)
    if keys in ({"path"}, {"path", "variable"}):
        return read_angles(spec["path"], variable=spec.get("variable"))
    if keys != {"start", "stop", "step"}:
        raise InputError(
            f"angles: keys {', '.join(sorted(map(str, keys)))}; expected start, stop, step or path, variable"
        )
    try:
        start, stop, step = (float(spec[key]) for key in ("start", "stop", "step"))
    except (TypeError, ValueError):
        raise InputError(f"angles: start, stop, step are {dict(spec)}; expected numbers in degrees") from None
    if not np.isfinite([start, stop, step]).all() or step == 0:
        raise InputError(
            f"angles: from {start:g} to {stop:g} by {step:g}; expected finite numbers and a step other than 0"
        )
    steps = (stop - start) / step
    if steps < 0:
        raise InputError(f"angles: from {start:g} to {stop:g} by {step:g} leads away; turn the sign of step")
    if steps > 100_000 or abs(steps - round(steps)) > 1e-6 * max(1.0, steps):
        raise InputError(f"angles: from {start:g} to {stop:g} by {step:g} is {steps:g} steps; expected a whole number")
    return _checked(_about_y(start + step * np.arange(round(steps) + 1)), "angles")


def _checked(angles_deg: np.ndarray, where: str) -> np.ndarray:
    bad = np.flatnonzero(~np.isfinite(angles_deg).all(axis=1))
    if bad.size:
        raise InputError(
            f"{where}: {bad.size} of {len(angles_deg)} tilts are NaN or infinite, the first is tilt {bad[0]}"
        )
    largest = np.abs(angles_deg).max()
    if largest > 360:
        raise InputError(f"{where}: an angle of {largest:g}; expected degrees between -360 and 360")
    if len(angles_deg) > 9 and 0 < largest < 3.2:
        logger.warning("%s: all tilts are below %.3g degrees; are they in radians?", where, largest)
    return np.ascontiguousarray(angles_deg, dtype=np.float64)
