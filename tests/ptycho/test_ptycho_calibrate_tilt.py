"""Whole tilts simulated with wrong inputs: each is found, within its error bar, and undone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import ptycho
from ptycho.calibrate import Calibration, calibrate, corrected, frame_matrix, measure_parallax, to_scan_frame
from ptycho.calibrate.overlap import Illumination, Overlap
from ptycho.calibrate.parallax import opposite

N, PIXEL_MRAD, SIDE, STEP_A = 48, 2.5, 28, 0.8
OPTICS = ptycho.Optics(80e3, 30.0, 150.0)
PIXEL_A = OPTICS.wavelength_A / (N * PIXEL_MRAD * 1e-3)
RADIUS_PX = OPTICS.semiangle_mrad / PIXEL_MRAD
GRID_A = STEP_A * (np.stack(np.meshgrid(*(2 * [np.arange(SIDE) - SIDE // 2]), indexing="ij"), -1).reshape(-1, 2))
SCAN = (SIDE, SIDE)


def atoms(seed: int = 1) -> np.ndarray:
    """Positions (n, 2) (y, x) in Å of atoms in a disk of 7 Å that has no symmetry."""
    rng = np.random.default_rng(seed)
    radius, angle = 7 * np.sqrt(rng.random(70)), rng.uniform(0, 2 * np.pi, 70)
    return np.column_stack([radius * np.sin(angle), radius * np.cos(angle)])


def simulate(
    optics: ptycho.Optics = OPTICS,
    electrons: float = 400,
    rotation_deg: float = 0.0,
    transposed: bool = False,
    strength: float = 0.5,
) -> np.ndarray:
    """Counts (n, ky, kx) of a thin object scanned on GRID_A turned into the detector's frame; own forward model."""
    rng = np.random.default_rng(7)
    true = GRID_A @ frame_matrix(rotation_deg, transposed).T / PIXEL_A
    size = 2 * int(np.abs(true).max() + N // 2 + 4)
    y = (np.arange(size) - size // 2) * PIXEL_A
    phase = np.zeros((size, size))
    # The specimen stays where it is in the scan's frame, hence turns in the detector's.
    for at_y, at_x in atoms() @ frame_matrix(rotation_deg, transposed).T:
        phase += strength * np.exp(-((y[:, None] - at_y) ** 2 + (y - at_x) ** 2) / (2 * 0.5**2))
    k = np.fft.fftfreq(N, PIXEL_A)
    k2 = k[:, None] ** 2 + k**2
    radius = optics.semiangle_mrad * 1e-3 / optics.wavelength_A
    angle = 2 * (np.arctan2(k[:, None], k) - np.radians(optics.phi12_deg))
    chi = np.pi * optics.wavelength_A * k2 * (optics.defocus_A - optics.c12_A * np.cos(angle))
    spectrum = np.clip((radius - np.sqrt(k2)) * N * PIXEL_A + 0.5, 0, 1) ** 0.5 * np.exp(1j * chi)
    whole = np.rint(true).astype(int)
    rest = (true - whole) * PIXEL_A
    ramps = np.exp(-2j * np.pi * (rest[:, 0, None, None] * k[:, None] + rest[:, 1, None, None] * k))
    waves = np.fft.fftshift(np.fft.ifft2(spectrum * ramps), axes=(1, 2))
    for wave, (row, column) in zip(waves, whole + size // 2 - N // 2, strict=True):
        wave *= np.exp(1j * phase[row : row + N, column : column + N])
    intensity = np.fft.fftshift(np.abs(np.fft.fft2(waves)) ** 2, axes=(1, 2))
    return rng.poisson(intensity * electrons / intensity[0].sum()).astype(np.uint16)


def check(counts: np.ndarray, optics: ptycho.Optics = OPTICS, positions_A: np.ndarray = GRID_A) -> Calibration:
    return calibrate(counts, positions_A, PIXEL_MRAD, optics, SCAN)


def codes(found: Calibration) -> set[str]:
    return {finding.code for finding in found.findings}


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    return simulate()


@pytest.mark.parametrize("electrons", [60, 5000])
def test_right_inputs_stand(electrons):
    """Nothing is said, nothing is copied, and the measurements agree with the truth."""
    counts = simulate(electrons=electrons)
    found = check(counts)
    assert found.findings == ()
    assert (found.defocus_A, found.rotation_deg, found.transposed, found.scales) == (150.0, 0.0, False, None)
    assert found.parallax is not None and found.disk is not None
    assert found.parallax.illumination.defocus_A == pytest.approx(150, abs=4 * found.defocus_sigma_A)
    assert found.parallax.illumination.rotation_deg == pytest.approx(0, abs=4 * found.rotation_sigma_deg)
    assert found.disk.radius_px == pytest.approx(RADIUS_PX, abs=0.1)
    patterns, optics = corrected(counts, GRID_A, OPTICS, found)
    assert patterns.counts is counts and patterns.mask is None and optics == OPTICS


@pytest.mark.parametrize(
    ("optics", "rotation_deg", "transposed"),
    [
        (OPTICS, 7.0, False),
        (replace(OPTICS, defocus_A=-150.0), -60.0, False),
        (OPTICS, 160.0, False),
        (OPTICS, 25.0, True),
    ],
)
def test_the_frame_of_the_scan_is_found(optics, rotation_deg, transposed):
    """Both signs of the defocus, half a turn told from a reversed defocus by the sign of the phase."""
    found = check(simulate(optics, rotation_deg=rotation_deg, transposed=transposed), optics)
    assert found.transposed is transposed
    assert abs(found.rotation_deg - rotation_deg) < 4 * found.rotation_sigma_deg < 2.0
    assert found.defocus_A == optics.defocus_A
    assert codes(found) == {"rotation"} | ({"transposed"} if transposed else set())


@pytest.mark.parametrize(
    ("mirror", "rotation_deg"), [((0, 2, 1), 0.0), ((slice(None), slice(None), slice(None, None, -1)), 90.0)]
)
def test_mirrored_detectors_are_told_apart(clean, mirror, rotation_deg):
    """kx and ky exchanged, and kx reversed: multiples of a quarter turn are exact, the positions stay on their grid."""
    counts = clean.transpose(mirror) if isinstance(mirror[0], int) else np.roll(clean[mirror], 1, 2)
    found = check(np.ascontiguousarray(counts))
    assert found.transposed and found.rotation_deg == rotation_deg and codes(found) == {"transposed"}
    expected = GRID_A[:, ::-1] if rotation_deg == 0 else GRID_A * [1, -1]
    np.testing.assert_allclose(corrected(counts, GRID_A, OPTICS, found)[0].positions_A, expected, atol=1e-12)


@pytest.mark.parametrize(("stated_A", "used_A"), [(180.0, 150.0), (-150.0, 150.0), (0.0, 150.0)])
def test_a_wrong_defocus_is_found(clean, stated_A, used_A):
    found = check(clean, replace(OPTICS, defocus_A=stated_A))
    assert codes(found) == {"defocus"}
    assert found.defocus_A == pytest.approx(used_A, abs=4 * found.defocus_sigma_A)
    assert corrected(clean, GRID_A, OPTICS, found)[1].defocus_A == found.defocus_A
    assert ("sign" in found.findings[0].sentence) is (stated_A < 0)


def test_a_probe_in_focus_is_measured():
    optics = replace(OPTICS, defocus_A=0.0)
    found = check(simulate(optics, rotation_deg=20.0), replace(OPTICS, defocus_A=100.0))
    assert found.defocus_A == pytest.approx(0, abs=8)
    assert found.rotation_deg == pytest.approx(20, abs=4 * found.rotation_sigma_deg)


@pytest.mark.parametrize("azimuth_deg", [0.0, 120.0])
def test_astigmatism_is_named(azimuth_deg):
    """In the convention of `Optics`; once it is stated it stands."""
    truth = replace(OPTICS, c12_A=25.0, phi12_deg=azimuth_deg)
    counts = simulate(truth)
    found = check(counts)
    assert codes(found) == {"astigmatism"} and found.parallax is not None
    a, b = found.parallax.illumination.astigmatism_A
    assert np.hypot(a, b) == pytest.approx(25, abs=4)
    off = np.degrees(0.5 * np.arctan2(-b, a)) - azimuth_deg
    assert (off + 90) % 180 - 90 == pytest.approx(0, abs=5)
    assert check(counts, truth).findings == ()


def test_all_faults_at_once(clean, rng):
    """Hot pixels, a dead row, a pattern of NaN, shifted, fading, wrong scale, turned positions, defocus reversed."""
    fading = np.linspace(1.0, 0.8, len(clean))
    counts = rng.binomial(clean, fading[:, None, None]).astype(np.float32)
    hot = rng.choice(N * N, 20, replace=False)
    counts.reshape(len(counts), -1)[:, hot] = 20
    counts[:, 20] = 0
    counts = np.roll(counts, (2, -1), (1, 2))
    counts[33] = np.nan
    stated = GRID_A @ frame_matrix(7, False).T
    found = calibrate(counts, stated, 1.06 * PIXEL_MRAD, replace(OPTICS, defocus_A=-150.0), SCAN)
    expected = {
        "invalid_patterns",
        "hot_pixels",
        "dead_lines",
        "centre",
        "pixel_mrad",
        "dose_drift",
        "rotation",
        "defocus",
    }
    assert codes(found) == expected
    assert not any(finding.severe for finding in found.findings)
    assert np.flatnonzero(~found.kept).tolist() == [33]
    assert found.rotation_deg == pytest.approx(-7, abs=1)
    assert found.pixel_mrad == pytest.approx(PIXEL_MRAD, rel=0.01)
    assert found.scales is not None
    np.testing.assert_allclose(found.scales, fading / fading.mean(), atol=0.02)
    patterns, optics = corrected(counts, stated, OPTICS, found)
    assert optics.defocus_A == 150.0
    assert len(patterns.counts) == len(clean) - 1 and patterns.mask is not None
    back = np.delete(GRID_A, 33, axis=0)
    assert np.abs(patterns.positions_A - back).max() < np.deg2rad(1) * np.abs(GRID_A).max() * 1.5
    kept = np.delete(clean, 33, axis=0)
    assert (patterns.counts <= kept * patterns.mask).all()
    assert patterns.counts.sum() == pytest.approx(0.9 * (kept * patterns.mask).sum(), rel=0.01)


def test_the_image_comes_back_into_the_frame_of_the_scan():
    """A reconstruction in the detector's frame, turned back, shows the atoms where they are."""
    counts = simulate(electrons=5000, rotation_deg=20.0, transposed=True)
    found = check(counts)
    patterns, optics = corrected(counts, GRID_A, OPTICS, found)
    result = ptycho.reconstruct(patterns, optics, rng=np.random.default_rng(1))
    phase = to_scan_frame(np.angle(result.object[0]), found.rotation_deg, found.transposed)
    y, x = ((np.arange(n) - n // 2) * result.pixel_A for n in phase.shape)
    truth = sum(np.exp(-((y[:, None] - ay) ** 2 + (x - ax) ** 2) / 0.5) for ay, ax in atoms())
    inside = np.hypot(y[:, None], x) < 8
    assert np.corrcoef(phase[inside], truth[inside])[0, 1] > 0.95


def test_an_empty_field_tells_nothing():
    found = check(simulate(strength=0.0))
    assert codes(found) == {"not_measured"}
    assert found.parallax is None and found.defocus_A == 150.0 and np.isnan(found.defocus_sigma_A)


def test_an_irregular_scan_is_not_measured(clean, rng):
    for positions, scan in ((GRID_A, None), (rng.permutation(GRID_A), SCAN)):
        found = calibrate(clean, positions, PIXEL_MRAD, OPTICS, scan)
        assert codes(found) == {"not_measured"} and found.disk is not None


def test_no_disk_is_said(rng):
    found = check(rng.poisson(0.2, (SIDE * SIDE, N, N)).astype(np.uint8))
    assert codes(found) == {"not_measured"} and found.disk is None


def test_positions_that_jitter_do_no_harm(clean, rng):
    found = check(clean, positions_A=GRID_A + rng.normal(0, 0.1, GRID_A.shape))
    assert found.findings == ()


def test_counts_on_disk_are_read(clean, tmp_path):
    on_disk = np.memmap(tmp_path / "counts", clean.dtype, "w+", shape=clean.shape)
    on_disk[:] = clean
    on_disk.flush()
    read = np.memmap(tmp_path / "counts", clean.dtype, "r", shape=clean.shape)
    found = check(read)
    assert found.findings == ()
    assert corrected(read, GRID_A, OPTICS, found)[0].counts is read


def test_wrong_arguments_are_named(clean):
    with pytest.raises(ValueError, match="flatten the scan axes"):
        calibrate(clean[0], GRID_A, PIXEL_MRAD, OPTICS)
    with pytest.raises(ValueError, match="positions_A has shape"):
        calibrate(clean, GRID_A[:5], PIXEL_MRAD, OPTICS)
    with pytest.raises(ValueError, match="scan_shape is"):
        calibrate(clean, GRID_A, PIXEL_MRAD, OPTICS, (3, 4))
    with pytest.raises(ValueError, match="mask is"):
        calibrate(clean, GRID_A, PIXEL_MRAD, OPTICS, SCAN, np.ones((2, 2), bool))


def random_overlap(rng: np.random.Generator, c30_A: float = 0.0) -> Overlap:
    """A disk of 49 pixels at 30 frequencies, with spectra that obey the weak phase model at Illumination(120, 15)."""
    radius = 0.7
    k = radius * np.stack(np.meshgrid(*(2 * [np.linspace(-0.9, 0.9, 7)]), indexing="ij")).reshape(2, -1)
    q = rng.uniform(-0.4, 0.4, (2, 30))
    empty = np.zeros((30, k.shape[1]), np.complex64)
    weight = np.ones(k.shape[1], np.float32)
    return Overlap(empty, k, q, weight, np.zeros(30, complex), radius, 0.2, OPTICS.wavelength_A, c30_A)


def gamma(overlap: Overlap, at: Illumination) -> np.ndarray:
    """Γ = P*(k) P(k − q) − P(k) P*(k + q), written out with complex probes."""

    def phasor(p: np.ndarray) -> np.ndarray:
        k2 = (p**2).sum(0)
        chi = np.pi * overlap.wavelength_A * np.einsum("a...,ab,b...->...", p, at.aberrations_A, p)
        return np.exp(1j * (chi - 0.5 * np.pi * overlap.wavelength_A**3 * overlap.c30_A * k2**2))

    def probe(p: np.ndarray) -> np.ndarray:
        return np.clip((overlap.radius - np.hypot(*p)) / overlap.edge + 0.5, 0, 1) * phasor(p)

    k, q = overlap.k[:, None, :], (at.frame @ overlap.q)[:, :, None]
    # Super-pixels are those of the disk: the aperture is 1 there.
    return phasor(k).conj() * probe(k - q) - phasor(k) * probe(k + q).conj()


@pytest.mark.parametrize("c30_A", [0.0, 2e5])
def test_the_energy_is_that_of_the_projection_on_weak_scattering(rng, c30_A):
    """All of the energy is explained at the truth, less elsewhere; half a turn with reversed aberrations changes nothing."""
    truth = Illumination(120.0, 15.0, True, (20.0, -10.0))
    overlap = random_overlap(rng, c30_A)
    phase = rng.normal(size=30) + 1j * rng.normal(size=30)
    model = gamma(overlap, truth)
    overlap = replace(overlap, spectra=(1j * phase[:, None] * model).astype(np.complex64))
    norm = (np.abs(model) ** 2).sum(1)
    expected = np.abs(phase) ** 2 * norm**2 / (norm + 1e-3 * norm.max())
    np.testing.assert_allclose(overlap.energy(truth), expected, rtol=1e-3, atol=1e-3 * expected.max())
    if c30_A == 0:
        np.testing.assert_allclose(overlap.energy(opposite(truth)), overlap.energy(truth), rtol=1e-3, atol=1e-2)
    for other in (replace(truth, defocus_A=140.0), replace(truth, rotation_deg=25.0), replace(truth, transposed=False)):
        assert overlap.energy(other).sum() < 0.95 * overlap.energy(truth).sum()


def test_the_sign_of_the_phase_decides_half_a_turn(rng):
    """The dark field of a positive phase is bright where the phase is; that of its negative is found with the other sign."""
    overlap, truth = random_overlap(rng), Illumination(120.0, 15.0)
    phase = rng.normal(size=30) + 1j * rng.normal(size=30)
    overlap = replace(overlap, spectra=(1j * phase[:, None] * gamma(overlap, truth)).astype(np.complex64))
    transfer = np.ones(30)  # any positive transfer will do for the sign; the probe's own is tested by whole tilts
    for sign in (1, -1):
        seen = replace(overlap, dark=sign * 100 * phase * transfer)
        assert np.sign(seen.positivity(truth)) == -np.sign(seen.positivity(opposite(truth)))
    assert measure_parallax(replace(overlap, spectra=0 * overlap.spectra), 100.0) is None
