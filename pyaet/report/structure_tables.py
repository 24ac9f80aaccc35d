"""Tables of the structure section: bonds, angles, rings, numbers of bonds, defects, order; empty text for the unknown.

`found` and `reference` are the two sides of `structure.json`, of which any part may be missing; `name` is what the
reference is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pyaet.plots.structure import atoms_counted, has_limits, ring_sizes, total
from pyaet.report.html import number, numbers_table, share, table

Record = Mapping[str, Any]

FIRST = 8  # atoms or pairs named of each kind of defect
MOTIFS = 10
DEFECTS = {
    "under": "atoms with too few bonds", "over": "atoms with too many bonds", "dangling": "atoms with a dangling bond",
    "homopolar": "bonds between like atoms",
}  # fmt: skip


def _part(structure: Record | None, key: str) -> Mapping[str, Any]:
    value = (structure or {}).get(key)
    return value if isinstance(value, Mapping) else {}


def _plain(value: float) -> str:
    """Return a number of members, to a tenth where it is no whole one; never −0."""
    return f"{round(value)}" if abs(value - round(value)) < 1e-6 else f"{value:.1f}"


def with_limits(record: Record | None) -> str:
    """Return a number with its limits, as 181 (178–183); a dash where there is none."""
    if record is None or record.get("value") is None:
        return "–"
    text = _plain(float(record["value"]))
    return f"{text} ({_plain(float(record['low']))}–{_plain(float(record['high']))})" if has_limits(record) else text


def _estimate(record: Record | None, key: str, digits: int, factor: float = 1.0) -> str:
    """Return the best estimate of a number of a histogram with its limits, as 1.612 (1.611–1.613); a dash where there is none."""
    told = _part(record, key)
    if told.get("value") is None:
        return "–"
    low, best, high = (
        f"{factor * float(told.get(name, told['value'])):.{digits}f}" for name in ("low", "best", "high")
    )
    return f"{best} ({low}–{high})" if has_limits(told) else best


def bond_table(found: Record, reference: Record | None, name: str) -> str:
    """Return number, mean in Å and spread in pm of the bonds of each pair of elements, errors of the atoms taken out."""

    def cells(record: Record | None) -> tuple[str, ...]:
        return f"{total(record):.0f}", _estimate(record, "mean", 3), _estimate(record, "spread", 1, 100.0)

    heads = ("bonds", "mean (Å)", "spread (pm)")
    return _by_kind(
        "bond_lengths_A",
        found,
        reference,
        name,
        ("bond", *heads),
        cells,
        "Bonds, mean and spread without the errors of the atoms",
    )


def angle_table(found: Record, reference: Record | None, name: str) -> str:
    """Return number, mean and spread in degrees of the angles of each three elements, errors of the atoms taken out."""

    def cells(record: Record | None) -> tuple[str, ...]:
        return f"{total(record):.0f}", _estimate(record, "mean", 1), _estimate(record, "spread", 1)

    heads = ("angles", "mean (°)", "spread (°)")
    return _by_kind(
        "bond_angles_deg",
        found,
        reference,
        name,
        ("angle", *heads),
        cells,
        "Bond angles, mean and spread without the errors of the atoms",
    )


def _by_kind(
    key: str, found: Record, reference: Record | None, name: str, head: Sequence[str],
    cells: Callable[[Record | None], tuple[str, ...]], caption: str,
) -> str:  # fmt: skip
    """Return a table of a row per kind, the columns of the reference after those found."""
    own, other = _part(found, key), _part(reference, key)
    kinds = [kind for kind in dict.fromkeys([*own, *other]) if total(own.get(kind)) or total(other.get(kind))]
    rows = [(kind, *cells(own.get(kind)), *(cells(other.get(kind)) if other else ())) for kind in kinds]
    more = tuple(f"{name}: {title}" for title in head[1:]) if other else ()
    return table((*head, *more), rows, caption) if rows else ""


def ring_table(found: Record, reference: Record | None, name: str) -> str:
    """Return a row per ring size: rings with limits, those of the reference, shares of the atoms, shape."""
    sizes, known = ring_sizes(found), ring_sizes(reference or {})
    every = sorted({*sizes, *known})
    columns: list[tuple[str, list[str]]] = [("rings", [with_limits(sizes.get(n, {"value": 0})) for n in every])]
    if known:
        columns.append((name, [with_limits(known.get(n, {"value": 0})) for n in every]))
    columns += _ring_columns(found, every)
    rows = [(str(n), *(values[k] for _, values in columns)) for k, n in enumerate(every)]
    return table(("atoms in the ring", *(head for head, _ in columns)), rows, "Rings") if rows else ""


def _ring_columns(found: Record, every: Sequence[int]) -> list[tuple[str, list[str]]]:
    """Return the columns of which something is known: (head, text per ring size)."""
    statistics, shapes = _part(found, "ring_statistics"), _part(found, "ring_shape")
    told: list[tuple[str, Mapping[str, Any], Callable[[Any], str]]] = [
        ("per atom R_N", _part(statistics, "r_n"), lambda v: f"{v:.3f}"),
        ("atoms in one P_N", _part(statistics, "p_n"), share),
        ("of these its smallest P_min", _part(statistics, "p_min"), share),
        ("its largest P_max", _part(statistics, "p_max"), share),
        ("alternating", _part(found, "alternating_share"), share),
        ("roundness", {n: shape.get("roundness") for n, shape in shapes.items()}, lambda v: f"{v:.2f}"),
        ("out of plane (Å)", {n: shape.get("out_of_plane_A") for n, shape in shapes.items()}, lambda v: f"{v:.2f}"),
        ("radius (Å)", {n: shape.get("radius_A") for n, shape in shapes.items()}, lambda v: f"{v:.2f}"),
    ]
    texts = ((head, [_told(values.get(str(n)), as_text) for n in every]) for head, values, as_text in told)
    return [(head, column) for head, column in texts if any(text != "–" for text in column)]


def _told(value: Any, as_text: Callable[[Any], str]) -> str:
    return "–" if value is None else as_text(value)


def former_table(found: Record, reference: Record | None, name: str) -> str:
    """Return the number of rings by how many atoms of the element that forms the network they have."""
    return _counts(
        found,
        reference,
        name,
        "former_sizes",
        f"{found.get('former')} in the ring",
        "Rings by atoms that form the network",
    )


def q_n_table(found: Record, reference: Record | None, name: str) -> str:
    """Return how many atoms that form the network have n bridges."""
    return _counts(found, reference, name, "q_n", "bridges n", f"{found.get('former') or 'Atoms'} with n bridges, Qⁿ")


def _counts(found: Record, reference: Record | None, name: str, key: str, head: str, caption: str) -> str:
    own, other = _part(found, key), _part(reference, key)
    every = sorted({*own, *other}, key=int)
    rows = [
        (title, *(number(values.get(n, 0)) for n in every))
        for title, values in (("found", own), (name, other))
        if values
    ]
    return table((head, *every), rows, caption) if rows else ""


def coordination_table(found: Record, reference: Record | None, name: str) -> str:
    """Return per element the mean number of bonds and how many atoms have 0, 1, … of them, with limits."""
    sides = (("", _part(found, "coordination")), (f", {name}", _part(reference, "coordination")))
    records = {
        f"{element}{more}": side[element]
        for element in {**sides[0][1], **sides[1][1]}
        for more, side in sides
        if element in side
    }
    most = max((k for r in records.values() for k, n in enumerate(r["counts"]["value"]) if n), default=-1)
    rows = [
        (title, f"{record['mean']:.3f}", *(with_limits(_entry(record["counts"], k)) for k in range(most + 1)))
        for title, record in records.items()
    ]
    return (
        table(("element", "mean", *map(str, range(most + 1))), rows, "Atoms by their number of bonds") if rows else ""
    )


def _entry(counts: Record, k: int) -> Record:
    """Return one number of a statistic of several, 0 beyond its end."""
    names = [name for name in ("value", "low", "high") if counts.get(name) is not None]
    return {name: counts[name][k] if k < len(counts[name]) else 0 for name in names}


def defect_table(found: Record, reference: Record | None, name: str) -> str:
    """Return the number of each kind of defect and the first indices, counted from 0 as in the file of the atoms."""
    own, other = _part(found, "defects"), _part(reference, "defects")
    rows = [
        (title, f"{len(own[kind])}", *((f"{len(other.get(kind, ()))}",) if other else ()), _first(own[kind]))
        for kind, title in DEFECTS.items()
        if kind in own
    ]
    if renamed := _part(found, "names_by_neighbours"):
        named = [f"{atom} ({element})" for atom, element in renamed.items()]
        rows.append(("atoms named otherwise by neighbours", f"{len(named)}", *(("–",) if other else ()), _first(named)))
    return table(("defect", "found", *((name,) if other else ()), "first of them"), rows, "Defects") if rows else ""


def _first(items: Sequence[Any]) -> str:
    named = ["–".join(map(str, item)) if isinstance(item, (list, tuple)) else str(item) for item in items[:FIRST]]
    return ", ".join(named) + (" …" if len(items) > FIRST else "")


def _beside(found: Record, reference: Record | None, name: str, key: str, head: str, caption: str) -> str:
    """Return a row per entry of a mapping of numbers, with that of the reference."""
    own, other = _part(found, key), _part(reference, key)
    rows = [(title, _decimal(value), *((_decimal(other.get(title)),) if other else ())) for title, value in own.items()]
    return table((head, "found", *((name,) if other else ())), rows, caption) if rows else ""


def limits_table(found: Record) -> str:
    """Return all single numbers whose 95 % limits are more than the number itself, by the path of their keys."""
    rows = [
        (path.replace("_", " ").replace(".", " · "), *(f"{float(one[key]):.4g}" for key in ("value", "low", "high")))
        for path, one in _part(found, "limits").items()
        if np.ndim(one["value"]) == 0 and not one["low"] == one["high"] == one["value"]
    ]
    return table(("number", "found", "from", "to"), rows, "95 % limits of single numbers") if rows else ""


def _decimal(value: Any) -> str:
    return number(round(value, 3)) if isinstance(value, float) else number(value)


def short_range_table(found: Record, reference: Record | None, name: str) -> str:
    """Return the parameters of Warren and Cowley per pair of elements."""
    return _beside(
        found,
        reference,
        name,
        "short_range_order",
        "pair",
        "Warren–Cowley: below 0 the pair is sought, above it avoided",
    )


def motif_table(found: Record, reference: Record | None, name: str) -> str:
    """Return the most frequent shapes of the Voronoi cells."""
    motifs = sorted(_part(found, "voronoi").items(), key=lambda item: -item[1])[:MOTIFS]
    return _beside({"voronoi": dict(motifs)}, reference, name, "voronoi", "cell", "Voronoi cells, the most frequent")


def bond_order_table(found: Record, reference: Record | None, name: str) -> str:
    """Return the mean bond-orientational orders per element and the share of solid-like atoms."""
    sides = [("found", _part(found, "bond_order")), (name, _part(reference, "bond_order"))]
    orders = [key for key, value in sides[0][1].items() if isinstance(value, Mapping)]
    elements = list(dict.fromkeys(element for order in orders for element in sides[0][1][order]))
    if not elements:
        return ""
    rows = [
        (
            f"{element}, {title}" if sides[1][1] else element,
            *(_told(_part(side, order).get(element), lambda v: f"{v:.3f}") for order in orders),
        )
        for element in elements
        for title, side in sides
        if side
    ]
    return table(("element", *orders), rows, "Bond-orientational order, mean")


def summary_numbers(found: Record, reference: Record | None, name: str) -> str:
    """Return what was counted: atoms, those of the surface, solid-like ones."""
    numbers: dict[str, Any] = {
        "atoms": atoms_counted(found) or None,
        f"atoms, {name}": atoms_counted(reference or {}) or None,
    }
    numbers |= {"surface atoms": found.get("surface_atoms"), "counted": found.get("counted")}
    solid = _part(found, "bond_order").get("solid_like_share")
    numbers |= {"solid-like atoms": None if solid is None else share(solid)}
    return numbers_table({key: value for key, value in numbers.items() if value is not None})


def tables(found: Record, reference: Record | None, name: str) -> list[str]:
    """Return all tables of a structure of which something is known."""
    makers: Iterable[Callable[[Record, Record | None, str], str]] = (
        summary_numbers, bond_table, angle_table, ring_table, former_table, coordination_table, q_n_table, defect_table,
        short_range_table, bond_order_table, motif_table,
    )  # fmt: skip
    made = [*(make(found, reference, name) for make in makers), limits_table(found)]
    return [text for text in made if text]
