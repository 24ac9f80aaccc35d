"""Aligned projections to a volume (`tomo.resire` or `tomo.fbp`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pyaet.artifacts import Data, attribute, reading_h5, write_h5
from pyaet.device import to_device, to_host
from pyaet.io.errors import told_of
from pyaet.plan import Tomography
from pyaet.stages.context import Context
from pyaet.stages.projections import read_projections


def reconstruct(source: Path, target: Path, settings: Tomography, context: Context) -> dict[str, Any]:
    """Reconstruct `aligned.h5` into `volume.h5`; return the stage's numbers."""
    import tomo

    given = read_projections(source)
    images = to_device(given.images, context.device)
    r_factor = np.zeros(0)
    with told_of(source), context.console.task("tomography", "R") as progress:
        if settings.method == "fbp":
            volume = to_host(tomo.fbp(images, given.angles_deg, depth=settings.depth, threads=context.workers))
        else:
            result = tomo.resire(
                images,
                given.angles_deg,
                iterations=settings.iterations,
                step=settings.step,
                positivity=settings.positivity,
                subvoxels=settings.subvoxels,
                depth=settings.depth,
                progress=progress,
                threads=context.workers,
            )
            volume, r_factor = to_host(result.volume), result.r_factor
    data = {"volume": Data(volume.astype(np.float32), f"{given.unit}/voxel"), "r_factor": Data(r_factor, "")}
    write_h5(target, data, {"voxel_A": given.pixel_A}, context.key)
    numbers: dict[str, Any] = {"method": settings.method, "volume_voxels": list(volume.shape), "voxel_A": given.pixel_A}
    if len(r_factor):
        numbers |= {"iterations": len(r_factor), "r_factor": float(r_factor[-1])}
    return numbers


def read_volume(path: Path) -> tuple[np.ndarray, float]:
    """The volume (z, y, x) float32 of `volume.h5` and its voxel in Å."""
    with reading_h5(path, "volume") as file:
        return np.asarray(file["volume"], dtype=np.float32), float(attribute(file, "voxel_A"))
