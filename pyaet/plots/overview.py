"""One wide picture of a run: what was measured, a projection, a slice of the volume, the atoms, the rings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pyaet.plots.atoms import show_atoms
from pyaet.plots.images import show_image, show_pattern
from pyaet.plots.results import (
    bonds_of,
    read_json,
    read_model,
    read_projections,
    read_ptychography,
    read_volume,
)
from pyaet.plots.structure import show_ring_sizes
from pyaet.plots.style import new_figure, signed, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Panel = Callable[["Axes"], object]


def _measured(directory: Path) -> Panel | None:
    made = read_ptychography(directory)
    if made is not None and made.mean_pattern is not None:
        pattern, pixel = made.mean_pattern, made.detector_pixel_per_A
        return lambda axes: show_pattern(axes, pattern, pixel, title="diffraction pattern", bar=False)
    series = read_projections(directory / "projections.h5")
    if series is not None and series.raw is not None:
        raw, pixel_A = series.raw, series.pixel_A
        return lambda axes: show_image(axes, raw, pixel_A, title="measured image")
    return None


def _projection(directory: Path) -> Panel | None:
    series = read_projections(directory / "aligned.h5") or read_projections(directory / "projections.h5")
    if series is None:
        return None
    title = f"projection, 1 of {len(series.tilts_deg)} ({signed(series.tilts_deg[series.shown])}°)"
    return lambda axes: show_image(axes, series.image, series.pixel_A, title=title)


def _slice(directory: Path) -> Panel | None:
    volume = read_volume(directory / "volume.h5")
    if volume is None:
        return None
    top = max(float(np.percentile(volume.slices[0], 99.95)), 1e-12)
    return lambda axes: show_image(
        axes, volume.slices[0], volume.voxel_A, title="slice of the volume", limits=(0.0, top)
    )


def _atoms(directory: Path) -> Panel | None:
    model = read_model(directory / "atoms.extxyz")
    if model is None or not model.symbols:
        return None
    bonds = bonds_of(read_json(directory / "rings.json"), len(model.symbols))
    counts = ", ".join(f"{n} {symbol}" for symbol, n in model.counts().items())
    return lambda axes: show_atoms(axes, model.positions_A, model.symbols, bonds, title=f"atoms: {counts}")


def _rings(directory: Path) -> Panel | None:
    record = read_json(directory / "rings.json")
    sizes, truth = ({int(k): int(v) for k, v in record.get(name, {}).items()} for name in ("sizes", "truth_sizes"))
    if not sizes:
        return None

    def draw(axes: Axes) -> None:
        show_ring_sizes(axes, sizes, truth)
        axes.set_title("rings of the network")
        axes.set_box_aspect(1)

    return draw


@styled
def draw_overview(directory: Path) -> Figure:
    """Return one wide figure on white of whatever a run directory holds, panels in the order of the road.

    Raises `ValueError` when nothing can be drawn.
    """
    makers = (_measured, _projection, _slice, _atoms, _rings)
    panels = [panel for panel in (make(Path(directory)) for make in makers) if panel is not None]
    if not panels:
        raise ValueError(
            f"{directory}: found no result to draw; expected the directory of a run with projections.h5 or later files"
        )
    figure = new_figure(2.75, 2.6 * len(panels))
    figure.set_facecolor("white")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)  # type: ignore[union-attr, call-arg]
    for axes, draw in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        draw(axes)
    return figure
