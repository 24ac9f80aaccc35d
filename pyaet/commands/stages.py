"""Verbs for one stage each, on files: ptycho, adf, align, tomo, trace, refine, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pyaet.commands.options import Device, DeviceName, Json, Out, Seed, Settings, context, section, target, tell

Source = Annotated[Path, typer.Argument(help="The file to read.")]


def register(app: typer.Typer) -> None:
    for verb in (ptycho, adf, align, tomo, trace, refine, report):
        app.command()(verb)


def ptycho(
    tilt: Source,
    slices: Annotated[int | None, typer.Option("--slices", help="Number of object slices.")] = None,
    slice_A: Annotated[float | None, typer.Option("--slice-A", help="Thickness of a slice in Å.")] = None,
    iterations: Annotated[int | None, typer.Option("--iterations", help="Passes over all patterns.")] = None,
    defocus_A: Annotated[float | None, typer.Option("--defocus-A", help="Instead of the file's.")] = None,
    device: Device = DeviceName.auto,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads.")] = None,
    seed: Seed = 0,
    setting: Settings = None,
    out: str = Out("ptycho.h5"),
    json: Json = False,
) -> None:
    """Reconstruct one 4D-STEM tilt: object slices, probe, loss trace and phase projection."""
    from dataclasses import replace

    from pyaet.io.fourdstem import inspect_tilt
    from pyaet.plan import Ptychography
    from pyaet.stages.ptychography import TiltTask, reconstruct_tilt, tilt_key

    settings = section(Ptychography, setting, slices=slices, slice_A=slice_A, iterations=iterations)
    given = context(device, seed, threads)
    source = inspect_tilt(tilt)
    if defocus_A is not None:
        source = replace(source, defocus_A=defocus_A)
    key = tilt_key(source, settings, seed)
    task = TiltTask(source, target(out, tilt), settings, given.device, given.workers, seed, key)
    with given.console.task("ptychography", "loss") as progress:
        numbers = reconstruct_tilt(task, progress)
    tell({**numbers, "out": out}, json)


def adf(
    stack: Annotated[list[Path], typer.Argument(help="Stack file, folder of images, or images.")],
    angles: Annotated[Path, typer.Option("--angles", help="File with the tilt angles in degrees.")],
    pixel_A: Annotated[float, typer.Option("--pixel-A", help="Pixel size in Å.")],
    variable: Annotated[str | None, typer.Option("--variable", help="Name of the stack in a .mat or .h5 file.")] = None,
    axes: Annotated[str, typer.Option("--axes", help="Order of the file's axes.")] = "nyx",
    angles_variable: Annotated[str | None, typer.Option(help="Name of the angles in a .mat or .h5 file.")] = None,
    denoise: Annotated[str | None, typer.Option("--denoise", help="none, wavelet, nlm or bm3d.")] = None,
    setting: Settings = None,
    out: str = Out("projections.h5"),
    json: Json = False,
) -> None:
    """Condition an ADF-STEM tilt series: noise, denoising, background."""
    from pyaet.plan import Adf, Input
    from pyaet.stages.adf import condition

    paths = str(stack[0]) if len(stack) == 1 else tuple(map(str, stack))
    source = section(
        Input, None, kind="adf", path=paths, variable=variable, axes=axes, angles=str(angles),
        angles_variable=angles_variable, pixel_A=pixel_A,
    )  # fmt: skip
    tell(condition(source, target(out, stack[0]), section(Adf, setting, denoise=denoise), context("cpu")), json)


def align(projections: Source, setting: Settings = None, out: str = Out("aligned.h5"), json: Json = False) -> None:
    """Align and normalise projections: centre of mass, common line, total intensity."""
    from pyaet.plan import Alignment
    from pyaet.stages.alignment import align as align_stage

    tell(align_stage(projections, target(out, projections), section(Alignment, setting), context("cpu")), json)


def tomo(
    aligned: Source,
    iterations: Annotated[int | None, typer.Option("--iterations", help="RESIRE iterations.")] = None,
    device: Device = DeviceName.auto,
    setting: Settings = None,
    out: str = Out("volume.h5"),
    json: Json = False,
) -> None:
    """Reconstruct the volume from aligned projections."""
    from pyaet.plan import Tomography
    from pyaet.stages.tomography import reconstruct

    settings = section(Tomography, setting, iterations=iterations)
    tell(reconstruct(aligned, target(out, aligned), settings, context(device)), json)


def trace(
    volume: Source,
    elements: Annotated[str, typer.Option("--elements", help="Known elements, such as Si,O.")],
    min_distance_A: Annotated[float, typer.Option("--min-distance-A", help="Smallest distance of two atoms in Å.")],
    seed: Seed = 0,
    setting: Settings = None,
    out: str = Out("atoms.extxyz"),
    json: Json = False,
) -> None:
    """Find the atoms of a volume and name their elements; all candidates go to a .candidates.h5 beside them."""
    from pyaet.artifacts import refuse_foreign
    from pyaet.plan import Specimen, Tracing
    from pyaet.stages.atoms import trace as trace_stage

    specimen = section(Specimen, None, elements=elements.split(","), min_distance_A=min_distance_A)
    path = target(out, volume)
    candidates = path.with_suffix(".candidates.h5")
    refuse_foreign(candidates)
    settings = section(Tracing, setting)
    tell(trace_stage(volume, candidates, path, specimen, settings, context("cpu", seed)), json)


def refine(
    atoms: Source,
    projections: Annotated[Path, typer.Argument(help="The aligned projections.")],
    min_distance_A: Annotated[float, typer.Option("--min-distance-A", help="Smallest distance of two atoms in Å.")],
    setting: Settings = None,
    out: str = Out("refined.extxyz"),
    json: Json = False,
) -> None:
    """Refine coordinates against aligned projections and give every atom an error bar."""
    from pyaet.io.structures import read_structure
    from pyaet.plan import Refinement, Specimen
    from pyaet.stages.atoms import refine as refine_stage

    elements = read_structure(atoms).elements
    specimen = section(Specimen, None, elements=elements, min_distance_A=min_distance_A)
    path = target(out, atoms)
    tell(refine_stage(atoms, projections, path, specimen, section(Refinement, setting), context("cpu")), json)


def report(directory: Annotated[Path, typer.Argument(help="The run directory.")]) -> None:
    """Write report.html of a run directory anew."""
    from pyaet.io.errors import InputError
    from pyaet.report import write_report

    if not (directory / "summary.json").is_file():
        raise InputError(f"{directory}: holds no summary.json; expected the directory of a pyaet run")
    typer.echo(write_report(directory))
