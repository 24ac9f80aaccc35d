"""Maximum likelihood on counts: closed forms of the spread, exact gains, derivatives, the search, and honest errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from analysis import Atoms, compare
from analysis.likelihood import Free, Optics, fit_counts, fit_halves, local
from analysis.likelihood.model import Model, State, shared_out
from analysis.likelihood.naming import (
    best_of,
    brightness,
    doubtful_names,
    faint_on_line,
    lines_through,
    mistaken,
    renamed_by_brightness,
)
from analysis.likelihood.nuisance import fit_defocus, fit_light, fit_shifts, fit_widths, shrunk, unnarrowed
from analysis.likelihood.places import Wall, fit_places
from analysis.likelihood.psf import STEPS_PER_PX2, Spread, stamp
from analysis.likelihood.result import _deviance_of, bootstrapped, position_covariance
from analysis.likelihood.search import Workshop, searched

PIXEL_A, SIDE, APART_A, WIDTH_A, GROUND = 0.35, 48, 2.2, 0.37, 1.0
OPTICS = Optics(200e3, 17.5)
THETA = np.radians(np.arange(0, 180, 9.0))
ROTATIONS = np.stack(
    [np.cos(THETA), 0 * THETA, np.sin(THETA), 0 * THETA, 1 + 0 * THETA, 0 * THETA, -np.sin(THETA), 0 * THETA, np.cos(THETA)],
    axis=1,
).reshape(-1, 3, 3)  # fmt: skip
TILTS = len(THETA)


def ball(rng: np.random.Generator, radius_A: float = 5.0) -> np.ndarray:
    """Places (m, 3) in a ball, none nearer to another than APART_A."""
    kept: list[np.ndarray] = []
    for at in rng.uniform(-radius_A, radius_A, (4000, 3)):
        if np.linalg.norm(at) < radius_A and all(np.linalg.norm(at - other) > APART_A for other in kept):
            kept.append(at)
    return np.array(kept)


def state_of(positions: np.ndarray, electrons: float = 30.0) -> State:
    return State(
        positions.copy(), np.zeros(len(positions), int), np.array([electrons]), np.array([WIDTH_A]), np.ones(TILTS),
        np.zeros((TILTS, 2)), np.full(TILTS, 10.0), np.full(TILTS, GROUND),
    )  # fmt: skip


def model_of(state: State, rng: np.random.Generator | None, optics: Optics | None = OPTICS, threads: int = 1) -> Model:
    """Counts of the state, Poisson ones if `rng` is given."""
    spread = Spread.of(optics, PIXEL_A, 0.6)
    empty = Model(np.zeros((TILTS, SIDE, SIDE)), ROTATIONS, PIXEL_A, spread, 1.0, threads).glowing(state)
    expected = empty.expected(state)
    return replace(empty, counts=expected if rng is None else rng.poisson(expected).astype(float))


def test_in_focus_the_transfer_is_that_of_a_round_aperture() -> None:
    from analysis.likelihood.psf import _frequencies, _transfers

    u = np.minimum(_frequencies(OPTICS) / OPTICS.cutoff_per_A, 1.0)
    exact = 2 / np.pi * (np.arccos(u) - u * np.sqrt(1 - u**2))
    np.testing.assert_allclose(_transfers(OPTICS, np.zeros(1))[0], exact, atol=5e-3)
    assert OPTICS.wavelength_A == pytest.approx(0.025079, rel=1e-4)


def test_without_optics_the_spread_is_a_gaussian() -> None:
    spread = Spread.of(None, PIXEL_A, 0.6)
    table = spread.tables(np.zeros(1), np.array([0.5]))[0, 0]
    at, sigma = np.arange(len(table)) / STEPS_PER_PX2, 0.5 / PIXEL_A
    np.testing.assert_allclose(table, np.exp(-at / (2 * sigma**2)) / (2 * np.pi * sigma**2), atol=1e-6)


@pytest.mark.parametrize("defocus_A", [0.0, 25.0])
def test_the_spread_is_the_probe_of_the_simulator(defocus_A: float) -> None:
    """The linear dark-field images of `pyaet simulate`, made by other code from the wave itself."""
    from pyaet.simulate.adf import Imaging, simulate_adf_tilt

    imaging = Imaging(
        image_shape=(SIDE, SIDE), pixel_A=PIXEL_A, dose_e_per_A2=1e9, source_sigma_A=WIDTH_A, phonon_sigma_A=0.0,
        defocus_A=defocus_A, model="linear",
    )  # fmt: skip
    seen = simulate_adf_tilt(np.zeros((1, 3)), ["Si"], np.zeros(3), imaging, rng=np.random.default_rng(0)).astype(float)
    table = Spread.of(OPTICS, PIXEL_A, 0.6).tables(np.array([defocus_A]), np.array([WIDTH_A]))[0, 0]
    line = np.arange(SIDE) - SIDE // 2
    square = line[:, None] ** 2 + line**2
    near = square < 5**2
    made = np.interp(square[near] * STEPS_PER_PX2, np.arange(len(table)), table)
    scale, level = np.linalg.lstsq(np.stack([made, np.ones_like(made)], axis=1), seen[near], rcond=None)[0]
    np.testing.assert_allclose(scale * made + level, seen[near], atol=0.01 * seen.max())


@pytest.mark.parametrize("defocus_A", [0.0, 60.0])
def test_the_light_beyond_the_reach_is_that_of_the_simulator(defocus_A: float) -> None:
    from pyaet.simulate.adf import Imaging, electrons_per_atom, simulate_adf_image

    side, place = 320, np.array([[3.1, -2.3, 0.0]])
    imaging = Imaging(
        image_shape=(side, side), pixel_A=PIXEL_A, dose_e_per_A2=1.0, source_sigma_A=WIDTH_A, phonon_sigma_A=0.0, defocus_A=defocus_A,
        model="linear",
    )  # fmt: skip
    seen = simulate_adf_image(place, ["Si"], np.zeros(3), imaging, rng=np.random.default_rng(0)) * PIXEL_A**2
    state = replace(
        state_of(place), amplitudes=np.array([electrons_per_atom("Si", imaging)]), scales=np.ones(1), shifts_px=np.zeros((1, 2)),
        defocus_A=np.array([defocus_A]), backgrounds=np.zeros(1),
    )  # fmt: skip
    dark = Model(np.zeros((1, side, side)), np.eye(3)[None], PIXEL_A, Spread.of(OPTICS, PIXEL_A, 0.6))
    near, glowing = dark.atoms(state)[0], dark.glowing(state)
    image = near + glowing.glow[0]
    at = dark.seen(state)[0, 0]
    radius = PIXEL_A * np.hypot(*np.meshgrid(np.arange(side) - at[0], np.arange(side) - at[1]))
    for low, high in ((0.0, 2.0), (3.0, 4.0), (4.0, 6.0), (6.0, 9.0), (9.0, 14.0)):
        ring = (radius >= low) & (radius < high)
        assert image[ring].mean() == pytest.approx(seen[ring].mean(), rel=0.02)
    assert image.sum() == pytest.approx(seen.sum(), rel=0.005)
    assert 0.05 < 1 - near.sum() / seen.sum() < 0.08


def test_light_is_conserved_whatever_the_defocus() -> None:
    spread = Spread.of(OPTICS, PIXEL_A, 0.6)
    for defocus_A in (0.0, 100.0):
        tables = spread.tables(np.array([defocus_A]), np.array([WIDTH_A]))
        far = spread.tail((128, 96), defocus_A, WIDTH_A)
        assert stamp(tables[0, 0], spread.reach_px).sum() + far[0, 0] == pytest.approx(1.0, abs=1e-9)
    assert not Spread.of(None, PIXEL_A, 0.6).tail((128, 96), 0.0, WIDTH_A).any()


def test_places_share_their_weight_among_four_pixels() -> None:
    field = shared_out(np.array([[1.25, 2.5], [-0.5, 0.0]]), np.array([8.0, 2.0]), (4, 5))
    expected = np.zeros((4, 5))
    expected[2:4, 1:3] = [[3.0, 1.0], [3.0, 1.0]]
    expected[0, [4, 0]] += 1.0
    np.testing.assert_allclose(field, expected, atol=1e-12)


def test_an_atom_appears_where_the_conventions_say() -> None:
    state = state_of(np.array([[3.5, -7.0, 1.0]]))
    image = model_of(state, None).counts[0]
    assert np.unravel_index(image.argmax(), image.shape) == (SIDE // 2 - 20, SIDE // 2 + 10)
    quarter = int(np.flatnonzero(np.isclose(THETA, np.pi / 2))[0])
    turned = model_of(state_of(np.array([[0.0, 0.0, 3.5]])), None).counts[quarter]
    # +90° about y shows z where x was.
    assert np.unravel_index(turned.argmax(), turned.shape) == (SIDE // 2, SIDE // 2 + 10)


def test_slopes_are_those_of_the_misfit(rng: np.random.Generator) -> None:
    true = state_of(ball(rng))
    model = model_of(true, rng)
    state = replace(true, positions_A=true.positions_A + rng.normal(0, 0.1, true.positions_A.shape))
    tables = model.tables(state)
    pulls = model.pulls(state, 1 - model.counts / model.expected(state), tables)
    slope = np.einsum("tij,tai->aj", model.to_pixels, pulls[..., :2])
    way = rng.normal(size=slope.shape)
    step = 1e-4
    ahead, behind = (
        model.misfit(model.expected(replace(state, positions_A=state.positions_A + sign * step * way)))
        for sign in (1, -1)
    )
    assert (ahead - behind) / (2 * step) == pytest.approx((slope * way).sum(), rel=2e-2)
    brighter = replace(state, amplitudes=state.amplitudes + 1e-3)
    change = (model.misfit(model.expected(brighter)) - model.misfit(model.expected(state))) / 1e-3
    assert change == pytest.approx(pulls[..., 2].sum(), rel=5e-3)


def test_gains_of_one_atom_are_differences_of_the_misfit(rng: np.random.Generator) -> None:
    state = state_of(ball(rng))
    model = model_of(state, rng)
    tables = model.tables(state).transpose(1, 0, 2).copy()
    rest = state.select(np.arange(1, len(state.element)))
    bright, origin = np.full(TILTS, 30.0), model.origin(state)
    how = (bright, tables[0], model.spread.reach_px, model.to_pixels, origin)
    expected = model.expected(rest)
    place, step = state.positions_A[0].copy(), np.array([0.2, -0.1, 0.15])
    got = local.gain(place, *how, expected, model.counts)
    whole = model.expected(state)
    assert got == pytest.approx(model.misfit(expected) - model.misfit(whole), abs=0.05)
    local.paint(place, 1.0, *how, expected)
    np.testing.assert_allclose(expected, whole, atol=1e-3)
    moved = local.shifted_by(place, step, *how, expected, model.counts, False)
    positions = state.positions_A.copy()
    positions[0] += step
    there = model.expected(replace(state, positions_A=positions))
    assert moved == pytest.approx(model.misfit(whole) - model.misfit(there), abs=0.05)
    assert local.relax(place, 1.0, *how, expected, model.counts) >= 0.0


def test_what_differs_only_by_noise_is_drawn_together(rng: np.random.Generator) -> None:
    error = 0.5
    alike = 3.0 + rng.normal(0, error, 400)
    assert shrunk(alike, np.full(400, error**-2)).std() < 0.2 * error
    unlike = 3.0 + rng.normal(0, 5.0, 400)
    np.testing.assert_allclose(shrunk(unlike, np.full(400, error**-2)), unlike, atol=0.3)


def test_light_optics_and_shifts_come_back(rng: np.random.Generator) -> None:
    true = state_of(ball(rng, 7.0), 200.0)
    shifts = rng.normal(0, 0.5, (TILTS, 2))
    design = ROTATIONS[:, :2].reshape(-1, 3)
    shifts -= (design @ np.linalg.lstsq(design, shifts.ravel(), rcond=None)[0]).reshape(shifts.shape)
    true = replace(
        true,
        scales=rng.uniform(0.9, 1.1, TILTS),
        backgrounds=rng.uniform(0.5, 2.0, TILTS),
        defocus_A=rng.uniform(5, 40, TILTS),
        shifts_px=shifts,
    )
    true = replace(true, scales=true.scales / true.scales.mean())
    model = model_of(true, rng)
    state = replace(
        true, amplitudes=np.array([150.0]), scales=np.ones(TILTS), backgrounds=np.ones(TILTS), shifts_px=0 * shifts,
        widths_A=np.array([0.4]), defocus_A=np.zeros(TILTS),
    )  # fmt: skip
    for _ in range(8):
        state = fit_shifts(model, fit_light(model, state, scales=True), 0 * shifts)
        state = fit_widths(model, fit_defocus(model, state))
    assert state.amplitudes[0] == pytest.approx(200.0, rel=0.02)
    assert state.widths_A[0] == pytest.approx(WIDTH_A, abs=0.02)
    assert np.sqrt(((state.scales - true.scales) ** 2).mean()) < 0.025
    np.testing.assert_allclose(state.backgrounds, true.backgrounds, atol=0.15)
    assert np.abs(state.defocus_A - true.defocus_A).mean() < 4.0
    assert np.sqrt(((state.shifts_px - shifts) ** 2).mean()) < 0.05


def test_given_shifts_are_kept_with_the_translation_they_hold(rng: np.random.Generator) -> None:
    places = ball(rng, 6.0)
    shifts = np.add(rng.normal(0, 2.0, (TILTS, 2)), [3.0, -2.0])
    true = replace(state_of(places, 100.0), shifts_px=shifts)
    atoms = Atoms(places, ("Si",) * len(places))
    counts = model_of(true, rng).counts
    found = fit_counts(
        atoms,
        counts,
        ROTATIONS,
        PIXEL_A,
        optics=OPTICS,
        shifts_px=shifts + rng.normal(0, 0.1, shifts.shape),
        threads=2,
        **GOOD,
    )
    assert np.abs(found.shifts_px - shifts).max() < 0.35
    assert found.misfit.mean() == pytest.approx(1.0, abs=0.02)
    strict = compare(found.atoms.positions_A, None, places, None, 0.5).strict
    assert strict.recall == 1.0 and strict.rmsd_pm < 12


def test_no_step_raises_the_misfit(rng: np.random.Generator) -> None:
    true = state_of(ball(rng))
    model = model_of(true, rng)
    state = replace(true, positions_A=true.positions_A + rng.normal(0, 0.2, true.positions_A.shape))
    trail: list[float] = [model.misfit(model.expected(state))]
    better, misfit = fit_places(model, state, 30, told=trail.append)
    assert (np.diff(trail) <= 1e-9 * trail[0]).all()
    assert misfit == pytest.approx(model.misfit(model.expected(better)))
    assert misfit < trail[0]


def test_the_wall_costs_what_it_says_and_its_slope_is_its_own() -> None:
    places = np.array([[0.0, 0, 0], [0, 0, 1.9], [0, 2.5, 0]])
    wall = Wall.among(places, 2.0)
    assert wall(places)[0] == pytest.approx(0.5)
    cost, slope = wall(places * 0.7)
    step = 1e-6
    for a, axis in np.ndindex(3, 3):
        moved = places * 0.7
        moved[a, axis] += step
        assert (wall(moved)[0] - cost) / step == pytest.approx(slope[a, axis], abs=1e-3)
    assert Wall.among(places, 1.8)(places)[0] == 0.0


def test_atoms_that_noise_draws_together_are_held_apart(rng: np.random.Generator) -> None:
    true = state_of(ball(rng), 4.0)
    model = model_of(true, rng)
    near = {}
    for apart in (0.0, APART_A):
        settled, _ = fit_places(model, true, 60, apart)
        near[apart] = np.sort(cKDTree(settled.positions_A).query(settled.positions_A, 2)[0][:, 1])[0]
    assert near[0.0] < 0.85 * APART_A
    assert near[APART_A] > 0.9 * APART_A


def test_widths_are_those_of_atoms_at_their_true_places(rng: np.random.Generator) -> None:
    true = state_of(ball(rng, 7.0), 15.0)
    model = model_of(true, rng)
    settled, _ = fit_places(model, true, 40)
    narrow = fit_widths(model, settled).widths_A[0]
    wide = unnarrowed(model, fit_widths(model, settled)).widths_A[0]
    there = fit_widths(model, true).widths_A[0]
    assert narrow < there - 0.01
    assert wide == pytest.approx(there, abs=0.003)


def test_missing_atoms_are_put_back_and_false_ones_dropped(rng: np.random.Generator) -> None:
    true = state_of(ball(rng, 6.0))
    model = model_of(true, rng)
    lacking = true.select(np.arange(2, len(true.element)))
    # The neighbours have moved to explain what is missing.
    settled, _ = fit_places(model, lacking, 40)
    false = np.concatenate([settled.positions_A, [[0.0, 9.0, 0.0]]])
    start = replace(settled, positions_A=false, element=np.zeros(len(false), int))
    changed = 0
    for _ in range(3):
        start, change = searched(model, start, APART_A)
        start, _ = fit_places(model, start, 20)
        changed += change.added + change.dropped
    strict = compare(start.positions_A, None, true.positions_A, None, 0.8).strict
    assert changed >= 3
    assert strict.recall == 1.0 and strict.precision == 1.0


def test_what_an_atom_must_add_makes_it_as_likely_as_none(rng: np.random.Generator) -> None:
    state = state_of(ball(rng), 6.0)
    shop = Workshop(model_of(state, None), state, APART_A)
    inner = int(np.argmin((state.positions_A**2).sum(axis=1)))
    shop._paint(inner, -1.0)
    step_A = 0.1
    steps = np.stack(np.meshgrid(*[np.arange(-1.0, 1.01, step_A)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    gains = np.array([shop._gain(state.positions_A[inner] + step, 0) for step in steps])
    apart = np.linalg.norm(state.positions_A[:, None] - state.positions_A, axis=2)
    density = np.median((apart < 3 * APART_A).sum(axis=1)) / (4 / 3 * np.pi * (3 * APART_A) ** 3)
    odds = density * np.exp(gains).sum() * step_A**3
    assert 4.0 < shop.believed[0] < 6.0
    assert gains.max() - np.log(odds) == pytest.approx(shop.believed[0], abs=0.4)


@pytest.mark.parametrize("electrons", [1.0, 100.0])
def test_what_an_atom_must_add_has_bounds(rng: np.random.Generator, electrons: float) -> None:
    state = state_of(ball(rng), electrons)
    shop = Workshop(model_of(state, None), state, APART_A)
    assert shop.believed[0] == (3.0 if electrons == 1.0 else 6.0)


def test_a_faint_element_must_add_less_than_a_clear_one(rng: np.random.Generator) -> None:
    places = ball(rng)
    kind = np.arange(len(places)) % 2
    state = replace(state_of(places), element=kind, amplitudes=np.array([6.0, 30.0]), widths_A=np.full(2, WIDTH_A))
    faint, clear = Workshop(model_of(state, None), state, APART_A).believed
    assert 3.0 <= faint < clear <= 6.0


def test_a_rare_element_must_add_more_than_a_common_one(rng: np.random.Generator) -> None:
    places = ball(rng)
    kind = (np.arange(len(places)) % 3 == 0).astype(int)
    state = replace(state_of(places), element=kind, amplitudes=np.array([4.0, 4.0]), widths_A=np.full(2, WIDTH_A))
    common, rare = Workshop(model_of(state, None), state, APART_A).believed
    often, seldom = np.bincount(kind) + 1
    assert rare - common == pytest.approx(np.log(often / seldom), abs=1e-6)


def test_in_mere_noise_nothing_is_found(rng: np.random.Generator) -> None:
    atoms = state_of(ball(rng))
    model = replace(model_of(atoms, rng), counts=rng.poisson(GROUND, (TILTS, SIDE, SIDE)).astype(float))
    left, change = searched(model, atoms, APART_A)
    assert change.added == 0
    assert len(left.element) == 0


def test_counts_that_show_no_atoms_are_refused(rng: np.random.Generator) -> None:
    places = ball(rng)
    atoms, empty = Atoms(places, ("Si",) * len(places)), rng.poisson(GROUND, (TILTS, SIDE, SIDE))
    with pytest.raises(ValueError, match="do not show these atoms"):
        fit_counts(atoms, empty, ROTATIONS, PIXEL_A, optics=OPTICS, **GOOD)


def test_worths_leave_the_expected_counts_as_they_were(rng: np.random.Generator) -> None:
    state = state_of(ball(rng))
    model = model_of(state, rng)
    shop = Workshop(model, state, APART_A)
    before = shop.expected.copy()
    worths = shop.worths()
    np.testing.assert_allclose(shop.expected, before, atol=1e-9)
    assert worths.shape == (len(state.element), 1) and (worths > 20).all()


def test_the_deviance_of_counts_is_known() -> None:
    mean = np.array([0.2, 3.0, 50.0])
    k = np.random.default_rng(0).poisson(mean[:, None], (3, 200_000))
    term = np.where(k > 0, k * np.log(np.maximum(k, 1) / mean[:, None]), 0.0)
    np.testing.assert_allclose(_deviance_of(mean), 2 * (mean[:, None] - k + term).mean(axis=1), rtol=0.02)


CHARGE = np.log([14.0, 32.0, 50.0])


def levels(
    rng: np.random.Generator, present: list[int], power: float, scatter: float = 0.12
) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of brightness (n,) of 300 atoms of each element present, and which it is."""
    element = np.repeat(present, 300)
    return 0.7 + power * CHARGE[element] + rng.normal(0, scatter, len(element)), element


