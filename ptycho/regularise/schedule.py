"""The value that names a regulariser, its strength and its schedule, checked when it is made."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal

_REQUIRED = object()
_PROXIMAL = ("tv", "l1")
_PARTS = ("both", "phase", "absorption")

OBJECT_KINDS: dict[str, dict[str, Any]] = {
    "layers": {"sigma_A": _REQUIRED, "part": "both"},
    "kz_filter": {"angle_mrad": _REQUIRED, "part": "both"},
    "identical": {"part": "both"},
    "tv": {"weight_z": 0.0, "passes": 20, "part": "both"},
    "l1": {"level": 0.0, "part": "both"},
    "positivity": {"level": 0.0},
    "blur": {"sigma_A": _REQUIRED, "part": "both"},
    "lowpass": {"radius_per_A": _REQUIRED, "part": "both"},
    "amplitude": {"low": 0.0, "high": 1.0},
}
"""Kinds of the object, each with its fields and their defaults."""

PROBE_KINDS: dict[str, dict[str, Any]] = {
    "probe_support": {"radius_A": _REQUIRED, "edge": 0.1},
    "probe_aperture": {"radius_per_A": _REQUIRED, "edge": 0.1},
    "probe_smooth": {"sigma_per_A": _REQUIRED},
    "probe_power": {"electrons": None},
    "probe_centre": {},
    "orthogonal": {},
}
"""Kinds of the probe, each with its fields and their defaults."""

_KINDS = OBJECT_KINDS | PROBE_KINDS
_FIELDS = sorted({name for fields in _KINDS.values() for name in fields})


def _finite(lowest: float, highest: float = math.inf, above: bool = False) -> Callable[[Any], bool]:
    """Test for a finite number within the bounds, `above` its lower one if so asked."""

    def holds(value: Any) -> bool:
        number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
        return number and (lowest < value if above else lowest <= value) and value <= highest

    return holds


def _whole(lowest: int) -> Callable[[Any], bool]:
    """Test for a whole number of at least `lowest`."""
    return lambda value: isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= lowest


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "sigma_A": (_finite(0, above=True), "a positive standard deviation in Å"),
    "sigma_per_A": (_finite(0, above=True), "a positive standard deviation in 1/Å"),
    "radius_A": (_finite(0, above=True), "a positive radius in Å"),
    "radius_per_A": (_finite(0, above=True), "a positive radius in 1/Å (mrad × 1e-3 / wavelength)"),
    "angle_mrad": (_finite(0, 1570, above=True), "an angle between 0 and 1570 mrad"),
    "edge": (_finite(0), "the width of the edge as a share of the radius, 0 or more"),
    "weight_z": (_finite(0), "a number of 0 or more, differences along the beam relative to those across it"),
    "passes": (_whole(1), "a whole number of at least 1"),
    "level": (lambda v: v == "median" or _finite(-math.inf)(v), 'a level in rad or "median"'),
    "low": (_finite(0), "an amplitude of 0 or more"),
    "high": (_finite(0, above=True), "a positive amplitude"),
    "electrons": (
        lambda v: v is None or _finite(0, above=True)(v),
        "a positive number of electrons per pattern, or None",
    ),
    "part": (lambda v: v in _PARTS, "one of " + ", ".join(_PARTS)),
    "start": (_whole(0), "the first iteration, a whole number of 0 or more"),
    "every": (_whole(1), "a whole number of iterations of at least 1"),
    "stop": (lambda v: v is None or _whole(0)(v), "the iteration to stop before, or None"),
}


@dataclass(frozen=True)
class Regulariser:
    """One regulariser of object or probe: a kind with its fields, a weight, and when it acts.

    It acts at iteration `start`, then `every` so many iterations, the last one before `stop` (None: to the end).
    `part` names the share of the object it acts on: "both", "phase" or "absorption".

    Kinds of the object (weight is a share in [0, 1] unless said otherwise):
    layers: slices drawn towards a profile that is smooth along the beam, a Gaussian of sigma_A with mirrored ends; the sum
        over slices is kept (layer regularisation of Chen et al., doi:10.1126/science.abg2533).
    kz_filter: multiplies by 1 − 2/π·atan((k_z / (k_r tan angle))²), half at `angle_mrad` from the plane k_z = 0, which is
        kept (missing cone, doi:10.1126/science.abg2533; 1 / tan angle is γ·gap / pixel of doi:10.48550/arXiv.2309.05250).
    identical: all slices equal per Å of thickness, their sum kept.
    tv: R = ∫|∇φ|, weight in rad·Å: isotropic over each slice, with `weight_z` > 0 also along the beam
        (doi:10.1016/0167-2789(92)90242-F), solved by `passes` of the fast dual iteration (doi:10.1109/TIP.2009.2028250).
    l1: R = Σ|φ − level|, weight in rad: soft threshold (doi:10.1002/cpa.20042); level in rad, "median" that of each slice.
    positivity: φ ≥ level, weight the share of the violation that is removed.
    blur: Gaussian of sigma_A over each slice. lowpass: Butterworth filter 1 / (1 + (k_r / radius_per_A)⁸).
    amplitude: |object| within [low, high], that is absorption within [−ln high, −ln low]; nothing for phase objects.

    Kinds of the probe:
    probe_support: zero beyond radius_A from the centroid of the intensity; untouched inside, the edge falls to zero over
        the share `edge` of the radius outside it. probe_aperture: the same in Fourier space about k = 0 with radius_per_A.
    probe_smooth: Fourier amplitude of each mode blurred by a Gaussian of sigma_per_A, its phase and the mode's power kept;
        where the amplitude is nothing but rounding there is no phase, and it stays.
    probe_power: total power brought to `electrons` per pattern (None: what the caller says).
    probe_centre: centroid moved to coordinate 0; the object has to move by the same shift.
    orthogonal: modes orthogonal, strongest first (doi:10.1038/nature11806); always whole, weight 1.

    Raises ValueError for an unknown kind, a field that the kind does not have or lacks, or a value outside its range.
    """

    kind: str
    weight: float
    start: int = 0
    every: int = 1
    stop: int | None = None
    part: Literal["both", "phase", "absorption"] | None = None
    sigma_A: float | None = None
    sigma_per_A: float | None = None
    radius_A: float | None = None
    radius_per_A: float | None = None
    angle_mrad: float | None = None
    edge: float | None = None
    weight_z: float | None = None
    passes: int | None = None
    level: float | Literal["median"] | None = None
    low: float | None = None
    high: float | None = None
    electrons: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f'kind is "{self.kind}"; expected one of {", ".join(_KINDS)}.')
        self._fill()
        for name in ("start", "every", "stop", *_KINDS[self.kind]):
            self._check(name)
        self._check_weight()
        # A scalar of numpy would carry its own precision into the arrays.
        object.__setattr__(self, "weight", float(self.weight))
        if self.stop is not None and self.stop <= self.start:
            raise ValueError(
                f'stop is {self.stop} and start {self.start} for "{self.kind}"; expected a stop after the start, or None.'
            )
        if self.kind == "amplitude" and self.number("low") > self.number("high"):
            raise ValueError(f"low is {self.low} and high {self.high}; expected amplitudes with low ≤ high.")

    def _fill(self) -> None:
        """Defaults of the kind for the fields left out; refuse those of other kinds."""
        own = _KINDS[self.kind]
        for name in _FIELDS:
            given = getattr(self, name) is not None
            if given and name not in own:
                raise ValueError(f'{name} is given for "{self.kind}"; expected only {", ".join(own) or "no field"}.')
            if not given and own.get(name) is _REQUIRED:
                raise ValueError(f'{name} is missing for "{self.kind}"; expected {_RULES[name][1]}.')
            if not given and name in own:
                object.__setattr__(self, name, own[name])

    def _check(self, name: str) -> None:
        holds, expected = _RULES[name]
        if not holds(getattr(self, name)):
            raise ValueError(f'{name} is {getattr(self, name)!r} for "{self.kind}"; expected {expected}.')

    def _check_weight(self) -> None:
        proximal = self.kind in _PROXIMAL
        if not _finite(0, math.inf if proximal else 1)(self.weight):
            unit = {"tv": "rad·Å of 0 or more", "l1": "rad of 0 or more"}.get(self.kind, "a share between 0 and 1")
            raise ValueError(f'weight is {self.weight!r} for "{self.kind}"; expected {unit}.')
        if self.kind == "orthogonal" and self.weight != 1:
            raise ValueError(
                f'weight is {self.weight!r} for "orthogonal"; expected 1, modes cannot be half orthogonal.'
            )

    def number(self, name: str) -> float:
        """The field `name` as a float."""
        return float(getattr(self, name))


def active(regulariser: Regulariser, iteration: int) -> bool:
    """True at the iterations (0-based) start, start + every, … before stop."""
    since = iteration - regulariser.start
    running = regulariser.stop is None or iteration < regulariser.stop
    return since >= 0 and running and since % regulariser.every == 0
