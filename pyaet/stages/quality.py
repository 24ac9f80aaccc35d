"""What a volume is worth, in the words of a run: datasets for `volume.h5`, numbers for the summary, and doubts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyaet.artifacts import Data, reading_h5

if TYPE_CHECKING:
    import tomo
    from pyaet.stages.tomography import Series

WIDE_WEDGE_DEG, WIDE_SHARE = 50.0, 0.28
"""Beyond this opening of the missing wedge, or this share of all directions, atoms are drawn out so far that neighbours run into one
another."""

RIM_TILTS = 3

WHERE = {"resolution_A": "", "resolution_x_A": " along x", "resolution_y_A": " along y", "resolution_z_A": " along z"}
RESOLUTIONS = tuple(WHERE)


@dataclass
class Judgement:
    """What is added to `volume.h5`, to the summary and to its warnings."""

    data: dict[str, Data] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def judgement(series: Series, made: tomo.Reconstruction, chosen: tomo.Stopping | None, voxel_A: float) -> Judgement:
    """How well the volume explains the images, and with `quality` in the plan what its two halves tell."""
    import tomo

    said = Judgement()
    _fit(said, series, made, chosen)
    if series.settings.quality:
        found = tomo.quality(
            series.images,
            series.angles_deg,
            made.volume,
            _halves(series, len(made.r_factor)),
            rng=series.context.rng(),
            **series.seen(),
        )
        _resolution(said, found, voxel_A)
        _unseen(said, found, voxel_A)
    _name_strays(said, series.angles_deg)
    return said


def _halves(series: Series, iterations: int) -> Callable[[np.ndarray], Any]:
    works = iter(("half0", "half1"))
    return lambda tilts: series.volume(iterations, next(works), tilts).volume


def _fit(said: Judgement, series: Series, made: tomo.Reconstruction, chosen: tomo.Stopping | None) -> None:
    said.data |= {"r_factor": Data(made.r_factor, ""), "tilt_r": Data(made.tilt_r, "")}
    worst = int(np.nanargmax(made.tilt_r))
    if series.settings.method != "fbp":
        said.numbers["iterations"] = len(made.r_factor)
    said.numbers["r_factor"] = float(made.r_factor[-1])
    if chosen is not None:
        _held_out(said, chosen)
    said.numbers |= {
        "worst_tilt": worst,
        "worst_tilt_deg": float(series.angles_deg[worst, 1]),
        "worst_tilt_r": float(made.tilt_r[worst]),
    }


def _held_out(said: Judgement, chosen: tomo.Stopping) -> None:
    trial = chosen.trial
    assert trial.r_free is not None
    said.data |= {
        "r_free": Data(trial.r_free, ""),
        "mismatch_free": Data(trial.mismatch_free, ""),
        "held_out": Data(trial.held_out, ""),
    }
    said.numbers["r_free"] = float(trial.r_free[chosen.iterations - 1])
    if not chosen.turned:
        said.warnings.append(
            f"the held-out tilts were still explained better after {chosen.iterations} iterations; more would help, or momentum"
        )


def _resolution(said: Judgement, found: tomo.Quality, voxel_A: float) -> None:
    curves = found.correlation
    said.data |= {
        "fsc_frequency_per_A": Data(curves.frequency / voxel_A, "1/Å"),
        "fsc": Data(curves.fsc["all"], ""),
        **{f"fsc_{axis}": Data(curves.fsc[axis], "") for axis in "xyz"},
        "fsc_masked": Data(curves.masked, ""),
        "fsc_random": Data(curves.random, ""),
        "fsc_points": Data(curves.points, ""),
    }
    reached = {name: one.voxels * voxel_A for name, one in zip(RESOLUTIONS, found.resolution.values(), strict=True)}
    said.attributes |= reached
    said.numbers |= reached
    notes = {part: one.note for part, one in found.resolution.items() if one.note}
    if notes:
        said.numbers["resolution_notes"] = "; ".join(
            note if part == "all" else f"along {part}: {note}" for part, note in notes.items()
        )


def _unseen(said: Judgement, found: tomo.Quality, voxel_A: float) -> None:
    gap = found.wedge
    said.data |= {"unseen_r": Data(found.unseen_r, ""), "half": Data(found.half, "")}
    said.numbers |= {
        "r_factor_unseen": float(np.nanmean(found.unseen_r)),
        "missing_share": gap.share,
        "unseen_share": found.unseen_share,
        "particle_diameter_A": found.diameter * voxel_A,
        "crowther_A": found.crowther * voxel_A,
    }
    if not gap.one_axis:
        if gap.share > WIDE_SHARE:
            said.warnings.append(
                f"the tilts leave {100 * gap.share:.0f} % of all directions unmeasured: atoms are drawn out along them"
            )
        return
    said.data["plane_deg"] = Data(gap.plane_deg, "deg")
    said.attributes |= {"wedge_deg": gap.opening_deg, "tilt_axis": gap.axis}
    said.numbers["wedge_deg"] = gap.opening_deg
    if gap.direction is None:
        return
    said.numbers["wedge_about"] = _named(gap.direction)
    if gap.opening_deg > WIDE_WEDGE_DEG:
        said.warnings.append(
            f"the tilts leave a wedge of {gap.opening_deg:.3g}° about {_named(gap.direction)} unmeasured, {100 * gap.share:.0f} % of all "
            "directions: atoms are drawn out along it; more tilts there would help most"
        )


def _named(direction: np.ndarray) -> str:
    """The axis that a direction (x, y, z) lies along, or its components."""
    nearest = int(np.abs(direction).argmax())
    return "xyz"[nearest] if abs(direction[nearest]) > 0.98 else "({:.2f}, {:.2f}, {:.2f})".format(*direction)


def _name_strays(said: Judgement, angles_deg: np.ndarray) -> None:
    """A doubt that names the tilts which stand out by their fitted R-factors or by those that were not fitted."""
    import tomo

    r = [said.data[name].array.copy() for name in ("tilt_r", "unseen_r") if name in said.data]
    # What lies near the rim of a wedge has neighbours on one side only, and is explained less well whatever its worth.
    if tomo.wedge(angles_deg).opening_deg and len(angles_deg) > 2 * RIM_TILTS:
        order = tomo.sequence(angles_deg)
        for values in r:
            values[np.concatenate([order[:RIM_TILTS], order[-RIM_TILTS:]])] = np.nan
    found = list(dict.fromkeys(int(k) for values in r for k in tomo.strays(values)))
    said.data["stray_tilts"] = Data(np.array(found, np.int64), "")
    if found:
        named = ", ".join(f"{k} ({angles_deg[k, 1]:+.4g}°)" for k in found)
        said.warnings.append(
            f"the volume explains tilt {named} worse than the others: look at the image, or leave it out"
        )


def resolution_doubts(path: Path, min_distance_A: float) -> list[str]:
    """What the halves of a `volume.h5` say against telling atoms `min_distance_A` apart; nothing where it was not asked."""
    with reading_h5(path) as file:
        if "resolution_A" not in file.attrs:
            return []
        reached = {name: float(file.attrs[name]) for name in RESOLUTIONS}
    if np.isnan(reached["resolution_A"]):
        return ["the volume shows no particle on which two halves of the tilts agree: nothing in it can be trusted"]
    poor = [
        (f"{value:.3g} Å" if np.isfinite(value) else "not reached") + WHERE[name]
        for name, value in reached.items()
        if not value <= min_distance_A
    ]
    if not poor:
        return []
    return [
        f"the resolution of the volume is {', '.join(poor)}: atoms {min_distance_A:g} Å apart cannot all be told apart in it; a fit to "
        "counts may still do so"
    ]
