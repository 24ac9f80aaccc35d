"""What the pictures of a run are drawn from: small values read from the artifacts of a run directory.

Of large arrays only what is drawn is read: single images, the central row of every image, three slices of a volume. A
file that is absent is None; one that cannot be read, or lacks a dataset, raises `InputError` with one sentence.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyaet.artifacts import attribute, reading_h5
from pyaet.checkpoints import finished_tilts
from pyaet.io.errors import InputError

if TYPE_CHECKING:
    import h5py

# Stage, the file that shows that it is done.
STAGES_4DSTEM = (("ptychography", "projections.h5"),)
STAGES_ADF = (("adf", "projections.h5"),)
STAGES_COMMON = (
    ("alignment", "aligned.h5"),
    ("tomography", "volume.h5"),
    ("tracing", "candidates.h5"),
    ("refinement", "atoms.extxyz"),
    ("rings", "rings.json"),
)

NEARLY_Y = 0.98
_CURVES = {"all": "fsc", "x": "fsc_x", "y": "fsc_y", "z": "fsc_z"}


@dataclass(frozen=True)
class Ptychography:
    """Reconstructions of all tilts: losses of each; probe, pattern and pixel of the least tilted one; phases of three."""

    tilts_deg: np.ndarray
    losses: tuple[np.ndarray, ...]
    wall_s: float
    pixel_A: float
    object_shape: tuple[int, ...]
    probe: np.ndarray
    mean_pattern: np.ndarray | None
    shown: tuple[int, ...]
    phases: tuple[np.ndarray, ...]

    @property
    def detector_pixel_per_A(self) -> float:
        """Width of a detector pixel in Å⁻¹: the probe's window and the detector are Fourier conjugates."""
        return 1.0 / (self.probe.shape[-1] * self.pixel_A)


@dataclass(frozen=True)
class Projections:
    """Images at angles: one image, the central row of all, and where kept the unprocessed image or pattern of that tilt."""

    pixel_A: float
    unit: str
    tilts_deg: np.ndarray
    shape: tuple[int, ...]
    shown: int
    image: np.ndarray
    central_rows: np.ndarray
    raw: np.ndarray | None
    mean_pattern: np.ndarray | None


@dataclass(frozen=True)
class Alignment:
    """What alignment found for every image: shifts (n, 2) in Å as (y, x), scales (n,), backgrounds (n,)."""

    shifts_A: np.ndarray
    scales: np.ndarray
    backgrounds: np.ndarray


@dataclass(frozen=True)
class Volume:
    """Central slices of a volume at z = 0, y = 0, x = 0, and the R-factor (iterations,)."""

    voxel_A: float
    shape: tuple[int, ...]
    slices: tuple[np.ndarray, np.ndarray, np.ndarray]
    r_factor: np.ndarray


@dataclass(frozen=True)
class VolumeQuality:
    """What `volume.h5` tells about its worth; what was not asked for is None or empty.

    r_factor, r_free: over iterations. tilts_deg, tilt_r, unseen_r, plane_deg: (n,) of every tilt. stray_tilts: those that stand
    out. fsc: over frequency_per_A, for "all", "x", "y", "z". resolution_A: by the names of the attributes. about_y: whether the
    tilt axis is y.
    """

    r_factor: np.ndarray
    r_free: np.ndarray | None
    tilts_deg: np.ndarray
    tilt_r: np.ndarray | None
    unseen_r: np.ndarray | None
    stray_tilts: np.ndarray
    frequency_per_A: np.ndarray
    fsc: dict[str, np.ndarray]
    resolution_A: dict[str, float]
    plane_deg: np.ndarray | None
    wedge_deg: float
    about_y: bool


@dataclass(frozen=True)
class Fit:
    """A fit of counts: deviance of each tilt (n,) over that of noise, fitted and by the other half; likelihood gains (atoms,) and the
    least asked for; distances of the atoms of two halves over those stated (pairs,); counts and expectation (m, y, x) of the m
    tilts shown."""

    tilts_deg: np.ndarray
    deviance: np.ndarray
    held_out: np.ndarray | None
    gains: np.ndarray
    believed: float
    halves_ratio: np.ndarray | None
    shown: tuple[int, ...]
    counts: np.ndarray
    expected: np.ndarray
    pixel_A: float


@dataclass(frozen=True)
class Candidates:
    """Candidate sites: intensity (n,), label (n,) with -1 for a non-atom, elements, boundaries between classes."""

    intensity: np.ndarray
    label: np.ndarray
    elements: tuple[str, ...]
    boundaries: tuple[float, ...]


