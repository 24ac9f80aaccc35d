"""4D-STEM tilts to phase projections: one reconstruction file per tilt, then one stack.

Tilts are independent, so on the CPU each is a task of its own in a pool of single-threaded processes; on a GPU they
follow one another. Every finished tilt is kept, so an interrupted series goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from pyaet.artifacts import Data, attribute, fingerprint, key_of, made_by, reading_h5, write_h5
from pyaet.console import Progress
from pyaet.device import Device, array_module
from pyaet.doubts import collected_doubts
from pyaet.io.errors import InputError, RunError, told_of
from pyaet.io.fourdstem import TiltFile, list_tilts, positions_A, read_counts
from pyaet.plan import Input, Ptychography
from pyaet.processes import in_processes
from pyaet.stages.adf import angle_spec
from pyaet.stages.context import Context
from pyaet.stages.projections import Projections, write_projections


@dataclass(frozen=True)
class TiltTask:
    """Everything one tilt needs in order to be reconstructed in another process."""

    tilt: TiltFile
    target: Path
    settings: Ptychography
    device: Device
    threads: int
    seed: int
    key: str


def tilts_of(source: Input) -> list[TiltFile]:
    """The tilt files a plan asks for, with what the plan states about the optics put over what the files say."""
    tilts = list_tilts(source.path, angle_spec(source.angles))
    stated = {name: getattr(source, name) for name in ("energy_eV", "semiangle_mrad", "defocus_A")}
    stated = {name: value for name, value in stated.items() if value is not None}
    return [replace(tilt, **stated) for tilt in tilts]


def engine_settings(settings: Ptychography, threads: int) -> Any:
    """The engine's own settings: what the plan leaves open keeps the engine's default."""
    import ptycho

    known = {field.name for field in fields(ptycho.Settings)}
    given = {k: v for k, v in settings.model_dump().items() if k in known and v is not None}
    return ptycho.Settings(**given, threads=threads)


def tilt_key(tilt: TiltFile, settings: Ptychography, seed: int) -> str:
    """Hash of everything the reconstruction of one tilt depends on, the content of its file included."""
    optics = [tilt.energy_eV, tilt.semiangle_mrad, tilt.defocus_A, tilt.angles_deg]
    return key_of(seed, settings.model_dump(), optics, fingerprint(tilt.path))


def reconstruct_tilt(task: TiltTask, progress: Progress | None = None) -> dict[str, float]:
    """Reconstruct one tilt into `task.target` unless a current file is there; return its last loss and its seconds."""
    if made_by(task.target) == task.key:
        return {}
    with collected_doubts() as doubts:
        return _reconstruct(task, progress, doubts)


def _reconstruct(task: TiltTask, progress: Progress | None, doubts: list[str]) -> dict[str, float]:
    import ptycho

    started = time.perf_counter()
    counts = read_counts(task.tilt)
    where = positions_A(task.tilt)
    patterns = counts.reshape(-1, *counts.shape[-2:])
    try:
        with told_of(task.tilt.path):
            result = ptycho.reconstruct(
                ptycho.Patterns(patterns, where, task.tilt.pixel_mrad),
                ptycho.Optics(task.tilt.energy_eV, task.tilt.semiangle_mrad, task.tilt.defocus_A),
                engine_settings(task.settings, task.threads),
                rng=np.random.default_rng(task.seed),
                progress=progress,
                xp=array_module(task.device),
            )
            phase = ptycho.phase_projection(result, vacuum_radius_A=task.settings.vacuum_radius_A)
    except ptycho.Diverged as error:
        raise RunError(f"{task.tilt.path}: {error}") from error
    data_out = {
        "phase": Data(_blurred(phase, task.settings.blur_A / result.pixel_A), "rad"),
        "object": Data(result.object, ""),
        "probe": Data(result.probe, "sqrt(electrons)"),
        "positions_A": Data(result.positions_A, "Å"),
        "loss": Data(result.loss, ""),
        "cpu_s": Data(result.cpu_s, "s"),
        "wall_s": Data(result.wall_s, "s"),
        "mean_pattern": Data(patterns.mean(axis=0, dtype=np.float64).astype(np.float32), "counts"),
    }
    attributes = {
        "pixel_A": result.pixel_A,
        "slice_A": result.slice_A,
        "angles_deg": task.tilt.angles_deg,
        "electrons_per_pattern": float(patterns.sum(dtype=np.float64) / len(patterns)),
        "doubts": "\n".join(doubts),
    }
    write_h5(task.target, data_out, attributes, task.key)
    return {"loss": float(result.loss[-1]), "seconds": time.perf_counter() - started}


def reconstruct_series(
    source: Input, folder: Path, target: Path, settings: Ptychography, context: Context
) -> dict[str, Any]:
    """Reconstruct all tilts into `folder` and stack their phases into `projections.h5`; return the stage's numbers."""
    tilts = tilts_of(source)
    single = context.device == "cuda"
    threads = context.workers if single or len(tilts) == 1 else 1
    tasks = [
        TiltTask(
            tilt,
            folder / f"tilt_{i:03d}.h5",
            settings,
            context.device,
            threads,
            context.seed + i,
            tilt_key(tilt, settings, context.seed + i),
        )
        for i, tilt in enumerate(tilts)
    ]
    with context.console.task("ptychography", "loss") as progress:
        finished = in_processes(reconstruct_tilt, tasks, 1 if single else context.workers)
        for done, (_, told) in enumerate(finished, start=1):
            progress(done, len(tasks), told.get("loss", np.nan))
    for stale in set(folder.glob("tilt_*.h5")) - {task.target for task in tasks}:
        stale.unlink()
    return _stack([task.target for task in tasks], target, context)


