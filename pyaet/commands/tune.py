"""The verb that finds numbers of a tilt by trial: defocus, rotation, scale, aberrations, orientation."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pyaet.commands.options import Device, DeviceName, Json, Seed, Settings, context, section, tell

if TYPE_CHECKING:
    from pyaet.stages.tuning import Found


class Method(StrEnum):
    auto = "auto"
    golden = "golden"
    optuna = "optuna"


def register(app: typer.Typer) -> None:
    app.command()(tune)


def tune(
    tilt: Annotated[Path, typer.Argument(help="A 4D-STEM tilt.")],
    parameters: Annotated[
        str, typer.Option("--parameters", help="Names, or name=low:high, with commas between them.")
    ] = "defocus_A,rotation_deg",
    method: Annotated[Method, typer.Option("--method", help="How to search.")] = Method.auto,
    budget: Annotated[int, typer.Option("--budget", min=1, help="Most trials.")] = 120,
    subset: Annotated[int, typer.Option("--subset", min=8, help="Patterns to a trial.")] = 256,
    orientations: Annotated[
        bool,
        typer.Option("--orientations", help="Try the eight orientations of the scan and both signs of the defocus."),
    ] = False,
    device: Device = DeviceName.auto,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads.")] = None,
    seed: Seed = 0,
    setting: Settings = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write what was found: .json, else lines of TOML for a plan.")
    ] = None,
    json: Json = False,
) -> None:
    """Find wrong numbers of a tilt by short trial reconstructions; nothing is written without --out."""
    from pyaet.artifacts import write_json, write_text
    from pyaet.io.errors import InputError
    from pyaet.io.fourdstem import inspect_tilt
    from pyaet.plan import Ptychography
    from pyaet.stages import tuning

    given = context(device, seed, threads)
    settings = section(Ptychography, setting)
    if out is not None and out.exists() and not out.is_file():
        raise InputError(f"--out {out}: is a folder; expected a file name")
    source = inspect_tilt(tilt)
    if orientations:
        tell({"loss by orientation": tuning.orientations(source, settings, given, subset)}, json)
        return
    found = tuning.tune_tilt(
        source, parameters.split(","), settings, given, method=method.value, budget=budget, subset=subset
    )
    if out is not None:
        if out.suffix == ".json":
            write_json(out, tuning.as_json(found))
        else:
            write_text(out, tuning.plan_toml(found))
    if json:
        tell(tuning.as_json(found), True)
    else:
        _show(found)


def _show(found: list[Found]) -> None:
    from math import isnan

    from pyaet.console import print_table

    rows = [
        [
            one.name,
            f"{one.stated:.6g}",
            one.text + ("" if isnan(one.sigma) else f" ± {one.sigma:.2g}"),
            "at the end of the range: widen it" if one.at_limit else "",
        ]
        for one in found
    ]
    print_table("", ["parameter", "stated", "found", ""], rows, stderr=False)
