"""Every knob of a reconstruction, checked when it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ptycho.regularise import Regulariser

SOLVERS = ("gradient", "lsqml", "pie", "adam", "lbfgs")
_CHOICES: dict[str, tuple[str, ...]] = {
    "solver": SOLVERS,
    "likelihood": ("poisson", "amplitude", "gaussian", "anscombe"),
    "batching": ("random", "compact", "sparse"),
    "object_type": ("phase", "complex"),
    "dtype": ("float32", "float64"),
}
_BATCH_SIZES = {"lsqml": 128, "adam": 128, "pie": 1}
REFINED = ("positions", "affine", "tilt", "thickness", "scale", "background", "defocus", "astigmatism")
"""What `ptycho.refine` can move."""
_LARGEST_OFFSET = 100.0
_THICKEST_A = 1e4


@dataclass(frozen=True)
class Settings:
    """How a tilt is reconstructed; the defaults suit a nanoparticle of a few nm at 1e3 to 1e5 e⁻/Å².

    slices, slice_A: number of slices and the distance between them in Å, one number or one for each of the slices − 1 gaps
        (needed for more than one slice). The particle centre lies in the middle of the stack.
    tilt_mrad: tilt (y, x) of the specimen against the beam: its columns run along (tan y, tan x, 1).
    object_states: number of objects whose patterns add up (mixed state of the object, doi:10.1038/nature11806).
    probe_modes: number of probes whose patterns add up; their start is the partial coherence of `Optics`.
    probe_variations: number of ways in which the first mode may differ from pattern to pattern (doi:10.1364/OE.24.008360).
    iterations: passes over all patterns.
    solver: "gradient" (preconditioned, accelerated), "lsqml" (least squares steps, doi:10.1364/OE.26.003108), "pie"
        (doi:10.1364/OPTICA.4.000736), "adam" (doi:10.48550/arXiv.1412.6980) or "lbfgs" (doi:10.1007/BF01589116).
    likelihood: "poisson", "amplitude", "gaussian" or "anscombe" (Poisson counts with Gaussian read noise); offset: electrons
        per pixel added to model and data, as a share of the mean count inside the bright-field disk; read_noise: standard
        deviation in electrons, for "anscombe" and "gaussian".
    object_type: "phase" keeps |object| = 1, "complex" frees the amplitude.
    batching, batch_size: "random", "compact" (neighbouring positions) or "sparse" (positions far apart) groups of patterns
        per update; batch_size None takes all patterns at once for "gradient" and "lbfgs", 128 for "lsqml" and "adam", one for
        "pie".
    step: length of the steps of "gradient" in units of the Newton step (over-relaxation above 1 is not stable).
    learning_rate: step of "adam" in rad.
    prior_rad2_A2: expected power spectral density of the projected phase at low frequency in rad²Å² with which the
        "gradient" solver damps frequencies that hold more noise than structure. "auto" measures it during the run, None
        turns it off.
    beta_lsq, delta_lsq, momentum: relaxation of the steps of "lsqml", the share of the strongest illumination added to the
        denominator, and the share of the last passes' change that is carried on (0: none).
    pie_alpha: share of the strongest illumination in the denominator of "pie": 1 is ePIE, less is rPIE.
    regularisers: constraints of object and probe with their schedules, see `ptycho.regularise`.
    update_probe: first iteration (0-based) that refines the probe; None holds it fixed.
    update_positions, update_affine, update_tilt, update_thickness, update_scale, update_background, update_defocus,
        update_astigmatism: first iteration that refines the positions, their common rotation, scales and shear, the tilt, the
        distances between slices, dose and background of each pattern, and the low aberrations of the probe.
    refine_every: iterations between these refinements.
    position_sigma_A: expected error of the given positions; refined ones are drawn back to them accordingly.
    held_out: share of the patterns that are not fitted but judged by: their loss tells when noise is being fitted.
    detector: "auto" crops or pads to a size with fast transforms, "full" keeps the detector's pixels, a number crops or pads
        to that many: padding makes the object's pixel finer, cropping coarser.
    device_bytes: counts larger than this stay where they are and are sent to the GPU chunk by chunk; None: no limit.
    tolerance: stop once an iteration lowers the loss by less than this share of it; 0 runs all iterations.
    threads: threads of the Fourier transforms on the CPU. dtype: "float32" or "float64".
    Raises ValueError for a value outside its range.
    """

    slices: int = 1
    slice_A: float | tuple[float, ...] | None = None
    tilt_mrad: tuple[float, float] = (0.0, 0.0)
    object_states: int = 1
    probe_modes: int = 1
    probe_variations: int = 0
    iterations: int = 5
    solver: Literal["gradient", "lsqml", "pie", "adam", "lbfgs"] = "gradient"
    likelihood: Literal["poisson", "amplitude", "gaussian", "anscombe"] = "poisson"
    offset: float = 0.25
    read_noise: float = 0.0
    object_type: Literal["phase", "complex"] = "phase"
    batching: Literal["random", "compact", "sparse"] = "random"
    batch_size: int | None = None
    step: float = 0.8
    learning_rate: float = 0.02
    prior_rad2_A2: float | Literal["auto"] | None = "auto"
    beta_lsq: float = 0.9
    delta_lsq: float = 0.1
    momentum: float = 0.0
    pie_alpha: float = 0.3
    regularisers: tuple[Regulariser, ...] = ()
    update_probe: int | None = None
    update_positions: int | None = None
    update_affine: int | None = None
    update_tilt: int | None = None
    update_thickness: int | None = None
    update_scale: int | None = None
    update_background: int | None = None
    update_defocus: int | None = None
    update_astigmatism: int | None = None
    refine_every: int = 1
    position_sigma_A: float = 0.2
    held_out: float = 0.0
    detector: Literal["auto", "full"] | int = "auto"
    device_bytes: int | None = None
    tolerance: float = 0.0
    threads: int = 1
    dtype: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f'{name} is "{getattr(self, name)}"; expected one of {", ".join(choices)}.')
        for name in ("slices", "iterations", "threads", "object_states", "probe_modes", "refine_every"):
            _whole(name, getattr(self, name), 1)
        if self.detector not in ("auto", "full"):
            _whole("detector", self.detector, 8)
        _whole("probe_variations", self.probe_variations, 0)
        _whole("batch_size", self.batch_size, 1, optional=True)
        for name in ("probe", *REFINED):
            _whole(f"update_{name}", getattr(self, f"update_{name}"), 0, optional=True)
        for name, lowest, highest in (
            ("step", 0, 1.5),
            ("beta_lsq", 0, 2),
            ("delta_lsq", 0, 1),
            ("pie_alpha", 0, 1),
            ("learning_rate", 0, 1),
            ("position_sigma_A", 0, 10),
        ):
            _within(name, getattr(self, name), lowest, highest)
        if not (0 <= self.offset <= _LARGEST_OFFSET and 0 <= self.tolerance < 1):
            raise ValueError(
                f"offset is {self.offset} and tolerance {self.tolerance}; expected shares, 0 ≤ offset ≤ {_LARGEST_OFFSET:g} "
                "(of the mean bright-field count) and 0 ≤ tolerance < 1."
            )
        if not (0 <= self.momentum < 1 and 0 <= self.held_out <= 0.5 and self.read_noise >= 0):
            raise ValueError(
                f"momentum is {self.momentum}, held_out {self.held_out} and read_noise {self.read_noise}; expected "
                "0 ≤ momentum < 1, 0 ≤ held_out ≤ 0.5 and read_noise ≥ 0 electrons."
            )
        if len(self.tilt_mrad) != 2 or not all(abs(t) < 300 for t in self.tilt_mrad):
            raise ValueError(f"tilt_mrad is {self.tilt_mrad}; expected (y, x) below 300 mrad.")
        if self.prior_rad2_A2 != "auto" and self.prior_rad2_A2 is not None:
            if isinstance(self.prior_rad2_A2, str):
                raise ValueError(
                    f'prior_rad2_A2 is "{self.prior_rad2_A2}"; expected "auto", a number in rad²Å², or None.'
                )
            _within("prior_rad2_A2", self.prior_rad2_A2, 0, math.inf)
        self._check_slices()

    def _check_slices(self) -> None:
        gaps = np.atleast_1d(np.asarray(np.nan if self.slice_A is None else self.slice_A, np.float64))
        if self.slices > 1 and not (len(gaps) in (1, self.slices - 1) and (gaps > 0).all() and np.isfinite(gaps).all()):
            raise ValueError(
                f"slice_A is {self.slice_A} with {self.slices} slices; expected the distance between slices in Å, one "
                f"number or one for each of the {self.slices - 1} gaps."
            )
        if self.slices > 1 and self.gaps_A.sum() > _THICKEST_A:
            raise ValueError(
                f"slice_A is {self.slice_A} with {self.slices} slices, {self.gaps_A.sum():g} Å from the first to the last; "
                f"expected at most {_THICKEST_A:g} Å, check the unit (Å)."
            )
        if self.slices == 1 and (self.update_tilt is not None or self.update_thickness is not None):
            raise ValueError("update_tilt or update_thickness is given with one slice; both need at least two slices.")
        if self.update_tilt is not None and not any(r.kind in ("layers", "identical") for r in self.regularisers):
            raise ValueError(
                "update_tilt is given without a regulariser of kind layers or identical; slices that are free to move sideways "
                "absorb any tilt, add one of the two."
            )

    @property
    def gaps_A(self) -> np.ndarray:
        """Distance behind each slice but the last: (slices − 1,) float64."""
        if self.slices == 1:
            return np.zeros(0)
        return np.broadcast_to(np.asarray(self.slice_A, np.float64), self.slices - 1).copy()

    @property
    def patterns_per_batch(self) -> int | None:
        """Patterns per update; None means all of them."""
        return self.batch_size if self.batch_size is not None else _BATCH_SIZES.get(self.solver)


def _whole(name: str, value: object, lowest: int, optional: bool = False) -> None:
    if optional and value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
        raise ValueError(
            f"{name} is {value!r}; expected a whole number of at least {lowest}{' or None' if optional else ''}."
        )


def _within(name: str, value: float, lowest: float, highest: float) -> None:
    if not (math.isfinite(value) and lowest < value <= highest):
        raise ValueError(f"{name} is {value}; expected a number above {lowest}, at most {highest}.")
