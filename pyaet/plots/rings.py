"""Rings of the network in space: translucent fans from the ring's centre, coloured by the number of atoms in the ring.

Positions are (x, y, z) in Å; a ring is the list of the 0-based indices of its atoms, in order around it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import BoundaryNorm, ListedColormap, to_rgb

from pyaet.plots.atoms import DEPTH_LAYERS, view_matrix
from pyaet.plots.style import MUTED, RING_MAP, add_colour_bar, add_scale_bar, hex_of, new_figure, quiet_axes, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DRAWN_RINGS = 60
SMALLEST_RING = 3
SURROUNDINGS_A = 4.0  # of the rings drawn, whose bonds are shown


def ring_tables(rings: Iterable[Sequence[int]]) -> dict[int, np.ndarray]:
    """Return {size: indices (m, size)}, sizes increasing."""
    by_size: dict[int, list[Sequence[int]]] = {}
    for ring in rings:
        by_size.setdefault(len(ring), []).append(ring)
    return {size: np.asarray(by_size[size], dtype=int) for size in sorted(by_size) if size >= SMALLEST_RING}


def nearest_rings(positions_A: np.ndarray, table: np.ndarray, most: int) -> np.ndarray:
    """Return the rings of a table (m, size), at most so many: those nearest to the centre of the particle."""
    away = np.linalg.norm(positions_A[table].mean(axis=1) - positions_A.mean(axis=0), axis=1)
    return table[np.argsort(away, kind="stable")[:most]]


def ring_fans(positions_A: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return points (p, 3) in Å and triangles (t, 3), indices into them: a fan from each ring's centre to its edges."""
    m, size = table.shape
    around = positions_A[table]
    points = np.concatenate([around.mean(axis=1, keepdims=True), around], axis=1)
    k = np.arange(size)
    fan = np.stack([np.zeros(size, dtype=int), 1 + k, 1 + (k + 1) % size], axis=1)
    triangles = (size + 1) * np.arange(m)[:, None, None] + fan
    return points.reshape(-1, 3), triangles.reshape(-1, 3)


def ring_colours(sizes: Iterable[int]) -> dict[int, str]:
    """Return a colour per ring size, evenly along a sequential map from the smallest to the largest."""
    every = sorted(sizes)
    places = np.linspace(0.08, 0.92, len(every)) if len(every) != 1 else np.array([0.5])
    return {
        size: hex_of(np.array(matplotlib.colormaps[RING_MAP](x)[:3])) for size, x in zip(every, places, strict=True)
    }


