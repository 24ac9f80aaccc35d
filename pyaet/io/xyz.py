"""XYZ and extended XYZ text: one structure per file, columns and comment as they stand.

Line 1 is the number of atoms, line 2 a comment, then one line per atom. In extended XYZ the comment holds `key=value`
pairs, of which `Properties=species:S:1:pos:R:3:...` names the columns, their kind (S, R, I, L) and width. Numbers are
written in the fewest digits that give the same float64 back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyaet.io.errors import InputError

_PAIR = re.compile(r"""([A-Za-z_][\w.-]*)=("(?:[^"\\]|\\.)*"|[^\s"]+)""")
_NUMERIC = "RI"


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of a file by name, (n,) or (n, width): text for species, float64 for numbers; `info` from the comment."""

    columns: dict[str, np.ndarray]
    info: dict[str, str]


def read_xyz(path: Path) -> Table:
    """Read an .xyz or .extxyz file of one structure; raise InputError naming the line that does not fit."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not text; is it really an XYZ file?") from None
    n = _count(path, lines)
    info = {key: _unquoted(value) for key, value in _PAIR.findall(lines[1])} if len(lines) > 1 else {}
    rows = [line.split() for line in lines[2 : 2 + n]]
    if len(rows) < n:
        raise InputError(f"{path}: line 1 announces {n} atoms but {len(rows)} lines follow; the file is truncated")
    if any(line.strip() for line in lines[2 + n :]):
        raise InputError(f"{path}: text follows atom {n}; expected one structure per file, split the others off")
    fields = _fields(path, info.get("Properties", "species:S:1:pos:R:3"))
    width = sum(number for _, _, number in fields)
    for i, row in enumerate(rows):
        if len(row) < width:
            raise InputError(f"{path}: line {i + 3} has {len(row)} columns; expected {width}")
    return Table(_columns(path, rows, fields), info)


def xyz_text(
    species: tuple[str, ...],
    columns: Mapping[str, np.ndarray],
    info: Mapping[str, Any],
    box: tuple[np.ndarray, tuple[bool, bool, bool]] | None = None,
) -> str:
    """Extended XYZ text of atoms with at least one numeric column, (n,) or (n, width), and `info` in the comment.

    box: edges (3, 3) in Å and along which of them it repeats.
    """
    widths = {name: 1 if column.ndim == 1 else column.shape[1] for name, column in columns.items()}
    properties = ":".join(["species:S:1", *(f"{name}:R:{width}" for name, width in widths.items())])
    comment = [f"Properties={properties}", *(f"{key}={_quoted(key, value)}" for key, value in info.items())]
    numbers = np.column_stack(list(columns.values())).tolist()
    rows = [" ".join([name, *map(repr, row)]) for name, row in zip(species, numbers, strict=True)]
    edges, flags = box or (None, (False, False, False))
    if edges is not None:
        comment.append(f'Lattice="{" ".join(map(repr, np.asarray(edges).ravel().tolist()))}"')
    comment.append(f'pbc="{" ".join("T" if flag else "F" for flag in flags)}"')
    return "\n".join([str(len(species)), " ".join(comment), *rows]) + "\n"


def _count(path: Path, lines: list[str]) -> int:
    first = lines[0].strip() if lines else ""
    if not first.isdigit():
        raise InputError(f"{path}: line 1 is {first[:40]!r}; an XYZ file starts with the number of its atoms")
    return int(first)


def _fields(path: Path, properties: str) -> list[tuple[str, str, int]]:
    """Name, kind and width of each column group in a Properties string."""
    parts = properties.split(":")
    kinds, widths = parts[1::3], parts[2::3]
    if len(parts) % 3 or not all(width.isdigit() and int(width) > 0 for width in widths):
        raise InputError(f"{path}: Properties={properties} is not understood; expected name:kind:width, repeated")
    if unknown := set(kinds) - set("SRIL"):
        raise InputError(f"{path}: Properties names the kind {min(unknown)!r}; expected S, R, I or L")
    return [(name, kind, int(width)) for name, kind, width in zip(parts[::3], kinds, widths, strict=True)]


def _columns(path: Path, rows: list[list[str]], fields: list[tuple[str, str, int]]) -> dict[str, np.ndarray]:
    columns, start = {}, 0
    for name, kind, width in fields:
        text = [row[start : start + width] for row in rows]
        if kind in _NUMERIC:
            values = _numbers(path, name, text).reshape(len(rows), width)
        else:
            values = np.array(text, dtype=np.str_).reshape(len(rows), width)
        columns[name] = values[:, 0] if width == 1 else values
        start += width
    return columns


def _numbers(path: Path, name: str, text: list[list[str]]) -> np.ndarray:
    try:
        return np.array([[float(word) for word in row] for row in text], dtype=np.float64)
    except ValueError as error:
        raise InputError(f"{path}: column '{name}' holds something else than numbers ({error})") from None


def _quoted(key: str, value: Any) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*", key) or key in ("Properties", "pbc", "Lattice"):
        raise ValueError(f"{key!r} cannot be a key of an extended XYZ comment; use letters, digits and _")
    text = str(value)
    if "\n" in text or "\r" in text:
        raise ValueError(f"{key} holds a line break, which an extended XYZ comment cannot carry")
    if text and not re.search(r"""[\s"'\\=,{}\[\]]""", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
