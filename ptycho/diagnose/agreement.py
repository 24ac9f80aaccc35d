"""Findings from the losses: does the run converge, and does the model agree with the patterns?

Changes of the loss are judged in units of the drop since the first iteration, which is what the object has explained so
far: the loss itself is mostly counting noise.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ptycho.diagnose.evidence import Evidence
from ptycho.diagnose.measures import Slope
from ptycho.findings import Finding

_RISE = 0.2
_JUMPS = 0.1
_FALLING = 0.02
_PREDICTS = 0.3
_FORGOTTEN = 0.1
_BADLY_FORGOTTEN = 0.5
_SIGMAS = 5.0
_OVERFITTED_SIGMAS = 6.0
_DEVIANCE = 0.15
_MEAN_MISFIT = 0.05
_EXPLAINED = 0.5
_WELL_EXPLAINED = 0.85
_DEPTHS = 0.2
_MANY_DEPTHS = 0.45
_JITTER_SIGMAS = 4.5
_JITTER_PX = 0.25
_MOVED_A = 0.06
_FAR_MOVED_A = 0.12
_BETTER = 30.0


def trace(e: Evidence) -> Iterator[Finding]:
    """Diverging, unstable, or stopped too early."""
    loss = np.asarray(e.loss, np.float64)
    if not np.isfinite(loss).all():
        yield Finding("diverged", "The loss is no longer a number: the run broke down; lower the step.", True)
        return
    if len(loss) < 3:
        return
    lowest, changes = loss.min(), np.diff(loss)
    drop = max(loss[0] - lowest, 1e-12 * abs(loss[0]))
    back = (loss[-1] - lowest) / drop
    if (back > _RISE and changes[-1] > 0) or loss[-1] > loss[0]:
        yield Finding(
            "diverging",
            f"The loss rises: after a drop of {drop:.3g} per pattern it has come back by {100 * back:.0f} % of it; check the "
            "signs and the calibration, lower the step, or hold the probe fixed.",
            True,
        )
        return
    recovered = changes[: int(np.flatnonzero(changes < 0)[-1])] if (changes < 0).any() else changes[:0]
    jumps = float(np.maximum(recovered, 0).sum())
    if jumps > _JUMPS * drop:
        yield Finding(
            "step_too_large",
            f"The loss went up and down again, by {100 * jumps / drop:.0f} % of its drop altogether: the step is too large, "
            "halve it.",
        )
        return
    speed = -changes[-1] / drop
    if speed > _FALLING:
        yield Finding(
            "not_converged",
            f"The last iteration still lowered the loss by {100 * speed:.1f} % of all it has dropped so far: run more iterations.",
        )


def held_out(e: Evidence) -> Iterator[Finding]:
    """Noise learnt by heart, or nothing learnt at all, seen in patterns that were held out.

    The mean gain g of m held-out patterns is uncertain by sqrt(2 g' / m), g' what the others gained: the variance of a
    logarithmic likelihood ratio is twice its mean.
    """
    if e.validation is None or len(e.validation) < 2:
        return
    unseen, loss = np.asarray(e.validation, np.float64), np.asarray(e.loss, np.float64)
    patterns = e.held_out_patterns or np.inf
    best = int(np.argmin(unseen))
    gain, peak, learnt = unseen[0] - unseen[-1], unseen[0] - unseen[best], loss[0] - loss[-1]
    least = _PREDICTS * learnt
    if learnt > 0 and peak < least and gain + 2 * np.sqrt(2 * learnt / patterns) < least:
        yield Finding(
            "not_predictive",
            f"What lowered the loss by {learnt:.3g} per pattern changes that of held-out patterns by {-gain:+.3g}: the object is "
            "mostly fitted noise; try the other signs and orientations (alternatives), then a prior or fewer iterations.",
            True,
        )
    elif peak - gain > max(_FORGOTTEN * peak, 18 / patterns) and best > 0 and loss[-1] <= loss[best]:
        yield Finding(
            "overfitted",
            f"Held-out patterns fitted best at iteration {best + 1} and have lost {100 * (1 - gain / peak):.0f} % of that gain since, "
            "while the loss kept falling: noise is fitted; stop there or use a prior.",
            peak - gain > _BADLY_FORGOTTEN * peak,
        )


def fit(e: Evidence) -> Iterator[Finding]:
    """Goodness of fit and the share of the structure that is explained."""
    f = e.fit
    if f is None:
        return
    z, ratio = (f.loss - f.expected) / f.sigma, f.loss / f.expected
    below = (f.expected - _freedom(e) - f.loss) / f.sigma
    against = f"The loss is {f.loss:.5g} per pattern; counting noise alone leaves {f.expected:.5g} ± {f.sigma:.2g}"
    share, sigma = 1 - f.left / f.structure, f.structure_sigma / max(f.structure, 1e-30)
    visible = f.structure > _SIGMAS * f.structure_sigma
    explained = f"The model explains {100 * max(share, 0):.0f} ± {100 * sigma:.0f} % of the structure in the patterns"
    if f.loss > f.empty_loss:
        yield Finding(
            "worse_than_empty",
            f"The loss is {f.loss:.5g} per pattern, that of an empty field {f.empty_loss:.5g}: the object makes the agreement worse; "
            "start again with a smaller step, from vacuum.",
            True,
        )
    elif abs(ratio - 1) > _DEVIANCE and abs(z) > _SIGMAS:
        yield Finding(
            "not_poisson",
            f"{against}: {ratio:.2f} times as much. The values are no electron counts (gain, background, summed frames), or "
            "the model is far off.",
            True,
        )
    elif z > _SIGMAS:
        yield Finding("misfit", f"{against}: {z:.0f} standard deviations more. Something is not in the model.")
    elif below > _OVERFITTED_SIGMAS:
        yield Finding(
            "noise_fitted",
            f"{against}, {below:.0f} standard deviations below what a free fit of every pixel explains: the object scatters more "
            "than the patterns confirm, noise is fitted; use a prior, fewer iterations or a smaller step.",
        )
    if f.mean_misfit > _MEAN_MISFIT:
        yield Finding(
            "mean_pattern",
            f"The mean pattern differs from that of the model by {100 * f.mean_misfit:.1f} % of its electrons: check the angle of a "
            "detector pixel, the semiangle, the centring and the background of the detector.",
            f.mean_misfit > 3 * _MEAN_MISFIT,
        )
    if visible and share + 2 * sigma < _EXPLAINED:
        yield Finding(
            "not_explained",
            f"{explained}: defocus sign, orientation of the scan or another basic number is wrong; compare the alternatives.",
            True,
        )
    elif visible and share + 3 * sigma < _WELL_EXPLAINED:
        yield Finding("partly_explained", f"{explained}: check defocus, rotation and scale of the scan (tune).")


def _freedom(e: Evidence) -> float:
    """By how much a fit of every pixel of the field lowers the loss per pattern without any structure: ½ for each."""
    if e.object_ is None or e.positions_A is None:
        return 0.0
    absorbs = np.abs(np.abs(e.object_) - 1).max() > 1e-3
    return (1.0 if absorbs else 0.5) * e.object_.size / len(e.positions_A)


def calibration(e: Evidence) -> Iterator[Finding]:
    """The calibration that the loss pulls at most strongly; the others often follow from it."""
    pulled = _pulled(e)
    if pulled:
        strongest = max(pulled, key=lambda s: abs(s.z))
        amount = _amount(strongest, e)
        code = {"defocus": "wrong_defocus", "scan rotation": "wrong_rotation"}.get(strongest.name, "wrong_scale")
        yield Finding(
            code,
            f"The patterns ask for a {strongest.name} changed by {strongest.step:+.2g} {strongest.unit} "
            f"({abs(strongest.z):.0f} standard deviations), or more, since the object hides a part of the error: tune it.",
            amount > (_MANY_DEPTHS / _DEPTHS if strongest.moves_A == 0 else _FAR_MOVED_A / _MOVED_A),
        )


def positions(e: Evidence) -> Iterator[Finding]:
    """Positions that the patterns would rather have elsewhere, each for itself; a wrong calibration moves them together."""
    j = e.jitter
    if j is None or j.z < _JITTER_SIGMAS or j.rms_A < _JITTER_PX * e.pixel_A or _pulled(e):
        return
    yield Finding(
        "positions",
        f"Single positions are off by about {j.rms_A:.2g} Å along each axis ({j.z:.0f} standard deviations), where one pattern knows its "
        f"own to {j.sigma_A:.2g} Å: refine them (update_positions), which helps as far as the dose allows.",
    )


def _pulled(e: Evidence) -> list[Slope]:
    return [s for s in e.slopes if abs(s.z) > _SIGMAS and _amount(s, e) > 1]


def _amount(slope: Slope, e: Evidence) -> float:
    """Change asked for in units of what begins to matter."""
    return slope.moves_A / _MOVED_A if slope.moves_A > 0 else abs(slope.step) / (_DEPTHS * e.depth_of_field_A)


def orientation(e: Evidence) -> Iterator[Finding]:
    """Another sign or orientation that explains the patterns better."""
    if not e.alternatives or "as given" not in e.alternatives:
        return
    best = min(e.alternatives, key=e.alternatives.__getitem__)
    gain = e.alternatives["as given"] - e.alternatives[best]
    same = best == "as given" or (gain == 0 and best == "scan turned by 180°, defocus flipped")
    if same and best != "as given":
        yield Finding(
            "phase_negative",
            "The atoms come out with a negative phase: scan turned by 180° and defocus flipped explain the patterns equally "
            "well and make it positive.",
            True,
        )
    elif gain > _BETTER:
        yield Finding(
            "wrong_orientation",
            f"The patterns fit better with another frame: {best} lowers the loss by {gain:.0f}, where {_BETTER:.0f} is beyond chance.",
            True,
        )
