"""Pictures of a fit of the counts: how well every tilt is explained, what is left of it, what the atoms are worth, two halves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pyaet.plots.images import show_image
from pyaet.plots.results import Fit
from pyaet.plots.style import INK, MUTED, SERIES, new_figure, signed, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_SIGMAS = 4.0
RESIDUAL_MAP = "RdBu_r"


@styled
def draw_fit(found: Fit) -> Figure:
    """Return the deviance of every tilt, the likelihood gains and, of a series fitted in two halves, how these agree."""
    drawers = [show_deviance, show_gains] + ([show_halves] if found.halves_ratio is not None else [])
    figure = new_figure(2.7)
    for axes, draw in zip(figure.subplots(1, len(drawers), squeeze=False).ravel(), drawers, strict=True):
        draw(axes, found)
    return figure


def show_deviance(axes: Axes, found: Fit) -> None:
    """Deviance of every tilt by its own fit, and by the half that had not seen it, where 1 is the noise of counting."""
    order = np.argsort(found.tilts_deg, kind="stable")
    kinds = [("fitted", found.deviance, SERIES[0])]
    if found.held_out is not None:
        kinds.append(("not seen by the fit", found.held_out, SERIES[1]))
    for label, values, colour in kinds:
        axes.plot(
            found.tilts_deg[order], values[order], marker="o", markersize=2.8, linewidth=0.8, color=colour, label=label
        )
    axes.axhline(1.0, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.35 * (high - low))
    axes.set_xlabel("tilt θ (°)")
    axes.set_ylabel("deviance / that of noise")
    axes.set_title("Mismatch of every tilt")
    axes.legend(loc="upper center")
    axes.grid(True, axis="y")


def show_gains(axes: Axes, found: Fit) -> None:
    """How much each atom adds to the log-likelihood, on a logarithmic axis, with what is asked of an atom."""
    gains = np.maximum(found.gains, 0.5 * found.believed)
    axes.hist(gains, bins=np.geomspace(gains.min(), 1.05 * gains.max(), 40).tolist(), color=SERIES[0])
    axes.axvline(found.believed, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.set_xscale("log")
    axes.set_xlabel("gain in log-likelihood")
    axes.set_ylabel("atoms")
    axes.set_title("What each atom is worth")


def show_halves(axes: Axes, found: Fit) -> None:
    """Distances between the atoms of two halves in units of their stated errors, and how they would be distributed."""
    assert found.halves_ratio is not None
    ratio = found.halves_ratio
    bins = np.linspace(0, max(3.0, float(np.quantile(ratio, 0.995))), 31)
    axes.hist(np.clip(ratio, 0, bins[-1]), bins=bins.tolist(), density=True, color=SERIES[0], label="found")
    x = np.linspace(0, bins[-1], 200)
    # Of three equal errors in units of their root mean square: Maxwell's distribution.
    axes.plot(x, np.sqrt(2 / np.pi) * 3**1.5 * x**2 * np.exp(-1.5 * x**2), color=INK, label="as stated")
    axes.set_xlabel("distance / stated")
    axes.set_ylabel("density of pairs")
    axes.set_title("Atoms of two halves")
    axes.legend()


@styled
def draw_residuals(found: Fit) -> Figure:
    """Return counts, expectation and what is left, in standard deviations, of some tilts, one row each."""
    figure = new_figure(2.3 * len(found.shown))
    rows = figure.subplots(len(found.shown), 3, squeeze=False)
    for row, k, counts, expected in zip(rows, found.shown, found.counts, found.expected, strict=True):
        name = f"tilt {k}, {signed(found.tilts_deg[k], 1)}°"
        limits = (float(expected.min()), max(float(expected.max()), float(expected.min()) + 1e-6))
        show_image(row[0], counts, found.pixel_A, title=f"counts, {name}", unit="electrons", limits=limits)
        show_image(row[1], expected, found.pixel_A, title="expected of the atoms", unit="electrons", limits=limits)
        left = (counts - expected) / np.sqrt(expected)
        show_image(row[2], left, found.pixel_A, title="what is left", unit="standard deviations",
                   limits=(-MOST_SIGMAS, MOST_SIGMAS), colour_map=RESIDUAL_MAP)  # fmt: skip
    return figure
