"""Images with a scale bar and a colour bar: single ones, rows of several, before/after pairs, diffraction patterns.

Images are (y, x) with index n // 2 at coordinate 0. Large images are averaged over blocks before they are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import LogNorm

from pyaet.plots.style import INTENSITY_MAP, add_colour_bar, add_scale_bar, new_figure, quiet_axes, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

MAX_SIDE = 448


def shrink(image: np.ndarray, max_side: int = MAX_SIDE) -> tuple[np.ndarray, int]:
    """Return the image (y, x) averaged over square blocks so that no side exceeds `max_side`, and the block's side in pixels."""
    block = max(1, -(-max(image.shape) // max_side))
    rows, columns = (n // block * block for n in image.shape)
    blocks = image[:rows, :columns].reshape(rows // block, block, columns // block, block)
    return blocks.mean(axis=(1, 3)), block


def robust_range(image: np.ndarray, low: float = 0.2, high: float = 99.9) -> tuple[float, float]:
    """Return the two percentiles of the finite values between which an image is drawn; a constant image gets a width of 1."""
    finite = image[np.isfinite(image)]
    if finite.size == 0:
        return 0.0, 1.0
    bottom, top = (float(v) for v in np.percentile(finite, (low, high)))
    return (bottom, top) if top > bottom else (bottom, bottom + 1.0)


def show_image(
    axes: Axes,
    image: np.ndarray,
    pixel_A: float,
    *,
    title: str = "",
    unit: str | None = None,
    limits: tuple[float, float] | None = None,
    colour_map: str = INTENSITY_MAP,
) -> AxesImage:
    """Draw one image (y, x) in the axes with a scale bar, and with a colour bar named `unit` unless that is None."""
    small, block = shrink(np.asarray(image, dtype=np.float32))
    height, width = (n * block * pixel_A for n in small.shape)
    low, high = limits or robust_range(small)
    picture = axes.imshow(small, cmap=colour_map, vmin=low, vmax=high, extent=(0, width, height, 0))
    quiet_axes(axes)
    axes.set_title(title)
    add_scale_bar(axes, width)
    if unit is not None:
        add_colour_bar(axes, picture, unit)
    return picture


@styled
def draw_images(
    images: Sequence[np.ndarray],
    pixel_A: float,
    titles: Sequence[str],
    unit: str,
    *,
    common_range: bool = True,
    colour_map: str = INTENSITY_MAP,
) -> Figure:
    """Return a row of images (each (y, x), same pixel in Å) with scale bars and colour bars in `unit`.

    With `common_range` all share one grey scale and one colour bar, so that their brightness can be compared.
    """
    limits = robust_range(np.concatenate([shrink(np.asarray(i))[0].ravel() for i in images])) if common_range else None
    aspect = max(image.shape[0] / image.shape[1] for image in images)
    figure = new_figure(min(3.6, 8.6 / len(images) * aspect) + 0.3)
    panels = figure.subplots(1, len(images), squeeze=False)[0]
    for k, (axes, image, title) in enumerate(zip(panels, images, titles, strict=True)):
        own_bar = not common_range or k == len(images) - 1
        show_image(
            axes, image, pixel_A, title=title, unit=unit if own_bar else None, limits=limits, colour_map=colour_map
        )
    return figure


def show_pattern(
    axes: Axes, pattern: np.ndarray, pixel_per_A: float | None, *, title: str, bar: bool = True
) -> AxesImage:
    """Draw a centred diffraction pattern (ky, kx) on a logarithmic scale over five decades at most.

    `pixel_per_A` is the width of one detector pixel in Å⁻¹; None draws no scale bar.
    """
    small, block = shrink(np.asarray(pattern, dtype=np.float64))
    top = max(float(small.max()), 1e-30)
    positive = small[small > 0]
    bottom = max(float(np.percentile(positive, 1)) if positive.size else 0.0, top * 1e-5)
    bottom = min(bottom, top * 0.5)
    width = small.shape[1] * block * (pixel_per_A or 1.0)
    height = small.shape[0] * block * (pixel_per_A or 1.0)
    picture = axes.imshow(
        np.maximum(small, bottom), cmap=INTENSITY_MAP, norm=LogNorm(bottom, top), extent=(0, width, height, 0)
    )
    quiet_axes(axes)
    axes.set_title(title)
    if pixel_per_A is not None:
        add_scale_bar(axes, width, label=lambda length: f"{length:g} Å⁻¹")
    if bar:
        add_colour_bar(axes, picture, "mean counts per pattern")
    return picture


@styled
def draw_before_after(raw: np.ndarray, finished: np.ndarray, pixel_A: float, unit: str, titles: tuple[str, str],
                      raw_unit: str | None = None) -> Figure:  # fmt: skip
    """Return an unprocessed image and the finished projection (both (y, x), pixel in Å) side by side, each with its own scale."""
    figure = new_figure(3.7)
    left, right = figure.subplots(1, 2)
    show_image(left, raw, pixel_A, title=titles[0], unit=raw_unit or unit)
    show_image(right, finished, pixel_A, title=titles[1], unit=unit)
    return figure


@styled
def draw_pattern_and_projection(
    pattern: np.ndarray,
    projection: np.ndarray,
    pixel_A: float,
    unit: str,
    titles: tuple[str, str],
    pixel_per_A: float | None,
) -> Figure:
    """Return the mean diffraction pattern (ky, kx), detector pixel in Å⁻¹, beside the projection (y, x) made from the scan."""
    figure = new_figure(3.7)
    left, right = figure.subplots(1, 2)
    show_pattern(left, pattern, pixel_per_A, title=titles[0])
    show_image(right, projection, pixel_A, title=titles[1], unit=unit)
    return figure
