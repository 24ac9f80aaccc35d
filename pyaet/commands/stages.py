"""Verbs for one stage each, on files: ptycho, adf, align, tomo, trace, refine, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pyaet.commands.options import (
    Device,
    DeviceName,
    Json,
    Out,
    Seed,
    Settings,
    context,
    refuse_picture,
    section,
    target,
    tell,
)

if TYPE_CHECKING:
    from pyaet.io.fourdstem import TiltFile
    from pyaet.plan import Ptychography
    from pyaet.stages.context import Context

Source = Annotated[Path, typer.Argument(help="The file to read.")]


def register(app: typer.Typer) -> None:
    for verb in (ptycho, adf, align, tomo, trace, refine, report):
        app.command()(verb)


def ptycho(
    tilt: Annotated[list[Path], typer.Argument(help="A 4D-STEM tilt; several, or a folder, make a series.")],
    slices: Annotated[int | None, typer.Option("--slices", help="Number of object slices.")] = None,
    slice_A: Annotated[float | None, typer.Option("--slice-A", help="Thickness of a slice in Å.")] = None,
    iterations: Annotated[int | None, typer.Option("--iterations", help="Passes over all patterns.")] = None,
    defocus_A: Annotated[float | None, typer.Option("--defocus-A", help="Instead of the file's.")] = None,
    device: Device = DeviceName.auto,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads, of a series processes.")] = None,
    seed: Seed = 0,
    setting: Settings = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="PNG of phase, probe and losses, drawn anew every few seconds.")
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", help="Where to write: ptycho.h5, of a series the folder ptychography.")
    ] = None,
    json: Json = False,
) -> None:
    """Reconstruct 4D-STEM tilts: object slices, probe, loss trace and phase projection of each."""
    from dataclasses import replace

    from pyaet.io.fourdstem import list_tilts
    from pyaet.plan import Ptychography

    settings = section(Ptychography, setting, slices=slices, slice_A=slice_A, iterations=iterations)
    given = context(device, seed, threads)
    refuse_picture(picture)
    tilts = list_tilts(tilt)
    if defocus_A is not None:
        tilts = [replace(one, defocus_A=defocus_A) for one in tilts]
    if len(tilts) == 1:
        _one_tilt(tilts[0], settings, given, target(out or "ptycho.h5", tilts[0].path), picture, json)
    else:
        _series(tilts, settings, given, Path(out or "ptychography"), picture, json)


def _one_tilt(
    tilt: TiltFile, settings: Ptychography, given: Context, out: Path, picture: Path | None, json: bool
) -> None:
    from json import loads

    from pyaet.artifacts import attribute, reading_h5
    from pyaet.memory import resident_bytes
    from pyaet.stages.calibration import calibrated
    from pyaet.stages.tilt import TiltTask, reconstruct_tilt, tilt_key

    (calibration,) = calibrated([tilt], settings, 1)
    key = tilt_key(tilt, settings, given.seed, calibration=calibration)
    task = TiltTask(
        tilt, out, settings, given.device, given.workers, given.seed, key,
        calibration=calibration, resident_bytes=resident_bytes(1), picture=picture, picture_at_end=True,
    )  # fmt: skip
    with given.console.task("ptychography", "loss") as progress:
        numbers = reconstruct_tilt(task, progress)
    with reading_h5(out) as file:
        found = loads(attribute(file, "findings"))
    said = {"findings": found} if json else {f"finding {i}": one["sentence"] for i, one in enumerate(found, start=1)}
    tell({**numbers, **said, "out": str(out)}, json)


def _series(
    tilts: list[TiltFile], settings: Ptychography, given: Context, folder: Path, picture: Path | None, json: bool
) -> None:
    from pyaet.artifacts import refuse_foreign
    from pyaet.io.errors import InputError
    from pyaet.stages.ptychography import reconstruct_tilts

    if folder.is_file() or folder.suffix == ".h5":
        raise InputError(f"--out {folder}: expected a folder for the {len(tilts)} tilts of the series")
    if folder.resolve() in {tilt.path.resolve().parent for tilt in tilts}:
        raise InputError(f"--out {folder}: is also the folder of the input; expected another name")
    refuse_foreign(folder / "projections.h5", *folder.glob("tilt_*.h5"))
    numbers = reconstruct_tilts(tilts, folder, folder / "projections.h5", settings, given, picture)
    if not json:
        numbers.pop("consistency")
    tell({**numbers, "out": str(folder)}, json)


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


def align(
    projections: Source,
    min_distance_A: Annotated[
        float | None,
        typer.Option("--min-distance-A", help="Smallest distance of two atoms in Å, for --set calibrate=true."),
    ] = None,
    setting: Settings = None,
    out: str = Out("aligned.h5"),
    json: Json = False,
) -> None:
    """Align and normalise projections: centre of mass, common line, total intensity, and on request the tilt angles."""
    from pyaet.plan import Alignment
    from pyaet.stages.alignment import align as align_stage

    settings = section(Alignment, setting)
    tell(align_stage(projections, target(out, projections), settings, context("cpu"), min_distance_A), json)


def tomo(
    aligned: Source,
    iterations: Annotated[str | None, typer.Option("--iterations", help="Of RESIRE or SIRT, or auto.")] = None,
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
    counts: Annotated[
        Path | None, typer.Option("--counts", help="projections.h5 of dark-field counts, to fit these instead.")
    ] = None,
    setting: Settings = None,
    out: str = Out("refined.extxyz"),
    json: Json = False,
) -> None:
    """Refine coordinates against aligned projections, or counts, and give every atom an error bar; how well counts are explained goes
    to a .fit.h5 beside them."""
    from pyaet.artifacts import refuse_foreign
    from pyaet.io.structures import read_structure
    from pyaet.plan import Refinement, Specimen
    from pyaet.stages.refinement import refine as refine_stage

    elements = read_structure(atoms).elements
    specimen = section(Specimen, None, elements=elements, min_distance_A=min_distance_A)
    path = target(out, atoms)
    settings = section(Refinement, setting)
    record = path.with_suffix(".fit.h5")
    if counts is not None:
        refuse_foreign(record)
    tell(refine_stage(atoms, projections, counts, path, record, specimen, settings, context("cpu")), json)


def report(directory: Annotated[Path, typer.Argument(help="The run directory.")]) -> None:
    """Write report.html of a run directory anew."""
    from pyaet.io.errors import InputError
    from pyaet.report import write_report

    if not (directory / "summary.json").is_file():
        raise InputError(f"{directory}: holds no summary.json; expected the directory of a pyaet run")
    typer.echo(write_report(directory))