@pytest.mark.parametrize("present", [[1, 2], [0, 2], [0, 1], [0, 1, 2]])
@pytest.mark.parametrize("power", [1.5, 1.7])
def test_the_elements_that_were_traced_are_told_by_their_ratio(
    rng: np.random.Generator, present: list[int], power: float
) -> None:
    level, _ = levels(rng, present, power)
    line = best_of(lines_through(level, CHARGE, np.zeros(len(level), int)), len(level))
    assert np.flatnonzero(line.share).tolist() == present
    assert line.power == pytest.approx(power, abs=0.05)
    assert line.offset == pytest.approx(0.7, abs=0.2)


def test_one_brightness_is_that_of_the_heaviest(rng: np.random.Generator) -> None:
    level, _ = levels(rng, [0], 1.7)
    line = best_of(lines_through(level, CHARGE, np.zeros(len(level), int)), len(level))
    assert np.flatnonzero(line.share).tolist() == [2]


def test_one_brightness_may_be_that_of_any_element(rng: np.random.Generator) -> None:
    level, _ = levels(rng, [0], 1.7)
    lines = lines_through(level, CHARGE, np.zeros(len(level), int))
    doubt = mistaken(level, CHARGE, lines, np.full(len(level), 2))
    np.testing.assert_allclose(doubt[2], 1 / 3, atol=0.02)
    np.testing.assert_allclose(doubt.sum(axis=1), 1.0)
    assert (np.diag(doubt)[:2] < 0.7).all()


