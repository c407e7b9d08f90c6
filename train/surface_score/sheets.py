"""Which sheets a prediction merges and which it splits, and where: what the bits of `surface_score.voi` consist of.

Sheets and components are 26-connected. A predicted component that holds a fair part of two true sheets merges them, a
true sheet of which two predicted components hold a fair part is split. Where two sheets are merged is located by
growing them inside the prediction until they touch; where a sheet is split, by growing its pieces inside the truth.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from surface_score.compiled import compiled
from surface_score.features import Labels, Mask
from surface_score.voi import contingency, label_sheets

Voxel = tuple[int, int, int]

FAIR_PART = 0.02  # share of the smaller of the two, below which an overlap is no merge and no split
_LISTED = 20


@dataclass(frozen=True)
class Part:
    """A sheet or component by its number, with its size in voxels and how many of them lie in the mismatch."""

    number: int
    voxels: int
    shared_voxels: int


@dataclass(frozen=True)
class Contact:
    """Where two parts of a mismatch touch once they have been grown: over how many voxels, and one of them."""

    numbers: tuple[int, int]
    voxels: int
    at: Voxel


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """A predicted component that merges true sheets, or a true sheet that is split into predicted components."""

    number: int
    voxels: int
    stray_voxels: int
    """Those that lie in no part: false foreground of a component, missed voxels of a sheet."""
    bits: float
    """Its share of the merge or split."""
    parts: tuple[Part, ...]
    """The largest first."""
    contacts: tuple[Contact, ...]
    """Where its parts touch, the narrowest first."""


@dataclass(frozen=True)
class UnmatchedSheet:
    """A predicted component without a true voxel, or a true sheet without a predicted one."""

    number: int
    voxels: int
    at: Voxel


@dataclass(frozen=True, kw_only=True)
class SheetComparison:
    """How the sheets of two masks correspond."""

    true_sheets: int
    """How many there are."""
    predicted_components: int
    """How many there are."""
    false_bits: float
    """What false foreground, in whatever components, adds to the bits of split."""
    missed_bits: float
    """What missed voxels add to the bits of merge."""
    merges: tuple[Mismatch, ...]
    """Those with the most bits first, at most 20."""
    splits: tuple[Mismatch, ...]
    """Those with the most bits first, at most 20."""
    missed: tuple[UnmatchedSheet, ...]
    """True sheets without a predicted voxel, the largest first."""
    spurious: tuple[UnmatchedSheet, ...]
    """Predicted components without a true voxel, the largest first."""


def compare_sheets(prediction: Mask, truth: Mask) -> SheetComparison:
    """Return how the sheets of two masks, bool (z, y, x) of one shape, correspond."""
    true_sheet, component = label_sheets(truth), label_sheets(prediction)
    table = contingency(true_sheet, component).tocsr()
    return SheetComparison(
        true_sheets=table.shape[0] - 1,
        predicted_components=table.shape[1] - 1,
        false_bits=float(_bits(table)[0]),
        missed_bits=float(_bits(table.T.tocsr())[0]),
        merges=_mismatches(table.T.tocsr(), prediction, true_sheet),
        splits=_mismatches(table, truth, component),
        missed=_unmatched(table, true_sheet),
        spurious=_unmatched(table.T.tocsr(), component),
    )


def _sums(table: csr_array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    return np.asarray(table.sum(axis=1)).ravel(), np.asarray(table.sum(axis=0)).ravel()


def _bits(table: csr_array) -> npt.NDArray[np.float64]:
    """Return what each row adds to the entropy of the column given the row."""
    of_row, _ = _sums(table)
    cells = table.tocoo()
    surprise = cells.data * np.log2(of_row[cells.row] / cells.data)
    bits: npt.NDArray[np.float64] = np.bincount(cells.row, surprise, minlength=len(of_row)) / max(of_row.sum(), 1)
    return bits


def _mismatches(table: csr_array, inside: Mask, part: Labels) -> tuple[Mismatch, ...]:
    """Return the rows that hold a fair part of two columns or more, those with the most bits first."""
    of_row, of_column = _sums(table)
    bits = _bits(table)
    candidates = []
    for number in range(1, len(of_row)):
        columns = table.indices[table.indptr[number] : table.indptr[number + 1]]
        shared = table.data[table.indptr[number] : table.indptr[number + 1]]
        fair = (columns > 0) & (shared >= FAIR_PART * np.minimum(of_column[columns], of_row[number]))
        if np.count_nonzero(fair) >= 2:
            stray = int(shared[columns == 0].sum())
            candidates.append((float(bits[number]), number, columns[fair], shared[fair], stray))
    worst = sorted(candidates, key=lambda row: row[0], reverse=True)[:_LISTED]
    contacts = _contacts(inside, part) if worst else []
    mismatches = []
    for row_bits, number, columns, shared, stray in worst:
        order = np.argsort(-shared, kind="stable")
        parts = [Part(int(columns[at]), int(of_column[columns[at]]), int(shared[at])) for at in order]
        numbers = set(columns.tolist())
        mismatches.append(
            Mismatch(
                number=number,
                voxels=int(of_row[number]),
                stray_voxels=stray,
                bits=row_bits,
                parts=tuple(parts),
                contacts=tuple(contact for contact in contacts if numbers.issuperset(contact.numbers)),
            )
        )
    return tuple(mismatches)


def _unmatched(table: csr_array, labels: Labels) -> tuple[UnmatchedSheet, ...]:
    """Return the rows that share voxels with column 0 alone, the largest first."""
    of_row, _ = _sums(table)
    shared = of_row - np.asarray(table[:, [0]].todense()).ravel()
    numbers = np.flatnonzero((shared == 0) & (of_row > 0))
    numbers = numbers[numbers > 0]
    first = np.zeros(len(of_row), np.int64)
    voxels = np.flatnonzero(labels)[::-1]
    first[labels.reshape(-1)[voxels]] = voxels  # of several writes to a place, numpy keeps the last
    order = numbers[np.argsort(-of_row[numbers], kind="stable")]
    return tuple(
        UnmatchedSheet(int(number), int(of_row[number]), _voxel(first[number], labels.shape)) for number in order
    )


def _contacts(inside: Mask, part: Labels) -> list[Contact]:
    """Return where parts touch when they are grown inside a mask, pair by pair, the narrowest contact first."""
    allowed = np.pad(inside, 1)  # with a margin no step from an allowed voxel leaves the flat array
    owner = np.pad(part.astype(np.int32), 1)
    owner[~allowed] = 0
    strides = np.array(owner.strides) // owner.itemsize
    steps = np.array([(z, y, x) for z in (-1, 0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1)]) @ strides
    _grow(allowed.reshape(-1), owner.reshape(-1), steps)
    pairs, places = _touching(owner.reshape(-1), steps[steps > 0])
    order = np.argsort(pairs, kind="stable")
    distinct, starts = np.unique(pairs[order], return_index=True)
    contacts = []
    for pair, at in zip(distinct, np.split(places[order], starts[1:]), strict=False):
        voxels = np.stack(np.unravel_index(at, owner.shape), axis=-1) - 1
        middle = voxels[np.abs(voxels - voxels.mean(axis=0)).sum(axis=1).argmin()]
        numbers = (int(pair >> 32), int(pair & 0xFFFFFFFF))
        contacts.append(Contact(numbers, len(np.unique(at)), (int(middle[0]), int(middle[1]), int(middle[2]))))
    return sorted(contacts, key=lambda contact: contact.voxels)


@compiled
def _grow(allowed: Mask, owner: npt.NDArray[np.int32], steps: npt.NDArray[np.int64]) -> None:
    """Assign each allowed voxel the owner whose voxels are the fewest steps away, in place: a breadth-first search."""
    queue = np.empty(np.count_nonzero(allowed), np.int64)
    queued = 0
    for at in range(owner.size):
        if owner[at]:
            queue[queued] = at
            queued += 1
    done = 0
    while done < queued:
        at = queue[done]
        done += 1
        for step in steps:
            if allowed[at + step] and owner[at + step] == 0:
                owner[at + step] = owner[at]
                queue[queued] = at + step
                queued += 1


@compiled
def _touching(
    owner: npt.NDArray[np.int32], steps_up: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return where voxels of two owners are neighbours: both owners in one number, and the voxel of the lower."""
    pairs = [0 for _ in range(0)]
    places = [0 for _ in range(0)]
    for at in range(owner.size):
        if owner[at] == 0:
            continue
        for step in steps_up:
            other = owner[at + step]
            if other and other != owner[at]:
                pairs.append((int(min(owner[at], other)) << 32) | int(max(owner[at], other)))
                places.append(at if owner[at] < other else at + step)
    return np.array(pairs, np.int64), np.array(places, np.int64)


def _voxel(flat: int, shape_zyx: tuple[int, ...]) -> Voxel:
    z, y, x = np.unravel_index(int(flat), shape_zyx)
    return int(z), int(y), int(x)
