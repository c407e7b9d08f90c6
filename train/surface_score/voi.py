"""Variation of information: how much two segmentations into sheets disagree, in bits.

The sheets of a mask are its 26-connected components. Of the voxels that are foreground in either mask one is drawn at
random; G is the true sheet it lies in and P the predicted one, background counting as one more sheet. Split is the
entropy H(P|G), what remains unknown of P once G is known: a true sheet that falls into pieces raises it. Merge is
H(G|P). They are the two values that scikit-image's `variation_of_information(truth, prediction)` returns, in its order.
The formula is from M. Meilă, Comparing clusterings - an information based distance, 2007.
"""

from dataclasses import dataclass

import cc3d
import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csr_array

ALPHA = 0.3
_SLAB_PLANES = 32

_Mask = npt.NDArray[np.bool_]
_Labels = npt.NDArray[np.uint16 | np.uint32 | np.uint64]


@dataclass(frozen=True)
class VariationOfInformation:
    """The two terms of the variation of information, in bits; both at least 0."""

    split_bits: float
    merge_bits: float

    def __post_init__(self) -> None:
        if not (self.split_bits >= 0 and self.merge_bits >= 0):
            raise ValueError(f"expected bits >= 0, got {self.split_bits} and {self.merge_bits}")

    @property
    def score(self) -> float:
        """Return 1 / (1 + 0.3 · bits), in (0, 1]."""
        return 1 / (1 + ALPHA * (self.split_bits + self.merge_bits))


def variation_of_information(prediction: _Mask, truth: _Mask) -> VariationOfInformation:
    """Return how much the sheets of two masks disagree.

    Two empty masks agree: 0 bits. One empty mask is a single sheet, background, that carries no information.

    Args:
        prediction: bool (z, y, x).
        truth: bool, the same shape.

    Raises:
        ValueError: If the shapes differ or are not three-dimensional.
    """
    if prediction.shape != truth.shape or truth.ndim != 3:
        raise ValueError(f"expected masks of one shape (z, y, x), got {prediction.shape} and {truth.shape}")
    voxels = int(np.count_nonzero(prediction | truth))
    if voxels == 0:
        return VariationOfInformation(0.0, 0.0)
    table = contingency(label_sheets(truth), label_sheets(prediction))
    joint = table.data
    of_truth = table.sum(axis=1)[table.row]
    of_prediction = table.sum(axis=0)[table.col]
    return VariationOfInformation(
        # H(P|G) = Σ p(g, p) · log2(p(g) / p(g, p)); the division by the number of voxels is left to the end.
        split_bits=float(joint @ np.log2(of_truth / joint)) / voxels,
        merge_bits=float(joint @ np.log2(of_prediction / joint)) / voxels,
    )


def contingency(true_sheet: _Labels, predicted_sheet: _Labels) -> coo_array:
    """Return how many voxels lie in each pair (true sheet, predicted sheet); (0, 0) is not counted.

    Args:
        true_sheet: Labels (z, y, x), 0 for background.
        predicted_sheet: Labels of the same shape.

    Returns:
        Counts, sparse, (true sheets + 1, predicted sheets + 1).
    """
    table = csr_array((int(true_sheet.max()) + 1, int(predicted_sheet.max()) + 1), dtype=np.int64)
    for z in range(0, true_sheet.shape[0], _SLAB_PLANES):  # in slabs: noise has nearly as many runs as voxels
        slab = slice(z, z + _SLAB_PLANES)
        table = table + _count_runs(true_sheet[slab].reshape(-1), predicted_sheet[slab].reshape(-1), table.shape)
    return table.tocoo()


def _count_runs(g: _Labels, p: _Labels, shape: tuple[int, int]) -> csr_array:
    """Return the counts of pairs, taken run by run: there are far fewer runs of equal pairs than voxels."""
    starts = np.flatnonzero(np.concatenate([[True], (g[1:] != g[:-1]) | (p[1:] != p[:-1])]))
    lengths = np.diff(starts, append=g.size)
    g, p = g[starts], p[starts]
    # Voxels that are background in both are not drawn from.
    counted = (g > 0) | (p > 0)
    return coo_array((lengths[counted], (g[counted], p[counted])), shape).tocsr()


def label_sheets(mask: _Mask) -> _Labels:
    """Return the sheets of a mask (z, y, x) as labels, numbered from 1; the background is 0."""
    # As uint8: for bool, cc3d 4.1.1 reserves too few labels when single voxels fill an odd axis, and raises.
    labels: _Labels = cc3d.connected_components(np.ascontiguousarray(mask).view(np.uint8), connectivity=26)
    return labels
