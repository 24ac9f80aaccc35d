"""What a diffraction experiment would see of a model: the structure factor S(q), whole and per pair of elements.

Faber and Ziman's partial structure factors (T. E. Faber & J. M. Ziman, Phil. Mag. 11, 153 (1965),
doi:10.1080/14786436508211931) and their sum:

    S_ab(q) = 1 + 4πρ ∫ r² (g_ab(r) − 1) sin(qr)/(qr) M(r) dr,   M(r) = sin(πr/R) / (πr/R)
    S(q) = Σ_ab w_ab(q) S_ab(q),   w_ab = c_a c_b f_a f_b / ⟨f⟩²,   counted for ab and for ba

M lets g(r), known up to R only, end without ripples: E. Lorch, J. Phys. C 2, 229 (1969), doi:10.1088/0022-3719/2/2/305.
It widens peaks to about 2π/R. f are the X-ray form factors of free atoms, the neutrons' bound coherent lengths (both
from the package periodictable), or the electrons' form factors by Mott and Bethe's formula from those of X-rays.

Debye's sum (P. Debye, Ann. Phys. 351, 809 (1915), doi:10.1002/andp.19153510606) over all pairs of atoms of a free
particle needs no g(r): S(q) − 1 = Σ_{i≠j} f_i f_j sin(qr_ij)/(qr_ij) / (N ⟨f⟩²). It holds the scattering of the
particle's shape too, that of S from g(r) does not: compare them above q of a few 2π/R.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ..atoms import UNKNOWN, Atoms
from ..cell import Cell
from ..pdf import Pair, occupied_A3, pair_distribution, semi_axes
from .ends import Array, Ints

Weights = Literal["xray", "neutron", "electron", "equal"]

LONGEST_A = 20.0
"""Where no r_max_A is given, g(r) is taken up to half the box or the particle's half axis, and no farther than this."""
_BIN_A = 0.001
_DEBYE_BIN_A = 0.002
_MOST_BINS = 2_000_000
_CHUNK = 4_000_000


@dataclass(frozen=True, eq=False)
class StructureFactor:
    """S(q): q_per_A (k,) in 1/Å, total (k,), and partial (k,) per pair of elements, lighter first; 1 for no order.

    weight: (k,) share of each partial in the total, both orders of the pair together; they add up to 1.
    """

    q_per_A: Array
    total: Array
    partial: dict[Pair, Array]
    weight: dict[Pair, Array]


def structure_factor(
    positions_A: ArrayLike,
    symbols: Sequence[str],
    q_per_A: ArrayLike,
    *,
    weights: Weights = "xray",
    cell: Cell | None = None,
    r_max_A: float | None = None,
    window: bool = True,
) -> StructureFactor:
    """Structure factor from g(r) of a particle or a periodic box, in bins of 0.001 Å.

    positions_A: (n, 3) in Å; symbols: n element symbols; q_per_A: (k,) ≥ 0, 2π over a length; weights: whose
    scattering; cell: the box, where the model repeats along all edges. r_max_A: where g(r) ends; for None see
    LONGEST_A. window: Lorch's M(r), or none. A particle's density is that of the ellipsoid of `pdf.semi_axes`.
    ValueError for fewer than two atoms, elements without the factors asked for, and numbers out of range.
    """
    atoms, q = Atoms(np.asarray(positions_A), tuple(symbols)), _checked_q(q_per_A)
    weight = faber_ziman_weights(atoms.symbols, q, weights)
    if len(atoms) < 2:
        raise ValueError(f"a structure factor needs at least two atoms; {len(atoms)} given")
    whole = cell is not None and cell.whole
    reach = _reach(atoms, cell if whole else None) if r_max_A is None else r_max_A
    found = pair_distribution(atoms.positions_A, atoms.symbols, r_max_A=reach, bin_A=min(_BIN_A, reach), cell=cell)
    volume = occupied_A3(atoms.positions_A, cell)
    edges = np.arange(len(found.r_A) + 1) * (2 * found.r_A[0])
    excess = np.column_stack([found.g[pair] for pair in weight]) - 1
    sine = 4 * np.pi * len(atoms) / volume * _transformed(excess, edges, q, window)
    return _summed(q, 1 + sine, weight)


