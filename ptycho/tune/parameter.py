"""What is searched for and what was found."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Parameter:
    """A number to find: where to start, the range to look in, and the error that no longer matters.

    grid: points of the first look over the whole range, which finds the right one of several valleys; the start and, where
    the range allows, its negative are added. Raises ValueError when the numbers do not fit together.
    """

    name: str
    start: float
    low: float
    high: float
    tolerance: float
    grid: int = 9

    def __post_init__(self) -> None:
        if not (math.isfinite(self.high - self.low) and self.low <= self.start <= self.high and self.low < self.high):
            raise ValueError(
                f"{self.name} starts at {self.start} in the range {self.low} to {self.high}; expected low ≤ start ≤ high."
            )
        if not 0 < self.tolerance < self.high - self.low or self.grid < 2:
            raise ValueError(
                f"{self.name} has tolerance {self.tolerance} and {self.grid} grid points; expected a tolerance above 0 and "
                "below the width of the range, and at least 2 points."
            )

    @property
    def spacing(self) -> float:
        """Distance of the points of the first look."""
        return (self.high - self.low) / (self.grid - 1)


@dataclass(frozen=True)
class Trial:
    """One evaluation."""

    values: dict[str, float]
    loss: float


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    best: value of each parameter; loss: there. trials: all evaluations in order.
    uncertainty: one standard deviation of each parameter, from the curvature of the loss with all others free; nan where
        the loss has no minimum inside the range or the budget ended before the curvature was known. It holds the noise of
        the counts alone, not what the model leaves out.
    at_limit: names of parameters whose best value lies at the end of their range.
    """

    best: dict[str, float]
    loss: float
    trials: tuple[Trial, ...]
    uncertainty: dict[str, float]
    at_limit: tuple[str, ...] = ()
