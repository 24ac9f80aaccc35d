"""What is known about object and probe beyond the patterns, applied between the steps of a solver.

A `Regulariser` is a plain value: a kind, its strength, and the iterations at which it acts. Any number of them compose, in
the order given; `regularise_object` applies those of the object, `regularise_probe` those of the probe, so that both may be
handed the same list. The arrays decide where the work is done (numpy or cupy); nothing is carried between the two.

Two meanings of `weight`:

- Proximal kinds (tv, l1): a strength per unit of the Newton step. After a step x − step·H⁻¹∇L the kind solves
  argmin_z ½‖z − x‖² + step·weight·R(z); a fixed point of the pair has 0 ∈ H⁻¹∇L + weight·∂R whatever the step. For a metric
  H = h·1 that is the minimum of L + h·weight·R, with the weight in units of the object.
- All others: the share in [0, 1] of the way to the filtered or projected array that one application moves.
"""

from ptycho.regularise.object import regularise_object
from ptycho.regularise.probe import (
    centroid_px,
    orthogonalise,
    orthogonalising_rotation,
    regularise_probe,
    shifted,
)
from ptycho.regularise.schedule import OBJECT_KINDS, PROBE_KINDS, Regulariser, active

__all__ = [
    "OBJECT_KINDS",
    "PROBE_KINDS",
    "Regulariser",
    "active",
    "centroid_px",
    "orthogonalise",
    "orthogonalising_rotation",
    "regularise_object",
    "regularise_probe",
    "shifted",
]
