"""What a person sees while networks run: how they run, what there is to do, and a bar of the tiles that are done."""

import logging
import math
from collections.abc import Mapping

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from surface_kernel.inference.tiles import Shape
from surface_kernel.runs.messages import Ready, sides

log = logging.getLogger("surface_kernel")


class ProgressBar:
    """A bar of tiles, and lines above it."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None

    def begin(self, ready: Ready, volumes: Mapping[Shape, int], units: Mapping[Shape, int]) -> None:
        """Log how the networks run and what there is to do; show a bar of it.

        Args:
            ready: how the networks run.
            volumes: how many there are of each shape.
            units: how many stages of these are to be done.
        """
        for line in describe(ready, volumes):
            log.info("%s", line)
        tiles = sum(ready.grid(shape_zyx).tiles * count for shape_zyx, count in units.items())
        self._bar = tqdm(total=tiles, unit="tile", leave=False, disable=None)

    def add(self, tiles: int) -> None:
        """Count tiles that are done."""
        if self._bar:
            self._bar.update(tiles)

    def log(self, line: str) -> None:
        """Log a line above the bar."""
        with logging_redirect_tqdm():
            (log.error if line.startswith("error: ") else log.info)("%s", line)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar:
            self._bar.close()


def describe(ready: Ready, volumes: Mapping[Shape, int]) -> list[str]:
    """Return lines of how networks run, and what volumes of these shapes take. volumes: how many of each shape."""
    lines = [f"start-up test: {trial}" for trial in ready.trials]
    lines += [f"networks: {ready.members}, passes: {ready.passes}, on {ready.device}"]
    expected_s = 0.0
    for shape_zyx, count in volumes.items():
        grid = ready.grid(shape_zyx)
        work = ready.flop * grid.tiles * math.prod(grid.tile_zyx) * ready.passes
        seconds = ready.expect_s(grid)
        lines.append(
            f"{count} × {sides(shape_zyx)}: {grid.tiles} tiles of {sides(grid.tile_zyx)}, "
            f"each voxel computed {grid.redundancy * ready.passes:.1f} times, {work / 1e9:.0f} GFLOP"
            + (f", about {seconds:.0f} s per volume" if seconds else "")
        )
        expected_s += count * seconds
    if expected_s:
        lines.append(f"expected: {expected_s:.0f} s for {sum(volumes.values())} volumes on one device")
    return lines
