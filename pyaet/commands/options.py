"""What several verbs share: options, `--set key=value`, JSON on stdout."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pyaet.plan import SomeSection
    from pyaet.stages.context import Context


class DeviceName(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


Device = Annotated[DeviceName, typer.Option("--device", help="Where to compute.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of this stage's table in the plan.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]


def Out(default: str) -> Any:
    return typer.Option(default, "--out", help="Where to write.")


def section(model: type[SomeSection], pairs: Sequence[str] | None, /, **given: Any) -> SomeSection:
    """A section of the plan from options of the command line; options left out keep their default."""
    from pyaet.io.errors import InputError
    from pyaet.plan import validate_section

    data = {name: value for name, value in given.items() if value is not None}
    for pair in pairs or ():
        name, equals, text = pair.partition("=")
        if not equals:
            raise InputError(f"--set {pair}: expected KEY=VALUE such as --set iterations=300")
        data[name.strip()] = _value(text.strip())
    return validate_section(model, data, "options")


def context(device: str = "auto", seed: int = 0, workers: int | None = None) -> Context:
    from pyaet.console import Console
    from pyaet.device import cpu_count, resolve_device
    from pyaet.stages.context import Context

    return Context(resolve_device(device), workers or cpu_count(), seed, Console())


def target(path: str, source: str | Path | None = None, option: str = "--out") -> Path:
    """The path to write to, refused where it would overwrite what is read."""
    from pyaet.io.errors import InputError

    where = Path(path)
    if source is not None and where.resolve() == Path(source).resolve():
        raise InputError(f"{option} {path}: is also the input; expected another name")
    if where.is_dir():
        raise InputError(f"{option} {path}: is a folder; expected a file name")
    return where


def refuse_picture(picture: Path | None) -> None:
    """Raise InputError for a place where no PNG can be drawn."""
    from pyaet.io.errors import InputError

    if picture is not None and (picture.suffix.lower() != ".png" or not picture.parent.is_dir()):
        what = "its folder does not exist" if picture.suffix.lower() == ".png" else f"it ends in {picture.suffix!r}"
        raise InputError(f"--picture {picture}: {what}; expected the name of a .png in a folder that is there")


def tell(value: dict[str, Any], as_json: bool) -> None:
    """Print numbers: as JSON, or a line per number."""
    from pyaet.artifacts import json_text

    if as_json:
        typer.echo(json_text(value), nl=False)
        return
    for line in _lines(value):
        typer.echo(line)


def _lines(value: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """A line per number or flat table; a table of tables becomes a line for each, named by its path."""
    for name, entry in value.items():
        if isinstance(entry, dict) and any(isinstance(inner, dict) for inner in entry.values()):
            flat = {inner: number for inner, number in entry.items() if not isinstance(number, dict)}
            yield from _lines({name: flat} if flat else {}, prefix)
            yield from _lines({k: v for k, v in entry.items() if isinstance(v, dict)}, f"{prefix}{name}.")
        elif entry not in ({}, [], None):
            yield f"{prefix}{name}: {_words(entry)}"


def _words(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(entry)}" for name, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    return "–" if value is None else str(value)


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
