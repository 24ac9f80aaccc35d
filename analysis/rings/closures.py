"""King's and Guttman's rings: the shortest paths that close an angle or a bond.

king     for every atom and every two of its neighbours, all shortest rings through the three.
         S. V. King, Nature 213, 1112 (1967), doi:10.1038/2131112a0.
guttman  for every bond, all shortest rings through it. L. Guttman, J. Non-Cryst. Solids 116, 145 (1990),
         doi:10.1016/0022-3093(90)90686-G.

A search goes from one neighbour of a root around to the others (King) or back to the root by another bond (Guttman); it
leaves out nodes from which the way on is too long. The same ring is met from several of its atoms.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..compiled import compiled
from .ball import Ball, Rows, row, widened

Nodes = NDArray[np.int32]
Ints = NDArray[np.int64]


@compiled
def king_of(ball: Ball, rows: Rows, max_size: int) -> tuple[Nodes, Nodes]:  # pragma: no cover - compiled
    """Sizes and nodes of the shortest rings through every angle at the roots."""
    n = len(ball.atom)
    away, queue = np.full(n, -1, np.int64), np.empty(n, np.int32)
    sizes, nodes = np.empty(256, np.int32), np.empty(4096, np.int32)
    filled = np.zeros(2, np.int64)
    for s in range(ball.roots):
        home = row(ball, rows, s, max_size // 2)
        for i in range(ball.start[s], ball.start[s + 1] - 1):
            one = ball.to[i]
            reached = _searched(ball, rows.distance[home], s, one, max_size, away, queue)
            for j in range(i + 1, ball.start[s + 1]):
                if away[ball.to[j]] >= 0:
                    sizes, nodes = _traced(ball, s, ball.to[j], away, sizes, nodes, filled)
            for k in range(reached):
                away[queue[k]] = -1
    return sizes[: filled[0]], nodes[: filled[1]]


@compiled
def guttman_of(ball: Ball, rows: Rows, max_size: int) -> tuple[Nodes, Nodes]:  # pragma: no cover - compiled
    """Sizes and nodes of the shortest rings through every bond at the roots."""
    n = len(ball.atom)
    away, queue = np.full(n, -1, np.int64), np.empty(n, np.int32)
    sizes, nodes = np.empty(256, np.int32), np.empty(4096, np.int32)
    filled = np.zeros(2, np.int64)
    for s in range(ball.roots):
        home = row(ball, rows, s, max_size // 2)
        for i in range(ball.start[s], ball.start[s + 1]):
            one = ball.to[i]
            if ball.atom[one] < ball.atom[s]:
                continue
            reached = _searched(ball, rows.distance[home], s, one, max_size, away, queue)
            nearest = max_size
            for j in range(ball.start[s], ball.start[s + 1]):
                other = ball.to[j]
                if other != one and away[other] >= 0:
                    nearest = min(nearest, away[other])
            for j in range(ball.start[s], ball.start[s + 1]):
                other = ball.to[j]
                if other != one and away[other] == nearest:
                    sizes, nodes = _traced(ball, s, other, away, sizes, nodes, filled)
            for k in range(reached):
                away[queue[k]] = -1
    return sizes[: filled[0]], nodes[: filled[1]]


@compiled
def _searched(  # pragma: no cover - compiled
    ball: Ball, home: NDArray[np.uint8], s: int, one: int, max_size: int, away: Ints, queue: Nodes
) -> int:
    """Distances from `one` without passing the root `s`, as far as a ring of `max_size` may need; number of nodes reached.

    home: distances from the root. away must be −1 everywhere.
    """
    queue[0] = one
    away[one] = 0
    head, filled = 0, 1
    while head < filled:
        x = queue[head]
        head += 1
        further = away[x] + 1
        for k in range(ball.start[x], ball.start[x + 1]):
            y = ball.to[k]
            if y != s and away[y] < 0 and further + 1 + home[y] <= max_size:
                away[y] = further
                queue[filled] = y
                filled += 1
    return filled


@compiled
def _traced(  # pragma: no cover - compiled
    ball: Ball, s: int, end: int, away: Ints, sizes: Nodes, nodes: Nodes, filled: Ints
) -> tuple[Nodes, Nodes]:
    """Write down every ring of the root, `end`, and a path from there along falling distances."""
    size = away[end] + 2
    path, cursor = np.empty(size, np.int32), np.empty(size, np.int64)
    path[0], path[1] = s, end
    at = 1
    cursor[1] = ball.start[end]
    while at >= 1:
        if at == size - 1:
            sizes, nodes = widened(sizes, nodes, filled, size)
            sizes[filled[0]] = size
            nodes[filled[1] : filled[1] + size] = path
            filled[0] += 1
            filled[1] += size
            at -= 1
            continue
        x = path[at]
        step = False
        while cursor[at] < ball.start[x + 1]:
            y = ball.to[cursor[at]]
            cursor[at] += 1
            if y != s and away[y] == away[x] - 1 and away[x] > 0:
                at += 1
                path[at] = y
                cursor[at] = ball.start[y]
                step = True
                break
        if not step:
            at -= 1
    return sizes, nodes
