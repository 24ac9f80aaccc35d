"""One 4D-STEM tilt to its file: object, probe, positions and phase in the common gauge, and what was found on the way."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import ptycho
from ptycho.diagnose import Evidence, diagnose, evidence
from ptycho.feasible import doubtful_units
from ptycho.series import low_aberrations, total_phase
from pyaet.artifacts import Data, fingerprint, key_of, made_by, reading_h5, write_h5
from pyaet.checkpoints import INTERVAL_S, CheckpointWriter, checkpoint_of, read_checkpoint
from pyaet.console import Progress
from pyaet.device import Device, array_module, available_memory_bytes
from pyaet.doubts import collected_doubts
from pyaet.io.errors import InputError, RunError, told_of
from pyaet.io.fourdstem import TiltFile, opened_counts, positions_A
from pyaet.memory import TiltSize, device_bytes
from pyaet.plan import Ptychography
from pyaet.stages.calibration import optics_of
from pyaet.stages.picture import LivePicture

if TYPE_CHECKING:
    from ptycho.calibrate import Calibration

log = logging.getLogger(__name__)


JUDGED_PATTERNS = 300
"""Patterns that are compared with the model once the tilt is reconstructed; the work of about one iteration."""


@dataclass(frozen=True)
class TiltTask:
    """Everything one tilt needs in order to be reconstructed in another process.

    calibration: what its patterns say about its stated numbers, None where they were not asked. probe_from: the reconstructed
    tilt whose probe is the start. resident_bytes: counts larger than this stay on disk; None reads them whole. picture: where
    to draw how far it is.
    """

    tilt: TiltFile
    target: Path
    settings: Ptychography
    device: Device
    threads: int
    seed: int
    key: str
    calibration: Calibration | None = None
    probe_from: Path | None = None
    resident_bytes: int | None = None
    picture: Path | None = None
    picture_at_end: bool = False
    checkpoint_s: float = INTERVAL_S


def tilt_key(
    tilt: TiltFile,
    settings: Ptychography,
    seed: int,
    *,
    calibration: Calibration | None = None,
    reference: str = "",
) -> str:
    """Hash of everything the reconstruction of one tilt depends on: the content of its file, what the series has in common,
    and the key of the tilt that its probe comes from."""
    optics = [asdict(optics_of(tilt)), tilt.angles_deg, tilt.pixel_mrad]
    said = settings.model_dump(exclude_none=True, exclude={"share_probe"})
    found = calibration and [
        calibration.pixel_mrad,
        calibration.defocus_A,
        calibration.rotation_deg,
        calibration.transposed,
        [finding.sentence for finding in calibration.findings],
    ]
    return key_of(seed, said, optics, fingerprint(tilt.path), found, reference)


def reconstruct_tilt(task: TiltTask, progress: Progress | None = None) -> dict[str, Any]:
    """Reconstruct one tilt into `task.target` unless a current file is there; return its last loss and its seconds."""
    if made_by(task.target) == task.key:
        return {}
    with collected_doubts() as doubts:
        return _reconstruct(task, progress, doubts)


def _reconstruct(task: TiltTask, progress: Progress | None, doubts: list[str]) -> dict[str, Any]:
    started = time.perf_counter()
    with opened_counts(task.tilt, task.resident_bytes) as counts, told_of(task.tilt.path):
        patterns, optics = _calibrated(task, counts)
        given, notes = _run(task, patterns, optics, progress)
        result, moved_A = ptycho.in_gauge(given)
        phase = ptycho.phase_projection(result, vacuum_radius_A=task.settings.vacuum_radius_A)
        phase, turned = _in_scan_frame(task, phase)
        shown = evidence(result, patterns, optics, sample=JUDGED_PATTERNS)
    attributes = {
        "pixel_A": result.pixel_A,
        "slice_A": result.slice_A,
        "angles_deg": task.tilt.angles_deg,
        "electrons_per_pattern": float(patterns.mean.sum()),
        "doubts": "\n".join(doubts),
        "findings": json.dumps([asdict(finding) for finding in _findings(task, shown)], ensure_ascii=False),
        "sigma": json.dumps(result.sigma),
        "gauge_shift_A": moved_A,
        "defocus_A": _defocus_A(result, optics, task.tilt.path),
        "position_shift_rms_A": _rms_move_A(result.positions_A, patterns.positions_A),
        "phase_total_rad_A2": total_phase(phase, result.pixel_A),
        "loss_excess": shown.fit.loss - shown.fit.expected if shown.fit else np.nan,
    } | turned
    blurred = _blurred(phase, task.settings.blur_A / result.pixel_A)
    mean_pattern = patterns.mean.astype(np.float32)
    write_h5(task.target, _datasets(result, blurred, mean_pattern), attributes, task.key)
    checkpoint_of(task.target).unlink(missing_ok=True)
    if task.picture is not None and task.picture_at_end:
        LivePicture(task.picture, patterns.mean, _name(task.tilt)).draw(result)
    return {"loss": float(result.loss[-1]), "seconds": time.perf_counter() - started} | notes


def _calibrated(task: TiltTask, counts: Any) -> tuple[ptycho.Patterns, ptycho.Optics]:
    """Patterns and optics as the engine takes them, put right by the calibration where it is to be applied."""
    where, optics, found = positions_A(task.tilt), optics_of(task.tilt), task.calibration
    if found is None or task.settings.calibrate != "auto":
        return ptycho.Patterns(counts, where, task.tilt.pixel_mrad), optics
    from ptycho.calibrate import corrected

    patterns, optics = corrected(counts, where, optics, found)
    return patterns if found.scales is None else replace(patterns, scales=found.scales[found.kept]), optics


def _in_scan_frame(task: TiltTask, phase: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """The phase turned from the detector's frame, in which it was reconstructed, into that of the scan, and how far."""
    found = task.calibration
    if found is None or task.settings.calibrate != "auto" or not (found.rotation_deg or found.transposed):
        return phase, {"rotation_deg": 0.0, "transposed": False}
    from ptycho.calibrate import to_scan_frame

    turned = to_scan_frame(phase, found.rotation_deg, found.transposed)
    return turned, {"rotation_deg": found.rotation_deg, "transposed": found.transposed}