def debye(
    positions_A: ArrayLike, symbols: Sequence[str], q_per_A: ArrayLike, weights: Weights = "xray"
) -> StructureFactor:
    """Structure factor of a free particle by Debye's sum over all pairs of atoms, in bounded memory.

    Distances are rounded to 0.002 Å (coarser in particles wider than 4 µm), which changes S by a few 1e-4 up to q =
    15/Å. Time grows as n². Arguments and errors are those of `structure_factor`.
    """
    atoms, q = Atoms(np.asarray(positions_A), tuple(symbols)), _checked_q(q_per_A)
    weight = faber_ziman_weights(atoms.symbols, q, weights)
    element = np.array([atoms.elements.index(symbol) for symbol in atoms.symbols], dtype=np.int64)
    number = np.bincount(element)
    counts, width = _all_distances(atoms.positions_A, element, len(number))
    sums = 2 * _sinc_sums(counts, width, q)
    for column, (i, j) in enumerate(combinations_with_replacement(range(len(number)), 2)):
        # A pair of unlike elements is counted once, the partial holds it in one order only.
        sums[:, column] *= len(atoms) / (number[i] * number[j]) / (1 if i == j else 2)
    return _summed(q, 1 + sums, weight)


def faber_ziman_weights(symbols: Sequence[str], q_per_A: ArrayLike, weights: Weights = "xray") -> dict[Pair, Array]:
    """Share (k,) of each pair of elements in the total structure factor at q (k,), lighter first; their sum is 1.

    symbols: one per atom; only their numbers matter. ValueError where elements lack the factors asked for, or their
    mean is zero, so that nothing can be divided by it.
    """
    q, symbols = _checked_q(q_per_A), tuple(symbols)
    if not symbols:
        raise ValueError("symbols is empty; expected one element symbol per atom")
    elements = Atoms(np.zeros((len(symbols), 3)), symbols).elements
    share = {one: symbols.count(one) / len(symbols) * scattering_factor(one, q, weights) for one in elements}
    mean = np.sum(list(share.values()), axis=0)
    if not (np.abs(mean) > 1e-9).all():
        raise ValueError(
            f"the mean {weights} scattering of {', '.join(elements)} is zero; the total S(q) is not defined"
        )
    both = combinations_with_replacement(elements, 2)
    return {(a, b): (1 if a == b else 2) * share[a] * share[b] / mean**2 for a, b in both}


def scattering_factor(symbol: str, q_per_A: ArrayLike, weights: Weights = "xray") -> Array:
    """How strongly an atom of the element scatters at q (k,): electrons (X-rays), fm (neutrons), Å (electrons), or 1.

    Values are those of the package periodictable: fits to q = 75/Å by D. Waasmaier & A. Kirfel,
    doi:10.1107/S0108767394013292, and NIST's neutron lengths. ValueError for an element without them, another kind of
    weights, or q beyond the fits.
    """
    q = _checked_q(q_per_A)
    kinds: dict[str, Callable[[str, Array], Array]] = {"xray": _xray, "neutron": _neutron, "electron": _electron}
    if weights == "equal":
        return np.ones(len(q))
    if weights not in kinds:
        raise ValueError(f"weights is {weights!r}; expected one of 'xray', 'neutron', 'electron', 'equal'")
    factor = kinds[weights](symbol, q)
    if symbol == UNKNOWN or not np.isfinite(factor).all():
        raise ValueError(f"no {weights} scattering factor is known for element {symbol!r} at all q asked for")
    return factor


def _xray(symbol: str, q: Array) -> Array:
    from periodictable import elements

    try:
        return np.asarray(elements.symbol(symbol).xray.f0(q), dtype=np.float64)
    except (ValueError, KeyError, AttributeError, TypeError):
        return np.full(len(q), np.nan)


