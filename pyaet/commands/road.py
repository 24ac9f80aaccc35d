"""Verbs for whole runs: demo, run, validate, simulate, limit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyaet.commands.options import Device, DeviceName, Json, tell

if TYPE_CHECKING:
    from pyaet.plan import Plan

PlanFile = Annotated[Path, typer.Argument(metavar="PLAN.toml", help="The plan of the run.")]
OutFolder = Annotated[Path | None, typer.Option("--out", help="Run directory, instead of the plan's.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Throw away what an earlier run left in the directory.")]


def register(app: typer.Typer) -> None:
    for verb in (demo, run, validate, simulate, limit):
        app.command()(verb)


def demo(out: OutFolder = None, device: Device = DeviceName.auto, fresh: Fresh = False, json: Json = False) -> None:
    """Simulate a small silica cluster, run the whole road on it and write the report."""
    from importlib.resources import as_file, files

    from pyaet.plan import load_plan

    with as_file(files("pyaet") / "demo.toml") as path:
        plan = load_plan(path)
    _run(plan, out or Path("pyaet-demo"), device, fresh, json)


def run(
    plan: PlanFile, out: OutFolder = None, device: Device | None = None, fresh: Fresh = False, json: Json = False
) -> None:
    """Run the whole road of a plan; what is current is kept, what is stale is redone."""
    from pyaet.plan import load_plan

    loaded = load_plan(plan)
    _run(loaded, out or Path(loaded.output.directory), device, fresh, json)


def validate(plan: PlanFile, json: Json = False) -> None:
    """Check a plan and its inputs in seconds; state the memory and the time the run will need."""
    from pyaet.estimate import estimate
    from pyaet.plan import load_plan

    tell(estimate(load_plan(plan)), json)


def simulate(
    plan: PlanFile, out: Annotated[Path | None, typer.Option("--out", help="Folder for the tilt series.")] = None
) -> None:
    """Simulate the tilt series of a known cluster as the table simulation of the plan says."""
    from pyaet.commands.options import context
    from pyaet.io.errors import InputError
    from pyaet.plan import load_plan
    from pyaet.stages.simulation import simulate as simulate_series

    loaded = load_plan(plan)
    if loaded.simulation is None:
        raise InputError(
            f"{plan}: [simulation] is missing; expected a table [simulation] with the cluster and the optics"
        )
    folder = out or Path(loaded.output.directory) / "simulation"
    given = context("cpu", loaded.compute.seed, loaded.compute.workers)
    tell(simulate_series(loaded.simulation, folder, given), False)


def limit(plan: PlanFile, json: Json = False) -> None:
    """How well atoms can be placed at best, against dose, tilts and missing wedge, before an experiment."""
    from pyaet.commands.options import context
    from pyaet.plan import load_plan
    from pyaet.stages.limit import limits

    loaded = load_plan(plan)
    found = limits(loaded, context("cpu", loaded.compute.seed, loaded.compute.workers))
    if json:
        tell(found, True)
        return
    typer.echo(table(found))


def table(found: dict[str, Any]) -> str:
    """What `pyaet limit` found, a line per choice of tilts and a column per dose; no errors where atoms can't be told apart."""
    doses, lost = found["dose_e_per_A2"], found["least_distance_pm"] / 2
    head = f"{'least error in pm (3D) at e⁻/Å²':<34}" + "".join(f"{dose:>10.3g}" for dose in doses)
    lines = [head]
    for name, row in found["tilts"].items():
        for element, values in row["rmsd_pm"].items():
            first = f"{name}, {row['tilts']} tilts: {element}"
            lines.append(
                f"{first:<34}" + "".join(f"{value:>10.3g}" if value < lost else f"{'-':>10}" for value in values)
            )
    areas = ", ".join(f"{symbol} {area:.3g}" for symbol, area in found["cross_sections_A2"].items())
    return "\n".join(
        [
            *lines,
            f"cross-sections of atoms in Å²: {areas} (simulation.cross_sections_A2: electrons of an atom in a run, over the dose)",
            f"-: more than half of specimen.min_distance_A, {lost:.3g} pm: atoms are not found",
        ]
    )


def _run(plan: Plan, directory: Path, device: DeviceName | None, fresh: bool, as_json: bool) -> None:
    from pyaet.run import run_plan

    summary = run_plan(plan, directory, device=None if device is None else str(device), fresh=fresh)
    tell(summary if as_json else headline(summary, directory), as_json)


def headline(summary: dict[str, Any], directory: Path) -> dict[str, Any]:
    """The few numbers of a run worth a line on the terminal."""
    stages, score = summary["stages"], summary["score"]
    lines = {
        "atoms": stages["refinement"]["atoms"],
        "rings": stages["rings"]["ring_sizes"],
        "seconds": round(sum(stage["seconds"] for stage in stages.values()), 1),
    }
    if score:
        lines["against the truth"] = {
            name: score["strict"][name] for name in ("recall", "precision", "rmsd_pm", "right_element")
        }
    for i, warning in enumerate(summary["warnings"]):
        lines[f"warning {i + 1}"] = warning
    return lines | {"report": str(directory / "report.html")}