def _stack(files: Sequence[Path], target: Path, context: Context) -> dict[str, Any]:
    """Phases of all tilts, cropped to the field they share, as `projections.h5`."""
    tilts = [_read_tilt(path) for path in files]
    pixels = [tilt["pixel_A"] for tilt in tilts]
    if np.ptp(pixels) > 1e-4 * pixels[0]:
        raise InputError(
            f"the tilts have pixels of {min(pixels):.5g} to {max(pixels):.5g} Å; expected one pixel for all"
        )
    shape = tuple(np.min([tilt["phase"].shape for tilt in tilts], axis=0))
    angles_deg = np.stack([tilt["angles_deg"] for tilt in tilts])
    losses = [tilt["loss"] for tilt in tilts]
    middle = int(np.argmin(np.abs(angles_deg[:, 1])))
    value = Projections(np.stack([centre_crop(tilt["phase"], shape) for tilt in tilts]), angles_deg, pixels[0], "rad")
    raw = {"raw": Data(tilts[middle]["mean_pattern"], "counts")}
    write_projections(target, value, context.key, raw, kind="4dstem", raw_index=middle)
    doubted = [(doubt, theta) for tilt, theta in zip(tilts, angles_deg[:, 1], strict=True) for doubt in tilt["doubts"]]
    return {
        "warnings": [
            f"tilts {', '.join(f'{theta:g}°' for d, theta in doubted if d == doubt)}: {doubt}"
            for doubt in dict(doubted)
        ],
        "tilts": len(files),
        "image_px": [int(n) for n in shape],
        "pixel_A": pixels[0],
        "loss_mean": float(np.mean(losses)),
        "loss_worst_tilt_deg": float(angles_deg[int(np.argmax(losses)), 1]),
        "electrons_per_pattern": float(np.mean([tilt["electrons"] for tilt in tilts])),
        "cpu_s_per_tilt": float(np.mean([tilt["cpu_s"] for tilt in tilts])),
    }


def _read_tilt(path: Path) -> dict[str, Any]:
    with reading_h5(path, "phase", "loss", "cpu_s", "mean_pattern") as file:
        return {
            "phase": np.asarray(file["phase"]),
            "mean_pattern": np.asarray(file["mean_pattern"]),
            "loss": float(file["loss"][-1]),
            "cpu_s": float(file["cpu_s"][-1]),
            "angles_deg": np.asarray(attribute(file, "angles_deg")),
            "pixel_A": float(attribute(file, "pixel_A")),
            "electrons": float(attribute(file, "electrons_per_pattern")),
            "doubts": str(attribute(file, "doubts")).splitlines(),
        }


def centre_crop(image: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The part of an image (y, x) of the given shape that keeps index n // 2 at coordinate 0."""
    return image[tuple(slice(n // 2 - m // 2, n // 2 - m // 2 + m) for n, m in zip(image.shape, shape, strict=True))]


def _blurred(phase: np.ndarray, sigma_px: float) -> np.ndarray:
    if sigma_px == 0:
        return phase
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(phase, sigma_px)
