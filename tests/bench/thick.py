"""A 60 Å particle with one slice and with several, against its true projected phase.

    python tests/bench/thick.py [--cache DIR] [--silica286 FOLDER] [--diameter 60] [--iterations 12]

A sphere of the shipped silica network is simulated at tilt 0 (multislice of 2 Å, atoms at rest; a minute, once) and
reconstructed from Poisson counts with ptycho's defaults but more iterations, one slice and slices of 10 and 5 Å. A 20 Å sphere recorded
elsewhere (tilt_+00.h5, dose1.6e4_tilt_+00.h5 and truth.extxyz in FOLDER) stands beside it. 5 % of the patterns are held
out; `true loss` is theirs for the true phase cut into as many slices, which shows what a slice leaves out. `correlation`
is taken after a blur of 0.35 Å in the central square inside the particle, a plane removed; `detail` leaves out what a blur
of 1.5 Å shows as well, `strength` is the slope of that detail against the truth. Writes results/thick.md and results/thick.png.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy import fft, ndimage
from scipy.spatial.transform import Rotation

import ptycho
from ptycho.phase import unwrapped
from pyaet.io.fourdstem import inspect_tilt, positions_A, read_counts
from pyaet.io.xyz import read_xyz
from pyaet.simulate.fourdstem import Recording, simulate_patterns
from pyaet.simulate.multislice import ABTEM
from pyaet.simulate.silica import shipped_silica

RESULTS = Path(__file__).resolve().parent / "results"
OPTICS = ptycho.Optics(80e3, 30.0, 180.0)
REACH_MRAD, BLUR_A, DETAIL_A, SHOWN_A, HELD_OUT = 60.0, 0.35, 1.5, 20.0, 0.05


@dataclass(frozen=True)
class Specimen:
    """Atoms (n, 3) as (x, y, z) in Å and their symbols; `side_A` is the square inside the particle that is scored."""

    name: str
    atoms_A: np.ndarray
    symbols: np.ndarray
    side_A: float
    depth_A: float
    slices: tuple[int, ...]


def silica_sphere(diameter_A: float) -> Specimen:
    """Sphere of the periodic network, turned so that no copy of an atom lies behind another."""
    box = shipped_silica()
    shifts = np.stack(np.meshgrid(*3 * [np.arange(-1, 2)], indexing="ij"), -1).reshape(-1, 1, 3) * box.box_A
    atoms = (box.positions_A - box.box_A / 2 + shifts).reshape(-1, 3)
    inside = (atoms**2).sum(1) <= (diameter_A / 2) ** 2
    turned = Rotation.random(rng=np.random.default_rng(1)).apply(atoms[inside])
    symbols = np.tile(np.array(box.symbols), len(shifts))[inside]
    slices = tuple(round(diameter_A / thickness) for thickness in (10, 5))
    return Specimen(f"silica {diameter_A:g} Å", turned, symbols, diameter_A / np.sqrt(2), diameter_A, (1, *slices))


def simulated(specimen: Specimen, cache: Path) -> tuple[np.ndarray, np.ndarray, float]:
    """Noise-free patterns (n, ky, kx) as shares of the beam, their positions (n, 2), and the detector's pixel in mrad."""
    side = round(specimen.depth_A + 10)
    recording = Recording(
        OPTICS.energy_eV,
        OPTICS.semiangle_mrad,
        OPTICS.defocus_A,
        (side, side),
        1.0,
        30.0,
        REACH_MRAD,
        phonons=1,
        phonon_sigma_A=0.0,
    )
    path = cache / f"thick_{specimen.depth_A:g}.h5"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        print(f"simulating {len(recording.positions_A)} patterns into {path}", flush=True)
        rng = np.random.default_rng(2)
        patterns = simulate_patterns(specimen.atoms_A, specimen.symbols.tolist(), (0, 0, 0), recording, rng=rng)
        with h5py.File(path.with_suffix(".part"), "w") as file:
            file["patterns"] = patterns.reshape(-1, *patterns.shape[2:])
        path.with_suffix(".part").rename(path)
    with h5py.File(path) as file:
        return file["patterns"][()], recording.positions_A, recording.pixel_mrad


