"""Calibration by trial: short reconstructions, and the numbers that make their loss least.

losses = alternatives(patterns, optics)                        # wrong signs and exchanged axes
best = min(losses, key=losses.get)
found = tune(objective(patterns, optics), [Parameter("defocus_A", 200, -300, 300, 1)])
"""

from ptycho.tune.objective import Objective, alternatives, objective, specimen_patterns
from ptycho.tune.parameter import Parameter, Trial, Tuned
from ptycho.tune.search import tune

__all__ = [
    "Objective",
    "Parameter",
    "Trial",
    "Tuned",
    "alternatives",
    "objective",
    "specimen_patterns",
    "tune",
]
