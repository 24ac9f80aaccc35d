"""Which measured deviations are corrected, and the sentence that says so.

Detector faults, centring and drift of the dose are corrected whenever they are significant. Pixel size, rotation,
handedness and defocus are corrected when they differ from the stated values by more than 4 standard deviations and by more
than a floor below which the reconstruction does better than the measurement. Astigmatism is named only.
"""

from __future__ import annotations

import math

import numpy as np

from ptycho.calibrate.descan import Descan
from ptycho.calibrate.disk import Disk
from ptycho.calibrate.dose import Dose
from ptycho.calibrate.overlap import Illumination
from ptycho.calibrate.parallax import Parallax, opposite
from ptycho.findings import Finding
from ptycho.optics import Optics

SIGMAS = 4.0
ROTATION_FLOOR_DEG = 1.5
DEFOCUS_FLOOR, DEFOCUS_FLOOR_DEPTHS = 0.08, 0.25
PIXEL_FLOOR, PIXEL_FLOOR_PX = 0.015, 0.35
ELLIPTICITY_FLOOR = 0.02
ASTIGMATISM_FLOOR, ASTIGMATISM_FLOOR_DEPTHS = 0.08, 0.25

NOT_MEASURED = "not_measured"


_MIRRORS = {
    0.0: ("y and x of the scan are exchanged", "exchanged"),
    90.0: ("x of the scan runs backwards", "reversed in x"),
    -90.0: ("y of the scan runs backwards", "reversed in y"),
}


def measured(value: float, sigma: float, sign: bool = False) -> str:
    """Value and standard deviation, the latter with one or two digits."""
    digits = max(0, 1 - math.floor(math.log10(sigma))) if sigma > 0 else 2
    digits -= sigma * 10**digits >= 30 and digits > 0
    return f"{value:{'+' if sign else ''}.{digits}f} ± {sigma:.{digits}f}"


def detector_scale(disk: Disk, pixel_mrad: float, optics: Optics, findings: list[Finding]) -> tuple[float, float]:
    """Angle of a pixel to be used, and the sigma of the measured one, in mrad."""
    found = optics.semiangle_mrad / disk.radius_px
    sigma = found * disk.radius_sigma_px / disk.radius_px
    _roundness(disk, findings)
    if abs(found / pixel_mrad - 1) <= max(SIGMAS * sigma / found, PIXEL_FLOOR, PIXEL_FLOOR_PX / disk.radius_px):
        return pixel_mrad, sigma
    sentence = (
        f"the disk has a radius of {measured(disk.radius_px, disk.radius_sigma_px)} px: at {optics.semiangle_mrad:g} mrad a "
        f"pixel is {found:.4g} mrad, {measured(100 * (found / pixel_mrad - 1), 100 * sigma / pixel_mrad, True)} % against the "
        f"{pixel_mrad:.4g} mrad stated. pixel_mrad was corrected; if it was right, the semiangle is "
        f"{disk.radius_px * pixel_mrad:.3g} mrad."
    )
    findings.append(Finding("pixel_mrad", sentence))
    return found, sigma


def _roundness(disk: Disk, findings: list[Finding]) -> None:
    if max(map(abs, disk.ellipticity)) <= max(SIGMAS * disk.ellipticity_sigma, ELLIPTICITY_FLOOR):
        return
    along, diagonal = (measured(100 * e, 100 * disk.ellipticity_sigma, True) for e in disk.ellipticity)
    sentence = (
        f"the disk is not round: its radius changes by {along} % along y and by {diagonal} % along the diagonal. Nothing was "
        "done; correct the distortion of the camera."
    )
    findings.append(Finding("elliptical_disk", sentence))


def centring(disk: Disk, descan: Descan | None, positions_A: np.ndarray, findings: list[Finding]) -> np.ndarray:
    """Centre (n, 2) in px about index n // 2 that each pattern is to be freed of."""
    if descan is not None and descan.significant:
        sentence = (
            f"the disk moves by {measured(descan.range_px, descan.range_sigma_px)} px over the scan (descan): every pattern "
            "was rolled to its centre by whole pixels."
        )
        findings.append(Finding("descan", sentence))
        return descan.centres_px(positions_A)
    y, x = disk.centre_px
    if max(abs(round(y)), abs(round(x))) > 0:
        sentence = (
            f"the disk is centred at ({y:+.2f}, {x:+.2f}) ± {disk.centre_sigma_px:.1g} px (y, x) from the centre of the "
            f"patterns: they were rolled by ({-round(y)}, {-round(x)}) px."
        )
        findings.append(Finding("centre", sentence))
    return np.tile(disk.centre_px, (len(positions_A), 1))


