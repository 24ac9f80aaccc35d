"""The sections along the road: each reads what it draws, and is None where its stage has left nothing to draw."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyaet.plots import images, ptychography, tomography
from pyaet.plots.results import (
    Projections,
    read_alignment,
    read_projections,
    read_ptychography,
)
from pyaet.plots.style import signed
from pyaet.report.html import Section, duration, numbers_table, picture, table
from pyaet.report.svg import figure_svg
from pyaet.stages.consistency import table_cells

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def shown(figure: Figure, name: str, description: str, caption: str = "") -> str:
    """Return a figure as a picture of the page."""
    return picture(figure_svg(figure, name, description), caption)


def stage_numbers(summary: Mapping[str, Any], stage: str, extra: Mapping[str, Any] | None = None) -> str:
    """Return the table of a stage: what the artifact itself tells, put right by the numbers of the summary."""
    told = {k: v for k, v in summary.get("stages", {}).get(stage, {}).items() if k not in ("warnings", "consistency")}
    seconds = {"seconds": told.pop("seconds")} if "seconds" in told else {}
    return numbers_table(dict(extra or {}) | told | seconds)


def _before_after(projections: Projections, directory: Path) -> tuple[Figure, str]:
    tilt = f"tilt {signed(projections.tilts_deg[projections.shown], 1)}°"
    made = read_ptychography(directory)
    if projections.raw is not None:
        titles = (f"unprocessed, {tilt}", f"projection, {tilt}")
        figure = images.draw_before_after(projections.raw, projections.image, projections.pixel_A, unit_label(projections.unit),
                                          titles, "counts")  # fmt: skip
        return figure, "The same tilt before and after conditioning, each with its own colour scale."
    pattern = projections.mean_pattern if made is None or made.mean_pattern is None else made.mean_pattern
    if pattern is not None:
        detector = None if made is None else made.detector_pixel_per_A
        titles = ("mean diffraction pattern, logarithmic", f"projection, {tilt}")
        figure = images.draw_pattern_and_projection(pattern, projections.image, projections.pixel_A,
                                                    unit_label(projections.unit), titles, detector)  # fmt: skip
        return figure, "Left: the average of all patterns of one tilt. Right: the phase projection computed from them."
    figure = images.draw_images(
        [projections.image], projections.pixel_A, [f"projection, {tilt}"], unit_label(projections.unit)
    )
    return figure, ""


def unit_label(unit: str) -> str:
    """Return the colour bar's text of a projection in `unit`."""
    return {"rad": "phase (rad)", "electrons": "signal (electrons)"}.get(unit, f"signal ({unit})")


def input_section(directory: Path, kind: str, summary: Mapping[str, Any]) -> Section | None:
    projections = read_projections(directory / "projections.h5")
    if projections is None:
        return None
    figure, caption = _before_after(projections, directory)
    numbers = {
        "tilts": projections.shape[0],
        "image": f"{projections.shape[1]} × {projections.shape[2]} pixels",
        "pixel_A": projections.pixel_A,
        "field": " × ".join(f"{n * projections.pixel_A / 10:.2f}" for n in projections.shape[1:]) + " nm (y, x)",
        "smallest tilt_deg": float(projections.tilts_deg.min()),
        "largest tilt_deg": float(projections.tilts_deg.max()),
    }
    sentence = (
        "What was measured beside what the reconstruction works with. Good: the particle stands whole inside the field on a "
        "flat, empty surrounding; bad: cut edges, ramps, streaks, or a second particle."
    )
    stage = stage_numbers(summary, "adf") if kind == "adf" else ""
    pieces = (shown(figure, "input", "Measured data beside the finished projection", caption),
              numbers_table(numbers), stage)  # fmt: skip
    return Section("input", "Input", sentence, pieces)


