"""Counts as they were before noise moved members from bin to bin, with error bars.

Distances or angles of measured atoms are those of the true ones moved by the errors of coordinates: peaks
are broader, tails fuller. Drawing further errors shows how members move: A[j, b] is the probability that one of bin b is
then found in bin j. The measured counts S follow from the true ones T as S = A T, up to chance, and the likelihood of T is
raised by

    T ← T · Aᵀ(S / (A T)) / Aᵀ1

(W. H. Richardson 1972, doi:10.1364/JOSA.62.000055; L. B. Lucy 1974, doi:10.1086/111605; for histograms with error bars
G. D'Agostini 1995, doi:10.1016/0168-9002(95)00274-X). More steps make T sharper: after k of them a peak without width has
about (2k)^-¼ of that of the errors. How many to make, the counts say themselves: half of the members, by lot, give
estimates, and those that foretell the other half best, or no worse than chance allows, are taken.

How far such an estimate is off is seen on counts drawn in the same way from it: true and measured ones together, member by
member. Their errors, in reverse, make the 95 % band, which spans those of the smoothest and of the sharpest estimate. Where
peaks much narrower than the errors are asked for, as by the distances of a perfect crystal, nothing tells peaks that stand
close together from one another: members may then be anywhere within `NEAR` of an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Array = NDArray[np.float64]

STEPS = (0, 1, 2, 3, 5, 7, 10, 14, 20, 30, 45, 70, 100, 150, 200, 300, 500, 700, 1000, 1500, 2000, 3000)
"""Numbers of steps that are tried."""
SPLITS = 4
"""Times that members are parted into halves."""
BEHIND = 2.0
"""Log-likelihood of the other half that an estimate may fall short of the best by chance (half of χ² at 95 %)."""
HOPELESS = 5
"""Times as far behind, from which on more steps are not tried."""
REPLICAS = 100
SMOOTHED = 1.5
"""Times that an estimate is off on average where its replicas are off once: it is smoother than the truth, so smoothing costs them less."""
SHARP = 150
"""Steps from which on peaks are narrower than a quarter of the errors."""
NARROW = 0.018
"""Share of n / 4, the steps in which a peak of n members without width is found out, from which on peaks may be such, and overlap."""
FEWEST = 10
"""Steps that it takes at least to tell peaks without width."""
NEAR = 0.8
"""Share of an error within which the place of a member is then not known."""
DROWNED = 0.1
"""Share of its own members in what is measured in a bin, below which they may go unseen."""
INSIDE = 0.95
"""Share of cases in which a band holds the truth."""


@dataclass(frozen=True, eq=False)
class Band:
    """A statistic as measured (`value`), as it was before noise (`best`), and between which limits it lies in 95 of 100 cases."""

    value: Array
    best: Array
    low: Array
    high: Array

    def scaled(self, factor: ArrayLike) -> Band:
        """All of it times `factor`, which broadcasts."""
        one = np.asarray(factor, dtype=np.float64)
        return Band(self.value * one, self.best * one, self.low * one, self.high * one)

    def outwards(self) -> Band:
        """Limits of a number of things: whole, and not below zero."""
        low, high = np.floor(np.maximum(self.low, 0) + 1e-6), np.ceil(np.maximum(self.high, 0) - 1e-6) + 0.0
        return Band(self.value, self.best, low, high)

    def part(self, chosen: slice | NDArray[np.int64]) -> Band:
        """Some of the bins."""
        return Band(self.value[chosen], self.best[chosen], self.low[chosen], self.high[chosen])


def unfold(
    measured: ArrayLike,
    moves: ArrayLike,
    rng: np.random.Generator,
    together: float = 1.0,
    finer: int = 1,
    runs: Sequence[int] | None = None,
    around: bool = False,
) -> Band:
    """The true counts behind the `measured` (n,), with a 95 % band rounded outwards to whole numbers.

    moves: (n, n) how many members of bin b (column) were drawn into bin j (row), a dense or a scipy sparse matrix. together:
    variance of the counts of draws over that of members that move each on its own. finer: so many bins that follow each other
    become one of the band, of n / finer. runs: how many bins belong together on one axis, then on the next, summing to n;
    all of them are when not given. around: whether an axis goes on at its beginning where it ends, as that of a full turn.
    """
    counts = np.asarray(measured, dtype=np.float64)
    share = _shares(moves, len(counts))
    least, likeliest, most = steps_of(counts, share, together, rng)
    lows, highs = [], []
    for steps in sorted({least, likeliest, most}):
        estimate = raised(counts[:, None], share, steps)[:, 0]
        if steps == likeliest:
            best = estimate
        errors = _gathered(_errors(estimate, share, steps, rng), finer)
        systematic = SMOOTHED * np.abs(errors.mean(axis=1))
        tails = np.quantile(errors, [(1 - INSIDE) / 2, (1 + INSIDE) / 2], axis=1) * np.sqrt(together)
        lows.append(_gathered(estimate, finer) - tails[1] - systematic)
        highs.append(_gathered(estimate, finer) - tails[0] + systematic)
    drowned = (share.diagonal() * best < DROWNED * (share @ best)) & (share @ best > 0.5)
    more = np.where(drowned, hidden(counts, best, share), 0)
    highs.append(_gathered(best, finer) + more.reshape(-1, finer).max(axis=1))
    runs = runs or [len(counts)]
    error = _error(best, share, runs, around)
    if max(least, 1) * most >= SHARP**2 or likeliest >= max(NARROW / 4 * _crowd(counts, error, runs), FEWEST):
        certain, possible = _nearby(best, round(NEAR * error), finer, runs, around)
        lows.append(certain)
        highs.append(possible)
    low, high = np.min(lows, axis=0), np.max(highs, axis=0)
    return Band(_gathered(counts, finer), _gathered(best, finer), low, high).outwards()


def _shares(moves: ArrayLike, n: int) -> csr_array:
    """A (n, n): probabilities to move from a bin (column) to another (row). A bin that was never drawn from keeps its members."""
    from scipy.sparse import csr_array, diags_array

    flows = csr_array(moves).astype(np.float64)
    drawn = np.asarray(flows.sum(axis=0)).ravel()
    moved = flows @ diags_array(np.divide(1, drawn, out=np.zeros(n), where=drawn > 0))
    return csr_array(moved + diags_array((drawn == 0).astype(np.float64)))


def _gathered(fine: Array, finer: int) -> Array:
    """Sums of every `finer` bins along the first axis."""
    return fine.reshape(-1, finer, *fine.shape[1:]).sum(axis=1)


def steps_of(counts: Array, share: csr_array, together: float, rng: np.random.Generator) -> tuple[int, int, int]:
    """How many steps foretell the other half of the members no worse than chance allows: the fewest, the likeliest, the most."""
    halves = np.stack([_half(counts, rng) for _ in range(SPLITS)], axis=1)
    likelihoods = _foretold(halves, counts[:, None] - halves, share, HOPELESS * BEHIND * together)
    near = np.flatnonzero(likelihoods >= likelihoods.max() - BEHIND * together)
    return STEPS[near[0]], STEPS[int(np.argmax(likelihoods))], STEPS[near[-1]]


def _half(counts: Array, rng: np.random.Generator) -> Array:
    return rng.binomial(counts.astype(np.int64), 0.5).astype(np.float64)


def _foretold(halves: Array, others: Array, share: csr_array, hopeless: float) -> Array:
    """Mean log-likelihood of the other halves by what each of `STEPS` makes of the halves (n, cases), until it has fallen so far."""
    estimate, done = raised(halves, share, 0), 0
    found: list[float] = []
    for steps in STEPS:
        estimate, done = raised(halves, share, steps - done, estimate), steps
        expected = np.maximum(share @ estimate, 1e-9)
        found.append(float((others * np.log(expected) - expected).sum(axis=0).mean()))
        if found[-1] < max(found) - hopeless:
            break
    return np.array(found)


def raised(counts: Array, share: csr_array, steps: int, start: Array | None = None) -> Array:
    """Estimates (n, cases) after so many steps from `start`, or from counts (n, cases) that errors have widened by half as much again.

    share: (n, n), see `unfold`; a bin whose row is empty is one in which nothing can be measured.
    """
    from scipy.sparse import diags_array

    kept = np.maximum(np.asarray(share.sum(axis=0)).ravel(), 1e-12)
    back = (share @ diags_array(1 / kept)).T.tocsr()
    if start is None:
        seen = np.asarray(share.sum(axis=1)).ravel() > 0
        start = np.where(seen[:, None], (counts + share @ counts) / 2, back @ counts) + 1e-9
    true = start
    for _ in range(steps):
        expected = share @ true
        np.divide(counts, np.maximum(expected, 1e-9, out=expected), out=expected)
        true = true * (back @ expected)
    return true


def _error(best: Array, share: csr_array, runs: Sequence[int], around: bool) -> float:
    """How many bins errors move a member, root mean square."""
    entries = share.tocoo()
    axis = np.repeat(np.arange(len(runs)), runs)
    weight = entries.data * best[entries.col] * (axis[entries.row] == axis[entries.col])
    step = (entries.row - entries.col).astype(np.float64)
    if around:
        half = np.repeat(runs, runs)[entries.row] / 2
        step = (step + half) % (2 * half) - half
    return float(np.sqrt(np.average(step**2, weights=weight))) if weight.sum() > 0 else 0.0


def _crowd(counts: Array, error: float, runs: Sequence[int]) -> float:
    """How many members are within an error of one: all of them, where there is nothing but a peak that errors made of a line."""
    on_an_axis = counts[np.repeat(np.array(runs) > 1, runs)]
    return float(2 * np.sqrt(np.pi) * max(error, 0.3) * (on_an_axis**2).sum() / max(on_an_axis.sum(), 1))


def _nearby(best: Array, reach: int, finer: int, runs: Sequence[int], around: bool) -> tuple[Array, Array]:
    """Members (n / finer,) certainly in a bin and possibly in it, where places are known to `reach` bins only."""
    certain, possible = [], []
    for axis in np.split(best, np.cumsum(runs)[:-1]):
        more = min(reach, len(axis)) if around else 0
        wide = np.concatenate([axis[len(axis) - more :], axis, axis[:more]])
        below = np.concatenate([[0.0], np.cumsum(wide)])
        first = more + np.arange(0, len(axis), finer)
        end = first + finer
        possible.append(below[np.minimum(end + reach, len(wide))] - below[np.maximum(first - reach, 0)])
        outer = np.minimum(first + reach, len(wide))
        certain.append(below[np.maximum(end - reach, outer)] - below[outer])
    most = np.concatenate(possible)
    return np.concatenate(certain), most + 2 * np.sqrt(most) * (reach > 0)


def hidden(counts: Array, true: Array, share: csr_array) -> Array:
    """How many members (n,) more than the `true` ones estimated may be in each bin without being seen in the counts.

    So many that the likelihood of the measured counts falls by no more than chance makes it. The variance of a measured count
    is that of members that move or stay; where none moves nothing is hidden.
    """
    from scipy.stats import chi2

    back = share.T.tocsr()
    expected = share @ true
    variance = np.maximum((share - share.power(2)) @ true, 1e-9)
    slope = back @ ((counts - expected) / variance)
    bend = np.maximum(back.power(2) @ (1 / variance), 1e-12)
    return np.maximum((slope + np.sqrt(slope**2 + bend * float(chi2.ppf(INSIDE, 1)))) / bend, 0)


def _errors(best: Array, share: csr_array, steps: int, rng: np.random.Generator) -> Array:
    """Estimate minus truth (n, replicas) of counts drawn from the estimate."""
    from scipy.sparse import csr_array

    flow = share.tocoo()
    n = len(best)
    moved = rng.poisson((flow.data * best[flow.col])[:, None], (flow.nnz, REPLICAS)).astype(np.float64)
    to_bins = csr_array((np.ones(flow.nnz), (flow.row, np.arange(flow.nnz))), shape=(n, flow.nnz))
    from_bins = csr_array((np.ones(flow.nnz), (flow.col, np.arange(flow.nnz))), shape=(n, flow.nnz))
    return raised(to_bins @ moved, share, steps) - from_bins @ moved
