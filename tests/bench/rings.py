"""Speed of the ring search, and how often error bars of statistics hold the truth.

    python tests/bench/rings.py speed [--model FILE.mat]    every definition on 7704 atoms of silica, one core, against matscipy
    python tests/bench/rings.py scaling                     1920 to 983 040 atoms of periodic silica, replicated, all cores
    python tests/bench/rings.py bands [--model FILE.mat]    coverage of 95 % bands by the truth, over errors of coordinates

`speed` and `bands` take the published glass (sio2_7704_GT.mat) where FILE is given, else a ball cut out of the silica that comes with
the project. `bands` adds errors to it, takes the result for measured atoms and counts the bins whose band holds the true number. Each
form writes its table to results/rings_FORM.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

from analysis import (
    Atoms,
    Band,
    BondRule,
    Cell,
    Network,
    angle_bands,
    bond_angles,
    bonds,
    degree_bands,
    length_bands,
    pair_bands,
    pair_distribution,
    ring_bands,
    rings,
)
from analysis.uncertainty import available_threads

RESULTS = Path(__file__).resolve().parent / "results"
RULES = [BondRule("Si", "O", 2.2)]
ATOMS, REPEATS = 7704, (1, 2, 3, 4, 6, 8)
MATSCIPY_MOST = 19
"""matscipy counts rings of fewer atoms than this."""
ERRORS_A = ((0.053, 0.076), (0.095, 0.142))
"""Of Si and O in three dimensions, as the published models of 1.6e4 and 1.6e3 e⁻/Å² have them."""


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
    truth = glass(model)
    yield (
        "errors Si, O (pm, 3D)",
        "statistic",
        "bins",
        "true number in its 95 % band",
        "measured number is the true one",
    )
    for k, errors in enumerate(ERRORS_A):
        for name, held, equal in covered(truth, errors, k):
            yield (
                f"{100 * errors[0]:.1f}, {100 * errors[1]:.1f}",
                name,
                f"{len(held)}",
                f"{held.mean():.3f}",
                f"{equal.mean():.3f}",
            )


def covered(truth: Atoms, errors_A: tuple[float, float], seed: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Per statistic, for each bin that holds anything: is the truth in the band, is the measured number the true one."""
    sigma = np.where(np.array(truth.symbols) == "Si", *errors_A) / np.sqrt(3)
    noise = np.random.default_rng(seed).normal(size=(len(truth), 3)) * sigma[:, None]
    atoms = Atoms(truth.positions_A + noise, truth.symbols, sigma_A=sigma)
    rng = np.random.default_rng(100 + seed)
    seen, known = (pair_distribution(model.positions_A, model.symbols) for model in (atoms, truth))
    for pair, band in pair_bands(atoms, seen, rng).items():
        share = np.where(seen.expected[pair] > 0, seen.expected[pair], 1)
        yield f"g(r) {'-'.join(pair)}", *held_by(band, known.counts[pair] / share)
    network, true_network = network_of(atoms), network_of(truth)
    lengths = np.linalg.norm(true_network.vectors_A(truth.positions_A), axis=1)
    for kind, found in length_bands(atoms, network, rng).items():
        yield f"bond length {kind}", *held_by(found.counts, np.histogram(lengths, found.edges)[0])
    angles = bond_angles(true_network, truth.positions_A, truth.symbols)
    for kind, found in angle_bands(atoms, network, rng).items():
        yield f"bond angle {kind}", *held_by(found.counts, np.histogram(angles[kind], found.edges)[0])
    names = np.array(truth.symbols)
    for element, band in degree_bands(atoms, network_of, rng).items():
        yield f"bonds of {element}", *held_by(band, np.bincount(true_network.degree[names == element], minlength=17))
    own, sizes = rings(network), rings(true_network).sizes
    found_rings = ring_bands(atoms, own, lambda model: rings(network_of(model)), rng)
    parts = [held_by(band, np.array([sizes.get(size, 0)])) for size, band in found_rings.items()]
    yield "rings per size", *(np.concatenate(part) for part in zip(*parts, strict=True))


def held_by(band: Band, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    held = (truth >= band.low - 1e-9) & (truth <= band.high + 1e-9)
    filled = (truth > 0) | (band.high > 0)
    return held[filled], np.isclose(band.value, truth)[filled]


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