def _run(
    task: TiltTask, patterns: ptycho.Patterns, optics: ptycho.Optics, progress: Progress | None
) -> tuple[ptycho.Result, dict[str, str]]:
    """The reconstruction, taken up where an interrupted one left it, and what is to be said about that."""
    held, note = read_checkpoint(checkpoint_of(task.target), task.key)
    probe = None if task.probe_from is None else read_probe(task.probe_from)
    _refuse_beyond_memory(task, _size(task, patterns))
    held_on_gpu = device_bytes(_size(task, patterns), task.settings.engine(), task.device)
    settings = task.settings.engine(threads=task.threads, device_bytes=held_on_gpu)

    def run(resume: Mapping[str, np.ndarray] | None) -> ptycho.Result:
        return ptycho.reconstruct(
            patterns,
            optics,
            settings,
            rng=np.random.default_rng(task.seed),
            probe=probe,
            resume=resume,
            progress=progress,
            watch=_watcher(task, patterns),
            xp=array_module(task.device),
        )

    try:
        if held is not None:
            try:
                note = f"resumed behind iteration {len(held['losses'])}"
                return run(held), {"note": note}
            except (KeyError, ValueError) as error:
                note = f"the checkpoint does not fit and is not used ({error})"
        return run(None), {"note": note} if note else {}
    except ptycho.Diverged as error:
        raise RunError(f"{task.tilt.path}: {error}") from error


def _refuse_beyond_memory(task: TiltTask, size: TiltSize) -> None:
    """Raise InputError where the machine cannot hold what the reconstruction takes beside the counts."""
    gpu = task.device == "cuda"
    settings = replace(task.settings.engine(), device_bytes=0) if gpu else task.settings.engine()
    need, free = size.engine_bytes(settings, gpu=gpu), available_memory_bytes(task.device)
    if free and need > free:
        ny, nx = size.image_px(settings)
        raise InputError(
            f"{task.tilt.path}: an object of {ny} × {nx} px, {settings.slices} slices and {settings.probe_modes} probe modes of "
            f"{size.window(settings)}² px take {need / 1e9:.3g} GB, {free / 1e9:.3g} GB are free; expected a smaller problem: check "
            "step_A, positions_A, pixel_mrad, detector, slices and probe_modes"
        )


