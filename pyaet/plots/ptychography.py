"""Pictures of the ptychographic reconstruction: the probe's modes, the loss of every tilt, the phase of a few tilts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import LogLocator

from pyaet.plots.images import draw_images, show_image, shrink
from pyaet.plots.style import PHASE_MAP, TILT_MAP, add_colour_bar, add_scale_bar, new_figure, quiet_axes, signed, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_MODES = 3


def mode_shares(probe: np.ndarray) -> np.ndarray:
    """Return the share of the total power in each mode of the probe (mode, y, x); zeros for an empty probe."""
    power = np.asarray(np.sum(np.abs(probe) ** 2, axis=(1, 2), dtype=np.float64))
    return power / power.sum() if power.sum() > 0 else power


def show_wave_phase(axes: Axes, wave: np.ndarray, pixel_A: float) -> None:
    """Draw the phase of a wave (y, x), fading to transparent where its amplitude vanishes."""
    block = shrink(np.abs(wave))[1]
    coarse = wave[::block, ::block]
    amplitude = np.abs(coarse)
    alpha = np.clip(amplitude / max(float(amplitude.max()) * 0.08, 1e-30), 0, 1)
    rgba = colormaps[PHASE_MAP](np.angle(coarse) / (2 * np.pi) + 0.5)
    rgba[..., :3] *= alpha[..., None]
    width = coarse.shape[1] * block * pixel_A
    axes.imshow(rgba, extent=(0, width, coarse.shape[0] * block * pixel_A, 0))
    quiet_axes(axes)
    add_scale_bar(axes, width)


@styled
def draw_probe(probe: np.ndarray, pixel_A: float) -> Figure:
    """Return amplitude and phase of the first modes of a probe (mode, y, x), complex, pixel in Å."""
    shown = probe[:MAX_MODES]
    shares = mode_shares(probe)
    count = len(shown)
    figure = new_figure(2.75, 9.4 if count > 1 else 5.6)
    panels = figure.subplots(1, 2 * count, squeeze=False)[0]
    for k, wave in enumerate(shown):
        last = k == count - 1
        top = float(np.abs(wave).max()) or 1.0
        picture = show_image(panels[2 * k], np.abs(wave) / top, pixel_A, limits=(0.0, 1.0),
                             title=f"mode {k + 1}, {100 * shares[k]:.1f} % of power")  # fmt: skip
        show_wave_phase(panels[2 * k + 1], wave, pixel_A)
        panels[2 * k + 1].set_title("its phase")
        if last:
            cyclic = ScalarMappable(Normalize(-np.pi, np.pi), PHASE_MAP)
            add_colour_bar(panels[2 * k], picture, "amplitude / largest", location="bottom", shrink=0.9)
            add_colour_bar(panels[2 * k + 1], cyclic, "phase (rad)", location="bottom", shrink=0.9)
    return figure


@styled
def draw_losses(losses: Sequence[np.ndarray], tilts_deg: np.ndarray) -> Figure:
    """Return the loss against iteration of every tilt in one axes, coloured by the tilt angle in degrees."""
    figure = new_figure(2.9)
    axes = figure.subplots()
    norm = Normalize(float(np.min(tilts_deg)), float(max(np.max(tilts_deg), np.min(tilts_deg) + 1e-3)))
    for loss, tilt in zip(losses, tilts_deg, strict=True):
        axes.plot(np.arange(1, len(loss) + 1), loss, color=colormaps[TILT_MAP](norm(tilt)), linewidth=0.9, alpha=0.9)
    if all(np.all(np.asarray(loss) > 0) for loss in losses):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        if np.ptp(np.log10(axes.get_ylim())) < 2:
            axes.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
            axes.yaxis.set_minor_formatter("{x:g}")
    axes.set_xlabel("iteration")
    axes.set_ylabel("loss (arbitrary unit)")
    axes.grid(True, axis="y")
    axes.margins(x=0.01)
    add_colour_bar(axes, ScalarMappable(norm, TILT_MAP), "tilt θ (°)", shrink=0.95)
    return figure


def draw_phases(phases: Sequence[np.ndarray], tilts_deg: Sequence[float], pixel_A: float) -> Figure:
    """Return the reconstructed phase (y, x) of a few tilts in radian on one common scale."""
    return draw_images(phases, pixel_A, [f"θ = {signed(tilt, 1)}°" for tilt in tilts_deg], "phase (rad)")
