"""Pictures of the atomic structure: distances, angles, numbers of bonds, ring sizes, scattering, with 95 % bands.

What is drawn comes from `structure.json`. A statistic is a mapping with "value" and, where atoms have error bars, "low"
and "high": the limits of what was there before errors moved the atoms. A histogram has "edges" besides. The same
statistic of a reference, where one is known, lies beneath or beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from pyaet.plots.style import FULL_WIDTH_IN, INK, MUTED, SERIES, TRUTH, new_figure, pair_colours, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

Record = Mapping[str, Any]
Sizes = Mapping[int, Any]

BAND = "95 % band"
MAX_KINDS = 6
COLUMNS = 3
SHOWN_SHARE = 0.998  # of the members; the rest may lie beyond the axis
WEIGHTS = {"xray": "X-rays", "neutron": "neutrons", "electron": "electrons"}


def total(record: Record | None) -> float:
    """Return the number of members of a histogram."""
    return float(np.nansum(np.asarray((record or {}).get("value", ()), dtype=float)))


def has_limits(record: Record) -> bool:
    """Return whether a statistic tells its limits."""
    return record.get("low") is not None and record.get("high") is not None


def tells_limits(structure: Record) -> bool:
    """Return whether any statistic of a structure tells its limits."""
    return any(has_limits(v) or tells_limits(v) for v in structure.values() if isinstance(v, Mapping))


def _array(record: Record, name: str) -> np.ndarray:
    return np.asarray(record[name], dtype=float)


def most_frequent(kinds: Mapping[str, Record], most: int = MAX_KINDS) -> dict[str, Record]:
    """Return the kinds with the most members, in the given order, empty ones left out."""
    chosen = sorted((kind for kind in kinds if total(kinds[kind]) > 0), key=lambda kind: -total(kinds[kind]))[:most]
    return {kind: record for kind, record in kinds.items() if kind in chosen}


def _show_curve(axes: Axes, r_A: np.ndarray, curve: Record, colour: str, label: str) -> None:
    if has_limits(curve):
        axes.fill_between(
            r_A, _array(curve, "low"), _array(curve, "high"), color=colour, alpha=0.3, linewidth=0, label=BAND
        )
    axes.plot(r_A, _array(curve, "value"), color=colour, linewidth=1.0, label=label)


def _show_pair_distribution(figure: FigureBase, found: Record, reference: Record | None, name: str) -> None:
    known = reference["g"] if reference else {}
    g, r_A = found["g"], _array(found, "r_A")
    panels = figure.subplots(len(g), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (pair, colour) in zip(panels, pair_colours(list(g)).items(), strict=True):
        if reference and pair in known:
            axes.fill_between(_array(reference, "r_A"), _array(known[pair], "value"), color=TRUTH, alpha=0.35,
                              linewidth=0, label=name)  # fmt: skip
        _show_curve(axes, r_A, g[pair], colour, pair)
        axes.axhline(1, color=MUTED, linewidth=0.7, linestyle=(0, (2, 3)), zorder=0)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("g(r)")
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.legend(loc="upper right", ncols=3)
    panels[-1].set_xlabel("distance r (Å)")
    panels[-1].set_xlim(0, float(np.max(r_A)))


@styled
def draw_pair_distribution(found: Record, reference: Record | None = None, name: str = "truth") -> Figure:
    """Return g(r) of every pair of elements in panels above each other, r in Å, with band; the reference in grey.

    found, reference: {"r_A": (n,), "g": {pair: statistic of n values}}.
    """
    figure = new_figure(0.6 + 1.05 * len(found["g"]))
    _show_pair_distribution(figure, found, reference, name)
    return figure


def _density(record: Record, name: str, members: float) -> np.ndarray:
    return _array(record, name) / (np.diff(_array(record, "edges")) * max(members, 1e-12))


def _on_bins_of(record: Record, found: Record) -> Record:
    """Return a histogram on the bins of another, carried on beyond its ends; unchanged where its own bins are wider.

    A band tells the limits of what lies in its bins, so only the same bins show whether the reference keeps to it.
    """
    edges, own = _array(found, "edges"), _array(record, "edges")
    width = float(edges[1] - edges[0])
    if width < float(own[1] - own[0]) * (1 - 1e-9):
        return record
    before, after = (max(0, int(np.ceil(gap / width - 1e-9))) for gap in (edges[0] - own[0], own[-1] - edges[-1]))
    every = edges[0] + width * np.arange(-before, len(edges) + after)
    below = np.concatenate([[0], np.cumsum(np.nan_to_num(_array(record, "value")))])
    return {"edges": every, "value": np.diff(np.interp(every, own, below))}


def _span(records: list[Record]) -> tuple[float, float]:
    """Return the range that holds nearly all members of the fullest part of each histogram, with a margin."""
    ends = []
    for record in records:
        edges = _array(record, "edges")
        share = np.concatenate([[0], np.cumsum(np.nan_to_num(_array(record, "value")))]) / max(total(record), 1e-12)
        first = int(np.searchsorted(share, (1 - SHOWN_SHARE) / 2, side="right")) - 1
        last = int(np.searchsorted(share, (1 + SHOWN_SHARE) / 2))
        ends.append((edges[max(first, 0)], edges[min(last, len(edges) - 1)]))
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    margin = 0.04 * (high - low)
    return float(low - margin), float(high + margin)


def _show_histogram(axes: Axes, found: Record, reference: Record | None, name: str) -> None:
    edges, members = _array(found, "edges"), total(found)
    if has_limits(found):
        low, high = (_density(found, limit, members) for limit in ("low", "high"))
        axes.stairs(high, edges, baseline=low, fill=True, color=SERIES[0], alpha=0.3, linewidth=0, label=BAND)
    axes.stairs(_density(found, "value", members), edges, color=SERIES[0], linewidth=1.2, label="found")
    shown = [found]
    if reference is not None and total(reference) > 0:
        known = _on_bins_of(reference, found)
        axes.stairs(_density(known, "value", total(known)), _array(known, "edges"), color=INK, linewidth=0.9,
                    linestyle=(0, (4, 2)), label=name)  # fmt: skip
        shown.append(known)
    axes.set_xlim(*_span(shown))
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _legend_above(figure: FigureBase, axes: list[Axes]) -> None:
    """Put the legend of panels that share their labels above them, once."""
    told: dict[str, Any] = {}
    for one in axes:
        told |= dict(reversed(pair) for pair in zip(*one.get_legend_handles_labels(), strict=True))
    figure.legend(list(told.values()), list(told), loc="outside upper right", ncols=len(told))


def _show_histograms(
    figure: FigureBase,
    found: Mapping[str, Record],
    reference: Mapping[str, Record],
    label: str,
    name: str,
    columns: int,
) -> None:
    kinds = most_frequent(found)
    columns = min(columns, len(kinds))
    rows = -(-len(kinds) // columns)
    panels = figure.subplots(rows, columns, squeeze=False)
    unit = label[label.rfind("(") + 1 : -1]
    for axes, (kind, record) in zip(panels.flat, kinds.items(), strict=False):
        _show_histogram(axes, record, reference.get(kind), name)
        axes.set_title(f"{kind} ({total(record):.0f})")
    for axes in panels.flat[len(kinds) :]:
        axes.set_visible(False)
    for axes in panels[:, 0]:
        axes.set_ylabel(f"share per {unit}")
    for k, axes in enumerate(panels.flat[: len(kinds)]):
        if k + columns >= len(kinds):
            axes.set_xlabel(label)
    _legend_above(figure, list(panels.flat[: len(kinds)]))


@styled
def draw_histograms(
    found: Mapping[str, Record], reference: Mapping[str, Record] | None, label: str, name: str = "truth"
) -> Figure:
    """Return a panel per kind of bond or angle, the six most frequent: density found, its band, the reference.

    found, reference: histograms by kind; each is a density of its own number of members. label: of the axis, its unit
    in parentheses at the end.
    """
    rows = -(-len(most_frequent(found)) // COLUMNS)
    figure = new_figure(0.55 + 1.75 * max(rows, 1))
    _show_histograms(figure, found, reference or {}, label, name, COLUMNS)
    return figure


def _as_record(value: Any) -> Record:
    return value if isinstance(value, Mapping) else {"value": value}


def _show_bars(axes: Axes, at: np.ndarray, width: float, records: list[Record], colour: str, label: str) -> None:
    """Draw bars of the values, with a line from low to high on each that has limits."""
    axes.bar(at, [float(r.get("value") or 0) for r in records], width, color=colour, label=label)
    told = [(x, r["low"], r["high"]) for x, r in zip(at, records, strict=True) if has_limits(r)]
    if told:
        x, low, high = np.array(told, dtype=float).T
        axes.errorbar(
            x,
            low,
            [np.zeros(len(low)), high - low],
            fmt="none",
            ecolor=INK,
            elinewidth=1.3,
            capsize=2.5,
            label="95 % limits",
        )


def _show_beside(
    axes: Axes, every: np.ndarray, found: Sizes, reference: Sizes | None, name: str, colour: str = SERIES[0]
) -> None:
    """Draw bars at whole numbers, the reference's in grey beside them."""
    width = 0.4 if reference else 0.7
    shift = width / 2 if reference else 0.0
    _show_bars(axes, every - shift, width, [_as_record(found.get(int(n), 0)) for n in every], colour, "found")
    if reference:
        _show_bars(axes, every + shift, width, [_as_record(reference.get(int(n), 0)) for n in every], TRUTH, name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(True, axis="y")
    axes.set_axisbelow(True)


def show_ring_sizes(axes: Axes, sizes: Sizes, truth: Sizes | None = None, name: str = "truth") -> None:
    """Draw the number of rings of each size as bars, the truth's as grey bars beside them.

    A number is plain or a statistic with limits, which are drawn as error bars.
    """
    every = np.arange(min([*sizes, *(truth or {})]), max([*sizes, *(truth or {})]) + 1)
    _show_beside(axes, every, sizes, truth, name)
    axes.set_xlabel("atoms in the ring")
    axes.set_ylabel("rings")
    if truth or any(has_limits(_as_record(value)) for value in sizes.values()):
        axes.legend()


@styled
def draw_ring_sizes(sizes: Sizes, truth: Sizes | None = None, name: str = "truth") -> Figure:
    """Return the histogram of ring sizes {atoms: rings}, with error bars where told, the truth's beside it."""
    figure = new_figure(2.6)
    show_ring_sizes(figure.subplots(), sizes, truth, name)
    return figure


@styled
def draw_structure_factor(found: Record, reference: Record | None = None, name: str = "truth") -> Figure:
    """Return S(q) over q in Å⁻¹ as each kind of radiation would see it, the reference's in grey beneath.

    found, reference: {"q_per_A": (n,), "S": {"xray", "neutron", "electron": (n,)}}.
    """
    weights = [weight for weight in WEIGHTS if weight in found["S"]]
    figure = new_figure(2.6)
    panels = figure.subplots(1, len(weights), sharex=True, sharey=True, squeeze=False)[0]
    q = _array(found, "q_per_A")
    for k, (axes, weight) in enumerate(zip(panels, weights, strict=True)):
        if reference and weight in reference["S"]:
            axes.plot(
                _array(reference, "q_per_A"),
                _array(reference["S"], weight),
                color=TRUTH,
                linewidth=2.6,
                alpha=0.6,
                label=name,
            )
        axes.plot(q, _array(found["S"], weight), color=SERIES[k], linewidth=1.1, label="found")
        axes.axhline(1, color=MUTED, linewidth=0.7, linestyle=(0, (2, 3)), zorder=0)
        axes.set_title(WEIGHTS[weight])
        axes.set_xlabel("q = 4π sin θ / λ (Å⁻¹)")
        if reference:
            axes.legend(loc="upper right")
    panels[0].set_ylabel("S(q)")
    panels[0].set_xlim(0, float(q.max()))
    return figure


def _shares(counts: Record) -> dict[int, Record]:
    """Return the percentage of the atoms per number of bonds."""
    factor = 100 / max(total(counts), 1e-12)
    names = [name for name in ("value", "low", "high") if counts.get(name) is not None]
    return {k: {name: factor * counts[name][k] for name in names} for k in range(len(counts["value"]))}


def _occurring(shares: Sizes) -> list[int]:
    return [number for number, share in shares.items() if share["value"] > 0.05]


@styled
def draw_coordination(
    found: Mapping[str, Record], reference: Mapping[str, Record] | None = None, name: str = "truth"
) -> Figure:
    """Return the share of the atoms of each element with 0, 1, … bonds, with limits, the reference's beside it.

    found, reference: {element: {"mean": bonds, "counts": statistic indexed by the number of bonds}}.
    """
    figure = new_figure(2.5)
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for axes, (element, record) in zip(panels, found.items(), strict=True):
        own, other = _shares(record["counts"]), (reference or {}).get(element)
        known = _shares(other["counts"]) if other else None
        numbers = [*_occurring(own), *_occurring(known or {})] or [0]
        every = np.arange(max(min(numbers) - 1, 0), max(numbers) + 2)
        _show_beside(axes, every, own, known, name)
        axes.set_title(f"{element}, mean {record['mean']:.2f}" + (f", {name} {other['mean']:.2f}" if other else ""))
        axes.set_xlabel("bonds of the atom")
    panels[0].set_ylabel("atoms of the element (%)")
    _legend_above(figure, list(panels))
    return figure


def atoms_counted(structure: Record) -> int:
    """Return the number of atoms of a structure."""
    return int(sum((structure.get("atoms") or {}).values()))


def ring_sizes(structure: Record) -> dict[int, Record]:
    """Return the statistics of rings by size."""
    return {int(size): _as_record(value) for size, value in (structure.get("ring_sizes") or {}).items()}


def reference_sizes(found: Record, reference: Record | None, name: str) -> tuple[dict[int, Record], str]:
    """Return the rings of the reference and what it is called; for as many atoms as found if it has far more or fewer."""
    sizes = ring_sizes(reference or {})
    here, there = atoms_counted(found), atoms_counted(reference or {})
    if not (here and there) or abs(here / there - 1) < 0.2:
        return sizes, name
    scaled: dict[int, Record] = {
        size: {"value": float(record["value"]) * here / there} for size, record in sizes.items()
    }
    return scaled, f"{name}, for as many atoms"


def _structure_panels(found: Record, reference: Record | None, name: str) -> list[Any]:
    """Return what draws each part that a structure holds into a figure."""
    other = reference or {}
    panels: list[Any] = []
    if (found.get("pair_distribution") or {}).get("g"):
        panels.append(
            lambda f: _show_pair_distribution(f, found["pair_distribution"], other.get("pair_distribution"), name)
        )
    for key, label in (("bond_lengths_A", "bond length (Å)"), ("bond_angles_deg", "bond angle (°)")):
        kinds = most_frequent(found.get(key) or {}, 2 if key == "bond_lengths_A" else 4)
        if kinds:
            known = other.get(key) or {}
            panels.append(lambda f, k=kinds, o=known, x=label: _show_histograms(f, k, o, x, name, 2))
    if ring_sizes(found):
        known, told = reference_sizes(found, reference, name)
        panels.append(lambda f: show_ring_sizes(f.subplots(), ring_sizes(found), known, told))
    return panels


@styled
def draw_structure(found: Record, reference: Record | None = None, name: str = "truth") -> Figure:
    """Return g(r), bond lengths, bond angles and ring sizes of a structure on one white figure, with the reference's.

    found, reference: as in `structure.json`; missing parts are left out. Raises `ValueError` when none is there.
    """
    panels = _structure_panels(found, reference, name)
    if not panels:
        raise ValueError("the structure holds no pair distribution, bonds, angles or rings; nothing to draw")
    rows = -(-len(panels) // 2)
    figure = new_figure(3.6 * rows, 1.2 * FULL_WIDTH_IN)
    figure.set_facecolor("white")
    parts = figure.subfigures(rows, min(2, len(panels)), squeeze=False)
    for part, draw in zip(parts.flat, panels, strict=False):
        draw(part)
    return figure
