"""4D-STEM tilt files: one HDF5 file holds the diffraction patterns of one tilt and the optics that made them.

Standard shapes: `counts` (scan_y, scan_x, ky, kx), unsigned integers, zero frequency at index n // 2; scan positions
(n, 2) as (y, x) in Å, one row per pattern in row-major scan order, about coordinate 0 of the particle. A file is
looked at (`inspect_tilt`) without reading its patterns, so a whole series is checked in well under a second.
"""

from __future__ import annotations

import glob
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import pyaet
from pyaet.artifacts import attribute, reading_h5, replacing
from pyaet.io.counts_on_disk import BlockReader, mapped
from pyaet.io.errors import InputError

SUFFIXES = (".h5", ".hdf5")
SCALARS = ("energy_eV", "semiangle_mrad", "defocus_A", "step_A", "pixel_mrad", "dose_e_per_A2")
ABERRATIONS = (
    "c12_A", "phi12_deg", "c21_A", "phi21_deg", "c23_A", "phi23_deg", "c30_A", "focal_spread_A", "source_size_A",
)  # fmt: skip
"""Attributes a file may have beside the required ones: what is known of the lens beyond its defocus."""
ANGLE_TOLERANCE_DEG = 0.01
Angles = Sequence[float] | Sequence[Sequence[float]] | Mapping[str, float]
_MOST_COUNTS = 2.0**32


@dataclass(frozen=True)
class Acquisition:
    """How one tilt was recorded: optics, scan step, detector pixel, dose and Euler angles (φ, θ, ψ) in degrees."""

    energy_eV: float
    semiangle_mrad: float
    defocus_A: float
    step_A: float
    pixel_mrad: float
    dose_e_per_A2: float
    angles_deg: tuple[float, float, float]


@dataclass(frozen=True)
class TiltFile(Acquisition):
    """One tilt on disk: its metadata, shape (scan_y, scan_x, ky, kx) and type of its counts, and where they are.

    aberrations: what is known of the lens beyond its defocus, by the names of `ABERRATIONS`.
    """

    path: Path
    shape: tuple[int, int, int, int]
    has_positions: bool = False
    aberrations: dict[str, float] = field(default_factory=dict)
    dtype: np.dtype = field(default_factory=lambda: np.dtype(np.uint16))

    @property
    def counts_bytes(self) -> int:
        """Size of the counts in memory."""
        return math.prod(self.shape) * self.dtype.itemsize


