"""The section of the volume: its slices, and what tells whether it can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyaet.plots import quality, tomography
from pyaet.plots.results import VolumeQuality, read_volume, read_volume_quality
from pyaet.report.html import Section
from pyaet.report.sections import shown, stage_numbers


def volume_section(directory: Path, summary: Mapping[str, Any]) -> Section | None:
    volume = read_volume(directory / "volume.h5")
    if volume is None:
        return None
    extra = {
        "volume_voxels": list(volume.shape),
        "voxel_A": volume.voxel_A,
    }
    pieces = [shown(tomography.draw_slices(volume.slices, volume.voxel_A), "slices", "Three central slices of the volume",
                    "Slices through the centre, one voxel thick; the beam runs along z, the tilt axis along y.")]  # fmt: skip
    found = read_volume_quality(directory / "volume.h5")
    if found is not None:
        extra["r_factor"] = float(found.r_factor[-1])
        figure = quality.draw_quality(found)
        pieces.append(shown(figure, "quality", "What tells whether the volume can be trusted", _caption(found)))
    sentence = (
        "The reconstructed density. Good: separate round spots of equal size on a dark ground in all three cuts; bad: spots drawn "
        "out along z (missing wedge), doubled spots (misalignment), streaks. The R-factor should flatten; how low it ends "
        "depends on the noise of the images and does not rank the accuracy of the atoms."
    )
    return Section("volume", "Volume", sentence, (*pieces, stage_numbers(summary, "tomography", extra)))


def _caption(found: VolumeQuality) -> str:
    """One sentence for each picture that is there."""
    said = []
    if found.r_free is not None:
        said.append(
            "R-factor: mismatch between the measured images and those of the volume, and of tilts held out to find the number of "
            "iterations; their mismatch in squares is least at the line."
        )
    elif len(found.r_factor) > 1:
        said.append("R-factor: mismatch between the measured images and those of the volume.")
    if found.fsc:
        said.append(
            "Fourier shell correlation: the tilts were parted in two and reconstructed apart; details are real down to where the two "
            "volumes agree to less than 0.143, and a curve that falls earlier along one axis means that atoms are drawn out along it."
        )
    if found.unseen_r is not None:
        said.append(
            "Mismatch of every tilt: fitted, and predicted by the half that had not seen it; a tilt that stands out is misaligned, "
            "damaged or wrongly labelled, and two curves far apart mean that noise is being fitted."
        )
    if found.plane_deg is not None:
        said.append("Missing wedge: every tilt measures one plane of frequencies (lines, seen along the tilt axis); nobody measured "
                    "what is shaded." if found.wedge_deg else
                    "Every tilt measures one plane of frequencies (lines, seen along the tilt axis); no wedge is left out.")  # fmt: skip
    return " ".join(said)
