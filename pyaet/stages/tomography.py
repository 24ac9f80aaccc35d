"""Aligned projections to a volume (`tomo.resire`, `tomo.sirt` or `tomo.fbp`) and a judgement of it.

A reconstruction under way leaves a checkpoint beside `volume.h5` every half minute, one for each of the up to four volumes that are
made: the trial that chooses the number of iterations, the volume itself, and its two halves. They go when `volume.h5` is written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyaet.artifacts import Data, attribute, fingerprint, key_of, reading_h5, write_h5
from pyaet.checkpoints import INTERVAL_S, SUFFIX, CheckpointWriter, read_checkpoint
from pyaet.device import to_device, to_host
from pyaet.io.errors import InputError, told_of
from pyaet.memory import volume_bytes
from pyaet.plan import Tomography
from pyaet.stages.context import Context
from pyaet.stages.projections import read_projections
from pyaet.stages.quality import judgement

if TYPE_CHECKING:
    import tomo

TITLES = {
    "trial": "held-out tilts",
    "volume": "tomography",
    "half0": "even tilts",
    "half1": "odd tilts",
}


@dataclass(frozen=True)
class Series:
    """The projections of a run (on its device) and all that the volumes made of them have in common."""

    images: Any
    angles_deg: np.ndarray
    settings: Tomography
    context: Context
    target: Path
    key: str
    memory_bytes: int | None
    checkpoint_s: float
    notes: list[str] = field(default_factory=list)

    def stopping(self) -> tomo.Stopping:
        """The number of iterations that held-out tilts ask for."""
        import tomo

        with self.context.console.task("held-out tilts", "R") as progress:
            return tomo.chosen_iterations(
                self.images,
                self.angles_deg,
                method=self._method(),
                tilts=self.settings.held_out,
                patience=self.settings.patience,
                progress=progress,
                **self._iterated("trial"),
            )

    def volume(self, iterations: int, work: str = "volume", tilts: np.ndarray | None = None) -> tomo.Reconstruction:
        """The volume of the tilts of these numbers, of all when None."""
        images, angles_deg = self.images, self.angles_deg
        if tilts is not None:
            images, angles_deg = images[to_device(tilts, self.context.device)], angles_deg[tilts]
        if self.settings.method == "fbp":
            return self._back_projected(images, angles_deg)
        with self.context.console.task(TITLES[work], "R") as progress:
            return self._method()(
                images, angles_deg, iterations=iterations, progress=progress, **self._iterated(work)
            )  # fmt: skip

    def seen(self) -> dict[str, Any]:
        """How volumes are projected."""
        parts = (1, 1, 1) if self.settings.method == "fbp" else self.settings.subvoxels
        return {"subvoxels": parts, "memory_bytes": self.memory_bytes, "threads": self.context.workers}

    def _method(self) -> Callable[..., tomo.Reconstruction]:
        import tomo

        return tomo.sirt if self.settings.method == "sirt" else tomo.resire

    def _iterated(self, work: str) -> dict[str, Any]:
        """What `tomo.resire` and `tomo.sirt` are told beside the data, with the checkpoint to go on from."""
        said = self.settings.model_dump(include={"momentum", "positivity", "depth"})
        if self.settings.method == "resire":
            said["step"] = self.settings.step
        path, key = checkpoint_of(self.target, work), key_of(self.key, work)
        held, note = read_checkpoint(path, key)
        if held is not None:
            note = f"{TITLES[work]}: resumed behind iteration {len(held['r_factor'])}"
        if note:
            self.notes.append(note)
        return said | self.seen() | {"resume": held, "watch": _watcher(path, key, self.checkpoint_s)}

    def _back_projected(self, images: Any, angles_deg: np.ndarray) -> tomo.Reconstruction:
        import tomo

        volume = tomo.fbp(images, angles_deg, depth=self.settings.depth, memory_bytes=self.memory_bytes,
                          threads=self.context.workers)  # fmt: skip
        r = tomo.tilt_r(images, angles_deg, volume, **self.seen())
        return tomo.Reconstruction(volume, np.array([np.nanmean(r)]), np.nan, None, None, r, np.zeros(len(r), bool))


def reconstruct(
    source: Path, target: Path, settings: Tomography, context: Context, *, checkpoint_s: float = INTERVAL_S
) -> dict[str, Any]:
    """Reconstruct `aligned.h5` into `volume.h5`; return the stage's numbers."""
    given = read_projections(source)
    if not given.images.any():
        raise InputError(f"{source}: every pixel of every projection is zero; expected images of a particle")
    key = key_of(context.key, settings.model_dump(), context.device, fingerprint(source))
    limit = volume_bytes(given.images.shape, settings, context.device)
    series = Series(
        to_device(given.images, context.device), given.angles_deg, settings, context, target, key, limit, checkpoint_s
    )  # fmt: skip
    with told_of(source):
        chosen = series.stopping() if settings.iterations == "auto" else None
        made = series.volume(settings.iterations if chosen is None else chosen.iterations)  # type: ignore[arg-type]
        judged = judgement(series, made, chosen, given.pixel_A)
    volume = to_host(made.volume).astype(np.float32)
    data = {"volume": Data(volume, f"{given.unit}/voxel"), "angles_deg": Data(given.angles_deg, "deg")}
    write_h5(target, data | judged.data, {"voxel_A": given.pixel_A, **judged.attributes}, context.key)
    for work in TITLES:
        checkpoint_of(target, work).unlink(missing_ok=True)
    notes = {"note": "; ".join(series.notes)} if series.notes else {}
    return {
        "method": settings.method,
        "volume_voxels": list(volume.shape),
        "voxel_A": given.pixel_A,
        **judged.numbers,
        **notes,
        "warnings": judged.warnings,
    }


def checkpoint_of(target: Path, work: str) -> Path:
    """Where one of the volumes on the way to `target` leaves its checkpoint."""
    return target.with_suffix(f".{work}{SUFFIX}")


def _watcher(path: Path, key: str, interval_s: float) -> Callable[[tomo.Iteration], None]:
    writer = CheckpointWriter(path, key, interval_s)

    def watch(now: tomo.Iteration) -> None:
        if writer.due and now.done < now.total:
            writer.write(now.checkpoint())

    return watch


def read_volume(path: Path) -> tuple[np.ndarray, float]:
    """The volume (z, y, x) float32 of `volume.h5` and its voxel in Å."""
    with reading_h5(path, "volume") as file:
        return np.asarray(file["volume"], dtype=np.float32), float(attribute(file, "voxel_A"))