def _watcher(task: TiltTask, patterns: ptycho.Patterns) -> Callable[[ptycho.Iteration], None]:
    """What happens between two iterations: a checkpoint and a picture when they are due."""
    checkpoint = CheckpointWriter(checkpoint_of(task.target), task.key, task.checkpoint_s)
    picture = None if task.picture is None else LivePicture(task.picture, patterns.mean, _name(task.tilt))

    def watch(now: ptycho.Iteration) -> None:
        if checkpoint.due and now.done < now.total:
            checkpoint.write(now.checkpoint())
        if picture is not None and picture.due:
            picture.draw(now.result())

    return watch


def _name(tilt: TiltFile) -> str:
    return f"{tilt.path.name}, θ = {tilt.angles_deg[1]:g}°"


def _size(task: TiltTask, patterns: ptycho.Patterns) -> TiltSize:
    # The object is centred on coordinate 0, wherever the scan lies.
    extent_A = 2 * np.abs(patterns.positions_A).max(axis=0)
    return TiltSize(
        len(patterns.counts),
        patterns.detector_shape,
        (float(extent_A[0]), float(extent_A[1])),
        task.tilt.energy_eV,
        patterns.pixel_mrad,
        patterns.counts.dtype.itemsize,
    )


def read_probe(path: Path) -> np.ndarray:
    """The probe (mode, y, x) of a reconstructed tilt."""
    with reading_h5(path, "probe") as file:
        return np.asarray(file["probe"])


def _datasets(result: ptycho.Result, phase: np.ndarray, mean_pattern: np.ndarray) -> dict[str, Data]:
    """What of a result is kept, without what it does not have."""
    kept = {
        "phase": Data(phase, "rad"),
        "object": Data(result.object, ""),
        "probe": Data(result.probe, "sqrt(electrons)"),
        "positions_A": Data(result.positions_A, "Å"),
        "loss": Data(result.loss, ""),
        "cpu_s": Data(result.cpu_s, "s"),
        "wall_s": Data(result.wall_s, "s"),
        "mean_pattern": Data(mean_pattern, "counts"),
        "validation": Data(result.validation, ""),
        "gaps_A": Data(result.gaps_A, "Å"),
        "tilts_mrad": Data(result.tilts_mrad, "mrad"),
        "scales": Data(result.scales, ""),
        "backgrounds": Data(result.backgrounds, "electrons"),
        "variations": Data(result.variations, "sqrt(electrons)"),
        "coefficients": Data(result.coefficients, ""),
        "position_sigma_A": Data(result.position_sigma_A, "Å"),
    }
    if len(result.object_states) > 1:
        kept["object_states"] = Data(result.object_states, "")
    return {name: data for name, data in kept.items() if data.array is not None}


def _findings(task: TiltTask, shown: Evidence) -> list[ptycho.Finding]:
    """What the tilt itself gave reason to say: the one place where the findings of calibration and diagnosis come together."""
    before = () if task.calibration is None else task.calibration.findings
    return [*doubtful_units(optics_of(task.tilt)), *before, *diagnose(shown)]


def _defocus_A(result: ptycho.Result, optics: ptycho.Optics, path: Path) -> float:
    """Defocus of the probe at the particle's centre; nan where its aperture is too small to tell."""
    first_slice_A = -0.5 * float(result.gaps_A.sum())
    try:
        return low_aberrations(result.probe, result.pixel_A, optics, first_slice_A).defocus_A
    except ValueError as error:
        log.info("%s: the defocus was not measured: %s", path, error)
        return float("nan")


def _rms_move_A(positions_A: np.ndarray, given_A: np.ndarray) -> float:
    """Root mean square (Å) of the distances positions (n, 2) were moved, their common shift left out."""
    moved = positions_A - given_A
    return float(np.sqrt(((moved - moved.mean(axis=0)) ** 2).sum(axis=1).mean()))


def _blurred(phase: np.ndarray, sigma_px: float) -> np.ndarray:
    if sigma_px == 0:
        return phase
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(phase, sigma_px)
