"""Figures hold the data they were given: counts, positions, lengths of scale bars, labels with units."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyaet.plots import atoms, images, ptychography, quality, structure, style, tomography
from pyaet.plots.atoms_3d import MAX_BONDS_3D, atoms_in_3d
from pyaet.plots.results import VolumeQuality
from pyaet.plots.road import draw_road


def bars(axes: Axes, label: str) -> np.ndarray:
    """Return the heights of the bars whose container carries the label."""
    container = next(c for c in axes.containers if label in (c.get_label(), c[0].get_label()))
    return np.array([patch.get_height() for patch in container.patches])


def scale_bar_length(axes: Axes) -> float:
    line = next(line for line in axes.lines if line.get_label() == "_scale bar")
    return float(np.ptp(line.get_xdata()))


def labels(figure: Figure) -> str:
    return " | ".join(text for axes in figure.axes for text in (axes.get_xlabel(), axes.get_ylabel()))


@pytest.mark.parametrize(("limit", "expected"), [(1.0, 1.0), (4.9, 2.0), (0.35, 0.2), (51, 50), (0.0999, 0.05)])
def test_nice_length(limit: float, expected: float) -> None:
    assert style.nice_length(limit) == pytest.approx(expected)


def test_drawing_leaves_the_global_settings_alone() -> None:
    before = dict(matplotlib.rcParams)
    quality.draw_quality(worth())
    assert dict(matplotlib.rcParams) == before


def test_elements_get_colours_one_can_tell_apart() -> None:
    colours = style.element_colours(("Ge", "Si", "Sn", "Co", "Pd", "Pt", "Ge"))
    assert len(set(colours.values())) == 6
    assert style.element_colours(["Si", "O"])["O"] == style.ELEMENT_COLOURS["O"]
    assert style.element_colours(["U"])["U"].startswith("#")


def test_shrink_averages_blocks_and_keeps_the_sum() -> None:
    image = np.arange(600.0).reshape(20, 30)
    small, block = images.shrink(image, 10)
    assert block == 3 and small.shape == (6, 10)
    assert small[0, 0] == pytest.approx(image[:3, :3].mean())
    assert images.shrink(image)[1] == 1


def test_images_carry_scale_bar_in_their_own_pixels_and_unit() -> None:
    image = np.random.default_rng(0).normal(size=(100, 100))
    figure = images.draw_images([image, image], 0.5, ["a", "b"], "phase (rad)")
    first, second, bar = figure.axes
    assert scale_bar_length(first) == pytest.approx(10.0)  # 0.28 of 50 Å allows 10 Å
    assert [text.get_text() for text in first.texts] == ["1 nm"]
    assert bar.get_ylabel() == "phase (rad)"
    np.testing.assert_allclose(second.images[0].get_array(), image, rtol=1e-6)
    assert first.images[0].get_clim() == second.images[0].get_clim()


def test_before_after_keeps_both_images_and_their_own_units() -> None:
    figure = images.draw_before_after(np.eye(8), 3 * np.eye(8), 0.2, "signal (electrons)", ("raw", "done"), "counts")
    assert [axes.images[0].get_array().max() for axes in figure.axes[:2]] == [1.0, 3.0]
    assert {axes.get_ylabel() for axes in figure.axes[2:]} == {"counts", "signal (electrons)"}


def test_constant_and_empty_images_can_be_drawn() -> None:
    figure = images.draw_pattern_and_projection(
        np.zeros((16, 16)), np.full((16, 16), np.nan), 0.2, "phase (rad)", ("p", "i"), 0.05
    )
    figure.savefig(io.BytesIO(), format="png", dpi=40)


def test_pattern_scale_bar_is_in_reciprocal_length() -> None:
    figure = images.draw_pattern_and_projection(np.ones((40, 40)), np.eye(40), 0.2, "phase (rad)", ("p", "i"), 0.1)
    assert scale_bar_length(figure.axes[0]) == pytest.approx(1.0)
    assert figure.axes[0].texts[0].get_text() == "1 Å⁻¹"


def test_probe_shows_the_share_of_power_of_each_mode() -> None:
    probe = np.zeros((2, 8, 8), np.complex64)
    probe[0, 4, 4], probe[1, 2, 2] = 3.0, 1j
    np.testing.assert_allclose(ptychography.mode_shares(probe), [0.9, 0.1])
    titles = [axes.get_title(loc="left") for axes in ptychography.draw_probe(probe, 0.1).axes]
    assert "mode 1, 90.0 % of power" in titles and "mode 2, 10.0 % of power" in titles


def test_every_loss_is_one_line() -> None:
    losses = [np.array([3.0, 2.0, 1.5]), np.array([4.0, 1.0])]
    figure = ptychography.draw_losses(losses, np.array([-30.0, 40.0]))
    drawn = [np.asarray(line.get_ydata()) for line in figure.axes[0].lines]
    assert all(np.array_equal(a, b) for a, b in zip(drawn, losses, strict=True))
    assert figure.axes[0].get_yscale() == "log"
    assert "tilt θ (°)" in labels(figure)
    assert ptychography.draw_losses([np.array([-1.0, -2.0])], np.zeros(1)).axes[0].get_yscale() == "linear"


def test_alignment_is_sorted_by_tilt_and_labelled() -> None:
    tilts, shifts = np.array([10.0, -20.0, 0.0]), np.array([[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]])
    figure = tomography.draw_alignment(tilts, shifts, np.ones(3), np.zeros(3), "rad")
    along_y, along_x = (np.asarray(line.get_ydata()) for line in figure.axes[0].lines[:2])
    assert along_y.tolist() == [2.0, 3.0, 1.0] and along_x.tolist() == [5.0, 6.0, 4.0]
    assert "shift (Å)" in labels(figure) and "background (rad)" in labels(figure)


def test_sinogram_rows_run_from_low_to_high_tilt() -> None:
    rows = np.arange(12.0).reshape(3, 4)
    axes = tomography.draw_sinograms([rows], [np.array([30.0, -30.0, 0.0])], [0.5], ["before"], "phase (rad)").axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), rows[[1, 2, 0]])
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["−30", "0", "+30"]


def test_slices_name_their_axes_and_share_a_range() -> None:
    slices = [np.full((4, 6), 1.0), np.full((8, 6), 2.0), np.full((8, 4), 3.0)]
    figure = tomography.draw_slices(slices, 0.3)
    assert [axes.get_title(loc="left") for axes in figure.axes[:3]] == ["z = 0", "y = 0", "x = 0"]
    assert len({axes.images[0].get_clim() for axes in figure.axes[:3]}) == 1
    assert scale_bar_length(figure.axes[2]) == pytest.approx(0.2)


def worth(**given: Any) -> VolumeQuality:
    """What a volume with five tilts and no judgement tells, and what is given."""
    nothing = VolumeQuality(
        np.array([0.9, 0.4, 0.1234]), None, np.array([-60.0, -30, 0, 30, 60]), None, None, np.zeros(0, int), np.zeros(0), {}, {}, None,
        0.0, True,
    )  # fmt: skip
    return replace(nothing, **given)


def test_r_factor_writes_its_last_value() -> None:
    (axes,) = quality.draw_quality(worth()).axes
    assert axes.texts[0].get_text() == "0.1234"
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [0.9, 0.4, 0.1234])


def test_r_free_goes_on_beyond_the_iterations_chosen_by_it() -> None:
    axes = quality.draw_quality(worth(r_free=np.array([0.9, 0.5, 0.45, 0.46, 0.5]))).axes[0]
    assert [text.get_text() for text in axes.texts] == ["0.1234", "0.45"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["fitted", "held out (trial)"]


def test_correlation_is_drawn_with_its_threshold_and_resolutions() -> None:
    curves = {part: np.linspace(1, 0, 8) for part in ("all", "x", "y", "z")}
    reached = {"resolution_A": 1.25, "resolution_x_A": 1.0, "resolution_y_A": 1.0, "resolution_z_A": float("nan")}
    figure = quality.draw_quality(worth(fsc=curves, frequency_per_A=np.arange(1, 9) / 8, resolution_A=reached))
    axes = figure.axes[1]
    told = [text.get_text() for text in axes.get_legend().get_texts()]
    assert told == ["all directions: 1.25 Å", "along x: 1 Å", "along y: 1 Å", "along z: –"]
    level = [line.get_ydata()[0] for line in axes.lines if len(set(np.asarray(line.get_ydata()).tolist())) == 1]
    assert level[0] == 0.143
    assert "spatial frequency (Å⁻¹)" in labels(figure)


def test_mismatch_names_the_tilts_that_stand_out() -> None:
    r = np.array([0.2, 0.2, 0.2, 0.5, 0.2])
    axes = quality.draw_quality(worth(tilt_r=r, unseen_r=r + 0.1, stray_tilts=np.array([3]))).axes[1]
    assert [text.get_text() for text in axes.texts] == ["tilt 3, +30°"]
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), r + 0.1)


@pytest.mark.parametrize(
    ("opening_deg", "title", "sectors"), [(60.0, "Missing wedge: 60°", 2), (0.0, "No missing wedge", 0)]
)
def test_the_wedge_lies_between_the_outermost_planes(opening_deg: float, title: str, sectors: int) -> None:
    planes = np.mod([-60.0, -30, 0, 30, 60], 180)
    axes = quality.draw_quality(worth(plane_deg=planes, wedge_deg=opening_deg)).axes[1]
    assert axes.get_title(loc="left") == title
    assert len(axes.lines) == 5
    filled = [patch for patch in axes.patches if patch.get_alpha()]
    assert len(filled) == sectors
    assert not sectors or (filled[0].theta1, filled[0].theta2) == (60.0, 120.0)


def test_candidates_histogram_counts_every_class() -> None:
    intensity = np.array([0.1, 0.2, 0.55, 0.6, 0.62, 1.0, 1.1])
    label = np.array([-1, -1, 0, 0, 0, 1, 1])
    axes = atoms.draw_candidates(intensity, label, ("O", "Si"), (0.4, 0.8), bins=10).axes[0]
    assert (
        bars(axes, "not an atom (2)").sum() == 2 and bars(axes, "O (3)").sum() == 3 and bars(axes, "Si (2)").sum() == 2
    )
    assert sorted(float(np.asarray(line.get_xdata())[0]) for line in axes.lines) == [0.4, 0.8]
    assert "intensity" in axes.get_xlabel()


def test_error_bars_are_in_picometres_and_leave_unknown_ones_out() -> None:
    axes = atoms.draw_sigmas(np.array([0.05, 0.07, np.nan, 0.1]), ["Si", "Si", "Si", "O"]).axes[0]
    _, names = axes.get_legend_handles_labels()
    assert names == ["O, median 10.0 pm", "Si, median 6.0 pm"]
    assert axes.get_xlabel().endswith("(pm)")


def test_still_view_draws_every_atom_once_and_every_bond() -> None:
    rng = np.random.default_rng(1)
    positions, bonds = rng.normal(0, 4, (50, 3)), np.array([[0, 1], [2, 3], [4, 5]])
    axes = atoms.draw_atoms(positions, ["Si"] * 20 + ["O"] * 30, bonds).axes[1]
    disks = [c for c in axes.collections if type(c).__name__ == "EllipseCollection"]
    sticks = [c for c in axes.collections if type(c).__name__ == "LineCollection"]
    assert sum(len(c.get_offsets()) for c in disks) == 3 * 50
    assert sum(len(c.get_segments()) for c in sticks) == 3
    drawn = np.concatenate([np.asarray(c.get_offsets())[::3] for c in disks])  # rims sit at the projected positions
    expected = (positions - positions.mean(axis=0))[:, :2] * [1, -1]
    np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(expected, axis=0), atol=1e-9)


def test_view_is_a_rotation_with_the_tilt_axis_up() -> None:
    view = atoms.view_matrix(28.0, 18.0)
    np.testing.assert_allclose(view @ view.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(view) == pytest.approx(1.0)
    up = view @ [0.0, 1.0, 0.0]
    assert up[0] == pytest.approx(0.0) and up[1] > 0.9


def test_turning_view_holds_positions_hover_and_gaps_between_bonds() -> None:
    positions = np.array([[0.0, 0, 0], [1.6, 0, 0], [0, 1.6, 0]])
    figure = atoms_in_3d(positions, ["Si", "O", "O"], np.array([[0, 1], [0, 2]]), sigma_A=np.array([0.05, 0.08, 0.1]),
                               species_probability=np.array([0.9, 0.8, 0.7]), truth=(positions + 7, ["Si", "O", "O"]))  # fmt: skip
    bonds, oxygen, silicon, truth = figure.data
    assert np.isnan(bonds.x[2::3]).all() and len(bonds.x) == 6
    assert 0 < bonds.x[0] < bonds.x[1] < 1.6  # from surface to surface
    np.testing.assert_allclose(np.stack([oxygen.x, oxygen.y, oxygen.z], axis=1), positions[1:])
    np.testing.assert_allclose(oxygen.customdata, [[1, 8.0, 0.8], [2, 10.0, 0.7]], rtol=1e-6)
    assert "σ (pm)" in silicon.hovertemplate and silicon.name == "Si (1)"
    np.testing.assert_allclose(truth.x, positions[:, 0], atol=1e-6)  # brought to the same centre
    assert figure.layout.scene.xaxis.title.text == "x (Å)"


def test_turning_view_of_many_atoms_thins_the_bonds() -> None:
    n = 70_000
    positions = np.random.default_rng(0).uniform(0, 90, (n, 3))
    bonds = np.stack([np.arange(n - 1), np.arange(1, n)], axis=1)
    figure = atoms_in_3d(positions, ["Si"] * n, bonds)
    assert len(figure.data[0].x) <= 3 * MAX_BONDS_3D
    assert len(figure.data[1].x) == n


def test_pair_distribution_and_its_truth() -> None:
    r, g = np.linspace(0, 5, 11), {"O-O": np.arange(11.0), "O-Si": np.ones(11)}
    figure = structure.draw_pair_distribution(r, g, (r, {"O-Si": np.ones(11)}))
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), g["O-O"])
    assert len(figure.axes[0].collections) == 0 and len(figure.axes[1].collections) == 1
    assert "distance r (Å)" in labels(figure)


def test_bond_lengths_lose_no_bond_within_the_range() -> None:
    lengths = np.linspace(1.5, 1.7, 40)
    axes = structure.draw_bond_lengths({"O-Si": lengths, "Si-Si": []}, {"O-Si": lengths}).axes[0]
    assert bars(axes, "O-Si, median 1.60 Å").sum() == 40
    assert "bond length (Å)" in axes.get_xlabel()


def test_ring_sizes_stand_beside_the_truth() -> None:
    axes = structure.draw_ring_sizes({6: 181, 8: 3}, {6: 190, 5: 1}).axes[0]
    assert bars(axes, "found").tolist() == [0, 181, 0, 3]
    assert bars(axes, "truth").tolist() == [1, 190, 0, 0]


def test_road_names_its_stations_in_order() -> None:
    figure = draw_road()
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    stations = ["4D-STEM tilt series", "ADF-STEM tilt series", "projections", "alignment", "volume", "atoms", "rings"]
    assert [text for text in texts if text in stations] == stations
    figure.savefig(io.BytesIO(), format="png", dpi=30)
