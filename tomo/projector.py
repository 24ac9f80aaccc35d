"""The map from a volume to its projections, as an object with domain, range and exact transpose.

    volume (z, y, x) --A--> projections (n, y, x),    so that RESIRE reads  x -= t * A.T(A(x) - b)

Every voxel is cut into subvoxels = (z, y, x) equal parts; each is seen at R r and shared bilinearly among the four
pixels round it. Parts carry equal shares of the voxel, so a projection is the sum of the volume along the beam, in
voxels, and mass inside the image is conserved. Index n // 2 is coordinate 0 on both sides. What falls outside the
image is dropped, and reads zero in the transpose. 2 × 1 × 2 parts are those of the published volumes
(doi:10.1038/s41586-025-09857-4).

When all tilts turn about y, slices along y are independent and the far quicker kernels of kernels_axis do the work;
otherwise those of kernels_euler. Arrays that come back have the right shape but may be stored with y contiguous;
feeding them in again then costs no copy.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from tomo.geometry import is_tilt_about_y, rotation, subvoxel_offsets


class Projector:
    """Projection A of volumes (z, y, x) of cubic voxels at given tilts, with its exact transpose.

    angles_deg: (n, 3) Euler angles (φ, θ, ψ). image_shape: (y, x) in pixels as large as the voxels. depth: voxels along
    z, the image width when None. subvoxels: parts of a voxel along (z, y, x), each 1, 2 or 3. xp: numpy or cupy, where
    arrays live. dtype: float32 or float64. threads: CPU threads, all available when None; no meaning for cupy.
    Raises ValueError for arguments that do not fit.
    """

    def __init__(
        self,
        angles_deg: ArrayLike,
        image_shape: tuple[int, int],
        *,
        depth: int | None = None,
        subvoxels: tuple[int, int, int] = (2, 1, 2),
        xp: ModuleType = np,
        dtype: DTypeLike = np.float32,
        threads: int | None = None,
    ) -> None:
        # Imported here: compiled code takes longer to import than all the rest of the library.
        from tomo import kernels, kernels_axis, kernels_euler

        self.rotations = rotation(angles_deg)
        self.image_shape = _checked_shape(image_shape)
        self.xp = xp
        self.dtype = _checked_dtype(dtype)
        self.threads = kernels.available_threads() if threads is None else _checked_size("threads", threads)
        depth = self.image_shape[1] if depth is None else _checked_size("depth", depth)
        self.domain_shape: tuple[int, int, int] = (depth, *self.image_shape)
        self.range_shape: tuple[int, int, int] = (len(self.rotations), *self.image_shape)
        self._offsets = subvoxel_offsets(subvoxels)
        self._axis, self._euler = kernels_axis, kernels_euler
        self._norm: float | None = None
        self.tilts_about_y = is_tilt_about_y(self.rotations)
        if self.tilts_about_y:
            both = kernels_axis.tables(self.rotations, self.image_shape[1], depth, self._offsets, self.dtype)
            self._matrix, self._transposed_matrix = (matrix.on(xp) for matrix in both)
            self._y_share = float(np.abs(self._offsets[:, 1]).mean() / 2)

    def __call__(self, volume: Any) -> Any:
        """Projections (n, y, x) of a volume (z, y, x)."""
        return self.forward(volume)

    @property
    def T(self) -> Transpose:
        """The transpose as an operator of its own: A.T(images) is A.adjoint(images)."""
        return Transpose(self)

    def forward(self, volume: Any) -> Any:
        """Projections (n, y, x) of a volume (z, y, x), in sums of voxel values along the beam.

        Raises ValueError when the shape is not domain_shape or the array is not one of this projector's xp.
        """
        volume = self._checked("volume", volume, self.domain_shape, "(z, y, x)")
        if not self.tilts_about_y:
            args = (self.rotations, self._offsets, self.image_shape, self.threads)
            return self._euler.forward(self.xp.ascontiguousarray(volume), *args)
        return self._spread_along_y(self._by_rows(self._matrix, volume, self.range_shape))

    def adjoint(self, images: Any) -> Any:
        """Volume (z, y, x) that images (n, y, x) are smeared back into: <A x, y> = <x, Aᵀ y> for all x and y.

        Raises ValueError when the shape is not range_shape or the array is not one of this projector's xp.
        """
        images = self._checked("images", images, self.range_shape, "(n, y, x)")
        if not self.tilts_about_y:
            args = (self.rotations, self._offsets, self.domain_shape, self.threads)
            return self._euler.transpose(self.xp.ascontiguousarray(images), *args)
        return self._by_rows(self._transposed_matrix, self._spread_along_y(images), self.domain_shape)

    def norm(self, *, tolerance: float = 1e-3, max_iterations: int = 50) -> float:
        """Largest eigenvalue of AᵀA (the squared operator norm), by power iteration; remembered after the first call.

        A has no negative entry, so the leading eigenvector has none either (Perron-Frobenius): a start of ones finds it
        quickly. The estimate comes from below and stops when it moves by less than the tolerance, relative.
        """
        if self._norm is None:
            volume, estimate = self.xp.ones(self.domain_shape, self.dtype), 0.0
            for _ in range(max_iterations):
                volume /= self.xp.linalg.norm(volume.ravel(order="K"))
                images = self.forward(volume)
                previous, estimate = estimate, float(self.xp.square(images).sum(dtype=np.float64))
                if abs(estimate - previous) <= tolerance * estimate:
                    break
                volume = self.adjoint(images)
            self._norm = estimate
        return self._norm

    def stored(self, array: Any) -> Any:
        """The same images or volume, kept in the memory order in which the kernels read fastest."""
        array = self.xp.asarray(array, self.dtype)
        if not self.tilts_about_y:
            return self.xp.ascontiguousarray(array)
        return self.xp.ascontiguousarray(array.transpose(0, 2, 1)).transpose(0, 2, 1)

    def _by_rows(self, matrix: Any, array: Any, shape: tuple[int, int, int]) -> Any:
        """Product of a table with a stack (m, y, x), taken to (m · x, y) and back."""
        count, ny, nx = shape
        flat = self.xp.ascontiguousarray(array.transpose(0, 2, 1)).reshape(-1, ny)
        return self._axis.multiply(matrix, flat, self.xp, self.threads).reshape(count, nx, ny).transpose(0, 2, 1)

    def _spread_along_y(self, images: Any) -> Any:
        """Bilinear shares along y of parts that lie off the pixel rows; symmetric, hence its own transpose."""
        if self._y_share == 0.0:
            return images
        spread = (1.0 - 2.0 * self._y_share) * images
        spread[:, 1:] += self._y_share * images[:, :-1]
        spread[:, :-1] += self._y_share * images[:, 1:]
        return spread

    def _checked(self, name: str, array: Any, shape: tuple[int, int, int], axes: str) -> Any:
        if not isinstance(array, self.xp.ndarray):
            raise ValueError(
                f"{name} is a {type(array).__module__}.{type(array).__name__}; expected a {self.xp.__name__} array; "
                "convert it, or make the projector with the xp of the array."
            )
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}; this projector expects {shape} as {axes}.")
        return array.astype(self.dtype, copy=False)


class Transpose:
    """The transpose of a projector, callable on images (n, y, x); its own T is the projector again."""

    def __init__(self, projector: Projector) -> None:
        self.T = projector
        self.domain_shape, self.range_shape = projector.range_shape, projector.domain_shape

    def __call__(self, images: Any) -> Any:
        """Volume (z, y, x) of images (n, y, x)."""
        return self.T.adjoint(images)


def _checked_shape(image_shape: tuple[int, int]) -> tuple[int, int]:
    if len(image_shape) != 2 or any(int(n) < 1 for n in image_shape):
        raise ValueError(f"image_shape is {tuple(image_shape)}; expected (y, x), two positive numbers of pixels.")
    return int(image_shape[0]), int(image_shape[1])


def _checked_size(name: str, value: int) -> int:
    if int(value) < 1:
        raise ValueError(f"{name} is {value}; expected a positive whole number.")
    return int(value)


def _checked_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    if np.dtype(dtype) not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"dtype is {np.dtype(dtype)}; expected float32 or float64.")
    return np.dtype(dtype)