def inspect_tilt(path: str | Path) -> TiltFile:
    """Read and check everything of a tilt file except its patterns.

    Raises `InputError` when the file cannot be read, lacks an attribute, or holds values that make no physical sense.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected one .h5 tilt file")
    with reading_h5(path) as file:
        counts = _counts_dataset(file, path)
        acquisition = Acquisition(
            **{name: _scalar(file, path, name) for name in SCALARS}, angles_deg=_angles(file, path)
        )
        _check_acquisition(acquisition, counts.shape[-2:], str(path))
        if "positions_A" in file:
            given = file["positions_A"]
            kind = given.dtype if isinstance(given, h5py.Dataset) else None
            if kind is None or kind.kind not in "iuf":
                found = "is a group" if kind is None else f"holds {kind}"
                raise InputError(f"{path}: `positions_A` {found}; expected numbers in Å as (y, x)")
            _check_positions_shape(given.shape, counts.shape, str(path))
        return TiltFile(
            path=path,
            shape=tuple(counts.shape),
            has_positions="positions_A" in file,
            aberrations={name: _scalar(file, path, name) for name in ABERRATIONS if name in file.attrs},
            dtype=counts.dtype,
            **asdict(acquisition),
        )


def read_counts(tilt: TiltFile) -> np.ndarray:
    """Return the patterns of a tilt, (scan_y, scan_x, ky, kx), in the smallest unsigned integer type that holds them.

    Raises `InputError` when a count is negative, not finite or not a whole number.
    """
    with reading_h5(tilt.path) as file:
        counts = _read(_counts_dataset(file, tilt.path), ..., tilt.path)
    return _whole_counts(counts, str(tilt.path))


def _read(dataset: h5py.Dataset, rows: Any, path: Path) -> np.ndarray:
    try:
        return dataset[rows]
    except OSError as error:
        raise InputError(f"{path}: `counts` cannot be read ({error}); the file is damaged, copy it again") from error


@contextmanager
def opened_counts(tilt: TiltFile, resident_bytes: int | None = None) -> Iterator[Any]:
    """Yield the patterns of a tilt as a stack (n, ky, kx), the same numbers as those of `read_counts`.

    Up to `resident_bytes` (None: whatever their size) they are read whole, beyond it they stay on disk; see
    `pyaet.io.counts_on_disk`.
    """
    if resident_bytes is None or tilt.counts_bytes <= resident_bytes:
        yield read_counts(tilt).reshape(-1, *tilt.shape[2:])
        return
    with reading_h5(tilt.path) as file:
        dataset = _counts_dataset(file, tilt.path)
        stack = mapped(dataset, tilt.path) if dataset.dtype.kind == "u" else None
        yield BlockReader(dataset, _type_on_disk(dataset, tilt.path)) if stack is None else stack


def check_counts(tilt: TiltFile) -> None:
    """Raise `InputError` for counts that are no counts; unsigned integers cannot be wrong and are not read."""
    with reading_h5(tilt.path) as file:
        _type_on_disk(_counts_dataset(file, tilt.path), tilt.path)


def _type_on_disk(dataset: h5py.Dataset, path: Path) -> np.dtype:
    """The type `read_counts` would give the counts, found without holding more than a scan row of them."""
    if dataset.dtype.kind == "u":
        return dataset.dtype.newbyteorder("=")
    largest = max(
        int(_whole_counts(_read(dataset, y, path), str(path), row=y).max(initial=0)) for y in range(len(dataset))
    )
    return np.min_scalar_type(largest)


def positions_A(tilt: TiltFile) -> np.ndarray:
    """Return the scan positions (n, 2) as (y, x) in Å: the stored ones, else the grid with index n // 2 at 0."""
    if not tilt.has_positions:
        return scan_grid_A(tilt.shape[:2], tilt.step_A)
    with reading_h5(tilt.path) as file:
        positions = np.asarray(file["positions_A"][...], dtype=np.float64)
    if not np.isfinite(positions).all():
        row = int(np.argwhere(~np.isfinite(positions))[0, 0])
        raise InputError(f"{tilt.path}: `positions_A` row {row} is {positions[row]}; every position must be finite")
    return positions


