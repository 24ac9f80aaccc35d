"""The ordered stages of a run: skip what is current, redo what is stale, keep what is finished.

A stage is current when each of its files carries the key of this stage and `summary.json` holds the numbers it
reported under that key. A key covers the version of pyaet, the settings the stage reads, the seed and the key of the
stage before it, down to the content of the input files; so a change redoes just what depends on it.
"""

from __future__ import annotations

import json
import logging
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pyaet
from pyaet import artifacts
from pyaet.console import Console
from pyaet.device import cpu_count, resolve_device
from pyaet.doubts import collected_doubts
from pyaet.estimate import estimate
from pyaet.io.errors import InputError, RunError
from pyaet.plan import NO_INPUT, Input, Output, Plan, Simulation, Truth, plan_toml
from pyaet.stages.context import Context

log = logging.getLogger(__name__)

OWN_FILES = (
    "plan.toml", "summary.json", "report.html", "log.txt", "projections.h5", "aligned.h5", "volume.h5",
    "volume.trial.checkpoint.h5", "volume.volume.checkpoint.h5", "volume.half0.checkpoint.h5", "volume.half1.checkpoint.h5",
    "candidates.h5", "traced.extxyz", "fit.h5", "atoms.extxyz", "rings.json", "structure.json", "truth.extxyz", ".lock",
)  # fmt: skip
OWN_PATTERNS = (
    "ptychography/tilt_*.h5",
    "ptychography/live.png",
    "simulation/tilt_*.h5",
    "simulation/series.h5",
    "simulation/truth.extxyz",
)
PACKAGES = (
    "numpy",
    "scipy",
    "h5py",
    "scikit-image",
    "networkx",
    "numba",
    "abtem",
    "ase",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "bm3d",
)


@dataclass(frozen=True)
class Origin:
    """Where the data come from: a name to show, and a hash of their content."""

    name: str
    content: str


@dataclass(frozen=True)
class Stage:
    """A name, the files it leaves (below the run directory), the settings its key covers, and what makes them."""

    name: str
    files: tuple[str, ...]
    settings: Any
    make: Callable[[Context], dict[str, Any]]


def run_plan(
    plan: Plan, directory: Path, *, device: str | None = None, fresh: bool = False, console: Console | None = None
) -> dict[str, Any]:
    """Run the whole road of `plan` in `directory` and return the summary.

    Raises `InputError` for unusable input, before anything is overwritten, and `RunError` when a stage fails.
    """
    context = Context(
        resolve_device(device or plan.compute.device),
        plan.compute.workers or cpu_count(),
        plan.compute.seed,
        console or Console(),
    )
    need = estimate(plan, device)
    source = input_of(plan, directory)
    origin = origin_of(plan)
    _refuse_foreign(directory, origin, fresh)
    context.console.say(f"about {need['memory_GB']:g} GB of memory and {need['seconds_estimated']} s")
    with _locked(directory):
        for rest in directory.rglob(artifacts.UNFINISHED):
            rest.unlink()
        if fresh:
            _clear(directory)
        with _logging_to(directory / "log.txt"):
            log.info("needs: %s", json.dumps(need))
            return _run_stages(plan, source, origin, directory, context)


def _run_stages(plan: Plan, source: Input, origin: Origin, directory: Path, context: Context) -> dict[str, Any]:
    from pyaet.report import write_report

    summary = _opened_summary(plan, source, origin, directory, context)
    key = origin.content
    for stage in _road(plan, source, directory):
        key = artifacts.key_of(stage.name, stage.settings, plan.compute.seed, key)
        _do(stage, directory, key, context, summary)
    summary["warnings"] = [text for stage in summary["stages"].values() for text in stage.get("warnings", ())]
    artifacts.write_json(directory / "summary.json", summary)
    context.console.say("report …")
    write_report(directory)
    return summary


def input_of(plan: Plan, directory: Path) -> Input:
    """Where the tilt series is: what the plan names, or what its simulation will write."""
    if plan.input is not None:
        return plan.input
    if plan.simulation is None:
        raise InputError(NO_INPUT)
    return simulated_input(plan.simulation, directory / "simulation")


def simulated_input(simulation: Simulation, folder: Path) -> Input:
    if simulation.kind == "4dstem":
        return Input(kind="4dstem", path=str(folder / "tilt_*.h5"))
    series = str(folder / "series.h5")
    return Input(
        kind="adf",
        path=series,
        variable="projections",
        angles=series,
        angles_variable="angles_deg",
        pixel_A=simulation.step_A,
    )


