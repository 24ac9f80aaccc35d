"""The whole page: sections in the order of the road, table of contents, style and script inlined."""

from __future__ import annotations

import base64
import gzip
import logging
from collections.abc import Callable
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from pyaet.artifacts import write_text
from pyaet.io.errors import InputError
from pyaet.plots.results import run_kind
from pyaet.report import overview, sections, sections_atoms, sections_volume
from pyaet.report.html import Section, notice

log = logging.getLogger(__name__)


def _guarded(anchor: str, title: str, make: Callable[[], Section | None]) -> Section | None:
    """Return the section, or one that says why it could not be drawn: a bad file must not cost the rest of the report."""
    try:
        return make()
    except (InputError, KeyError, ValueError, IndexError, TypeError, OSError) as error:
        log.warning("report: section %s could not be drawn: %s", anchor, error)
        return Section(
            anchor, title, "", (notice(f"This section could not be drawn: {type(error).__name__}: {error}"),)
        )


def collect(directory: Path) -> list[Section]:
    """Return the sections of a run directory in the order of the road, those without data left out."""
    problem = None
    try:
        summary: dict[str, Any] = overview.read_summary(directory)
    except InputError as error:
        summary, problem = {"warnings": [str(error)]}, error
    if problem is not None:
        log.warning("report: %s", problem)
    kind = run_kind(directory, summary)
    makers: list[tuple[str, str, Callable[[], Section | None]]] = [
        ("overview", "Overview", lambda: overview.overview_section(directory, kind, summary)),
        ("warnings", "Warnings", lambda: overview.warnings_section(summary)),
        ("input", "Input", lambda: sections.input_section(directory, kind, summary)),
        ("ptychography", "Ptychography", lambda: sections.ptychography_section(directory, summary)),
        ("alignment", "Alignment", lambda: sections.alignment_section(directory, summary)),
        ("sinogram", "Sinogram", lambda: sections.sinogram_section(directory)),
        ("volume", "Volume", lambda: sections_volume.volume_section(directory, summary)),
        ("candidates", "Candidates", lambda: sections_atoms.candidates_section(directory, summary)),
        ("atoms", "Atoms in 3D", lambda: sections_atoms.atoms_section(directory)),
        ("fit", "Fit of the counts", lambda: sections_atoms.fit_section(directory)),
        ("errors", "Error bars", lambda: sections_atoms.errors_section(directory, summary)),
        ("structure", "Structure", lambda: sections_atoms.structure_section(directory, summary)),
        ("plan", "Plan and versions", lambda: overview.provenance_section(directory, summary)),
    ]
    made = (_guarded(*maker) for maker in makers)
    return [section for section in made if section is not None]


def _scripts(parts: list[Section]) -> str:
    """Return the library that turns the atoms and the few lines that start it; nothing when no section needs them."""
    if not sections_atoms.has_turning_view(parts):
        return ""
    from plotly.offline import get_plotlyjs

    packed = base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()
    own = files("pyaet.report").joinpath("report.js").read_text(encoding="utf-8")
    library = f'<script type="text/plain" id="plotly-gzip">{packed}</script>'
    return f"<!-- plotly.js, MIT licence, gzip in base64 -->\n{library}\n<script>{own}</script>"


def _subtitle(directory: Path) -> str:
    try:
        summary = overview.read_summary(directory)
    except InputError:
        return ""
    kind = {"4dstem": "4D-STEM ptychographic tomography", "adf": "ADF-STEM tomography"}.get(
        run_kind(directory, summary), ""
    )
    version = f"pyaet {summary['pyaet_version']}" if summary.get("pyaet_version") else ""
    return " · ".join(
        text
        for text in (kind, str(summary.get("created", "")).replace("T", " ").replace("+00:00", " UTC"), version)
        if text
    )


def write_page(directory: Path) -> Path:
    """Write `report.html` into the run directory at once (temporary name, then renamed) and return its path."""
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; expected the directory of a run")
    parts = collect(directory)
    folder = files("pyaet.report")
    page = Template(folder.joinpath("report.html").read_text(encoding="utf-8")).substitute(
        title=escape(directory.resolve().name),
        subtitle=escape(_subtitle(directory)),
        style=folder.joinpath("report.css").read_text(encoding="utf-8"),
        contents="\n".join(f'<li><a href="#{part.anchor}">{escape(part.title)}</a></li>' for part in parts),
        body="\n".join(part.html() for part in parts),
        scripts=_scripts(parts),
    )
    path = directory / "report.html"
    write_text(path, page)
    return path
