"""Which sheets a prediction merges and which it splits, and where: what stands behind the bits of `surface_score.voi`.

Sheets and components are 26-connected. A predicted component that holds a fair part of two true sheets merges them, a
true sheet of which two predicted components hold a fair part is split. Where two sheets meet is found by growing them
inside the prediction until they touch; where two pieces are torn apart, by growing those inside the truth.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from surface_score.compiled import compiled
from surface_score.features import Labels, Mask
from surface_score.voi import contingency, label_sheets

Voxel = tuple[int, int, int]

FAIR_PART = 0.02
_LISTED = 20


@dataclass(frozen=True)
class Part:
    """A sheet or component by its number, with its size in voxels and how many of them lie in the whole."""

    number: int
    voxels: int
    shared_voxels: int


@dataclass(frozen=True)
class Contact:
    """Where two parts of a whole touch once they have been grown: how many voxels wide, and one of them."""

    numbers: tuple[int, int]
    voxels: int
    at: Voxel


@dataclass(frozen=True)
class Whole:
    """A predicted component that merges true sheets, or a true sheet that is split into predicted components.

    `bits` is its share of the merge or split in bits, `stray_voxels` are those that lie in no part: false foreground in
    a component, missed voxels of a sheet.
    """

    number: int
    voxels: int
    stray_voxels: int
    bits: float
    parts: tuple[Part, ...]
    contacts: tuple[Contact, ...]


@dataclass(frozen=True)
class Lone:
    """A predicted component without a true voxel, or a true sheet without a predicted one."""

    number: int
    voxels: int
    at: Voxel


@dataclass(frozen=True)
class Sheets:
    """How the sheets of two masks fit: the worst merges and splits, at most 20 of each, and the largest lone ones.

    `true_sheets` and `predicted_components` say how many there are of each. `false_bits` is what false foreground, in
    whatever components, adds to the bits of split; `missed_bits` is what missed voxels add to those of merge.
    """

    true_sheets: int
    predicted_components: int
    false_bits: float
    missed_bits: float
    merges: tuple[Whole, ...]
    splits: tuple[Whole, ...]
    missed: tuple[Lone, ...]
    invented: tuple[Lone, ...]


def compare_sheets(prediction: Mask, truth: Mask) -> Sheets:
    """Compare the sheets of two masks, bool (z, y, x) of one shape."""
    true_sheet, component = label_sheets(truth), label_sheets(prediction)
    table = contingency(true_sheet, component).tocsr()
    return Sheets(
        true_sheets=table.shape[0] - 1,
        predicted_components=table.shape[1] - 1,
        false_bits=float(_bits(table)[0]),
        missed_bits=float(_bits(table.T.tocsr())[0]),
        merges=_torn_or_joined(table.T.tocsr(), prediction, true_sheet),
        splits=_torn_or_joined(table, truth, component),
        missed=_lone(table, true_sheet),
        invented=_lone(table.T.tocsr(), component),
    )


def _sums(table: csr_array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    return np.asarray(table.sum(axis=1)).ravel(), np.asarray(table.sum(axis=0)).ravel()


def _bits(table: csr_array) -> npt.NDArray[np.float64]:
    """Return what each row adds to the entropy of the column where the row is known."""
    of_row, _ = _sums(table)
    cells = table.tocoo()
    surprise = cells.data * np.log2(of_row[cells.row] / cells.data)
    bits: npt.NDArray[np.float64] = np.bincount(cells.row, surprise, minlength=len(of_row)) / max(of_row.sum(), 1)
    return bits


def _torn_or_joined(table: csr_array, inside: Mask, part: Labels) -> tuple[Whole, ...]:
    """Return the wholes (rows) that hold a fair part of two parts (columns) or more, those with the most bits."""
    of_row, of_column = _sums(table)
    bits = _bits(table)
    found = []
    for number in range(1, len(of_row)):
        columns = table.indices[table.indptr[number] : table.indptr[number + 1]]
        shared = table.data[table.indptr[number] : table.indptr[number + 1]]
        fair = (columns > 0) & (shared >= FAIR_PART * np.minimum(of_column[columns], of_row[number]))
        if np.count_nonzero(fair) >= 2:
            stray = int(shared[columns == 0].sum())
            found.append((float(bits[number]), number, columns[fair], shared[fair], stray))
    worst = sorted(found, key=lambda row: row[0], reverse=True)[:_LISTED]
    contacts = _contacts(inside, part) if worst else []
    wholes = []
    for whole_bits, number, columns, shared, stray in worst:
        order = np.argsort(-shared, kind="stable")
        parts = [Part(int(columns[at]), int(of_column[columns[at]]), int(shared[at])) for at in order]
        inside_whole = set(columns.tolist())
        touching = tuple(contact for contact in contacts if inside_whole.issuperset(contact.numbers))
        wholes.append(Whole(number, int(of_row[number]), stray, whole_bits, tuple(parts), touching))
    return tuple(wholes)


def _lone(table: csr_array, labels: Labels) -> tuple[Lone, ...]:
    """Return the rows that share voxels with column 0 alone, the largest first."""
    of_row, _ = _sums(table)
    shared = of_row - np.asarray(table[:, [0]].todense()).ravel()
    numbers = np.flatnonzero((shared == 0) & (of_row > 0))
    numbers = numbers[numbers > 0]
    first = np.zeros(len(of_row), np.int64)
    voxels = np.flatnonzero(labels)[::-1]
    first[labels.reshape(-1)[voxels]] = voxels  # of several writes to a place, numpy keeps the last
    order = numbers[np.argsort(-of_row[numbers], kind="stable")]
    return tuple(Lone(int(number), int(of_row[number]), _voxel(first[number], labels.shape)) for number in order)


def _contacts(inside: Mask, part: Labels) -> list[Contact]:
    """Grow the parts inside a mask until they touch, and return where each two of them do, the narrowest first."""
    allowed = np.pad(inside, 1)
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
    """Give each allowed voxel the owner whose voxels are the fewest steps away, in place."""
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
    """Return where voxels of two owners are neighbours, once a pair: the two in one number, the lower's voxel."""
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