def test_three_brightnesses_leave_no_doubt(rng: np.random.Generator) -> None:
    level, element = levels(rng, [0, 1, 2], 1.7)
    lines = lines_through(level, CHARGE, element)
    np.testing.assert_allclose(mistaken(level, CHARGE, lines, element), np.eye(3), atol=0.02)


def test_the_brightness_of_every_atom_is_measured_on_its_own(rng: np.random.Generator) -> None:
    places = ball(rng)
    kind = rng.integers(0, 2, len(places))
    true = replace(state_of(places), element=kind, amplitudes=np.array([30.0, 80.0]), widths_A=np.full(2, 0.37))
    model = model_of(true, None)
    alike = replace(true, amplitudes=np.array([50.0, 50.0]))
    np.testing.assert_allclose(brightness(model, alike), true.amplitudes[kind], rtol=0.02)


def test_heavy_atoms_are_not_named_as_the_light_ones_that_are_missing(rng: np.random.Generator) -> None:
    places = ball(rng, 7.0)
    kind = rng.integers(0, 3, len(places))
    electrons = 20.0 * (np.exp(CHARGE) / 14) ** 1.7
    true = replace(state_of(places), element=kind, amplitudes=electrons, widths_A=np.full(3, 0.37))
    model = model_of(true, rng)
    traced = true.select(kind > 0)
    # As tracing names them: dim and bright halves of the brighter atoms as the lighter two elements.
    start = replace(traced, element=traced.element - 1, amplitudes=np.array([60.0, 150.0, 300.0]))
    named = renamed_by_brightness(model, start, ("Si", "Ge", "Sn"))
    assert (named.element == traced.element).all()
    np.testing.assert_allclose(named.amplitudes, electrons, rtol=0.25)
    doubt = doubtful_names(model, traced, ("Si", "Ge", "Sn"), np.ones(len(traced.element), bool))
    assert (np.diag(doubt)[1:] > 0.9).all()


