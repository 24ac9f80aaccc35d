"""4D-STEM tilts to phase projections: one reconstruction file per tilt, then one stack.

On the CPU each tilt is a task of its own in a pool of single-threaded processes; on a GPU they follow one another. Every
finished tilt is kept, and one under way leaves checkpoints, so an interrupted series goes on where it stopped.

Where the probe is refined, the least tilted tilt comes first and its probe is the start of all others: they see the same lens,
and a start near the truth saves each of them the way there.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pyaet.artifacts import Data, attribute, reading_h5
from pyaet.checkpoints import finished_tilts
from pyaet.console import Progress
from pyaet.io.errors import InputError
from pyaet.io.fourdstem import ABERRATIONS, TiltFile, list_tilts
from pyaet.memory import resident_bytes
from pyaet.plan import Input, Ptychography
from pyaet.processes import in_processes
from pyaet.stages.adf import angle_spec
from pyaet.stages.calibration import NOT_MEASURED, calibrated
from pyaet.stages.consistency import TiltNumbers, compared
from pyaet.stages.context import Context
from pyaet.stages.projections import Projections, write_projections
from pyaet.stages.tilt import TiltTask, reconstruct_tilt, tilt_key

log = logging.getLogger(__name__)

_SAME_PIXEL = 1e-4


def tilts_of(source: Input) -> list[TiltFile]:
    """The tilt files a plan asks for, with what the plan states about the optics put over what the files say."""
    tilts = list_tilts(source.path, angle_spec(source.angles))
    return [with_optics(tilt, source) for tilt in tilts]


def with_optics(tilt: TiltFile, source: Input) -> TiltFile:
    """A tilt with those optics that `source` states put over what its file says."""

    def said(*names: str) -> dict[str, Any]:
        return {name: value for name in names if (value := getattr(source, name)) is not None}

    lens = tilt.aberrations | said(*ABERRATIONS)
    return replace(tilt, aberrations=lens, **said("energy_eV", "semiangle_mrad", "defocus_A", "pixel_mrad"))


def reconstruct_series(
    source: Input, folder: Path, target: Path, settings: Ptychography, context: Context
) -> dict[str, Any]:
    """Reconstruct all tilts into `folder` and stack their phases into `projections.h5`; return the stage's numbers."""
    return reconstruct_tilts(tilts_of(source), folder, target, settings, context)


def reconstruct_tilts(
    tilts: Sequence[TiltFile],
    folder: Path,
    target: Path,
    settings: Ptychography,
    context: Context,
    picture: Path | None = None,
) -> dict[str, Any]:
    """`reconstruct_series` for tilts at hand; `picture` instead of `live.png` in the folder."""
    drawn = picture or folder / "live.png"
    tasks = [replace(task, picture=drawn) for task in _tasks(tilts, folder, settings, context)]
    done = 0
    with context.console.task("ptychography", "loss") as progress:
        for together in _rounds(tasks):
            _work_through(together, done, len(tasks), context, progress)
            done += len(together)
    files = [task.target for task in tasks]
    for stale in set(finished_tilts(folder)) - set(files):
        stale.unlink()
    return _stack(files, target, context)


def _tasks(tilts: Sequence[TiltFile], folder: Path, settings: Ptychography, context: Context) -> list[TiltTask]:
    single = context.device == "cuda" or len(tilts) == 1
    at_once = 1 if single else min(context.workers, len(tilts))
    limit = resident_bytes(at_once)
    found = calibrated(tilts, settings, context.workers)
    tasks = [
        TiltTask(
            tilt,
            folder / f"tilt_{i:03d}.h5",
            settings,
            context.device,
            context.workers if single else 1,
            context.seed + i,
            tilt_key(tilt, settings, context.seed + i, calibration=calibration),
            calibration=calibration,
            resident_bytes=limit,
        )
        for i, (tilt, calibration) in enumerate(zip(tilts, found, strict=True))
    ]
    if len(tilts) < 2 or not (settings.share_probe and settings.refines_probe):
        return tasks
    return _handed_over(tasks, min(range(len(tilts)), key=lambda i: abs(tilts[i].angles_deg[1])), context)


def _handed_over(tasks: Sequence[TiltTask], reference: int, context: Context) -> list[TiltTask]:
    """The tasks with the probe of one of them as the start of all others; that one may use all threads."""
    first = tasks[reference]
    for task in tasks:
        if _pixel(task.tilt) != _pixel(first.tilt):
            raise InputError(
                f"{task.tilt.path}: energy, pixel_mrad or detector differ from {first.tilt.path}, whose probe was to be the "
                "start of all tilts; expected the same for all, or share_probe = false in [ptychography]"
            )

    def started(task: TiltTask) -> TiltTask:
        if task is first:
            return replace(task, threads=context.workers)
        key = tilt_key(task.tilt, task.settings, task.seed, calibration=task.calibration, reference=first.key)
        return replace(task, key=key, probe_from=first.target)

    return [started(task) for task in tasks]


def _pixel(tilt: TiltFile) -> tuple[Any, ...]:
    """What the pixels of a probe follow from."""
    return tilt.energy_eV, tilt.pixel_mrad, tilt.shape[2:]


def _rounds(tasks: Sequence[TiltTask]) -> list[list[TiltTask]]:
    """Tasks that may run together, in the order of the rounds: those that start from another's probe come after it."""
    later = [task for task in tasks if task.probe_from is not None]
    return [together for together in ([task for task in tasks if task.probe_from is None], later) if together]


