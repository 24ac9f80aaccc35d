"""Speed of RESIRE and accuracy of self-calibration.

    python tests/bench/tomography.py speed [--si208 FOLDER]      RESIRE on 128³ × 60 tilts, against ASTRA's SIRT if installed
    python tests/bench/tomography.py scaling [--general]         seconds per iteration against size, 60 tilts
    python tests/bench/tomography.py paper [--device cuda]       the published size: 346³, 55 tilts, 2×1×2 parts, 100 iterations
    python tests/bench/tomography.py calibration MODELS          angles, shifts, scales and backgrounds of a CoPdPt particle
    python tests/bench/tomography.py tracing MODELS              atoms of that particle, with true, given and refined calibration
    python tests/bench/tomography.py momentum PLAN...            atoms found against method, momentum and iterations

`speed` takes the published counts of 208 silicon atoms where FOLDER is given, else a phantom. `calibration` simulates linear dark-field
projections of the 18 356 atoms in MODELS at their true angles (55 tilts, 0.347 Å, 1.7e4 e⁻/Å²) and starts from the experimental ones;
once more with every image moved by up to 1.25 Å, scaled by up to 10 % and a background of up to 5 % of the peak; and from angles 2° and
shifts 3 Å off (rms), aligned first. Errors are counted after one common rotation; the truth is used for nothing else. `momentum` runs plans
with a truth (plans/si208.toml) from counts to refined atoms, anew for each way to reconstruct; seconds are those of the volume alone.
Each form adds its table to results/tomography_FORM.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import tomo
from pyaet.console import Console

PAPER_SIDE, PAPER_TILTS, PAPER_ITERATIONS, PAPER_S = 346, 55, 100, 36.0
H200_TFMA_PER_S, H200_TB_PER_S = 33.5, 4.8
"""Single precision fused products and memory traffic that the maker states."""
RESULTS = Path(__file__).resolve().parent / "results"
TILTS, SIZES, ITERATIONS = 60, (128, 192, 256, 320), 200
FAR_DEG, FAR_A = 2.0, 3.0
PIXEL_A, DOSE_E_PER_A2, SIDE, APART_A = 0.347, 1.7e4, 288, 1.8


def ball(n: int) -> np.ndarray:
    """A ball of random density (z, y, x) float32 that fills most of the field."""
    line = np.arange(n) - n // 2
    inside = line[:, None, None] ** 2 + line[:, None] ** 2 + line**2 < (0.45 * n) ** 2
    return np.where(inside, np.random.default_rng(0).random((n, n, n), np.float32), 0)


def about_y(count: int = TILTS) -> np.ndarray:
    return np.column_stack([np.zeros(count), np.arange(count) * 180.0 / count, np.zeros(count)])


def published(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Counts less their background of 1 (n, y, x), and angles (n, 3)."""
    from scipy.io import loadmat

    counts = loadmat(folder / "aSi_2nmFosCetr_Dose1p6e4_cov35pm_ForBM3D.mat")["Trunc_projections_forBM3D"]
    angles = loadmat(folder / "Si_Angle.mat")["Angle"].astype(np.float64)
    return counts.transpose(2, 1, 0).astype(np.float32) - 1, angles


