import gc
import weakref

import numpy as np
import pytest

from surface_kernel.inference.tile_table import TileTable
from surface_kernel.inference.tiles import Grid

GRID = Grid((8, 4, 6), (4, 4, 4), 0.5)  # starts 0 2 4, 0, 0 2


def logits(rows, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, 4, 4, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (logits(2).astype(np.float64), "expected float32 in C order, got float64"),
        (logits(2)[:, :, :, ::-1], "expected float32 in C order, got float32 with strides"),
        (np.asfortranarray(logits(2)), "expected float32 in C order"),
        (logits(2)[:, :3].copy(), r"expected the shape \(2, 4, 4, 4\), got \(2, 3, 4, 4\)"),
        (logits(1), r"expected the shape \(2, 4, 4, 4\), got \(1, 4, 4, 4\)"),
    ],
)
def test_what_an_address_could_not_describe_is_refused(made, expected):
    table = TileTable(GRID, slots=2)
    with pytest.raises(ValueError, match=expected):
        table.put([(0, 0, 0), (0, 0, 1)], made)
    assert not table.addresses.any()


def test_a_tile_is_read_through_its_address_from_the_very_memory():
    table, made = TileTable(GRID, slots=2), logits(3)  # a row more than tiles: a batch that was filled up
    table.put([(0, 0, 1), (1, 0, 0)], made)
    assert table.addresses[0, 0, 1] == made.ctypes.data
    np.testing.assert_array_equal(table.logits((0, 0, 1)), made[0])
    made[1] = 7
    assert (table.logits((1, 0, 0)) == 7).all()
    assert table.logits((3, 0, 0)) is not None  # the same slot as layer 1
    assert table.logits((0, 0, 0)) is None
    table.put_nothing((0, 0, 1))
    assert table.logits((0, 0, 1)) is None


def test_memory_is_held_until_the_slot_of_its_last_tile_is_cleared():
    table, released = TileTable(GRID, slots=2), []
    made = logits(2)
    gone = weakref.ref(made)
    table.put([(0, 0, 1), (1, 0, 0)], made, lambda: released.append("both"))
    del made
    table.clear(0)
    gc.collect()
    assert (gone() is not None, released, table.held_tiles) == (True, [], 2)
    table.clear(1)
    gc.collect()
    assert (gone(), released, table.held_tiles) == (None, ["both"], 0)
    table.clear(1)
    assert released == ["both"]


def test_a_table_of_all_tiles():
    tiles = np.random.default_rng(0).normal(size=(3, 1, 2, 4, 4, 4)).astype(np.float32)
    table = TileTable.of(GRID, tiles)
    for index in np.ndindex(3, 1, 2):
        np.testing.assert_array_equal(table.logits(index), tiles[index])
