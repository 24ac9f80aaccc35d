"""Counts as they were before noise moved members from bin to bin, with error bars.

Distances, angles or bond numbers of measured atoms are those of the true ones moved by the errors of coordinates: peaks
are broader, tails fuller. Drawing further errors shows how members move: A[j, b] is the probability that one of bin b is
then found in bin j, and β the number that appear where there was nothing. The measured counts S follow from the true ones
T as S = A T + β, up to chance, and the likelihood of T is raised by

    T ← T · Aᵀ(S / (A T + β)) / Aᵀ1

(W. H. Richardson 1972, doi:10.1364/JOSA.62.000055; L. B. Lucy 1974, doi:10.1086/111605; for histograms with error bars
G. D'Agostini 1995, doi:10.1016/0168-9002(95)00274-X) until S is explained as well as counting allows. How far such an
estimate is off is seen on counts drawn in the same way from the estimate: true and measured ones together, member by
member. Their errors, in reverse, make the 95 % band, which reaches as far as counts that follow every whim of the measured
ones. Peaks much narrower than the errors, those of a perfect crystal, cannot be restored, and bands miss their tops.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

ITERATIONS = 400
REPLICAS = 200
SHARPER = 100
"""Further steps that take no account of chance: how sharp the counts may be."""
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

    def part(self, chosen: slice | NDArray[np.int64]) -> Band:
        """Some of the bins."""
        return Band(self.value[chosen], self.best[chosen], self.low[chosen], self.high[chosen])


def unfold(
    measured: ArrayLike,
    moves: ArrayLike,
    rng: np.random.Generator,
    appear: ArrayLike | None = None,
    together: float = 1.0,
) -> Band:
    """The true counts behind the `measured` (n,), with a 95 % band rounded outwards to whole numbers.

    moves: (n, n) how many members of bin b (column) were drawn into bin j (row), a dense or a scipy sparse matrix; a column's
    sum is the number of draws from that bin, its rest having vanished, so it may carry one row more, (n + 1, n), for those.
    appear: (n,) expected number of members that appear from nothing in one draw. together: variance of the counts of draws
    over that of members that move each on its own.
    """
    from scipy.sparse import csr_array

    counts = np.asarray(measured, dtype=np.float64)
    flows = csr_array(moves).astype(np.float64)
    drawn = np.asarray(flows.sum(axis=0)).ravel()
    # A bin that was never drawn from keeps its members.
    still = csr_array((np.ones(len(counts)), (np.arange(len(counts)),) * 2)) * (drawn == 0)
    share = (flows[: len(counts)] * np.where(drawn > 0, 1 / np.maximum(drawn, 1e-300), 0) + still).tocsr()
    background = np.zeros(len(counts)) if appear is None else np.asarray(appear, dtype=np.float64)
    start = (counts + share @ counts) / 2 + 1e-9
    best, steps = _raised(counts[:, None], share, background, start[:, None], None)
    truth = best[:, 0]
    errors = _errors(truth, share, background, steps, rng)
    # The estimate is smoother than the truth, so replicas of it show about half of what smoothing costs.
    systematic = 2 * np.abs(errors.mean(axis=1))
    tails = np.quantile(errors, [(1 - INSIDE) / 2, (1 + INSIDE) / 2], axis=1) * np.sqrt(together)
    # Sharper counts explain the measured ones as well, and the truth may be as sharp as that.
    sharp = _raised(counts[:, None], share, background, best, SHARPER, 0.0)[0][:, 0]
    low = np.minimum(truth - tails[1] - systematic, sharp)
    high = np.maximum(
        np.maximum(truth - tails[0] + systematic, sharp), truth + _hidden(counts, truth, share, background)
    )
    return Band(counts, truth, np.floor(np.maximum(low, 0) + 1e-6), np.ceil(np.maximum(high, 0) - 1e-6) + 0.0)


def _raised(
    counts: Array, share: ArrayLike, background: Array, start: Array, steps: int | None, chance: float = 1.0
) -> tuple[Array, int]:
    """Estimates (n, cases) after so many steps, or when no bin asks for more; and the steps taken.

    A bin is changed by as much as its score (slope of the log-likelihood over its standard deviation) exceeds chance.
    """
    from scipy.sparse import csr_array

    forth = csr_array(share)
    back = forth.T.tocsr()
    squares = back.power(2)
    kept = np.maximum(np.asarray(forth.sum(axis=0)).ravel(), 1e-12)[:, None]
    true = start
    for step in range(ITERATIONS if steps is None else steps):
        expected = np.maximum(forth @ true + background[:, None], 1e-9)
        slope = back @ (counts / expected - 1)
        beyond = np.clip(1 - chance * (squares @ (1 / expected)) / np.maximum(slope**2, 1e-30), 0, 1)
        if steps is None and beyond.max() == 0:
            return true, step
        true = true * (1 + beyond * slope / kept)
    return true, ITERATIONS if steps is None else steps


def _hidden(counts: Array, true: Array, share: ArrayLike, background: Array) -> Array:
    """How many members (n,) may hide in bins whose measured ones nearly all came over from others; 0 in all other bins.

    So many that the likelihood of the measured counts falls by no more than chance makes it. The variance of a measured count
    is that of members that move or stay; where none moves nothing is hidden.
    """
    from scipy.sparse import csr_array
    from scipy.stats import chi2

    forth = csr_array(share)
    back = forth.T.tocsr()
    expected = forth @ true + background
    variance = np.maximum((forth - forth.power(2)) @ true + background, 1e-9)
    slope = back @ ((counts - expected) / variance)
    bend = np.maximum(back.power(2) @ (1 / variance), 1e-12)
    more = (slope + np.sqrt(slope**2 + bend * float(chi2.ppf(INSIDE, 1)))) / bend
    drowned = (forth.diagonal() * true < DROWNED * expected) & (expected > 0.5)
    return np.where(drowned, np.maximum(more, 0), 0)


def _errors(best: Array, share: ArrayLike, background: Array, steps: int, rng: np.random.Generator) -> Array:
    """Estimate minus truth (n, replicas) of counts drawn from the estimate."""
    from scipy.sparse import coo_array, csr_array

    flow = coo_array(share)
    lost = np.maximum(1 - np.asarray(csr_array(share).sum(axis=0)).ravel(), 0)
    n = len(best)
    moved = rng.poisson((flow.data * best[flow.col])[:, None], (flow.nnz, REPLICAS)).astype(np.float64)
    to_bins = csr_array((np.ones(flow.nnz), (flow.row, np.arange(flow.nnz))), shape=(n, flow.nnz))
    from_bins = csr_array((np.ones(flow.nnz), (flow.col, np.arange(flow.nnz))), shape=(n, flow.nnz))
    true = from_bins @ moved + rng.poisson((lost * best)[:, None], (n, REPLICAS))
    seen = to_bins @ moved + rng.poisson(background[:, None], (n, REPLICAS))
    start = (seen + csr_array(share) @ seen) / 2 + 1e-9
    return _raised(seen, share, background, start, steps)[0] - true
