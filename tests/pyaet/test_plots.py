"""Figures hold the data they were given: counts, positions, lengths of scale bars, labels with units."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from pyaet.plots import atoms, images, ptychography, quality, rings, structure, style, tomography
from pyaet.plots.atoms_3d import MAX_BONDS_3D, MAX_RINGS_3D, atoms_in_3d
from pyaet.plots.results import VolumeQuality, rings_of
from pyaet.plots.road import draw_road


def bars(axes: Axes, label: str) -> np.ndarray:
    """Return the heights of the bars whose container carries the label."""
    drawn = [container for container in axes.containers if isinstance(container, BarContainer)]
    container = next(c for c in drawn if label in (c.get_label(), c[0].get_label()))
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


def test_pair_distribution_its_band_and_its_truth() -> None:
    r, flat = np.linspace(0, 5, 11), {"value": np.ones(11), "low": np.zeros(11), "high": np.full(11, 2.0)}
    found = {"r_A": r, "g": {"O-O": {"value": np.arange(11.0)}, "O-Si": flat}}
    figure = structure.draw_pair_distribution(found, {"r_A": r, "g": {"O-Si": {"value": np.ones(11)}}}, "glass")
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), np.arange(11.0))
    assert [len(axes.collections) for axes in figure.axes] == [0, 2]
    assert {text.get_text() for text in figure.axes[1].get_legend().get_texts()} == {"glass", "95 % band", "O-Si"}
    assert "distance r (Å)" in labels(figure)


def steps(axes: Axes, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Return values and edges of the step line that carries the label."""
    data = next(patch for patch in axes.patches if patch.get_label() == label).get_data()
    return data.values, data.edges


def test_histograms_are_densities_of_their_own_numbers_of_members() -> None:
    found = {
        "O-Si": {"edges": [1.5, 1.6, 1.7], "value": [30, 10], "low": [20, 5], "high": [40, 20]},
        "Si-Si": {"edges": [1, 2], "value": [0]},
    }
    finer = {"O-Si": {"edges": np.linspace(1.45, 1.75, 7), "value": [1, 1, 1, 3, 1, 1]}}
    figure = structure.draw_histograms(found, finer, "bond length (Å)")
    (axes,) = figure.axes
    np.testing.assert_allclose(steps(axes, "found")[0], [7.5, 2.5])
    values, edges = steps(axes, "truth")  # on the bins of what was found, carried on
    np.testing.assert_allclose(edges, [1.4, 1.5, 1.6, 1.7, 1.8])
    np.testing.assert_allclose(values, np.array([1, 2, 4, 1]) / 8 / 0.1)
    np.testing.assert_allclose(steps(axes, "95 % band")[0], [10, 5])
    assert axes.get_title(loc="left") == "O-Si (40)" and "share per Å" in labels(figure)


def test_wider_bins_of_the_reference_are_kept() -> None:
    found, wide = {"a": {"edges": [0, 1, 2], "value": [1, 1]}}, {"a": {"edges": [0, 4], "value": [8]}}
    values, edges = steps(structure.draw_histograms(found, wide, "angle (°)").axes[0], "truth")
    np.testing.assert_allclose(values, [0.25])
    np.testing.assert_allclose(edges, [0, 4])


def test_only_the_most_frequent_kinds_get_a_panel() -> None:
    kinds = {f"kind {k}": {"edges": [0, 1], "value": [k]} for k in range(9)}
    titles = [axes.get_title(loc="left") for axes in structure.draw_histograms(kinds, None, "angle (°)").axes]
    assert titles == [f"kind {k} ({k})" for k in range(3, 9)]


def test_ring_sizes_stand_beside_the_truth() -> None:
    axes = structure.draw_ring_sizes({6: 181, 8: {"value": 3, "low": 1, "high": 7}}, {6: 190, 5: 1}).axes[0]
    assert bars(axes, "found").tolist() == [0, 181, 0, 3]
    assert bars(axes, "truth").tolist() == [1, 190, 0, 0]
    (limits,) = axes.collections
    np.testing.assert_allclose(limits.get_segments(), [[[7.8, 1], [7.8, 7]]])


def test_limits_without_width_are_seen() -> None:
    axes = structure.draw_ring_sizes({8: {"value": 3, "low": 5, "high": 5}}).axes[0]
    assert [line.get_ydata().tolist() for line in axes.lines] == [[5], [5]]


def test_reference_of_other_size_is_counted_for_as_many_atoms() -> None:
    found, large = {"atoms": {"Si": 10}}, {"atoms": {"Si": 40}, "ring_sizes": {"6": {"value": 8}}}
    assert structure.reference_sizes(found, large, "glass") == ({6: {"value": 2.0}}, "glass, for as many atoms")
    assert structure.reference_sizes({"atoms": {"Si": 39}}, large, "glass") == ({6: {"value": 8}}, "glass")
    assert structure.reference_sizes(found, None, "truth") == ({}, "truth")


