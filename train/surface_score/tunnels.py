"""Tunnels of a binary mask, and which of two masks' tunnels end at the same place. docs/betti.md derives the method.

The squares of the whole box are visited in scan order (of their lowest corner; in one corner: across z, y, x).
An edge of the solid appears with the first square that it borders. If it closes a loop, that loop is new, and numbered:
the younger, the higher. A square of the solid fills the loop around it, and the youngest loop in that sum is then worth
what the others in it add up to. The loops that stay open are the tunnels. Each edge knows the sum of loops that it
contributes to a cycle which runs through it, so the tunnel that a cycle winds through is the sum over its edges, and
what counts in that is the youngest loop: there the sweep closes the tunnel.

Sums are over the integers modulo 2: a set of loops, kept youngest first. Equal sums may have several names.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

from surface_score.compiled import compiled
from surface_score.features import Mask

_Numbers = npt.NDArray[np.int32]
_Pieces = npt.NDArray[np.int64]

# numba gives int() of 32 bits, and of a literal, a type of its own; np.int64 makes one type of all.
_wide = cast(Callable[[object], int], np.int64)

_UNSEEN = -1
_NOTHING = 0  # the name of the empty sum
_CLOSING = -2
_OPEN = -1
_SQUARES = ((1, 2), (0, 2), (0, 1))  # the axes along a square, in the order of the sweep


class _Loops(NamedTuple):
    """The loops of a solid as numba takes them. Sum `name` has the loops members[ends[name - 1] : ends[name]]."""

    sum_of_edge: npt.NDArray[np.int32]
    """[3 * voxel + axis] names the sum of an edge from a numbered voxel up along an axis."""
    edge_of_loop: list[int]
    """[loop] is the edge that closed it."""
    worth: list[int]
    """[loop] names the sum that a filled loop is worth, or is _OPEN."""
    members: list[int]
    ends: list[int]


def matched_tunnels(prediction: Mask, truth: Mask) -> int:
    """Return how many tunnels of two masks, bool (z, y, x) of one shape, end at the same place in their union."""
    return int(_match(prediction | truth, prediction, truth))


def tunnel_voxels(mask: Mask) -> npt.NDArray[np.int64]:
    """Return a voxel (z, y, x) on the rim of each tunnel of a mask, where the sweep closes it. Shape (tunnels, 3)."""
    return np.stack(np.unravel_index(_closing_voxels(mask), mask.shape), axis=-1)


@compiled
def _match(union: Mask, prediction: Mask, truth: Mask) -> int:
    number = _number_voxels(union)
    loops = _fill(number)
    predicted = _closed_by(prediction, number, loops)
    true = _closed_by(truth, number, loops)
    return int(np.count_nonzero(predicted & true))


@compiled
def _closing_voxels(mask: Mask) -> npt.NDArray[np.int64]:
    number = _number_voxels(mask)
    voxel = np.flatnonzero(mask)
    loops = _fill(number)
    open_loops = [loop for loop in range(len(loops.worth)) if loops.worth[loop] == _OPEN]
    return np.array([voxel[loops.edge_of_loop[loop] // 3] for loop in open_loops], np.int64)


@compiled
def _number_voxels(mask: Mask) -> _Numbers:
    """Number the voxels of a mask from 0 in scan order; the background, and a plane after each axis, is -1."""
    # The added planes spare every neighbour test below the question whether it is still inside.
    number = np.full((mask.shape[0] + 1, mask.shape[1] + 1, mask.shape[2] + 1), -1, np.int32)
    voxels = 0
    for z in range(mask.shape[0]):
        for y in range(mask.shape[1]):
            for x in range(mask.shape[2]):
                if mask[z, y, x]:
                    number[z, y, x] = voxels
                    voxels += 1
    return number


@compiled
def _rows(shape_zyx: tuple[int, int, int], strides: tuple[int, int, int]) -> list[int]:
    """Return where the rows begin in the flat array of numbers, in scan order, without those of the added planes."""
    return [z * strides[0] + y * strides[1] for z in range(shape_zyx[0] - 1) for y in range(shape_zyx[1] - 1)]


@compiled
def _grow_forest(number: _Numbers) -> npt.NDArray[np.int32]:
    """Return, for each edge in the order of appearance, _NOTHING if it joins two pieces, _CLOSING if it does not.

    Function calls would cost more than the loops here, so the pieces are looked up in place.
    """
    flat = number.ravel()
    strides = (number.shape[1] * number.shape[2], number.shape[2], 1)
    voxels = number.max() + 1
    sums = np.full(3 * voxels, _UNSEEN, np.int32)
    piece = np.arange(voxels)
    for row in _rows(number.shape, strides):
        for at in range(row, row + number.shape[2] - 1):
            for i, j in _SQUARES:
                a, b, c, d = flat[at], flat[at + strides[i]], flat[at + strides[j]], flat[at + strides[i] + strides[j]]
                for side in range(4):
                    tail, head, axis = a, b, i
                    if side == 1:
                        head, axis = c, j
                    elif side == 2:
                        tail, head = c, d
                    elif side == 3:
                        tail, head, axis = b, d, j
                    edge = 3 * tail + axis
                    if tail < 0 or head < 0 or sums[edge] != _UNSEEN:
                        continue
                    while piece[tail] != tail:
                        piece[tail] = piece[piece[tail]]
                        tail = piece[tail]
                    while piece[head] != head:
                        piece[head] = piece[piece[head]]
                        head = piece[head]
                    # A forest grows: an edge between two pieces joins them, one within a piece closes a loop.
                    sums[edge] = _CLOSING if tail == head else _NOTHING
                    piece[max(tail, head)] = min(tail, head)
    return sums


@compiled
def _fill(number: _Numbers) -> _Loops:
    """Number the loops of a solid as its edges close them, and fill those around its squares."""
    flat = number.ravel()
    strides = (number.shape[1] * number.shape[2], number.shape[2], 1)
    sums = _grow_forest(number)
    # numba infers the type of a list from its elements, and an empty literal has none.
    none = [0 for _ in range(0)]
    loops = _Loops(sums, none.copy(), none.copy(), none.copy(), [0])
    for row in _rows(number.shape, strides):
        for at in range(row, row + number.shape[2] - 1):
            for i, j in _SQUARES:
                a, b, c, d = flat[at], flat[at + strides[i]], flat[at + strides[j]], flat[at + strides[i] + strides[j]]
                if a >= 0 and b >= 0 and c >= 0 and d >= 0:
                    # Most squares lie inside the solid, and three edges wind through nothing: one test does.
                    others = sums[3 * a + i] | sums[3 * a + j] | sums[3 * c + i]
                    last = sums[3 * b + j]
                    if others == _NOTHING and last <= _NOTHING:
                        sums[3 * b + j] = _NOTHING
                    else:
                        _fill_square((3 * a + i, 3 * a + j, 3 * c + i, 3 * b + j), loops)
                elif (
                    (a >= 0 and b >= 0 and sums[3 * a + i] == _CLOSING)
                    or (a >= 0 and c >= 0 and sums[3 * a + j] == _CLOSING)
                    or (c >= 0 and d >= 0 and sums[3 * c + i] == _CLOSING)
                    or (b >= 0 and d >= 0 and sums[3 * b + j] == _CLOSING)
                ):
                    _open_loops(_wide(a), _wide(b), _wide(c), _wide(d), i, j, loops)
    return loops


@compiled
def _open_loops(a: int, b: int, c: int, d: int, i: int, j: int, loops: _Loops) -> None:
    """Open the loops that the edges of an incomplete square close and that are not open yet."""
    for side in range(4):
        tail, head, axis = a, b, i
        if side == 1:
            head, axis = c, j
        elif side == 2:
            tail, head = c, d
        elif side == 3:
            tail, head, axis = b, d, j
        if tail >= 0 and head >= 0 and loops.sum_of_edge[3 * tail + axis] == _CLOSING:
            _open_loop(3 * tail + axis, loops)


@compiled
def _open_loop(edge: int, loops: _Loops) -> None:
    """Number the loop that an edge closes."""
    loops.members.append(len(loops.worth))
    loops.ends.append(len(loops.members))
    loops.worth.append(_OPEN)
    loops.edge_of_loop.append(edge)
    loops.sum_of_edge[edge] = len(loops.ends) - 1


@compiled
def _fill_square(edges: tuple[int, int, int, int], loops: _Loops) -> None:
    """Fill the loop around a square of the solid.

    The last of its edges that closes a loop closes none that this square leaves open: it is worth what the others are.
    """
    sums = loops.sum_of_edge
    last = _UNSEEN
    for edge in edges:
        if sums[edge] == _CLOSING:
            if last != _UNSEEN:
                _open_loop(last, loops)
            last = edge
    if last != _UNSEEN:
        sums[last] = _NOTHING
    for edge in edges:
        sums[edge] = _shortest_name(sums[edge], loops)
    names = (_wide(sums[edges[0]]), _wide(sums[edges[1]]), _wide(sums[edges[2]]), _wide(sums[edges[3]]))
    left = (names[0] > 0) + (names[1] > 0) + (names[2] > 0) + (names[3] > 0)
    if left == 0:
        return
    if last == _UNSEEN:
        # No edge was left to be worth the others, so the square fills a loop that was open.
        _fill_youngest(_add(names, loops.worth, loops), loops.worth, loops)
    elif left == 1:
        sums[last] = max(names)
    else:
        sums[last] = _keep(_add(names, loops.worth, loops), 0, loops)


@compiled
def _shortest_name(name: int, loops: _Loops) -> int:
    """Return what a sum of a single filled loop is worth, mostly nothing; other sums as they are."""
    while name != _NOTHING and loops.ends[name] - loops.ends[name - 1] == 1:
        worth = loops.worth[loops.members[loops.ends[name - 1]]]
        if worth == _OPEN:
            break
        name = worth
    return name


@compiled
def _find(piece: npt.NDArray[np.int64], voxel: int) -> int:
    """Return the root of a voxel's piece."""
    while piece[voxel] != voxel:
        piece[voxel] = piece[piece[voxel]]
        voxel = piece[voxel]
    return voxel


