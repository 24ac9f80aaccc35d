"""Which element is which brightness, before any light atom may have been found.

Tracing sees the bright atoms first and light ones badly, so the clusters of brightness it finds need not be the elements in turn.
What holds them together is physics: the dark-field intensity of an atom grows as a power of its atomic number, Z^1.2 to Z^2 by the
angles of the detector (Pennycook and Jesson 1991, doi:10.1016/0304-3991(91)90004-P). Each set of elements that may have been
traced is tried, its mean brightnesses on such a line; the Bayesian information criterion decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from analysis.atoms import atomic_number
from analysis.likelihood.model import Model, State
from analysis.likelihood.places import information

Array = NDArray[np.float64]

POWERS, USUAL = (1.2, 2.0), 1.7
"""Of the atomic number: the least and largest that brightness grows by, and the usual one, taken where one element was traced."""
ROUNDS, STEPS = 3, 6
"""Of the brightness of each atom: times the noise is taken anew, and steps of conjugate gradients for each."""
EM_STEPS = 200
FAINTEST = 0.05
"""Of the median: what is traced but fainter is no atom."""
NARROWEST, ALIKE = 0.02, 2.5
"""Least spread of the logarithm of an element's brightness, and the most by which the spreads of two elements differ."""

CLEAR = 60.0
"""Squared signal-to-noise ratio of an element's atoms from which its brightness is fitted freely."""


@dataclass(frozen=True, eq=False)
class Line:
    """Logarithms of brightness as a mixture: means offset + power · log Z, with shares and spreads (elements,)."""

    offset: float
    power: float
    share: Array
    sigma: Array
    log_likelihood: float

    def criterion(self, count: int) -> float:
        """Bayesian information criterion, the least is the best."""
        present = int((self.share > 0).sum())
        return (2 * present + min(present, 2) - 1) * float(np.log(count)) - 2 * self.log_likelihood


def renamed_by_brightness(model: Model, state: State, elements: Sequence[str]) -> State:
    """Atoms as the elements that their brightness suits best, and the brightness of all elements, traced ones or not."""
    if len(elements) == 1:
        return state
    level, charge = _levels(model, state), _charges(elements)
    best = best_of(lines_through(level, charge, state.element), len(level))
    element = _log_densities(level, charge, best).argmax(axis=1)
    return replace(state, element=element, amplitudes=np.exp(best.offset + best.power * charge))


def doubtful_names(model: Model, state: State, elements: Sequence[str], firm: NDArray[np.bool_]) -> Array:
    """Probability (elements, elements) that what is named as one element is another, by the brightness of firm atoms (atoms,)."""
    if len(elements) == 1 or not firm.any():
        return np.eye(len(elements))
    level, charge, element = _levels(model, state)[firm], _charges(elements), state.element[firm]
    return mistaken(level, charge, lines_through(level, charge, element), element)


def _levels(model: Model, state: State) -> Array:
    """Logarithm of the brightness (atoms,) of each atom on its own."""
    measured = brightness(model, state)
    return np.log(np.maximum(measured, FAINTEST * np.median(measured)))


def _charges(elements: Sequence[str]) -> Array:
    return np.log([atomic_number(symbol) for symbol in elements])


def faint_on_line(model: Model, state: State, elements: Sequence[str]) -> State:
    """The state with the brightness of faint elements read from the power of the atomic number that the clear ones are on.

    Fitted places follow the noise, and found atoms take the light of those still missing: both make faint elements seem brighter than
    they are (by half, where a third of them is missing), and atoms expected too bright are not found. Less than two clear
    elements, or elements that are all clear, are left as they were fitted.
    """
    if len(elements) < 3:
        return state
    tables = model.tables(state)
    held = information(model, state, model.expected(state, tables), tables)[:, 3, 3]
    kinds = np.arange(len(elements))
    signal = [
        np.median(held[state.element == e]) * state.amplitudes[e] ** 2 if e in state.element else 0.0 for e in kinds
    ]
    clear = np.array(signal) >= CLEAR
    if clear.sum() < 2 or clear.all():
        return state
    charge = _charges(elements)
    weight = np.where(clear, np.bincount(state.element, minlength=len(kinds)) * state.amplitudes**2, 0.0)
    offset, power = _through(charge, np.log(state.amplitudes), weight)
    return replace(state, amplitudes=np.where(clear, state.amplitudes, np.exp(offset + power * charge)))


def brightness(model: Model, state: State) -> Array:
    """Electrons (atoms,) of each atom on its own, places and backgrounds held: weighted least squares by conjugate gradients."""
    tables, scales = model.tables(state), state.scales[:, None]
    electrons = np.full(len(state.element), float(state.amplitudes[state.element].mean()))

    def image(each: Array) -> Array:
        return model.atoms(state, tables, scales * each)

    def back(residual: Array) -> Array:
        return np.asarray((scales * model.pulls(state, residual, tables)[..., 2]).sum(axis=0))

    for _ in range(ROUNDS):
        expected = model.lit(image(electrons), state.backgrounds)
        held = np.maximum((scales**2 * model.sharpness(state, 1 / expected, tables)[..., 2, 2]).sum(axis=0), 1e-300)
        left, change = back(model.counts / expected - 1), np.zeros_like(electrons)
        along = left / held
        size = float(left @ along)
        for _ in range(STEPS):
            if size <= 0:
                break
            bent = back(image(along) / expected)
            step = size / float(along @ bent)
            change, left = change + step * along, left - step * bent
            size, before = float(left @ (left / held)), size
            along = left / held + size / before * along
        electrons = np.maximum(electrons + change, 0.0)
    return electrons