def _shaded(corners: np.ndarray, rgb: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Return colours (t, 3) of triangles (t, 3, 3): darker when seen from the side, paler when farther away."""
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    facing = np.abs(normal[:, 2]) / np.maximum(np.linalg.norm(normal, axis=1), 1e-9)
    lit = rgb * (0.62 + 0.38 * facing[:, None])
    fade = 0.5 * (1 - near)[:, None]
    return lit * (1 - fade) + 0.85 * fade


def _layers(depth: np.ndarray, low: float, high: float) -> np.ndarray:
    share = (depth - low) / max(high - low, 1e-9)
    return np.clip((share * DEPTH_LAYERS).astype(int), 0, DEPTH_LAYERS - 1)


def _grey_bonds(axes: Axes, ends: np.ndarray, low: float, high: float) -> None:
    layer = _layers(ends[..., 2].mean(axis=1), low, high)
    for k in range(DEPTH_LAYERS):
        grey = 0.86 - 0.28 * k / DEPTH_LAYERS
        axes.add_collection(LineCollection(list(ends[layer == k][..., :2]), colors=[(grey,) * 3], linewidths=0.8, alpha=0.7,
                                           rasterized=True, zorder=k))  # fmt: skip


def _coloured_rings(axes: Axes, corners: np.ndarray, rgb: np.ndarray, low: float, high: float) -> None:
    """Draw triangles (t, 3, 3) of fans from back to front, the edge between two atoms of the ring as a line."""
    depth = corners[..., 2].mean(axis=1)
    near = np.clip((depth - depth.min()) / max(float(np.ptp(depth)), 1e-9), 0, 1)
    colours = _shaded(corners, rgb, near)
    layer = _layers(depth, low, high)
    for k in np.unique(layer):
        own = np.flatnonzero(layer == k)
        own = own[np.argsort(depth[own])]
        axes.add_collection(PolyCollection(list(corners[own][..., :2]), facecolors=colours[own], edgecolors="none",
                                           alpha=0.75, rasterized=True, zorder=k + 0.3))  # fmt: skip
        axes.add_collection(LineCollection(list(corners[own][:, 1:, :2]), colors=0.55 * colours[own], linewidths=1.0,
                                           rasterized=True, zorder=k + 0.6))  # fmt: skip


def _chosen(positions_A: np.ndarray, tables: Mapping[int, np.ndarray], most: int) -> dict[int, np.ndarray]:
    """Return the rings nearest to the centre of the particle, so many of all sizes together."""
    middle = positions_A.mean(axis=0)
    away = {size: np.linalg.norm(positions_A[table].mean(axis=1) - middle, axis=1) for size, table in tables.items()}
    every = np.sort(np.concatenate([np.zeros(0), *away.values()]))
    limit = every[min(most, len(every)) - 1] if len(every) else 0.0
    return {size: table[away[size] <= limit] for size, table in tables.items() if (away[size] <= limit).any()}


def _size_bar(axes: Axes, colours: Mapping[int, str]) -> None:
    """Draw a bar of the colours of ring sizes, a field for each size."""
    sizes = list(colours)
    norm = BoundaryNorm(np.arange(len(sizes) + 1) - 0.5, len(sizes))
    mappable = ScalarMappable(norm, ListedColormap(list(colours.values())))
    add_colour_bar(
        axes, mappable, "atoms in the ring", ticks=range(len(sizes)), format=lambda k, _: f"{sizes[round(k)]}"
    )


@styled
def draw_rings(
    positions_A: np.ndarray, bonds: np.ndarray, rings: Iterable[Sequence[int]], *, most: int = DRAWN_RINGS
) -> Figure:
    """Return still views, obliquely and along the beam, of the rings nearest the centre in colour, the bonds around in grey.

    positions_A: (n, 3). bonds: (m, 2). most: rings drawn. Raises `ValueError` when there is no ring.
    """
    tables = ring_tables(rings)
    if not tables:
        raise ValueError("no rings to draw; look for them first, or allow larger ones")
    chosen = _chosen(positions_A, tables, most)
    colours = ring_colours(tables)
    figure = new_figure(4.6)
    panels = figure.subplots(1, 2)
    views = {"obliquely": view_matrix(), "along the beam": np.diag([1.0, -1.0, -1.0])}  # image y runs down
    drawn = sum(map(len, chosen.values()))
    away = np.linalg.norm(positions_A - positions_A.mean(axis=0), axis=1)
    half = min(max(float(away[table].max()) for table in chosen.values()) + SURROUNDINGS_A, float(away.max()) + 0.5)
    pairs = np.asarray(bonds, dtype=int).reshape(-1, 2)
    pairs = pairs[(away[pairs] <= half).all(axis=1)]
    for axes, (title, view) in zip(panels, views.items(), strict=True):
        _show_rings(axes, (positions_A - positions_A.mean(axis=0)) @ view.T, pairs, chosen, colours, half)
        axes.set_title(f"{drawn} ring{'' if drawn == 1 else 's'}, {title}")
    _size_bar(panels[1], colours)
    return figure


def _show_rings(
    axes: Axes, seen: np.ndarray, bonds: np.ndarray, tables: Mapping[int, np.ndarray], colours: Mapping[int, str],
    half: float,
) -> None:  # fmt: skip
    """Draw bonds and rings of positions (n, 3) as seen (right, up, towards the viewer) within ± half Å."""
    low, high = -half, half
    if len(bonds):
        _grey_bonds(axes, seen[bonds], low, high)
    corners, rgb = [], []
    for size, table in tables.items():
        points, triangles = ring_fans(seen, table)
        corners.append(points[triangles])
        rgb.append(np.broadcast_to(to_rgb(colours[size]), (len(triangles), 3)))
    _coloured_rings(axes, np.concatenate(corners), np.concatenate(rgb), low, high)
    axes.set(xlim=(-half, half), ylim=(-half, half), aspect="equal")
    quiet_axes(axes)
    add_scale_bar(axes, 2 * half, share=0.25, colour=MUTED)
