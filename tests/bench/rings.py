"""Speed of the ring search, and how often error bars of statistics hold the truth.

    python tests/bench/rings.py speed [--model FILE.mat]    every definition on 7704 atoms of silica, one core, against matscipy
    python tests/bench/rings.py scaling                     1920 to 983 040 atoms of periodic silica, replicated, all cores
    python tests/bench/rings.py bands [--model FILE.mat]    coverage of 95 % bands by the truth: glasses and crystals

`speed` and `bands` take the published glass (sio2_7704_GT.mat) where FILE is given, else a ball cut out of the silica that comes with
the project. `bands` adds errors to a model, takes the result for measured atoms and counts the bins whose band holds the true number,
over several seeds. Each form writes its table to results/rings_FORM.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis import (
    Atoms,
    Band,
    BondRule,
    Cell,
    Network,
    angle_bands,
    bond_angles,
    bond_lengths,
    bonds,
    dihedral_angles,
    dihedral_bands,
    length_bands,
    likely_bonds,
    network_bands,
    pair_bands,
    pair_distribution,
    possible_names,
    rings,
)
from analysis.uncertainty import available_threads

if TYPE_CHECKING:
    from ase import Atoms as AseAtoms

RESULTS = Path(__file__).resolve().parent / "results"
RULES = [BondRule("Si", "O", 2.2)]
ATOMS, REPEATS = 7704, (1, 2, 3, 4, 6, 8)
MATSCIPY_MOST = 19
"""matscipy counts rings of fewer atoms than this."""
SEEDS = 4
PUBLISHED = ((0.053, 0.076), (0.095, 0.142))
"""Errors of Si and O in Å in three dimensions, as the published models of 1.6e4 and 1.6e3 e⁻/Å² have them."""


def silica(repeat: int = 1) -> Atoms:
    """The periodic amorphous silica that comes with the project, replicated along all edges."""
    from ase.io import read

    with as_file(files("pyaet.simulate") / "silica_network.extxyz") as path:
        atoms = read(path) * repeat
    return Atoms(atoms.positions, tuple(atoms.get_chemical_symbols()), cell=Cell(atoms.cell.array))


def glass(model: Path | None) -> Atoms:
    """A free particle of silica."""
    if model is not None:
        from pyaet.io.structures import read_structure

        return read_structure(model, types={8: "O", 14: "Si"})
    many = silica(3)
    away = np.linalg.norm(many.positions_A - many.positions_A.mean(axis=0), axis=1)
    inside = np.argsort(away)[:ATOMS]
    return Atoms(many.positions_A[inside], tuple(many.symbols[k] for k in inside))


def network_of(atoms: Atoms) -> Network:
    return bonds(atoms.positions_A, atoms.symbols, RULES, atoms.cell)


def least(run: Callable[[], object], times: int = 3) -> float:
    """Seconds of the fastest of so many runs, after one to warm up."""
    run()
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begin)
    return min(taken)


def speed(model: Path | None) -> Iterator[tuple[str, ...]]:
    atoms = glass(model)
    network = network_of(atoms)
    yield "search", "largest ring", "rings", "s on one core", "of matscipy's time"
    other, count = matscipy_s(atoms)
    yield "matscipy, shortest-path rings (counts only)", str(MATSCIPY_MOST - 1), str(count), f"{other:.2f}", "1"
    for definition, most in (("primitive", 18), ("primitive", 24), ("king", 18), ("guttman", 18), ("mcb", 24)):
        taken = least(lambda d=definition, m=most: rings(network, definition=d, max_size=m, threads=1))
        found = len(rings(network, definition=definition, max_size=most))
        yield definition, str(most), str(found), f"{taken:.3f}", f"1/{other / taken:.0f}"


def matscipy_s(atoms: Atoms) -> tuple[float, int]:
    """Seconds and rings of matscipy's search on the same bonds; the list of neighbours is not counted."""
    from ase import Atoms as AseAtoms
    from matscipy.ffi import distances_on_graph, find_sp_rings
    from matscipy.neighbours import neighbour_list

    other = AseAtoms(atoms.symbols, positions=atoms.positions_A, cell=np.ptp(atoms.positions_A, axis=0) + 20, pbc=False)
    other.center()
    first, second, between = neighbour_list("ijD", other, {("Si", "O"): RULES[0].distance_A})
    counts: list[int] = []

    def search() -> None:
        counts[:] = find_sp_rings(first, second, between, distances_on_graph(first, second), MATSCIPY_MOST)

    return least(search, 1), int(sum(counts))


def scaling() -> Iterator[tuple[str, ...]]:
    threads = available_threads()
    yield "atoms", "rings", "bonds s", "rings s", f"µs per atom, {threads} cores", "of 15 360 atoms", "peak GB"
    reference = 0.0
    for repeat in REPEATS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            atoms, count, bond_s, ring_s, peak_GB = pool.apply(one_size, (repeat,))
        per_atom = 1e6 * ring_s / atoms
        reference = per_atom if repeat == 2 else reference
        share = f"{per_atom / reference:.2f}" if reference else "–"
        yield f"{atoms}", f"{count}", f"{bond_s:.2f}", f"{ring_s:.2f}", f"{per_atom:.1f}", share, f"{peak_GB:.2f}"


