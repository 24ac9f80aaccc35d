"""The road of pyaet as one picture: tilt series, projections, alignment, volume, atoms, rings.

Every vignette is computed from one small model, a jittered fragment of cristobalite, by the same arithmetic a real run
goes through: patterns by a Fourier transform, images by projection, the sinogram by tilting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.patches import Circle, FancyArrowPatch

from pyaet.plots.atoms import show_atoms
from pyaet.plots.style import INK, INTENSITY_MAP, MUTED, SERIES, new_figure, quiet_axes, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FIELD_A = 20.0
_SIDE = 128
_ACROSS = (np.arange(_SIDE) - _SIDE // 2) * _FIELD_A / _SIDE
_STATIONS = (
    ("projections", "one image per tilt"),
    ("alignment", "shift, scale, background"),
    ("volume", "RESIRE"),
    ("atoms", "trace, name, refine"),
    ("rings", "bonds, ring statistics"),
)


def _fragment() -> tuple[np.ndarray, list[str], np.ndarray]:
    """Return positions (n, 3) in Å, symbols and bonds of a ball cut from jittered beta-cristobalite."""
    base = np.array([(0, 0, 0), (0, 2, 2), (2, 0, 2), (2, 2, 0), (1, 1, 1), (1, 3, 3), (3, 1, 3), (3, 3, 1)]) / 4
    cells = np.stack(np.meshgrid(*[np.arange(-2, 2)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    silicon = ((cells + base) * 7.16).reshape(-1, 3)
    first, second = np.nonzero(np.triu(np.linalg.norm(silicon[:, None] - silicon, axis=2) < 3.3, 1))
    sites = np.concatenate([silicon, (silicon[first] + silicon[second]) / 2])
    names = np.array(["Si"] * len(silicon) + ["O"] * len(first))
    kept = np.linalg.norm(sites - 0.9, axis=1) < 7.8
    sites, names = sites[kept] + np.random.default_rng(5).normal(0, 0.22, (int(kept.sum()), 3)), names[kept]
    near = np.triu(np.linalg.norm(sites[:, None] - sites, axis=2) < 2.4, 1) & (names[:, None] != names)
    return sites - sites.mean(axis=0), names.tolist(), np.argwhere(near)


def _blobs(y_A: np.ndarray, x_A: np.ndarray, weights: np.ndarray, width_A: float = 0.5) -> np.ndarray:
    rows = np.exp(-((_ACROSS[:, None] - y_A) ** 2) / (2 * width_A**2)) * weights
    return rows @ np.exp(-((_ACROSS[:, None] - x_A) ** 2) / (2 * width_A**2)).T


def _tilted(points: np.ndarray, tilt_deg: float) -> np.ndarray:
    """Return x and z of the points after a tilt about y, x' = x cos θ + z sin θ."""
    c, s = np.cos(np.radians(tilt_deg)), np.sin(np.radians(tilt_deg))
    return np.stack([points[:, 0] * c + points[:, 2] * s, points[:, 2] * c - points[:, 0] * s], axis=1)


def _image(points: np.ndarray, weights: np.ndarray, tilt_deg: float) -> np.ndarray:
    return _blobs(points[:, 1], _tilted(points, tilt_deg)[:, 0], weights)


