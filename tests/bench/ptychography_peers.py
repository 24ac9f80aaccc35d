"""The same tilt through other ptychography packages and through ptycho: quality for processor time.

    python tests/bench/ptychography_peers.py TILT.h5 --peers FOLDER [--work DIR] [--only NAME ...] [--again]

TILT.h5 is a prepared tilt with Poisson counts at two doses and the true projected phase; FOLDER holds one driver script
per package (run_NAME.py) and the score (score.py), which are no part of this project. Every package gets its own virtual
environment below --work, made on first use. All programs run one after the other on one thread, case by case, on the same
counts, from the same known probe. Seconds are processor seconds of the iterations, so other work on the machine matters
little; set-up and compilation before the first iteration are not counted. The correlation with the truth is taken at every
checkpoint. Writes results/ptychography.md and results/ptychography.png; finished runs below --work are kept unless --again.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

RESULTS = Path(__file__).resolve().parent / "results"
CPU_LIMIT_S = {1: 50, 6: 85}
WITHIN_S = {1: (15, 30, 50), 6: (30, 60, 85)}
DOSES = (16000, 1600)
WRONG_DEFOCUS = (1.1, 0.9)
ITERATIONS = {"gradient": {1: 5, 6: 5}, "lsqml": {1: 20, 6: 8}}
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Program:
    """One line of the table; `requirements` is empty for ptycho itself, `options` go to its driver for that many slices."""

    name: str
    driver: str
    requirements: tuple[str, ...]
    options: dict[int, str]
    probe_options: str | None = "--set probe=1"


@dataclass(frozen=True)
class Case:
    """One set of counts; a `defocus` other than 1 hands a wrong probe over, to be refined."""

    dose: int
    slices: int
    defocus: float = 1.0

    @property
    def name(self) -> str:
        return f"{self.dose}_{self.slices}" + (f"_{self.defocus:g}" if self.defocus != 1 else "")


PHASER = ("phaserEM==0.3.1", "jax==0.10.2")
COSTS = "--method grad --batch 64 --set lr=1e-2 --set tikh=200 --set l2=0 --set layers=2000"
ADAM = "--set lr=2e-3"
PROGRAMS = (
    Program("py4DSTEM 0.14.18 gradient", "py4dstem", ("py4DSTEM==0.14.18",), {1: "", 6: ""}),
    Program("PtyRAD 1.0.0", "ptyrad", ("torch==2.13.0", "ptyrad==1.0.0"), {1: ADAM, 6: ADAM}),
    Program("quantem 0.1.10", "quantem", ("torch==2.13.0", "quantem==0.1.10"), {1: "", 6: ""}),
    Program("phaser 0.3.1 LSQML", "phaser", PHASER, {1: "", 6: ""}),
    Program("phaser 0.3.1 gradient", "phaser", PHASER, {6: COSTS}, None),
    Program("**ptycho** defaults", "", (), {1: "gradient", 6: "gradient"}),
    Program("**ptycho** lsqml", "", (), {1: "lsqml", 6: "lsqml"}, None),
)


def environment(program: Program, work: Path, pip: list[str]) -> Path:
    """Python of the package's own environment, made on first use."""
    folder = work / program.driver
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        print(f"making {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pins = folder / "pins.txt"
        pins.write_text("\n".join(program.requirements) + "\n")
        for requirement in program.requirements:
            subprocess.run([python, "-m", "pip", "install", "-q", requirement, "-c", pins, *pip], check=True)
        (folder / "ready").touch()
    return python


def with_defocus(tilt: Path, factor: float, work: Path) -> Path:
    """The tilt file, or a copy of it whose metadata claim another defocus."""
    if factor == 1:
        return tilt
    copy = work / f"{tilt.stem}_{factor:g}.h5"
    shutil.copyfile(tilt, copy)
    copy.chmod(0o644)
    with h5py.File(copy, "r+") as file:
        shift = file.attrs["defocus_centre_A"] * (factor - 1)
        for name in ("defocus_centre_A", "defocus_entrance_A"):
            file.attrs[name] += shift
    return copy


def takes_part(program: Program, case: Case) -> bool:
    return case.slices in program.options and (case.defocus == 1 or program.probe_options is not None)


def processor() -> str:
    """Name of the processor, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    told = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.split(":")[1].strip() for line in told if line.startswith("model name")), platform.machine())


def run(program: Program, case: Case, options: argparse.Namespace) -> Path | None:
    """Result file of one program in one case, None where it does not take part or fails."""
    if not takes_part(program, case):
        return None
    wrong = case.defocus != 1
    tag = program.name.replace("*", "").replace(" ", "-")
    out = options.work / "runs" / f"{tag}_{case.name}.npz"
    if out.exists() and not options.again:
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    data, limit = with_defocus(options.tilt, case.defocus, options.work), str(CPU_LIMIT_S[case.slices])
    extra = program.options[case.slices].split()
    if program.driver:
        if wrong:
            extra += (program.probe_options or "").split()
        script = options.peers / f"run_{program.driver}.py"
        command = [environment(program, options.work, options.pip), script, "--data", data, "--iters", "200", *extra]
        command += ["--dose", case.dose, "--slices", case.slices, "--cpu-limit", limit, "--limit", "1e9", "--out", out]
    else:
        iterations = 20 if wrong else ITERATIONS[extra[0]][case.slices]
        command = [sys.executable, __file__, "--one", data, case.dose, case.slices, *extra, iterations, int(wrong), out]
    print(f"{program.name}: {case.name}", flush=True)
    with out.with_suffix(".log").open("w") as log:
        words = [str(word) for word in command]
        code = subprocess.run(words, env=os.environ | ONE_THREAD, stdout=log, stderr=log, check=False).returncode
    if code:
        print(f"  ended with exit code {code}, see {log.name}", flush=True)
    return None if code else out


def reconstruct_one(data: str, dose: str, slices: str, solver: str, iterations: str, wrong: str, out: str) -> None:
    """Reconstruct with ptycho, in a process of its own, and write checkpoints as the peers' drivers do."""
    import ptycho

    with h5py.File(data) as file:
        counts, meta = file[f"counts_{dose}"][()], dict(file.attrs)
    grid = (np.arange(len(counts)) - len(counts) // 2) * meta["step_A"]
    positions_A = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
    patterns = ptycho.Patterns(counts.reshape(-1, *counts.shape[2:]), positions_A, float(meta["mrad_per_px"]))
    optics = ptycho.Optics(*(float(meta[key]) for key in ("energy_eV", "semiangle_mrad", "defocus_centre_A")))
    given: dict[str, Any] = {"solver": solver, "iterations": int(iterations)}
    if slices != "1":
        given |= {"slices": int(slices), "slice_A": float(meta["thickness_A"]) / int(slices)}
    if wrong == "1":
        given |= {"update_probe": 1}
    objects: list[np.ndarray] = []
    result = ptycho.reconstruct(
        patterns,
        optics,
        ptycho.Settings(**given),
        rng=np.random.default_rng(0),
        watch=lambda iteration: objects.append(iteration.result().object),
    )
    np.savez_compressed(
        out,
        phases=[np.sum([unwrapped(slice_) for slice_ in stack], axis=0) for stack in objects],
        iters=np.arange(1, len(objects) + 1),
        cpu_s=result.cpu_s,
        pixel_A=result.pixel_A,
        peak_MB=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def unwrapped(transmission: np.ndarray) -> np.ndarray:
    """Phase (y, x) of one slice without jumps of 2π."""
    return np.unwrap(np.unwrap(np.angle(transmission * np.conj(transmission.mean())), axis=0), axis=1)


@dataclass(frozen=True)
class Scored:
    """What a run is worth: correlation with the truth, processor seconds and iteration number of each checkpoint."""

    name: str
    correlation: np.ndarray
    cpu_s: np.ndarray
    iteration: np.ndarray
    per_iteration_s: float
    peak_MB: float

    def within(self, seconds: float) -> str:
        reached = self.correlation[self.cpu_s <= seconds]
        return f"{reached.max():.3f}" if len(reached) else "–"


def scored(name: str, path: Path, options: argparse.Namespace) -> Scored:
    sys.path.insert(0, str(options.peers))
    from score import score

    with h5py.File(options.tilt) as file:
        truth, pixel_A = file["truth"][()], float(file.attrs["pixel_A"])
    with np.load(path, allow_pickle=True) as z:
        correlation = [score(phase, float(z["pixel_A"]), truth, pixel_A)[0]["corr"] for phase in z["phases"]]
        trace = z["cpu_s"]
        per_iteration_s = float(np.median(np.diff(trace))) if len(trace) > 1 else float(trace[0])
        return Scored(name, np.array(correlation), z["cpu_s"], z["iters"], per_iteration_s, float(z["peak_MB"]))


def table(slices: int, found: dict[Case, list[Scored]]) -> list[str]:
    limits = WITHIN_S[slices]
    columns = ["program", "dose e⁻/Å²", "CPU s per iteration", "of the fastest peer's"]
    columns += [f"≤ {limit} CPU s" for limit in limits] + ["best (after CPU s)", "last (iterations)", "peak MB"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for case, runs in found.items():
        if case.slices != slices or case.defocus != 1:
            continue
        peers_s = [run.per_iteration_s for run in runs if "ptycho" not in run.name]
        for run in runs:
            k = int(np.argmax(run.correlation))
            ratio = f"{run.per_iteration_s / min(peers_s):.2f}" if peers_s else "–"
            cells = [run.name, f"{case.dose}", f"{run.per_iteration_s:.2f}", ratio]
            cells += [run.within(limit) for limit in limits]
            cells += [f"{run.correlation[k]:.4f} ({run.cpu_s[k]:.0f})"]
            cells += [f"{run.correlation[-1]:.4f} ({run.iteration[-1]})", f"{run.peak_MB:.0f}"]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def probe_table(found: dict[Case, list[Scored]]) -> list[str]:
    lines = [
        "| program | dose e⁻/Å² | given defocus | best (after CPU s) | last (iterations) |",
        "|---|---|---|---|---|",
    ]
    for case, runs in found.items():
        for run in runs if case.defocus != 1 else []:
            k = int(np.argmax(run.correlation))
            best, last = (
                f"{run.correlation[k]:.4f} ({run.cpu_s[k]:.0f})",
                f"{run.correlation[-1]:.4f} ({run.iteration[-1]})",
            )
            lines.append(f"| {run.name} | {case.dose} | × {case.defocus:g} | {best} | {last} |")
    return lines


def figure(found: dict[Case, list[Scored]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown, axes = plt.subplots(2, 2, figsize=(9, 7), sharex=True, sharey=True, layout="constrained")
    labels: dict[str, Any] = {}
    for case, runs in found.items():
        if case.defocus != 1:
            continue
        ax = axes[DOSES.index(case.dose), list(CPU_LIMIT_S).index(case.slices)]
        for run in runs:
            own = "ptycho" in run.name
            i = next(i for i, p in enumerate(PROGRAMS) if p.name == run.name)
            style = {"color": f"C{i}", "lw": 2 if own else 1, "ms": 4}
            (line,) = ax.plot(run.cpu_s, 1 - run.correlation, "o-" if own else ".--", **style)
            labels[run.name.replace("*", "")] = line
        slices = "1 slice" if case.slices == 1 else f"{case.slices} slices"
        ax.set(xscale="log", yscale="log", title=f"{slices}, {case.dose} e⁻/Å²")
        ax.grid(alpha=0.3, which="both")
    for ax in axes[:, 0]:
        ax.set_ylabel("1 − correlation with the true phase")
    for ax in axes[1]:
        ax.set_xlabel("processor seconds of the iterations")
    shown.legend(labels.values(), labels.keys(), loc="outside upper center", ncols=4, fontsize=8)
    shown.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tilt", type=Path)
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path.home() / ".cache" / "pyaet-peers")
    parser.add_argument("--only", nargs="*", default=[], help="programs whose name holds one of these words")
    parser.add_argument("--slices", nargs="*", type=int, default=list(CPU_LIMIT_S))
    parser.add_argument("--pip", nargs="*", default=[], help="further arguments of pip install")
    parser.add_argument("--again", action="store_true", help="repeat runs that are there")
    options = parser.parse_args()
    options.peers = options.peers.resolve()
    cases = [Case(dose, slices) for slices in options.slices for dose in DOSES]
    cases += [Case(dose, 1, factor) for dose in DOSES for factor in WRONG_DEFOCUS]
    found: dict[Case, list[Scored]] = {}
    failed: list[tuple[str, str]] = []
    for case in cases:
        for program in PROGRAMS:
            if options.only and not any(word in program.name for word in options.only):
                continue
            path = run(program, case, options)
            if path is not None:
                found.setdefault(case, []).append(scored(program.name, path, options))
            elif takes_part(program, case):
                slices = f"{case.slices} slice{'s' * (case.slices > 1)}"
                failed.append((program.name, f"{case.dose} e⁻/Å², {slices}, defocus × {case.defocus:g}"))
    lines = [f"{processor()}, Python {platform.python_version()}, one thread", ""]
    lines += [
        "One tilt of a 20 Å silica sphere, 56 × 56 patterns of 104 × 104, known fixed probe. A peer's settings were"
    ]
    lines += ["chosen with the truth in view and its best checkpoint counts; ptycho runs its defaults.", ""]
    lines += [f"{name} ended with an error: {case}." for name, case in failed]
    lines += [""] if failed else []
    for slices in options.slices:
        lines += [f"### {'One slice' if slices == 1 else f'{slices} slices'}", "", *table(slices, found), ""]
    lines += ["### Probe refined from a wrong defocus, one slice", "", *probe_table(found)]
    print("\n".join(lines))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "ptychography.md").write_text("\n".join(lines) + "\n")
    figure(found, RESULTS / "ptychography.png")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        reconstruct_one(*sys.argv[2:])
    else:
        main()
