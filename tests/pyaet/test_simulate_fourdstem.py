"""4D-STEM simulation against absolute anchors: where an atom appears, how many electrons arrive, abTEM's own multislice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pyaet.io.fourdstem import inspect_tilt, read_counts
from pyaet.simulate.fourdstem import Recording, simulate_patterns, simulate_series, simulate_tilt
from pyaet.simulate.multislice import diffraction, probe_spectrum, transmission, wavelength_A
from tomo.geometry import rotation

SMALL = Recording(
    defocus_A=60.0, scan_shape=(9, 9), step_A=1.0, window_A=12.0, max_angle_mrad=45.0, phonons=1, phonon_sigma_A=0.0
)
CLUSTER = np.array([[1.5, -1.0, 2.0], [-1.8, 0.6, -2.5], [0.3, 2.1, 0.4]])
SYMBOLS = ("Si", "O", "Si")


def test_wavelength_at_80_and_300_keV() -> None:
    assert wavelength_A(80e3) == pytest.approx(0.041757, abs=1e-6)
    assert wavelength_A(300e3) == pytest.approx(0.019687, abs=1e-6)


def test_detector_and_sampling_follow_from_the_window() -> None:
    recording = Recording(window_A=36.0, detector_pixels=106, pitch_A=0.15)
    assert recording.pixel_mrad == pytest.approx(1.159921, abs=1e-6)
    assert recording.grid(10.0).window == 240
    coarse = Recording()
    grid = coarse.grid(6.0)
    assert coarse.detector * coarse.pixel_mrad / 2 >= coarse.max_angle_mrad
    assert grid.passband[0].sum() >= coarse.detector


def tilted_atom_centre(theta: float, defocus_A: float) -> np.ndarray:
    """Where the patterns say a single atom is, (y, x) in Å: the probe is deflected towards it from all sides."""
    recording = replace(SMALL, scan_shape=(13, 13), step_A=0.75, defocus_A=defocus_A)
    patterns = simulate_patterns(
        np.array([[1.5, -0.75, 2.0]]), ["Si"], (0, theta, 0), recording, rng=np.random.default_rng(0)
    )
    n = patterns.shape[-1]
    k = np.arange(n) - n // 2
    total = patterns.sum(axis=(2, 3))
    towards = np.stack([(patterns * k[:, None]).sum(axis=(2, 3)), (patterns * k).sum(axis=(2, 3))]) / total
    # An attractive atom is the sink of the deflection field: least squares for the point all deflections aim at.
    at = recording.positions_A.reshape(13, 13, 2)
    divergence = -(np.gradient(towards[0], axis=0) + np.gradient(towards[1], axis=1))
    weight = np.maximum(divergence, 0.5 * divergence.max()) - 0.5 * divergence.max()
    return (at * weight[..., None]).sum(axis=(0, 1)) / weight.sum()


@pytest.mark.parametrize("theta", [0.0, 40.0, -40.0])
def test_single_atom_appears_where_the_rotation_puts_it(theta: float) -> None:
    x, y, _ = rotation(np.array([[0, theta, 0]]))[0] @ [1.5, -0.75, 2.0]
    np.testing.assert_allclose(tilted_atom_centre(theta, defocus_A=15.0), [y, x], atol=0.15)


def test_defocus_sign_puts_the_crossover_downstream() -> None:
    """Below the particle the beam still converges: the bright-field disk is the probe's shadow, turned by 180 degrees.

    With the crossover downstream a ray at angle α passes the particle at -defocus × α, so an atom at +x scatters out of
    the rays with α < 0: the disk is darker, or at least changed, on the side of negative kx.
    """
    atom = np.array([[1.2, 0.0, 0.0]])
    for defocus, side in ((60.0, -1), (-60.0, 1)):
        recording = replace(SMALL, defocus_A=defocus, scan_shape=(1, 1))
        with_atom, without = (
            simulate_patterns(at, ["Si"], (0, 0, 0), recording, rng=np.random.default_rng(0))[0, 0]
            for at in (atom, np.array([[1.2, 40.0, 0.0]]))
        )
        n = len(with_atom)
        k = (np.arange(n) - n // 2) * recording.pixel_mrad
        inside = np.hypot(k[:, None], k) < 0.8 * recording.semiangle_mrad
        change = (np.abs(with_atom - without) * inside).sum(axis=0)
        assert np.sign((change * k).sum()) == side


def test_the_beam_is_complete_and_within_the_aperture_in_vacuum() -> None:
    far = np.array([[0.0, 40.0, 0.0]])
    patterns = simulate_patterns(far, ["O"], (0, 0, 0), replace(SMALL, scan_shape=(2, 2)), rng=np.random.default_rng(0))
    np.testing.assert_allclose(patterns.sum(axis=(2, 3)), 1.0, atol=2e-4)
    n = patterns.shape[-1]
    k = (np.arange(n) - n // 2) * SMALL.pixel_mrad
    angle = np.hypot(k[:, None], k)
    assert patterns[..., angle > SMALL.semiangle_mrad + 2 * SMALL.pixel_mrad].max() < 1e-5
    np.testing.assert_allclose(patterns, np.roll(patterns[..., ::-1, ::-1], (1, 1), (-2, -1)), atol=2e-5)


def test_mean_counts_are_dose_times_step_squared() -> None:
    recording = replace(SMALL, dose_e_per_A2=4e3)
    counts = simulate_tilt(CLUSTER, SYMBOLS, (0, 20, 0), recording, rng=np.random.default_rng(1))
    assert counts.dtype.kind == "u"
    assert counts.sum(axis=(2, 3)).mean() == pytest.approx(4e3, rel=0.01)
    expected = simulate_patterns(CLUSTER, SYMBOLS, (0, 20, 0), recording, rng=np.random.default_rng(1)) * 4e3
    seen = expected > 0.5
    assert ((counts - expected) ** 2 / expected)[seen].mean() == pytest.approx(1.0, abs=0.05)


def test_windows_agree_with_abtem_scanning_a_fixed_cell() -> None:
    """The same potential under abTEM's own multislice and scan gives the same bright-field disk."""
    import abtem
    from ase import Atoms

    recording = replace(SMALL, scan_shape=(2, 2), step_A=1.37)
    grid = recording.grid(4.0)
    layers = transmission(CLUSTER, SYMBOLS, grid)
    spectrum = probe_spectrum(grid, recording.semiangle_mrad, recording.defocus_A)
    _, ours = next(iter(diffraction([layers], spectrum, recording.positions_A, grid)))
    width = grid.window * grid.pitch_A
    shift = [width / 2, width / 2, grid.depth_A / 2]
    atoms = Atoms(SYMBOLS, positions=CLUSTER[:, [1, 0, 2]] + shift, cell=[width, width, grid.depth_A])
    with abtem.config.set({"precision": "float64", "diagnostics.progress_bar": False}):
        potential = abtem.Potential(atoms, gpts=grid.window, slice_thickness=grid.slice_A, projection="infinite")
        # abTEM's slices act at their entrance faces, half a slice above ours.
        defocus = recording.defocus_A + (grid.depth_A - grid.slice_A) / 2
        probe = abtem.Probe(energy=80e3, semiangle_cutoff=30, defocus=defocus, gpts=grid.window, extent=(width, width))
        scan = abtem.CustomScan(recording.positions_A + width / 2)
        waves = probe.multislice(potential.build(lazy=False), scan=scan, lazy=False)
    theirs = np.abs(np.fft.fft2(waves.array)) ** 2
    theirs /= theirs.sum(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(ours, theirs, atol=0.01 * theirs.max())
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.9995


def test_series_resumes_and_is_the_same_in_any_order(tmp_path: Path) -> None:
    recording = replace(SMALL, scan_shape=(2, 2), phonon_sigma_A=0.07)
    angles = np.array([[0, 6, 0], [0, -6, 0]])
    seen: list[tuple[int, int]] = []
    tilts = simulate_series(
        CLUSTER,
        SYMBOLS,
        angles,
        recording,
        tmp_path,
        seed=3,
        progress=lambda done, total, _: seen.append((done, total)),
    )
    assert seen == [(1, 2), (2, 2)]
    assert [tilt.angles_deg for tilt in tilts] == [(0, 6, 0), (0, -6, 0)]
    first = read_counts(tilts[0])
    stamps = [tilt.path.stat().st_mtime_ns for tilt in tilts]
    tilts[1].path.unlink()
    again = simulate_series(CLUSTER, SYMBOLS, angles[::-1], recording, tmp_path, seed=3)
    assert again[1].path.stat().st_mtime_ns == stamps[0]
    other = simulate_series(CLUSTER, SYMBOLS, angles[:1], recording, tmp_path / "alone", seed=3)
    np.testing.assert_array_equal(read_counts(other[0]), first)
    stale = simulate_series(CLUSTER, SYMBOLS, angles[:1], recording, tmp_path, seed=4)
    assert not np.array_equal(read_counts(stale[0]), first)
    assert inspect_tilt(stale[0].path).pixel_mrad == recording.pixel_mrad


@pytest.mark.slow
def test_processes_change_no_count(tmp_path: Path) -> None:
    recording = replace(SMALL, scan_shape=(2, 2))
    angles = np.array([[0, 6, 0], [0, -6, 0]])
    one, two = (
        simulate_series(CLUSTER, SYMBOLS, angles, recording, tmp_path / str(n), seed=0, workers=n) for n in (1, 2)
    )
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(read_counts(a), read_counts(b))


@pytest.mark.slow
def test_convention_and_statistics_of_the_published_series(shared: Path) -> None:
    """Noise-free patterns of the published truth explain the published counts to the Poisson limit, only at +24°."""
    from pyaet.io.structures import read_structure

    atoms = read_structure(shared / "silica286" / "truth.extxyz")
    counts = read_counts(inspect_tilt(shared / "silica286" / "dose1.6e4_tilt_+24.h5"))[4:52:6, 4:52:6].astype(float)
    recording = Recording(
        defocus_A=180.0, scan_shape=(8, 8), step_A=3.0, window_A=36.0, detector_pixels=106, pitch_A=0.15, phonons=4
    )

    def chi2(theta: float, defocus_A: float = 180.0) -> float:
        at = replace(recording, defocus_A=defocus_A)
        rng = np.random.default_rng(0)
        expected = 4e3 * simulate_patterns(atoms.positions_A, atoms.symbols, (0, theta, 0), at, rng=rng)
        seen = expected > 1
        return float(((counts - expected) ** 2 / expected)[seen].mean())

    right = chi2(24)
    assert right == pytest.approx(1.0, abs=0.01)
    assert min(chi2(-24), chi2(24, -180.0)) > right + 0.02


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"window_A": 3.0}, "widen the window or reduce the defocus"),
        ({"max_angle_mrad": 20.0}, "less than the semiangle of 30 mrad"),
        ({"dose_e_per_A2": -1.0}, "dose_e_per_A2 is -1.0; expected a positive number"),
        ({"phonons": 0}, "phonons is 0"),
        ({"scan_shape": (0, 4)}, "expected at least one position"),
    ],
)
def test_impossible_recordings(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(SMALL, **changes)  # type: ignore[arg-type]


def test_impossible_atoms_and_angles(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"positions_A has shape \(3,\)"):
        simulate_patterns(np.zeros(3), ["Si"], (0, 0, 0), SMALL, rng=rng)
    with pytest.raises(ValueError, match="symbols has 1 entries for 3 atoms"):
        simulate_patterns(CLUSTER, ["Si"], (0, 0, 0), SMALL, rng=rng)
    with pytest.raises(ValueError, match=r"angles_deg has shape \(3,\)"):
        simulate_series(CLUSTER, SYMBOLS, np.zeros(3), SMALL, tmp_path, seed=0)
    with pytest.raises(ValueError, match="the same tilt twice"):
        simulate_series(CLUSTER, SYMBOLS, np.zeros((2, 3)), SMALL, tmp_path, seed=0)
