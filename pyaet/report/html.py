"""Pieces of the page: number formats, tables, cards, sections."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

_UNITS = (
    ("_e_per_A2", "e⁻/Å²"), ("_per_A", "Å⁻¹"), ("_mrad", "mrad"), ("_rad", "rad"), ("_deg", "°"), ("_pm", "pm"), ("_nm", "nm"),
    ("_px", "px"), ("_eV", "eV"), ("_percent", "%"), ("_bytes", "bytes"),
    ("_voxels", "voxels"), ("_A", "Å"), ("_s", "s"),
)  # fmt: skip
_NAMES = {"seconds": "time", "r_factor": "R-factor", "f1": "F1", "rmsd": "RMSD"}
_LONGEST_LIST = 12


@dataclass(frozen=True)
class Section:
    """One section of the report: heading, plain sentence, pieces of HTML (pictures, tables) in order."""

    anchor: str
    title: str
    sentence: str
    pieces: tuple[str, ...] = field(default=())

    def html(self) -> str:
        body = "\n".join(self.pieces)
        lead = f'<p class="lead">{escape(self.sentence)}</p>' if self.sentence else ""
        return f'<section id="{self.anchor}">\n<h2>{escape(self.title)}</h2>\n{lead}\n{body}\n</section>'


def duration(seconds: float) -> str:
    """Return a time as text: 0.42 s, 12.3 s, 4 min 10 s, 3 h 05 min."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def number(value: Any) -> str:
    """Return a value as text: floats with four digits, lists joined, None as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return (f"{value:.4g}" if isinstance(value, float) else f"{value}").replace("-", "−")
    if isinstance(value, (list, tuple)):
        return ", ".join(number(v) for v in value)
    if isinstance(value, dict):
        return ", ".join(f"{k} {number(v)}" for k, v in value.items())
    return str(value)


def share(value: float | None) -> str:
    """Return a fraction as a percentage."""
    return "–" if value is None else f"{100 * value:.1f} %"


def quantity(key: str, value: Any) -> tuple[str, str]:
    """Return (name, value with its unit) of a number whose key ends in its unit."""
    if key == "seconds" and isinstance(value, (int, float)):
        return "time", duration(value)
    for suffix, unit in _UNITS:
        if key.endswith(suffix) and value is not None and not isinstance(value, str):
            stem = key.removesuffix(suffix)
            gap = "" if unit == "°" else " "
            if unit in ("px", "voxels") and isinstance(value, (list, tuple)):
                return _NAMES.get(stem, stem.replace("_", " ")), f"{' × '.join(map(number, value))} {unit}"
            return _NAMES.get(stem, stem.replace("_", " ")), f"{number(value)}{gap}{unit}"
    return _NAMES.get(key, key.replace("_", " ")), number(value)


def numbers_table(values: Mapping[str, Any]) -> str:
    """Return quantities as a grid of names with their values below, long lists left out; empty text for no values."""
    short = {k: v for k, v in values.items() if not (isinstance(v, (list, tuple, dict)) and len(v) > _LONGEST_LIST)}
    pairs = [quantity(key, value) for key, value in short.items()]
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in pairs)
    return f'<dl class="numbers">{items}</dl>' if items else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """Return a table; the first column holds names, the others numbers."""
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    top = "".join(f'<th scope="col">{escape(h)}</th>' for h in head)
    lines = [
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    ]
    body = "\n".join(lines)
    return f'<div class="table"><table>{title}{f"<thead><tr>{top}</tr></thead>" if top else ""}<tbody>{body}</tbody></table></div>'


def card(label: str, value: str, note: str = "") -> str:
    """Return one headline number."""
    below = f'<div class="note">{escape(note)}</div>' if note else ""
    return f'<div class="card"><div class="label">{escape(label)}</div><div class="value">{escape(value)}</div>{below}</div>'


def cards(items: Iterable[str]) -> str:
    return '<div class="cards">' + "".join(items) + "</div>"


def picture(svg: str, caption: str = "") -> str:
    """Return a picture with its caption."""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{svg}{below}</figure>"


def notice(text: str, kind: str = "warn") -> str:
    """Return a framed remark."""
    return f'<p class="notice {kind}">{escape(text)}</p>'
