"""The surroundings of a few atoms: all images within so many bonds, numbered afresh, and distances among them.

A ring of at most 2k atoms lies within k bonds of each of its atoms, and so does every shortcut between two of its atoms
(a shortcut of L bonds between atoms a and b bonds away from a third goes no further from it than (a + b + L)/2 < k). So
rings through an atom can be sought in its ball of k bonds alone, whatever lies beyond. Balls are unfolded: two images of
an atom are two nodes, so a path that leaves a periodic box does not close upon itself.

Roots are searched in blocks of neighbours, which share most of their balls. Nodes 0 … roots − 1 are the roots.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..compiled import compiled
from ..network import Network

Ints = NDArray[np.int64]

NODES = 14_000
"""Nodes that a ball of a block should have: its distances then stay in the processor's cache."""
FAR = 255
"""Distance of a node that is not reached."""

_SIDE = 512
"""Images are told apart up to this many boxes away."""
_MOST_NODES = 100_000


class Graph(NamedTuple):
    """The bonds as compressed rows: of atom a to `to[start[a]:start[a + 1]]`, moved by `shift` there."""

    start: Ints
    to: Ints
    shift: Ints


class Roots(NamedTuple):
    """Atoms (n,) to search from, and the image (n, 3) of each that lies beside the others."""

    atom: Ints
    shift: Ints


class Ball(NamedTuple):
    """Nodes: atom (n,) and shift (n, 3) of each, its bonds as compressed rows, and how many of them are roots."""

    atom: Ints
    shift: Ints
    start: Ints
    to: NDArray[np.int32]
    roots: int


class Rows(NamedTuple):
    """Distances (row, node) from the nodes that were asked for; slot (node,) is the row of a node, −1 while unknown.

    used: (1,) number of rows filled. queue: (node,) room for a search.
    """

    distance: NDArray[np.uint8]
    slot: Ints
    used: Ints
    queue: NDArray[np.int32]


@compiled
def stripped(start: Ints, to: Ints) -> NDArray[np.bool_]:  # pragma: no cover - compiled
    """Which atoms are left (n,) when dangling ones are stripped again and again: rings hold no others."""
    n = len(start) - 1
    left = np.diff(start)
    keep = left > 0
    queue = np.empty(n, np.int64)
    filled = 0
    for a in range(n):
        if left[a] == 1:
            keep[a] = False
            queue[filled] = a
            filled += 1
    head = 0
    while head < filled:
        for k in range(start[queue[head]], start[queue[head] + 1]):
            b = to[k]
            left[b] -= 1
            if keep[b] and left[b] <= 1:
                keep[b] = False
                queue[filled] = b
                filled += 1
        head += 1
    return keep


def core_of(network: Network) -> tuple[Graph, Ints]:
    """The graph without dangling atoms, in new labels, and the old label of each."""
    start, to, _ = network.neighbours()
    keep = stripped(start, to)
    labels = np.flatnonzero(keep)
    new = np.cumsum(keep) - 1
    held = keep[network.pairs].all(axis=1)
    inner = Network(len(labels), new[network.pairs[held]], network.shifts[held])
    return Graph(*inner.neighbours()), labels


