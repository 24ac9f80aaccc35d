"""Which atoms there are: each added or dropped when the likelihood of all counts says so, its neighbours moving along.

An atom that is missing is rarely a clean hole: its neighbours have moved to explain its counts, and adding it alone gains little.
So every trial is a joint one: the atom goes in (or out), it and its neighbours are relaxed in turns, and the exact gain
of the whole decides. Trials follow one another on the same expected counts; none counts a photon twice.

Beforehand an atom is as likely at any place as the particle is dense with atoms of its element. The odds that there is one are this
density times the integral of the likelihood ratio over the places (Laplace's method, as in MacKay 1992,
doi:10.1162/neco.1992.4.3.415): an atom must add the logarithm of how many places the counts tell apart in the room of one such atom.

Sites to try come from what is left: with images of the score (k / λ − 1) and of 1 / λ, both matched to the spread function, the gain
of an atom of free brightness at r is about S(r)² / 2F(r).
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage
from scipy.spatial import cKDTree

from analysis.likelihood import local
from analysis.likelihood.model import Model, State, on_host
from analysis.likelihood.places import information
from analysis.likelihood.psf import stamp
from analysis.uncertainty import share_out

log = logging.getLogger(__name__)

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

WORTH_TRYING, ENOUGH = 3.0, 6.0
"""Log-likelihood that a site must promise, and that is enough for any atom: most are found before all their neighbours are in place."""
ROOM = 3.0
"""Minimum distances about an atom within which its neighbours tell how dense the particle is."""
SITE_STEP = 0.25
"""Of the minimum distance: spacing of the sites that are surveyed."""
RIM = 1.3
"""Sites farther than so many minimum distances from every atom are outside of the particle."""
NEAREST, APART = 0.4, 0.8
"""Of the minimum distance: how near to an atom a site may lie, and how near two atoms may end."""
TOUCHED, MOST_TOUCHED = 1.7, 14
"""Neighbours within so many minimum distances move along."""
SWEEPS = 4
CORE_A = 2.0
"""Trials count the pixels up to here: what lies farther out changes little and is put right afterwards."""
HOPELESS = 10.0
"""A trial that lacks more than this after the first of its sweeps is given up."""
LONGEST_MOVE = 0.25


@dataclass(frozen=True)
class Change:
    """How many atoms were added and dropped, what that gained in log-likelihood, and how much of it beyond what atoms must add."""

    added: int
    dropped: int
    gain: float
    worth: float


class Workshop:
    """Positions, elements and expected counts under change."""

    def __init__(self, model: Model, state: State, min_distance_A: float) -> None:
        self.model, self.apart = model.on_host(), min_distance_A
        tables = model.tables(state)
        self.tables = np.ascontiguousarray(tables.transpose(1, 0, 2))
        self.bright = np.ascontiguousarray(state.amplitudes[:, None] * state.scales)
        self.expected = on_host(model.expected(state, tables))
        self.positions, self.element = state.positions_A.copy(), state.element.copy()
        self.alive = np.ones(len(self.element), bool)
        core = min(CORE_A / model.pixel_A, model.spread.reach_px)
        self._geometry = (core, model.to_pixels, model.origin(state))
        self._begun = model, state, tables

    @cached_property
    def believed(self) -> Array:
        """Log-likelihood (elements,) that an atom of each element must add to be likelier there than not."""
        model, state, tables = self._begun
        held = information(model, state, model.xp.asarray(self.expected), tables)[:, :3, :3]
        # Information grows as the square of the brightness, the volume of places that are told apart falls as its cube.
        place_A3 = (2 * np.pi) ** 1.5 * np.exp(-0.5 * np.linalg.slogdet(held)[1]) * state.amplitudes[state.element] ** 3
        tree, radius_A = cKDTree(state.positions_A), ROOM * self.apart
        atoms = np.median(tree.query_ball_point(state.positions_A, radius_A, return_length=True))
        share = np.bincount(state.element, minlength=len(state.amplitudes)) + 1.0
        density = atoms / (4 / 3 * np.pi * radius_A**3) * share / share.sum()
        odds = density * np.median(place_A3) / state.amplitudes**3
        return np.clip(-np.log(odds), WORTH_TRYING, ENOUGH)

    def state(self, state: State) -> State:
        """The state with the atoms that are left."""
        return replace(state, positions_A=self.positions[self.alive], element=self.element[self.alive])

    def worths(self) -> Array:
        """What every atom adds to the log-likelihood as each element, all others where they are (atoms, elements)."""
        out = np.zeros((len(self.element), len(self.bright)))
        asked = (self.positions, self.element, self.bright, self.tables, *self._geometry)
        edges = np.linspace(0, len(out), self.model.threads + 1).astype(int)

        def some(first: int, last: int) -> None:
            # Atoms are taken out and put back: every thread needs expected counts of its own.
            local.worths(first, last, *asked, self.expected.copy(), self.model.counts, out)

        with ThreadPoolExecutor(self.model.threads) as pool:
            list(pool.map(some, edges[:-1], edges[1:]))
        return out

    def add(self, site: Array, element: int) -> float:
        """Try an atom at a site (3,): the gain if it stays, else 0."""
        near = self._near(site)
        before = self.positions[near].copy()
        if len(near) and np.linalg.norm(before - site, axis=1).min() < NEAREST * self.apart:
            return 0.0
        got = self._gain(site, element)
        self._append(site, element)
        mine = len(self.element) - 1
        got += self._relax(np.append(mine, near), 1)
        if got > self.believed[element] - HOPELESS:
            got += self._relax(np.append(mine, near), SWEEPS - 1)
        if got > self.believed[element] and self._is_apart(mine) and all(self._is_apart(a) for a in near):
            return got
        self._paint(mine, -1.0)
        self._restore(near, before)
        self.positions, self.element, self.alive = self.positions[:-1], self.element[:-1], self.alive[:-1]
        return 0.0

    def drop(self, atom: int) -> float:
        """Try without an atom: the gain if it went (which may be a small loss), else −inf."""
        near = self._near(self.positions[atom], but=atom)
        before = self.positions[near].copy()
        self._paint(atom, -1.0)
        got = -self._gain(self.positions[atom], int(self.element[atom])) + self._relax(near, 1)
        least = self.believed[self.element[atom]]
        if got > -least - HOPELESS:
            got += self._relax(near, SWEEPS - 1)
        if got > -least:
            self.alive[atom] = False
            return got
        self._restore(near, before)
        self._paint(atom, 1.0)
        return -np.inf

    def survey(self, sites: Array, element: int) -> tuple[Array, Array]:
        """S and F (sites,) of an atom of one electron: score and information of its brightness."""
        reach, to_pixels, origin = self._geometry
        pull, hold = np.empty_like(self.expected), np.empty_like(self.expected)
        share = self.bright[element] / self.bright[element].mean()

        def match(t: int) -> None:
            kernel = share[t] * stamp(self.tables[element][t], reach)
            pull[t] = _matched(self.model.counts[t] / self.expected[t] - 1, kernel)
            hold[t] = _matched(1 / self.expected[t], kernel**2)

        with ThreadPoolExecutor(self.model.threads) as pool:
            list(pool.map(match, range(len(pull))))
        out = np.zeros((len(sites), 2))
        share_out(local.survey, len(sites), self.model.threads, sites, to_pixels, origin, pull, hold, out)
        return out[:, 0], out[:, 1]

    def _near(self, site: Array, but: int = -1) -> Ints:
        distance = local.distances(site, self.positions, self.alive)
        near = np.flatnonzero(distance < TOUCHED * self.apart)
        near = near[near != but]
        return near[np.argsort(distance[near])[:MOST_TOUCHED]]

    def _is_apart(self, atom: int) -> bool:
        distance = local.distances(self.positions[atom], self.positions, self.alive)
        distance[atom] = np.inf
        return bool(distance.min() >= APART * self.apart)

    def _append(self, site: Array, element: int) -> None:
        self.positions = np.concatenate([self.positions, site[None]])
        self.element, self.alive = np.append(self.element, element), np.append(self.alive, True)
        self._paint(len(self.element) - 1, 1.0)

    def _restore(self, atoms: Ints, positions: Array) -> None:
        for a, place in zip(atoms, positions, strict=True):
            if (self.positions[a] != place).any():
                self._paint(a, -1.0)
                self.positions[a] = place
                self._paint(a, 1.0)

    def _relax(self, atoms: Ints, sweeps: int) -> float:
        return float(
            local.with_neighbours(
                atoms, sweeps, LONGEST_MOVE * self.apart, self.positions, self.element, self.bright, self.tables,
                *self._geometry, self.expected, self.model.counts,
            )
        )  # fmt: skip

    def _paint(self, atom: int, sign: float) -> None:
        e = self.element[atom]
        local.paint(self.positions[atom], sign, self.bright[e], self.tables[e], *self._geometry, self.expected)

    def _gain(self, site: Array, element: int) -> float:
        return float(
            local.gain(
                site, self.bright[element], self.tables[element], *self._geometry, self.expected, self.model.counts
            )
        )


def searched(model: Model, state: State, min_distance_A: float) -> tuple[State, Change]:
    """The state after every doubtful atom was tried without, and every promising site with one."""
    shop = Workshop(model, state, min_distance_A)
    worth = shop.worths()[np.arange(len(state.element)), state.element]
    added, dropped, got, asked = 0, 0, 0.0, 0.0
    for atom in np.argsort(worth):
        least = shop.believed[state.element[atom]]
        if worth[atom] > 2 * least:
            continue
        change = shop.drop(int(atom))
        if np.isfinite(change):
            dropped, got, asked = dropped + 1, got + change, asked - least
    for site, element in promising(shop):
        change = shop.add(site, element)
        if change > 0:
            added, got, asked = added + 1, got + change, asked + shop.believed[element]
    return shop.state(state), Change(added, dropped, got, got - asked)


def promising(shop: Workshop) -> list[tuple[Array, int]]:
    """Sites (3,) and elements worth a trial, the best first: maxima of the gain that a free brightness would bring."""
    if not shop.alive.any():
        return []
    grid, shape = sites_about(shop.positions[shop.alive], shop.apart)
    tree, farthest = cKDTree(shop.positions[shop.alive]), RIM * shop.apart
    distance, _ = tree.query(grid, distance_upper_bound=farthest, workers=shop.model.threads)
    inside = (distance > NEAREST * shop.apart) & np.isfinite(distance)
    found: list[tuple[float, Array, int]] = []
    for element in range(len(shop.bright)):
        score, hold = np.zeros(len(grid)), np.ones(len(grid))
        score[inside], hold[inside] = shop.survey(grid[inside], element)
        gain = np.where(inside & (hold > 0) & (score > 0), score**2 / (2 * np.maximum(hold, 1e-12)), 0.0)
        field = gain.reshape(shape)
        top = (field == ndimage.maximum_filter(field, 3)).ravel() & (gain > WORTH_TRYING)
        # The element whose brightness is nearest to the best one is tried.
        best = score / np.maximum(hold, 1e-12)
        nearest = np.abs(np.log(np.maximum(best, 1e-12))[:, None] - np.log(shop.bright.mean(axis=1))).argmin(axis=1)
        found += [(float(gain[i]), grid[i], element) for i in np.flatnonzero(top & (nearest == element))]
    found.sort(key=lambda one: -one[0])
    return [(site, element) for _, site, element in found]


def sites_about(positions: Array, apart: float) -> tuple[Array, tuple[int, ...]]:
    """A grid (sites, 3) about all atoms, and its shape."""
    step, margin = SITE_STEP * apart, RIM * apart
    axes = [
        np.arange(low, high + step, step)
        for low, high in zip(positions.min(axis=0) - margin, positions.max(axis=0) + margin, strict=True)
    ]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    return grid.reshape(-1, 3), grid.shape[:3]


def _matched(image: Array, kernel: Array) -> Array:
    """Correlation of an image (y, x) with a kernel that is its own mirror image, zeros beyond the rim."""
    shape = [fft.next_fast_len(n + m - 1, real=True) for n, m in zip(image.shape, kernel.shape, strict=True)]
    spectrum = fft.rfft2(image, s=shape) * fft.rfft2(kernel, s=shape)
    half_y, half_x = (n // 2 for n in kernel.shape)
    return np.asarray(fft.irfft2(spectrum, s=shape)[half_y : half_y + image.shape[0], half_x : half_x + image.shape[1]])
