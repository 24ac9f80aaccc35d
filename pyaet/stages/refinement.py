"""Traced atoms to refined atoms with error bars: by maximum likelihood on the counts where there are any, else by least squares
on the aligned projections."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyaet.artifacts import Data, made_by, reading_h5, write_h5
from pyaet.device import to_device
from pyaet.io.errors import InputError, told_of
from pyaet.io.structures import read_structure, write_extxyz
from pyaet.plan import Input, Refinement, Specimen
from pyaet.stages import doubts
from pyaet.stages.context import Context
from pyaet.stages.projections import Projections, read_projections

if TYPE_CHECKING:
    from analysis.likelihood import Fitted, Halves

COLLAPSED = 0.8
"""Two refined atoms nearer than this share of the minimum distance are one; a real pair may scatter a little below it."""


@dataclass(frozen=True)
class Counts:
    """Electrons (n, y, x) as they were counted, their background (n, 1, 1) or (n, y, x), and where each tilt sees the origin
    (n, 2) as (x, y) in px and how bright it is (n,)."""

    electrons: np.ndarray
    ground: np.ndarray
    shifts_px: np.ndarray
    scales: np.ndarray


def refine(
    atoms_path: Path,
    aligned_path: Path,
    projections_path: Path | None,
    target: Path,
    record: Path,
    specimen: Specimen,
    settings: Refinement,
    context: Context,
    source: Input | None = None,
) -> dict[str, Any]:
    """Refine the traced atoms and give each an error bar; return the stage's numbers.

    projections_path: with counts the atoms are fitted to these instead of `aligned.h5`, and how well they are explained is written to
    `record`. source: names the optics of the probe.
    """
    atoms = read_structure(atoms_path)
    if not settings.enabled:
        write_extxyz(target, atoms, made_by=context.key)
        _forget(record)
        return {"enabled": False, "atoms": dict(sorted(Counter(atoms.symbols).items()))}
    aligned = read_projections(aligned_path)
    counts = None
    if settings.method != "least_squares" and projections_path is not None:
        counts = read_counts(projections_path, aligned_path, aligned.pixel_A)
    if counts is None and settings.method == "likelihood":
        raise InputError(
            f"{projections_path or aligned_path}: holds no counts (phases, or images that were denoised); expected electrons for "
            'refinement.method = "likelihood"; use "least_squares"'
        )
    if counts is None:
        told = _least_squares(atoms_path, aligned, target, specimen, settings, context)
        _forget(record)
        return told
    return _likelihood(atoms_path, counts, aligned, target, record, specimen, settings, context, source)


def read_counts(projections_path: Path, aligned_path: Path, pixel_A: float) -> Counts | None:
    """The counts behind `projections.h5`, placed as `aligned.h5` found; None where they are no counts any more."""
    with reading_h5(projections_path, "projections") as file:
        if file.attrs.get("denoise") != "none":
            return None
        images, level = np.asarray(file["projections"], np.float64), np.asarray(file["backgrounds"], np.float64)
        extra = float(file.attrs["read_noise_electrons"]) ** 2
    with reading_h5(aligned_path, "shifts_A", "scales", "backgrounds") as file:
        shifts_A, scales, more = (np.asarray(file[n], np.float64) for n in ("shifts_A", "scales", "backgrounds"))
    # Read noise has the variance of so many more electrons (shifted Poisson counts; Snyder et al., doi:10.1364/JOSAA.12.000272).
    electrons = np.maximum(images + level + extra, 0.0)
    ground = np.maximum(level + more[:, None, None] + extra, 0.0)
    return Counts(electrons, ground if ground.any() else np.ones_like(ground), -shifts_A[:, ::-1] / pixel_A, 1 / scales)


def _likelihood(
    atoms_path: Path,
    counts: Counts,
    aligned: Projections,
    target: Path,
    record: Path,
    specimen: Specimen,
    settings: Refinement,
    context: Context,
    source: Input | None,
) -> dict[str, Any]:
    import tomo
    from analysis.atoms import atomic_number
    from analysis.likelihood import Free, fit_counts, fit_halves
    from analysis.likelihood.halves import FEWEST_TILTS

    shape = counts.electrons.shape
    electrons = to_device(counts.electrons, context.device)
    asked = (read_structure(atoms_path), electrons, tomo.rotation(aligned.angles_deg), aligned.pixel_A)
    with told_of(atoms_path), context.console.task("refinement", "deviance") as progress:
        options: dict[str, Any] = dict(
            elements=sorted(specimen.elements, key=atomic_number),
            min_distance_A=specimen.min_distance_A,
            optics=_optics(source),
            ground=to_device(np.broadcast_to(counts.ground, shape), context.device),
            shifts_px=counts.shifts_px,
            scales=counts.scales,
            free=Free(settings.defocus, settings.widths, settings.shifts, settings.scales),
            rounds=settings.rounds if settings.search else 0,
            threads=context.workers,
        )
        found = fit_counts(*asked, **options, progress=progress)
    upper = np.triu_indices(3)
    columns = {
        "likelihood_gain": found.worth,
        "sigma_xyz_A": found.sigma_axes_A,
        "covariance_A2": found.covariance_A2[:, upper[0], upper[1]],
    }
    worst = int(found.misfit.argmax())
    told: dict[str, Any] = {
        "enabled": True,
        "method": "likelihood",
        "atoms_look_like": "a Gaussian" if options["optics"] is None else "the probe",
        "added": found.added,
        "removed": found.dropped,
        "width_A": found.widths_A,
        "electrons": found.amplitudes,
        "defocus_median_A": float(np.median(found.defocus_A)),
        "error_bar_inflation": float(found.inflation),
        "error_bar_bootstrap": float(found.bootstrap),
        "atoms": dict(sorted(Counter(found.atoms.symbols).items())),
        "sigma_median_A": float(np.median(found.atoms.sigma_A)),
        "least_likelihood_gain": float(found.worth.min()),
        "deviance": float(found.misfit.mean()),
        "worst_tilt_deg": float(aligned.angles_deg[worst, 1]),
        "worst_tilt_deviance": float(found.misfit[worst]),
        "warnings": [
            *doubts.of_optics(source),
            *doubts.of_fit(found, aligned.angles_deg),
            *doubts.of_distances(found.atoms, specimen.min_distance_A),
        ],
    }
    halves: Halves | None = None
    if settings.quality and shape[0] >= FEWEST_TILTS:
        with context.console.task("two halves", "deviance") as progress:
            try:
                halves = fit_halves(*asked, **options, progress=progress)
            except ValueError as error:
                told["warnings"].append(f"half of the series does not show the atoms: {error}")
            else:
                told |= _agreement(halves)
                told["warnings"] += doubts.of_halves(halves, aligned.angles_deg)
    _record(record, counts.electrons, found, halves, aligned, context.key)
    write_extxyz(target, found.atoms, columns, made_by=context.key)
    return told


def _forget(record: Path) -> None:
    """Remove what an earlier fit of counts kept: it is not of these atoms."""
    if made_by(record) is not None:
        record.unlink()


def _record(
    path: Path, electrons: np.ndarray, found: Fitted, halves: Halves | None, aligned: Projections, key: str
) -> None:
    """Keep what shows how well the counts are explained: all tilts in numbers, three in pictures."""
    middle = np.argsort(found.misfit)[len(found.misfit) // 2]
    chosen = (np.abs(aligned.angles_deg[:, 1]).argmin(), middle, found.misfit.argmax())
    shown = np.array(list(dict.fromkeys(int(k) for k in chosen)))
    data = {
        "angles_deg": Data(aligned.angles_deg, "deg"),
        "deviance": Data(found.misfit, ""),
        "likelihood_gain": Data(found.worth, ""),
        "shown": Data(shown, ""),
        "counts": Data(electrons[shown].astype(np.float32), "electrons"),
        "expected": Data(found.expected[shown].astype(np.float32), "electrons"),
    }
    if halves is not None:
        data["held_out_deviance"] = Data(halves.held_out, "")
        data["halves_distance_ratio"] = Data(halves.distance_A / halves.stated_A, "")
    write_h5(
        path,
        data,
        {"pixel_A": aligned.pixel_A, "least_gain": min(found.believed[symbol] for symbol in set(found.atoms.symbols))},
        key,
    )


def _agreement(halves: Halves) -> dict[str, Any]:
    return {
        "halves_atoms": [len(atoms) for atoms in halves.found],
        "halves_agreement": halves.agreement,
        "halves_distance_over_stated": halves.distance_ratio,
        "halves_renamed": halves.renamed,
        "held_out_deviance": float(halves.held_out.mean()),
        "held_out_excess": halves.excess,
        "r_work": halves.r_work,
        "r_free": halves.r_free,
    }


def _optics(source: Input | None) -> Any:
    """The probe of the input, where its voltage and aperture are known."""
    from analysis.likelihood import Optics

    if source is None or source.energy_eV is None or source.semiangle_mrad is None:
        return None
    return Optics(source.energy_eV, source.semiangle_mrad, source.c30_A or 0.0)


def _least_squares(
    atoms_path: Path,
    aligned: Projections,
    target: Path,
    specimen: Specimen,
    settings: Refinement,
    context: Context,
) -> dict[str, Any]:
    import analysis
    import tomo

    with told_of(atoms_path), context.console.task("refinement", "loss") as progress:
        result = analysis.refine(
            read_structure(atoms_path),
            aligned.images,
            tomo.rotation(aligned.angles_deg),
            aligned.pixel_A,
            min_distance_A=COLLAPSED * specimen.min_distance_A,
            iterations=settings.iterations,
            threads=context.workers,
            progress=progress,
        )
    write_extxyz(target, result.atoms, {"sigma_xyz_A": result.sigma_axes_A}, made_by=context.key)
    return {
        "enabled": True,
        "method": "least_squares",
        "removed": len(result.removed),
        "width_A": result.widths_A,
        "error_bar_inflation": float(result.inflation),
        "atoms": dict(sorted(Counter(result.atoms.symbols).items())),
        "sigma_median_A": float(np.median(result.atoms.sigma_A)),
        "loss_first": float(result.loss[0]),
        "loss_last": float(result.loss[-1]),
    }
