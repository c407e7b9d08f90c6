"""A scroll generator shaped like the competition's data: CT volumes, labels, folders. Needs no torch."""

from surface_phantom.dataset import Summary, write_dataset
from surface_phantom.looks import LOOKS, OTHER_LOOKS, Look
from surface_phantom.phantom import Phantom, make_volume

__all__ = ["LOOKS", "OTHER_LOOKS", "Look", "Phantom", "Summary", "make_volume", "write_dataset"]
