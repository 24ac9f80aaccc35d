"""Speed of RESIRE and accuracy of self-calibration.

    python tests/bench/tomography.py speed [--si208 FOLDER]      RESIRE on 128³ × 60 tilts, against ASTRA's SIRT if installed
    python tests/bench/tomography.py scaling [--general]         seconds per iteration against size, 60 tilts
    python tests/bench/tomography.py calibration MODELS          angles, shifts, scales and backgrounds of a CoPdPt particle
    python tests/bench/tomography.py momentum PLAN...            atoms found against method, momentum and iterations

`speed` takes the published counts of 208 silicon atoms where FOLDER is given, else a phantom. `calibration` simulates linear dark-field
projections of the 18 356 atoms in MODELS at their true angles (55 tilts, 0.347 Å, 1.7e4 e⁻/Å²) and starts from the experimental
ones; once more with every image moved by up to 1.25 Å, scaled by up to 10 % and a background of up to 5 % of the peak. Errors are
counted after one common rotation; the truth is used for nothing else. `momentum` runs plans with a truth (plans/si208.toml) from
counts to refined atoms, anew for each way to reconstruct; seconds are those of the volume alone. Each form adds its table to
results/tomography_FORM.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import tomo
from pyaet.console import Console

RESULTS = Path(__file__).resolve().parent / "results"
TILTS, SIZES, ITERATIONS = 60, (128, 192, 256, 320), 200
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
        seconds = float(np.median(np.diff(ticks)))
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


def calibration(options: argparse.Namespace) -> list[str]:
    rows = [
        "| start | angles ° rms / worst | found ° rms / worst | shifts Å rms | scales % rms | settled, strays | s |",
        "|---|---|---|---|---|---|---|",
    ]
    images, true_deg, start_deg = particle(options.models)
    reference = tomo.rotation(true_deg)
    rng = np.random.default_rng(5)
    for name in ("angles", "all"):
        shifts = (
            np.zeros((len(images), 2)) if name == "angles" else rng.uniform(-1.25, 1.25, (len(images), 2)) / PIXEL_A
        )
        scales = np.ones(len(images)) if name == "angles" else rng.uniform(0.9, 1.1, len(images))
        levels = np.zeros(len(images)) if name == "angles" else rng.uniform(-0.05, 0.05, len(images)) * images.max()
        given = spoilt(images, shifts, scales, levels)
        found, seconds = timed(
            lambda given=given: tomo.calibrate(
                given, start_deg, min_distance_px=APART_A / PIXEL_A, threads=options.threads, progress=told
            )
        )
        before, after = (errors_deg(tomo.rotation(a), reference) for a in (start_deg, found.angles_deg))
        rest = without_translation(found.shifts_px - shifts, tomo.rotation(found.angles_deg)) * PIXEL_A
        ratio = found.scales / scales
        rows.append(
            f"| {name} | {rms(before):.3f} / {before.max():.2f} | {rms(after):.4f} / {after.max():.4f} | {rms(rest):.4f} | "
            f"{100 * np.std(ratio / ratio.mean()):.2f} | {found.converged}, {len(found.strays)} | {seconds:.0f} |"
        )
        print(rows[-1], flush=True)
    return rows


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
    from scipy.io import loadmat

    from pyaet.simulate.adf import Imaging, simulate_adf_tilt

    def array(name: str) -> np.ndarray:
        return next(v for k, v in loadmat(folder / name).items() if not k.startswith("_"))

    true_deg, start_deg = array("CoPdPt_Angle_Dose1p7e4.mat"), array("CoPdPt_ExperimentalAngles.mat")
    atoms = array("MG_final_atom_coord_inA.mat").T
    symbols = np.array(["Co", "Pd", "Pt"])[array("MG_final_atom_types.mat").ravel().astype(int) - 1].tolist()
    imaging = Imaging(
        image_shape=(SIDE, SIDE), pixel_A=PIXEL_A, dose_e_per_A2=DOSE_E_PER_A2, source_sigma_A=0.35, model="linear"
    )
    centred = atoms - atoms.mean(axis=0)
    images = [
        simulate_adf_tilt(centred, symbols, angles, imaging, rng=np.random.default_rng(i))
        for i, angles in enumerate(true_deg)
    ]
    return np.stack(images).astype(np.float32), true_deg.astype(np.float64), start_deg.astype(np.float64)


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
    forms.add_parser("calibration").add_argument("models", type=Path)
    forms.add_parser("momentum").add_argument("plans", type=Path, nargs="+")
    for form in forms.choices.values():
        form.add_argument("--threads", type=int)
    options = parser.parse_args()
    ways = {"speed": speed, "scaling": scaling, "calibration": calibration, "momentum": momentum}
    rows = ways[options.form](options)
    print("\n".join(rows))
    RESULTS.mkdir(exist_ok=True)
    name = options.form + ("_general" if getattr(options, "general", False) else "")
    (RESULTS / f"tomography_{name}.md").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
