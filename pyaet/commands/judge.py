"""Verbs that judge a structure: score against a truth, rings, everything else of its network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyaet.commands.options import Json, Seed, refuse_picture, section, target, tell

if TYPE_CHECKING:
    from analysis import Atoms


def register(app: typer.Typer) -> None:
    for verb in (score, rings, structure):
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


Source = Annotated[Path, typer.Argument(help="The structure (any format ASE reads, .mat, text table).")]
Bond = Annotated[
    list[str] | None, typer.Option("--bond", help="A-B:D bonds unlike pairs up to D Å; any:D means all pairs.")
]
Tolerance = Annotated[float | None, typer.Option("--tolerance", help="Bond |d - D| ≤ this, in Å, instead.")]
Pairs = Annotated[str | None, typer.Option("--pairs", help="Bonded without --bond: unlike (default) or all.")]
Definition = Annotated[str | None, typer.Option("--definition", help="primitive, king, guttman or mcb.")]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset", help="liao2026: any:1.66, tolerance 0.15, sizes 6-18; what stands beside it overrides it."
    ),
]
MinSize = Annotated[int | None, typer.Option("--min-size", help="Smallest ring told.")]
MaxSize = Annotated[int | None, typer.Option("--max-size", help="Largest ring sought.")]
Variable = Annotated[str | None, typer.Option("--variable", help="Positions in a .mat file.")]
TypesVariable = Annotated[str | None, typer.Option("--types-variable", help="Element codes in a .mat file.")]
TypeNames = Annotated[str | None, typer.Option("--types", help="What the codes mean, such as 2=O,3=Si.")]
Unit = Annotated[float, typer.Option("--unit-A", help="Å per unit of the coordinates.")]


def rings(
    atoms: Source,
    bond: Bond = None,
    tolerance: Tolerance = None,
    pairs: Pairs = None,
    definition: Definition = None,
    min_size: MinSize = None,
    max_size: MaxSize = None,
    preset: Preset = None,
    variable: Variable = None,
    types_variable: TypesVariable = None,
    types: TypeNames = None,
    unit_A: Unit = 1.0,
    json: Json = False,
) -> None:
    """Ring statistics, and with --json the atom indices of every bond and ring. A periodic box in the file counts."""
    from pyaet.plan import Structure
    from pyaet.stages.structure import network, network_json

    settings = section(
        Structure, None, bonds=bond, tolerance_A=tolerance, pairs=pairs, definition=definition, min_size=min_size,
        max_size=max_size, preset=preset,
    )  # fmt: skip
    found = network(_read(atoms, variable, types_variable, types, unit_A, "x,y,z"), settings)
    if json:
        tell(network_json(found), json)
        return
    told: dict[str, Any] = {"definition": settings.definition, "bond_rules": list(map(str, found.rules))}
    tell(told | {"bonds": len(found.network), "rings": len(found.rings), "sizes": found.rings.sizes}, json)


def structure(
    atoms: Source,
    reference: Annotated[Path | None, typer.Option("--reference", help="A structure to set beside.")] = None,
    bond: Bond = None,
    tolerance: Tolerance = None,
    pairs: Pairs = None,
    definition: Definition = None,
    min_size: MinSize = None,
    max_size: MaxSize = None,
    preset: Preset = None,
    coordination: Annotated[
        str | None, typer.Option("--coordination", help="Bonds each element should have, such as Si=4,O=2.")
    ] = None,
    surface: Annotated[
        str | None, typer.Option("--surface", help="Surface atoms: count (default) or exclude them.")
    ] = None,
    draws: Annotated[
        int | None, typer.Option("--draws", help="Models drawn for error bars; 0 leaves them out.")
    ] = None,
    variable: Variable = None,
    types_variable: TypesVariable = None,
    types: TypeNames = None,
    unit_A: Unit = 1.0,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option("--out", help="JSON with all histograms and limits.")] = None,
    picture: Annotated[Path | None, typer.Option("--picture", help="PNG of the main histograms.")] = None,
    json: Json = False,
) -> None:
    """Bonds, rings, distances, angles, coordination, defects and order of a structure, with 95 % limits where its atoms have
    error bars."""
    from pyaet.artifacts import write_json
    from pyaet.console import Console
    from pyaet.plan import Structure
    from pyaet.stages.structure import network, referred, summary_of, told_beside

    settings = section(
        Structure, None, bonds=bond, tolerance_A=tolerance, pairs=pairs, definition=definition, min_size=min_size,
        max_size=max_size, preset=preset, surface=surface, draws=draws, coordination=_counts(coordination),
    )  # fmt: skip
    for option, path in (("--out", out), ("--picture", picture)):
        if path is not None:
            target(str(path), atoms, option)
    refuse_picture(picture)
    found = network(_read(atoms, variable, types_variable, types, unit_A, "x,y,z"), settings, seed, Console())
    beside = None if reference is None else referred(found, _read(reference, None, None, None, 1.0, "x,y,z"))
    told = told_beside(found, beside, "" if reference is None else reference.stem)
    if out is not None:
        write_json(out, told)
    if picture is not None:
        _draw(picture, told)
    tell(told if json else summary_of(found, told), json)


def _counts(text: str | None) -> dict[str, int] | None:
    """Bonds per element, from a text such as Si=4,O=2."""
    from pyaet.io.errors import InputError

    if text is None:
        return None
    try:
        return {symbol.strip(): int(count) for symbol, count in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise InputError(f"coordination is {text!r}; expected elements and numbers such as Si=4,O=2") from None


def _draw(picture: Path, told: dict[str, Any]) -> None:
    from pyaet.io.errors import told_of
    from pyaet.plots.structure import draw_structure

    with told_of(picture):
        figure = draw_structure(told["found"], told["reference"], told["reference_name"])
    figure.savefig(picture, dpi=150)