def ptychography_section(directory: Path, summary: Mapping[str, Any]) -> Section | None:
    made = read_ptychography(directory)
    if made is None:
        return None
    least = float(np.abs(made.tilts_deg).min())
    extra = {
        "tilts": len(made.tilts_deg),
        "slices": made.object_shape[0],
        "probe modes": made.probe.shape[0],
        "pixel_A": made.pixel_A,
        "computing time of all tilts": duration(made.wall_s),
    }
    sentence = (
        "The beam and the specimen's phase as recovered from the diffraction patterns. Good: a smooth round probe with most of "
        "its power in the first mode, losses that fall together and flatten, atoms as sharp bright dots on a flat ground; bad: "
        "a probe that carries the specimen's grain, or one tilt whose loss stays above the others."
    )
    pieces = (
        shown(ptychography.draw_probe(made.probe, made.pixel_A), "probe", "Amplitude and phase of the probe",
              f"Probe of the tilt nearest to zero ({least:.1f}°): amplitude, then phase (dark where there is no amplitude)."),
        shown(ptychography.draw_losses(made.losses, made.tilts_deg), "losses", "Loss of every tilt against iteration",
              "One line per tilt."),
        shown(ptychography.draw_phases(made.phases, [float(made.tilts_deg[k]) for k in made.shown], made.pixel_A),
              "phases", "Reconstructed phase of three tilts", "Phase summed over the slices, one colour scale."),
        stage_numbers(summary, "ptychography", extra),
        *_consistency(summary),
    )  # fmt: skip
    return Section("ptychography", "Ptychography", sentence, pieces)


def _consistency(summary: Mapping[str, Any]) -> list[str]:
    """The tilts side by side, as far as they differ."""
    rows = summary.get("stages", {}).get("ptychography", {}).get("consistency", ())
    if len(rows) < 2:
        return []
    heads, cells = table_cells(rows)
    caption = "The tilts side by side. The same lens saw the same particle: what stands apart (◄) deserves a look at that tilt."
    return [table(heads, cells, caption)]


def alignment_section(directory: Path, summary: Mapping[str, Any]) -> Section | None:
    found = read_alignment(directory / "aligned.h5")
    aligned = read_projections(directory / "aligned.h5")
    if found is None or aligned is None:
        return None
    extra = {
        "shift_max_A": float(np.abs(found.shifts_A).max()),
        "shift spread along y_A": float(found.shifts_A[:, 0].std()),
        "shift spread along x_A": float(found.shifts_A[:, 1].std()),
        "scale_spread": float(found.scales.std()),
    }
    sentence = (
        "How far each image was moved, and how its brightness was brought to the common one. Good: shifts that scatter or drift "
        "gently and scales within a few per cent of 1; bad: a single tilt that jumps away from its neighbours."
    )
    figure = tomography.draw_alignment(aligned.tilts_deg, found.shifts_A, found.scales, found.backgrounds)
    pieces = (shown(figure, "alignment", "Shift, scale and background against tilt angle"),
              stage_numbers(summary, "alignment", extra))  # fmt: skip
    return Section("alignment", "Alignment", sentence, pieces)


def sinogram_section(directory: Path) -> Section | None:
    named = [("before alignment", read_projections(directory / "projections.h5")),
             ("after alignment", read_projections(directory / "aligned.h5"))]  # fmt: skip
    series = [(title, images_) for title, images_ in named if images_ is not None]
    if not series:
        return None
    unit = unit_label(series[0][1].unit)
    figure = tomography.draw_sinograms(
        [s.central_rows for _, s in series], [s.tilts_deg for _, s in series], [s.pixel_A for _, s in series],
        [title for title, _ in series], unit,
    )  # fmt: skip
    sentence = (
        "The central row of every image, one tilt below the other. Good: atoms draw smooth waves about a straight centre; bad: "
        "rows that jump sideways (shift), rows brighter than their neighbours (scale), waves with a slanted axis (tilt axis)."
    )
    row = series[0][1].shape[1] // 2
    numbers = {"row drawn": f"{row} of {series[0][1].shape[1]}", "tilts": series[0][1].shape[0]}
    return Section("sinogram", "Sinogram", sentence, (shown(figure, "sinogram", "Sinogram of the central row before and after alignment"),
                                                      numbers_table(numbers)))  # fmt: skip
