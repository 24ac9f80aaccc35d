"""Volume to atoms: tracing and classification, then refinement against the aligned projections."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from pyaet.artifacts import Data, write_h5
from pyaet.io.errors import RunError, told_of
from pyaet.io.structures import read_structure, write_extxyz
from pyaet.plan import Refinement, Specimen, Tracing
from pyaet.stages.context import Context
from pyaet.stages.projections import read_projections
from pyaet.stages.quality import resolution_doubts
from pyaet.stages.tomography import read_volume

COLLAPSED = 0.8
"""Two refined atoms nearer than this share of the minimum distance are one; a real pair may scatter a little below it."""


def trace(
    source: Path, candidates: Path, target: Path, specimen: Specimen, settings: Tracing, context: Context
) -> dict[str, Any]:
    """Find and name the atoms of `volume.h5`; write all candidates and the accepted atoms; return the numbers."""
    import analysis

    volume, voxel_A = read_volume(source)
    try:
        peaks = analysis.trace(volume, voxel_A, min_distance_A=specimen.min_distance_A, blur_A=settings.blur_A)
        found = analysis.classify(
            volume,
            voxel_A,
            peaks,
            specimen.elements,
            rng=context.rng(),
            radius_A=settings.radius_A,
            method=settings.classify,
            local_radius_A=settings.local_radius_A,
        )
    except ValueError as error:
        raise RunError(f"{source}: {error}") from error
    # Maxima outside the particle only measured the noise: they are no candidates.
    label = np.full(len(peaks.positions_A), -1, dtype=np.int32)
    label[found.atom_index] = [found.elements.index(symbol) for symbol in found.atoms.symbols]
    shown = ~found.outside
    data = {
        "positions_A": Data(peaks.positions_A[shown], "Å"),
        "intensity": Data(found.intensity[shown], ""),
        "label": Data(label[shown], ""),
        "boundaries": Data(found.boundaries[np.isfinite(found.boundaries)], ""),
    }
    write_h5(candidates, data, {"elements": list(found.elements)}, context.key)
    write_extxyz(target, found.atoms, made_by=context.key)
    return {
        "candidates": int(shown.sum()),
        "rejected": int((label[shown] < 0).sum()),
        "atoms": {symbol: found.atoms.symbols.count(symbol) for symbol in found.elements},
        "blur_A": float(peaks.blur_A),
        "integration_radius_A": float(found.radius_A),
        "warnings": resolution_doubts(source, specimen.min_distance_A),
    }


def refine(
    atoms_path: Path, projections_path: Path, target: Path, specimen: Specimen, settings: Refinement, context: Context
) -> dict[str, Any]:
    """Refine the traced atoms against `aligned.h5` and give each an error bar; return the stage's numbers."""
    import analysis
    import tomo

    atoms = read_structure(atoms_path)
    if not settings.enabled:
        write_extxyz(target, atoms, made_by=context.key)
        return {"enabled": False, "atoms": dict(sorted(Counter(atoms.symbols).items()))}
    given = read_projections(projections_path)
    with told_of(atoms_path), context.console.task("refinement", "loss") as progress:
        result = analysis.refine(
            atoms,
            given.images,
            tomo.rotation(given.angles_deg),
            given.pixel_A,
            min_distance_A=COLLAPSED * specimen.min_distance_A,
            iterations=settings.iterations,
            threads=context.workers,
            progress=progress,
        )
    write_extxyz(target, result.atoms, made_by=context.key)
    return {
        "enabled": True,
        "removed": len(result.removed),
        "width_A": result.widths_A,
        "error_bar_inflation": float(result.inflation),
        "atoms": dict(sorted(Counter(result.atoms.symbols).items())),
        "sigma_median_A": float(np.median(result.atoms.sigma_A)),
        "loss_first": float(result.loss[0]),
        "loss_last": float(result.loss[-1]),
    }