def lines_through(level: Array, charge: Array, named: NDArray[np.int64]) -> list[Line]:
    """For each set of elements the mixture that explains logarithms of brightness (n,) best, sets of heavy elements before those of
    as many lighter ones; charge: log Z (elements,), named: (n,) a guess."""
    found: list[Line] = []
    kinds = len(charge)
    for size in range(1, kinds + 1):
        for chosen in sorted(combinations(range(kinds), size), reverse=True):
            present = np.isin(np.arange(kinds), chosen)
            starts = [_started(level, charge, present, power) for power in (*POWERS, USUAL)]
            guess = np.eye(kinds)[named]
            starts += [guess] if (guess.any(axis=0) == present).all() else []
            lines = [_fitted(level, charge, present, start) for start in starts]
            found.append(max(lines, key=lambda line: line.log_likelihood))
    return found


def best_of(lines: list[Line], count: int) -> Line:
    """That of the least criterion for so many atoms; of sets alike that of the heaviest elements: what tracing misses is light."""
    return min(lines, key=lambda line: round(line.criterion(count), 3))


def mistaken(level: Array, charge: Array, lines: list[Line], element: NDArray[np.int64]) -> Array:
    """Probability (elements, elements) that atoms (n,) named as the first are the second, over all lines through their levels (n,).

    Lines count as exp(−criterion / 2) (Schwarz 1978, doi:10.1214/aos/1176344136). An element that no atom is named as is as doubtful as
    the others together.
    """
    criteria = np.array([line.criterion(len(level)) for line in lines])
    odds = np.exp(-0.5 * (criteria - criteria.min()))
    found = np.zeros((len(charge), len(charge)))
    for line, chance in zip(lines, odds / odds.sum(), strict=True):
        other = _log_densities(level, charge, line).argmax(axis=1)
        np.add.at(found, (element, other), chance)
    right = np.trace(found) / len(level)
    named = found.sum(axis=1) > 0
    found[~named] = right * np.eye(len(charge))[~named] + (1 - right) / len(charge)
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def _started(level: Array, charge: Array, present: NDArray[np.bool_], power: float) -> Array:
    """To whom (n, elements) each level belongs when the elements part the range of levels as their charges do."""
    mean = power * charge
    low, high = np.quantile(level, [0.02, 0.98])
    middle = (low + high) / 2 - (mean[present].min() + mean[present].max()) / 2
    distance = np.where(present, np.abs(level[:, None] - middle - mean), np.inf)
    return np.eye(len(charge))[distance.argmin(axis=1)]


def _fitted(level: Array, charge: Array, present: NDArray[np.bool_], belongs: Array) -> Line:
    """Expectation maximisation from a start."""
    before = -np.inf
    for _ in range(EM_STEPS):
        line = _line_of(level, charge, present, belongs)
        each = _log_densities(level, charge, line)
        total = logsumexp(each, axis=1)
        log_likelihood = float(total.sum())
        belongs = np.exp(each - total[:, None])
        if log_likelihood - before < 1e-4:
            break
        before = log_likelihood
    return replace(line, log_likelihood=log_likelihood)


def _line_of(level: Array, charge: Array, present: NDArray[np.bool_], belongs: Array) -> Line:
    """The line through the levels of the elements, and how they scatter about it."""
    weight = np.where(present, belongs.sum(axis=0) + 1e-3, 0.0)
    mean = (belongs * level[:, None]).sum(axis=0) / np.maximum(weight, 1e-300)
    used = weight > 0.5
    offset, power = _through(charge, mean, weight * used)
    variance = (belongs * (level[:, None] - offset - power * charge) ** 2).sum(axis=0) / np.maximum(weight, 1e-300)
    sigma = np.maximum(np.sqrt(variance), NARROWEST)
    usual = float(np.exp(np.average(np.log(sigma[used]), weights=weight[used])))
    sigma = np.clip(sigma, usual / ALIKE, usual * ALIKE)
    return Line(offset, power, weight / weight.sum(), sigma, -np.inf)


def _through(charge: Array, level: Array, weight: Array) -> tuple[float, float]:
    """Offset and power of the line through weighted levels (elements,) at charges log Z."""
    at, height = np.average(charge, weights=weight), np.average(level, weights=weight)
    across = float((weight * (charge - at) ** 2).sum())
    power = float((weight * (charge - at) * (level - height)).sum()) / across if across > 0 else USUAL
    power = float(np.clip(power, *POWERS))
    return float(height - power * at), power


def _log_densities(level: Array, charge: Array, line: Line) -> Array:
    """Logarithm of the density (n, elements) of each element; of those absent very low."""
    off = (level[:, None] - line.offset - line.power * charge) / line.sigma
    share = np.log(np.maximum(line.share, 1e-300))
    return np.asarray(share - np.log(line.sigma * np.sqrt(2 * np.pi)) - 0.5 * off**2)
