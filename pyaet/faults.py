"""Faults of a plan as sentences: the path of the key, what was found, what was expected, and a near name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel


def did_you_mean(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def sentence(model: type[BaseModel], fault: Any) -> str:
    """One fault of pydantic as a sentence with the path of its key."""
    section, loc = _walk(model, fault["loc"])
    path = ".".join(map(str, loc)) or "plan"
    if fault["type"] == "extra_forbidden":
        known = list(section.model_fields)
        near = did_you_mean(str(loc[-1]), known)
        return f"{path}: unknown{near or '; known here: ' + ', '.join(known)}"
    if fault["type"] == "missing":
        return f"{path}: missing; expected {_expected(section, loc[-1])}"
    if fault["type"] == "value_error":
        return f"{path}: {fault['ctx']['error']}"
    found = repr(fault["input"])
    found = found if len(found) < 60 else found[:57] + "..."
    if "energy_eV" in path and isinstance(fault["input"], int | float) and 0 < fault["input"] < 1e4:
        return f"{path}: found {found}; expected electronvolts between 1e4 and 3e6; did you mean {found}e3?"
    if fault["type"] in ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "literal_error"):
        known = re.findall(r"'([^']*)'", fault["ctx"].get("expected", "")) if isinstance(fault["input"], str) else []
        expected = fault["msg"].removeprefix("Input should be ")
        return f"{path}: found {found}; expected {expected}{did_you_mean(str(fault['input']), known)}"
    if fault["type"] in ("finite_number", "float_type", "float_parsing") and isinstance(loc[-1], int):
        return f"{path}: found {found}; expected a finite number"
    return f"{path}: found {found}; expected {_expected(section, loc[-1] if loc else 'plan')}"


def _walk(model: type[BaseModel], loc: tuple[Any, ...]) -> tuple[type[BaseModel], list[Any]]:
    """Follow `loc` through the sections as far as it names keys; what pydantic adds for alternatives is dropped."""
    section = model
    path: list[Any] = []
    for key in loc:
        field = section.model_fields.get(str(key))
        if path and field is None and section is not model and key in _TAGS:
            continue
        path.append(key)
        if isinstance(key, int):
            continue
        inner = None if field is None else _section_of(field.annotation)
        if inner is None:
            break
        section = inner
    return section, path


_TAGS = ("file", "range", "list", "triples")


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """The section among the alternatives of a field, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType, Annotated, tuple):
        return next(filter(None, map(_section_of, get_args(annotation))), None)
    return None


_WORDS = {
    "path": "a file, a folder, a pattern such as tilt_*.h5, or a list of files",
    "angles": "a file, a list in degrees, a list of (φ, θ, ψ), or {start, stop, step}",
    "elements": 'a list of element symbols such as ["Si", "O"]',
    "min_distance_A": "the smallest distance between two atoms in Å, such as 1.1",
    "kind": "'4dstem' or 'adf'",
}


def _expected(section: type[BaseModel], key: Any) -> str:
    if key in _WORDS:
        return _WORDS[key]
    field = section.model_fields.get(str(key))
    if field is None:
        return f"a table with {', '.join(section.model_fields)}"
    inner = _section_of(field.annotation)
    if inner is not None:
        return f"a table [{key}] with {', '.join(inner.model_fields)}"
    return _type_words(field.annotation)


def _type_words(annotation: Any) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_type_words(a) for a in args if a is not type(None)))
    if origin is Annotated:
        return _type_words(args[0])
    if origin is Literal:
        return " or ".join(repr(a) for a in args)
    if origin is tuple:
        return f"a list of {len(args)} numbers" if args and args[-1] is not Ellipsis else "a list"
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", dict: "a table"}
    return names.get(origin or annotation, "another value")
