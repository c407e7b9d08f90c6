"""Which files are volumes, by their names: one rule for every command.

A volume ends in one of SUFFIXES, in small or capital letters, and is not hidden: on disks that another system wrote to,
`._a.tif` holds what that system knows of a.tif, and no voxels.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

TIFFS, ARRAYS = (".tif", ".tiff"), (".npy",)
SUFFIXES = (*TIFFS, *ARRAYS)


def is_volume(path: Path, suffixes: Sequence[str] = SUFFIXES) -> bool:
    """Whether a file is a volume, by its name."""
    return path.suffix.lower() in suffixes and not path.name.startswith(".")


def find_volumes(folder: Path, suffixes: Sequence[str] = SUFFIXES) -> tuple[list[Path], list[str]]:
    """Return the volumes of a folder, sorted, and the names of the files that are none.

    Raises:
        ValueError: where two volumes have one name, their suffixes aside: their results would have one, too.
        OSError: where the folder cannot be read.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())
    volumes = [path for path in files if is_volume(path, suffixes)]
    repeated = [stem for stem, count in Counter(path.stem for path in volumes).items() if count > 1]
    if repeated:
        same = " and as ".join(path.suffix for path in volumes if path.stem == repeated[0])
        raise ValueError(f"{folder}: expected each name once, got {repeated[0]!r} as {same}")
    return volumes, [path.name for path in files if path not in volumes]
