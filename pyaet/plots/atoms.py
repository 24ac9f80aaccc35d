"""Pictures of atoms: intensities of the candidates, error bars, still views of the particle.

Positions are (x, y, z) in Å. Species are spoken of by their symbols; bonds are pairs of 0-based indices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.collections import EllipseCollection, LineCollection
from matplotlib.colors import to_rgb

from pyaet.plots.style import (
    INK,
    MUTED,
    add_scale_bar,
    element_colours,
    new_figure,
    quiet_axes,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NON_ATOM = "not an atom"
NON_ATOM_COLOUR = "#a7b1ba"
DEPTH_LAYERS = 24
RADII_A = {"H": 0.35, "C": 0.5, "N": 0.5, "O": 0.48, "F": 0.48, "Si": 0.68}
RADIUS_A = 0.8


@styled
def draw_candidates(
    intensity: np.ndarray,
    label: np.ndarray,
    elements: Sequence[str],
    boundaries: Sequence[float] = (),
    *,
    bins: int = 60,
) -> Figure:
    """Return the stacked histogram of candidate intensities (n,) by class, with the boundaries between classes.

    `label` (n,) is -1 for a rejected candidate, else an index into `elements`.
    """
    colours = element_colours(elements)
    classes = [(-1, NON_ATOM, NON_ATOM_COLOUR)] + [(k, symbol, colours[symbol]) for k, symbol in enumerate(elements)]
    figure = new_figure(2.7)
    axes = figure.subplots()
    axes.hist(
        [intensity[label == k] for k, _, _ in classes],
        bins=np.linspace(float(intensity.min()), float(intensity.max()) + 1e-12, bins + 1).tolist(),
        stacked=True,
        color=[colour for _, _, colour in classes],
        label=[f"{name} ({int(np.sum(label == k))})" for k, name, _ in classes],
    )
    for k, boundary in enumerate(boundaries):
        axes.axvline(boundary, color=INK, linewidth=1.0, linestyle=(0, (4, 3)), label=None if k else "boundary")
    axes.set_xlabel("integrated intensity of the candidate (arbitrary unit)")
    axes.set_ylabel("candidates per bin")
    axes.grid(True, axis="y")
    axes.set_axisbelow(True)
    axes.legend()
    return figure


@styled
def draw_sigmas(sigma_A: np.ndarray, symbols: Sequence[str], *, bins: int = 50) -> Figure:
    """Return histograms of the atoms' error bars in pm, one outline per element, with the medians marked.

    `sigma_A` (n,) is the standard deviation of one coordinate in Å; NaN means unknown and is left out.
    """
    sigma_pm = 100 * np.asarray(sigma_A)
    known = np.isfinite(sigma_pm)
    figure = new_figure(2.6)
    axes = figure.subplots()
    top = float(np.percentile(sigma_pm[known], 99.5)) * 1.05 if known.any() else 1.0
    edges = np.linspace(0, top, bins + 1)
    names = np.asarray(symbols)
    for symbol, colour in element_colours(sorted(set(symbols))).items():
        own = np.minimum(sigma_pm[known & (names == symbol)], edges[-1])
        if own.size:
            axes.hist(own, bins=edges.tolist(), color=colour, alpha=0.55, edgecolor=colour, histtype="stepfilled",
                      label=f"{symbol}, median {np.median(own):.1f} pm")  # fmt: skip
            axes.axvline(float(np.median(own)), color=colour, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.set_xlabel("error bar σ of one coordinate (pm)")
    axes.set_ylabel("atoms per bin")
    axes.grid(True, axis="y")
    axes.set_axisbelow(True)
    axes.legend()
    return figure


def radii_of(symbols: Sequence[str]) -> np.ndarray:
    """Return the radius in Å at which each atom is drawn."""
    return np.array([RADII_A.get(s, RADIUS_A) for s in symbols])


def view_matrix(azimuth_deg: float = 28.0, elevation_deg: float = 18.0) -> np.ndarray:
    """Return the (3, 3) rotation of specimen points into right, up and towards the viewer; the tilt axis y points up."""
    a, e = np.radians([azimuth_deg, elevation_deg])
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(e), -np.sin(e)], [0, np.sin(e), np.cos(e)]])
    return about_x @ about_y


def _disks(seen: np.ndarray, radii: np.ndarray, rgb: np.ndarray, near: np.ndarray) -> EllipseCollection:
    """Return atoms as three concentric-to-offset disks each (rim, body, highlight), farther atoms faded; back to front."""
    fade = 0.45 * (1 - near)[:, None]
    body = rgb * (1 - fade) + 0.62 * fade
    colours = np.stack([body * 0.55, body, 1 - (1 - body) * 0.45], axis=1).reshape(-1, 3)
    sizes = 2 * radii[:, None] * np.array([1.0, 0.88, 0.34])
    shift = radii[:, None, None] * np.array([[0.0, 0.0], [-0.03, 0.03], [-0.3, 0.3]])
    offsets = (seen[:, None, :2] + shift).reshape(-1, 2)
    flat = sizes.ravel()
    return EllipseCollection(flat, flat, np.zeros(flat.size), units="xy", offsets=offsets, facecolors=colours,
                             linewidths=0, rasterized=True)  # fmt: skip


def show_atoms(
    axes: Axes, positions_A: np.ndarray, symbols: Sequence[str], bonds: np.ndarray | None = None, *, title: str = "",
    view: np.ndarray | None = None, extent_A: float | None = None, bar_colour: str = MUTED,
) -> None:  # fmt: skip
    """Draw atoms as shaded disks and bonds as sticks from back to front, tilt axis up, with a scale bar.

    `extent_A` fixes the width of the picture in Å, so that two particles can be compared.
    """
    seen = (positions_A - positions_A.mean(axis=0)) @ (view_matrix() if view is None else view).T
    colours = element_colours(sorted(set(symbols)))
    rgb = np.array([to_rgb(colours[s]) for s in symbols])
    radii = radii_of(symbols)
    pairs = np.zeros((0, 2), dtype=int) if bonds is None else np.asarray(bonds, dtype=int).reshape(-1, 2)
    depth = seen[:, 2]
    near = (depth - depth.min()) / max(float(np.ptp(depth)), 1e-9)
    layer = np.minimum((near * DEPTH_LAYERS).astype(int), DEPTH_LAYERS - 1)
    bond_layer = layer[pairs].min(axis=1)
    for k in range(DEPTH_LAYERS):
        sticks = seen[pairs[bond_layer == k]][..., :2]
        grey = 0.62 - 0.22 * k / DEPTH_LAYERS
        axes.add_collection(
            LineCollection(list(sticks), colors=[(grey, grey, grey)], linewidths=1.5, rasterized=True, zorder=k)
        )
        own = np.flatnonzero(layer == k)
        own = own[np.argsort(depth[own])]
        disks = _disks(seen[own], radii[own], rgb[own], near[own])
        disks.set_offset_transform(axes.transData)
        disks.set_zorder(k + 0.5)
        axes.add_collection(disks)
    half = (extent_A or 2 * float(np.abs(seen[:, :2]).max()) + 3.0) / 2
    axes.set(xlim=(-half, half), ylim=(-half, half), aspect="equal", title=title)
    quiet_axes(axes)
    add_scale_bar(axes, 2 * half, share=0.25, colour=bar_colour)


@styled
def draw_atoms(
    positions_A: np.ndarray,
    symbols: Sequence[str],
    bonds: np.ndarray | None = None,
    truth: tuple[np.ndarray, Sequence[str]] | None = None,
) -> Figure:
    """Return still views of the particle: obliquely and along the beam, or beside the truth (positions, symbols) if given."""
    extent = 2 * float(np.linalg.norm(positions_A - positions_A.mean(axis=0), axis=1).max()) + 2.0
    figure = new_figure(4.6)
    left, right = figure.subplots(1, 2)
    show_atoms(left, positions_A, symbols, bonds, title=f"found, {len(symbols)} atoms", extent_A=extent)
    if truth is None:
        along_beam = np.diag([1.0, -1.0, -1.0])  # image y runs down
        show_atoms(right, positions_A, symbols, bonds, title="seen along the beam", view=along_beam, extent_A=extent)
    else:
        show_atoms(right, truth[0], truth[1], title=f"truth, {len(truth[1])} atoms", extent_A=extent)
    return figure
