"""What a calibration costs: the loss of a short reconstruction of a small part of the scan.

A wrong defocus, rotation or scale costs likelihood that no object can win back. A few hundred neighbouring patterns where
the specimen is and three iterations show it: a compact group keeps the overlap of neighbouring probes, and the same patterns
in every trial make the differences free of their noise.

Standard shapes: counts (n, ky, kx) centred, positions (n, 2) (y, x).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from ptycho.calibrate.overlap import frame_matrix
from ptycho.data import Patterns
from ptycho.diagnose.evidence import scanned_field
from ptycho.engine import reconstruct
from ptycho.optics import Optics
from ptycho.result import Diverged, Result
from ptycho.settings import Settings

_BLOCKS = 14
_MOST_CENTRES = 2000
_MOST_COUNTS = 1 << 24
_SCAN = ("rotation_deg", "scan_scale")
_TILT = ("tilt_y_mrad", "tilt_x_mrad")
_ORIENTATIONS = {
    (0, False): "as given",
    (180, False): "scan turned by 180°",
    (90, False): "scan turned by 90°",
    (270, False): "scan turned by 270°",
    (0, True): "scan transposed",
    (180, True): "scan transposed and turned by 180°",
    (90, True): "scan mirrored in x",
    (270, True): "scan mirrored in y",
}


@dataclass(frozen=True, eq=False)
class Objective:
    """Values by name to the Poisson loss, summed over the same patterns: a negative log-likelihood up to a constant.

    Names: every number of `Optics` and of `Settings` (defocus_A, semiangle_mrad, slice_A, ...), pixel_mrad, rotation_deg (by
    which the positions are turned from +x towards +y about their mean) and scan_scale (by which they are multiplied).
    tilt_y_mrad and tilt_x_mrad are the tilt of the specimen. A diverged reconstruction costs inf. Where the settings hold
    patterns out, the loss is that of these alone.
    """

    patterns: Patterns
    optics: Optics
    settings: Settings
    seed: int = 0
    xp: Any = np

    def __call__(self, values: dict[str, float]) -> float:
        """Loss with `values` in place of what the patterns, optics and settings say. Raises ValueError for other names."""
        result = self.run(*self._with(values))
        return math.inf if result is None else self._loss(result)

    def run(self, patterns: Patterns, optics: Optics, settings: Settings) -> Result | None:
        """One short reconstruction, None where it diverged."""
        try:
            return reconstruct(patterns, optics, settings, rng=np.random.default_rng(self.seed), xp=self.xp)
        except Diverged:
            return None

    def orientation(self, rotation_deg: float, transposed: bool) -> tuple[float, float]:
        """Loss with the scan in another frame, and the skewness of the phase: positive where atoms stand out of vacuum."""
        positions = self.patterns.positions_A @ frame_matrix(rotation_deg, transposed).T
        result = self.run(replace(self.patterns, positions_A=positions), self.optics, self.settings)
        return (math.inf, 0.0) if result is None else (self._loss(result), _skewness(result))

    def _loss(self, result: Result) -> float:
        if result.validation is None:
            return float(result.loss[-1]) * len(result.training)
        return float(result.validation[-1]) * (len(self.patterns.counts) - len(result.training))

    def _with(self, values: dict[str, float]) -> tuple[Patterns, Optics, Settings]:
        optics, settings = _numbers(self.optics), _numbers(self.settings)
        known = {*optics, *settings, *_SCAN, *_TILT, "pixel_mrad"}
        if not known.issuperset(values):
            raise ValueError(
                f"{', '.join(sorted(set(values) - known))} cannot be tuned; expected names out of {', '.join(sorted(known))}."
            )
        changed: dict[str, Any] = {k: v for k, v in values.items() if k in settings}
        tilt = zip(_TILT, self.settings.tilt_mrad, strict=True)
        changed["tilt_mrad"] = tuple(values.get(name, stated) for name, stated in tilt)
        frame = values.get("scan_scale", 1.0) * frame_matrix(values.get("rotation_deg", 0.0), False)
        pixel = values.get("pixel_mrad", self.patterns.pixel_mrad)
        return (
            replace(self.patterns, positions_A=self.patterns.positions_A @ frame.T, pixel_mrad=pixel),
            replace(self.optics, **{k: v for k, v in values.items() if k in optics}),
            replace(self.settings, **changed),
        )


def objective(
    patterns: Patterns,
    optics: Optics,
    settings: Settings | None = None,
    *,
    subset: int = 256,
    iterations: int = 3,
    held_out: float = 0.0,
    seed: int = 0,
    xp: Any = np,
) -> Objective:
    """The cost of calibration values, for `tune`, on `subset` neighbouring patterns where the specimen is.

    settings: of the reconstruction; its iterations are replaced, probe and positions are held fixed and the likelihood is
        Poisson's, so that nothing but the object answers a wrong value. held_out: share of the subset that is judged
        instead of fitted; for numbers that let the object fit more or less freely (a prior, thin slices), at the price of
        less to judge by. seed: of the reconstruction.
    Raises ValueError when subset or iterations are less than the eight patterns and two iterations that make sense.
    """
    if subset < 8 or iterations < 2:
        raise ValueError(
            f"subset is {subset} and iterations {iterations}; expected at least 8 patterns and 2 iterations."
        )
    chosen = specimen_patterns(patterns, subset)
    part = patterns.subset(chosen)
    part = replace(part, positions_A=part.positions_A - part.positions_A.mean(0))
    settings = settings or Settings()
    fixed: dict[str, Any] = {f.name: None for f in fields(settings) if f.name.startswith("update_")}
    fixed |= {"iterations": iterations, "tolerance": 0.0, "likelihood": "poisson", "held_out": held_out}
    short = replace(settings, **fixed)
    return Objective(part, optics, short, seed, xp)


def alternatives(
    patterns: Patterns,
    optics: Optics,
    settings: Settings | None = None,
    *,
    subset: int = 256,
    iterations: int = 3,
    seed: int = 0,
    progress: Callable[[int, int, float], None] | None = None,
    xp: Any = np,
) -> dict[str, float]:
    """Loss of the patterns with the scan transposed, mirrored or turned and the defocus flipped, "as given" among them.

    Turning the scan by 180° and flipping the defocus cannot be told apart by a loss: both explain the patterns equally well,
    with phases of opposite sign. Each of the eight orientations is therefore tried once and named both ways; of the two
    names that in which the atoms come out with a positive phase stands first, so that `min(losses, key=losses.get)` is the
    answer. progress: called after each trial with (done, total, loss).
    """
    cost = objective(patterns, optics, settings, subset=subset, iterations=iterations, seed=seed, xp=xp)
    losses: dict[str, float] = {}
    for done, ((rotation, transposed), name) in enumerate(_ORIENTATIONS.items(), 1):
        loss, skewness = cost.orientation(rotation, transposed)
        opposite = _ORIENTATIONS[(rotation + 180) % 360, transposed]
        flipped = "defocus flipped" if opposite == "as given" else f"{opposite}, defocus flipped"
        losses |= dict.fromkeys((name, flipped) if skewness >= 0 else (flipped, name), loss)
        if progress is not None:
            progress(done, len(_ORIENTATIONS), loss)
    return losses


def specimen_patterns(patterns: Patterns, count: int) -> np.ndarray:
    """Numbers of `count` neighbouring patterns that differ most from the mean pattern: where the specimen is."""
    n = len(patterns.counts)
    if count >= n:
        return np.arange(n)
    tree = cKDTree(patterns.positions_A)
    centres = np.linspace(0, n - 1, min(n, _MOST_CENTRES)).astype(int)
    groups = tree.query(patterns.positions_A[centres], k=count)[1]
    return np.sort(groups[np.argmax(_structure(patterns)[groups].sum(1))])


def _structure(patterns: Patterns) -> np.ndarray:
    """χ² (n,) of each pattern, summed over blocks of the detector, against the mean pattern."""
    starts = [np.arange(0, k, max(1, k // _BLOCKS)) for k in patterns.detector_shape]
    size = max(1, _MOST_COUNTS // math.prod(patterns.detector_shape))
    parts: Iterable[np.ndarray] = (
        np.add.reduceat(
            np.add.reduceat(patterns.counts[i : i + size], starts[0], axis=1, dtype=np.float32), starts[1], axis=2
        )
        for i in range(0, len(patterns.counts), size)
    )
    blocks = np.concatenate(list(parts))
    mean = blocks.mean(0)
    return ((blocks - mean) ** 2 / (mean + 1)).sum((1, 2))


def _skewness(result: Result) -> float:
    """Third moment of the phase in the scanned field, in units of its spread."""
    wave = scanned_field(result).prod(0)
    phase = np.angle(wave * np.conj(wave.mean()))
    phase -= phase.mean()
    return float((phase**3).mean() / max(float((phase**2).mean()) ** 1.5, 1e-30))


def _numbers(values: Optics | Settings) -> set[str]:
    """Names of the fields declared to hold a float."""
    return {f.name for f in fields(values) if str(f.type).split(" | ")[0] == "float"}