@compiled
def _add(names: tuple[int, int, int, int], worth: list[int], loops: _Loops) -> list[int]:
    """Return the open loops of the sum of four sums, youngest first. Filled ones are replaced by what they are worth.

    A filled loop is worth older ones only, so taking the youngest first meets each loop once.
    """
    members, ends = loops.members, loops.ends
    waiting = [0 for _ in range(0)]
    for name in names:
        if name != _NOTHING:
            for at in range(ends[name - 1], ends[name]):
                heappush(waiting, -members[at])
    members_of_sum = [0 for _ in range(0)]
    while waiting:
        loop = -heappop(waiting)
        odd = True
        # Modulo 2 a loop that occurs twice cancels.
        while waiting and waiting[0] == -loop:
            heappop(waiting)
            odd = not odd
        if not odd:
            continue
        name = worth[loop]
        if name == _OPEN:
            members_of_sum.append(loop)
        elif name != _NOTHING:
            for at in range(ends[name - 1], ends[name]):
                heappush(waiting, -members[at])
    return members_of_sum


@compiled
def _keep(total: list[int], start: int, loops: _Loops) -> int:
    """Store the sum of the loops total[start:] and return its name."""
    if start == len(total):
        return _NOTHING
    for at in range(start, len(total)):
        loops.members.append(total[at])
    loops.ends.append(len(loops.members))
    return len(loops.ends) - 1