def _neutron(symbol: str, q: Array) -> Array:
    from periodictable import elements

    try:
        length = elements.symbol(symbol).neutron.b_c
    except (ValueError, AttributeError):
        length = None
    return np.full(len(q), np.nan if length is None else float(length))


def _electron(symbol: str, q: Array) -> Array:
    """Mott and Bethe: 0.023934 Å⁻¹ (Z − f) / (q/4π)²; Z is the X-ray fit's own f(0), so that q = 0 has its limit."""
    far = np.maximum(q, 1e-2)
    return 0.023934 * (_xray(symbol, np.zeros(1)) - _xray(symbol, far)) / (far / (4 * np.pi)) ** 2


def _checked_q(value: ArrayLike) -> Array:
    q = np.asarray(value, dtype=np.float64)
    if q.ndim != 1 or not (np.isfinite(q) & (q >= 0)).all():
        raise ValueError(f"q_per_A has shape {q.shape}; expected a row of finite numbers >= 0, in 1/Å")
    return q


def _reach(atoms: Atoms, cell: Cell | None) -> float:
    half = semi_axes(atoms.positions_A)[-1] if cell is None else max(cell.heights_A.min() / 2, LONGEST_A / 2)
    return float(min(max(half, 2 * _BIN_A), LONGEST_A))


def _summed(q: Array, partial: Array, weight: dict[Pair, Array]) -> StructureFactor:
    """The structure factor of partials (k, pairs) in the order of the weights."""
    total = np.sum([share * one for share, one in zip(weight.values(), partial.T, strict=True)], axis=0)
    return StructureFactor(q, total, dict(zip(weight, np.ascontiguousarray(partial.T), strict=True)), weight)


def _transformed(values: Array, edges: Array, q: Array, window: bool) -> Array:
    """∫ r² v(r) sin(qr)/(qr) M(r) dr, (k, columns), of values (bins, columns) in equal bins; waves are those at their middles.

    Phases of a bin are that of its block times that within the block, so that few waves are computed for many bins.
    """
    bins, width = len(values), float(edges[1] - edges[0])
    block = int(np.ceil(np.sqrt(bins)))
    q = np.maximum(q, 1e-3 / edges[-1])[:, None]
    r = (np.arange(block * block) + 0.5) * width
    weight = np.zeros((block * block, values.shape[1]))
    weight[:bins] = values * (width * r[:bins] * (np.sinc(r[:bins] / edges[-1]) if window else 1))[:, None]
    within = np.exp(1j * q * r[:block]) @ weight.reshape(block, block, -1).transpose(1, 0, 2).reshape(block, -1)
    start = np.exp(1j * q * (width * block * np.arange(block)))
    whole: Array = np.einsum("kb,kbc->kc", start, within.reshape(len(q), block, -1)).imag
    return whole / q


def _all_distances(at: Array, element: Ints, n_elements: int) -> tuple[Array, float]:
    """Histogram (bins, pairs of elements) of the distances of all pairs of atoms, and the width of its bins in Å."""
    from .distances import count_distances

    longest = float(np.linalg.norm(np.ptp(at, axis=0))) if len(at) else 0.0
    width = max(_DEBYE_BIN_A, longest / _MOST_BINS)
    counts = np.zeros((n_elements, n_elements, int(longest / width) + 2), np.int64)
    count_distances(np.ascontiguousarray(at), element, 1 / width, counts)
    both = combinations_with_replacement(range(n_elements), 2)
    columns = [counts[i, j] + (counts[j, i] if i != j else 0) for i, j in both]
    return np.column_stack(columns).astype(np.float64), width


def _sinc_sums(counts: Array, width: float, q: Array) -> Array:
    """Σ over bins of counts · sin(qr)/(qr), (k, columns); bin b stands for the distance b · width."""
    filled = np.flatnonzero(counts.any(axis=1))
    r, counts = filled * width, counts[filled]
    found = np.empty((len(q), counts.shape[1]))
    step = max(1, _CHUNK // max(len(r), 1))
    for k in range(0, len(q), step):
        found[k : k + step] = np.sinc(q[k : k + step, None] * r / np.pi) @ counts
    return found
