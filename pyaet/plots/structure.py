"""Pictures of the atomic structure: pair distribution, bond lengths, ring sizes, each with the truth's where it is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator

from pyaet.plots.style import INK, MUTED, SERIES, TRUTH, new_figure, pair_colours, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curves = Mapping[str, Sequence[float] | np.ndarray]


@styled
def draw_pair_distribution(r_A: np.ndarray, g: Curves, truth: tuple[np.ndarray, Curves] | None = None) -> Figure:
    """Return g(r) of every pair of elements in panels above each other, r in Å; the truth (r, g) is drawn beneath in grey."""
    figure = new_figure(0.6 + 1.05 * len(g))
    panels = figure.subplots(len(g), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (pair, colour) in zip(panels, pair_colours(list(g)).items(), strict=True):
        if truth is not None and pair in truth[1]:
            axes.fill_between(truth[0], np.asarray(truth[1][pair]), color=TRUTH, alpha=0.35, linewidth=0, label="truth")
        axes.plot(r_A, g[pair], color=colour, label=pair)
        axes.axhline(1, color=MUTED, linewidth=0.7, linestyle=(0, (2, 3)), zorder=0)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("g(r)")
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.legend(loc="upper right", ncols=2)
    panels[-1].set_xlabel("distance r (Å)")
    panels[-1].set_xlim(0, float(np.max(r_A)))
    return figure


def _length_edges(samples: Sequence[np.ndarray], bins: int) -> np.ndarray:
    values = np.concatenate(samples)
    low, high = np.percentile(values, (0.2, 99.8))
    margin = 0.05 * max(float(high - low), 0.05)
    return np.linspace(low - margin, high + margin, bins + 1)


@styled
def draw_bond_lengths(lengths_A: Curves, truth_A: Curves | None = None, *, bins: int = 60) -> Figure:
    """Return histograms of bond lengths in Å per pair of elements; the truth's are outlined."""
    found = {pair: np.asarray(values, dtype=float) for pair, values in lengths_A.items() if len(values)}
    known = {pair: np.asarray(values, dtype=float) for pair, values in (truth_A or {}).items() if len(values)}
    figure = new_figure(2.6)
    axes = figure.subplots()
    edges = _length_edges([*found.values(), *known.values()], bins).tolist()
    for pair, colour in pair_colours(list(found)).items():
        axes.hist(
            found[pair], bins=edges, color=colour, alpha=0.6, label=f"{pair}, median {np.median(found[pair]):.2f} Å"
        )
        if pair in known:
            axes.hist(known[pair], bins=edges, histtype="step", color=INK, linewidth=1.0, label=f"{pair}, truth")
    axes.set_xlabel("bond length (Å)")
    axes.set_ylabel("bonds per bin")
    axes.grid(True, axis="y")
    axes.set_axisbelow(True)
    axes.legend()
    return figure


def show_ring_sizes(axes: Axes, sizes: Mapping[int, int], truth: Mapping[int, int] | None = None) -> None:
    """Draw the number of rings of each size as bars, the truth's as grey bars beside them."""
    every = np.arange(min([*sizes, *(truth or {})]), max([*sizes, *(truth or {})]) + 1)
    width = 0.4 if truth else 0.7
    shift = width / 2 if truth else 0.0
    axes.bar(every - shift, [sizes.get(int(n), 0) for n in every], width, color=SERIES[0], label="found")
    if truth:
        axes.bar(every + shift, [truth.get(int(n), 0) for n in every], width, color=TRUTH, label="truth")
        axes.legend()
    axes.set_xlabel("atoms in the ring")
    axes.set_ylabel("rings")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(True, axis="y")
    axes.set_axisbelow(True)


@styled
def draw_ring_sizes(sizes: Mapping[int, int], truth: Mapping[int, int] | None = None) -> Figure:
    """Return the histogram of ring sizes {atoms: rings} with the truth's beside it when given."""
    figure = new_figure(2.6)
    show_ring_sizes(figure.subplots(), sizes, truth)
    return figure
