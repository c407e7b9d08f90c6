"""Views of a volume: the 48 ways in which a cube can be turned and mirrored onto itself.

A view is named by what is done to the volume, one step after another, joined by "+":

    none        the volume as it is
    x, zy       flipped along the named axes
    yx90        turned by 90° in the plane of y and x, as numpy.rot90(volume, axes=(y, x)); also yx270, zx90, …
    z+yx90      flipped along z, then turned
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:  # settings are read before torch is imported
    from torch import Tensor

AXES = "zyx"
UNTURNED = "none"


class ViewError(ValueError):
    """A name that is no view."""


@dataclass(frozen=True)
class View:
    """An axis permutation, then flips. Axis i of the view is axis `axes[i]` of the volume, backwards if `flips[i]`."""

    axes: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)

    @classmethod
    def parse(cls, name: str) -> Self:
        """Read a view's name. Raises ViewError."""
        axes, flips = [0, 1, 2], [False, False, False]
        for step in [] if name == UNTURNED else name.split("+"):
            turn = re.fullmatch(r"([zyx])([zyx])(90|180|270)", step)
            letters = step if turn is None else step[:2]
            if not re.fullmatch(r"[zyx]{1,3}", letters) or len(set(letters)) != len(letters):
                expected = f'"{UNTURNED}", axes to flip such as "zy", turns such as "yx90", or several joined by "+"'
                raise ViewError(f'expected {expected}, got "{name}"')
            places = [AXES.index(letter) for letter in letters]
            if turn is None:
                for place in places:
                    flips[place] = not flips[place]
                continue
            first, second = places
            for _ in range(int(turn[3]) // 90):
                flips[second] = not flips[second]
                axes[first], axes[second] = axes[second], axes[first]
                flips[first], flips[second] = flips[second], flips[first]
        return cls((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]))

    def of(self, tiles: "Tensor") -> "Tensor":
        """Return this view of tiles (batch, channel, z, y, x)."""
        turned = tiles.permute(0, 1, *(2 + axis for axis in self.axes)) if self.axes != (0, 1, 2) else tiles
        return turned.flip(self._flipped) if self._flipped else turned

    def undo(self, tiles: "Tensor") -> "Tensor":
        """Turn what a network made of this view back: `undo(of(tiles))` is `tiles`."""
        turned = tiles.flip(self._flipped) if self._flipped else tiles
        if self.axes == (0, 1, 2):
            return turned
        return turned.permute(0, 1, *(2 + self.axes.index(axis) for axis in range(3)))

    @property
    def _flipped(self) -> tuple[int, ...]:
        return tuple(2 + axis for axis in range(3) if self.flips[axis])


def parse_all(names: Iterable[str]) -> tuple[View, ...]:
    """Read several names, each another view. Raises ViewError."""
    listed = list(names)
    views = [View.parse(name) for name in listed]
    for place, view in enumerate(views):
        if view in views[:place]:
            first = listed[views.index(view)]
            raise ViewError(f'expected every view once, got "{listed[place]}", which is the same as "{first}"')
    return tuple(views)