def _road(plan: Plan, source: Input, directory: Path) -> Iterator[Stage]:
    from pyaet.stages import adf, alignment, atoms, ptychography, refinement, simulation, structure, tomography

    at = directory.joinpath
    truth = plan.truth
    if plan.input is None and plan.simulation is not None:
        made = plan.simulation
        yield Stage(
            "simulation", ("simulation/truth.extxyz",), made.model_dump(),
            lambda context: simulation.simulate(made, at("simulation"), context),
        )  # fmt: skip
        truth = truth or Truth(path=str(at("simulation", "truth.extxyz")))
    if source.kind == "4dstem":
        yield Stage(
            "ptychography", ("projections.h5",), [_optics(source), plan.ptychography.model_dump()],
            lambda context: ptychography.reconstruct_series(
                source, at("ptychography"), at("projections.h5"), plan.ptychography, context
            ),
        )  # fmt: skip
    else:
        yield Stage(
            "adf", ("projections.h5",), [_optics(source), plan.adf.model_dump()],
            lambda context: adf.condition(source, at("projections.h5"), plan.adf, context),
        )  # fmt: skip
    apart_A = plan.specimen.min_distance_A if plan.alignment.calibrate else None
    yield Stage(
        "alignment", ("aligned.h5",), [plan.alignment.model_dump(), apart_A],
        lambda context: alignment.align(at("projections.h5"), at("aligned.h5"), plan.alignment, context, apart_A),
    )  # fmt: skip
    yield Stage(
        "tomography", ("volume.h5",), plan.tomography.model_dump(),
        lambda context: tomography.reconstruct(at("aligned.h5"), at("volume.h5"), plan.tomography, context),
    )  # fmt: skip
    yield Stage(
        "tracing", ("candidates.h5", "traced.extxyz"), [plan.specimen.model_dump(), plan.tracing.model_dump()],
        lambda context: atoms.trace(
            at("volume.h5"), at("candidates.h5"), at("traced.extxyz"), plan.specimen, plan.tracing, context
        ),
    )  # fmt: skip
    yield Stage(
        "refinement", ("atoms.extxyz",), [plan.specimen.model_dump(), plan.refinement.model_dump(), _optics(source)],
        lambda context: refinement.refine(
            at("traced.extxyz"), at("aligned.h5"), at("projections.h5") if source.kind == "adf" else None,
            at("atoms.extxyz"), at("fit.h5"), plan.specimen, plan.refinement, context, source,
        ),
    )  # fmt: skip
    known = None if truth is None else [truth.model_dump(), artifacts.fingerprint(Path(truth.path))]
    beside = None if plan.structure.reference is None else artifacts.fingerprint(Path(plan.structure.reference))
    yield Stage(
        "rings", ("rings.json", "structure.json"), [plan.structure.model_dump(), known, beside],
        lambda context: structure.find_structure(
            at("atoms.extxyz"), at("rings.json"), at("structure.json"), plan.structure, truth, context
        ),
    )  # fmt: skip
    if truth is not None:
        yield Stage(
            "score", ("truth.extxyz",), known,
            lambda context: structure.score(at("atoms.extxyz"), at("truth.extxyz"), truth, context),
        )  # fmt: skip


def _do(stage: Stage, directory: Path, key: str, context: Context, summary: dict[str, Any]) -> None:
    files = [directory / name for name in stage.files]
    if summary["keys"].get(stage.name) == key and all(artifacts.made_by(file) == key for file in files):
        log.info("%s: current, kept", stage.name)
        return
    context.console.say(f"{stage.name} …")
    log.info("%s: started", stage.name)
    started = time.perf_counter()
    with collected_doubts() as doubts:
        numbers = stage.make(context.keyed(key))
    if doubts:
        numbers["warnings"] = [*numbers.get("warnings", ()), *doubts]
    seconds = round(time.perf_counter() - started, 2)
    log.info("%s: done in %.1f s: %s", stage.name, seconds, json.dumps(numbers, default=str))
    if stage.name == "score":
        summary["score"] = numbers
    else:
        summary["stages"][stage.name] = {"seconds": seconds, **numbers}
    summary["keys"][stage.name] = key
    artifacts.write_json(directory / "summary.json", summary)


