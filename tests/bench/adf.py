"""Dark-field counts to atoms by maximum likelihood, beside the Cramér–Rao bound.

    python tests/bench/adf.py doses FOLDER           208 silicon atoms (published counts in FOLDER), all doses, thinned, wedge, few tilts
    python tests/bench/adf.py frame FOLDER           how far the images show these atoms off their places in every tilt alike
    python tests/bench/adf.py large MODELS [--three] a simulated 8 nm particle of 13 982 atoms, 60 tilts, 8e3 e⁻/Å², one or three elements
    python tests/bench/adf.py scaling MODELS         seconds against the number of atoms (cut out of that particle)
    python tests/bench/adf.py sums MODELS            seconds of one image of all its atoms, of its slope and its information

One recipe for all: filtered back-projection, tracing, `analysis.likelihood.fit_counts`. The truth is used for the score alone, and
for the bound, which is that of the true atoms. Coverage is the share of per-axis errors within one and two stated standard
deviations. Lower doses than published are made by binomial thinning. Each form adds its table to results/adf_FORM.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import analysis
import tomo
from analysis.likelihood import Optics, bound, fit_counts

RESULTS = Path(__file__).resolve().parent / "results"
OPTICS = Optics(200e3, 17.5)
SI_PIXEL_A, SI_APART_A = 0.195, 1.9
PIXEL_A, DOSE_E_PER_A2, TILTS, APART_A = 0.347, 8e3, 60, 1.9
CUTOFF_A, FARTHER_A = 0.9, 1.5
"""Found are atoms nearer to their true place than this: for silicon, and (as published for Si/Ge/Sn) for large particles as well."""
SIZES = (1000, 3000, 13982)
SEEDS, DOSES = 5, ("8p0e3", "1p6e4", "1p6e5")
HEAD = (
    "| data | start found / false | found / false | RMSD pm | bound pm | stated pm | within 1 σ / 2 σ | deviance | s |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def doses(options: argparse.Namespace) -> list[str]:
    rows = HEAD.split("\n")
    for name in DOSES:
        counts, angles, truth_A = published(options.folder, name)
        theta = np.abs((angles[:, 1] + 90) % 180 - 90)
        for title, chosen in (("", theta <= 90), (", within ±72°", theta <= 72), (", every 3rd tilt", theta % 9 == 0)):
            rows.append(silicon(name + title, counts[chosen], angles[chosen], truth_A, 1.0))
    counts, angles, truth_A = published(options.folder, "8p0e3")
    for share in (0.5, 0.25):
        for seed in range(SEEDS):
            thinned = np.random.default_rng(seed).binomial(counts.astype(int), share).astype(float)
            rows.append(silicon(f"{8e3 * share:.0e}, seed {seed}", thinned, angles, truth_A, share))
    return rows


def frame(options: argparse.Namespace) -> list[str]:
    """Displacements that stay in the frame of the image while the specimen turns, beside the errors of the atoms.

    A constant shift d of an atom along x in tilts all around is best explained by z off by d Σ sin θ / Σ sin² θ = 4/π d; along
    the tilt axis y it stays as it is.
    """
    rows = [
        "| dose | rms error x / y / z pm | stated pm | shift in all tilts alike x / y pm | its noise pm | error of z / shift along x |",
        "|---|---|---|---|---|---|",
    ]
    for name in DOSES:
        counts, angles, truth_A = published(options.folder, name)
        found = fitted_atoms(counts, angles, ("Si",), SI_PIXEL_A, SI_APART_A, 1.0)[0]
        result = analysis.compare(found.atoms.positions_A, None, truth_A, None, CUTOFF_A)
        mine, true_A = result.matches[:, 0], result.truth_A[result.matches[:, 1]]
        off = result.model_A[mine] - true_A
        shift_A, noise_A = shift_in_all(found, true_A, counts, tomo.rotation(angles))
        slope = (off[:, 2] @ shift_A[:, 0]) / (shift_A[:, 0] @ shift_A[:, 0])
        columns = (off, found.sigma_axes_A[mine], shift_A, noise_A)
        told = (" / ".join(f"{100 * rms:.2f}" for rms in np.sqrt((of**2).mean(axis=0))) for of in columns)
        rows.append(f"| {name} | {' | '.join(told)} | {slope:.2f} |")
        print(rows[-1], flush=True)
    return rows


def shift_in_all(
    found: Any, places_A: np.ndarray, counts: np.ndarray, rotations: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Shift (n, 2) in Å of silicon atoms at their true places that suits all tilts best, and its standard deviation by counting."""
    from analysis.likelihood.fit import model_of
    from analysis.likelihood.model import State

    n = len(places_A)
    atoms = analysis.Atoms(places_A, ("Si",) * n)
    state = State(
        places_A, np.zeros(n, int), np.array([found.amplitudes["Si"]]), np.array([found.widths_A["Si"]]), found.scales,
        found.shifts_px, found.defocus_A, found.backgrounds,
    )  # fmt: skip
    seen_by = model_of(atoms, counts, rotations, SI_PIXEL_A, 1.0, OPTICS, None).glowing(state)
    tables = seen_by.tables(state)
    expected = seen_by.expected(state, tables)
    pull = seen_by.pulls(state, counts / expected - 1, tables)[..., :2].sum(axis=0)
    hold = seen_by.sharpness(state, 1 / expected, tables)[..., :2, :2].sum(axis=0)
    variance = np.linalg.inv(hold)
    shift_px = np.einsum("aij,aj->ai", variance, pull)
    return SI_PIXEL_A * shift_px, SI_PIXEL_A * np.sqrt(np.einsum("aii->ai", variance))


