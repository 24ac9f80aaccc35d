"""Pictures of what a volume is worth: R-factors, agreement of two halves, mismatch of every tilt, the missing wedge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.patches import Wedge as Sector
from matplotlib.ticker import MaxNLocator

from pyaet.plots.results import VolumeQuality
from pyaet.plots.style import FAINT, INK, MUTED, SERIES, new_figure, signed, styled
from tomo.fsc import THRESHOLD

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@styled
def draw_quality(found: VolumeQuality) -> Figure:
    """Return R-factors against iteration, R of every tilt and, of a judged volume, correlation of halves and the wedge."""
    drawers = [show_iterations] if len(found.r_factor) > 1 else []
    if found.fsc:
        drawers.append(show_correlation)
    if found.tilt_r is not None:
        drawers.append(show_tilts)
    if found.plane_deg is not None:
        drawers.append(show_wedge)
    rows = (len(drawers) + 1) // 2
    figure = new_figure(2.7 * rows)
    panels = figure.subplots(rows, min(2, len(drawers)), squeeze=False).ravel()
    for axes, draw in zip(panels, drawers, strict=False):
        draw(axes, found)
    for axes in panels[len(drawers) :]:
        axes.set_axis_off()
    return figure


def show_iterations(axes: Axes, found: VolumeQuality) -> None:
    """R-factor of all tilts, and of those held out while the number of iterations was sought."""
    below = found.r_free is not None
    _trace(axes, found.r_factor, SERIES[0], "fitted", lift_pt=-13 if below else 7)
    if found.r_free is not None:
        _trace(axes, found.r_free, SERIES[1], "held out (trial)", at=len(found.r_factor))
        axes.axvline(len(found.r_factor), color=MUTED, linewidth=0.7, zorder=0)
        axes.legend()
    top = np.nanmax(found.r_factor if found.r_free is None else np.concatenate([found.r_factor, found.r_free]))
    axes.set_ylim(0, 1.12 * float(top))
    axes.set_xlabel("iteration")
    axes.set_ylabel("R-factor Σ|Ax − b| / Σ|b|")
    axes.set_title("R-factor")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.grid(True, axis="y")


def show_correlation(axes: Axes, found: VolumeQuality) -> None:
    """Fourier shell correlation of the two halves, all directions and along each axis, with the threshold."""
    names = {"resolution_A": "all", "resolution_x_A": "x", "resolution_y_A": "y", "resolution_z_A": "z"}
    for colour, (key, part) in zip((INK, *SERIES), names.items(), strict=False):
        reached = found.resolution_A[key]
        label = ("all directions" if part == "all" else f"along {part}") + (
            f": {reached:.3g} Å" if np.isfinite(reached) else ": –"
        )
        axes.plot(found.frequency_per_A, found.fsc[part], color=colour, linewidth=1.8 if part == "all" else 1.0,
                  label=label, zorder=3 if part == "all" else 2)  # fmt: skip
    axes.axhline(THRESHOLD, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    axes.text(0.01, THRESHOLD + 0.02, f"{THRESHOLD}", transform=axes.get_yaxis_transform(), color=MUTED, va="bottom")
    whole = found.resolution_A["resolution_A"]
    if np.isfinite(whole):
        axes.axvline(1 / whole, ymax=0.4, color=MUTED, linewidth=0.7, zorder=0)
    axes.set_ylim(-0.2, 1.42)
    axes.set_yticks(np.arange(0, 1.1, 0.25))
    axes.set_xlim(0, found.frequency_per_A[-1])
    axes.set_xlabel("spatial frequency (Å⁻¹)")
    axes.set_ylabel("correlation of the halves")
    axes.set_title("Fourier shell correlation")
    axes.legend(loc="upper center", ncols=2)
    axes.grid(True, axis="y")


def show_tilts(axes: Axes, found: VolumeQuality) -> None:
    """R-factor of every tilt, fitted and with the half volume that had not seen it; those that stand out are named."""
    assert found.tilt_r is not None
    kinds = [("fitted", found.tilt_r, SERIES[0])]
    if found.unseen_r is not None:
        kinds.append(("not seen by the volume", found.unseen_r, SERIES[1]))
    order = np.argsort(found.tilts_deg, kind="stable")
    for label, r, colour in kinds:
        axes.plot(
            found.tilts_deg[order], r[order], marker="o", markersize=2.8, linewidth=0.8, color=colour, label=label
        )
    highest = np.fmax.reduce([r for _, r, _ in kinds])
    for k in found.stray_tilts:
        axes.annotate(f"tilt {k}, {signed(found.tilts_deg[k])}°", (found.tilts_deg[k], highest[k]), xytext=(0, 5),
                      textcoords="offset points", ha="center", color=INK)  # fmt: skip
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.05 * (high - low), high + 0.3 * (high - low))
    axes.set_xlabel("tilt θ (°)")
    axes.set_ylabel("R-factor of the tilt")
    axes.set_title("Mismatch of every tilt")
    axes.legend(loc="upper center", ncols=2)
    axes.grid(True, axis="y")


def show_wedge(axes: Axes, found: VolumeQuality) -> None:
    """The planes of frequencies that were measured, seen along the tilt axis, and the wedge between them."""
    assert found.plane_deg is not None
    axes.add_patch(Sector((0, 0), 1, 0, 360, facecolor="none", edgecolor=FAINT, linewidth=0.8))
    if found.wedge_deg:
        start = _wedge_start(found.plane_deg, found.wedge_deg)
        for turn in (0, 180):
            axes.add_patch(Sector((0, 0), 1, start + turn, start + turn + found.wedge_deg, facecolor=SERIES[1],
                                  edgecolor="none", alpha=0.3))  # fmt: skip
    for angle in np.deg2rad(found.plane_deg):
        axes.plot(np.cos(angle) * np.array([-1, 1]), np.sin(angle) * np.array([-1, 1]), color=SERIES[0], linewidth=0.7)
    across, up = ("x", "z") if found.about_y else ("0°", "90°")
    axes.text(1.06, 0, across, ha="left", va="center", color=INK)
    axes.text(0, 1.06, up, ha="center", va="bottom", color=INK)
    axes.set_xlim(-1.6, 1.6)
    axes.set_ylim(-1.1, 1.2)
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set_title(f"Missing wedge: {found.wedge_deg:.3g}°" if found.wedge_deg else "No missing wedge")


def _trace(axes: Axes, values: np.ndarray, colour: str, label: str, at: int | None = None, lift_pt: float = 7) -> None:
    """A curve over iterations with one of its values, the last unless said, written `lift_pt` above it."""
    k = len(values) if at is None else at
    axes.plot(np.arange(1, len(values) + 1), values, color=colour, label=label)
    axes.plot([k], [values[k - 1]], marker="o", markersize=4, color=colour)
    axes.annotate(f"{values[k - 1]:.4g}", (k, values[k - 1]), xytext=(-2, lift_pt), textcoords="offset points", ha="right",
                  color=INK)  # fmt: skip


def _wedge_start(plane_deg: np.ndarray, opening_deg: float) -> float:
    """The plane behind which the widest gap, of the given opening, begins."""
    ordered = np.sort(plane_deg)
    gaps = np.mod(np.roll(ordered, -1) - ordered, 180.0)
    return float(ordered[np.abs(gaps - opening_deg).argmin()])