def _pattern(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the logarithm of a convergent-beam pattern of the fragment, centred."""
    q = np.hypot(*np.meshgrid(*[np.fft.fftfreq(_SIDE, _FIELD_A / _SIDE)] * 2))
    probe = np.fft.fftshift(np.fft.ifft2((q < 0.85) * np.exp(9j * q**2)))
    exit_wave = probe * np.exp(0.9j * _image(points, weights, 0.0))
    return np.fft.fftshift(np.log(np.abs(np.fft.fft2(exit_wave)) ** 2 + 1e-5))


def _picture(axes: Axes, image: np.ndarray, at: tuple[float, float], size: float, **options: Any) -> None:
    """Draw an image in a square of the vignette, `at` its lower left corner."""
    left, low = at
    axes.imshow(image, cmap=INTENSITY_MAP, extent=(left, left + size, low, low + size), aspect="auto", **options)
    axes.plot([left, left + size, left + size, left, left], [low, low, low + size, low + size, low], color="white",
              linewidth=1.2, zorder=options.get("zorder", 1) + 0.1)  # fmt: skip


def _stack(axes: Axes, images: list[np.ndarray]) -> None:
    for k, image in enumerate(images):
        shift = 0.11 * k
        _picture(axes, image, (0.02 + shift, 0.26 - shift), 0.7, zorder=k + 1)


def _sinogram(axes: Axes, points: np.ndarray, weights: np.ndarray) -> None:
    """Draw rows of tilted specimens: the upper half with jumps, the lower half aligned."""
    central = np.abs(points[:, 1]) < 2.5
    rows = np.stack([_image(points[central], weights[central], tilt)[_SIDE // 2] for tilt in np.linspace(-75, 75, 64)])
    jumps = np.random.default_rng(2).integers(-7, 8, 32)
    rows[:32] = [np.roll(row, jump) for row, jump in zip(rows[:32], jumps, strict=True)]
    _picture(axes, rows, (0.04, 0.04), 0.92)
    axes.plot([0.04, 0.96], [0.5, 0.5], color="white", linewidth=1.0, linestyle=(0, (3, 3)), zorder=3)


def _volume(axes: Axes, points: np.ndarray, weights: np.ndarray) -> None:
    """Draw three nearly parallel slices of the density, one behind the other."""
    slices = [
        _blobs(points[:, 1], points[:, 0], weights * np.exp(-((points[:, 2] - z) ** 2) / 2)) for z in (-3.5, 0.0, 3.5)
    ]
    _stack(axes, slices)


def _ring(axes: Axes, points: np.ndarray, names: list[str], bonds: np.ndarray) -> None:
    """Draw the smallest ring through the middle of the fragment over its neighbours."""
    import networkx as nx

    cycles = nx.minimum_cycle_basis(nx.Graph(bonds.tolist()))
    ring = min(cycles, key=lambda cycle: (len(cycle), float(np.linalg.norm(points[cycle].mean(axis=0)))))
    centre = points[ring].mean(axis=0)
    normal = np.linalg.svd(points[ring] - centre)[2]
    view = normal * np.array([[1.0], [1.0], [np.sign(np.linalg.det(normal))]])
    inside = np.isin(bonds, ring).all(axis=1)
    index = {atom: k for k, atom in enumerate(ring)}
    pairs = np.array([[index[a], index[b]] for a, b in bonds[inside].tolist()])
    axes.add_patch(Circle((0, 0), 2.1, color=SERIES[5], alpha=0.18, linewidth=0))
    axes.text(0, 0, str(len(ring)), ha="center", va="center", fontsize=13, color=SERIES[0])
    show_atoms(axes, points[ring], [names[k] for k in ring], pairs, view=view, extent_A=11.0, bar_colour="none")


def _caption(axes: Axes, name: str, method: str) -> None:
    axes.text(
        0.5, -0.05, name, transform=axes.transAxes, ha="center", va="top", fontsize=10.5, color=INK, fontweight="bold"
    )
    axes.text(0.5, -0.19, method, transform=axes.transAxes, ha="center", va="top", fontsize=8.5, color=MUTED)


def _arrow(figure: Figure, start: tuple[float, float], end: tuple[float, float], bend: float = 0.0) -> None:
    figure.add_artist(FancyArrowPatch(start, end, transform=figure.transFigure, arrowstyle="-|>", mutation_scale=11, linewidth=1.3,
                                      color=MUTED, shrinkA=0, shrinkB=0, connectionstyle=f"arc3,rad={bend}"))  # fmt: skip


def _panel(figure: Figure, left: float, low: float, width: float, height: float) -> Axes:
    axes = figure.add_axes((left, low, width, height))
    axes.set(xlim=(0, 1), ylim=(0, 1))
    quiet_axes(axes)
    return axes


@styled
def draw_road() -> Figure:
    """Return the picture of the road on white: 4D-STEM or ADF tilt series to projections, volume, atoms and rings."""
    points, names, bonds = _fragment()
    weights = np.where(np.array(names) == "Si", 1.0, 0.6)
    figure = new_figure(3.3, 13.2)
    figure.set_layout_engine("none")
    figure.set_facecolor("white")
    wide, tall, pitch, first, low = 0.111, 0.444, 0.1655, 0.213, 0.31

    pattern, adf = _panel(figure, 0.02, 0.615, 0.085, 0.34), _panel(figure, 0.02, 0.115, 0.085, 0.34)
    _picture(pattern, _pattern(points, weights), (0.03, 0.03), 0.94)
    noisy = np.random.default_rng(1).poisson(6 * _image(points, weights, 20.0) + 1)[::2, ::2]
    _picture(adf, noisy, (0.03, 0.03), 0.94)
    for axes, text in ((pattern, "4D-STEM tilt series"), (adf, "ADF-STEM tilt series")):
        axes.text(
            0.5, -0.03, text, transform=axes.transAxes, ha="center", va="top", fontsize=9, color=INK, fontweight="bold"
        )
    _arrow(figure, (0.111, 0.755), (first - 0.004, 0.62), -0.12)
    _arrow(figure, (0.111, 0.315), (first - 0.004, 0.46), 0.12)
    figure.text(0.163, 0.765, "ptychography", ha="center", fontsize=8.5, color=MUTED)
    figure.text(0.163, 0.27, "conditioning", ha="center", fontsize=8.5, color=MUTED)

    panels = [_panel(figure, first + k * pitch, low, wide, tall) for k in range(len(_STATIONS))]
    _stack(panels[0], [_image(points, weights, tilt) for tilt in (-50.0, 50.0, 0.0)])
    _sinogram(panels[1], points, weights)
    _volume(panels[2], points, weights)
    show_atoms(panels[3], points, names, bonds, extent_A=18.0, bar_colour="none")
    _ring(panels[4], points, names, bonds)
    for axes, (name, method) in zip(panels, _STATIONS, strict=True):
        _caption(axes, name, method)
    for k in range(len(panels) - 1):
        right = first + k * pitch + wide
        _arrow(figure, (right + 0.007, low + tall / 2), (right + pitch - wide - 0.006, low + tall / 2))
    return figure
