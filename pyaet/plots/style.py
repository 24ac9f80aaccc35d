"""The common look: inks, colour maps, element colours, scale bars, colour bars.

Lines and text use the few inks named here, and the report replaces exactly these by colours that follow the reader's light or
dark page. Series colours are the palette of Okabe and Ito (https://jfly.uni-koeln.de/color/), safe for colour-blind readers;
images use perceptually uniform maps, phases of waves a cyclic one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable

P = ParamSpec("P")
R = TypeVar("R")

INK = "#22303c"
MUTED = "#657482"
FAINT = "#d5dce2"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
TRUTH = "#7d8b98"

INTENSITY_MAP = "magma"
PHASE_MAP = "twilight"
TILT_MAP = "viridis"
RING_MAP = "viridis"

FULL_WIDTH_IN = 9.4

# Hues of the CPK/Jmol tradition, with the lightness moved so that they read on white and on black.
ELEMENT_COLOURS = {
    "H": "#9aa7b3", "C": "#4a5560", "N": "#3d63d9", "O": "#d3302f", "F": "#5fb548", "Al": "#a98f98", "Si": "#e0a95c",
    "P": "#ef8a17", "S": "#d9bf1b", "Ti": "#8f9aa6", "Fe": "#c9622f", "Co": "#de7f97", "Ni": "#3fae62", "Cu": "#b87333",
    "Zn": "#7178b5", "Ge": "#3f8f8c", "Zr": "#5cb8b8", "Pd": "#0f6f97", "Ag": "#98a4b0", "Sn": "#5b6fb0", "Pt": "#8d93c7",
    "Au": "#d9a514",
}  # fmt: skip

_RC = {
    "font.family": "sans-serif",
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.labelsize": 8.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "text.color": INK,
    "lines.linewidth": 1.3,
    "lines.solid_capstyle": "round",
    "image.interpolation": "none",
    "image.origin": "upper",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.prop_cycle": matplotlib.cycler(color=list(SERIES)),  # type: ignore[attr-defined]
}


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Return the drawing function run under the common look, leaving matplotlib's own settings as they were."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(_RC):  # type: ignore[arg-type]
            return draw(*args, **kwargs)

    return drawn


def new_figure(height_in: float, width_in: float = FULL_WIDTH_IN) -> Figure:
    """Return an empty figure of the page's width in inches with automatic layout; call it inside a `styled` function."""
    return Figure(figsize=(width_in, height_in), layout="constrained")


def nice_length(limit: float) -> float:
    """Return the largest of 1, 2, 5 times a power of ten that does not exceed `limit` (> 0)."""
    power = 10.0 ** np.floor(np.log10(limit))
    return float(max(step for step in (1.0, 2.0, 5.0) if step * power <= limit * (1 + 1e-9)) * power)


def length_label(length_A: float) -> str:
    """Return a length in Å as text, in nm from 10 Å on."""
    return f"{length_A / 10:g} nm" if length_A >= 10 else f"{length_A:g} Å"


def signed(value: float, digits: int = 0) -> str:
    """Return a number as text with a true minus sign, and a plus sign where it is positive."""
    text = f"{abs(value):.{digits}f}"
    return text if not float(text) else ("−" if value < 0 else "+") + text


def add_scale_bar(
    axes: Axes,
    extent: float,
    *,
    label: Callable[[float], str] = length_label,
    share: float = 0.28,
    colour: str = "#ffffff",
) -> float:
    """Draw a scale bar at the lower left of an image whose x axis is in the bar's unit; return the bar's length.

    `extent` is the width of the image in the unit of the axis, `share` the largest part of it the bar may take.
    """
    length = nice_length(share * extent)
    transform = axes.get_xaxis_transform()
    left = min(axes.get_xlim()) + 0.05 * extent
    light = colour == "#ffffff"  # on an image, where the ground may be bright in places
    outline, halo = (
        [withStroke(linewidth=width, foreground="#000000", alpha=0.45)] if light else [] for width in (3.4, 1.6)
    )
    axes.plot([left, left + length], [0.055, 0.055], transform=transform, color=colour, linewidth=2.2,
              solid_capstyle="butt", path_effects=outline, label="_scale bar")  # fmt: skip
    axes.text(left + length / 2, 0.085, label(length), transform=transform, color=colour, ha="center", va="bottom",
              fontsize=7.5, path_effects=halo)  # fmt: skip
    return length


def add_colour_bar(axes: Axes, mappable: ScalarMappable, label: str, **options: Any) -> None:
    """Draw a thin colour bar named `label` (quantity and unit) beside the axes."""
    settings = {"shrink": 0.82, "aspect": 26, "pad": 0.02} | options
    figure = axes.get_figure(root=True)
    assert figure is not None
    bar = figure.colorbar(mappable, ax=axes, **settings)
    bar.set_label(label, color=INK)
    bar.outline.set_visible(False)
    bar.minorticks_off()
    if bar.solids is not None:  # 256 vector quadrilaterals otherwise
        bar.solids.set_rasterized(True)


def quiet_axes(axes: Axes) -> None:
    """Take ticks and frame away from an image."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _colour_distance(a: str, b: str) -> float:
    """Return the 'redmean' distance of two colours (0 to about 3)."""
    first, second = np.array(to_rgb(a)), np.array(to_rgb(b))
    mean_red = (first[0] + second[0]) / 2
    return float(np.sqrt(np.sum(np.array([2 + mean_red, 4, 3 - mean_red]) * (first - second) ** 2)))


def hex_of(rgb: np.ndarray) -> str:
    """Return the "#rrggbb" of a colour (3,) in 0 to 1."""
    red, green, blue = rgb.tolist()
    return to_hex((red, green, blue))


def _traditional_colour(symbol: str) -> str:
    if symbol in ELEMENT_COLOURS:
        return ELEMENT_COLOURS[symbol]
    from ase.data import atomic_numbers
    from ase.data.colors import jmol_colors

    rgb = np.asarray(jmol_colors[atomic_numbers.get(symbol, 0)], dtype=float)
    luminance = float(rgb @ [0.2126, 0.7152, 0.0722])
    return hex_of(rgb * min(1.0, 0.62 / max(luminance, 1e-6)))


def element_colours(symbols: Sequence[str]) -> dict[str, str]:
    """Return one colour per distinct element: the traditional one unless an earlier element already looks like it."""
    chosen: dict[str, str] = {}
    for symbol in dict.fromkeys(symbols):
        candidates = (_traditional_colour(symbol), *SERIES)
        far = [c for c in candidates if all(_colour_distance(c, other) > 0.35 for other in chosen.values())]
        chosen[symbol] = far[0] if far else candidates[0]
    return chosen


def pair_colours(pairs: Sequence[str]) -> dict[str, str]:
    """Return one series colour per pair of elements (or other series name), in the given order."""
    return {pair: SERIES[i % len(SERIES)] for i, pair in enumerate(pairs)}
