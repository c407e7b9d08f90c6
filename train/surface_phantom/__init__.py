"""A scroll generator shaped like the competition's data: CT volumes, labels, folders. Needs no torch."""

from surface_phantom.dataset import Phantom, Summary, make_volume, write_dataset
from surface_phantom.looks import LOOKS, Look

__all__ = ["LOOKS", "Look", "Phantom", "Summary", "make_volume", "write_dataset"]