def test_one_brightness_of_firm_atoms_is_doubtful_whatever_the_others_are(rng: np.random.Generator) -> None:
    places = ball(rng, 7.0)
    faint = np.arange(len(places)) % 9 == 0
    true = replace(
        state_of(places), element=np.where(faint, 0, 1), amplitudes=np.array([6.0, 30.0]), widths_A=np.full(2, WIDTH_A)
    )
    model = model_of(true, rng)
    doubt = doubtful_names(model, true, ("Si", "Ge"), ~faint)
    np.testing.assert_allclose(doubt[1], 0.5, atol=0.02)
    np.testing.assert_array_equal(doubtful_names(model, true, ("Si", "Ge"), np.zeros(len(places), bool)), np.eye(2))


@pytest.mark.parametrize(("faintest", "clear"), [(8.0, False), (40.0, True)])
def test_faint_elements_do_not_take_the_light_of_missing_atoms(
    rng: np.random.Generator, faintest: float, clear: bool
) -> None:
    places = ball(rng, 7.0)
    kind = rng.integers(0, 3, len(places))
    electrons = faintest * (np.exp(CHARGE) / 14) ** 1.7
    true = replace(state_of(places), element=kind, amplitudes=electrons, widths_A=np.full(3, 0.37))
    model = model_of(true, None)
    found = (kind > 0) | (np.cumsum(kind == 0) % 3 == 0)
    fitted = fit_light(model, true.select(found))
    told = faint_on_line(model, fitted, ("Si", "Ge", "Sn"))
    np.testing.assert_array_equal(told.amplitudes[1:], fitted.amplitudes[1:])
    if clear:
        assert told.amplitudes[0] == fitted.amplitudes[0]
    else:
        assert fitted.amplitudes[0] > 1.05 * electrons[0]
        assert abs(told.amplitudes[0] / electrons[0] - 1) < 0.7 * (fitted.amplitudes[0] / electrons[0] - 1)


