"""Slit: cut every tunnel and open every cavity with walls one voxel thin, for the competition's count of tunnels.

The metric counts components, tunnels and cavities in each octant of a volume. Where the truth has no tunnel in any of
them, that part of the score is 0.5 / (tunnels + 0.5): it is won by having none at all, and hardly by having few. So
inside each octant every component is grown again from a single voxel, its strongest, by adding simple points only:
voxels that change neither the number of components nor that of tunnels or cavities. What cannot be added is left out.
The result has the components of before, no tunnel and no cavity, and nearly every voxel; docs/postprocess.md has the
mathematics. The walls of background are an artefact made for this metric: no step for anything but a submission.

     tunnel     slit        a ring, seen along its tunnel: it is cut where the growth met itself, in its weakest place
     #####      #####
     #   #      #   #
     #####      ## ##
"""

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cc3d
import numpy as np
import numpy.typing as npt

from surface_kernel.compiled import compiled
from surface_kernel.machine import cores
from surface_kernel.postprocess.box_counts import box_counts

Mask = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]
Box = tuple[slice, slice, slice]

_EMPTY, _WAITING, _QUEUED, _GROWN = range(4)  # states of a voxel: not of the mask; of it, and what became of it
_LEVELS = 256
_NONE = -1  # the end of a queue

# A neighbourhood of 3×3×3 voxels as the bits of a number: bit 9 z + 3 y + x, of which 13 is the voxel itself.
_CENTRE = 1 << 13
_ALL = (1 << 27) - 1
_ZYX = list(itertools.product(range(3), repeat=3))
_FACES = sum(1 << bit for bit, zyx in enumerate(_ZYX) if zyx.count(1) == 2)
_FACES_AND_EDGES = _FACES | sum(1 << bit for bit, zyx in enumerate(_ZYX) if zyx.count(1) == 1)
_NOT_FIRST_Y, _NOT_LAST_Y = (sum(1 << bit for bit, (_, y, _) in enumerate(_ZYX) if y != end) for end in (0, 2))
_NOT_FIRST_X, _NOT_LAST_X = (sum(1 << bit for bit, (_, _, x) in enumerate(_ZYX) if x != end) for end in (0, 2))


def slit(mask: Mask, threads: int | None = None) -> None:
    """Remove voxels of a mask so that no octant has a tunnel or a cavity and each keeps its components, in place.

    A voxel's strength is how many voxels are set in the 5×5×5 box around it, the mask's edge repeated outside. An
    octant's components (6-connected) grow from their strongest voxels, the first of them in scan order; of the voxels
    around what has grown the strongest is tried next, of equals the one that has waited longest.

    Args:
        mask: uint8 {0, 1}, (z, y, x), an array or a memory map.
        threads: over which the octants are shared out; None: one for each core. They change time and memory (17 bytes
            a voxel of an octant each), and no result.
    """
    strength = np.empty(mask.shape, np.uint8)
    for z, counts in enumerate(box_counts(mask, 2)):
        np.multiply(counts, 2, out=strength[z])  # 250 × the share of 125 voxels
    with ThreadPoolExecutor(threads or cores(), "slit") as pool:
        list(pool.map(lambda box: _regrow(mask[box], strength[box]), octants(mask.shape)))