@compiled
def _fill_youngest(total: list[int], worth: list[int], loops: _Loops) -> None:
    """Fill a cycle that is the sum `total`: its youngest loop is worth the others from now on."""
    if total:
        worth[total[0]] = _keep(total, 1, loops)


@compiled
def _closed_by(mask: Mask, number: _Numbers, loops: _Loops) -> npt.NDArray[np.bool_]:
    """Return for each loop of the union whether a tunnel of `mask` ends there.

    All cycles of the mask are filled. Each one that was open still ends at its youngest loop.
    """
    # A copy: the other mask is measured against the same union.
    worth = loops.worth.copy()
    tails, heads, names = _edges_with_loops(mask, number, loops)
    parent = np.arange(number.max() + 1)
    to_parent = np.zeros(parent.size, np.int64)
    for edge in range(len(names)):
        tail, from_tail = _climb(tails[edge], parent, to_parent, worth, loops)
        head, from_head = _climb(heads[edge], parent, to_parent, worth, loops)
        total = _add((from_tail, names[edge], from_head, _wide(_NOTHING)), worth, loops)
        if tail == head:
            _fill_youngest(total, worth, loops)
        else:
            parent[tail] = head
            to_parent[tail] = _keep(total, 0, loops)
    closed = np.zeros(len(worth), np.bool_)
    for loop in range(len(worth)):
        closed[loop] = worth[loop] != _OPEN and loops.worth[loop] == _OPEN
    return closed


@compiled
def _edges_with_loops(mask: Mask, number: _Numbers, loops: _Loops) -> tuple[list[int], list[int], list[int]]:
    """Return both ends and the sum of each edge of a mask whose sum is not empty.

    The other edges wind through nothing: voxels that they join are one, and the ends returned are such joined voxels.
    """
    piece = np.arange(number.max() + 1)
    tails = [0 for _ in range(0)]
    heads = [0 for _ in range(0)]
    names = [0 for _ in range(0)]
    nothing = _wide(_NOTHING)
    depth, height, width = mask.shape
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                if not mask[z, y, x]:
                    continue
                for axis in range(3):
                    up_z, up_y, up_x = z + (axis == 0), y + (axis == 1), x + (axis == 2)
                    if up_z == depth or up_y == height or up_x == width or not mask[up_z, up_y, up_x]:
                        continue
                    tail, head = _wide(number[z, y, x]), _wide(number[up_z, up_y, up_x])
                    name = _wide(loops.sum_of_edge[3 * tail + axis])
                    if name > 0:
                        name = _keep(_add((name, nothing, nothing, nothing), loops.worth, loops), 0, loops)
                    if name > 0:
                        tails.append(tail)
                        heads.append(head)
                        names.append(name)
                    else:
                        tail, head = _find(piece, tail), _find(piece, head)
                        piece[max(tail, head)] = min(tail, head)
    for edge in range(len(names)):
        tails[edge], heads[edge] = _find(piece, tails[edge]), _find(piece, heads[edge])
    return tails, heads, names


@compiled
def _climb(
    voxel: int, parent: npt.NDArray[np.int64], to_parent: npt.NDArray[np.int64], worth: list[int], loops: _Loops
) -> tuple[int, int]:
    """Return the root above a voxel and the name of the sum on the way there; compress the path."""
    way = [voxel]
    while parent[way[-1]] != way[-1]:
        way.append(parent[way[-1]])
    root = way.pop()
    above = _NOTHING
    while way:
        at = way.pop()
        if parent[at] != root:
            to_parent[at] = _keep(
                _add((to_parent[at], above, _wide(_NOTHING), _wide(_NOTHING)), worth, loops), 0, loops
            )
            parent[at] = root
        above = to_parent[at]
    return root, above