def test_two_elements_are_as_bright_as_fitted(rng: np.random.Generator) -> None:
    places = ball(rng)
    state = replace(
        state_of(places),
        element=np.arange(len(places)) % 2,
        amplitudes=np.array([3.0, 30.0]),
        widths_A=np.full(2, 0.37),
    )
    assert faint_on_line(model_of(state, rng), state, ("Si", "Sn")) is state


@pytest.fixture(scope="module")
def fitted() -> tuple[np.ndarray, np.ndarray, object]:
    """Places and elements (0 light, 1 heavy) of a particle, and the fit of its counts from a spoilt start."""
    rng = np.random.default_rng(8)
    places = ball(rng, 7.5)
    kind = rng.integers(0, 2, len(places))
    true = replace(
        state_of(places), element=kind, amplitudes=np.array([40.0, 90.0]), widths_A=np.array([WIDTH_A, WIDTH_A])
    )
    counts = model_of(true, rng).counts
    start = Atoms(
        places[3:] + rng.normal(0, 0.15, (len(places) - 3, 3)), tuple(np.where(kind[3:] == 1, "Ge", "Si").tolist())
    )
    found = fit_counts(
        start, counts, ROTATIONS, PIXEL_A, elements=("Si", "Ge"), min_distance_A=APART_A, optics=OPTICS, threads=2
    )
    return places, kind, found