def octants(shape_zyx: Sequence[int]) -> list[Box]:
    """Return the boxes in which the competition counts: two halves along each axis, the first the larger by one."""
    halves = [[slice(0, length - length // 2), slice(length - length // 2, length)] for length in shape_zyx]
    return [(z, y, x) for z, y, x in itertools.product(*halves) if all(side.start < side.stop for side in (z, y, x))]


def _regrow(mask: Mask, strength: Mask) -> None:
    """Grow an octant's components again, in place; what is outside of it is background."""
    labels, count = cc3d.connected_components(np.ascontiguousarray(mask), connectivity=6, return_N=True)
    if count == 0:
        return
    # A frame of background spares every look at a neighbour the question whether there is one.
    state, strength = np.pad(mask, 1), np.pad(strength, 1)
    seeds = np.sort(_strongest(np.pad(labels, 1).ravel(), strength.ravel(), count))
    del labels
    steps = np.array([np.dot((z - 1, y - 1, x - 1), (state[0].size, state.shape[2], 1)) for z, y, x in _ZYX])
    _grow(state.ravel(), strength.ravel(), seeds, steps)
    mask[...] = state[1:-1, 1:-1, 1:-1] == _GROWN


@compiled()
def _strongest(labels: npt.NDArray[Any], strength: Mask, count: int) -> Integers:
    """Return where each component's strongest voxel is, the first of them in scan order: int64 (count,)."""
    place, most = np.full(count + 1, _NONE, np.int64), np.zeros(count + 1, np.uint8)
    for voxel in range(labels.size):
        label = labels[voxel]
        if label and (place[label] == _NONE or strength[voxel] > most[label]):
            place[label], most[label] = voxel, strength[voxel]
    return place[1:]


@compiled()
def _grow(state: Mask, strength: Mask, seeds: Integers, steps: Integers) -> None:
    """Grow all seeds by simple points, strongest first.

    Args:
        state: flat, with a frame of _EMPTY around it: _EMPTY or _WAITING, which becomes _GROWN where it could be added.
        strength: flat, of the same shape: the level at which a voxel waits.
        seeds: no two of them of one component.
        steps: from a voxel to those of its neighbourhood, in the order of their bits.
    """
    # A voxel waits in one queue at most, so its queue can be linked through an array of all voxels.
    first, last, following = np.full(_LEVELS, _NONE), np.full(_LEVELS, _NONE), np.full(state.size, _NONE)
    level = 0
    for seed in seeds:
        state[seed] = _GROWN
    for seed in seeds:
        level = max(level, _queue_around(seed, state, strength, steps, first, last, following))
    while level >= 0:
        voxel = first[level]
        if voxel == _NONE:
            level -= 1
            continue
        first[level] = following[voxel]
        state[voxel] = _WAITING  # one that is refused may be queued again, when more around it has grown
        around = 0
        for bit in range(27):
            around |= (state[voxel + steps[bit]] == _GROWN) << bit
        if is_simple(around):
            state[voxel] = _GROWN
            level = max(level, _queue_around(voxel, state, strength, steps, first, last, following))


@compiled()
def _queue_around(
    voxel: int, state: Mask, strength: Mask, steps: Integers, first: Integers, last: Integers, following: Integers
) -> int:
    """Put a voxel's waiting neighbours at the ends of their levels' queues; return the highest such level."""
    highest = 0
    for step in steps:
        neighbour = voxel + step
        if state[neighbour] == _WAITING:
            state[neighbour] = _QUEUED
            level = strength[neighbour]
            following[neighbour] = _NONE
            if first[level] == _NONE:
                first[level] = neighbour
            else:
                following[last[level]] = neighbour
            last[level] = neighbour
            highest = max(highest, level)
    return highest


@compiled()
def is_simple(around: int) -> bool:
    """Whether a voxel can be added to a solid without a change of its components, tunnels or cavities.

    It can if, in its neighbourhood, the solid's voxels across its faces and edges have exactly one 6-connected
    component that touches a face, and the background has exactly one 26-connected component (Bertrand and Malandain,
    "A new characterization of three-dimensional simple points", 1994).

    Args:
        around: the solid's voxels around it, as bits.
    """
    faces, solid = around & _FACES, around & _FACES_AND_EDGES
    piece, grown = 0, faces & -faces
    while grown != piece:
        piece = grown
        grown |= (piece & _NOT_LAST_X) << 1 | (piece & _NOT_FIRST_X) >> 1
        grown |= (piece & _NOT_LAST_Y) << 3 | (piece & _NOT_FIRST_Y) >> 3
        grown = (grown | piece << 9 | piece >> 9) & solid
    if faces == 0 or faces & ~piece:
        return False
    background = _ALL & ~_CENTRE & ~around
    piece, grown = 0, background & -background
    while grown != piece:
        piece = grown
        grown |= (grown & _NOT_LAST_X) << 1 | (grown & _NOT_FIRST_X) >> 1  # one axis after the other: the whole box
        grown |= (grown & _NOT_LAST_Y) << 3 | (grown & _NOT_FIRST_Y) >> 3
        grown = (grown | grown << 9 | grown >> 9) & background
    return background != 0 and grown == background
