"""The map from a volume to its projections, as an object with domain, range and exact transpose.

    volume (z, y, x) --A--> projections (n, y, x),    so that RESIRE reads  x -= t * A.T(A(x) - b)

Every voxel is cut into subvoxels = (z, y, x) equal parts; each is seen at R r + shift and shared bilinearly among the four
pixels round it. Parts carry equal shares of the voxel, so a projection is the sum of the volume along the beam, in voxels,
times the scale of the tilt, and mass inside the image is conserved. Index n // 2 is coordinate 0 on both sides. What falls
outside the image is dropped, and reads zero in the transpose. 2 × 1 × 2 parts are those of the published volumes
(doi:10.1038/s41586-025-09857-4).

When all tilts turn about y, slices along y are independent and the far quicker kernels of kernels_axis do the work;
otherwise those of kernels_euler. Both read and write arrays with y contiguous: what comes back has the right shape but is
stored so, and feeding it in again costs no copy. A projector of some planes of the volume only serves to work through a
volume that does not fit into memory: the projections of all slabs add up.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from tomo.geometry import is_tilt_about_y, rotation, subvoxel_offsets

HALF_LARGEST = 1024.0
Taps = list[tuple[int, float]]


class Projector:
    """Projection A of volumes (z, y, x) of cubic voxels at given tilts, with its exact transpose.

    angles_deg: (n, 3) Euler angles (φ, θ, ψ). image_shape: (y, x) in pixels as large as the voxels. depth: voxels along
    z, the image width when None. subvoxels: parts of a voxel along (z, y, x), each a whole number. shifts_px: (n, 2) as
    (y, x), by which the content of each image is moved towards higher indices, none when None; scales: (n,) factors of the
    images, 1 when None. planes: first and past-the-last plane along z that the volume consists of, all when None.
    xp: numpy or cupy, where arrays live. dtype: float32 or float64. half_storage: what is projected is first rounded to half
    precision, which halves what a GPU must read; then the transpose is exact only to 5e-4 of the largest value. threads: CPU
    threads, all available when None; no meaning for cupy.
    Raises ValueError for arguments that do not fit.
    """

    def __init__(
        self,
        angles_deg: ArrayLike,
        image_shape: tuple[int, int],
        *,
        depth: int | None = None,
        subvoxels: tuple[int, int, int] = (2, 1, 2),
        shifts_px: ArrayLike | None = None,
        scales: ArrayLike | None = None,
        planes: tuple[int, int] | None = None,
        xp: ModuleType = np,
        dtype: DTypeLike = np.float32,
        half_storage: bool = False,
        threads: int | None = None,
    ) -> None:
        # Imported here: compiled code takes longer to import than all the rest of the library.
        from tomo import kernels, kernels_axis, kernels_euler

        rotations = rotation(angles_deg)
        self.image_shape = _checked_shape(image_shape)
        self.xp = xp
        self.dtype = _checked_dtype(dtype)
        self.half_storage = half_storage
        self.threads = kernels.available_threads() if threads is None else _checked_size("threads", threads)
        self.depth = self.image_shape[1] if depth is None else _checked_size("depth", depth)
        start, stop = _checked_planes(planes, self.depth)
        shifts = _checked_table("shifts_px", shifts_px, (len(rotations), 2), 0.0)
        self.scales = _checked_table("scales", scales, (len(rotations),), 1.0)
        self.domain_shape: tuple[int, int, int] = (stop - start, *self.image_shape)
        self.range_shape: tuple[int, int, int] = (len(rotations), *self.image_shape)
        self.geometry = kernels_euler.Geometry(
            rotations,
            np.ascontiguousarray(shifts[:, ::-1]),
            subvoxel_offsets(subvoxels),
            self.image_shape,
            start - self.depth // 2,
            stop - start,
        )
        self._axis, self._euler = kernels_axis, kernels_euler
        self._norm: float | None = None
        self.tilts_about_y = is_tilt_about_y(rotations)
        if self.tilts_about_y:
            groups = min(self.threads, len(rotations))
            both = kernels_axis.tables(self.geometry, self.dtype, groups=groups, tiled=xp is np)
            self._matrix, self._transposed_matrix = (matrix.on(xp) for matrix in both)
            self._taps = [_taps(self.geometry.offsets[:, 1] + shift) for shift in shifts[:, 0]]

    def __call__(self, volume: Any) -> Any:
        """Projections (n, y, x) of a volume (z, y, x)."""
        return self.forward(volume)

    @property
    def T(self) -> Transpose:
        """The transpose as an operator of its own: A.T(images) is A.adjoint(images)."""
        return Transpose(self)

    @property
    def rotations(self) -> NDArray[np.float64]:
        """Rotation matrices (n, 3, 3) of the tilts."""
        return self.geometry.rotations

    def forward(self, volume: Any) -> Any:
        """Projections (n, y, x) of a volume (z, y, x), in sums of voxel values along the beam.

        Raises ValueError when the shape is not domain_shape or the array is not one of this projector's xp.
        """
        volume, unit = self._held(self._with_y_last(self._checked("volume", volume, self.domain_shape, "(z, y, x)")))
        if self.tilts_about_y:
            images = self._by_rows(self._matrix, volume, self.range_shape)
            images = self._spread_along_y(images, backwards=False)
        else:
            images = self._euler.forward(volume, self.geometry, self.threads, self.dtype)
        if self.half_storage:
            images *= unit
        return self._scaled(images).transpose(0, 2, 1)

    def adjoint(self, images: Any) -> Any:
        """Volume (z, y, x) that images (n, y, x) are smeared back into: <A x, y> = <x, Aᵀ y> for all x and y.

        Raises ValueError when the shape is not range_shape or the array is not one of this projector's xp.
        """
        images = self._with_y_last(self._checked("images", images, self.range_shape, "(n, y, x)"))
        images = self._scaled(images, copy=True)
        if self.tilts_about_y:
            images, unit = self._held(self._spread_along_y(images, backwards=True))
            volume = self._by_rows(self._transposed_matrix, images, self.domain_shape)
        else:
            images, unit = self._held(images)
            volume = self._euler.transpose(images, self.geometry, self.threads, self.dtype)
        if self.half_storage:
            volume *= unit
        return volume.transpose(0, 2, 1)

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
        return self._with_y_last(self.xp.asarray(array, self.dtype)).transpose(0, 2, 1)

    def _held(self, array: Any) -> tuple[Any, Any]:
        """What the kernels read, and the unit it is in: as it is, or of half precision with values up to HALF_LARGEST."""
        if not self.half_storage:
            return array, self.dtype.type(1)
        unit = self.xp.maximum(self.xp.abs(array).max() / HALF_LARGEST, self.xp.finfo(self.dtype).tiny).astype(
            self.dtype
        )
        half = (array / unit).astype(np.float16)
        # Compiled CPU code knows no half precision: there the rounding is the same and nothing is won.
        return half.astype(self.dtype) if self.xp is np else half, unit

    def _with_y_last(self, array: Any) -> Any:
        return self.xp.ascontiguousarray(array.transpose(0, 2, 1))

    def _by_rows(self, matrix: Any, array: Any, shape: tuple[int, int, int]) -> Any:
        """Product of a table with a stack (m, x, y), taken as (m · x, y), that gives a stack of the shape (n, y, x)."""
        count, ny, nx = shape
        return self._axis.multiply(matrix, array.reshape(-1, ny), self.xp, self.threads).reshape(count, nx, ny)

    def _spread_along_y(self, images: Any, *, backwards: bool) -> Any:
        """Bilinear shares along y of parts that lie off the pixel rows, for images (n, x, y)."""
        if all(taps == [(0, 1.0)] for taps in self._taps):
            return images
        spread = self.xp.zeros_like(images)
        ny = images.shape[2]
        for image, out, taps in zip(images, spread, self._taps, strict=True):
            for step, weight in taps:
                step = max(-ny, min(ny, -step if backwards else step))
                out[:, max(step, 0) : ny + min(step, 0)] += weight * image[:, max(-step, 0) : ny - max(step, 0)]
        return spread

    def _scaled(self, images: Any, *, copy: bool = False) -> Any:
        if (self.scales == 1.0).all():
            return images
        factors = self.xp.asarray(self.scales, self.dtype)[:, None, None]
        if copy:
            return images * factors
        images *= factors
        return images

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


def _taps(at: NDArray[np.float64]) -> Taps:
    """Whole steps along y and their bilinear shares, for parts that lie `at` beside the rows of pixels."""
    steps = range(int(np.floor(at.min())), int(np.floor(at.max())) + 2)
    shares = [(step, float(np.maximum(1.0 - np.abs(at - step), 0.0).mean())) for step in steps]
    return [(step, share) for step, share in shares if share > 0.0]


def _checked_shape(image_shape: tuple[int, int]) -> tuple[int, int]:
    if len(image_shape) != 2 or any(int(n) < 1 for n in image_shape):
        raise ValueError(f"image_shape is {tuple(image_shape)}; expected (y, x), two positive numbers of pixels.")
    return int(image_shape[0]), int(image_shape[1])


def _checked_size(name: str, value: int) -> int:
    if int(value) < 1:
        raise ValueError(f"{name} is {value}; expected a positive whole number.")
    return int(value)


def _checked_planes(planes: tuple[int, int] | None, depth: int) -> tuple[int, int]:
    start, stop = (0, depth) if planes is None else planes
    if not 0 <= start < stop <= depth:
        raise ValueError(f"planes is {planes}; expected first and past-the-last plane within 0 and the depth {depth}.")
    return int(start), int(stop)


def _checked_table(name: str, values: ArrayLike | None, shape: tuple[int, ...], default: float) -> NDArray[np.float64]:
    table = np.full(shape, default) if values is None else np.asarray(values, np.float64)
    if table.shape != shape or not np.isfinite(table).all():
        found = f"has shape {table.shape}" if table.shape != shape else "holds values that are not finite"
        raise ValueError(f"{name} {found}; expected finite numbers of shape {shape}, one row per tilt.")
    return table


def _checked_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    if np.dtype(dtype) not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"dtype is {np.dtype(dtype)}; expected float32 or float64.")
    return np.dtype(dtype)