def one_size(repeat: int) -> tuple[int, int, float, float, float]:
    """Atoms, rings, seconds for bonds and for rings, and the peak memory of this process in GB."""
    rings(network_of(silica()))
    atoms = silica(repeat)
    begin = time.perf_counter()
    network = network_of(atoms)
    middle = time.perf_counter()
    found = rings(network)
    end = time.perf_counter()
    if repeat <= 3:
        end = middle + least(lambda: rings(network), 2)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return len(atoms), len(found), middle - begin, end - middle, peak


def bands(model: Path | None) -> Iterator[tuple[str, ...]]:
    yield (
        "model",
        "errors, pm per axis",
        "statistic",
        "bins",
        "true number in its 95 % band",
        "least of a seed",
        "measured number is the true one",
        "width of the band / √number",
    )
    with multiprocessing.get_context("spawn").Pool(available_threads()) as pool:
        for name, case in cases(model).items():
            found: dict[str, list[np.ndarray]] = {}
            for each in pool.starmap(covered, [(case, seed) for seed in range(SEEDS)]):
                for statistic, bins in each.items():
                    found.setdefault(statistic, []).append(bins)
            for statistic, seeds in found.items():
                held, equal, width, root = np.concatenate(seeds, axis=1)
                yield (
                    name,
                    ", ".join(f"{100 * error:.1f}" for error in case.errors_A),
                    statistic,
                    f"{len(held)}",
                    f"{held.mean():.3f}",
                    f"{min(bins[0].mean() for bins in seeds):.2f}",
                    f"{equal.mean():.3f}",
                    f"{width.sum() / root.sum():.1f}",
                )


@dataclass(frozen=True)
class Case:
    """A true model, whose atoms may sway by `thermal_A` about their places, and the errors per axis of lighter and heavier atoms.

    wrong: share of atoms that get the name of the other element.
    """

    truth: Atoms
    errors_A: tuple[float, ...]
    rules: tuple[BondRule, ...]
    thermal_A: float = 0.0
    wrong: float = 0.0


def cases(model: Path | None) -> dict[str, Case]:
    silica_bonds, carbon_bonds = tuple(RULES), (BondRule("C", "C", 1.85),)
    window = (BondRule("any", "any", 1.66, 0.15),)
    particle = glass(model)
    published = [tuple(error / np.sqrt(3) for error in reversed(errors)) for errors in PUBLISHED]
    return {
        "glass, 1.6e4 e⁻/Å²": Case(particle, published[0], silica_bonds),
        "glass, 1.6e3 e⁻/Å²": Case(particle, published[1], silica_bonds),
        "glass, bonds of 1.66 ± 0.15 Å": Case(particle, (0.05, 0.05), window),
        "silica, periodic": Case(silica(), (0.05, 0.05), silica_bonds),
        "silica, bonds of 1.66 ± 0.15 Å": Case(silica(), (0.08, 0.08), window),
        "silica, 3 % of the names wrong": Case(silica(), (0.05, 0.05), silica_bonds, wrong=0.03),
        "quartz, atoms sway by 5 pm": Case(quartz(), (0.08, 0.08), silica_bonds, thermal_A=0.05),
        "quartz, at rest": Case(quartz(), (0.05, 0.05), silica_bonds),
        "diamond, at rest": Case(diamond(), (0.10,), carbon_bonds),
    }


def quartz() -> Atoms:
    """α-quartz, 6 x 6 x 6 cells (L. Levien, C. T. Prewitt, D. J. Weidner, Am. Mineral. 65, 920, 1980)."""
    from ase.spacegroup import crystal

    sites = [(0.4697, 0.0, 2 / 3), (0.4135, 0.2669, 0.1191 + 2 / 3)]
    return repeated(crystal(["Si", "O"], sites, spacegroup=154, cellpar=[4.916, 4.916, 5.4054, 90, 90, 120]))


def diamond() -> Atoms:
    from ase.build import bulk

    return repeated(bulk("C", "diamond", a=3.567, cubic=True))


def repeated(cell: AseAtoms) -> Atoms:
    many = cell * 6
    return Atoms(many.positions, tuple(many.get_chemical_symbols()), cell=Cell(many.cell.array))