def origin_of(plan: Plan) -> Origin:
    """Where the data of a plan come from, by name and by content."""
    if plan.input is None:
        return Origin("simulation", artifacts.key_of("simulation"))
    from pyaet.io.fourdstem import list_tilts
    from pyaet.io.images import inspect_stack
    from pyaet.stages.adf import angle_spec

    if plan.input.kind == "4dstem":
        files = [tilt.path for tilt in list_tilts(plan.input.path, angle_spec(plan.input.angles))]
    else:
        stack = inspect_stack(plan.input.path, variable=plan.input.variable, axes=plan.input.axes)
        files = list(stack.files)
        if isinstance(plan.input.angles, str):
            files.append(Path(plan.input.angles))
    return Origin(str(plan.input.path), artifacts.key_of([artifacts.fingerprint(file) for file in files]))


def _refuse_foreign(directory: Path, origin: Origin, fresh: bool) -> None:
    """Raise `InputError` where going on would mix two runs or touch files that are not ours."""
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory}: is a file; expected a folder for the run; choose another --out")
    try:
        present = {entry.name for entry in directory.iterdir()} if directory.exists() else set()
    except PermissionError:
        raise InputError(f"{directory}: permission denied; choose another --out") from None
    if not present:
        return
    before = _summary_in(directory)
    if before is None and not present <= {".lock", "log.txt", "plan.toml", "summary.json"}:
        raise InputError(f"{directory}: holds files but no pyaet run; choose an empty or a new folder with --out")
    if before is None or fresh:
        return
    if origin.name != before.get("input_path") and origin.content != before.get("input_content"):
        raise InputError(
            f"{directory}: holds the run of other data ({before.get('input_path')}); "
            "choose another --out, or --fresh to replace that run"
        )


def _summary_in(directory: Path) -> dict[str, Any] | None:
    try:
        summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) and "pyaet_version" in summary else None


def _clear(directory: Path) -> None:
    """Remove what a run of pyaet writes, and nothing else."""
    for name in OWN_FILES:
        (directory / name).unlink(missing_ok=True)
    for pattern in OWN_PATTERNS:
        for path in directory.glob(pattern):
            path.unlink()
            with suppress(OSError):
                path.parent.rmdir()


def _opened_summary(plan: Plan, source: Input, origin: Origin, directory: Path, context: Context) -> dict[str, Any]:
    """The summary to go on with, written at once together with the resolved plan."""
    before = _summary_in(directory) or {}
    summary = {
        "pyaet_version": pyaet.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "input_path": origin.name,
        "input_content": origin.content,
        "kind": source.kind,
        "device": context.device,
        "versions": _versions(),
        "stages": before.get("stages", {}),
        "keys": before.get("keys", {}),
        "score": before.get("score") if plan.truth is not None or plan.input is None else None,
        "warnings": [],
    }
    resolved = plan.model_copy(update={"output": Output(directory=str(directory.absolute()))})
    artifacts.write_text(directory / "plan.toml", plan_toml(resolved))
    artifacts.write_json(directory / "summary.json", summary)
    return summary


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _optics(source: Input) -> dict[str, Any]:
    """What of the input section changes the projections beyond the files themselves."""
    return source.model_dump(exclude={"path", "angles"} if isinstance(source.angles, str) else {"path"})


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the run directory for this process; the operating system lets go of it however the process ends."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = open(directory / ".lock", "w")  # noqa: SIM115 (closed below, after the run)
    except OSError as error:
        raise InputError(f"{directory}: cannot be written ({error.strerror}); choose another --out") from None
    with lock:
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            log.debug("no file locks on this system")
        except OSError:
            raise RunError(
                f"{directory}: another pyaet run is working here; wait for it or choose another --out"
            ) from None
        yield


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    rooms = [logging.getLogger(name) for name in ("pyaet", "ptycho", "tomo", "analysis")]
    for room in rooms:
        room.addHandler(handler)
        room.setLevel(logging.INFO)
    try:
        yield
    except BaseException as error:
        log.error(
            "stopped: %s",
            error or type(error).__name__,
            exc_info=not isinstance(error, (InputError, KeyboardInterrupt)),
        )
        raise
    finally:
        for room in rooms:
            room.removeHandler(handler)
        handler.close()
