"""Primitive (shortest-path) rings: every two atoms of the ring are as near along the ring as in the whole network.

A ring is sought from its smallest atom, the root. Two neighbours l₁ and r₁ of the root begin its arms l₁ l₂ … and
r₁ r₂ …, which meet k bonds away in an atom (ring of 2k) or in a bond (2k + 1). In a primitive ring lⱼ is j bonds from the
root, j − 1 from l₁ and j + 1 from r₁: a search from l₁ that keeps to such atoms, and its mirror image from r₁, leave few
that can be part of a ring. Where both reach a top, the lower halves of the arms are laid first, atom by atom, then the
upper halves from the top down; with the distances from the lower atoms at hand each step is checked at once. It is enough
that opposite atoms (half the ring apart) have no shortcut: every other pair lies on a shortest path between two such.

D. S. Franzblau, Phys. Rev. B 44, 4925 (1991), doi:10.1103/PhysRevB.44.4925; the use of two arms: X. Yuan & A. N. Cormack,
Comput. Mater. Sci. 24, 343 (2002), doi:10.1016/S0927-0256(01)00256-7.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..compiled import compiled
from .ball import Ball, Rows, row, widened

Ints = NDArray[np.int64]

LEFT, RIGHT = 0, 1
_TOP, _ODD, _NOTED = 2, 3, 4


class Arms(NamedTuple):
    """mark (5, node): stamp of the pair of arms a node is on the left or right arm of, is a top or the left end of a top bond of as
    seen from the left, or is where the right arm meets it.

    node (2, level): the arms being laid. cursor (position,): the bond tried last at each of their positions.
    """

    mark: Ints
    node: Ints
    cursor: Ints


@compiled
def primitive_of(
    ball: Ball, rows: Rows, max_size: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:  # pragma: no cover - compiled
    """Sizes of the primitive rings whose smallest atom is a root, and their nodes one after the other."""
    n, depth = len(ball.atom), max_size // 2
    arms = Arms(np.full((5, n), -1, np.int64), np.zeros((2, depth + 2), np.int64), np.zeros(2 * depth + 2, np.int64))
    left_queue, right_queue = np.empty(n, np.int32), np.empty(n, np.int32)
    sizes, nodes = np.empty(256, np.int32), np.empty(4096, np.int32)
    filled = np.zeros(2, np.int64)
    stamp = 0
    for s in range(ball.roots):
        first = row(ball, rows, s, depth)
        begin, end = ball.start[s], ball.start[s + 1]
        for i in range(begin, end):
            left = ball.to[i]
            if ball.atom[left] < ball.atom[s]:
                continue
            for j in range(i + 1, end):
                right = ball.to[j]
                if ball.atom[right] < ball.atom[s]:
                    continue
                stamp += 1
                to_left, to_right = row(ball, rows, left, depth), row(ball, rows, right, depth)
                if rows.distance[to_left, right] == 1:
                    arms.node[LEFT, 1], arms.node[RIGHT, 1] = left, right
                    sizes, nodes = _kept(s, 3, arms, sizes, nodes, filled)
                    continue
                tops = _spread(ball, rows, arms, s, left, first, to_right, LEFT, stamp, max_size, left_queue)
                if tops == 0:
                    continue
                reached = _spread(ball, rows, arms, s, right, first, to_left, RIGHT, stamp, max_size, right_queue)
                for k in range(reached):
                    # From the end of the queue: ends of the right arm that meet the left one.
                    q = right_queue[n - 1 - k]
                    level = int(rows.distance[first, q])
                    if rows.distance[to_left, q] == level - 1:
                        arms.node[LEFT, level], arms.node[RIGHT, level] = q, q
                        arms.node[LEFT, 1], arms.node[RIGHT, 1] = left, right
                        sizes, nodes = _laid(ball, rows, arms, s, 2 * level, stamp, depth, sizes, nodes, filled)
                    else:
                        for m in range(ball.start[q], ball.start[q + 1]):
                            p = ball.to[m]
                            if arms.mark[_ODD, p] == stamp and rows.distance[first, p] == level:
                                arms.node[LEFT, level], arms.node[RIGHT, level] = p, q
                                arms.node[LEFT, 1], arms.node[RIGHT, 1] = left, right
                                sizes, nodes = _laid(
                                    ball, rows, arms, s, 2 * level + 1, stamp, depth, sizes, nodes, filled
                                )
    return sizes[: filled[0]], nodes[: filled[1]]


@compiled
def _spread(  # pragma: no cover - compiled
    ball: Ball, rows: Rows, arms: Arms, s: int, start: int, first: int, other: int, side: int, stamp: int, max_size: int,
    queue: NDArray[np.int32],
) -> int:  # fmt: skip
    """Mark the arms of one side from `start` on; return how many ends they have that could meet the other side's.

    first, other: rows of the root and of the other arm's first atom. The left side marks its ends; the right side puts
    those that meet them at the end of the queue, last first.
    """
    queue[0] = start
    arms.mark[side, start] = stamp
    head, filled, ends, last = 0, 1, 0, len(queue) - 1
    root = ball.atom[s]
    while head < filled:
        x = queue[head]
        head += 1
        level = rows.distance[first, x] + 1
        if 2 * level > max_size:
            break
        for k in range(ball.start[x], ball.start[x + 1]):
            y = ball.to[k]
            if rows.distance[first, y] != level or ball.atom[y] < root or y == s:
                continue
            across = rows.distance[other, y]
            if across == level + 1:
                if arms.mark[side, y] != stamp:
                    arms.mark[side, y] = stamp
                    queue[filled] = y
                    filled += 1
            elif across == level - 1 or (across == level and 2 * level < max_size):
                kind = _TOP if across == level - 1 else _ODD
                if side == LEFT:
                    if arms.mark[kind, y] != stamp:
                        arms.mark[kind, y] = stamp
                        ends += 1
                elif (kind == _ODD or arms.mark[_TOP, y] == stamp) and arms.mark[_NOTED, y] != stamp:
                    arms.mark[_NOTED, y] = stamp
                    queue[last - ends] = y
                    ends += 1
    return ends


@compiled
def _laid(  # pragma: no cover - compiled
    ball: Ball, rows: Rows, arms: Arms, s: int, size: int, stamp: int, depth: int, sizes: NDArray[np.int32],
    nodes: NDArray[np.int32], filled: Ints,
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:  # fmt: skip
    """Add all primitive rings of `size` through the root, both first atoms and the tops that stand in `arms.node`.

    Positions are the lower halves in turn (l₂ r₂ … l_h r_h), then l from below the top down to h + 1, then r.
    """
    k = size // 2
    half = (k + size % 2) // 2
    low, upper = 2 * (half - 1), k - 1 - half
    count = low + 2 * upper
    cursor, node = arms.cursor, arms.node
    at = 0
    fresh = True
    while at >= 0:
        if at == count:
            sizes, nodes = _kept(s, size, arms, sizes, nodes, filled)
            at -= 1
            fresh = False
            continue
        if at < low:
            side, level = at % 2, 2 + at // 2
            parent = node[side, level - 1]
        else:
            side = (at - low) // upper
            level = k - 1 - (at - low) % upper
            parent = node[side, level + 1]
        bond = ball.start[parent] if fresh else cursor[at] + 1
        found = False
        while bond < ball.start[parent + 1]:
            y = ball.to[bond]
            if arms.mark[side, y] == stamp and (
                _fits_low(ball, rows, node, y, side, level, size, depth)
                if at < low
                else _fits_high(rows, node, y, side, level, size, half)
            ):
                found = True
                break
            bond += 1
        if found:
            node[side, level] = y
            cursor[at] = bond
            at += 1
            fresh = True
        else:
            at -= 1
            fresh = False
    return sizes, nodes


@compiled
def _fits_low(  # pragma: no cover - compiled
    ball: Ball, rows: Rows, node: Ints, y: int, side: int, level: int, size: int, depth: int
) -> bool:
    """Whether `y` in the lower half of an arm leads to the top and has no shortcut to the other arm's lower atoms."""
    away = rows.distance[row(ball, rows, y, depth)]
    if away[node[side, size // 2]] != size // 2 - level:
        return False
    if away[node[1 - side, level - 1]] != min(2 * level - 1, size - 2 * level + 1):
        return False
    return side == LEFT or away[node[LEFT, level]] == min(2 * level, size - 2 * level)


@compiled
def _fits_high(  # pragma: no cover - compiled
    rows: Rows, node: Ints, y: int, side: int, level: int, size: int, half: int
) -> bool:
    """Whether `y` in the upper half of an arm comes down to its lower half and has no shortcut to its opposites."""
    k = size // 2
    if rows.distance[rows.slot[node[side, half]], y] != level - half:
        return False
    for across in range(k - level, k - level + 1 + size % 2):  # noqa: SIM110 (compiled)
        if rows.distance[rows.slot[node[1 - side, across]], y] != k:
            return False
    return True


@compiled
def _kept(  # pragma: no cover - compiled
    s: int, size: int, arms: Arms, sizes: NDArray[np.int32], nodes: NDArray[np.int32], filled: Ints
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Write down the ring that `arms.node` holds: root, left arm up, right arm down."""
    sizes, nodes = widened(sizes, nodes, filled, size)
    sizes[filled[0]] = size
    filled[0] += 1
    at = filled[1]
    nodes[at] = s
    k = size // 2
    for j in range(1, k + 1):
        nodes[at + j] = arms.node[LEFT, j]
    for j in range(1, size - k):
        nodes[at + size - j] = arms.node[RIGHT, j]
    filled[1] += size
    return sizes, nodes
