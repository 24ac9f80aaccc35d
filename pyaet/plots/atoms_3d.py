"""The particle in 3D, to be turned in a browser: flat markers for atoms, lines for bonds, translucent fans for rings.

Positions are (x, y, z) in Å; bonds are pairs of 0-based indices, rings lists of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import to_rgb

from pyaet.plots.atoms import RADII_A, RADIUS_A, radii_of
from pyaet.plots.rings import nearest_rings, ring_colours, ring_fans, ring_tables
from pyaet.plots.style import element_colours, hex_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

MAX_BONDS_3D = 25_000
MAX_RINGS_3D = 400  # of each size
VIEW_PX = 430  # height of the particle, times the diameter of 2 Å, when the page opens
ZOOM_3D = 1.42


def _bond_lines(positions_A: np.ndarray, radii: np.ndarray, bonds: np.ndarray) -> np.ndarray:
    """Return (3 m, 3) points, every bond followed by NaN; above MAX_BONDS_3D an even subset of the bonds.

    A bond runs between the surfaces of its atoms: a line to the centre would be drawn across the flat marker.
    """
    step = max(1, -(-len(bonds) // MAX_BONDS_3D))
    pairs = np.asarray(bonds, dtype=int).reshape(-1, 2)[::step]
    ends = positions_A[pairs]
    along = ends[:, ::-1] - ends
    length = np.linalg.norm(along, axis=2, keepdims=True)
    ends = ends + along * np.minimum(0.9 * radii[pairs][..., None] / np.maximum(length, 1e-9), 0.45)
    return np.concatenate([ends, np.full((len(ends), 1, 3), np.nan)], axis=1).reshape(-1, 3).astype(np.float32)


def _marker_size(positions_A: np.ndarray) -> float:
    """Return the marker's diameter in px for an atom of 1 Å radius in the view as it opens."""
    extent = float(np.ptp(positions_A, axis=0).max()) + 2.0
    return float(np.clip(VIEW_PX / extent, 2.5, 26))


def _scene(positions_A: np.ndarray) -> dict[str, Any]:
    """Return axes in Å of equal scale around the particle, seen obliquely without perspective, y up."""
    low, high = positions_A.min(axis=0) - 1.0, positions_A.max(axis=0) + 1.0
    ratio = ZOOM_3D * (high - low) / (high - low).max()
    axis = {
        "showbackground": False,
        "gridcolor": "#a9b3bc",
        "zeroline": False,
        "showspikes": False,
        "nticks": 7,
    }
    axes = {f"{n}axis": axis | {"title": {"text": f"{n} (Å)"}, "range": [float(low[k]), float(high[k])]}
            for k, n in enumerate("xyz")}  # fmt: skip
    return axes | {
        "aspectmode": "manual", "aspectratio": dict(zip("xyz", map(float, ratio), strict=True)), "dragmode": "orbit",
        "camera": {"projection": {"type": "orthographic"}, "up": {"x": 0, "y": 1, "z": 0},
                   "eye": {"x": -0.62, "y": 0.42, "z": 1.2}},
    }  # fmt: skip


def _darker(colour: str) -> str:
    return hex_of(0.5 * np.array(to_rgb(colour)))


def _element_trace(
    positions_A: np.ndarray, index: np.ndarray, symbol: str, colour: str, size: float, hover: dict[str, np.ndarray]
) -> Any:
    import plotly.graph_objects as go

    x, y, z = positions_A[index].astype(np.float32).T
    lines = [f"{name} %{{customdata[{k + 1}]:{'.1f' if 'pm' in name else '.3f'}}}" for k, name in enumerate(hover)]
    data = np.stack([index, *(v[index] for v in hover.values())], axis=1).astype(np.float32)
    return go.Scatter3d(
        x=x, y=y, z=z, mode="markers", name=f"{symbol} ({len(index)})", customdata=data,
        marker={"size": size * RADII_A.get(symbol, RADIUS_A), "color": colour, "opacity": 1.0,
                "line": {"color": _darker(colour), "width": 1}},  # opaque: an alpha would switch the depth test off
        hovertemplate="<br>".join([f"<b>{symbol}</b> atom %{{customdata[0]:.0f}}", *lines]) + "<extra></extra>",
    )  # fmt: skip


