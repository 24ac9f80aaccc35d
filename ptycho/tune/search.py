"""The least loss of a smooth function of a few numbers, each evaluation dear.

Every parameter is scanned over its range, its best value bracketed and refined by parabolas (Brent, Algorithms for
Minimization without Derivatives, 1973); a quadratic model of all of them together then gives the minimum and, from its
curvature, the uncertainty: the loss is a negative log-likelihood, so that a rise of ½ is one standard deviation.

Standard shapes: point: tuple of values in the order of the parameters; covariance (parameter, parameter).
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from ptycho.tune.parameter import Parameter, Trial, Tuned

log = logging.getLogger(__name__)

Progress = Callable[[int, int, float], None]
Evaluate = Callable[[dict[str, float]], float]
Point = tuple[float, ...]

_ROUNDS = 3
_POLISHES = 6
_VALLEY = 1.5
"""Moves over more spacings of the first look lead into another valley."""
_LINE_STEPS = 12
_GOLDEN = 0.381966
_RISE = 8.0
"""Rise of the loss at the outer points of the quadratic model: four standard deviations."""
_MOST_COORDINATES = 4


def tune(
    evaluate: Evaluate,
    parameters: Sequence[Parameter],
    *,
    method: Literal["auto", "golden", "optuna"] = "auto",
    budget: int = 120,
    seed: int = 0,
    progress: Progress | None = None,
) -> Tuned:
    """Values of `parameters` with the least loss.

    evaluate: values by name to a negative log-likelihood; inf or nan where there is none.
    method: "golden" searches one coordinate after the other, which suits one to four parameters; name the one that
        changes the loss most first. "optuna" samples (TPE) for two thirds of the budget, for more parameters. Both end with
        the quadratic model. "auto" takes "golden" up to four parameters, "optuna" beyond.
    budget: most evaluations. seed: of "optuna". progress: called after each evaluation with (done, budget, least loss).
    Raises ValueError for an unknown method, no or repeated parameters, or when optuna is asked for and not installed.
    """
    names = [p.name for p in parameters]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"parameters are {names}; expected at least one, each name once.")
    if method not in ("auto", "golden", "optuna"):
        raise ValueError(f'method is "{method}"; expected one of auto, golden, optuna.')
    if budget < 1:
        raise ValueError(f"budget is {budget}; expected at least one evaluation.")
    search = _Search(evaluate, tuple(parameters), budget, progress)
    search.at(tuple(p.start for p in parameters))
    covariance = None
    try:
        if method == "optuna" or (method == "auto" and len(names) > _MOST_COORDINATES):
            _sample(search, seed)
        else:
            _coordinates(search)
        covariance = _polish(search)
    except _BudgetSpent:
        log.info("the search ended after its budget of %d evaluations", budget)
    return search.result(covariance)


class _BudgetSpent(Exception):
    """No evaluation is left."""


class _Search:
    """Evaluations so far: none is made twice, none beyond the budget or the ranges."""

    def __init__(
        self, evaluate: Evaluate, parameters: tuple[Parameter, ...], budget: int, progress: Progress | None
    ) -> None:
        self.parameters, self.budget = parameters, budget
        self._evaluate, self._progress = evaluate, progress
        self.losses: dict[Point, float] = {}

    def at(self, point: Sequence[float]) -> float:
        inside = tuple(min(max(v, p.low), p.high) for v, p in zip(point, self.parameters, strict=True))
        if inside not in self.losses:
            if len(self.losses) >= self.budget:
                raise _BudgetSpent
            loss = float(self._evaluate(self.named(inside)))
            self.losses[inside] = loss if math.isfinite(loss) else math.inf
            if self._progress is not None:
                self._progress(len(self.losses), self.budget, self.losses[self.best])
        return self.losses[inside]

    @property
    def best(self) -> Point:
        return min(self.losses, key=self.losses.__getitem__)

    def named(self, point: Point) -> dict[str, float]:
        return {p.name: v for p, v in zip(self.parameters, point, strict=True)}

    def line(self, point: Point, axis: int) -> list[tuple[float, float]]:
        """(value, loss) evaluated on the line through `point` along `axis`, sorted."""
        on = (q for q in self.losses if q[:axis] == point[:axis] and q[axis + 1 :] == point[axis + 1 :])
        return sorted((q[axis], self.losses[q]) for q in on)

    def result(self, covariance: np.ndarray | None) -> Tuned:
        best = self.best
        sigma = [math.nan] * len(best) if covariance is None else np.sqrt(np.diag(covariance)).tolist()
        pairs = zip(self.parameters, best, strict=True)
        limit = tuple(p.name for p, v in pairs if min(v - p.low, p.high - v) < p.tolerance)
        trials = tuple(Trial(self.named(q), loss) for q, loss in self.losses.items())
        return Tuned(self.named(best), self.losses[best], trials, self.named(tuple(sigma)), limit)


def _coordinates(search: _Search) -> None:
    """One parameter after the other; over its whole range again where one searched later has moved to another valley."""
    point = search.best
    wide = len(point)
    for _ in range(_ROUNDS):
        before = point
        for axis in range(len(point)):
            point = _along(search, point, axis, axis < wide)
        moves = zip(point, before, search.parameters, strict=True)
        wide = max((axis for axis, (a, b, p) in enumerate(moves) if abs(a - b) > _VALLEY * p.spacing), default=0)
        if wide == 0:
            return


def _along(search: _Search, point: Point, axis: int, wide: bool) -> Point:
    """The best point of the line through `point` along `axis`."""
    parameter = search.parameters[axis]

    def moved(value: float) -> Point:
        return (*point[:axis], float(value), *point[axis + 1 :])

    look = [point[axis] + s * parameter.tolerance for s in (-4, 4)]
    if wide:
        look = [*np.linspace(parameter.low, parameter.high, parameter.grid).tolist(), -point[axis]]
    for value in look:
        if parameter.low <= value <= parameter.high:
            search.at(moved(value))
    earlier = math.nan
    for k in range(_LINE_STEPS):
        following = _next_value(search.line(point, axis), parameter, golden=k % 4 == 3)
        if following is None or abs(following - earlier) < parameter.tolerance:
            break
        search.at(moved(following))
        earlier = following
    return moved(min(search.line(point, axis), key=lambda v: v[1])[0])


def _next_value(line: list[tuple[float, float]], parameter: Parameter, golden: bool) -> float | None:
    """Where to look next on a line of (value, loss): outwards, the bottom of a parabola, or the golden section."""
    x, loss = zip(*line, strict=True)
    i, tolerance = int(np.argmin(loss)), parameter.tolerance
    left, right = x[max(i - 1, 0)], x[min(i + 1, len(x) - 1)]
    if i == 0 and x[0] > parameter.low:
        return max(parameter.low, x[0] - 1.6 * (right - x[0]))
    if i == len(x) - 1 and x[i] < parameter.high:
        return min(parameter.high, x[i] + 1.6 * (x[i] - left))
    if right - left <= 2 * tolerance:
        return None
    if not golden and left < x[i] < right and math.isfinite(loss[i - 1] + loss[i + 1]):
        curvature, bottom = _parabola(x[i - 1 : i + 2], loss[i - 1 : i + 2])
        if curvature > 0:
            return bottom if abs(bottom - x[i]) >= tolerance else x[i] + math.copysign(tolerance, bottom - x[i])
    return x[i] + _GOLDEN * (right - x[i] if right - x[i] > x[i] - left else left - x[i])


def _parabola(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Curvature and lowest point of the parabola through three points, the second one the least."""
    before, after = (y[1] - y[0]) / (x[1] - x[0]), (y[2] - y[1]) / (x[2] - x[1])
    curvature = 2 * (after - before) / (x[2] - x[0])
    return curvature, 0.5 * (x[0] + x[1]) - before / curvature if curvature > 0 else x[1]