def test_all_atoms_and_elements_are_found(fitted: tuple) -> None:
    places, kind, found = fitted
    names = np.where(kind == 1, "Ge", "Si").tolist()
    result = compare(found.atoms.positions_A, found.atoms.symbols, places, names, 0.8)
    assert result.strict.recall == 1.0 and result.strict.precision == 1.0
    assert result.strict.right_element > 0.97
    assert found.added >= 3
    assert found.amplitudes["Si"] == pytest.approx(40.0, rel=0.1)
    assert found.amplitudes["Ge"] == pytest.approx(90.0, rel=0.1)
    assert found.misfit.mean() == pytest.approx(1.0, abs=0.02)
    assert (found.worth > 6).all()
    np.testing.assert_allclose(found.element_probability.sum(axis=1), 1.0)


def test_errors_are_those_stated(fitted: tuple) -> None:
    places, _, found = fitted
    result = compare(found.atoms.positions_A, None, places, None, 0.8)
    off = result.model_A[result.matches[:, 0]] - result.truth_A[result.matches[:, 1]]
    ratio = off / found.sigma_axes_A[result.matches[:, 0]]
    assert (np.abs(ratio) < 1).mean() == pytest.approx(0.683, abs=0.08)
    assert (np.abs(ratio) < 2).mean() == pytest.approx(0.954, abs=0.04)
    assert found.inflation < 1.15
    np.testing.assert_allclose(np.sqrt(np.einsum("aii->ai", found.covariance_A2)), found.sigma_axes_A)