def test_coordination_is_a_share_of_the_element() -> None:
    counts = {"value": [0, 0, 1, 9], "low": [0, 0, 0, 8], "high": [0, 1, 2, 10]}
    figure = structure.draw_coordination(
        {"Si": {"mean": 2.9, "counts": counts}}, {"Si": {"mean": 3, "counts": {"value": [0, 0, 0, 5]}}}
    )
    (axes,) = figure.axes
    assert bars(axes, "found").tolist() == [0, 10, 90, 0] and bars(axes, "truth").tolist() == [0, 0, 100, 0]
    assert axes.get_title(loc="left") == "Si, mean 2.90, truth 3.00"


def test_structure_factor_has_a_panel_for_each_radiation() -> None:
    q = np.linspace(0.5, 20, 5)
    known = {"q_per_A": q, "S": {"xray": np.ones(5)}}
    figure = structure.draw_structure_factor({"q_per_A": q, "S": {"electron": 2 * q, "xray": q}}, known)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["X-rays", "electrons"]
    np.testing.assert_array_equal(figure.axes[0].lines[1].get_ydata(), q)
    np.testing.assert_array_equal(figure.axes[1].lines[0].get_ydata(), 2 * q)


def test_one_picture_of_the_structure_draws_what_there_is() -> None:
    part = {"bond_angles_deg": {"a": {"edges": [0, 1, 2], "value": [1, 1]}}, "ring_sizes": {"6": {"value": 2}}}
    figure = structure.draw_structure(part)
    assert [axes.get_xlabel() for axes in figure.axes] == ["bond angle (°)", "atoms in the ring"]
    figure.savefig(io.BytesIO(), format="png", dpi=30)
    with pytest.raises(ValueError, match="nothing to draw"):
        structure.draw_structure({"pair_distribution": None})


HEXAGON = np.array([[np.cos(a), np.sin(a), 0.0] for a in np.radians(np.arange(0, 360, 60))])


def test_fans_span_a_ring_from_its_centre() -> None:
    points, triangles = rings.ring_fans(HEXAGON + 5, np.array([[0, 1, 2, 3, 4, 5]]))
    corners = points[triangles]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum() / 2
    assert area == pytest.approx(1.5 * 3**0.5)
    np.testing.assert_allclose(points[0], [5, 5, 5])


def test_ring_views_draw_the_rings_nearest_the_centre() -> None:
    positions = np.concatenate([HEXAGON + np.array([0, 0, z]) for z in (0, 9, -9)])
    around = [tuple(range(6)), tuple(range(6, 12)), (12, 13, 14, 15)]
    bonds = np.array([[k, k + 1] for k in range(5)])
    figure = rings.draw_rings(positions, bonds, around, most=1)
    for axes in figure.axes[:2]:
        fans = [c for c in axes.collections if type(c).__name__ == "PolyCollection"]
        assert sum(len(c.get_paths()) for c in fans) == 6
    assert figure.axes[0].get_title(loc="left") == "1 ring, obliquely"
    assert [text.get_text() for text in figure.axes[2].get_yticklabels()] == ["4", "6"]
    with pytest.raises(ValueError, match="no rings"):
        rings.draw_rings(positions, bonds, [])


def test_turning_view_hides_rings_in_the_legend_and_thins_many() -> None:
    around = [tuple(range(6))] * (MAX_RINGS_3D + 5) + [(0, 1, 2, 3)]
    figure = atoms_in_3d(HEXAGON, ["Si"] * 6, rings=around)
    four, six = figure.data[-2:]
    assert (four.name, six.name) == ("rings of 4 (1)", f"rings of 6 ({MAX_RINGS_3D} of {MAX_RINGS_3D + 5})")
    assert four.visible == six.visible == "legendonly"
    assert len(six.x) == 7 * MAX_RINGS_3D and len(six.i) == 6 * MAX_RINGS_3D and max(six.k) < len(six.x)
    assert four.color != six.color


def test_rings_across_the_faces_of_a_box_are_not_drawn() -> None:
    record = {"rings": [[0, 1, 2], [3, 4, 99]]}
    assert rings_of(record, 10) == [[0, 1, 2]]
    assert rings_of(record | {"ring_shifts": [[[0, 0, 0]] * 3] * 2}, 10) == [[0, 1, 2]]
    assert rings_of(record | {"ring_shifts": [[[0, 0, 0], [0, 1, 0], [0, 0, 0]]]}, 10) == []


def test_road_names_its_stations_in_order() -> None:
    figure = draw_road()
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    stations = ["4D-STEM tilt series", "ADF-STEM tilt series", "projections", "alignment", "volume", "atoms", "rings"]
    assert [text for text in texts if text in stations] == stations
    figure.savefig(io.BytesIO(), format="png", dpi=30)
