"""Settings of masks as tests want them."""

from surface_kernel.postprocess.mask_settings import MaskSettings
from surface_kernel.postprocess.steps import DropSmallComponents, Threshold


def mask_settings(threshold=None, least_voxels=0, connectivity=26, clear_unscanned=True):
    """A threshold, and small components dropped: none by default."""
    drop = DropSmallComponents(least_voxels=least_voxels, connectivity=connectivity)
    return MaskSettings(steps=(Threshold(threshold=threshold), drop), clear_unscanned=clear_unscanned)
