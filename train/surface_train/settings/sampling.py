"""Settings of the patches: where they are cut, and how they are varied."""

from dataclasses import dataclass
from typing import Self

from surface_kernel.networks.architecture import ArchitectureError, check_tile
from surface_train.settings.entries import TrainingSettingsError, require


@dataclass(frozen=True, kw_only=True)
class Patches:
    """What a step sees, and how it is kept ready."""

    shape_zyx: tuple[int, int, int] = (128, 128, 128)
    """Voxels of a patch along each axis, multiples of 32; also the tile of validation and inference."""

    batch: int = 2
    """Patches of a batch, on each GPU."""

    surface_share: float = 0.5
    """Share of the patches that are centred on surface; the others are centred on background, none on label 2."""

    resident: int = 96
    """Volumes that patches are cut from at a time. May not change within a run."""

    patches_per_volume: int = 8
    """Patches, on average, before a resident volume makes room for the next. May not change within a run."""

    cache_gb: float = 8.0
    """Gigabytes of decoded volumes that each process keeps in memory. May change within a run."""

    workers: int = 4
    """Threads of each process that prepare patches. May change within a run."""

    def __post_init__(self) -> None:
        check_patch(self.shape_zyx)
        require(self.batch >= 1, "patches.batch", expected="a number >= 1", got=self.batch)
        share = self.surface_share
        require(0 <= share <= 1, "patches.surface_share", expected="a share from 0 to 1", got=share)
        require(self.resident >= 1, "patches.resident", expected="a number of volumes >= 1", got=self.resident)
        count = self.patches_per_volume
        require(count >= 1, "patches.patches_per_volume", expected="a number >= 1", got=count)
        require(self.cache_gb > 0, "patches.cache_gb", expected="gigabytes > 0", got=self.cache_gb)
        require(self.workers >= 1, "patches.workers", expected="a number of threads >= 1", got=self.workers)


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How patches are varied. 0, or false, switches a variation off."""

    flips: bool = True
    """Mirror images, along each axis of every other patch."""

    turns: bool = True
    """Rotations by multiples of 90 degrees that keep the patch's shape."""

    scale: float = 0.2
    """Largest relative change of size, the same along all axes."""

    grey: float = 0.25
    """Largest relative change of contrast, and largest shift of the mean in standard deviations of the volume."""

    gamma: float = 0.3
    """Largest absolute logarithm of the exponent that grey values are raised to."""

    noise: float = 0.1
    """Largest standard deviation of added Gaussian noise, in standard deviations of the volume."""

    blur: float = 0.1
    """Share of the patches that are blurred."""

    low_resolution: float = 0.1
    """Share of the patches that are seen at half to full resolution."""

    cut_outs: float = 0.1
    """Share of the patches of which one to three boxes are blanked."""

    def __post_init__(self) -> None:
        for name in ("scale", "grey"):
            value = getattr(self, name)
            require(0 <= value < 1, f"augment.{name}", expected="a number >= 0 and < 1", got=value)
        for name in ("gamma", "noise"):
            value = getattr(self, name)
            require(value >= 0, f"augment.{name}", expected="a number >= 0", got=value)
        for name in ("blur", "low_resolution", "cut_outs"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"augment.{name}", expected="a share from 0 to 1", got=value)

    @classmethod
    def none(cls) -> Self:
        """Return the settings that vary nothing: every variation off, whatever its default."""
        return cls(**{name: type(default)() for name, default in vars(cls()).items()})


def check_patch(shape_zyx: tuple[int, int, int], norm: str = "batch") -> None:
    """Raise TrainingSettingsError unless a network with this norm can be trained on patches of this shape."""
    try:
        check_tile(shape_zyx, norm)
    except ArchitectureError as error:
        # The kernel speaks of tiles; in a settings file their shape is this entry.
        raise TrainingSettingsError(f"patches.shape_zyx: {str(error).partition(': ')[2]}") from error
