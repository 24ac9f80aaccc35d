"""MATLAB files: the one place that opens them, v4 to v7.2 through SciPy and v7.3 through HDF5.

An array has the axis order that MATLAB's `size` shows, whichever version wrote it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pyaet.io.errors import InputError
from pyaet.io.hdf5 import is_hdf5, open_hdf5
from pyaet.io.source import FileArray, Fits, choose_variable, readable_path, reading

# MATLAB's numeric classes as whosmat names them.
_DTYPES = {
    "double": "f8",
    "single": "f4",
    "logical": "?",
    **{f"{sign}int{bits}": f"{sign or 'i'}{bits // 8}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


def open_mat(path: Path, variable: str | None, fits: Fits, what: str, *, hint: str = "") -> FileArray:
    """Describe one numeric variable of a .mat file: the one named, or the only one that `fits`."""
    if is_hdf5(path):
        return open_hdf5(path, variable, fits, what, hint=hint, matlab=True)
    with reading(path, "MATLAB"):
        variables = _variables(path)
        shapes = {name: shape for name, (shape, _) in variables.items()}
        name = choose_variable(path, shapes, variable, fits, what, hint)
        shape, dtype = variables[name]

    def read() -> np.ndarray:
        import scipy.io

        with reading(path, "MATLAB"):
            values = scipy.io.loadmat(path, variable_names=[name])[name]
            if values.shape != shape:
                raise InputError(f"{path}: '{name}' announces the shape {shape} but holds {values.shape}")
            return values

    return FileArray(path, name, shape, dtype, read)


def read_variable(path: str | Path, variable: str) -> np.ndarray:
    """Return one numeric variable of a .mat file, axes as MATLAB's `size` shows them; raise InputError."""
    return open_mat(readable_path(path), variable, lambda shape: True, "the variable").read()


def _variables(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    import scipy.io

    return {
        name: (tuple(shape), np.dtype(_DTYPES[kind])) for name, shape, kind in scipy.io.whosmat(path) if kind in _DTYPES
    }
