"""One array in one file, described before it is loaded.

Every reader of this package answers the same question, "which array is in this file, how large is it, and how do I get
it?", with a `FileArray`: `shape` and `dtype` come from the header alone, `read()` loads the values. Failures of the
libraries underneath become one `InputError` with a sentence for the user.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pyaet.io.errors import InputError

Fits = Callable[[tuple[int, ...]], bool]


@dataclass(frozen=True)
class FileArray:
    """An array in a file: axes in the order of the file, `pixel_A` where the header gives one."""

    path: Path
    variable: str | None
    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]
    pixel_A: float | None = None


def readable_path(path: str | Path) -> Path:
    """Return the path of a file or folder that exists and may be read, or raise InputError."""
    path = Path(path).expanduser()
    if path.is_dir():
        return path
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise InputError(f"{path}: the file is empty; was the copy or download complete?")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file or folder{_near_names(path)}") from None
    except PermissionError:
        raise InputError(f"{path}: permission denied; make the file readable (chmod u+r) or ask its owner") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror or error})") from None
    return path


def _near_names(path: Path) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f"; the folder {path.parent} does not exist either"
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else "; check the path"


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever a file library raises on damaged data into one InputError."""
    try:
        yield
    except InputError:
        raise
    except MemoryError:
        raise InputError(f"{path}: not enough memory to load this {kind} file") from None
    # The libraries raise anything from struct.error to TypeError on damaged bytes; the class tells the user nothing.
    except Exception as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{path}: cannot be read as {kind}; the file is truncated, damaged or of another format ({detail})"
        ) from error


def choose_variable(
    path: Path, shapes: Mapping[str, tuple[int, ...]], wanted: str | None, fits: Fits, what: str, hint: str = ""
) -> str:
    """Return the variable asked for, or the only one that can be `what`; raise InputError naming what is there.

    `hint` is a part of the name (regardless of case) that decides among several that fit.
    """
    if wanted is not None:
        return _named_variable(path, shapes, wanted)
    candidates = [name for name, shape in shapes.items() if fits(shape)]
    hinted = [name for name in candidates if hint and hint in name.lower()]
    if len(candidates) > 1 and len(hinted) == 1:
        return hinted[0]
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise InputError(f"{path}: no variable can be {what}; the file has {listing(shapes)}")
    raise InputError(
        f"{path}: {len(candidates)} variables can be {what}: {', '.join(candidates)}; name one with `variable`"
    )


def _named_variable(path: Path, shapes: Mapping[str, tuple[int, ...]], wanted: str) -> str:
    name = wanted.strip("/")
    if name in shapes:
        return name
    folded = {other.lower(): other for other in shapes}
    near = difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=0.5)
    meant = f"; did you mean '{folded[near[0]]}'?" if near else ""
    raise InputError(f"{path}: variable '{wanted}' not in file; it has {listing(shapes)}{meant}")


def listing(shapes: Mapping[str, tuple[int, ...]], most: int = 12) -> str:
    """Return 'name (shape), …' of the variables of a file."""
    if not shapes:
        return "no numeric variables"
    parts = [f"{name} {shape}" for name, shape in list(shapes.items())[:most]]
    more = len(shapes) - most
    return ", ".join(parts) + (f" and {more} more" if more > 0 else "")
