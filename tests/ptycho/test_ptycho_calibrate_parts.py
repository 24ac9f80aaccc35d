"""Each part of the calibration on data made for it: faults, disk, descan, dose, frame."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho.calibrate import (
    centre_of_mass,
    centred,
    frame_matrix,
    measure_descan,
    measure_disk,
    measure_dose,
    measure_frame,
    repair,
    to_scan_frame,
)
from ptycho.calibrate.blocks import grouped_means, project
from ptycho.calibrate.overlap import scan_frequencies

SHAPE, RADIUS_PX, PATTERNS = (48, 44), 13.4, 900


def disk_share(
    centre: tuple[float, float] = (0.0, 0.0), radius: float = RADIUS_PX, background: float = 0.003
) -> np.ndarray:
    """Mean pattern: a disk with an edge 1 px wide, on a weak background."""
    y, x = np.meshgrid(*(np.arange(n) - n // 2 - c for n, c in zip(SHAPE, centre, strict=True)), indexing="ij")
    return np.clip(radius - np.hypot(y, x) + 0.5, 0, 1) + background


def codes(found) -> set[str]:
    return {finding.code for finding in found.findings}


@pytest.fixture(scope="module", params=[0.2, 2.0, 40.0], ids="{} electrons per pixel".format)
def counts(request) -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.poisson(request.param * disk_share(), (PATTERNS, *SHAPE)).astype(np.uint16)


class TestRepair:
    def test_clean_counts_are_believed(self, counts):
        found = repair(counts)
        assert found.findings == () and found.mask.all() and found.kept.all() and found.counts is counts
        np.testing.assert_allclose(found.mean, counts.mean(0), rtol=1e-6)
        np.testing.assert_array_equal(found.totals, counts.sum((1, 2)))

    def test_bragg_disks_are_no_faults(self, rng):
        """Small sharp disks far apart, with dark rows between them."""
        y, x = np.meshgrid(*(np.arange(n) for n in (60, 60)), indexing="ij")
        lattice = (np.hypot((y - 30 + 6) % 12 - 6, (x - 30 + 6) % 12 - 6) < 4.2) * np.exp(
            -(np.hypot(y - 30, x - 30) ** 2) / 300
        )
        found = repair(rng.poisson(20 * lattice + 0.001, (400, 60, 60)).astype(np.uint8))
        assert found.findings == () and found.mask.all()

    def test_hot_pixels_are_found_and_nothing_else(self, counts, rng):
        level = counts[:, 20:28, 18:26].mean()
        bad = np.zeros(SHAPE, bool)
        bad.flat[rng.choice(bad.size, bad.size // 100, replace=False)] = True
        broken = counts.astype(np.int32)
        broken[:, bad] = rng.poisson(rng.uniform(3, 30, bad.sum()) * level, (PATTERNS, bad.sum()))
        found = repair(broken)
        np.testing.assert_array_equal(~found.mask, bad)
        assert codes(found) == {"hot_pixels"} and f"{bad.sum()} pixels" in found.findings[0].sentence

    def test_dead_lines_and_pixels_are_found_and_nothing_else(self, counts):
        bad = np.zeros(SHAPE, bool)
        bad[17], bad[30:32], bad[:, 25], bad[26, 16] = True, True, True, True
        if counts.mean() > 1:  # enough beside the disk to see that the border does not count
            bad[:2] = True
        found = repair(counts * ~bad)
        np.testing.assert_array_equal(~found.mask, bad)
        assert codes(found) == {"dead_lines", "dead_pixels"}

    @pytest.mark.parametrize("value", [np.nan, np.inf, -3.0])
    def test_patterns_that_are_no_counts_are_left_out_by_name(self, counts, value):
        broken = counts.astype(np.float32)
        broken[[17, 800], 5, 6] = value
        found = repair(broken)
        assert np.flatnonzero(~found.kept).tolist() == [17, 800]
        assert codes(found) == {"invalid_patterns"} and "17, 800" in found.findings[0].sentence
        assert np.isfinite(found.counts).all() and found.counts.min() == 0
        assert found.mask.all()

    def test_pixels_that_never_count_are_masked_and_no_pattern_is_lost(self, counts):
        broken = counts.astype(np.float32)
        broken[:, 7, 8] = np.nan
        broken[:, 9, 8] = -1
        found = repair(broken)
        assert found.kept.all() and codes(found) == {"invalid_pixels"}
        assert np.argwhere(~found.mask).tolist() == [[7, 8], [9, 8]]

    def test_a_subtracted_background_is_severe(self, counts, rng):
        found = repair((counts + rng.normal(0, 0.3, counts.shape)).astype(np.float32))
        assert found.kept.all() and found.counts.min() >= 0
        assert [f.severe for f in found.findings if f.code == "negative_counts"] == [True]

    def test_blank_and_garbage_patterns_are_left_out(self, counts):
        broken = counts.astype(np.uint32)
        broken[5:8], broken[40] = 0, 60000
        found = repair(broken)
        assert np.flatnonzero(~found.kept).tolist() == [5, 6, 7, 40]
        assert codes(found) == {"blank_patterns", "garbage_patterns"}
        np.testing.assert_allclose(found.mean, np.delete(counts, [5, 6, 7, 40], axis=0).mean(0), rtol=1e-5, atol=1e-9)

    def test_saturation_is_named(self, rng):
        mean = 30 * disk_share()
        mean[20:24, 20:24] = 55
        found = repair(np.minimum(rng.poisson(mean, (PATTERNS, *SHAPE)), 60).astype(np.uint8))
        assert not found.mask[20:24, 20:24].any() and found.mask.sum() == mean.size - 16
        assert "saturated_pixels" in codes(found)
        severe = repair(np.minimum(rng.poisson(2 * disk_share() * 30, (PATTERNS, *SHAPE)), 60).astype(np.uint8))
        assert severe.mask.all() and [f.severe for f in severe.findings] == [True]

    def test_known_bad_pixels_are_not_judged(self, counts):
        mask = np.ones(SHAPE, bool)
        mask[3, 4] = False
        broken = counts.astype(np.uint32)
        broken[:, 3, 4] = 10000
        found = repair(broken, mask)
        assert found.findings == () and (found.mask == mask).all()

    def test_nothing_left_is_an_error(self):
        with pytest.raises(ValueError, match="no pattern or no pixel"):
            repair(np.full((4, 8, 8), np.nan, np.float32))


class TestDisk:
    @pytest.mark.parametrize("centre", [(0.0, 0.0), (2.3, -1.7), (-3.0, 0.4)])
    def test_centre_and_radius_within_their_errors(self, centre, rng):
        mean = rng.poisson(0.2 * disk_share(centre), (PATTERNS, *SHAPE)).mean(0)
        disk = measure_disk(mean, np.ones(SHAPE, bool), PATTERNS)
        assert disk is not None and disk.centre_sigma_px < 0.03
        assert np.abs(np.subtract(disk.centre_px, centre)).max() < 4 * disk.centre_sigma_px
        assert disk.radius_px == pytest.approx(RADIUS_PX, abs=4 * disk.radius_sigma_px + 0.02)
        assert np.abs(disk.ellipticity).max() < 4 * disk.ellipticity_sigma

    def test_masked_pixels_do_not_matter(self):
        mean, mask = disk_share((1.2, 0.5)), np.ones(SHAPE, bool)
        mask[15], mask[:, 30], mean[15], mean[:, 30] = False, False, 0, 1e6
        disk = measure_disk(mean, mask, PATTERNS)
        assert disk is not None
        np.testing.assert_allclose(disk.centre_px, (1.2, 0.5), atol=0.02)

    def test_an_ellipse_is_seen(self):
        y, x = np.meshgrid(*(np.arange(n) - n // 2 for n in SHAPE), indexing="ij")
        disk = measure_disk(np.clip(13 - np.hypot(y / 1.04, x / 0.96) + 0.5, 0, 1), np.ones(SHAPE, bool), PATTERNS)
        assert disk is not None
        np.testing.assert_allclose(disk.ellipticity, (0.04, 0), atol=0.004)

    def test_noise_is_no_disk(self, rng):
        mean = rng.poisson(1.0, (PATTERNS, *SHAPE)).mean(0)
        assert measure_disk(mean, np.ones(SHAPE, bool), PATTERNS) is None


class TestDescan:
    def test_an_affine_descan_is_found_and_undone(self, rng):
        side = 24
        positions = np.stack(np.meshgrid(*(2 * [np.arange(side) - 12.0]), indexing="ij"), -1).reshape(-1, 2)
        slopes = np.array([[0.10, -0.04], [0.03, 0.12]])
        centres = [1.5, -0.5] + positions @ slopes.T
        counts = np.stack([rng.poisson(0.5 * disk_share(c)) for c in centres]).astype(np.uint8)
        mask, kept = np.ones(SHAPE, bool), np.ones(len(counts), bool)
        start = measure_disk(counts.mean(0), mask, len(counts))
        assert start is not None
        found = measure_descan(counts, mask, kept, positions, start)
        assert found is not None and found.significant
        np.testing.assert_allclose(found.slopes_px_per_A, slopes, atol=0.01)
        assert np.abs(found.centres_px(positions) - centres).max() < 0.25
        rolled, common = centred(counts, mask, found.centres_px(positions))
        disk = measure_disk(rolled.mean(0), common, len(counts))
        assert disk is not None and np.abs(disk.centre_px).max() < 0.2 and disk.edge_px < start.edge_px

    def test_a_disk_at_rest_does_not_move(self, rng):
        counts = rng.poisson(0.5 * disk_share(), (576, *SHAPE)).astype(np.uint8)
        positions = np.stack(np.meshgrid(*(2 * [np.arange(24.0)]), indexing="ij"), -1).reshape(-1, 2)
        disk = measure_disk(counts.mean(0), np.ones(SHAPE, bool), 576)
        assert disk is not None
        found = measure_descan(counts, np.ones(SHAPE, bool), np.ones(576, bool), positions, disk)
        assert found is not None and not found.significant and found.range_px < 4 * found.range_sigma_px

    def test_pixels_from_outside_are_masked(self):
        counts = np.arange(1, 3 * 25 + 1).reshape(3, 5, 5)
        mask = np.ones((5, 5), bool)
        mask[0, 0] = False
        kept = np.array([True, False, True])
        out, common = centred(counts, mask, np.array([[1.0, 0.0], [9.0, 9.0], [0.2, -2.0]]), kept)
        expected = np.ones((5, 5), bool)
        expected[4], expected[:, :2] = False, False  # rolled up by one row, and to the right by two columns
        expected[0, 2] = False  # the masked pixel moves along
        np.testing.assert_array_equal(common, expected)
        np.testing.assert_array_equal(out[0][:4, 2:], counts[0][1:, 2:] * expected[:4, 2:])
        np.testing.assert_array_equal(out[1][:4, 2:], counts[2][:4, :3] * expected[:4, 2:])
        assert (out[:, ~common] == 0).all()


class TestDose:
    scan = (30, 30)

    def field(self, rng, drift: np.ndarray, electrons: float = 400.0) -> tuple[np.ndarray, np.ndarray]:
        """Totals and share in the dark field of a particle that scatters 6 % off the detector and 3 % beside the disk."""
        y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in self.scan), indexing="ij")
        thick = np.maximum(0.5 - y**2 - x**2, 0).ravel() / 0.5
        dark = rng.poisson(electrons * drift * 0.03 * thick)
        totals = dark + rng.poisson(electrons * drift * (1 - 0.09 * thick))
        return totals.astype(float), dark / totals

    @pytest.mark.parametrize("electrons", [400, 4000])
    @pytest.mark.parametrize("shape", ["linear", "decay", "wave"])
    def test_a_drift_is_followed(self, rng, electrons, shape):
        t = np.linspace(0, 1, 900)
        drift = {"linear": 1 - 0.2 * t, "decay": 0.8 + 0.2 * np.exp(-3 * t), "wave": 1 + 0.1 * np.sin(6 * t)}[shape]
        found = measure_dose(*self.field(rng, drift, electrons), np.ones(900, bool), self.scan)
        assert found.significant and found.scales.mean() == pytest.approx(1)
        assert np.abs(found.scales / (drift / drift.mean()) - 1).max() < (0.025 if electrons < 1000 else 0.01)
        assert found.range == pytest.approx(np.ptp(drift) / drift.mean(), abs=4 * found.range_sigma + 0.005)

    def test_the_specimen_is_no_drift(self, rng):
        for electrons in (40, 400, 4000):
            totals, dark = self.field(rng, np.ones(900), electrons)
            assert not measure_dose(totals, dark, np.ones(900, bool), self.scan).significant

    def test_stray_patterns_do_no_harm(self, rng):
        drift = np.linspace(1.1, 0.9, 900)
        totals, dark = self.field(rng, drift)
        kept = np.ones(900, bool)
        kept[100:110], totals[100:110], totals[500:520] = False, 0.0, 10.0
        found = measure_dose(totals, np.nan_to_num(dark), kept, self.scan)
        np.testing.assert_allclose(found.scales, drift, rtol=0.03)


class TestFrame:
    side, step_A = 32, 0.7

    def field(self, rng, rotation_deg: float, transposed: bool, noise: float) -> tuple[np.ndarray, np.ndarray]:
        """Gradient of a positive phase in a turned frame with noise, and a dark field."""
        y, x = np.meshgrid(*(2 * [(np.arange(self.side) - self.side // 2) * self.step_A]), indexing="ij")
        phase = np.zeros(y.shape)
        for _ in range(25):
            at = rng.uniform(-6, 6, 2)
            phase += np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / 2)
        gradient = np.stack(np.gradient(phase, self.step_A), -1).reshape(-1, 2)
        field = gradient @ frame_matrix(rotation_deg, transposed).T + rng.normal(0, noise, gradient.shape)
        return field, rng.poisson(20 * phase.ravel() + 1).astype(float)

    def q(self) -> np.ndarray:
        grid = np.stack(np.meshgrid(*(2 * [np.arange(self.side) * self.step_A]), indexing="ij"), -1).reshape(-1, 2)
        q = scan_frequencies(grid, (self.side, self.side))
        assert q is not None
        return q

    @pytest.mark.parametrize(
        ("rotation_deg", "transposed"), [(0, False), (30, False), (-140, False), (75, True), (180, True)]
    )
    def test_the_field_without_curl_is_found(self, rng, rotation_deg, transposed):
        field, dark = self.field(rng, rotation_deg, transposed, 0.1)
        found = measure_frame(field, dark, np.ones(len(field), bool), self.q())
        assert found.transposed is transposed and found.sign_sigmas > 5
        off = (found.rotation_deg - rotation_deg + 180) % 360 - 180
        assert abs(off) < 4 * found.rotation_sigma_deg < 8

    def test_the_error_bar_holds(self):
        """Over many noises the error in units of its sigma has a spread near 1."""
        pulls = []
        for seed in range(40):
            field, dark = self.field(np.random.default_rng(seed), 20, False, 0.4)
            found = measure_frame(field, dark, np.ones(len(field), bool), self.q())
            pulls.append(((found.rotation_deg - 20 + 90) % 180 - 90) / found.rotation_sigma_deg)
        assert 0.5 < np.std(pulls) < 1.5

    def test_the_centre_of_mass_is_that_of_good_pixels(self):
        counts, mask = np.zeros((2, 6, 7)), np.ones((6, 7), bool)
        counts[0, 3, 3], counts[0, 5, 4], counts[1, 0, 0] = 1, 3, 2
        counts[:, 1, 1], mask[1, 1] = 100, False
        np.testing.assert_allclose(centre_of_mass(counts, mask), [[1.5, 0.75], [-3, -3]])


class TestGeometry:
    def test_a_quarter_turn_sends_x_to_y(self):
        np.testing.assert_allclose(frame_matrix(90, False) @ [0, 1], [1, 0], atol=1e-12)  # (y, x): +x becomes +y
        np.testing.assert_allclose(frame_matrix(0, True) @ [2, 5], [5, 2])

    @pytest.mark.parametrize(("rotation_deg", "transposed"), [(0, False), (0, True), (33, False), (-120, True)])
    def test_an_image_is_seen_again_where_it_was_in_the_scan(self, rotation_deg, transposed):
        shape = (61, 64)

        def spots(turn: np.ndarray) -> np.ndarray:
            y, x = np.meshgrid(*(np.arange(n) - n // 2 for n in shape), indexing="ij")
            at = np.array([[4.0, 9.0], [-7.0, 3.0], [2.0, -11.0]]) @ turn.T
            return sum(np.exp(-((y - a) ** 2 + (x - b) ** 2) / 8) for a, b in at)

        seen = to_scan_frame(spots(frame_matrix(rotation_deg, transposed)), rotation_deg, transposed)
        expected = spots(np.eye(2))
        n = 40
        cut = [tuple(slice(s // 2 - n // 2, s // 2 + n // 2) for s in image.shape) for image in (seen, expected)]
        np.testing.assert_allclose(seen[cut[0]], expected[cut[1]], atol=0.01)

    def test_frequencies_of_a_turned_scan_are_turned(self):
        grid = np.stack(np.meshgrid(np.arange(6) * 0.5, np.arange(8) * 0.7, indexing="ij"), -1).reshape(-1, 2)
        turn = frame_matrix(25, False)
        plain, turned = scan_frequencies(grid, (6, 8)), scan_frequencies(grid @ turn.T, (6, 8))
        assert plain is not None and turned is not None
        np.testing.assert_allclose(plain[:, 1, 2], [1 / 3, 2 / 5.6])
        np.testing.assert_allclose(turned, np.einsum("ab,bij->aij", turn, plain), atol=1e-12)
        assert scan_frequencies(grid[::-1].repeat(1, 0)[np.random.default_rng(0).permutation(48)], (6, 8)) is None


def test_blocks_add_up(rng):
    """More than one block; only the window with weights is read."""
    counts = rng.poisson(3, (700, 40, 50)).astype(np.uint8)
    weights = np.zeros((40, 50, 3))
    weights[10:20, 5:30] = rng.normal(size=(10, 25, 3))
    np.testing.assert_allclose(
        project(counts, weights), np.einsum("nyx,yxm->nm", counts, weights), rtol=1e-4, atol=1e-2
    )
    labels = rng.integers(-1, 4, 700)
    means = grouped_means(counts, labels, (slice(3, 9), slice(None)))
    np.testing.assert_allclose(means[2], counts[labels == 2][:, 3:9].mean(0), rtol=1e-5)