def drift(dose: Dose, findings: list[Finding]) -> np.ndarray | None:
    """Relative dose (n,) to be used, None when it does not drift."""
    if not dose.significant:
        return None
    sentence = (
        f"the dose drifts by {measured(100 * dose.range, 100 * dose.range_sigma)} % over the acquisition: every pattern "
        "carries its own scale."
    )
    findings.append(Finding("dose_drift", sentence))
    return dose.scales


def frame(
    rotation_deg: float, sigma_deg: float, transposed: bool, handed_sigmas: float, findings: list[Finding]
) -> tuple[float, bool]:
    """Rotation in degrees and exchange of y and x to be applied to the positions; quarter turns are taken to be exact."""
    quarter = 90.0 * round(rotation_deg / 90)
    exact = abs(rotation_deg - quarter) <= max(SIGMAS * sigma_deg, ROTATION_FLOOR_DEG)
    turn = 180.0 - (180.0 - quarter) % 360 if exact else rotation_deg
    if transposed:
        what, done = _MIRRORS.get(turn, _MIRRORS[0.0])
        sentence = f"{what} against the detector ({handed_sigmas:.0f} standard deviations): positions were {done}."
        findings.append(Finding("transposed", sentence))
    if turn == 0 or (transposed and turn in _MIRRORS):
        return turn, transposed
    after = " after y and x were exchanged" if transposed else ""
    sentence = (
        f"the scan is rotated by {measured(rotation_deg, sigma_deg)}° against the detector{after}: positions were turned"
        f"{f' by {turn:g}°' if exact else ''}."
    )
    findings.append(Finding("rotation", sentence))
    return turn, transposed


def illumination(parallax: Parallax, optics: Optics, findings: list[Finding]) -> tuple[float, float, bool]:
    """Defocus in Å, rotation in degrees and exchange of y and x to be used."""
    at, stated = parallax.illumination, optics.defocus_A
    if parallax.sign_sigmas < SIGMAS:
        at = min((at, opposite(at)), key=lambda a: abs(a.rotation_deg))
        if at.defocus_A * stated < 0:
            sentence = (
                "either the sign of the defocus is wrong or the scan is turned by half a turn; the specimen scatters too "
                "little to tell which. The sign was taken to be wrong: check it."
            )
            findings.append(Finding("sign_unknown", sentence, severe=True))
    turn, transposed = frame(
        at.rotation_deg, parallax.rotation_sigma_deg, at.transposed, parallax.handed_sigmas, findings
    )
    depth = optics.wavelength_A / (optics.semiangle_mrad * 1e-3) ** 2
    _astigmatism(at, parallax.astigmatism_sigma_A, optics, depth, findings)
    return _defocus(at.defocus_A, parallax.defocus_sigma_A, stated, depth, findings), turn, transposed


def _defocus(found: float, sigma: float, stated: float, depth_A: float, findings: list[Finding]) -> float:
    tolerance = max(SIGMAS * sigma, DEFOCUS_FLOOR * abs(stated), DEFOCUS_FLOOR_DEPTHS * depth_A)
    if abs(found - stated) <= tolerance:
        return stated
    flipped = abs(found + stated) <= tolerance
    done = "the sign of the defocus was flipped" if flipped else f"the defocus was set to {found:.0f} Å"
    sentence = (
        f"the patterns say that the crossover lies {measured(abs(found), sigma)} Å {_side(found)} of the specimen, the file "
        f"says {abs(stated):g} Å {_side(stated)}: {done}."
    )
    findings.append(Finding("defocus", sentence))
    return -stated if flipped else found


def _side(defocus_A: float) -> str:
    return "downstream" if defocus_A >= 0 else "upstream"


def _astigmatism(at: Illumination, sigma: float, optics: Optics, depth_A: float, findings: list[Finding]) -> None:
    found, azimuth = at.astigmatism_A, math.radians(2 * optics.phi12_deg)
    stated = optics.c12_A * math.cos(azimuth), -optics.c12_A * math.sin(azimuth)
    floor = max(ASTIGMATISM_FLOOR * abs(at.defocus_A), ASTIGMATISM_FLOOR_DEPTHS * depth_A)
    if math.dist(found, stated) <= max(SIGMAS * sigma, floor):
        return
    size, axis = math.hypot(*found), math.degrees(0.5 * math.atan2(-found[1], found[0]))
    sentence = (
        f"the patterns say that the illumination has a twofold astigmatism c12_A of {measured(size, sigma)} Å at phi12_deg = "
        f"{axis:.0f}, stated are {optics.c12_A:g} Å at {optics.phi12_deg:g}. Nothing was done: state it or refine the probe."
    )
    findings.append(Finding("astigmatism", sentence))
