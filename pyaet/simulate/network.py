"""An amorphous network of four-fold connected sites: bond switching after Wooten, Winer and Weaire.

A periodic diamond lattice loses its memory by random bond switches and is then annealed: each attempt exchanges two
bonds around a third, relaxes the neighbourhood, and is accepted by Metropolis' rule (doi:10.1103/PhysRevLett.54.1392).
A switch keeps every site four-fold; switches that would close a triangle are refused. Sites stand for silicon, bonds
for the Si-O-Si bridges of silica, so lengths are Si-Si distances. Standard shapes: sites (n, 3) in Å within a cubic box
of edge `box_A`, neighbours (n, 4). The energy of the sites, in eV,

    E = k_d/2 Σ_bonds (d - d0)² + k_θ/2 Σ_angles (cos θ + 1/3)² + k_r/2 Σ_others (r0 - d)², d < r0,

is of the form of Keating's; its stiffness ratio is low, as silica's tetrahedra tilt easily.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

BOND_A = 3.08
BOND_STIFFNESS = 8.0
ANGLE_STIFFNESS = 3.0
APART_A = 4.1
APART_STIFFNESS = 4.0
SHELLS = 2
STEPS_LOCAL = 40
STEPS_GLOBAL = 300
DIAMOND = np.array([[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0], [1, 1, 1], [1, 3, 3], [3, 1, 3], [3, 3, 1]]) / 4.0


@dataclass(frozen=True)
class Network:
    """Sites (n, 3) in Å and the four neighbours (n, 4) of each, periodic in a cube of edge `box_A`."""

    sites_A: np.ndarray
    neighbours: np.ndarray
    box_A: float

    @property
    def bonds(self) -> np.ndarray:
        """Each bond once, (2 n, 2), smaller index first."""
        first = np.repeat(np.arange(len(self.neighbours)), 4)
        pairs = np.stack([first, self.neighbours.ravel()], axis=1)
        return pairs[pairs[:, 0] < pairs[:, 1]]


def amorphous_network(
    cells: tuple[int, int, int],
    sites_per_A3: float,
    rng: np.random.Generator,
    *,
    scramble: float = 0.5,
    attempts: float = 300.0,
    hot_eV: float = 0.5,
    cold_eV: float = 0.05,
) -> Network:
    """Return an annealed random network of 8 sites per diamond cell in a cube of the given density.

    `scramble` switches per site at any price destroy the crystal; then `attempts` per site anneal from `hot_eV` to
    `cold_eV` (k T, geometric). The same generator state gives the same network. Raises `ValueError` when a box is so
    small that a site would meet its own image.
    """
    if min(cells) < 2:
        raise ValueError(f"cells is {cells}; expected at least 2 along each axis")
    n = 8 * int(np.prod(cells))
    box_A = (n / sites_per_A3) ** (1 / 3)
    sites, neighbours = _diamond(cells, box_A)
    state = _State(sites, neighbours, box_A)
    state.switch(rng.random((round(scramble * n), 5)), np.full(round(scramble * n), np.inf))
    rounds = max(1, round(attempts))
    for temperature in np.geomspace(hot_eV, cold_eV, rounds):
        state.relax()
        state.switch(rng.random((round(attempts * n / rounds), 5)), np.full(round(attempts * n / rounds), temperature))
    state.relax()
    return Network(state.sites % box_A, np.sort(state.neighbours, axis=1), box_A)


@dataclass
class _State:
    """The network in the making; the kernels change its arrays in place."""

    sites: np.ndarray
    neighbours: np.ndarray
    box_A: float

    def switch(self, random: np.ndarray, temperature_eV: np.ndarray) -> int:
        return int(_switches(self.sites, self.neighbours, self.box_A, random, temperature_eV))

    def relax(self) -> None:
        everyone = np.arange(len(self.sites))
        _relax(self.sites, self.neighbours, self.box_A, everyone, everyone, STEPS_GLOBAL)


def _diamond(cells: tuple[int, int, int], box_A: float) -> tuple[np.ndarray, np.ndarray]:
    """Sites of a diamond lattice stretched into a cube and their neighbours."""
    corners = np.stack(np.meshgrid(*map(np.arange, cells), indexing="ij"), axis=-1).reshape(-1, 1, 3)
    lattice = (corners + DIAMOND).reshape(-1, 3)
    step = lattice[:, None] - lattice
    step -= np.asarray(cells) * np.rint(step / cells)
    neighbours = np.argsort((step**2).sum(-1), axis=1, kind="stable")[:, 1:5]
    return lattice * (box_A / np.asarray(cells)), neighbours.astype(np.int64)


@numba.njit(cache=True)
def _switches(
    sites: np.ndarray, neighbours: np.ndarray, box: float, random: np.ndarray, temperature: np.ndarray
) -> int:
    """Attempt one switch per row of `random` (n, 5); return how many were accepted."""
    accepted = 0
    seeds, before = np.empty(4, dtype=np.int64), np.empty_like(sites)
    for row in range(len(random)):
        a = int(random[row, 0] * len(sites))
        ib, ic, jd = int(random[row, 1] * 4), int(random[row, 2] * 4), int(random[row, 3] * 4)
        b, c = neighbours[a, ib], neighbours[a, ic]
        d = neighbours[b, jd]
        if not _may_switch(neighbours, a, b, c, d):
            continue
        seeds[0], seeds[1], seeds[2], seeds[3] = a, b, c, d
        moving, seeing = _neighbourhood(neighbours, seeds)
        _copy(moving, sites, before)
        energy = _relax(sites, neighbours, box, moving, seeing, 0)
        _exchange(neighbours, a, b, c, d)
        change = _relax(sites, neighbours, box, moving, seeing, STEPS_LOCAL) - energy
        if change <= 0 or random[row, 4] < np.exp(-change / temperature[row]):
            accepted += 1
        else:
            _exchange(neighbours, a, b, d, c)
            _copy(moving, before, sites)
    return accepted


@numba.njit(cache=True)
def _copy(which: np.ndarray, source: np.ndarray, target: np.ndarray) -> None:
    for i in which:
        for x in range(3):
            target[i, x] = source[i, x]


@numba.njit(cache=True)
def _may_switch(neighbours: np.ndarray, a: int, b: int, c: int, d: int) -> bool:
    """Whether a-d and b-c may replace a-c and b-d without a double bond or a triangle."""
    if c == b or d == a or c == d or _bonded(neighbours, a, d) or _bonded(neighbours, b, c):  # noqa: SIM109
        return False
    for i in range(4):
        x, y = neighbours[a, i], neighbours[b, i]
        if (x != b and _bonded(neighbours, d, x)) or (y != a and _bonded(neighbours, c, y)):
            return False
    return True


@numba.njit(cache=True)
def _exchange(neighbours: np.ndarray, a: int, b: int, c: int, d: int) -> None:
    """Replace the bonds a-c and b-d by a-d and b-c."""
    for i in range(4):
        if neighbours[a, i] == c:
            neighbours[a, i] = d
            break
    for i in range(4):
        if neighbours[b, i] == d:
            neighbours[b, i] = c
            break
    for i in range(4):
        if neighbours[c, i] == a:
            neighbours[c, i] = b
            break
    for i in range(4):
        if neighbours[d, i] == b:
            neighbours[d, i] = a
            break


@numba.njit(cache=True)
def _neighbourhood(neighbours: np.ndarray, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sites within `SHELLS` bonds of the seeds, and the same with one shell more, whose angles feel them move."""
    reached = np.zeros(len(neighbours), dtype=np.bool_)
    found = np.empty(len(neighbours), dtype=np.int64)
    stop = 0
    for i in range(len(seeds)):
        reached[seeds[i]] = True
        found[stop] = seeds[i]
        stop += 1
    start, inner = 0, 0
    for shell in range(SHELLS + 1):
        if shell == SHELLS:
            inner = stop
        last = stop
        for i in range(start, last):
            for j in range(4):
                site = neighbours[found[i], j]
                if not reached[site]:
                    reached[site] = True
                    found[stop] = site
                    stop += 1
        start = last
    return found[:inner], found[:stop]