@dataclass(frozen=True)
class Model:
    """Atoms: positions (n, 3) in Å, symbols, and error bars and probabilities (n,) where known."""

    positions_A: np.ndarray
    symbols: tuple[str, ...]
    sigma_A: np.ndarray | None = None
    species_probability: np.ndarray | None = None

    def counts(self) -> dict[str, int]:
        return {symbol: self.symbols.count(symbol) for symbol in sorted(set(self.symbols))}


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, an empty one where there is no file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}); make it again") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: found a {type(value).__name__}; expected a JSON object")
    return value


def run_kind(directory: Path, summary: dict[str, Any]) -> str:
    """Return "4dstem" or "adf": what the summary says, else the plan, else what the folder holds."""
    if summary.get("kind"):
        return str(summary["kind"])
    try:
        return str(tomllib.loads((directory / "plan.toml").read_text())["input"]["kind"])
    except (OSError, ValueError, KeyError):
        return "4dstem" if (directory / "ptychography").is_dir() else "adf"


def stages_of(kind: str) -> tuple[tuple[str, str], ...]:
    """Return (stage, file that shows it is done) in the order of the road."""
    return (STAGES_4DSTEM if kind == "4dstem" else STAGES_ADF) + STAGES_COMMON


def missing_stages(directory: Path, kind: str) -> list[tuple[str, str]]:
    """Return the stages whose file is not there, with the file's name."""
    return [(stage, name) for stage, name in stages_of(kind) if not (directory / name).is_file()]


def _least_tilted(tilts_deg: np.ndarray) -> int:
    return int(np.argmin(np.abs(tilts_deg)))


def _three_tilts(tilts_deg: np.ndarray) -> tuple[int, ...]:
    """Return the indices of the most negative, the least and the most positive tilt, each once."""
    chosen = (int(np.argmin(tilts_deg)), _least_tilted(tilts_deg), int(np.argmax(tilts_deg)))
    return tuple(dict.fromkeys(chosen))


def _tilt_record(path: Path) -> tuple[float, np.ndarray, float]:
    with reading_h5(path, "loss") as file:
        wall = float(file["wall_s"][-1]) if "wall_s" in file and len(file["wall_s"]) else 0.0
        return float(attribute(file, "angles_deg")[1]), file["loss"][:], wall


