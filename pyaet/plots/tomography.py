"""Pictures of alignment and reconstruction: shifts and scales, sinograms, central slices, the R-factor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pyaet.plots.images import MAX_SIDE, robust_range, show_image
from pyaet.plots.style import (
    INTENSITY_MAP,
    MUTED,
    SERIES,
    add_colour_bar,
    add_scale_bar,
    new_figure,
    signed,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _dots(axes: Axes, tilts_deg: np.ndarray, values: np.ndarray, colour: str, label: str | None = None) -> None:
    order = np.argsort(tilts_deg, kind="stable")
    axes.plot(tilts_deg[order], values[order], marker="o", markersize=2.8, linewidth=0.8, color=colour, label=label)
    axes.set_xlabel("tilt θ (°)")
    axes.grid(True, axis="y")


@styled
def draw_alignment(
    tilts_deg: np.ndarray, shifts_A: np.ndarray, scales: np.ndarray, backgrounds: np.ndarray, unit: str = "image unit"
) -> Figure:
    """Return shifts (n, 2) in Å as (y, x), scales (n,) and backgrounds (n,) in `unit` against the tilt angle in degrees."""
    figure = new_figure(2.6)
    left, middle, right = figure.subplots(1, 3)
    _dots(left, tilts_deg, shifts_A[:, 0], SERIES[0], "along y (tilt axis)")
    _dots(left, tilts_deg, shifts_A[:, 1], SERIES[1], "along x")
    left.axhline(0, color=MUTED, linewidth=0.7, zorder=0)
    left.set_ylabel("shift (Å)")
    left.set_title("Shift applied")
    left.margins(y=0.22)
    left.legend(loc="upper center", ncols=2, columnspacing=1.0, handlelength=1.2)
    _dots(middle, tilts_deg, scales, SERIES[2])
    middle.axhline(1, color=MUTED, linewidth=0.7, zorder=0)
    middle.set_ylabel("scale (factor)")
    middle.set_title("Brightness scale")
    _dots(right, tilts_deg, backgrounds, SERIES[3])
    right.set_ylabel(f"background ({unit})")
    right.set_title("Background removed")
    return figure


def _show_sinogram(
    axes: Axes, rows: np.ndarray, tilts_deg: np.ndarray, pixel_A: float, title: str, unit: str | None
) -> None:
    order = np.argsort(tilts_deg, kind="stable")
    step = max(1, -(-rows.shape[1] // (2 * MAX_SIDE)))
    width = rows.shape[1] * pixel_A
    low, high = robust_range(rows)
    picture = axes.imshow(rows[order][:, ::step], aspect="auto", cmap=INTENSITY_MAP, vmin=low, vmax=high,
                          extent=(0, width, len(rows), 0))  # fmt: skip
    marked = np.unique(np.linspace(0, len(rows) - 1, min(7, len(rows))).round().astype(int))
    axes.set_yticks(marked + 0.5, [signed(tilts_deg[order][k]) for k in marked])
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.set_ylabel("tilt θ (°)")
    axes.set_title(title)
    add_scale_bar(axes, width)
    if unit is not None:
        add_colour_bar(axes, picture, unit)


@styled
def draw_sinograms(
    rows: Sequence[np.ndarray],
    tilts_deg: Sequence[np.ndarray],
    pixels_A: Sequence[float],
    titles: Sequence[str],
    unit: str,
) -> Figure:
    """Return sinograms (n, x) of one image row, tilts sorted by angle from top to bottom, one panel each."""
    figure = new_figure(3.3)
    panels = figure.subplots(1, len(rows), squeeze=False)[0]
    for axes, sinogram, tilts, pixel_A, title in zip(panels, rows, tilts_deg, pixels_A, titles, strict=True):
        _show_sinogram(axes, sinogram, np.asarray(tilts), pixel_A, title, unit)
    return figure


@styled
def draw_slices(slices: Sequence[np.ndarray], voxel_A: float) -> Figure:
    """Return the three central slices of a volume, given as (y, x) at z = 0, (z, x) at y = 0 and (z, y) at x = 0."""
    names = (("x", "y", "z"), ("x", "z", "y"), ("y", "z", "x"))
    top = max(robust_range(s, 0.2, 99.95)[1] for s in slices)
    figure = new_figure(3.45)
    panels = figure.subplots(1, 3)
    for k, (axes, image, (across, down, normal)) in enumerate(zip(panels, slices, names, strict=True)):
        unit = "density (arbitrary unit)" if k == 2 else None
        show_image(axes, image, voxel_A, title=f"{normal} = 0", unit=unit, limits=(0.0, top))
        axes.set_xlabel(f"{across} →")
        axes.set_ylabel(f"← {down}")
    return figure