def test_error_bars_grow_where_few_counts_hold_an_atom(rng: np.random.Generator) -> None:
    """On the mean of several particles: that of one with 90 faint atoms scatters by 0.17."""
    wider, actual = {}, {}
    for electrons in (5.0, 200.0):
        tried, happened = [], []
        for _ in range(6):
            true = state_of(ball(rng, 7.0), electrons)
            model = model_of(true, rng)
            expected, tables = model.expected(true), model.tables(true)
            cov, _ = position_covariance(model, true, expected, tables)
            tried.append(bootstrapped(model, true, expected, cov, APART_A))
            off = fit_places(model, true, 60, APART_A)[0].positions_A - true.positions_A
            happened.append((off**2).sum() / np.einsum("aii->", cov))
        wider[electrons], actual[electrons] = np.mean(tried), np.mean(happened)
    assert wider[200.0] < 1.1
    assert wider[5.0] > 1.2 * wider[200.0]
    assert wider[5.0] == pytest.approx(actual[5.0], rel=0.35)


GOOD = {"elements": ("Si",), "min_distance_A": APART_A}
ATOMS = Atoms(np.zeros((1, 3)), ("Si",))
COUNTS = np.ones((TILTS, SIDE, SIDE))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"counts": COUNTS[0]}, "counts have shape"),
        ({"counts": COUNTS - 2}, "zero or more, without any background taken off"),
        ({"counts": COUNTS * np.nan}, "not finite"),
        ({"rotations": ROTATIONS[1:]}, r"expected \(n, y, x\) and \(n, 3, 3\)"),
        ({"pixel_A": -1.0}, "pixel_A is -1.0"),
        ({"ground": -1.0}, "ground is not finite, negative or all zero"),
        ({"ground": np.ones(3)}, r"ground has shape \(3,\)"),
        ({"elements": ("Ge",)}, "atoms hold Si; expected only the elements Ge"),
        ({"scales": np.zeros(TILTS)}, "all positive"),
        ({"atoms": Atoms(np.zeros((0, 3)), ())}, "atoms is empty"),
    ],
)
def test_bad_arguments_are_named(change: dict, said: str) -> None:
    given = {"atoms": ATOMS, "counts": COUNTS, "rotations": ROTATIONS, "pixel_A": PIXEL_A} | GOOD | change
    with pytest.raises(ValueError, match=said):
        fit_counts(**given)


def test_halves_of_sound_counts_agree_as_the_error_bars_say(rng: np.random.Generator) -> None:
    places = ball(rng)
    counts = model_of(state_of(places, 60.0), rng).counts
    atoms = Atoms(places + rng.normal(0, 0.1, places.shape), ("Si",) * len(places))
    halves = fit_halves(atoms, counts, ROTATIONS, PIXEL_A, optics=OPTICS, threads=2, **GOOD)
    assert halves.agreement == 1.0 and halves.renamed == 0
    assert 0.8 < halves.distance_ratio < 1.25
    assert 0.6 < halves.excess < 1.5
    assert halves.r_free > halves.r_work
    assert halves.held_out.mean() == pytest.approx(1.0, abs=0.03)


