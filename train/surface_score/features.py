"""The topological features of a mask: components, tunnels, cavities. docs/betti.md derives how they are counted.

A mask is seen as a solid made of its foreground voxels, the edges between neighbours, and the squares and cubes whose
corners are all foreground. So the foreground is 6-connected and the background around it 26-connected.
"""

from dataclasses import dataclass

import cc3d
import numpy as np
import numpy.typing as npt

from surface_score.compiled import compiled

Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.uint16 | np.uint32 | np.uint64]


@dataclass(frozen=True)
class Cavities:
    """The 26-connected components of a mask's background, and which of them are enclosed."""

    label: Labels
    """(z, y, x): 0 on the foreground, 1, 2, ... on the background."""
    enclosed: npt.NDArray[np.bool_]
    """By label: whether the component touches no face of the box, and so is a cavity."""

    @property
    def number(self) -> int:
        """Return how many cavities there are."""
        return int(np.count_nonzero(self.enclosed))


@dataclass(frozen=True)
class Features:
    """The features of one mask. Tunnels follow from the Euler number, which is components - tunnels + cavities."""

    components: int
    tunnels: int
    cavities: Cavities

    @property
    def counts(self) -> tuple[int, int, int]:
        """Return the features of dimension 0, 1 and 2: one component outlives the filtration, so it is not counted."""
        return max(self.components - 1, 0), self.tunnels, self.cavities.number


def find_features(mask: Mask) -> Features:
    """Return the features of a mask, bool (z, y, x), C-contiguous, with at least one voxel."""
    components = component_labels(mask)[1]
    cavities = find_cavities(mask)
    return Features(components, components + cavities.number - euler_number(mask), cavities)


def component_labels(mask: Mask) -> tuple[Labels, int]:
    """Return the 6-connected components of a mask, numbered from 1, and how many there are."""
    labels: Labels
    # As uint8: for bool, cc3d 4.1.1 reserves too few labels when single voxels fill an odd axis, and raises.
    labels, number = cc3d.connected_components(mask.view(np.uint8), connectivity=6, return_N=True)
    return labels, number


def find_cavities(mask: Mask) -> Cavities:
    """Return the components of a mask's background, as `Cavities` describes them."""
    labels: Labels
    labels, number = cc3d.connected_components((~mask).view(np.uint8), connectivity=26, return_N=True)
    # A component of the background that reaches any face of the volume is open to the outside.
    enclosed = np.ones(number + 1, np.bool_)
    enclosed[0] = False
    for axis in range(3):
        for end in (0, -1):
            enclosed[np.take(labels, end, axis)] = False
    return Cavities(labels, enclosed)


@compiled
def euler_number(mask: Mask) -> int:
    """Return voxels - edges + squares - cubes of the solid that a mask (z, y, x) represents."""
    depth, height, width = mask.shape
    total = 0
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                if not mask[z, y, x]:
                    continue
                # Each cell is counted at its corner of the lowest z, y and x.
                has_z, has_y, has_x = z + 1 < depth, y + 1 < height, x + 1 < width
                along_z = has_z and mask[z + 1, y, x]
                along_y = has_y and mask[z, y + 1, x]
                along_x = has_x and mask[z, y, x + 1]
                across_z = along_y and along_x and mask[z, y + 1, x + 1]
                across_y = along_z and along_x and mask[z + 1, y, x + 1]
                across_x = along_z and along_y and mask[z + 1, y + 1, x]
                total += 1 - along_z - along_y - along_x + across_z + across_y + across_x
                if across_z and across_y and across_x and mask[z + 1, y + 1, x + 1]:
                    total -= 1
    return total
