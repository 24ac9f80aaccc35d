"""Verbs that judge a structure: score against a truth, rings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyaet.commands.options import Json, section, tell

if TYPE_CHECKING:
    from analysis import Atoms


def register(app: typer.Typer) -> None:
    for verb in (score, rings):
        app.command()(verb)


def _read(
    path: Path, variable: str | None, types_variable: str | None, types: str | None, unit_A: float, axes: str
) -> Atoms:
    from pyaet.io.structures import read_structure

    return read_structure(
        path, variable=variable, types_variable=types_variable, types=_types(types), unit_A=unit_A, axes=axes
    )


def _types(text: str | None) -> dict[int, str] | None:
    """What type codes mean, from a text such as 2=O,3=Si."""
    from pyaet.io.errors import InputError

    if text is None:
        return None
    try:
        return {int(code): symbol.strip() for code, symbol in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise InputError(f"types is {text!r}; expected codes and elements such as 2=O,3=Si") from None


def score(
    model: Annotated[Path, typer.Argument(help="The structure to judge (any format ASE reads, .mat, text table).")],
    truth: Annotated[Path, typer.Argument(help="The known structure.")],
    cutoff: Annotated[float, typer.Option("--cutoff", help="Largest distance of a match in Å.")] = 1.0,
    model_variable: Annotated[str | None, typer.Option(help="Positions in a .mat model.")] = None,
    model_types_variable: Annotated[str | None, typer.Option(help="Element codes in a .mat model.")] = None,
    model_types: Annotated[str | None, typer.Option(help="What the codes mean, such as 2=O,3=Si.")] = None,
    model_unit_A: Annotated[float, typer.Option("--model-unit-A", help="Å per unit of the model's coordinates.")] = 1.0,
    model_axes: Annotated[str, typer.Option(help="Model columns as x,y,z; -z flips.")] = "x,y,z",
    truth_variable: Annotated[str | None, typer.Option(help="Positions in a .mat truth.")] = None,
    truth_types_variable: Annotated[str | None, typer.Option(help="Element codes in a .mat truth.")] = None,
    truth_types: Annotated[str | None, typer.Option(help="What the codes mean, such as 1=Si.")] = None,
    truth_unit_A: Annotated[float, typer.Option("--truth-unit-A", help="Å per unit of the truth's coordinates.")] = 1.0,
    truth_axes: Annotated[str, typer.Option(help="Truth columns as x,y,z, such as y,x,-z.")] = "x,y,z",
    json: Json = False,
) -> None:
    """Compare a model with a known truth: recall, precision, RMSD, species, per element."""
    import analysis
    from pyaet.io.errors import told_of

    found = _read(model, model_variable, model_types_variable, model_types, model_unit_A, model_axes)
    known = _read(truth, truth_variable, truth_types_variable, truth_types, truth_unit_A, truth_axes)
    with told_of(truth):
        result = analysis.compare(found.positions_A, found.symbols, known.positions_A, known.symbols, cutoff)
    tell(result.to_dict(), json)


def rings(
    atoms: Annotated[Path, typer.Argument(help="The structure (any format ASE reads, .mat, text table).")],
    bond: Annotated[
        list[str] | None, typer.Option("--bond", help="A-B:D bonds unlike pairs up to D Å; any:D means all pairs.")
    ] = None,
    tolerance: Annotated[float | None, typer.Option("--tolerance", help="Bond |d - D| ≤ this, in Å, instead.")] = None,
    definition: Annotated[str | None, typer.Option(help="primitive, king, guttman or mcb.")] = None,
    min_size: Annotated[int | None, typer.Option(help="Smallest ring told.")] = None,
    max_size: Annotated[int | None, typer.Option(help="Largest ring sought.")] = None,
    preset: Annotated[str | None, typer.Option(help="liao2026: any:1.66, tolerance 0.15, sizes 6-18.")] = None,
    variable: Annotated[str | None, typer.Option(help="Positions in a .mat file.")] = None,
    types_variable: Annotated[str | None, typer.Option(help="Element codes in a .mat file.")] = None,
    types: Annotated[str | None, typer.Option(help="What the codes mean, such as 2=O,3=Si.")] = None,
    unit_A: Annotated[float, typer.Option("--unit-A", help="Å per unit of the coordinates.")] = 1.0,
    json: Json = False,
) -> None:
    """Ring statistics, and with --json the atom indices of every bond and ring."""
    from pyaet.plan import Structure
    from pyaet.stages.structure import network, network_json

    settings = section(
        Structure, None, bonds=bond, tolerance_A=tolerance, definition=definition, min_size=min_size,
        max_size=max_size, preset=preset,
    )  # fmt: skip
    found = network(_read(atoms, variable, types_variable, types, unit_A, "x,y,z"), settings)
    content: dict[str, Any] = network_json(found)
    if not json:
        content |= {"bonds": len(found.bonds), "rings": len(found.rings)}
    tell(content, json)
