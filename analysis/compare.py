"""A model against the truth: what was found, where, and under which name.

Both clouds are centred on their means; then the model is shifted by the mean difference to its nearest truth atoms
within the cutoff, again and again until it rests. On that one alignment two metrics are taken:

paper   every model atom is matched to the nearest truth atom within the cutoff, two to one allowed; the RMSD is the root
        of the summed per-axis sample variances. Y. Liao et al., Nature (2026), doi:10.1038/s41586-025-09857-4.
strict  one to one: the pairing that makes the sum over model atoms of min(d², cutoff²) least, an atom without a partner
        costing cutoff²; the RMSD is the root of the mean squared distance.

Standard shapes: positions (n, 3) in Å; matches as (m, 2) rows of model and truth index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from .atoms import UNKNOWN, atomic_number, check_symbols, positions

_PM_PER_A = 100.0


@dataclass(frozen=True)
class PaperElement:
    """Paper metric of one element: model atoms matched to truth atoms of the same element only."""

    matched: int
    share: float
    rmsd_pm: float


@dataclass(frozen=True)
class Paper:
    """Matched model atoms (two may share one truth atom), their number over that of truth atoms, RMSD in pm.

    elements: the same per element, empty where one side has no elements.
    """

    matched: int
    share: float
    rmsd_pm: float
    elements: dict[str, PaperElement]


@dataclass(frozen=True)
class Strict:
    """Truth atoms found one to one, recall, precision, their F1, RMSD in pm, and the share found and rightly named.

    right_element: over all truth atoms; None where one side has no elements.
    """

    found: int
    recall: float
    precision: float
    f1: float
    rmsd_pm: float
    right_element: float | None


@dataclass(frozen=True)
class Element:
    """Truth atoms of one element, how many were found, how many under the right name, RMSD in pm of the latter.

    Without names on the model's side `right` is None and the RMSD is that of all found.
    """

    truth: int
    found: int
    right: int | None
    rmsd_pm: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """Result of `compare`: both metrics, the elements, and the matching they rest on.

    model_A, truth_A: aligned positions (n, 3) in Å, truth centred on its mean. matches: (m, 2) one-to-one pairs of
    model and truth index, sorted by model index. distance_A: (m,) their distances. cutoff_A as given.
    """

    paper: Paper
    strict: Strict
    elements: dict[str, Element]
    model_A: NDArray[np.float64]
    truth_A: NDArray[np.float64]
    matches: NDArray[np.int64]
    distance_A: NDArray[np.float64]
    cutoff_A: float

    def to_dict(self) -> dict[str, Any]:
        """`paper`, `strict`, `elements` as plain numbers, undefined ones None, ready for JSON."""
        parts = {
            "paper": asdict(self.paper),
            "strict": asdict(self.strict),
            "elements": {name: asdict(element) for name, element in self.elements.items()},
        }
        return _without_nan(parts)


def compare(
    model_positions: ArrayLike,
    model_symbols: Sequence[str] | None,
    truth_positions: ArrayLike,
    truth_symbols: Sequence[str] | None,
    cutoff_A: float = 1.0,
) -> Comparison:
    """Score a model against the truth by the paper's metric and by the strict one; see the head of this module.

    model_positions, truth_positions: (n, 3) in Å, same axes and hand, any origin. model_symbols, truth_symbols: element
    symbols, or None (or all "X") where they are not known. cutoff_A: farthest match. ValueError for an empty truth, a
    cutoff that is not positive, or shapes that do not fit.
    """
    if not 0 < cutoff_A < np.inf:
        raise ValueError(f"cutoff_A is {cutoff_A}; expected a positive distance in Å")
    model = positions(model_positions, "model_positions")
    truth = positions(truth_positions, "truth_positions")
    if len(truth) == 0:
        raise ValueError("truth_positions holds no atoms; there is nothing to compare with")
    model_names = _names(model_symbols, len(model), "model_symbols")
    truth_names = _names(truth_symbols, len(truth), "truth_symbols")
    truth = truth - truth.mean(axis=0)
    model = _align(model, truth, cutoff_A)
    matches = _one_to_one(model, truth, cutoff_A)
    difference = model[matches[:, 0]] - truth[matches[:, 1]]
    squared = (difference**2).sum(axis=1)
    right = None
    if model_names is not None and truth_names is not None:
        right = model_names[matches[:, 0]] == truth_names[matches[:, 1]]
    return Comparison(
        _paper(model, model_names, truth, truth_names, cutoff_A),
        _strict(len(model), len(truth), squared, right),
        _elements(truth_names, matches[:, 1], squared, right),
        model,
        truth,
        matches,
        np.sqrt(squared),
        float(cutoff_A),
    )


def _names(symbols: Sequence[str] | None, n: int, name: str) -> NDArray[np.str_] | None:
    """Element symbols as an array; None where no element is known."""
    if symbols is None:
        return None
    checked = check_symbols(symbols, n, name)
    return None if set(checked) == {UNKNOWN} else np.array(checked, dtype=np.str_)


def _nearest(
    model: NDArray[np.float64], truth: NDArray[np.float64], cutoff: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Differences (m, 3) of the model atoms that have a truth atom within the cutoff to the nearest, and its index."""
    answer: Any = cKDTree(truth).query(model, distance_upper_bound=cutoff)
    distance, index = answer
    near = np.isfinite(distance)
    return model[near] - truth[index[near]], index[near]


