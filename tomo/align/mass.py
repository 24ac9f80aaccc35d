"""Centre of mass of the particle in every image.

The centre of mass of the specimen is seen at the centre of mass of its projection. Moving that to coordinate 0 in
all images puts the rotation centre at index n // 2 and the specimen's centre of mass on it. The sum runs over the
particle alone: noise of an empty rim would enter with the full lever of the image.

An ADF image is a projection only to some per cent: atoms in a row along the beam shine more than their sum. In
multislice simulations with frozen phonons of a 2 nm silicon particle that moves the centre of mass by a hundredth
of the particle's rms radius, whatever the dose; this enters the standard error.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tomo.normalize import Measured, noise_variance

CHANNELLING = 0.01


def centres_of_mass(
    images: NDArray[np.floating], masks: NDArray[np.bool_], background_error: NDArray[np.float64], axis: int
) -> Measured:
    """Centre of mass in px about coordinate 0 along axis (1 = y, 2 = x) of background-free images (n, y, x) in masks.

    The standard error holds the noise of the pixels, that of the background (n,) and the channelling of the beam.
    """
    line = np.arange(images.shape[axis]) - images.shape[axis] // 2.0
    position = line[None, :, None] if axis == 1 else line[None, None, :]
    inside = np.where(masks, images, 0.0).astype(np.float64)
    mass = inside.sum(axis=(1, 2))
    centre = (inside * position).sum(axis=(1, 2)) / mass
    lever = np.where(masks, position - centre[:, None, None], 0.0)
    variance = (lever**2 * noise_variance(images)).sum(axis=(1, 2))
    variance += (background_error * lever.sum(axis=(1, 2))) ** 2
    radius = np.sqrt(np.maximum((lever**2 * inside).sum(axis=(1, 2)) / mass, 0.0))
    return Measured(centre, np.hypot(np.sqrt(variance) / mass, CHANNELLING * radius))
