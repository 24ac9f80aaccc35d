"""Refinement of the positions of images against projections of the volume they give together.

The tilts are dealt into interleaved groups. From all but one group a volume is made by filtered back-projection,
and the images of the group left out are fitted by its projections, so that no image is compared with its own noise:

    image ≈ α p − α d · ∇p + β        (linear least squares in the mask for α, β and α d; d is the displacement)

Images move against d until nothing moves any more. Translations of the whole specimen cannot be seen this way and are
taken out. In contrast to centre of mass and common line this uses all detail down to the blur.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomo.align.shift import shifted
from tomo.baselines import fbp
from tomo.geometry import rotation
from tomo.normalize import Measured, is_noise, noise_variance
from tomo.projector import Projector

log = logging.getLogger(__name__)

GROUPS = 4
# Fewer tilts than this make no volume worth a comparison.
FEWEST_TILTS = 12
MAX_ROUNDS = 12
TOLERANCE_PX = 0.02
# Images move while their reference moves with them: a full step would overshoot.
RELAXATION = 0.7
# At the finest detail a reference rests on few other tilts and is nearly as noisy as the image it is compared with.
REFERENCE_NOISE = np.sqrt(2.0)
# Share of the particle's rms radius that channelling moves an image against its reference, in multislice simulations.
CHANNELLING = 0.002
# What finitely many tilts and interpolation do to a reference, in px, measured on exact images.
INTERPOLATION_PX = 0.03


def matched(
    images: NDArray[np.float32],
    masks: NDArray[np.bool_],
    angles_deg: NDArray[np.float64],
    start: NDArray[np.float64],
    blur_px: float,
    progress: Callable[[int, int, float], None] | None = None,
) -> Measured:
    """Shifts (n, 2) as (y, x) px for background-free images (n, y, x) of equal mass, and errors, from a start (n, 2).

    The start is returned as it is when the images agree with their references within the errors.
    """
    shifts = start.copy()
    for done in range(1, MAX_ROUNDS + 1):
        moved = np.stack([shifted(image, shift) for image, shift in zip(images, shifts, strict=True)])
        placed = np.stack([_moved_mask(mask, shift) for mask, shift in zip(masks, shifts, strict=True)])
        found = _displacements(moved, placed, _references(moved, angles_deg, blur_px), blur_px)
        step = _without_translation(found.value, rotation(angles_deg))
        size = float(np.sqrt((step**2).mean()))
        if progress is not None:
            progress(done, MAX_ROUNDS, size)
        if size < TOLERANCE_PX or (done == 1 and is_noise(step / found.error, step.size)):
            break
        shifts = shifts - RELAXATION * step
    return Measured(shifts, found.error)


def _references(images: NDArray[np.float32], angles_deg: NDArray[np.float64], blur_px: float) -> NDArray[np.float32]:
    """For every image the projection of the volume made from the groups it does not belong to, (n, y, x)."""
    references = np.empty_like(images)
    order = np.argsort(angles_deg[:, 1], kind="stable")
    for group in range(GROUPS):
        out = order[group::GROUPS]
        rest = np.setdiff1d(order, out)
        volume = np.maximum(fbp(images[rest], angles_deg[rest], blur_px=blur_px), 0)
        references[out] = Projector(angles_deg[out], images.shape[1:], subvoxels=(1, 1, 1))(volume)
    return references


def _displacements(
    images: NDArray[np.float32], masks: NDArray[np.bool_], references: NDArray[np.float32], blur_px: float
) -> Measured:
    """Displacement (n, 2) as (y, x) px of each image (n, y, x) from its reference, with standard errors."""
    values, errors = np.empty((len(images), 2)), np.empty((len(images), 2))
    variances = noise_variance(images)
    for i, (image, mask, reference) in enumerate(zip(images, masks, references, strict=True)):
        slope_y, slope_x = np.gradient(reference.astype(np.float64))
        design = np.stack([-slope_y, -slope_x, reference, np.ones_like(reference)])[:, mask]
        solve = np.linalg.pinv(design.T)
        blurred = ndimage.gaussian_filter(image.astype(np.float64), blur_px)
        *moved, scale, _ = solve @ blurred[mask]
        if scale > 0:
            values[i] = np.array(moved) / scale
            errors[i] = _noise_through(solve[:2], mask, variances[i], blur_px) / scale
        else:
            log.warning("image %d does not resemble what the other tilts predict; it is not shifted to match them", i)
            values[i], errors[i] = 0.0, np.inf
    radius = np.sqrt(masks.sum(axis=(1, 2)) / (4 * np.pi))
    floor = np.hypot(INTERPOLATION_PX, CHANNELLING * radius[:, None])
    return Measured(values, np.hypot(REFERENCE_NOISE * errors, floor))


def _noise_through(
    solve: NDArray[np.float64], mask: NDArray[np.bool_], variance: NDArray[np.float64], blur_px: float
) -> NDArray[np.float64]:
    """Standard errors (2,) of two linear estimates over the mask, of noise that was blurred like the image."""
    weights = np.zeros((2, *mask.shape))
    weights[:, mask] = solve
    through = np.stack([ndimage.gaussian_filter(weight, blur_px) for weight in weights])
    return np.sqrt((through**2 * variance).sum(axis=(1, 2)))


def _without_translation(step: NDArray[np.float64], rotations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Displacements (n, 2) as (y, x) less the part that a translation of the specimen would give."""
    design = rotations[:, [1, 0]].reshape(-1, 3)
    return step - (design @ np.linalg.lstsq(design, step.ravel(), rcond=None)[0]).reshape(step.shape)


def _moved_mask(mask: NDArray[np.bool_], shift_px: NDArray[np.float64]) -> NDArray[np.bool_]:
    return ndimage.shift(mask, np.rint(shift_px), order=0, mode="constant", cval=0, prefilter=False)
