"""Volume to atoms: tracing and classification."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pyaet.artifacts import Data, write_h5
from pyaet.io.errors import RunError
from pyaet.io.structures import write_extxyz
from pyaet.plan import Specimen, Tracing
from pyaet.stages.context import Context
from pyaet.stages.quality import resolution_doubts
from pyaet.stages.tomography import read_volume


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
