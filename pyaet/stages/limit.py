"""Dose planning: the Cramér–Rao bound of atom positions for a planned dark-field tilt series."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from pyaet.io.angles import read_angles
from pyaet.io.errors import InputError
from pyaet.plan import Plan
from pyaet.stages.adf import angle_spec
from pyaet.stages.context import Context
from pyaet.stages.simulation import imaging, specimen

DOSE_FACTORS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 10.0)
WEDGES_DEG = (70.0, 60.0)


def limits(plan: Plan, context: Context) -> dict[str, Any]:
    """The bound in pm (root mean square over the atoms, in three dimensions) per element for doses and choices of tilts.

    The plan's [simulation] says which cluster, optics, pixel and tilts are meant; raises `InputError` where it is missing or is
    not a dark-field one.
    """
    import tomo
    from analysis.likelihood import Optics, bound
    from pyaet.simulate.adf import cross_section_A2, electrons_per_atom

    planned = plan.simulation
    if planned is None or planned.kind != "adf":
        raise InputError(
            'simulation: missing, or its kind is not "adf"; expected a table [simulation] with kind = "adf" that describes the series: '
            "structure or diameter_A, angles, dose_e_per_A2, energy_eV, semiangle_mrad, inner_mrad, outer_mrad, field_A, step_A"
        )
    atoms, how = specimen(planned, context.seed), imaging(planned)
    if unknown := sorted(set(atoms.symbols) - set(plan.specimen.elements)):
        raise InputError(
            f"specimen.elements: found {', '.join(plan.specimen.elements)}; expected {', '.join(unknown)} as well, which the atoms of "
            "[simulation] are"
        )
    angles_deg = read_angles(angle_spec(planned.angles))
    doses = [factor * planned.dose_e_per_A2 for factor in DOSE_FACTORS]
    rows: dict[str, Any] = {}
    for name, chosen in choices(angles_deg).items():
        rows[name] = {"tilts": len(chosen), "rmsd_pm": {element: [] for element in atoms.elements}}
        for dose in doses:
            sigma_A = bound(
                atoms,
                tomo.rotation(chosen),
                how.image_shape,
                how.pixel_A,
                electrons=[electrons_per_atom(s, replace(how, dose_e_per_A2=dose)) for s in atoms.elements],
                ground=max(how.background_e, 1e-3),
                optics=Optics(how.energy_eV, how.semiangle_mrad),
                width_A=float(np.hypot(how.source_sigma_A, how.phonon_sigma_A)),
                defocus_A=abs(how.defocus_A),
                threads=context.workers,
            )
            for element, values in rows[name]["rmsd_pm"].items():
                of = np.array([symbol == element for symbol in atoms.symbols])
                values.append(float(100 * np.sqrt((sigma_A[of] ** 2).sum(axis=1).mean())))
    return {
        "atoms": len(atoms),
        "cross_sections_A2": {symbol: cross_section_A2(symbol, how) for symbol in atoms.elements},
        "least_distance_pm": 100 * plan.specimen.min_distance_A,
        "dose_e_per_A2": doses,
        "tilts": rows,
    }


def choices(angles_deg: np.ndarray) -> dict[str, np.ndarray]:
    """Angles (n, 3) by name: as planned, every second tilt, and without those beyond some angles where there are any."""
    theta = np.abs((angles_deg[:, 1] + 90) % 180 - 90)
    found = {"as planned": angles_deg, "every 2nd": angles_deg[::2]}
    for limit in WEDGES_DEG:
        inside = theta <= limit
        if inside.any() and not inside.all():
            found[f"within ±{limit:g}°"] = angles_deg[inside]
    return found
