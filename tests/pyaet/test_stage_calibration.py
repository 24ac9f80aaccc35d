"""Wrong numbers of a series: put right for all tilts alike, or told alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from ptycho import Finding
from ptycho.calibrate import Calibration
from pyaet.console import Console
from pyaet.io.fourdstem import SCALARS, TiltFile, inspect_tilt, list_tilts, read_counts, write_tilt
from pyaet.plan import Ptychography
from pyaet.stages.calibration import calibrated, made_common
from pyaet.stages.context import Context
from pyaet.stages.ptychography import reconstruct_tilts

TILT = TiltFile(80e3, 30.0, 120.0, 0.5, 2.0, 1e4, (0.0, 0.0, 0.0), Path("t.h5"), (10, 10, 32, 32))


def found(n: int = 100, *codes: str, **changes: object) -> Calibration:
    findings = tuple(Finding(code, f"{code} is wrong.") for code in codes)
    plain = Calibration(
        np.ones((32, 32), bool), np.ones(n, bool), np.zeros((n, 2)), 2.0, 120.0,
        defocus_sigma_A=1.0, rotation_sigma_deg=0.2, findings=findings,
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]


def common(*each: Calibration) -> list[Calibration]:
    return made_common(each, [TILT] * len(each))


def test_what_most_tilts_ask_for_is_done_to_all_alike() -> None:
    asking = [found(100, "pixel_mrad", "rotation", pixel_mrad=p, rotation_deg=r) for p, r in ((2.1, 9.0), (2.12, 11.0))]
    out = common(*asking, found())
    assert {one.pixel_mrad for one in out} == {2.0 * np.median([1.05, 1.06])}
    assert [one.rotation_deg for one in out] == pytest.approx([10.0] * 3)
    assert "All tilts share one rotation_deg: 10 was taken." in out[0].findings[1].sentence


def test_what_few_tilts_ask_for_is_told_and_not_done() -> None:
    out = common(found(), found(), found(100, "pixel_mrad", "transposed", pixel_mrad=2.4, transposed=True))
    assert {one.pixel_mrad for one in out} == {2.0}
    assert not any(one.transposed for one in out)
    assert [f.sentence for f in out[2].findings] == [
        "pixel_mrad is wrong. All tilts share one pixel_mrad: 2 was taken.",
        "transposed is wrong. All tilts share one transposed: false was taken.",
    ]


def test_rotations_about_the_half_turn_have_their_median_there() -> None:
    out = common(*(found(100, "rotation", rotation_deg=r) for r in (178.0, -179.0, -178.0)))
    assert out[0].rotation_deg == pytest.approx(-179.0)


def test_a_tilt_that_took_the_half_turn_for_the_other_defocus_is_turned_back() -> None:
    turned = found(100, "rotation", rotation_deg=180.0, defocus_A=-118.0)
    out = common(found(), found(), turned)
    assert [one.defocus_A for one in out] == [120.0, 120.0, 118.0]


def test_an_unmeasured_tilt_takes_the_defocus_of_the_others() -> None:
    asking = [found(100, "defocus", defocus_A=d) for d in (80.0, 82.0)]
    blind = found(100, "not_measured", defocus_sigma_A=np.nan, rotation_sigma_deg=np.nan)
    assert [one.defocus_A for one in common(*asking, blind)] == [80.0, 82.0, 81.0]


def exchanged(right: Path, folder: Path) -> list[TiltFile]:
    """The tilts with y and x of the scan exchanged and one pixel of the detector hot."""
    out = []
    for path in right.glob("t_*.h5"):
        tilt = inspect_tilt(path)
        counts = read_counts(tilt).swapaxes(0, 1).copy()
        counts[..., 3, 5] = 60000
        told = {name: getattr(tilt, name) for name in (*SCALARS, "angles_deg")}
        out.append(write_tilt(folder / path.name, counts, **told))
    return sorted(out, key=lambda tilt: tilt.angles_deg)


def test_a_wrong_frame_and_a_hot_pixel_are_put_right_or_told(make_tilt: Callable[..., None], tmp_path: Path) -> None:
    for theta in (-40, 0, 40):
        make_tilt(tmp_path / "right" / f"t_{theta}.h5", theta, scan=24)
    wrong = exchanged(tmp_path / "right", tmp_path / "wrong")
    context = Context("cpu", 1, 0, Console(terminal=False), "key")

    def run(tilts: list[TiltFile], mode: str) -> tuple[np.ndarray, list[str]]:
        folder = tmp_path / mode
        settings = Ptychography(iterations=3, calibrate=mode)
        told = reconstruct_tilts(tilts, folder, folder / "projections.h5", settings, context)
        with h5py.File(folder / "projections.h5") as file:
            return file["projections"][()], told["warnings"]

    known, _ = run(list_tilts(tmp_path / "right"), "off")
    mended, warned = run(wrong, "auto")
    assert any(s.startswith("all tilts") and "y and x of the scan are exchanged" in s for s in warned)
    assert any(s.startswith("all tilts: 1 pixel") and "masked" in s for s in warned)
    # The frame is the detector's while reconstructing and the scan's again in the end.
    assert np.corrcoef(mended.ravel(), known.transpose(0, 2, 1).ravel())[0, 1] > 0.95
    _, told = run(wrong, "report")
    assert all('with calibrate = "auto", nothing was changed: ' in s for s in told if "exchanged" in s or "masked" in s)
    with h5py.File(tmp_path / "report" / "tilt_000.h5") as a, h5py.File(tmp_path / "auto" / "tilt_000.h5") as b:
        codes = [[f["code"] for f in json.loads(file.attrs["findings"])] for file in (a, b)]
        assert (bool(a.attrs["transposed"]), bool(b.attrs["transposed"])) == (False, True)
    assert "transposed" in codes[0]
    assert set(codes[1]) <= set(codes[0])


def test_calibration_can_be_left_out(tilt_series: Path) -> None:
    tilts = [inspect_tilt(p) for p in tilt_series.glob("t_*.h5")]
    assert calibrated(tilts, Ptychography(calibrate="off"), 1) == [None] * 5


@pytest.mark.parametrize("turn", [90.0, -90.0])
def test_a_mirrored_scan_keeps_its_quarter_turn(turn: float) -> None:
    # An axis that runs backwards is an exchange of y and x with a quarter turn, told as one finding.
    mirrored = found(100, "transposed", transposed=True, rotation_deg=turn)
    for one in common(mirrored, mirrored, found()):
        assert one.transposed and one.rotation_deg == pytest.approx(turn)
