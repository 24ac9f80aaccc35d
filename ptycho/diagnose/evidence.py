"""What a reconstruction and its patterns show, as numbers: the input of `diagnose`.

Standard shapes: see `ptycho.result`; intensities (pattern, ky, kx) with zero frequency at [0, 0].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ptycho.data import Patterns, on_window
from ptycho.diagnose.measures import Fit, Jitter, Sample, Slope, measure_fit, measure_slopes
from ptycho.grid import centred_slice
from ptycho.model import modelled_intensity
from ptycho.optics import Optics
from ptycho.result import Result

_BLOCKS = 9


@dataclass(frozen=True, eq=False)
class Evidence:
    """Numbers and arrays of one finished or running reconstruction; None where something is not known.

    loss, validation: (iterations,) per pattern, the second of the held_out_patterns that were not fitted. object_: complex
    (slice, y, x) of the scanned field. probe: complex (mode, y, x) in sqrt(electrons). positions_A: (n, 2). electrons: mean
    of a pattern, those on masked pixels included. alternatives: loss by name of `ptycho.tune.alternatives`, "as given" among them.
    """

    loss: np.ndarray
    validation: np.ndarray | None = None
    held_out_patterns: int | None = None
    object_: np.ndarray | None = None
    probe: np.ndarray | None = None
    positions_A: np.ndarray | None = None
    electrons: float | None = None
    pixel_A: float = math.nan
    slice_A: float = 0.0
    wavelength_A: float = math.nan
    semiangle_mrad: float = math.nan
    fit: Fit | None = None
    slopes: tuple[Slope, ...] = ()
    jitter: Jitter | None = None
    alternatives: Mapping[str, float] | None = None

    @property
    def depth_of_field_A(self) -> float:
        """λ / α²."""
        return self.wavelength_A / (self.semiangle_mrad * 1e-3) ** 2


def evidence(
    result: Result,
    patterns: Patterns,
    optics: Optics,
    *,
    sample: int = 1000,
    counted: bool = True,
    alternatives: Mapping[str, float] | None = None,
) -> Evidence:
    """Everything `diagnose` looks at, from a result and the patterns it was made of.

    sample: patterns that are compared with the model, their neighbours besides; the work is that of about three
    iterations. counted: False where the values hold other noise than that of counted electrons (read-out, gain); the loss is
    then not compared with what counting leaves. alternatives: what `ptycho.tune.alternatives` found.
    """
    model = partial(modelled_intensity, wavelength_A=optics.wavelength_A)
    compared = Sample(result, patterns, result.offset, model, sample)
    block = max(1, round(2 * optics.semiangle_mrad / patterns.pixel_mrad / _BLOCKS))
    fit = measure_fit(compared, block)
    slopes, jitter = measure_slopes(compared, optics)
    unseen = float(compared.beam.sum() / compared.beam[compared.mask].sum())
    return Evidence(
        loss=result.loss,
        validation=result.validation,
        held_out_patterns=len(patterns.counts) - len(result.training) or None,
        object_=scanned_field(result),
        probe=result.probe,
        positions_A=result.positions_A,
        electrons=float(on_window(patterns.mean, len(compared.mask))[compared.mask].sum()) * unseen,
        pixel_A=result.pixel_A,
        slice_A=result.slice_A,
        wavelength_A=optics.wavelength_A,
        semiangle_mrad=optics.semiangle_mrad,
        fit=fit if counted else replace(fit, expected=math.nan),
        slopes=slopes,
        jitter=jitter,
        alternatives=alternatives,
    )


def scanned_field(result: Result) -> np.ndarray:
    """The object (slice, y, x) as far as the positions reach."""
    reach = np.maximum(np.abs(result.positions_A).max(0) / result.pixel_A, 1).astype(int)
    shape = result.object.shape[-2:]
    y, x = (centred_slice(n, min(2 * r + 1, n)) for n, r in zip(shape, reach.tolist(), strict=True))
    return result.object[:, y, x]
