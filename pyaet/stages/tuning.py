"""Numbers of a tilt found by trial: short reconstructions of a small part of it, and the values with the least loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import ptycho
from pyaet.device import array_module
from pyaet.io.errors import InputError, told_of
from pyaet.io.fourdstem import TiltFile, opened_counts, positions_A
from pyaet.memory import resident_bytes
from pyaet.plan import Input, Ptychography
from pyaet.stages.calibration import optics_of
from pyaet.stages.context import Context

if TYPE_CHECKING:
    from ptycho.tune import Parameter

DEFAULT = ("defocus_A", "rotation_deg")
SCAN = {"rotation_deg": (0.0, 12.0, 0.1), "scan_scale": (1.0, 0.1, 1e-3)}
"""What turns and stretches the scan: stated value, half the range, error that no longer matters."""
_LEAST_RANGE = {"defocus_A": 150.0, "c12_A": 60.0, "c30_A": 2e5, "c21_A": 2e3, "c23_A": 2e3}
_SHARE = {"pixel_mrad": 0.08, "semiangle_mrad": 0.08, "slice_A": 0.6}
_STEPS = 200


@dataclass(frozen=True)
class Found:
    """A number, as stated and as found with its standard deviation; `at_limit`: it lies at the end of the range."""

    name: str
    stated: float
    found: float
    sigma: float
    at_limit: bool

    @property
    def text(self) -> str:
        """The value to as many digits as its standard deviation warrants."""
        if not self.sigma > 0:
            return f"{self.found:.6g}"
        return f"{self.found:.{max(0, 1 - math.floor(math.log10(self.sigma)))}f}"


def tune_tilt(
    tilt: TiltFile,
    wanted: Sequence[str],
    settings: Ptychography,
    context: Context,
    *,
    method: Literal["auto", "golden", "optuna"] = "auto",
    budget: int = 120,
    subset: int = 256,
) -> list[Found]:
    """The values of the `wanted` numbers (`name` or `name=low:high`) that explain the patterns of a tilt best."""
    from ptycho.tune import objective, tune

    engine, optics = settings.engine(threads=context.workers), optics_of(tilt)
    parameters = [parameter(text, tilt, optics, engine) for text in wanted]
    with opened_counts(tilt, resident_bytes(1)) as counts, told_of(tilt.path):
        patterns = ptycho.Patterns(counts, positions_A(tilt), tilt.pixel_mrad)
        cost = objective(patterns, optics, engine, subset=subset, seed=context.seed, xp=array_module(context.device))
        with context.console.task("tuning", "loss") as progress:
            found = tune(cost, parameters, method=method, budget=budget, seed=context.seed, progress=progress)
    return [
        Found(p.name, p.start, found.best[p.name], found.uncertainty[p.name], p.name in found.at_limit)
        for p in parameters
    ]


def orientations(tilt: TiltFile, settings: Ptychography, context: Context, subset: int = 256) -> dict[str, float]:
    """Loss with the scan mirrored, turned or its axes exchanged and the defocus flipped, the least first."""
    from ptycho.tune import alternatives

    engine = settings.engine(threads=context.workers)
    with opened_counts(tilt, resident_bytes(1)) as counts, told_of(tilt.path):
        patterns = ptycho.Patterns(counts, positions_A(tilt), tilt.pixel_mrad)
        with context.console.task("orientations", "loss") as progress:
            losses = alternatives(
                patterns, optics_of(tilt), engine, subset=subset, seed=context.seed, progress=progress,
                xp=array_module(context.device),
            )  # fmt: skip
    return dict(sorted(losses.items(), key=lambda item: item[1]))


def parameter(text: str, tilt: TiltFile, optics: ptycho.Optics, settings: ptycho.Settings) -> Parameter:
    """A number to find, its range given as `name=low:high` or about the stated value."""
    from ptycho.tune import Parameter

    name, _, given = text.strip().partition("=")
    stated = _stated(name, tilt, optics, settings)
    half, tolerance = _reach(name, stated)
    low, high = stated - half, stated + half
    if given:
        try:
            low, high = (float(end) for end in given.split(":"))
        except ValueError:
            raise InputError(f"{text}: expected a name, or name=low:high such as defocus_A=100:250") from None
        tolerance = (high - low) / _STEPS
    with told_of(f"parameter {name}"):
        return Parameter(name, min(max(stated, low), high), low, high, tolerance)


def _stated(name: str, tilt: TiltFile, optics: ptycho.Optics, settings: ptycho.Settings) -> float:
    if name in SCAN:
        return SCAN[name][0]
    known = {"pixel_mrad": tilt.pixel_mrad, **asdict(optics)}
    if settings.slices > 1:
        known["slice_A"] = float(np.mean(settings.gaps_A))
    if name not in known:
        names = ", ".join((*known, *SCAN))
        hint = " (slice_A needs --set slices=2 and --set slice_A=...)" if name == "slice_A" else ""
        raise InputError(f"{name!r} cannot be tuned{hint}; expected names out of {names}")
    return known[name]


def _reach(name: str, stated: float) -> tuple[float, float]:
    """Half the range to look in, and the error that no longer matters."""
    if name in SCAN:
        return SCAN[name][1:]
    if name.endswith("_deg"):
        return 90.0, 1.0
    if name in _SHARE:
        return _SHARE[name] * stated, 1e-3 * stated
    half = max(abs(stated), _LEAST_RANGE.get(name, 50.0))
    return half, half / _STEPS


def plan_toml(found: Sequence[Found]) -> str:
    """What was found as lines of a plan; what a plan has no key for stands there as a remark."""
    sections = {"input": set(Input.model_fields), "ptychography": {f.name for f in fields(ptycho.Settings)}}
    lines = []
    for section, keys in sections.items():
        inside = [one for one in found if one.name in keys]
        if inside:
            lines += [f"[{section}]", *(f"{one.name} = {one.text}  # {_error(one)}" for one in inside)]
    for one in found:
        if not any(one.name in keys for keys in sections.values()):
            lines.append(
                f"# {one.name} = {one.text}, {_error(one)}: belongs into the files; small ones are found by "
                "update_affine in [ptychography]"
            )
    return "\n".join(lines) + "\n"


def _error(one: Found) -> str:
    sigma = "uncertainty unknown" if math.isnan(one.sigma) else f"± {one.sigma:.2g}"
    return f"{sigma}, {one.stated:.6g} was stated" + (", at the end of the range" if one.at_limit else "")


def as_json(found: Sequence[Found]) -> dict[str, Any]:
    """By name, for programs."""
    return {one.name: {k: v for k, v in asdict(one).items() if k != "name"} for one in found}
