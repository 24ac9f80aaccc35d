"""The picture of a reconstruction under way: phase, probe, mean pattern, losses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator

from pyaet.plots.images import show_image
from pyaet.plots.ptychography import MAX_MODES, mode_shares, show_wave_phase
from pyaet.plots.style import SERIES, add_colour_bar, new_figure, quiet_axes, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ptycho import Result


@styled
def draw_live(result: Result, mean_pattern: np.ndarray, name: str) -> Figure:
    """Return phase and losses of a result so far beside its probe and the mean pattern (ky, kx)."""
    figure = new_figure(5.2)
    figure.suptitle(
        f"{name}: {len(result.loss)} iterations, loss {result.loss[-1]:.5g}", fontsize=9.5, x=0.01, ha="left"
    )
    panels = figure.subplot_mosaic(
        [["phase", "probe", "spread"], ["phase", "pattern", "loss"]], width_ratios=[1.6, 1, 1.1]
    )
    phase = projected_phase(result)
    image = show_image(panels["phase"], phase, result.pixel_A, title="phase of all slices")
    add_colour_bar(panels["phase"], image, "phase (rad)", location="bottom", shrink=0.7)
    wave = result.probe[0]
    amplitude = np.abs(wave)
    show_image(panels["probe"], amplitude / (float(amplitude.max()) or 1.0), result.pixel_A, limits=(0.0, 1.0),
               title=_shares(result.probe))  # fmt: skip
    show_wave_phase(panels["spread"], wave, result.pixel_A)
    panels["spread"].set_title("its phase")
    pattern = np.log10(np.maximum(mean_pattern, max(float(mean_pattern.max()) * 1e-5, 1e-30)))
    panels["pattern"].imshow(pattern, cmap="magma")
    panels["pattern"].set_title("mean pattern, logarithmic")
    quiet_axes(panels["pattern"])
    _losses(panels["loss"], result)
    return figure


def projected_phase(result: Result) -> np.ndarray:
    """Return the phase (y, x) of all slices in the scanned field, as it stands: neither unwrapped nor freed of a ramp."""
    reach = np.maximum(np.floor(np.abs(result.positions_A).max(0) / result.pixel_A).astype(int), 1)
    rows, columns = (
        slice(max(n // 2 - r, 0), n // 2 + r + 1) for n, r in zip(result.object.shape[-2:], reach.tolist(), strict=True)
    )
    wave = result.object[:, rows, columns]
    phase = np.angle(wave * np.exp(-1j * np.angle(wave.mean(axis=(1, 2), keepdims=True)))).sum(axis=0)
    return phase - np.median(phase)


def _shares(probe: np.ndarray) -> str:
    shares = mode_shares(probe)[:MAX_MODES]
    return "probe" if len(shares) == 1 else "probe, modes " + " ".join(f"{100 * s:.0f}" for s in shares) + " %"


def _losses(axes: Axes, result: Result) -> None:
    count = np.arange(1, len(result.loss) + 1)
    axes.plot(count, result.loss, color=SERIES[0], marker=".", label="fitted")
    if result.validation is not None:
        axes.plot(count, result.validation, color=SERIES[1], marker=".", label="held out")
        axes.legend()
    axes.set_title("loss per pattern")
    axes.set_xlabel("iteration")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(True, axis="y")
