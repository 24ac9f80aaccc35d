"""Every knob of a reconstruction, checked when it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

SOLVERS = ("gradient", "lsqml")
_CHOICES: dict[str, tuple[str, ...]] = {
    "solver": SOLVERS,
    "likelihood": ("poisson", "amplitude"),
    "batching": ("random", "compact"),
    "object_type": ("phase", "complex"),
    "detector": ("auto", "full"),
    "dtype": ("float32", "float64"),
}


@dataclass(frozen=True)
class Settings:
    """How a tilt is reconstructed; the defaults suit a nanoparticle of a few nm at 1e3 to 1e5 e⁻/Å².

    slices, slice_A: number of slices and the distance between them in Å (needed for more than one). The particle centre
        lies in the middle of the stack.
    iterations: passes over all patterns.
    solver: "gradient" (preconditioned, accelerated) or "lsqml" (least squares steps, doi:10.1364/OE.26.003108).
    likelihood: "poisson" or "amplitude"; offset: electrons per pixel added to model and data, as a share of the mean count
        inside the bright-field disk.
    object_type: "phase" keeps |object| = 1, "complex" frees the amplitude.
    batching, batch_size: "random" or "compact" (neighbouring positions) groups of patterns per update; batch_size None
        takes all patterns at once for "gradient", 128 for "lsqml".
    step: length of the steps of "gradient" in units of the Newton step (over-relaxation above 1 is not stable).
    prior_rad2_A2: expected power spectral density of the projected phase at low frequency in rad²Å² with which the
        "gradient" solver damps frequencies that hold more noise than structure. "auto" measures it during the run, None
        turns it off.
    beta_lsq, delta_lsq: relaxation of the steps of "lsqml", and the share of the strongest illumination added to the
        denominator.
    update_probe, update_positions: first iteration (0-based) that refines them; None holds them fixed.
    position_sigma_A: expected error of the given positions; refined ones are drawn back to them accordingly.
    detector: "auto" crops or pads to a size with fast transforms, "full" keeps the detector's pixels.
    tolerance: stop once an iteration lowers the loss by less than this share of it; 0 runs all iterations.
    threads: threads of the Fourier transforms on the CPU. dtype: "float32" or "float64".
    Raises ValueError for a value outside its range.
    """

    slices: int = 1
    slice_A: float | None = None
    iterations: int = 5
    solver: Literal["gradient", "lsqml"] = "gradient"
    likelihood: Literal["poisson", "amplitude"] = "poisson"
    offset: float = 0.25
    object_type: Literal["phase", "complex"] = "phase"
    batching: Literal["random", "compact"] = "random"
    batch_size: int | None = None
    step: float = 0.8
    prior_rad2_A2: float | Literal["auto"] | None = "auto"
    beta_lsq: float = 0.9
    delta_lsq: float = 0.1
    update_probe: int | None = None
    update_positions: int | None = None
    position_sigma_A: float = 0.2
    detector: Literal["auto", "full"] = "auto"
    tolerance: float = 0.0
    threads: int = 1
    dtype: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f'{name} is "{getattr(self, name)}"; expected one of {", ".join(choices)}.')
        for name in ("slices", "iterations", "threads"):
            _whole(name, getattr(self, name), 1)
        _whole("batch_size", self.batch_size, 1, optional=True)
        for name in ("update_probe", "update_positions"):
            _whole(name, getattr(self, name), 0, optional=True)
        for name, lowest, highest in (
            ("step", 0, 1.5),
            ("beta_lsq", 0, 2),
            ("delta_lsq", 0, 1),
            ("position_sigma_A", 0, 10),
        ):
            _within(name, getattr(self, name), lowest, highest)
        if not (math.isfinite(self.offset) and self.offset >= 0 and 0 <= self.tolerance < 1):
            raise ValueError(
                f"offset is {self.offset} and tolerance {self.tolerance}; expected shares, offset ≥ 0 and 0 ≤ tolerance < 1."
            )
        if isinstance(self.prior_rad2_A2, str):
            if self.prior_rad2_A2 != "auto":
                raise ValueError(
                    f'prior_rad2_A2 is "{self.prior_rad2_A2}"; expected "auto", a number in rad²Å², or None.'
                )
        elif self.prior_rad2_A2 is not None:
            _within("prior_rad2_A2", self.prior_rad2_A2, 0, math.inf)
        if self.slices > 1 and (self.slice_A is None or not self.slice_A > 0):
            raise ValueError(
                f"slice_A is {self.slice_A} with {self.slices} slices; expected the distance between slices in Å."
            )

    @property
    def patterns_per_batch(self) -> int | None:
        """Patterns per update; None means all of them."""
        return 128 if self.batch_size is None and self.solver == "lsqml" else self.batch_size


def _whole(name: str, value: int | None, lowest: int, optional: bool = False) -> None:
    if optional and value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
        raise ValueError(
            f"{name} is {value!r}; expected a whole number of at least {lowest}{' or None' if optional else ''}."
        )


def _within(name: str, value: float, lowest: float, highest: float) -> None:
    if not (math.isfinite(value) and lowest < value <= highest):
        raise ValueError(f"{name} is {value}; expected a number above {lowest}, at most {highest}.")
