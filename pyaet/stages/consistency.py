"""Do the tilts of a series agree? Numbers of each tilt side by side, and those that stray in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ptycho.series import median_probe, overlap, robust_z

LARGEST_Z = 5.0
FEWEST_TILTS = 5
"""Fewer tilts do not tell which of them strays."""


@dataclass(frozen=True)
class TiltNumbers:
    """What one tilt brings to the comparison."""

    tilt_deg: float
    electrons_per_pattern: float
    loss: float
    held_out_loss: float | None
    loss_excess: float
    defocus_A: float
    position_shift_rms_A: float
    phase_total_rad_A2: float
    gauge_shift_A: float


@dataclass(frozen=True)
class Quantity:
    """A column: its key, its head, how a sentence speaks of it, digits, and the deviation that counts as one at least.

    share: whether that deviation is a share of the median.
    """

    key: str
    head: str
    words: str
    form: str
    least: float
    share: bool = False

    def text(self, value: float | None) -> str:
        return "–" if value is None or np.isnan(value) else format(value, self.form).replace("-", "−")


QUANTITIES = (
    Quantity("electrons_per_pattern", "e⁻/pattern", "its patterns hold {} electrons", ".5g", 0.01, True),
    Quantity("loss", "loss", "its loss is {}", ".5g", 0.001, True),
    Quantity("held_out_loss", "held-out loss", "the loss of its held-out patterns is {}", ".5g", 0.005, True),
    Quantity("loss_excess", "above noise", "its loss lies {} above that of counting noise", ".2f", 1.0),
    Quantity("defocus_A", "defocus (Å)", "the defocus of its probe is {} Å", ".1f", 2.0),
    Quantity("probe_overlap", "probe overlap", "its probe overlaps the others by {}", ".3f", 0.004),
    Quantity("position_shift_rms_A", "positions moved (Å)", "its positions moved by {} Å rms", ".2f", 0.02),
    Quantity("phase_total_rad_A2", "total phase (rad Å²)", "its phase adds up to {} rad Å²", ".4g", 0.02, True),
    Quantity("gauge_shift_A", "moved with probe (Å)", "its object moved by {} Å with the probe", ".2f", 0.02),
)


@dataclass(frozen=True)
class Comparison:
    """All tilts: angle and values (tilt, quantity), nan where a tilt does not know."""

    tilts_deg: tuple[float, ...]
    values: np.ndarray

    @cached_property
    def z(self) -> np.ndarray:
        """Robust distance (tilt, quantity) from the others, nan where it cannot be told."""
        out = np.full(self.values.shape, np.nan)
        for j, quantity in enumerate(QUANTITIES):
            known = np.isfinite(self.values[:, j])
            if known.sum() < FEWEST_TILTS:
                continue
            values = self.values[known, j]
            least = quantity.least * (max(abs(float(np.median(values))), 1e-30) if quantity.share else 1.0)
            out[known, j] = robust_z(values, least)
        return out

    @property
    def strays(self) -> np.ndarray:
        """True (tilt, quantity) where a tilt lies farther from the others than chance allows."""
        return np.abs(np.nan_to_num(self.z)) > LARGEST_Z

    def sentences(self) -> list[str]:
        """A sentence for each number that strays."""
        return [self._sentence(int(i), int(j)) for i, j in np.argwhere(self.strays)]

    def _sentence(self, i: int, j: int) -> str:
        quantity = QUANTITIES[j]
        others = self.values[~self.strays[:, j] & np.isfinite(self.values[:, j]), j]
        low, high = (quantity.text(float(v)) for v in (others.min(), others.max()))
        said = quantity.words.format(quantity.text(float(self.values[i, j])))
        return f"tilt {_angle(self.tilts_deg[i])}: {said} (others {low if low == high else f'{low} to {high}'})"

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per tilt, for programs; `strays` names the quantities that do."""
        keys = [quantity.key for quantity in QUANTITIES]
        return [
            {"tilt_deg": tilt}
            | {key: None if np.isnan(v) else float(v) for key, v in zip(keys, values, strict=True)}
            | {"strays": [key for key, far in zip(keys, strays, strict=True) if far]}
            for tilt, values, strays in zip(self.tilts_deg, self.values, self.strays, strict=True)
        ]

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Heads and rows of text, for people; see `table_cells`."""
        return table_cells(self.rows())


def compared(tilts: Sequence[TiltNumbers], probes: np.ndarray) -> Comparison:
    """The comparison of tilts and of their probes (tilt, y, x) in the common gauge."""
    middle = median_probe(probes)
    found = {"probe_overlap": [overlap(probe, middle) for probe in probes]}
    columns = [found.get(q.key) or [getattr(tilt, q.key) for tilt in tilts] for q in QUANTITIES]
    return Comparison(tuple(tilt.tilt_deg for tilt in tilts), np.array(columns, np.float64).T)


def table_cells(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of text of what `Comparison.rows` gave; what is the same for all tilts is left out, strays are marked."""
    shown = [q for q in QUANTITIES if len({q.text(row.get(q.key)) for row in rows}) > 1]
    heads = ["tilt", *(q.head for q in shown)]
    marked = [
        [_angle(row["tilt_deg"]), *(q.text(row[q.key]) + " ◄" * (q.key in row["strays"]) for q in shown)]
        for row in rows
    ]
    return heads, marked


def _angle(tilt_deg: float) -> str:
    return f"{tilt_deg:+g}°".replace("-", "−") if tilt_deg else "0°"