def scan_grid_A(scan_shape: tuple[int, int], step_A: float) -> np.ndarray:
    """Return the positions (n, 2) as (y, x) in Å of a regular scan, row by row, with index n // 2 at coordinate 0."""
    y, x = ((np.arange(n) - n // 2) * step_A for n in scan_shape)
    return np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2)


def write_tilt(
    path: str | Path,
    counts: np.ndarray,
    *,
    energy_eV: float,
    semiangle_mrad: float,
    defocus_A: float,
    step_A: float,
    pixel_mrad: float,
    angles_deg: Sequence[float],
    dose_e_per_A2: float,
    positions_A: np.ndarray | None = None,
    key: str = "",
) -> TiltFile:
    """Write one tilt under a temporary name and move it into place, so that a file that exists is complete.

    `counts` (scan_y, scan_x, ky, kx) whole numbers, zero frequency at n // 2; `positions_A` (n, 2) as (y, x) in Å or
    None for the regular grid; `key` is kept as the attribute `made_by`, which tells a current file from a stale one. Raises
    `InputError` for whatever `inspect_tilt` or `read_counts` would refuse.
    """
    path = Path(path)
    counts = np.asarray(counts)
    _check_counts_shape(counts.shape, str(path))
    counts = _whole_counts(counts, str(path))
    acquisition = Acquisition(
        energy_eV, semiangle_mrad, defocus_A, step_A, pixel_mrad, dose_e_per_A2, _triple(angles_deg, str(path))
    )
    _check_acquisition(acquisition, counts.shape[-2:], str(path))
    if positions_A is not None:
        positions_A = np.asarray(positions_A, dtype=np.float64)
        _check_positions_shape(positions_A.shape, counts.shape, str(path))
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset("counts", data=counts, chunks=(1, *counts.shape[1:]), compression="gzip")
        if positions_A is not None:
            file["positions_A"] = positions_A
        file.attrs.update(asdict(acquisition) | {"made_by": key, "pyaet_version": pyaet.__version__})
    return inspect_tilt(path)


def list_tilts(
    source: str | Path | Sequence[str | Path],
    angles: Angles | None = None,
) -> list[TiltFile]:
    """Return the tilts of a series sorted by tilt angle θ, looked at but not read.

    `source` is a folder (all its .h5 files), a glob pattern, one file, or a list of these; `angles` picks tilts in
    degrees: a list of θ or of (φ, θ, ψ), or {start, stop, step} of θ with stop included. Raises `InputError` when
    nothing is found, when an asked tilt is missing, or when two files hold the same Euler angles.
    """
    tilts = [inspect_tilt(path) for path in _expand(source)]
    if angles is not None:
        tilts = _select(tilts, _wanted_deg(angles), source)
    tilts.sort(key=lambda tilt: (tilt.angles_deg[1], tilt.angles_deg[0], tilt.angles_deg[2]))
    for first, second in itertools.pairwise(tilts):
        if first.angles_deg == second.angles_deg:
            raise InputError(
                f"{first.path} and {second.path} hold the same tilt {first.angles_deg} degrees; "
                "name one of them, for example by a narrower pattern"
            )
    return tilts


def _expand(source: str | Path | Sequence[str | Path]) -> list[Path]:
    if not isinstance(source, (str, Path)):
        if not source:
            raise InputError("the list of 4D-STEM tilt files is empty; give at least one file, folder or pattern")
        return list(dict.fromkeys(path for entry in source for path in _expand(entry)))
    path = Path(source).expanduser()
    try:
        return _found(path)
    except PermissionError:
        raise InputError(f"{source}: permission denied; make the folder readable (chmod u+rx)") from None


def _found(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
        if not found:
            raise InputError(f"{path}: no .h5 file in this folder; 4D-STEM tilts are one .h5 file each")
        return found
    if not path.exists() and glob.has_magic(str(path)):
        found = sorted(Path(name) for name in glob.glob(str(path)))
        if not found:
            raise InputError(f"{path}: no file matches this pattern; check the folder and the wildcard")
        return found
    return [path]


def _wanted_deg(angles: Angles) -> list[tuple[float, ...]]:
    """Asked tilts as (θ,) or (φ, θ, ψ)."""
    if not isinstance(angles, Mapping):
        wanted = [tuple(np.atleast_1d(np.asarray(angle, dtype=np.float64)).tolist()) for angle in angles]
        if any(len(angle) not in (1, 3) for angle in wanted):
            raise InputError(f"angles is {list(angles)}; expected a list of tilts θ or of (φ, θ, ψ) in degrees")
        return wanted
    if set(angles) != {"start", "stop", "step"}:
        raise InputError(f"angles has the keys {sorted(angles)}; expected start, stop and step, or a list of degrees")
    start, stop, step = (float(angles[key]) for key in ("start", "stop", "step"))
    if step == 0 or (stop - start) / step < 0:
        raise InputError(f"angles from {start:g} to {stop:g} in steps of {step:g} is empty; turn the sign of the step")
    return [(start + i * step,) for i in range(math.floor((stop - start) / step + 1e-6) + 1)]


def _select(tilts: list[TiltFile], wanted_deg: list[tuple[float, ...]], source: object) -> list[TiltFile]:
    chosen: dict[Path, TiltFile] = {}
    missing = []
    for angle in wanted_deg:
        near = [tilt for tilt in tilts if _same_tilt(tilt, angle)]
        chosen.update({tilt.path: tilt for tilt in near})
        if not near:
            missing.append(" ".join(f"{value:g}" for value in angle))
    if missing:
        found = ", ".join(f"{angle:g}" for angle in sorted({tilt.angles_deg[1] for tilt in tilts}))
        raise InputError(f"{source}: no file holds the tilt {', '.join(missing)} degrees; the files found hold {found}")
    return list(chosen.values())


def _same_tilt(tilt: TiltFile, angle: tuple[float, ...]) -> bool:
    held = tilt.angles_deg if len(angle) == 3 else tilt.angles_deg[1:2]
    return all(abs(a - b) < ANGLE_TOLERANCE_DEG for a, b in zip(held, angle, strict=True))


def _counts_dataset(file: h5py.File, path: Path) -> h5py.Dataset:
    if not isinstance(file.get("counts"), h5py.Dataset):
        there = ", ".join(f"`{name}`" for name in file) or "nothing"
        raise InputError(f"{path}: no dataset `counts` (scan_y, scan_x, ky, kx); the file holds {there}")
    _check_counts_shape(file["counts"].shape, str(path))
    if file["counts"].dtype.kind not in "uif":
        raise InputError(f"{path}: `counts` holds {file['counts'].dtype}; expected unsigned integers")
    return file["counts"]


def _scalar(file: h5py.File, path: Path, name: str) -> float:
    value = np.asarray(attribute(file, name))
    if value.size != 1 or value.dtype.kind not in "uif":
        raise InputError(f"{path}: the attribute `{name}` is {value.tolist()!r}; expected one number")
    return float(value.reshape(()))


def _angles(file: h5py.File, path: Path) -> tuple[float, float, float]:
    return _triple(attribute(file, "angles_deg"), str(path))


def _triple(angles_deg: Any, where: str) -> tuple[float, float, float]:
    values = np.asarray(angles_deg)
    if values.shape != (3,) or values.dtype.kind not in "uif" or not np.isfinite(values).all():
        raise InputError(
            f"{where}: `angles_deg` is {values.tolist()!r}; expected the three finite Euler angles (φ, θ, ψ) in degrees"
        )
    phi, theta, psi = (float(value) for value in values)
    return phi, theta, psi


def _check_counts_shape(shape: tuple[int, ...], where: str) -> None:
    if len(shape) != 4 or 0 in shape:
        raise InputError(f"{where}: `counts` has shape {shape}; expected (scan_y, scan_x, ky, kx), none of them 0")


def _check_positions_shape(shape: tuple[int, ...], counts_shape: tuple[int, ...], where: str) -> None:
    expected = (counts_shape[0] * counts_shape[1], 2)
    if shape != expected:
        raise InputError(f"{where}: `positions_A` has shape {shape}; expected {expected}, one (y, x) per pattern")


def _check_acquisition(acquisition: Acquisition, detector: tuple[int, ...], where: str) -> None:
    for name in SCALARS:
        value = getattr(acquisition, name)
        if not math.isfinite(value) or (name != "defocus_A" and value <= 0):
            kind = "a finite number" if name == "defocus_A" else "a positive finite number"
            raise InputError(f"{where}: `{name}` is {value:g}; expected {kind}")
    energy, semiangle = acquisition.energy_eV, acquisition.semiangle_mrad
    if energy < 1e3:
        raise InputError(f"{where}: `energy_eV` is {energy:g}; did you mean {energy:g}e3?")
    if energy > 5e6:
        raise InputError(f"{where}: `energy_eV` is {energy:g}, above 5 MeV; energies are given in eV")
    if semiangle < 0.1:
        raise InputError(f"{where}: `semiangle_mrad` is {semiangle:g}; did you mean {semiangle * 1e3:g} (in mrad)?")
    if semiangle > 300:
        raise InputError(f"{where}: `semiangle_mrad` is {semiangle:g}, above 300 mrad; angles of optics are in mrad")
    reach = acquisition.pixel_mrad * max(detector) / 2
    if reach < semiangle:
        raise InputError(
            f"{where}: `pixel_mrad` {acquisition.pixel_mrad:g} lets a detector of {max(detector)} pixels reach "
            f"{reach:.3g} mrad only, less than the semiangle of {semiangle:g} mrad; check its unit"
        )


def _whole_counts(counts: np.ndarray, where: str, row: int | None = None) -> np.ndarray:
    """Counts in the smallest unsigned type that holds them; `row`: the scan row they are, where they are not a whole scan."""
    if counts.dtype.kind not in "uif":
        raise InputError(f"{where}: `counts` holds {counts.dtype}; expected unsigned integers")
    for fault, what in (
        (lambda: ~np.isfinite(counts) if counts.dtype.kind == "f" else np.False_, "not finite"),
        (lambda: counts < 0 if counts.dtype.kind != "u" else np.False_, "negative"),
        (lambda: counts != np.floor(counts) if counts.dtype.kind == "f" else np.False_, "not a whole number"),
        (lambda: counts > _MOST_COUNTS if counts.dtype.kind == "f" else np.False_, "more than any detector counts"),
    ):
        bad = fault()
        if np.any(bad):
            index = tuple(int(i) for i in np.argwhere(bad)[0])
            place = index if row is None else (row, *index)
            raise InputError(
                f"{where}: `counts` at {place} is {counts[index]}, {what}; expected raw electron counts, "
                "without gain or background correction"
            )
    if counts.dtype.kind == "u":
        return counts.astype(counts.dtype.newbyteorder("="), copy=False)
    return counts.astype(np.min_scalar_type(int(counts.max())))
