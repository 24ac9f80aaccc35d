"""Is the result right? What a finished or running reconstruction shows, in plain words.

    for finding in diagnose(evidence(result, patterns, optics)):
        ...

Nothing is said about what is in order. `severe` findings mean that the result should not be used as it is.
"""

from __future__ import annotations

import itertools

from ptycho.diagnose import agreement, arrays
from ptycho.diagnose.evidence import Evidence, evidence
from ptycho.diagnose.expected import expected_loss, poisson_loss
from ptycho.diagnose.measures import Fit, Jitter, Model, Slope
from ptycho.findings import Finding

__all__ = [
    "Evidence",
    "Fit",
    "Jitter",
    "Model",
    "Slope",
    "diagnose",
    "evidence",
    "expected_loss",
    "poisson_loss",
]

_CHECKS = (
    agreement.orientation,
    agreement.calibration,
    agreement.positions,
    agreement.trace,
    agreement.held_out,
    agreement.fit,
    arrays.probe,
    arrays.object_,
    arrays.scan,
)


def diagnose(evidence: Evidence) -> list[Finding]:
    """What is wrong or doubtful, the severe ones first; each finding has a number and an advice."""
    found = itertools.chain.from_iterable(check(evidence) for check in _CHECKS)
    return sorted(found, key=lambda f: not f.severe)