def _work_through(tasks: Sequence[TiltTask], before: int, total: int, context: Context, progress: Progress) -> None:
    workers = 1 if context.device == "cuda" else context.workers
    if len(tasks) == 1 and total == 1:
        reconstruct_tilt(tasks[0], progress)
        return
    for done, (i, told) in enumerate(in_processes(reconstruct_tilt, tasks, workers), start=before + 1):
        progress(done, total, told.get("loss", np.nan))
        if "note" in told:
            context.console.say(f"{tasks[i].tilt.path.name}: {told['note']}")
            log.info("%s: %s", tasks[i].tilt.path, told["note"])


def _stack(files: Sequence[Path], target: Path, context: Context) -> dict[str, Any]:
    """Phases of all tilts, cropped to the field they share, as `projections.h5`."""
    tilts = [_read_tilt(path) for path in files]
    pixels = [tilt["pixel_A"] for tilt in tilts]
    if np.ptp(pixels) > _SAME_PIXEL * pixels[0]:
        raise InputError(
            f"the tilts have pixels of {min(pixels):.5g} to {max(pixels):.5g} Å; expected one pixel for all"
        )
    shape = tuple(np.min([tilt["phase"].shape for tilt in tilts], axis=0))
    angles_deg = np.stack([tilt["angles_deg"] for tilt in tilts])
    numbers = [tilt["numbers"] for tilt in tilts]
    losses = [tilt.loss for tilt in numbers]
    middle = int(np.argmin(np.abs(angles_deg[:, 1])))
    value = Projections(np.stack([centre_crop(tilt["phase"], shape) for tilt in tilts]), angles_deg, pixels[0], "rad")
    raw = {"raw": Data(tilts[middle]["mean_pattern"], "counts")}
    write_projections(target, value, context.key, raw, kind="4dstem", raw_index=middle)
    table = compared(numbers, np.stack([tilt["probe"] for tilt in tilts]))
    context.console.table("tilts of the series", *table.cells())
    return {
        "warnings": [*_doubts(tilts), *table.sentences()],
        "tilts": len(files),
        "image_px": [int(n) for n in shape],
        "pixel_A": pixels[0],
        "loss_mean": float(np.mean(losses)),
        "loss_worst_tilt_deg": float(angles_deg[int(np.argmax(losses)), 1]),
        "electrons_per_pattern": float(np.mean([tilt.electrons_per_pattern for tilt in numbers])),
        "cpu_s_per_tilt": float(np.mean([tilt["cpu_s"] for tilt in tilts])),
        "consistency": table.rows(),
    }


def _doubts(tilts: Sequence[dict[str, Any]]) -> list[str]:
    """What was found doubtful, each thing once: the tilts it was said of, and what was said of the first of them."""
    said: dict[str, list[tuple[float, str]]] = {}
    for tilt in tilts:
        for code, sentence in tilt["doubts"]:
            said.setdefault(code, []).append((float(tilt["angles_deg"][1]), sentence))
    return [_together(told, len(tilts)) for told in said.values()]


def _together(told: Sequence[tuple[float, str]], tilts: int) -> str:
    which = "all tilts" if len(told) == tilts > 1 else "tilts " + ", ".join(f"{theta:g}°" for theta, _ in told)
    first = "" if len({sentence for _, sentence in told}) == 1 else f", of {told[0][0]:g}°"
    return f"{which}{first}: {told[0][1]}"


def _read_tilt(path: Path) -> dict[str, Any]:
    with reading_h5(path, "phase", "loss", "cpu_s", "mean_pattern", "probe") as file:
        angles_deg = np.asarray(attribute(file, "angles_deg"))
        validation = float(file["validation"][-1]) if "validation" in file else None
        findings = [(found["code"], found["sentence"]) for found in json.loads(attribute(file, "findings"))]
        sentences = str(attribute(file, "doubts")).splitlines()
        return {
            "phase": np.asarray(file["phase"]),
            "mean_pattern": np.asarray(file["mean_pattern"]),
            "probe": np.asarray(file["probe"][0]),
            "cpu_s": float(file["cpu_s"][-1]),
            "angles_deg": angles_deg,
            "pixel_A": float(attribute(file, "pixel_A")),
            "doubts": [(s, s) for s in sentences] + [found for found in findings if found[0] != NOT_MEASURED],
            "numbers": TiltNumbers(
                tilt_deg=float(angles_deg[1]),
                electrons_per_pattern=float(attribute(file, "electrons_per_pattern")),
                loss=float(file["loss"][-1]),
                held_out_loss=validation,
                loss_excess=float(attribute(file, "loss_excess")),
                defocus_A=float(attribute(file, "defocus_A")),
                position_shift_rms_A=float(attribute(file, "position_shift_rms_A")),
                phase_total_rad_A2=float(attribute(file, "phase_total_rad_A2")),
                gauge_shift_A=float(np.hypot(*attribute(file, "gauge_shift_A"))),
            ),
        }


def centre_crop(image: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The part of an image (y, x) of the given shape that keeps index n // 2 at coordinate 0."""
    return image[tuple(slice(n // 2 - m // 2, n // 2 - m // 2 + m) for n, m in zip(image.shape, shape, strict=True))]