def read_ptychography(directory: Path) -> Ptychography | None:
    """Return what the folder `ptychography` of a run holds, None where it has no reconstruction."""
    paths = finished_tilts(directory / "ptychography")
    if not paths:
        return None
    records = [_tilt_record(path) for path in paths]
    tilts = np.array([tilt for tilt, _, _ in records])
    shown = _three_tilts(tilts)
    phases = []
    for k in shown:
        with reading_h5(paths[k], "phase") as file:
            phases.append(file["phase"][:])
    with reading_h5(paths[_least_tilted(tilts)], "probe", "object") as file:
        return Ptychography(
            tilts_deg=tilts,
            losses=tuple(loss for _, loss, _ in records),
            wall_s=sum(wall for _, _, wall in records),
            pixel_A=float(attribute(file, "pixel_A")),
            object_shape=file["object"].shape,
            probe=file["probe"][:],
            mean_pattern=file["mean_pattern"][:] if "mean_pattern" in file else None,
            shown=shown,
            phases=tuple(phases),
        )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def read_projections(path: Path) -> Projections | None:
    """Return what is drawn of `projections.h5` or `aligned.h5`, None where it is absent."""
    if not path.is_file():
        return None
    with reading_h5(path, "projections", "angles_deg") as file:
        images, tilts = file["projections"], file["angles_deg"][:, 1]
        shown = int(file.attrs.get("raw_index", _least_tilted(tilts)))
        raw = file["raw"][:] if "raw" in file else None
        patterns = _text(file.attrs.get("kind", "adf")) == "4dstem"
        return Projections(
            pixel_A=float(attribute(file, "pixel_A")),
            unit=_text(file.attrs.get("unit", "arbitrary unit")),
            tilts_deg=tilts,
            shape=images.shape,
            shown=shown,
            image=images[shown],
            central_rows=images[:, images.shape[1] // 2, :],
            raw=None if raw is None or patterns else raw,
            mean_pattern=raw if patterns else None,
        )


def read_alignment(path: Path) -> Alignment | None:
    """Return the shifts, scales and backgrounds of `aligned.h5`, None where it is absent."""
    if not path.is_file():
        return None
    with reading_h5(path, "shifts_A", "scales", "backgrounds") as file:
        return Alignment(file["shifts_A"][:], file["scales"][:], file["backgrounds"][:])


def _central_slices(volume: h5py.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    nz, ny, nx = volume.shape
    return volume[nz // 2], volume[:, ny // 2, :], volume[:, :, nx // 2]


def read_volume(path: Path) -> Volume | None:
    """Return three central slices and the R-factor of `volume.h5`, None where it is absent."""
    if not path.is_file():
        return None
    with reading_h5(path, "volume") as file:
        r_factor = file["r_factor"][:] if "r_factor" in file else np.zeros(0)
        voxel_A = float(attribute(file, "voxel_A"))
        return Volume(voxel_A, file["volume"].shape, _central_slices(file["volume"]), r_factor)


def read_volume_quality(path: Path) -> VolumeQuality | None:
    """Return what `volume.h5` tells about its worth, None where it holds no R-factor."""
    with reading_h5(path) as file:
        held = {name: file[name][:] for name in file if name != "volume"}
        told = dict(file.attrs)
    if not held.get("r_factor", np.zeros(0)).size:
        return None
    axis = np.asarray(told.get("tilt_axis", (0, 1, 0)))
    return VolumeQuality(
        r_factor=held["r_factor"],
        r_free=held.get("r_free"),
        tilts_deg=held["angles_deg"][:, 1] if "angles_deg" in held else np.zeros(0),
        tilt_r=held.get("tilt_r"),
        unseen_r=held.get("unseen_r"),
        stray_tilts=held.get("stray_tilts", np.zeros(0, int)),
        frequency_per_A=held.get("fsc_frequency_per_A", np.zeros(0)),
        fsc={part: held[name] for part, name in _CURVES.items() if name in held},
        resolution_A={name: float(value) for name, value in told.items() if name.startswith("resolution_")},
        plane_deg=held.get("plane_deg"),
        wedge_deg=float(told.get("wedge_deg", 0.0)),
        about_y=bool(abs(axis[1]) > NEARLY_Y),
    )


def read_fit(path: Path) -> Fit | None:
    """Return what `fit.h5` keeps of a fit of counts, None where it is absent."""
    if not path.is_file():
        return None
    with reading_h5(path, "deviance", "likelihood_gain", "counts", "expected") as file:
        held = {name: file[name][:] for name in file}
        return Fit(
            tilts_deg=held["angles_deg"][:, 1],
            deviance=held["deviance"],
            held_out=held.get("held_out_deviance"),
            gains=held["likelihood_gain"],
            believed=float(attribute(file, "least_gain")),
            halves_ratio=held.get("halves_distance_ratio"),
            shown=tuple(int(k) for k in held["shown"]),
            counts=held["counts"],
            expected=held["expected"],
            pixel_A=float(attribute(file, "pixel_A")),
        )


def read_candidates(path: Path) -> Candidates | None:
    """Return intensities, labels and boundaries of `candidates.h5`, None where it is absent."""
    if not path.is_file():
        return None
    with reading_h5(path, "intensity", "label") as file:
        elements = tuple(_text(e) for e in np.atleast_1d(attribute(file, "elements")))
        boundaries = tuple(float(b) for b in file["boundaries"][:]) if "boundaries" in file else ()
        return Candidates(file["intensity"][:], file["label"][:], elements, boundaries)


def read_model(path: Path) -> Model | None:
    """Return the atoms of an extended XYZ file, None where it is absent."""
    if not path.is_file():
        return None
    from ase.io import read

    try:
        atoms: Any = read(path, format="extxyz")
    except Exception as error:  # ase raises many kinds
        raise InputError(f"{path}: not readable as extended XYZ ({error}); make it again") from None
    columns = atoms.arrays
    return Model(
        np.asarray(atoms.positions, dtype=float),
        tuple(atoms.get_chemical_symbols()),
        columns.get("sigma_A"),
        columns.get("species_probability"),
    )


def bonds_of(rings: dict[str, Any], n_atoms: int) -> np.ndarray:
    """Return the bonds (m, 2) of `rings.json` that name atoms the model has."""
    bonds: Sequence[Sequence[int]] = rings.get("bonds", [])
    pairs = np.asarray(bonds, dtype=int).reshape(-1, 2)
    return pairs[np.all((pairs >= 0) & (pairs < n_atoms), axis=1)]


def rings_of(record: dict[str, Any], n_atoms: int) -> list[list[int]]:
    """Return the rings of `rings.json` that name atoms of the model; none where rings cross the faces of a box."""
    if np.any([np.any(shift) for shift in record.get("ring_shifts", [])]):
        return []
    return [ring for ring in record.get("rings", []) if min(ring) >= 0 and max(ring) < n_atoms]