def published(folder: Path, dose: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts (n, y, x), angles (n, 3), true atoms (m, 3)."""
    from scipy.io import loadmat

    counts = loadmat(folder / f"aSi_2nmFosCetr_Dose{dose}_cov35pm_ForBM3D.mat")["Trunc_projections_forBM3D"]
    angles = loadmat(folder / "Si_Angle.mat")["Angle"].astype(np.float64)
    truth = np.loadtxt(folder / "aSi_208atoms_GT.txt", comments="%")[:, [2, 1, 3]] * [1, 1, -1]
    return counts.transpose(2, 1, 0).astype(np.float64), angles, truth


def silicon(name: str, counts: np.ndarray, angles: np.ndarray, truth_A: np.ndarray, ground: float) -> str:
    symbols = ["Si"] * len(truth_A)
    return fitted(name, counts, angles, truth_A, symbols, ("Si",), SI_PIXEL_A, SI_APART_A, ground, (CUTOFF_A,))[0][0]


def fitted(
    name: str,
    counts: np.ndarray,
    angles: np.ndarray,
    truth_A: np.ndarray,
    symbols: Sequence[str],
    elements: tuple[str, ...],
    pixel_A: float,
    apart_A: float,
    ground: float,
    cutoffs_A: Sequence[float],
    xp: Any = np,
) -> tuple[list[str], Any, float]:
    """A line of the table for each cutoff, the comparison with the truth at the last, and the seconds from counts to atoms."""
    start = time.perf_counter()
    found, traced = fitted_atoms(xp.asarray(counts), angles, elements, pixel_A, apart_A, ground)
    seconds = time.perf_counter() - start
    rotations = tomo.rotation(angles)
    least = bound(
        analysis.Atoms(truth_A, tuple(symbols)), rotations, counts.shape[1:], pixel_A, ground=ground, optics=OPTICS,
        electrons=[found.amplitudes[e] for e in elements], width_A=float(np.mean(list(found.widths_A.values()))),
        defocus_A=float(np.median(found.defocus_A)),
    )  # fmt: skip
    lines = []
    for cutoff_A in cutoffs_A:
        before = analysis.compare(traced.positions_A, None, truth_A, None, cutoff_A).strict
        result = analysis.compare(found.atoms.positions_A, found.atoms.symbols, truth_A, symbols, cutoff_A)
        off = result.model_A[result.matches[:, 0]] - result.truth_A[result.matches[:, 1]]
        ratio = np.abs(off / found.sigma_axes_A[result.matches[:, 0]])
        lines.append(
            f"| {name}{f', within {cutoff_A} Å' if len(cutoffs_A) > 1 else ''} | {before.found} / {len(traced) - before.found} "
            f"| {result.strict.found} / {len(found.atoms) - result.strict.found} | {result.strict.rmsd_pm:.2f} | {pm(least):.2f} "
            f"| {pm(found.sigma_axes_A):.2f} | {(ratio < 1).mean():.3f} / {(ratio < 2).mean():.3f} | {found.misfit.mean():.4f} "
            f"| {seconds:.0f} |"
        )
    print("\n".join(lines), flush=True)
    return lines, result, seconds


def fitted_atoms(
    counts: Any, angles: np.ndarray, elements: tuple[str, ...], pixel_A: float, apart_A: float, ground: float
) -> tuple[Any, analysis.Atoms]:
    """The one recipe from counts, numpy's or cupy's, to atoms; and the atoms that were traced."""
    images = counts if isinstance(counts, np.ndarray) else counts.get()
    volume = tomo.fbp((images - ground).astype(np.float32), angles)
    peaks = analysis.trace(volume, pixel_A, min_distance_A=apart_A)
    traced = analysis.classify(volume, pixel_A, peaks, elements, rng=np.random.default_rng(0)).atoms
    found = fit_counts(
        traced, counts, tomo.rotation(angles), pixel_A, elements=elements, min_distance_A=apart_A, optics=OPTICS,
        ground=ground, progress=told,
    )  # fmt: skip
    return found, traced


def pm(sigma_axes_A: np.ndarray) -> float:
    return float(100 * np.sqrt((sigma_axes_A**2).sum(axis=1).mean()))


def told(done: int, most: int, deviance: float) -> None:
    if done % 20 == 0:
        print(f"step {done} of at most {most}: deviance per pixel {deviance:.5f}", flush=True)


def large(options: argparse.Namespace) -> list[str]:
    elements = ("Si", "Ge", "Sn") if options.three else ("Si",)
    lines, result, _ = particle(options.models, elements, None, arrays(options.device))
    rows = [*HEAD.split("\n"), *lines, ""]
    rows += ["| element | true | found | rightly named | RMSD pm |", "|---|---|---|---|---|"]
    rows += [f"| {e} | {v.truth} | {v.found} | {v.right} | {v.rmsd_pm:.1f} |" for e, v in result.elements.items()]
    return [*rows, "", f"{peak_gb():.2f} GB at most."]


def scaling(options: argparse.Namespace) -> list[str]:
    rows, seconds = HEAD.split("\n"), []
    for size in SIZES:
        lines, _, spent = particle(options.models, ("Si",), size, arrays(options.device))
        rows += lines
        seconds.append(spent)
    exponent = np.polyfit(np.log(SIZES), np.log(seconds), 1)[0]
    return [*rows, "", f"Seconds grow as the number of atoms to the power {exponent:.2f}."]


def arrays(device: str) -> Any:
    """numpy or cupy."""
    if device == "cpu":
        return np
    import cupy

    return cupy


def sums(options: argparse.Namespace) -> list[str]:
    """Time of what every step of a fit needs of all atoms in all tilts."""
    from analysis.likelihood.model import Model, State
    from analysis.likelihood.psf import Spread
    from analysis.uncertainty import available_threads

    xp = arrays(options.device)
    positions_A, _, side = cut_out(options.models, None)
    spread = Spread.of(OPTICS, PIXEL_A, 0.6)
    zero = xp.zeros((TILTS, side, side))
    seen_by = Model(zero, tomo.rotation(about_y()), PIXEL_A, spread, 1.0, available_threads())
    state = State(
        positions_A, np.zeros(len(positions_A), int), np.array([11.0]), np.array([0.37]), np.ones(TILTS),
        np.zeros((TILTS, 2)), np.full(TILTS, 2.0), np.ones(TILTS),
    )  # fmt: skip
    tables, image = seen_by.tables(state), zero + 1
    pixels = len(positions_A) * TILTS * np.pi * spread.reach_px**2
    rows = ["| of all atoms in all tilts | s | ps per pixel of an atom |", "|---|---|---|"]
    for name, work in (
        ("image", lambda: seen_by.atoms(state, tables)),
        ("slope", lambda: seen_by.pulls(state, image, tables)),
        ("information", lambda: seen_by.sharpness(state, image, tables)),
    ):
        seconds = min(timed(work, xp) for _ in range(4))
        rows.append(f"| {name} | {seconds:.4f} | {1e12 * seconds / pixels:.1f} |")
    return [*rows, "", f"{pixels / 1e6:.0f} million pixels of atoms; copies to and from the device are part of it."]


def timed(work: Any, xp: Any) -> float:
    start = time.perf_counter()
    work()
    if xp is not np:
        xp.cuda.runtime.deviceSynchronize()
    return time.perf_counter() - start


def about_y() -> np.ndarray:
    """Angles (n, 3) of a full turn about y."""
    return np.column_stack([np.zeros(TILTS), np.arange(TILTS) * 180.0 / TILTS, np.zeros(TILTS)])


def cut_out(folder: Path, size: int | None) -> tuple[np.ndarray, list[str], int]:
    """Places (n, 3) and elements of the innermost atoms of the particle, and the side of images that hold them."""
    positions_A, symbols = model(folder)
    nearest = np.argsort((positions_A**2).sum(axis=1))[:size]
    positions_A = positions_A[nearest]
    extent_A = 2 * np.sqrt((positions_A**2).sum(axis=1)).max() + 8
    return positions_A, [symbols[i] for i in nearest], int(np.ceil(extent_A / PIXEL_A / 8) * 8)


def particle(folder: Path, elements: tuple[str, ...], size: int | None, xp: Any) -> tuple[list[str], Any, float]:
    """Simulated counts of the innermost atoms of the particle, and their fit."""
    from pyaet.simulate.adf import Imaging, simulate_adf_tilt

    positions_A, named, side = cut_out(folder, size)
    symbols = named if len(elements) > 1 else ["Si"] * len(named)
    angles = about_y()
    imaging = Imaging(
        image_shape=(side, side), pixel_A=PIXEL_A, dose_e_per_A2=DOSE_E_PER_A2, source_sigma_A=0.35, background_e=1.0,
        model="linear",
    )  # fmt: skip
    counts = np.stack(
        [
            simulate_adf_tilt(positions_A, symbols, tilt, imaging, rng=np.random.default_rng(i))
            for i, tilt in enumerate(angles)
        ]
    ).astype(np.float64)
    name = f"{len(positions_A)} atoms, {'/'.join(elements)}"
    cutoffs_A = (CUTOFF_A, FARTHER_A)
    return fitted(name, counts, angles, positions_A, symbols, elements, PIXEL_A, APART_A, 1.0, cutoffs_A, xp)


def model(folder: Path) -> tuple[np.ndarray, list[str]]:
    """Places (n, 3) in Å about their mean and elements of the published 8 nm particle."""
    from scipy.io import loadmat

    arrays = [v for k, v in loadmat(folder / "aSiGeSn_8nm_GT.mat").items() if not k.startswith("_")]
    cloud = next(v for v in arrays if 3 in v.shape and v.size > 30000)
    cloud = cloud.T if cloud.shape[0] == 3 else cloud
    types = next(v for v in arrays if v.size == len(cloud)).ravel().astype(int)
    return cloud - cloud.mean(axis=0), np.array(["Si", "Ge", "Sn"])[types - 1].tolist()


def peak_gb() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    forms = parser.add_subparsers(dest="form", required=True)
    for name in ("doses", "frame"):
        forms.add_parser(name).add_argument("folder", type=Path)
    for name in ("large", "scaling", "sums"):
        form = forms.add_parser(name)
        form.add_argument("models", type=Path)
        form.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    forms.choices["large"].add_argument(
        "--three", action="store_true", help="its three elements, instead of silicon alone"
    )
    options = parser.parse_args()
    rows = {"doses": doses, "frame": frame, "large": large, "scaling": scaling, "sums": sums}[options.form](options)
    print("\n".join(rows))
    RESULTS.mkdir(exist_ok=True)
    name = options.form + ("_three" if getattr(options, "three", False) else "")
    name += "_cuda" if getattr(options, "device", "cpu") == "cuda" else ""
    (RESULTS / f"adf_{name}.md").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
