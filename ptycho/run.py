"""The moving parts of one reconstruction: an iteration, a checkpoint, the result as it stands.

Standard shapes: see `ptycho.problem` and `ptycho.result`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import numpy as np

from ptycho import checkpoint, variation
from ptycho.batches import make_batches
from ptycho.grid import to_numpy
from ptycho.problem import Problem, State
from ptycho.refine import noise_information, refine
from ptycho.regularise import PROBE_KINDS, active, orthogonalise, regularise_probe
from ptycho.result import Diverged, Result
from ptycho.settings import REFINED, Settings
from ptycho.solvers.protocol import Solver

_DIVERGED = 1.5
_STEP, _SIGMA = "step/", "sigma/"
_NOISE_SETTLED = 3
"""Iteration (0-based) from which the damping of the noise in the object no longer changes."""


class Run:
    """A reconstruction under way."""

    def __init__(self, problem: Problem, settings: Settings, state: State, solver: Solver, seed: int) -> None:
        self.problem, self.settings, self.solver, self.seed = problem, settings, solver, seed
        self.state, self.given_px = state, state.positions_px
        self.electrons = float((abs(state.probe) ** 2).sum())
        self.losses: list[float] = []
        self.validations: list[float] = []
        self.seconds: list[tuple[float, float]] = []
        self.steps: dict[str, float] = {}
        self.sigma: dict[str, float] = {}
        self.noise: float | None = None
        self.position_sigma_px: np.ndarray | None = None
        self._clock = time.process_time(), time.perf_counter()

    @property
    def done(self) -> int:
        """Finished iterations."""
        return len(self.losses)

    def iterate(self) -> None:
        """One pass over all patterns, then the refinements and constraints that are due."""
        i, settings = self.done, self.settings
        rng = np.random.default_rng([self.seed, i + 1])
        training = self.problem.training
        positions = self.state.positions_px[training]
        if len(self.problem.held_out):
            held = self.problem.losses(self.state, self.problem.held_out)
            self.validations.append(float(held.mean(dtype=np.float64)))
        losses = []
        for group in make_batches(positions, settings.patterns_per_batch, settings.batching, rng):
            self.state, loss = self.solver.step(self.state, training[group], self._due("probe", i))
            losses.append(loss.sum(dtype=np.float64))
        self.state = self.solver.end_iteration(self.state)
        self._probe_constraints(i)
        self._refine(i)
        self.losses.append(float(sum(losses)) / len(training))
        self.seconds.append((time.process_time() - self._clock[0], time.perf_counter() - self._clock[1]))

    def _due(self, name: str, i: int) -> bool:
        first = getattr(self.settings, f"update_{name}")
        return first is not None and i >= first

    def _probe_constraints(self, i: int) -> None:
        moved = self._due("probe", i)
        if moved and self.state.illumination.variations is not None:
            self.state = variation.refine_variations(self.problem, self.state)
        if moved and len(self.state.probe) > 1:
            self.state = self.state.with_probe(orthogonalise(self.state.probe))
        if any(r.kind in PROBE_KINDS and active(r, i) for r in self.settings.regularisers):
            probe, shift = regularise_probe(
                self.state.probe, self.settings.regularisers, i, pixel_A=self.problem.pixel_A, electrons=self.electrons
            )
            self.state = self.state.with_probe(probe)
            moved_px = to_numpy(shift).astype(np.float64)
            if moved_px.any():
                self.state = self.state.with_positions(self.state.positions_px - moved_px)
                self.given_px = self.given_px - moved_px

    def _refine(self, i: int) -> None:
        due = [name for name in REFINED if self._due(name, i)]
        if not due or i % self.settings.refine_every:
            return
        sigma_px = self.settings.position_sigma_A / self.problem.pixel_A
        noise = self._noise(due, i)
        refined = refine(self.problem, self.state, due, self.given_px, sigma_px, noise, self.steps)
        self.state, self.given_px = refined.state, refined.given_px
        self.steps, self.sigma = refined.steps, refined.sigma
        self.position_sigma_px = refined.position_sigma_px

    def _noise(self, due: list[str], i: int) -> float:
        """Information about a position that mere noise in the object pretends to hold; measured on the first refinements."""
        if "positions" not in due:
            return 0.0
        expected = self.solver.expected_noise(self.state)
        if expected is not None and (self.noise is None or i <= _NOISE_SETTLED):
            rng = np.random.default_rng([self.seed, i + 1, 1])
            self.noise = noise_information(self.problem, self.state, expected, rng)
        return self.noise or 0.0

    def check(self) -> None:
        """Raise Diverged when the loss is not finite or keeps growing."""
        loss, first = self.losses[-1], self.losses[0]
        growing = len(self.losses) > 2 and _DIVERGED * first < self.losses[-2] < loss
        if math.isfinite(loss) and not growing:
            return
        knobs = {"gradient": "step", "lsqml": "beta_lsq", "pie": "pie_alpha", "adam": "learning_rate"}
        knob = knobs.get(self.settings.solver, "step")
        way = "raise" if knob == "pie_alpha" else "lower"
        raise Diverged(
            f"the loss per pattern went from {first:.6g} to {loss:.6g} by iteration {self.done}: the reconstruction "
            f"diverged; check defocus, step and detector calibration first, then {way} {knob} "
            f"({getattr(self.settings, knob)}) or hold the probe fixed."
        )

    def checkpoint(self) -> dict[str, np.ndarray]:
        """The whole run as named arrays."""
        return checkpoint.pack(
            self.state,
            self.solver.memory(self.state),
            seed=self.seed,
            given_px=self.given_px,
            noise=np.nan if self.noise is None else self.noise,
            **{_STEP + name: step for name, step in self.steps.items()},
            **{_SIGMA + name: sigma for name, sigma in self.sigma.items()},
            **({} if self.position_sigma_px is None else {"position_sigma_px": self.position_sigma_px}),
            losses=self.losses,
            validations=self.validations,
            seconds=self.seconds,
        )

    def resume(self, held: Mapping[str, np.ndarray]) -> None:
        """Go on behind the last iteration of a checkpoint."""
        self.state, solver = checkpoint.unpack(self.state, held)
        self.seed, self.given_px = int(held["seed"]), np.asarray(held["given_px"])
        self.steps, self.sigma = (
            {n.removeprefix(kind): float(held[n]) for n in held if n.startswith(kind)} for kind in (_STEP, _SIGMA)
        )
        self.position_sigma_px = np.asarray(held["position_sigma_px"]) if "position_sigma_px" in held else None
        self.noise = None if np.isnan(held["noise"]) else float(held["noise"])
        self.losses = np.asarray(held["losses"]).tolist()
        self.validations = np.asarray(held["validations"]).tolist()
        self.seconds = [(float(cpu), float(wall)) for cpu, wall in np.asarray(held["seconds"]).reshape(-1, 2)]
        cpu, wall = self.seconds[-1] if self.seconds else (0.0, 0.0)
        self._clock = self._clock[0] - cpu, self._clock[1] - wall
        self.solver.recall(self.state, solver)

    def result(self) -> Result:
        """The reconstruction as it stands."""
        state, problem = self.state, self.problem
        states = to_numpy(state.object).astype(np.complex64)
        variations = state.illumination.variations
        sigma_px = self.position_sigma_px
        cpu, wall = np.array(self.seconds, np.float64).reshape(-1, 2).T
        return Result(
            object=states[0] if len(states) == 1 else _mean_object(states),
            probe=to_numpy(state.probe).astype(np.complex64),
            positions_A=state.positions_px * problem.pixel_A,
            loss=np.array(self.losses),
            cpu_s=cpu,
            wall_s=wall,
            pixel_A=problem.pixel_A,
            slice_A=float(state.space.gaps_A.mean()) if len(state.space.gaps_A) else 0.0,
            validation=np.array(self.validations) if self.validations else None,
            gaps_A=state.space.gaps_A,
            tilts_mrad=state.space.tilts_mrad,
            scales=None if state.scales is None else to_numpy(state.scales).astype(np.float64),
            backgrounds=None if state.backgrounds is None else to_numpy(state.backgrounds).astype(np.float64),
            object_states=states,
            variations=None if variations is None else to_numpy(variations.modes),
            coefficients=None if variations is None else to_numpy(variations.coefficients),
            training=problem.training,
            offset=problem.offset,
            sigma=self.sigma,
            position_sigma_A=None if sigma_px is None else sigma_px * problem.pixel_A,
        )


def _mean_object(states: np.ndarray) -> np.ndarray:
    """Object (slice, y, x) with the states' mean phase and absorption."""
    mean = np.log(np.maximum(np.abs(states), 1e-6)).mean(0)
    reference = states.mean(0)
    turned = np.angle(states * reference.conj()).mean(0)
    return (np.exp(mean + 1j * turned) * np.exp(1j * np.angle(reference))).astype(np.complex64)