def blocks_of(graph: Graph, depth: int) -> list[Roots]:
    """All atoms in compact groups whose ball of `depth` bonds has about `NODES` nodes, largest first."""
    n = len(graph.start) - 1
    if n == 0:
        return []
    sample = np.linspace(0, n - 1, min(n, 8)).astype(np.int64)
    home = np.zeros((1, 3), np.int64)
    around = max(len(unfolded(graph, Roots(sample[k : k + 1], home), depth).atom) for k in range(len(sample)))
    size = max(1, round(max(NODES ** (1 / 3) - around ** (1 / 3), 0) ** 3))
    seeds = np.random.default_rng(0).permutation(n)[: max(1, n // size)]
    group, shift = _nearest_seed(graph, seeds)
    order = np.argsort(group, kind="stable")
    parts = np.split(order, 1 + np.flatnonzero(np.diff(group[order])))
    return [Roots(part, shift[part]) for part in sorted(parts, key=len, reverse=True)]


@compiled
def _nearest_seed(graph: Graph, seeds: Ints) -> tuple[Ints, Ints]:  # pragma: no cover - compiled
    """Number of the seed that the fewest bonds lead to (n,), parts without a seed getting new ones; shift (n, 3) from it."""
    start, to, shift = graph
    n = len(start) - 1
    group, moved = np.full(n, -1, np.int64), np.zeros((n, 3), np.int64)
    queue = np.empty(n, np.int64)
    groups, first = len(seeds), 0
    filled = len(seeds)
    for g in range(filled):
        group[seeds[g]] = g
        queue[g] = seeds[g]
    head = 0
    while True:
        while head < filled:
            a = queue[head]
            head += 1
            for k in range(start[a], start[a + 1]):
                if group[to[k]] < 0:
                    group[to[k]] = group[a]
                    moved[to[k]] = moved[a] + shift[k]
                    queue[filled] = to[k]
                    filled += 1
        while first < n and group[first] >= 0:
            first += 1
        if first == n:
            return group, moved
        group[first] = groups
        groups += 1
        queue[filled] = first
        filled += 1


@compiled
def _place(table: Ints, stamp: Ints, key: int, mask: int) -> int:  # pragma: no cover - compiled
    """Where `key` stands, or would stand, in an open hash table whose free places have stamp −1."""
    place = ((key * 0x9E3779B97F4A7C1) >> 17) & mask
    while stamp[place] >= 0 and table[place] != key:
        place = (place + 1) & mask
    return place


@compiled
def unfolded(graph: Graph, roots: Roots, depth: int) -> Ball:  # pragma: no cover - compiled
    """The ball of all images at most `depth` bonds from the roots."""
    start, to, shift = graph
    n = len(start) - 1
    n_roots = len(roots.atom)
    room = max(64, 2 * n_roots)
    atom, moved = np.empty(room, np.int64), np.zeros((room, 3), np.int64)
    size = 1
    while size < 8 * n_roots:
        size *= 2
    table, node_at = np.empty(size, np.int64), np.full(size, -1, np.int64)
    middle = _SIDE * (1 + 2 * _SIDE * (1 + 2 * _SIDE))
    filled = n_roots
    for i in range(filled):
        atom[i] = roots.atom[i]
        moved[i] = roots.shift[i]
        key = atom[i] + n * (middle + moved[i, 0] + 2 * _SIDE * (moved[i, 1] + 2 * _SIDE * moved[i, 2]))
        place = _place(table, node_at, key, size - 1)
        table[place] = key
        node_at[place] = i
    ends = np.empty(room + 1, np.int64)
    ends[0] = 0
    near = np.empty(4 * room, np.int32)
    links, node, level, level_end = 0, 0, 0, filled
    while node < filled:
        if node == level_end:
            level += 1
            level_end = filled
        a = atom[node]
        for k in range(start[a], start[a + 1]):
            x = moved[node, 0] + shift[k, 0]
            y = moved[node, 1] + shift[k, 1]
            z = moved[node, 2] + shift[k, 2]
            key = to[k] + n * (middle + x + 2 * _SIDE * (y + 2 * _SIDE * z))
            place = _place(table, node_at, key, size - 1)
            other = node_at[place]
            if other < 0:
                if level == depth:
                    continue
                other = filled
                if filled == room:
                    room *= 2
                    atom = np.concatenate((atom, np.empty(filled, np.int64)))
                    moved = np.concatenate((moved, np.empty((filled, 3), np.int64)))
                    ends = np.concatenate((ends, np.empty(filled, np.int64)))
                atom[other] = to[k]
                moved[other, 0], moved[other, 1], moved[other, 2] = x, y, z
                table[place] = key
                node_at[place] = other
                filled += 1
                if 2 * filled > size:
                    old_table, old_nodes = table, node_at
                    size *= 4
                    table, node_at = np.empty(size, np.int64), np.full(size, -1, np.int64)
                    for p in range(len(old_nodes)):
                        if old_nodes[p] >= 0:
                            q = _place(table, node_at, old_table[p], size - 1)
                            table[q] = old_table[p]
                            node_at[q] = old_nodes[p]
            if links == len(near):
                near = np.concatenate((near, np.empty(links, np.int32)))
            near[links] = other
            links += 1
        node += 1
        ends[node] = links
    return Ball(atom[:filled], moved[:filled], ends[: filled + 1], near[:links], n_roots)


def room_for(ball: Ball, spare: NDArray[np.uint8]) -> tuple[Rows, NDArray[np.uint8]]:
    """No distances known yet, in the spare memory where it suffices; and the memory in use. ValueError for too large a ball."""
    n = len(ball.atom)
    if n > _MOST_NODES:
        raise ValueError(
            f"{n} atoms lie within half the largest ring of one atom; expected at most {_MOST_NODES}: lower max_size"
        )
    if spare.size < n * n:
        spare = np.empty(n * n, np.uint8)
    distance = spare[: n * n].reshape(n, n)
    return Rows(distance, np.full(n, -1, np.int64), np.zeros(1, np.int64), np.empty(n, np.int32)), spare


@compiled
def row(ball: Ball, rows: Rows, node: int, depth: int) -> int:  # pragma: no cover - compiled
    """The row of distances from `node` up to `depth`, searched when first asked for."""
    if rows.slot[node] >= 0:
        return rows.slot[node]
    mine = rows.used[0]
    rows.used[0] += 1
    rows.slot[node] = mine
    away = rows.distance[mine]
    away[:] = FAR
    away[node] = 0
    queue = rows.queue
    queue[0] = node
    head, filled = 0, 1
    while head < filled:
        a = queue[head]
        head += 1
        further = away[a] + 1
        if further > depth:
            break
        for k in range(ball.start[a], ball.start[a + 1]):
            b = ball.to[k]
            if away[b] == FAR:
                away[b] = further
                queue[filled] = b
                filled += 1
    return mine


@compiled
def widened(  # pragma: no cover - compiled
    sizes: NDArray[np.int32], nodes: NDArray[np.int32], filled: Ints, size: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The sizes and nodes of the rings found, with room for one more of `size`; filled: (2,) how much of both is in use."""
    if filled[0] == len(sizes):
        sizes = np.concatenate((sizes, np.empty(len(sizes), np.int32)))
    if filled[1] + size > len(nodes):
        nodes = np.concatenate((nodes, np.empty(len(nodes) + size, np.int32)))
    return sizes, nodes


@compiled
def shells(graph: Graph, count: int) -> Ints:  # pragma: no cover - compiled
    """Number of images 1, 2, … `count` bonds from every atom, (atom, count)."""
    n = len(graph.start) - 1
    found = np.zeros((n, count), np.int64)
    for a in range(n):
        ball = unfolded(graph, Roots(np.full(1, a, np.int64), np.zeros((1, 3), np.int64)), count)
        level = np.full(len(ball.atom), -1, np.int64)
        level[0] = 0
        for x in range(len(ball.atom)):
            if level[x] > 0:
                found[a, level[x] - 1] += 1
            for k in range(ball.start[x], ball.start[x + 1]):
                if level[ball.to[k]] < 0:
                    level[ball.to[k]] = level[x] + 1
    return found