def true_phase(specimen: Specimen, inside: np.ndarray, pixel_A: float, size: int) -> np.ndarray:
    """Projected potential × σ of the atoms `inside`, band-limited to the detector: (size, size), centre at size // 2 (even size)."""
    import abtem
    from abtem.core.energy import energy2sigma
    from ase import Atoms

    width, fine = size * pixel_A, 3 * size
    at = specimen.atoms_A[inside][:, [1, 0, 2]] * [1, 1, 0] + [size // 2 * pixel_A, size // 2 * pixel_A, 0.5]
    atoms = Atoms(specimen.symbols[inside].tolist(), positions=at, cell=[width, width, 1.0])
    with abtem.config.set(ABTEM):
        potential: Any = abtem.Potential(
            atoms, gpts=fine, slice_thickness=1.0, parametrization="lobato", projection="infinite"
        )
        phase = np.asarray(potential.build(lazy=False).array, np.float64).sum(0) * energy2sigma(OPTICS.energy_eV)
    spectrum = fft.fftshift(fft.fft2(phase))[size : 2 * size, size : 2 * size]
    k = (np.arange(size) - size // 2) / width
    spectrum[np.hypot(k[:, None], k) * OPTICS.wavelength_A * 1e3 > REACH_MRAD] = 0
    return fft.ifft2(fft.ifftshift(spectrum)).real * (size / fine) ** 2


@dataclass(frozen=True)
class Data:
    """Patterns of one specimen at one dose."""

    specimen: Specimen
    dose: str
    patterns: ptycho.Patterns

    def without(self, training: np.ndarray) -> ptycho.Patterns:
        """The patterns that were not fitted."""
        held = np.setdiff1d(np.arange(len(self.patterns.counts)), training)
        return ptycho.Patterns(self.patterns.counts[held], self.patterns.positions_A[held], self.patterns.pixel_mrad)

    @property
    def pixel_A(self) -> float:
        window = ptycho.window_size(self.patterns)
        return 1e3 * OPTICS.wavelength_A / (window * self.patterns.pixel_mrad)

    def truth(self, slices: int) -> np.ndarray:
        """True phase of `slices` slabs (slice, y, x)."""
        z = self.specimen.atoms_A[:, 2] / self.specimen.depth_A + 0.5
        slab = np.clip((z * slices).astype(int), 0, slices - 1)
        size = 2 * round((self.specimen.depth_A + 16) / (2 * self.pixel_A))
        return np.stack([true_phase(self.specimen, slab == s, self.pixel_A, size) for s in range(slices)])


@dataclass(frozen=True)
class Row:
    """One reconstruction: phases of its slices (slice, y, x) and its numbers."""

    data: Data
    slices: int
    stack: np.ndarray
    text: str


def centre(image: np.ndarray, side_A: float, pixel_A: float) -> np.ndarray:
    """Square (y, x) of `side_A` about index n // 2 of the last two axes."""
    half = int(side_A / 2 / pixel_A)
    y, x = (slice(n // 2 - half, n // 2 + half + 1) for n in image.shape[-2:])
    return image[..., y, x]


def blurred(image: np.ndarray, sigma_A: float, pixel_A: float) -> np.ndarray:
    return ndimage.gaussian_filter(image, sigma_A / pixel_A)


def scores(phase: np.ndarray, truth: np.ndarray, side_A: float, pixel_A: float) -> tuple[float, float, float]:
    """`correlation`, `detail` and `strength` of the sentences at the top."""
    a, b = (blurred(image, BLUR_A, pixel_A) for image in (phase, truth))
    fine_a, fine_b = (centre(image - blurred(image, DETAIL_A, pixel_A), side_A, pixel_A).ravel() for image in (a, b))
    a, b = centre(a, side_A, pixel_A), centre(b, side_A, pixel_A)
    y, x = np.indices(a.shape)
    basis = np.stack([np.ones(a.size), y.ravel(), x.ravel()], axis=1)
    a = a.ravel() - basis @ np.linalg.lstsq(basis, (a - b).ravel(), rcond=None)[0]
    correlation, detail = (float(np.corrcoef(p, q)[0, 1]) for p, q in ((a, b.ravel()), (fine_a, fine_b)))
    return correlation, detail, float((fine_a * fine_b).sum() / (fine_b**2).sum())


def loss_of(patterns: ptycho.Patterns, given: dict[str, Any], object_: np.ndarray, probe: np.ndarray | None) -> float:
    """Loss per pattern of an object as it is: a run reports the loss of the object it starts from."""
    settings = ptycho.Settings(**given | {"iterations": 1})
    rng = np.random.default_rng(0)
    return float(ptycho.reconstruct(patterns, OPTICS, settings, rng=rng, object_=object_, probe=probe).loss[0])


def reconstructed(data: Data, slices: int, iterations: int) -> Row:
    given: dict[str, Any] = {"slices": slices, "slice_A": data.specimen.depth_A / slices if slices > 1 else None}
    settings = ptycho.Settings(**given, iterations=iterations, held_out=HELD_OUT)
    result = ptycho.reconstruct(data.patterns, OPTICS, settings, rng=np.random.default_rng(0))
    held = data.without(result.training)
    truth = data.truth(slices)
    stack = np.stack([unwrapped(transmission) for transmission in result.object])
    side_A, pixel_A = data.specimen.side_A, data.pixel_A
    worth = scores(stack.sum(0), truth.sum(0), side_A, pixel_A)
    losses = [result.loss[-1], loss_of(held, given, result.object, result.probe)]
    losses += [loss_of(held, given, np.exp(1j * truth), result.probe)]
    per_iteration_s = float(np.median(np.diff(result.cpu_s)))
    cells = [data.specimen.name, data.dose, f"{slices}", f"{per_iteration_s:.1f}", *(f"{loss:.2f}" for loss in losses)]
    text = "| " + " | ".join([*cells, *(f"{value:.4f}" for value in worth)]) + " |"
    print(text, flush=True)
    return Row(data, slices, stack, text)


def recorded(folder: Path) -> list[Data]:
    """The 20 Å sphere at both doses."""
    table = read_xyz(folder / "truth.extxyz")
    specimen = Specimen("silica286", table.columns["pos"], np.array(table.columns["species"]), 14.0, 20.0, (1, 2, 4))
    out = []
    for dose, name in (("1.6e3", "tilt_+00.h5"), ("1.6e4", "dose1.6e4_tilt_+00.h5")):
        tilt = inspect_tilt(folder / name)
        counts = read_counts(tilt)
        patterns = ptycho.Patterns(counts.reshape(-1, *counts.shape[2:]), positions_A(tilt), tilt.pixel_mrad)
        out.append(Data(specimen, dose, patterns))
    return out


def figure(rows: list[Row], path: Path) -> None:
    """Summed phases of the thick particle at the first dose, and some slices of the first multislice, in the middle."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from PIL import Image

    data = rows[0].data
    several = [("true phase", data.truth(1)[0])]
    several += [(f"{row.slices} slice{'s' * (row.slices > 1)}", row.stack.sum(0)) for row in rows if row.data is data]
    stack = rows[1].stack
    slabs = data.truth(len(stack))
    picked = np.linspace(0, len(stack) - 1, 4).round().astype(int)
    panels = several[:4] + [(f"slice {s + 1} of {len(stack)}", stack[s]) for s in picked]
    panels += [(f"true slab {s + 1}", slabs[s]) for s in picked]
    shown, axes = plt.subplots(3, 4, figsize=(8, 6.4), layout="constrained")
    for ax, (title, image) in zip(axes.flat, panels, strict=True):
        image = centre(blurred(image, BLUR_A, data.pixel_A), SHOWN_A, data.pixel_A)
        low, high = np.percentile(image, (1, 99.7))
        ax.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        ax.set_title(title, fontsize=9)
        ax.set_axis_off()
    shown.suptitle(f"{data.specimen.name}, {data.dose} e⁻/Å², central {SHOWN_A:g} Å")
    shown.savefig(path, dpi=90)
    Image.open(path).convert("L").quantize(32).save(path, optimize=True)


def on_one_thread() -> None:
    """Start again with single-threaded libraries: they read the environment when they are imported."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    if any(os.environ.get(name) != "1" for name in names):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | dict.fromkeys(names, "1"))


def main() -> None:
    on_one_thread()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "pyaet-bench")
    parser.add_argument("--silica286", type=Path, metavar="FOLDER")
    parser.add_argument("--diameter", type=float, default=60.0)
    parser.add_argument("--doses", nargs="*", default=["1.6e4", "1e6"])
    parser.add_argument("--iterations", type=int, default=12)
    options = parser.parse_args()
    specimen = silica_sphere(options.diameter)
    shares, where_A, pixel_mrad = simulated(specimen, options.cache)
    lines = [f"{platform.processor() or platform.machine()}, one thread, {options.iterations} iterations", ""]
    lines += [
        "| particle | dose e⁻/Å² | slices | CPU s per iteration | loss | held-out loss | true loss | correlation | detail | strength |",
        "|" + "---|" * 10,
    ]
    print("\n".join(lines))
    rows: list[Row] = []
    for dose in options.doses:
        counts = np.random.default_rng(4).poisson(shares * float(dose)).astype(np.uint16)
        data = Data(specimen, dose, ptycho.Patterns(counts, where_A, pixel_mrad))
        rows += [reconstructed(data, slices, options.iterations) for slices in specimen.slices]
    for data in recorded(options.silica286) if options.silica286 else []:
        rows += [reconstructed(data, slices, options.iterations) for slices in data.specimen.slices]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "thick.md").write_text("\n".join([*lines, *(row.text for row in rows)]) + "\n")
    figure(rows, RESULTS / "thick.png")


if __name__ == "__main__":
    main()
