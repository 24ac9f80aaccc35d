"""Turn an array of diffraction patterns into a tilt file that pyaet reads, then check what it says."""

from pathlib import Path

import numpy as np

from pyaet.io.fourdstem import inspect_tilt, write_tilt

folder = Path("tilts")
folder.mkdir(exist_ok=True)

# Here stands your own reader; the axes must end up as (scan_y, scan_x, ky, kx), patterns centred on index n // 2.
counts = np.random.default_rng(0).poisson(0.5, size=(12, 12, 64, 64)).astype(np.uint16)

write_tilt(
    folder / "tilt_+00.h5",
    counts,
    energy_eV=80e3,
    semiangle_mrad=30.0,
    defocus_A=120.0,
    step_A=0.5,
    pixel_mrad=1.9,
    angles_deg=(0.0, 0.0, 0.0),
    dose_e_per_A2=8e3,
)
print(inspect_tilt(folder / "tilt_+00.h5"))