def speed(options: argparse.Namespace) -> list[str]:
    if options.si208:
        images, angles = published(options.si208)
    else:
        angles = about_y()
        images = tomo.Projector(angles, (128, 128))(ball(128))
    tomo.resire(images[:2], angles[:2], iterations=1)  # compiles
    rows = ["| program | iterations | s in all | s per iteration | Σ(b − A x)² / Σb² |", "|---|---|---|---|---|"]
    found, seconds = timed(lambda: tomo.resire(images, angles, iterations=ITERATIONS, threads=options.threads))
    rows.append(row("tomo.resire, 2×1×2 parts", ITERATIONS, seconds, found.volume, images, angles))
    simple: dict[str, Any] = {"iterations": 50, "subvoxels": (1, 1, 1), "threads": options.threads}
    found, seconds = timed(lambda: tomo.sirt(images, angles, **simple))
    rows.append(row("tomo.sirt, whole voxels", 50, seconds, found.volume, images, angles))
    found, seconds = timed(lambda: tomo.resire(images, angles, **simple))
    rows.append(row("tomo.resire, whole voxels", 50, seconds, found.volume, images, angles))
    found, seconds = timed(lambda: tomo.resire(images, angles, momentum=True, **simple))
    rows.append(row("tomo.resire, whole voxels, momentum", 50, seconds, found.volume, images, angles))
    try:
        volume, seconds = timed(lambda: astra_sirt(images, angles, 50))
        rows.append(row("ASTRA SIRT (CPU, linear, slice by slice, one thread)", 50, seconds, volume, images, angles))
    except ImportError:
        rows.append("| ASTRA is not installed | | | | |")
    return rows


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def row(name: str, iterations: int, seconds: float, volume: np.ndarray, images: np.ndarray, angles: np.ndarray) -> str:
    """A line of the table; the residual is that of the projector with whole voxels, for all alike."""
    seen = tomo.Projector(angles, images.shape[1:], subvoxels=(1, 1, 1))(volume)
    residual = float(((seen - images) ** 2).sum() / (images**2).sum())
    return f"| {name} | {iterations} | {seconds:.2f} | {seconds / iterations:.4f} | {residual:.4f} |"


def astra_sirt(images: np.ndarray, angles: np.ndarray, iterations: int) -> np.ndarray:
    """Volume (z, y, x) by ASTRA's SIRT on each slice perpendicular to the tilt axis, with positivity."""
    import astra

    ny, nx = images.shape[1:]
    shape = astra.create_vol_geom(nx, nx)
    beam = astra.create_proj_geom("parallel", 1.0, nx, np.radians(angles[:, 1]))
    projector = astra.create_projector("linear", beam, shape)
    volume = np.zeros((nx, ny, nx), np.float32)
    for y in range(ny):
        sinogram = astra.data2d.create("-sino", beam, np.ascontiguousarray(images[:, y]))
        target = astra.data2d.create("-vol", shape)
        settings = astra.astra_dict("SIRT")
        settings |= {"ProjectorId": projector, "ProjectionDataId": sinogram, "ReconstructionDataId": target}
        settings["option"] = {"MinConstraint": 0.0}
        algorithm = astra.algorithm.create(settings)
        astra.algorithm.run(algorithm, iterations)
        # ASTRA's rows run against z.
        volume[:, y] = astra.data2d.get(target)[::-1]
        astra.algorithm.delete(algorithm)
        astra.data2d.delete([sinogram, target])
    return volume


def scaling(options: argparse.Namespace) -> list[str]:
    rows = ["| size | s per iteration | ns per voxel·tilt | of the first | set-up s |", "|---|---|---|---|---|"]
    first = 0.0
    for n in SIZES:
        angles = about_y()
        angles[:, 2] = 1.0 if options.general else 0.0
        images = np.ones((TILTS, n, n), np.float32)
        start = time.perf_counter()
        ticks = ticks_of(images, angles, options.threads)
        seconds = float(np.min(np.diff(ticks)))
        each = 1e9 * seconds / (n**3 * TILTS)
        first = first or each
        rows.append(f"| {n}³ | {seconds:.3f} | {each:.3f} | {each / first:.2f} | {ticks[0] - start - seconds:.1f} |")
        print(rows[-1], flush=True)
    return rows


def ticks_of(images: np.ndarray, angles: np.ndarray, threads: int | None) -> list[float]:
    """When each of four iterations ended."""
    ticks: list[float] = []
    tomo.resire(images, angles, iterations=4, progress=lambda *_: ticks.append(time.perf_counter()), threads=threads)
    return ticks


