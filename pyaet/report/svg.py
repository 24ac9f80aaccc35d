"""matplotlib figures as SVG inside the page: inks become the page's colours, identifiers unique, images small.

Text stays text in the page's own typeface. The inks of `pyaet.plots.style` are replaced by CSS variables, so that one
picture serves light and dark pages.
"""

from __future__ import annotations

import base64
import io
import re
from html import escape
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from PIL import Image

from pyaet.plots.style import FAINT, INK, MUTED, SERIES, TRUTH

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RASTER_DPI = 170
PX_PER_PT = 1.385  # a figure of the full width fills the column of the page
_VARIABLES = {INK: "--ink", MUTED: "--muted", FAINT: "--faint", TRUTH: "--truth"} | {
    colour: f"--series-{k}" for k, colour in enumerate(SERIES)
}
_PNG = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=\s]+)")


def _with_palette(image: Image.Image) -> Image.Image:
    """Return the image with a palette: exactly when it is opaque and has at most 256 colours, else the nearest 256."""
    pixels = np.asarray(image)
    if pixels[..., 3].min() == 255:
        colours, index = np.unique(pixels[..., :3].reshape(-1, 3), axis=0, return_inverse=True)
        if len(colours) <= 256:
            small = Image.fromarray(index.reshape(pixels.shape[:2]).astype(np.uint8))
            small.putpalette(colours.astype(np.uint8).tobytes())
            return small
    return image.quantize(256, method=Image.Quantize.FASTOCTREE)


def _smaller_png(match: re.Match[str]) -> str:
    image = Image.open(io.BytesIO(base64.b64decode(match.group(1)))).convert("RGBA")
    buffer = io.BytesIO()
    _with_palette(image).save(buffer, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _unique_ids(text: str, prefix: str) -> str:
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}\1)", text)
    return re.sub(r'href="#([^"]+)"', rf'href="#{prefix}\1"', text)


def figure_svg(figure: Figure, name: str, description: str) -> str:
    """Return the figure as an `<svg>` element; `name` makes its identifiers unique, `description` is read aloud."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", dpi=RASTER_DPI, transparent=True, metadata={"Date": None}, bbox_inches="tight",
                       pad_inches=0.02)  # fmt: skip
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r' id="image[0-9a-f]+"', "", text)  # two equal images would share one
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style type=\"text/css\">.*?</style>", "", text, flags=re.DOTALL)
    text = _PNG.sub(_smaller_png, text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    text = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", text)
    width_pt = float(re.search(r'width="([\d.]+)pt"', text).group(1))  # type: ignore[union-attr]
    head = (
        f'<svg role="img" aria-label="{escape(description, quote=True)}" style="max-width:{PX_PER_PT * width_pt:.0f}px"'
    )
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2).replace("<svg", head, 1)
    return _unique_ids(text, f"{name}-").strip()