def test_halves_see_a_wrong_tilt_and_an_atom_of_one_half_alone(rng: np.random.Generator) -> None:
    places = ball(rng)
    counts = model_of(state_of(places, 60.0), rng).counts
    fewer = model_of(state_of(places[1:], 60.0), rng).counts
    counts[::2] = fewer[::2]
    turned = ROTATIONS.copy()
    turned[5] = turned[9]
    halves = fit_halves(Atoms(places, ("Si",) * len(places)), counts, turned, PIXEL_A, optics=OPTICS, threads=2, **GOOD)
    assert [len(atoms) for atoms in halves.found] == [len(places) - 1, len(places)]
    assert halves.agreement < 1.0
    assert int(halves.held_out.argmax()) == 5
    assert halves.excess > 2.0


def test_too_few_tilts_have_no_halves(rng: np.random.Generator) -> None:
    counts = model_of(state_of(ball(rng)), rng).counts[:5]
    with pytest.raises(ValueError, match="counts hold 5 tilts; expected at least 6"):
        fit_halves(Atoms(np.zeros((1, 3)), ("Si",)), counts, ROTATIONS[:5], PIXEL_A, **GOOD)


def test_an_atom_of_another_brightness_stands_out(rng: np.random.Generator) -> None:
    places = ball(rng)
    state = state_of(places, 60.0)
    mixed = replace(state, element=np.eye(len(places), dtype=int)[0], amplitudes=np.array([60.0, 90.0]),
                    widths_A=np.full(2, WIDTH_A))  # fmt: skip
    found = fit_counts(
        Atoms(places, ("Si",) * len(places)), model_of(mixed, rng).counts, ROTATIONS, PIXEL_A, optics=OPTICS, rounds=0, threads=2,
        **GOOD,
    )  # fmt: skip
    assert int(found.brightness_z.argmax()) == 0 and found.brightness_z[0] > 5
    assert np.abs(found.brightness_z[1:]).max() < 5


def test_impossible_optics_are_named() -> None:
    with pytest.raises(ValueError, match="energy_eV is 0"):
        Optics(0.0, 20.0)


def test_nothing_moves_that_is_not_free(rng: np.random.Generator) -> None:
    places = ball(rng, 4.0)
    counts = model_of(state_of(places, 80.0), rng).counts
    atoms = Atoms(places, ("Si",) * len(places))
    held = Free(defocus=False, widths=False, shifts=False, scales=False)
    found = fit_counts(atoms, counts, ROTATIONS, PIXEL_A, optics=OPTICS, free=held, rounds=0, threads=1, **GOOD)
    assert np.ptp(found.defocus_A) == 0 and not found.shifts_px.any()
    np.testing.assert_allclose(found.scales, 1.0)
    assert found.added == found.dropped == 0


@pytest.mark.slow
@pytest.mark.parametrize(("dose", "most_pm"), [("8p0e3", 17.0), ("1p6e4", 9.8), ("1p6e5", 3.1)])
def test_published_silicon_comes_down_to_the_bound(shared: Path, dose: str, most_pm: float) -> None:
    """One recipe for all doses (doi:10.1038/s41586-025-09857-4; the published models have 28.8, 17.3 and 4.2 pm)."""
    from scipy.io import loadmat

    import analysis
    import tomo

    folder = shared / "si208"
    counts = loadmat(folder / f"aSi_2nmFosCetr_Dose{dose}_cov35pm_ForBM3D.mat")["Trunc_projections_forBM3D"]
    counts = counts.transpose(2, 1, 0).astype(float)
    angles = loadmat(folder / "Si_Angle.mat")["Angle"].astype(float)
    truth = np.loadtxt(folder / "aSi_208atoms_GT.txt", comments="%")[:, [2, 1, 3]] * [1, 1, -1]
    volume = tomo.fbp((counts - 1).astype(np.float32), angles)
    peaks = analysis.trace(volume, 0.195, min_distance_A=1.9)
    atoms = analysis.classify(volume, 0.195, peaks, ["Si"], rng=np.random.default_rng(0)).atoms
    found = fit_counts(
        atoms, counts, tomo.rotation(angles), 0.195, elements=("Si",), min_distance_A=1.9, optics=Optics(200e3, 17.5)
    )
    strict = compare(found.atoms.positions_A, None, truth, None, 0.9).strict
    assert strict.found == 208 and len(found.atoms) == 208
    assert strict.rmsd_pm <= most_pm