def covered(case: Case, seed: int) -> dict[str, np.ndarray]:
    """Per statistic, for each bin that holds anything (4, bins): truth in the band, measured number right, width, √number."""
    rng = np.random.default_rng(1000 + seed)
    still = case.truth
    truth = replace(still, positions_A=still.positions_A + rng.normal(0, case.thermal_A, still.positions_A.shape))
    rank = [truth.elements.index(symbol) for symbol in truth.symbols]
    sigma = np.array(case.errors_A)[rank]
    noise = rng.normal(size=(len(truth), 3)) * sigma[:, None]
    atoms = replace(truth, positions_A=truth.positions_A + noise, covariance_A2=sigma[:, None, None] ** 2 * np.eye(3))
    atoms = misnamed(atoms, case.wrong, rng) if case.wrong else atoms
    believed = possible_names(atoms, max(rule.reach_A for rule in case.rules)).likely
    known, seen = (counted(model, case.rules, truth.elements) for model in (truth, atoms))
    found: dict[str, list[np.ndarray]] = {}

    def add(
        statistic: str, band: Band, true: np.ndarray, measured: np.ndarray, scale: np.ndarray | float = 1.0
    ) -> None:
        held = (true >= band.low - 1e-9) & (true <= band.high + 1e-9)
        root = np.sqrt(np.maximum(true / scale, 1)) * scale
        rows = np.array([held, np.isclose(measured, true), band.high - band.low, root], np.float64)
        found.setdefault(statistic, []).append(rows[:, (true > 0) | (band.high > 0)])

    def add_bins(statistic: str, kind: str, band: Band, edges: np.ndarray) -> None:
        of = statistic.split()[0]
        add(statistic, band, *(np.histogram(each[of].get(kind, []), edges)[0] for each in (known, seen)))

    pairs = pair_distribution(believed.positions_A, believed.symbols, cell=truth.cell)
    for pair, band in pair_bands(believed, pairs, rng).items():
        scale = np.divide(1, pairs.expected[pair], out=np.ones(len(pairs.r_A)), where=pairs.expected[pair] > 0)
        add("g(r)", band, *(each["pairs"][pair] * scale for each in (known, seen)), scale)
    likely = likely_bonds(believed, case.rules, rng)
    for kind, binned in length_bands(believed, likely.likeliest(), rng).items():
        add_bins("lengths of bonds", kind, binned.counts, binned.edges)
    for kind, binned in angle_bands(believed, likely.likeliest(), rng).items():
        add_bins(f"angles {kind}", kind, binned.counts, binned.edges)
    edges = np.arange(-180.0, 181.0, 10.0)
    for kind, band in dihedral_bands(believed, likely.likeliest(), rng, edges).items():
        add_bins("dihedral angles", kind, band, edges)
    bands = network_bands(believed, likely, partial(numbers, elements=truth.elements), rng)
    for name, band in bands.items():
        add(
            "rings per size" if name == "rings" else "bonds per atom", band.outwards(),
            *(each["numbers"][name] for each in (known, seen)),
        )  # fmt: skip
    return {statistic: np.concatenate(parts, axis=1) for statistic, parts in found.items()}


def counted(model: Atoms, rules: tuple[BondRule, ...], elements: tuple[str, ...]) -> dict[str, Any]:
    """Numbers of pairs by distance, lengths of bonds and angles one by one, and the numbers of bonds and rings."""
    network = bonds(model.positions_A, model.symbols, rules, model.cell)
    of = network, model.positions_A, model.symbols, model.cell
    return {
        "pairs": pair_distribution(model.positions_A, model.symbols, cell=model.cell).counts,
        "lengths": bond_lengths(*of),
        "angles": bond_angles(*of),
        "dihedral": dihedral_angles(*of),
        "numbers": numbers(model, network, elements),
    }


def numbers(model: Atoms, network: Network, elements: tuple[str, ...]) -> dict[str, np.ndarray]:
    """How many atoms of each element have 0, 1, … bonds, and how many rings have 0, 1, … atoms."""
    names = np.array(model.symbols)
    degrees = {element: np.bincount(network.degree[names == element], minlength=17) for element in elements}
    return degrees | {"rings": np.bincount(list(map(len, rings(network))), minlength=25)}


def misnamed(atoms: Atoms, share: float, rng: np.random.Generator) -> Atoms:
    """The atoms with a share of their two names exchanged, and with the probability that an atom of such a name bears it rightly."""
    true = np.array([atoms.elements.index(symbol) for symbol in atoms.symbols])
    named = np.where(rng.random(len(true)) < share, 1 - true, true)
    right = np.array([np.mean(true[named == kind] == kind) for kind in (0, 1)])
    return replace(atoms, symbols=tuple(np.array(atoms.elements)[named]), species_probability=right[named])


def write(form: str, rows: Iterator[tuple[str, ...]]) -> None:
    lines = []
    for k, row in enumerate(rows):
        lines.append("| " + " | ".join(row) + " |")
        if k == 0:
            lines.append("|" + "---|" * len(row))
        print(lines[0] if k == 0 else lines[-1], flush=True)
    (RESULTS / f"rings_{form}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("form", choices=("speed", "scaling", "bands"))
    parser.add_argument("--model", type=Path)
    given = parser.parse_args()
    forms = {"speed": lambda: speed(given.model), "scaling": scaling, "bands": lambda: bands(given.model)}
    write(given.form, forms[given.form]())


if __name__ == "__main__":
    main()
