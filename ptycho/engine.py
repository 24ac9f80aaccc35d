"""One loop for all solvers: prepare, `init`, `step` for each batch, stop on the last pass or when a sentence says why.

Standard shapes: see `ptycho.data`, `ptycho.problem` and `ptycho.result`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptycho.data import Patterns
from ptycho.optics import Optics
from ptycho.prepare import prepare
from ptycho.problem import Problem
from ptycho.result import Result
from ptycho.run import Run
from ptycho.settings import Settings
from ptycho.solvers.adam import AdamSolver
from ptycho.solvers.gradient import GradientSolver
from ptycho.solvers.lbfgs import LbfgsSolver
from ptycho.solvers.lsqml import LsqmlSolver
from ptycho.solvers.pie import PieSolver
from ptycho.solvers.protocol import Solver

log = logging.getLogger(__name__)

Progress = Callable[[int, int, float], None]
_SOLVERS: dict[str, Callable[[Problem, Settings], Solver]] = {
    "gradient": GradientSolver,
    "lsqml": LsqmlSolver,
    "pie": PieSolver,
    "adam": AdamSolver,
    "lbfgs": LbfgsSolver,
}


@dataclass(frozen=True, eq=False)
class Iteration:
    """A finished iteration, for those who watch: loss per pattern, and on demand the result so far and a checkpoint."""

    done: int
    total: int
    loss: float
    validation: float | None
    result: Callable[[], Result]
    checkpoint: Callable[[], dict[str, np.ndarray]]


def reconstruct(
    patterns: Patterns,
    optics: Optics,
    settings: Settings | None = None,
    *,
    rng: np.random.Generator,
    probe: np.ndarray | None = None,
    object_: np.ndarray | None = None,
    resume: Mapping[str, np.ndarray] | None = None,
    progress: Progress | None = None,
    watch: Callable[[Iteration], None] | None = None,
    xp: Any = np,
) -> Result:
    """Object, probe and positions that explain the patterns of one tilt.

    probe: complex (y, x) or (mode, y, x) entering the first slice, centred, on the pixels of the result (the size of
        `window_size`); it is scaled to the electrons of the mean pattern. None makes it from `optics`, the edge of its aperture
        from the mean pattern.
    object_: complex (slice, y, x) or (state, slice, y, x) to start from, centred, on the pixels of the result; it is cropped or
        padded with vacuum.
    resume: a checkpoint of the same patterns and settings; the run goes on behind its last iteration and ends as if it had
        never stopped.
    rng: order of the batches. progress: called after each iteration with (done, total, loss per pattern); watch: likewise
        with an `Iteration`, from which it may take pictures and checkpoints.
    xp: numpy or cupy, where the work is done.
    Raises ValueError for arguments that do not fit together, Diverged when the loss explodes.
    """
    settings = settings or Settings()
    seed = int(rng.integers(2**62))
    problem, state = prepare(patterns, optics, settings, np.random.default_rng([seed, 0]), probe, object_, xp)
    run = Run(problem, settings, state, _SOLVERS[settings.solver](problem, settings), seed)
    if resume is None:
        run.solver.init(state)
    else:
        run.resume(resume)
    while run.done < settings.iterations:
        run.iterate()
        loss = run.losses[-1]
        run.check()
        if progress is not None:
            progress(run.done, settings.iterations, loss)
        if watch is not None:
            validation = run.validations[-1] if run.validations else None
            watch(Iteration(run.done, settings.iterations, loss, validation, run.result, run.checkpoint))
        reason = terminate(run.losses, settings.tolerance)
        if reason:
            log.info(reason)
            break
    return run.result()


def terminate(loss: list[float], tolerance: float) -> str | None:
    """Sentence that says why the run may stop before its last iteration, or None."""
    if tolerance > 0 and len(loss) > 1 and 0 <= loss[-2] - loss[-1] < tolerance * abs(loss[-2]):
        return f"iteration {len(loss)} lowered the loss by less than {tolerance:g} of it: converged."
    return None
