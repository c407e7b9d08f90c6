import numpy as np
import pytest
import torch

from surface_kernel.inference.buffers import Buffers
from surface_kernel.inference.cutting import TileCutter, look_up, scanned
from surface_kernel.inference.sharing import alone
from surface_kernel.inference.tiles import Grid
from surface_kernel.networks.device import Device
from surface_kernel.volumes.intensity import Intensity

CPU = Device(name="cpu", dtype="float32", batch=2, threads=1)


@pytest.mark.parametrize(
    ("corner", "scanned_"), [((0, 0, 0), False), ((0, 0, 1), True), ((2, 2, 3), True), ((3, 0, 0), False)]
)
def test_a_box_of_zeros_is_told_from_one_with_a_voxel(corner, scanned_):
    volume = np.zeros((4, 4, 6), np.uint8)
    volume[2, 3, 4] = 1
    assert scanned(volume, *corner, 3, 4, 4) is scanned_


def test_what_is_cut_out_beyond_the_volume_is_what_zero_is():
    volume = np.arange(1, 9, dtype=np.uint8).reshape(2, 2, 2)
    out = np.empty((2, 2, 3), np.float32)
    look_up(volume, 1, 0, 1, np.arange(256, dtype=np.float32) - 5, out)
    assert out.tolist() == [[[1, -5, -5], [3, -5, -5]], [[-5] * 3] * 2]


def cutter(volume, grid, batch=2, device=CPU, tables=None):
    tables = [Intensity().table(volume)] if tables is None else tables
    buffers = Buffers(pinned=False)
    return TileCutter(volume, grid=grid, tables=tables, batch=batch, device=device, buffers=buffers, share=alone)


def test_tiles_come_in_the_order_of_the_grid_and_batches_span_two_layers_at_most():
    volume = np.random.default_rng(0).integers(1, 256, (10, 4, 6), np.uint8)
    grid = Grid(volume.shape, (4, 4, 4), 0.5)  # 4 layers of 2 tiles
    batches = list(cutter(volume, grid, batch=5).batches())
    assert [index for batch in batches for index in batch.tiles] == list(grid.indices())
    assert [len(batch.tiles) for batch in batches] == [4, 4]
    table = Intensity().table(volume)
    for batch in batches:
        (rows,) = batch.inputs
        assert (rows.dtype, tuple(rows.shape)) == (torch.float32, (5, 4, 4, 4))
        for row, (z, y, x) in enumerate(batch.corners):
            np.testing.assert_array_equal(rows[row], table[volume[z : z + 4, y : y + 4, x : x + 4]])
        assert (rows[4] == table[0]).all()  # filled up with what zero is
    assert batches[0].named(0) == "the tile at (0, 0, 0)"
    assert batches[0].named(4) == "a tile that fills up a batch"


def test_a_gpu_is_sent_grey_values_and_every_intensity_is_fed():
    volume = np.random.default_rng(0).integers(1, 256, (4, 4, 4), np.uint8)
    grid, tables = Grid(volume.shape, (4, 4, 4), 0.5), [np.arange(256, dtype=np.float32) * k for k in (1, 2)]
    (batch,) = cutter(volume, grid, batch=1, tables=tables).batches()
    assert [int(rows[0, 0, 0, 0]) for rows in batch.inputs] == [int(volume[0, 0, 0]), 2 * int(volume[0, 0, 0])]
    gpu = Device(name="cuda", dtype="float16", batch=1, threads=1)
    (batch,) = cutter(volume, grid, batch=1, tables=tables, device=gpu).batches()
    (rows,) = batch.inputs
    assert rows.dtype == torch.uint8
    np.testing.assert_array_equal(rows[0], volume)


def test_tiles_of_zeros_are_listed_and_not_cut():
    volume = np.zeros((4, 4, 12), np.uint8)
    volume[0, 0, 11] = 1
    (batch,) = cutter(volume, Grid(volume.shape, (4, 4, 4), 0), batch=2).batches()
    assert (batch.tiles, batch.empty) == ([(0, 0, 2)], [(0, 0, 0), (0, 0, 1)])
    (batch,) = cutter(volume * 0, Grid(volume.shape, (4, 4, 4), 0), batch=2).batches()
    assert (batch.tiles, len(batch.empty), batch.inputs) == ([], 3, [])