@numba.njit(cache=True)
def _relax(
    sites: np.ndarray, neighbours: np.ndarray, box: float, moving: np.ndarray, seeing: np.ndarray, steps: int
) -> float:
    """Move `moving` downhill by at most `steps` steps of FIRE (doi:10.1103/PhysRevLett.97.170201); return their energy."""
    n = len(moving)
    slot = np.full(len(sites), -1)
    for i in range(n):
        slot[moving[i]] = i
    near, count = _candidates(sites, box, moving)
    force, velocity = np.zeros((n, 3)), np.zeros((n, 3))
    energy = _energy(sites, neighbours, box, moving, seeing, slot, near, count, force)
    dt, mixing, downhill = 0.1, 0.1, 0
    for _ in range(steps):
        power, speed2, force2 = 0.0, 0.0, 0.0
        for i in range(n):
            for x in range(3):
                power += velocity[i, x] * force[i, x]
                speed2 += velocity[i, x] ** 2
                force2 += force[i, x] ** 2
        if force2 < 1e-6 * n:
            break
        if power > 0:
            downhill += 1
            keep, steer = 1 - mixing, mixing * np.sqrt(speed2 / force2)
            if downhill > 5:
                dt, mixing = min(1.1 * dt, 0.25), 0.99 * mixing
        else:
            keep, steer = 0.0, 0.0
            dt, mixing, downhill = 0.5 * dt, 0.1, 0
        for i in range(n):
            for x in range(3):
                velocity[i, x] = keep * velocity[i, x] + (steer + dt) * force[i, x]
                sites[moving[i], x] += min(max(dt * velocity[i, x], -0.2), 0.2)
        energy = _energy(sites, neighbours, box, moving, seeing, slot, near, count, force)
    return energy