def _polish(search: _Search) -> np.ndarray | None:
    """Newton steps on a quadratic model about the best point; its covariance, None where it has no minimum."""
    low, high = (np.array([getattr(p, end) for p in search.parameters]) for end in ("low", "high"))
    widths = np.array([_width(search, axis) for axis in range(len(low))])
    covariance = None
    for _ in range(_POLISHES):
        centre = np.clip(np.array(search.best), low + widths, high - widths)
        gradient, hessian = _quadratic(search, centre, widths)
        if not np.isfinite(hessian).all() or np.linalg.eigvalsh(hessian * np.outer(widths, widths)).min() <= 0:
            return None
        covariance = np.linalg.inv(hessian)
        step = -covariance @ gradient
        step *= min(1.0, 3 / max(np.abs(step / widths).max(), 1e-9))
        search.at((centre + step).tolist())
        rises = 0.5 * np.diag(hessian) * widths**2 / _RISE
        if (np.abs(step) < widths).all() and (rises > 0.25).all() and (rises < 4).all():
            break
        widths = np.minimum(widths * np.clip(rises**-0.5, 0.2, 5), 0.25 * (high - low))
    return covariance


def _width(search: _Search, axis: int) -> float:
    """Distance along `axis` at which the loss has risen by about `_RISE`, guessed from the points looked at so far."""
    parameter, best = search.parameters[axis], search.best
    line = ((abs(v - best[axis]), loss - search.losses[best]) for v, loss in search.line(best, axis))
    guesses = [(abs(math.log(rise / _RISE)), d * math.sqrt(_RISE / rise)) for d, rise in line if 0 < rise < math.inf]
    width = min(guesses)[1] if guesses else 4 * parameter.tolerance
    return min(max(width, parameter.tolerance), 0.25 * (parameter.high - parameter.low))


def _quadratic(search: _Search, centre: np.ndarray, widths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradient and Hessian by differences over `widths`."""
    n, middle = len(centre), search.at(centre.tolist())
    steps = np.diag(widths)
    up, down = (np.array([search.at((centre + s * e).tolist()) for e in steps]) for s in (1, -1))
    hessian = np.diag((up - 2 * middle + down) / widths**2)
    for i, j in itertools.combinations(range(n), 2):
        corner = search.at((centre + steps[i] + steps[j]).tolist())
        hessian[i, j] = hessian[j, i] = (corner - up[i] - up[j] + middle) / (widths[i] * widths[j])
    return (up - down) / (2 * widths), hessian


def _sample(search: _Search, seed: int) -> None:
    """Two thirds of the budget with optuna's tree-structured Parzen estimator (doi:10.1145/3292500.3330701)."""
    try:
        import optuna
    except ImportError as error:
        raise ValueError(
            'method "optuna" needs the package optuna, which is not installed: pip install optuna, or use method "golden".'
        ) from error
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study: Any = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True))
        study.enqueue_trial(search.named(search.best))
        for _ in range(2 * search.budget // 3):
            trial = study.ask()
            point = [trial.suggest_float(p.name, p.low, p.high) for p in search.parameters]
            study.tell(trial, search.at(point))
    finally:
        optuna.logging.set_verbosity(verbosity)