def _smallest_type(values: np.ndarray) -> np.ndarray:
    """Return indices in the smallest unsigned integers that hold them: they are written out byte by byte."""
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))


def _ring_traces(positions_A: np.ndarray, rings: Iterable[Sequence[int]]) -> list[Any]:
    """Return one trace per ring size, hidden until the legend is clicked; of many rings those in the middle."""
    import plotly.graph_objects as go

    tables, traces = ring_tables(rings), []
    for size, colour in ring_colours(tables).items():
        table = nearest_rings(positions_A, tables[size], MAX_RINGS_3D)
        points, triangles = ring_fans(positions_A, table)
        x, y, z = points.astype(np.float32).T
        i, j, k = _smallest_type(triangles).T
        count = f"{len(table)} of {len(tables[size])}" if len(table) < len(tables[size]) else f"{len(table)}"
        traces.append(go.Mesh3d(x=x, y=y, z=z, i=i, j=j, k=k, color=colour, opacity=0.45, flatshading=True,
                                hoverinfo="skip", name=f"rings of {size} ({count})", showlegend=True, visible="legendonly",
                                lighting={"ambient": 0.75, "diffuse": 0.35, "specular": 0.05}))  # fmt: skip
    return traces


def atoms_in_3d(
    positions_A: np.ndarray,
    symbols: Sequence[str],
    bonds: np.ndarray | None = None,
    *,
    sigma_A: np.ndarray | None = None,
    species_probability: np.ndarray | None = None,
    truth: tuple[np.ndarray, Sequence[str]] | None = None,
    rings: Iterable[Sequence[int]] = (),
) -> go.Figure:
    """Return a plotly figure of the particle that can be turned, hover naming species, index, error bar and probability.

    The truth (positions, symbols), moved to the same centre, and the rings of each size are traces that the legend switches on.
    """
    import plotly.graph_objects as go

    names, size = np.asarray(symbols), _marker_size(positions_A)
    hover = {"σ (pm)": 100 * sigma_A if sigma_A is not None else None, "probability of species": species_probability}
    known = {name: np.asarray(values) for name, values in hover.items() if values is not None}
    figure = go.Figure()
    if bonds is not None and len(bonds):
        x, y, z = _bond_lines(positions_A, radii_of(symbols), bonds).T
        figure.add_trace(go.Scatter3d(x=x, y=y, z=z, mode="lines", name=f"bonds ({len(bonds)})", hoverinfo="skip",
                                      line={"color": "#8b97a2", "width": 4}))  # fmt: skip
    for symbol, colour in element_colours(sorted(set(symbols))).items():
        figure.add_trace(_element_trace(positions_A, np.flatnonzero(names == symbol), symbol, colour, size, known))
    if truth is not None:
        x, y, z = (truth[0] - truth[0].mean(axis=0) + positions_A.mean(axis=0)).astype(np.float32).T
        figure.add_trace(go.Scatter3d(x=x, y=y, z=z, mode="markers", name="truth", visible="legendonly", text=list(truth[1]),
                                      hovertemplate="truth: %{text}<extra></extra>",
                                      marker={"size": size * 0.4, "color": "#000000", "symbol": "cross"}))  # fmt: skip
    figure.add_traces(_ring_traces(positions_A, rings))
    figure.update_layout(
        template="none", paper_bgcolor="rgba(0,0,0,0)", margin={"l": 0, "r": 0, "t": 0, "b": 0},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "#8b97a2", "activecolor": "#0b6fa8"},
        legend={"x": 0.01, "y": 0.99, "itemsizing": "constant", "bgcolor": "rgba(0,0,0,0)"},
        scene=_scene(positions_A),
    )  # fmt: skip
    return figure