@numba.njit(cache=True)
def _candidates(sites: np.ndarray, box: float, moving: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sites that may come within the repulsion's reach of each moving one: indices (n, 64) and how many."""
    near = np.empty((len(moving), 64), dtype=np.int64)
    count = np.zeros(len(moving), dtype=np.int64)
    reach2 = (APART_A + 1.5) ** 2
    for i in range(len(moving)):
        for j in range(len(sites)):
            r2 = 0.0
            for x in range(3):
                r = sites[moving[i], x] - sites[j, x]
                r -= box * np.rint(r / box)
                r2 += r * r
            if r2 < reach2 and j != moving[i] and count[i] < 64:
                near[i, count[i]] = j
                count[i] += 1
    return near, count


@numba.njit(cache=True)
def _energy(
    sites: np.ndarray,
    neighbours: np.ndarray,
    box: float,
    moving: np.ndarray,
    seeing: np.ndarray,
    slot: np.ndarray,
    near: np.ndarray,
    count: np.ndarray,
    force: np.ndarray,
) -> float:
    """Energy of every term that a moving site takes part in; `force` (n, 3) on the moving sites is overwritten."""
    for i in range(len(moving)):
        for x in range(3):
            force[i, x] = 0.0
    energy = 0.0
    v, length, pull = np.empty((4, 3)), np.empty(4), np.empty((4, 3))
    for i in seeing:
        for j in range(4):
            length[j] = _between(sites, box, i, neighbours[i, j], v[j])
            stretch = length[j] - BOND_A
            energy += 0.25 * BOND_STIFFNESS * stretch * stretch
            for x in range(3):
                v[j, x] /= length[j]
                # Half from each end of the bond; an end outside `seeing` has no moving site on this bond.
                pull[j, x] = -0.5 * BOND_STIFFNESS * stretch * v[j, x]
        for j in range(4):
            for k in range(j):
                cosine = v[j, 0] * v[k, 0] + v[j, 1] * v[k, 1] + v[j, 2] * v[k, 2]
                bend = cosine + 1 / 3
                energy += 0.5 * ANGLE_STIFFNESS * bend * bend
                for x in range(3):
                    pull[j, x] += ANGLE_STIFFNESS * bend * (cosine * v[j, x] - v[k, x]) / length[j]
                    pull[k, x] += ANGLE_STIFFNESS * bend * (cosine * v[k, x] - v[j, x]) / length[k]
        for j in range(4):
            to = slot[neighbours[i, j]]
            for x in range(3):
                if to >= 0:
                    force[to, x] += pull[j, x]
                if slot[i] >= 0:
                    force[slot[i], x] -= pull[j, x]
    return energy + _repulsion(sites, neighbours, box, moving, slot, near, count, force)


@numba.njit(cache=True)
def _repulsion(
    sites: np.ndarray,
    neighbours: np.ndarray,
    box: float,
    moving: np.ndarray,
    slot: np.ndarray,
    near: np.ndarray,
    count: np.ndarray,
    force: np.ndarray,
) -> float:
    """Energy of unbonded pairs nearer than `APART_A`; their force is added."""
    energy = 0.0
    vector = np.empty(3)
    for i in range(len(moving)):
        a = moving[i]
        for k in range(count[i]):
            j = near[i, k]
            distance = _between(sites, box, a, j, vector)
            if distance >= APART_A or _bonded(neighbours, a, j):
                continue
            overlap = APART_A - distance
            energy += (0.25 if slot[j] >= 0 else 0.5) * APART_STIFFNESS * overlap * overlap
            for x in range(3):
                force[i, x] -= APART_STIFFNESS * overlap / distance * vector[x]
    return energy


@numba.njit(cache=True)
def _between(sites: np.ndarray, box: float, i: int, j: int, vector: np.ndarray) -> float:
    """Write the shortest vector from site i to site j; return its length."""
    r2 = 0.0
    for x in range(3):
        r = sites[j, x] - sites[i, x]
        r -= box * np.rint(r / box)
        vector[x] = r
        r2 += r * r
    return np.sqrt(r2)


@numba.njit(cache=True)
def _bonded(neighbours: np.ndarray, i: int, j: int) -> bool:
    return neighbours[i, 0] == j or neighbours[i, 1] == j or neighbours[i, 2] == j or neighbours[i, 3] == j
