import numpy as np
import pytest

from surface_kernel.inference.layers import LayerStore
from surface_kernel.inference.tiles import Grid

GRID = Grid((12, 4, 6), (4, 4, 4), 0.5)  # layers at 0 2 4 6 8, two tiles each; two lie over a plane, three are kept


def store():
    slabs, counted = [], []
    return LayerStore(GRID, on_slab=slabs.append, on_tiles=counted.append), slabs, counted


def put(layers, layer):
    """Puts a layer's tiles, all of that number, and counts them as arrived."""
    tiles = [(layer, 0, 0), (layer, 0, 1)]
    layers.put(tiles, np.full((2, 4, 4, 4), layer, np.float32), lambda: None)
    layers.arrived(tiles)


def test_a_slab_is_ready_when_its_layer_is_in_and_in_order():
    layers, slabs, counted = store()
    layers.put([(0, 0, 0)], np.zeros((1, 4, 4, 4), np.float32), lambda: None)
    layers.arrived([(0, 0, 0)])
    assert slabs == []
    put(layers, 1)  # ahead of what is missing of layer 0
    assert slabs == []
    layers.skipped((0, 0, 1))
    assert [(slab.z_start, slab.z_end, slab.layers) for slab in slabs] == [(0, 2, range(1)), (2, 4, range(2))]
    put(layers, 2)
    assert (slabs[-1].z_start, slabs[-1].z_end, slabs[-1].layers) == (4, 6, range(1, 3))
    assert counted == [1, 2, 1, 2]


def test_the_last_slab_reaches_to_the_end():
    layers, slabs, _ = store()
    for layer in range(5):
        put(layers, layer)
        layers.blended()
    assert [(slab.z_start, slab.z_end) for slab in slabs] == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 12)]
    sums = np.empty(slabs[-1].shape_zyx, np.float32)
    slabs[-1].blend(sums=sums)
    np.testing.assert_allclose(sums[2:], 4)  # the last layer alone
    assert ((sums[:2] > 3) & (sums[:2] < 4)).all()  # and what it has in common with the one before


def test_room_is_there_when_every_plane_of_the_layer_before_is_blended():
    layers, _, _ = store()
    for layer in range(3):
        assert layers.has_room((layer, 0, 0))
        put(layers, layer)
    # Slot 0 held layer 0, whose last planes are those of slab 1.
    for done in range(2):
        assert not layers.has_room((3, 0, 0)), done
        layers.blended()
    assert layers.has_room((3, 0, 0))
    assert not layers.has_room((4, 0, 0))


@pytest.mark.parametrize("how", ["begin", "clear"])
def test_a_layer_gives_its_memory_back(how):
    layers, _, _ = store()
    released = []
    layers.put([(0, 0, 0), (0, 0, 1)], np.zeros((2, 4, 4, 4), np.float32), lambda: released.append(0))
    if how == "clear":
        layers.clear()
    else:
        layers.begin((3, 0, 1))
        assert released == []
        layers.begin((3, 0, 0))
    assert released == [0]
    assert layers.table.held_tiles == 0
