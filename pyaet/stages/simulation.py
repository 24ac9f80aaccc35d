"""A known cluster to a tilt series on disk, with its truth beside it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyaet.artifacts import refuse_foreign
from pyaet.io.angles import read_angles
from pyaet.io.errors import InputError, told_of
from pyaet.io.structures import read_structure, write_extxyz
from pyaet.plan import Simulation
from pyaet.stages.adf import angle_spec
from pyaet.stages.context import Context

if TYPE_CHECKING:
    from analysis import Atoms
    from pyaet.simulate.adf import Imaging
    from pyaet.simulate.fourdstem import Recording

PTYCHOGRAPHY_DEFOCUS_A = 120.0
"""Spreads the probe over a few scan steps; an ADF image is taken in focus instead."""
SHARED = {"energy_eV", "semiangle_mrad", "slice_A", "phonons", "phonon_sigma_A", "dose_e_per_A2"}
"""What both simulators call by the plan's names."""


def specimen(settings: Simulation, seed: int) -> Atoms:
    """The cluster to simulate: the structure the plan names, else a ball of amorphous silica, about its centre."""
    from analysis import Atoms
    from pyaet.simulate.specimen import silica_cluster

    if settings.structure is None:
        with told_of("simulation"):
            return Atoms(*silica_cluster(settings.diameter_A, seed))
    atoms = read_structure(settings.structure)
    if "X" in atoms.symbols:
        raise InputError(f"{settings.structure}: an atom has no element; expected a structure with element symbols")
    centre = (atoms.positions_A.max(axis=0) + atoms.positions_A.min(axis=0)) / 2
    return Atoms(atoms.positions_A - centre, atoms.symbols)


def simulate(settings: Simulation, folder: Path, context: Context) -> dict[str, Any]:
    """Write the tilt series and `truth.extxyz` into `folder`; return the stage's numbers."""
    refuse_foreign(folder / "truth.extxyz", folder / "series.h5", *folder.glob("tilt_*.h5"))
    atoms = specimen(settings, context.seed)
    angles_deg = read_angles(angle_spec(settings.angles))
    with context.console.task("simulation") as progress:
        if settings.kind == "4dstem":
            from pyaet.simulate.fourdstem import simulate_series

            made = simulate_series(
                atoms.positions_A, atoms.symbols, angles_deg, recording(settings), folder,
                seed=context.seed, workers=context.workers, progress=progress,
            )  # fmt: skip
            for stale in set(folder.glob("tilt_*.h5")) - {tilt.path for tilt in made}:
                stale.unlink()
        else:
            from pyaet.simulate.adf import simulate_adf_series

            simulate_adf_series(
                atoms.positions_A, atoms.symbols, angles_deg, imaging(settings), folder / "series.h5",
                seed=context.seed, workers=context.workers, progress=progress,
            )  # fmt: skip
    write_extxyz(folder / "truth.extxyz", atoms, made_by=context.key)
    return described(settings) | {"atoms": {symbol: atoms.symbols.count(symbol) for symbol in atoms.elements}}


def described(settings: Simulation) -> dict[str, Any]:
    """What will be made, in numbers."""
    shape = scan_shape(settings)
    return {
        "simulated": settings.kind,
        "tilts": len(read_angles(angle_spec(settings.angles))),
        "scan": list(shape),
        "step_A": settings.step_A,
        "dose_e_per_A2": settings.dose_e_per_A2,
    }


def scan_shape(settings: Simulation) -> tuple[int, int]:
    n = math.ceil(settings.field_A / settings.step_A)
    return n, n


def recording(settings: Simulation) -> Recording:
    """The settings of the plan as the 4D-STEM simulator takes them."""
    from pyaet.simulate.fourdstem import Recording

    with told_of("simulation"):
        return Recording(
            **settings.model_dump(include=SHARED | {"step_A", "max_angle_mrad"}),
            defocus_A=PTYCHOGRAPHY_DEFOCUS_A if settings.defocus_A is None else settings.defocus_A,
            scan_shape=scan_shape(settings),
        )


def imaging(settings: Simulation) -> Imaging:
    """The settings of the plan as the ADF simulator takes them."""
    from pyaet.simulate.adf import Imaging

    with told_of("simulation"):
        return Imaging(
            **settings.model_dump(
                include=SHARED | {"inner_mrad", "outer_mrad", "background_e", "model", "cross_sections_A2"}
            ),
            defocus_A=settings.defocus_A or 0.0,
            image_shape=scan_shape(settings),
            pixel_A=settings.step_A,
        )