def _align(model: NDArray[np.float64], truth: NDArray[np.float64], cutoff: float, iterations: int = 100) -> Any:
    """The model on the centred truth: means first, then the mean shift to the nearest atoms until it no longer moves."""
    if len(model) == 0:
        return model
    model = model - model.mean(axis=0)
    for _ in range(iterations):
        difference, _ = _nearest(model, truth, cutoff)
        if len(difference) == 0:
            break
        shift = difference.mean(axis=0)
        model = model - shift
        if np.abs(shift).max() < 1e-10:
            break
    return model


def _one_to_one(model: NDArray[np.float64], truth: NDArray[np.float64], cutoff: float) -> NDArray[np.int64]:
    """Pairs (m, 2) of the assignment with the least sum of min(d², cutoff²), sparse: only pairs within the cutoff."""
    from scipy.sparse import coo_array, csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    n, m = len(model), len(truth)
    if n == 0:
        return np.zeros((0, 2), dtype=np.int64)
    near = cKDTree(model).sparse_distance_matrix(cKDTree(truth), cutoff, output_type="ndarray")
    # One private stand-in per model atom makes a full matching exist; the common + 1 keeps every weight from being zero,
    # which a sparse matrix would take for no edge, and changes no comparison.
    alone = np.arange(n)
    rows = np.concatenate([near["i"], alone])
    columns = np.concatenate([near["j"], m + alone])
    weights = np.concatenate([near["v"] ** 2, np.full(n, cutoff**2)]) + 1.0
    graph = csr_array(coo_array((weights, (rows, columns)), shape=(n, m + n)))
    row, column = min_weight_full_bipartite_matching(graph)
    found = column < m
    return np.column_stack([row[found], column[found]]).astype(np.int64)


def _paper(
    model: NDArray[np.float64], model_names: Any, truth: NDArray[np.float64], truth_names: Any, cutoff: float
) -> Paper:
    difference, _ = _nearest(model, truth, cutoff)
    elements = {}
    if model_names is not None and truth_names is not None:
        for symbol in sorted(set(truth_names), key=atomic_number):
            wanted = truth[truth_names == symbol]
            own, _ = _nearest(model[model_names == symbol], wanted, cutoff)
            elements[str(symbol)] = PaperElement(len(own), len(own) / len(wanted), _spread_pm(own))
    return Paper(len(difference), len(difference) / len(truth), _spread_pm(difference), elements)


def _strict(n_model: int, n_truth: int, squared: NDArray[np.float64], right: NDArray[np.bool_] | None) -> Strict:
    found = len(squared)
    return Strict(
        found=found,
        recall=found / n_truth,
        precision=found / n_model if n_model else 0.0,
        f1=2 * found / (n_model + n_truth),
        rmsd_pm=_rms_pm(squared),
        right_element=None if right is None else int(right.sum()) / n_truth,
    )


def _elements(
    truth_names: Any, found: NDArray[np.int64], squared: NDArray[np.float64], right: NDArray[np.bool_] | None
) -> dict[str, Element]:
    """Score per element of the truth, lightest first; empty where the truth has no elements."""
    if truth_names is None:
        return {}
    scores = {}
    for symbol in sorted(set(truth_names), key=atomic_number):
        here = truth_names[found] == symbol
        counted = here if right is None else here & right
        scores[str(symbol)] = Element(
            truth=int((truth_names == symbol).sum()),
            found=int(here.sum()),
            right=None if right is None else int(counted.sum()),
            rmsd_pm=_rms_pm(squared[counted]),
        )
    return scores


def _spread_pm(difference: NDArray[np.float64]) -> float:
    """Root of the summed per-axis sample variances, pm; nan for fewer than two."""
    if len(difference) < 2:
        return float("nan")
    return float(_PM_PER_A * np.sqrt(difference.var(axis=0, ddof=1).sum()))


def _rms_pm(squared: NDArray[np.float64]) -> float:
    return float(_PM_PER_A * np.sqrt(squared.mean())) if len(squared) else float("nan")


def _without_nan(value: Any) -> Any:
    """The same nested dicts with None in place of nan, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value