def paper(options: argparse.Namespace) -> list[str]:
    """Published: 36 s on three RTX A6000 (doi:10.1038/s41586-025-09857-4), size of the volume not stated."""
    rows = [
        "| tilts | iterations | s in all | s per iteration | G fused products | GB moved at least | of the card's floor |",
        "|---|---|---|---|---|---|---|",
    ]
    xp = device_arrays(options.device)
    images = xp.ones((PAPER_TILTS, PAPER_SIDE, PAPER_SIDE), np.float32)
    for name, off_deg, iterations in (
        ("about y", 0.0, PAPER_ITERATIONS),
        ("turned 1° off y", 1.0, PAPER_ITERATIONS // 10),
    ):
        angles = about_y(PAPER_TILTS)
        angles[:, 2] = off_deg
        products = PAPER_TILTS * PAPER_SIDE**3 * (2.3 if off_deg == 0 else 4 * 4) * 2
        moved = 4 * (6 * PAPER_SIDE**3 + 4 * images.size)
        _, seconds = timed(
            lambda angles=angles, iterations=iterations: tomo.resire(
                images, angles, iterations=iterations, threads=options.threads
            )
        )
        floor = max(products / (H200_TFMA_PER_S * 1e12), moved / (H200_TB_PER_S * 1e12))
        ratio = f"{seconds / iterations / floor:.1f}" if options.device == "cuda" else "(no GPU)"
        rows.append(
            f"| {name} | {iterations} | {seconds:.1f} | {seconds / iterations:.3f} | {products / 1e9:.1f} | {moved / 1e9:.2f} | "
            f"{ratio} |"
        )
        print(rows[-1], flush=True)
    return [
        *rows,
        "",
        f"Published: {PAPER_S:.0f} s for {PAPER_ITERATIONS} iterations on three RTX A6000, size not stated.",
    ]


def device_arrays(device: str) -> Any:
    """cupy or numpy."""
    if device == "cuda":
        import cupy

        return cupy
    return np


def calibration(options: argparse.Namespace) -> list[str]:
    rows = [
        "| start | angles ° rms / worst | found ° rms / worst (stated rms) | shifts Å rms | scales % rms | settled, strays | s |",
        "|---|---|---|---|---|---|---|",
    ]
    images, true_deg, start_deg = particle(options.models)
    for name, given, shifts, scales in cases(images):
        found, seconds = timed(lambda given=given: calibrated(given, start_deg, options.threads))
        rows.append(judged(name, found, seconds, (start_deg, true_deg), shifts, scales))
        print(rows[-1], flush=True)
    rng = np.random.default_rng(7)
    far_deg = true_deg + rng.normal(0, FAR_DEG / 3**0.5, true_deg.shape)
    shifts = rng.normal(0, FAR_A / 2**0.5, (len(images), 2)) / PIXEL_A
    given = spoilt(images, shifts, np.ones(len(images)), np.zeros(len(images)))
    (aligned, found), seconds = timed(lambda: from_afar(given, far_deg, options.threads))
    rest = shifts + aligned.shifts_px
    rows.append(judged("far off, aligned first", found, seconds, (far_deg, true_deg), rest, aligned.scales))
    print(rows[-1], flush=True)
    return rows


def from_afar(
    images: np.ndarray, start_deg: np.ndarray, threads: int | None
) -> tuple[tomo.Alignment, tomo.Calibration]:
    aligned = tomo.align(images, start_deg, common_line=False)
    return aligned, calibrated(aligned.projections, start_deg, threads, volumes=8)


def judged(
    name: str,
    found: tomo.Calibration,
    seconds: float,
    start_and_true_deg: tuple[np.ndarray, np.ndarray],
    shifts_px: np.ndarray,
    scales: np.ndarray,
) -> str:
    """A line of the table: what is left of wrong angles, shifts (n, 2) and scales (n,)."""
    start_deg, true_deg = start_and_true_deg
    reference = tomo.rotation(true_deg)
    before, after = (errors_deg(tomo.rotation(a), reference) for a in (start_deg, found.angles_deg))
    rest = without_translation(found.shifts_px - shifts_px, tomo.rotation(found.angles_deg)) * PIXEL_A
    stated = rms(np.linalg.norm(found.angle_sigma_deg, axis=1))
    ratio = found.scales / scales
    return (
        f"| {name} | {rms(before):.3f} / {before.max():.2f} | {rms(after):.4f} / {after.max():.4f} ({stated:.4f}) | "
        f"{rms(rest):.4f} | {100 * np.std(ratio / ratio.mean()):.2f} | {found.converged}, {len(found.strays)} | {seconds:.0f} |"
    )


def tracing(options: argparse.Namespace) -> list[str]:
    rows = ["| calibration | recall | precision | RMSD pm | of the true one's |", "|---|---|---|---|---|"]
    images, true_deg, start_deg = particle(options.models)
    truth_A = model(options.models)[0]
    best = traced(images, true_deg, true_deg, truth_A, options.threads)
    series = {"true": best, "given angles": traced(images, start_deg, true_deg, truth_A, options.threads)}
    for name, given, _, _ in cases(images):
        found = calibrated(given, start_deg, options.threads)
        series[f"refined: {name}"] = traced(found.applied(given), found.angles_deg, true_deg, truth_A, options.threads)
    for name, strict in series.items():
        ratio = strict.rmsd_pm / best.rmsd_pm
        rows.append(f"| {name} | {strict.recall:.4f} | {strict.precision:.4f} | {strict.rmsd_pm:.2f} | {ratio:.3f} |")
    return rows


def cases(images: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Name, images to calibrate, and what was done to them: shifts (n, 2) in px and scales (n,)."""
    n, rng = len(images), np.random.default_rng(5)
    yield "angles", images, np.zeros((n, 2)), np.ones(n)
    shifts, scales = rng.uniform(-1.25, 1.25, (n, 2)) / PIXEL_A, rng.uniform(0.9, 1.1, n)
    yield "all", spoilt(images, shifts, scales, rng.uniform(-0.05, 0.05, n) * images.max()), shifts, scales


def calibrated(images: np.ndarray, start_deg: np.ndarray, threads: int | None, volumes: int = 6) -> tomo.Calibration:
    return tomo.calibrate(
        images, start_deg, min_distance_px=APART_A / PIXEL_A, volumes=volumes, threads=threads, progress=told
    )


def traced(
    images: np.ndarray, angles_deg: np.ndarray, true_deg: np.ndarray, truth_A: np.ndarray, threads: int | None
) -> Any:
    """Atoms of a volume against the truth, after the rotation that the angles have in common with the true ones."""
    import analysis
    from tomo.calibrate.tilts import common_turn

    found = tomo.resire(images, angles_deg, iterations=40, momentum=True, threads=threads, progress=at_iteration)
    peaks = analysis.trace(found.volume, PIXEL_A, min_distance_A=APART_A)
    atoms = analysis.classify(found.volume, PIXEL_A, peaks, ["Co", "Pd", "Pt"], rng=np.random.default_rng(0)).atoms
    turn = common_turn(tomo.rotation(angles_deg), tomo.rotation(true_deg))
    strict = analysis.compare(atoms.positions_A @ turn.T, None, truth_A, None, 1.5).strict
    print(f"recall {strict.recall:.4f}, precision {strict.precision:.4f}, RMSD {strict.rmsd_pm:.2f} pm", flush=True)
    return strict


def at_iteration(done: int, total: int, r_factor: float) -> None:
    print(f"iteration {done} of {total}: R {r_factor:.4f}", flush=True)


WAYS: tuple[dict[str, Any], ...] = (
    *({"iterations": n} for n in (6, 12, 25, 50, 100, 200, 400)),
    *({"iterations": n, "momentum": True} for n in (6, 12, 25, 50, 100)),
    {"iterations": "auto"},
    {"iterations": "auto", "momentum": True},
    {"method": "sirt", "iterations": 50},
    {"method": "sirt", "iterations": "auto"},
    {"method": "fbp"},
)


def momentum(options: argparse.Namespace) -> list[str]:
    from pyaet.plan import Tomography, load_plan

    rows = [
        "| specimen | method | iterations | traced: found, false | RMSD pm | refined: found, false | RMSD pm | R-factor | R-free | s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for path in options.plans:
        plan = load_plan(path)
        with tempfile.TemporaryDirectory() as folder:
            for way in WAYS:
                settings = Tomography(**way, quality=False)
                row = road_row(plan.model_copy(update={"tomography": settings}), Path(folder))
                rows.append(f"| {path.stem} {row}")
                print(rows[-1], flush=True)
    return rows


def road_row(plan: Any, folder: Path) -> str:
    """A line of the table: the whole road, of which only what the settings of the volume change is made anew."""
    from pyaet.run import run_plan
    from pyaet.stages.context import Context
    from pyaet.stages.structure import score

    told = run_plan(plan, folder, device="cpu")
    volume = told["stages"]["tomography"]
    context = Context("cpu", 1, 0, Console(terminal=False))
    traced = score(folder / "traced.extxyz", folder / "traced_truth.extxyz", plan.truth, context)
    (folder / "traced_truth.extxyz").unlink()
    way = volume["method"] + (", momentum" if plan.tomography.momentum else "")
    count = volume.get("iterations", "–")
    count = f"auto: {count}" if plan.tomography.iterations == "auto" else count
    free = f"{volume['r_free']:.3f}" if "r_free" in volume else "–"
    return (
        f"| {way} | {count} | {found_false(traced)} | {found_false(told['score'])} | {volume['r_factor']:.3f} | {free} "
        f"| {volume['seconds']:.1f} |"
    )


def found_false(score: dict[str, Any]) -> str:
    strict = score["strict"]
    false = round(strict["found"] / strict["precision"]) - strict["found"]
    return f"{strict['found']}, {false} | {strict['rmsd_pm']:.1f}"


def told(done: int, most: int, turn_deg: float) -> None:
    print(f"volume {done} of at most {most}: turned by {turn_deg:.4f}° rms", flush=True)


def particle(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts (n, y, x), true and experimental angles (n, 3)."""
    from pyaet.simulate.adf import Imaging, simulate_adf_tilt

    true_deg, start_deg = (
        only_array(folder / f"CoPdPt_{name}.mat").astype(np.float64)
        for name in ("Angle_Dose1p7e4", "ExperimentalAngles")
    )
    atoms_A, symbols = model(folder)
    imaging = Imaging(
        image_shape=(SIDE, SIDE), pixel_A=PIXEL_A, dose_e_per_A2=DOSE_E_PER_A2, source_sigma_A=0.35, model="linear"
    )
    images = [
        simulate_adf_tilt(atoms_A, symbols, angles, imaging, rng=np.random.default_rng(i))
        for i, angles in enumerate(true_deg)
    ]
    return np.stack(images).astype(np.float32), true_deg, start_deg


def model(folder: Path) -> tuple[np.ndarray, list[str]]:
    """Places (n, 3) of the true atoms in Å about their mean, and elements."""
    atoms_A = only_array(folder / "MG_final_atom_coord_inA.mat").T
    types = only_array(folder / "MG_final_atom_types.mat").ravel().astype(int)
    return atoms_A - atoms_A.mean(axis=0), np.array(["Co", "Pd", "Pt"])[types - 1].tolist()


def only_array(path: Path) -> np.ndarray:
    from scipy.io import loadmat

    return next(v for k, v in loadmat(path).items() if not k.startswith("_"))


def spoilt(images: np.ndarray, shifts_px: np.ndarray, scales: np.ndarray, levels: np.ndarray) -> np.ndarray:
    from tomo.align.shift import shifted

    moved = [s * shifted(image, d) for image, d, s in zip(images, shifts_px, scales, strict=True)]
    return (np.stack(moved) + levels[:, None, None]).astype(np.float32)


def errors_deg(rotations: np.ndarray, reference: np.ndarray) -> np.ndarray:
    from tomo.calibrate.tilts import turns_between

    return np.linalg.norm(turns_between(rotations, reference), axis=1)


def without_translation(shifts_px: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    from tomo.calibrate.tilts import common_translation

    flipped = shifts_px[:, ::-1]
    return flipped - rotations[:, :2] @ common_translation(rotations, flipped)


def rms(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    forms = parser.add_subparsers(dest="form", required=True)
    forms.add_parser("speed").add_argument("--si208", type=Path, metavar="FOLDER")
    forms.add_parser("scaling").add_argument("--general", action="store_true", help="tilts turned off the common axis")
    for name in ("calibration", "tracing"):
        forms.add_parser(name).add_argument("models", type=Path)
    forms.add_parser("paper").add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    forms.add_parser("momentum").add_argument("plans", type=Path, nargs="+")
    for form in forms.choices.values():
        form.add_argument("--threads", type=int)
    options = parser.parse_args()
    ways = {
        "speed": speed,
        "scaling": scaling,
        "paper": paper,
        "calibration": calibration,
        "tracing": tracing,
        "momentum": momentum,
    }
    rows = ways[options.form](options)
    print("\n".join(rows))
    RESULTS.mkdir(exist_ok=True)
    name = options.form + ("_general" if getattr(options, "general", False) else "")
    name += "_cuda" if getattr(options, "device", "cpu") == "cuda" else ""
    (RESULTS / f"tomography_{name}.md").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
