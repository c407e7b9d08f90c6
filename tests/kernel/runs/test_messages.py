import pickle
from pathlib import Path

import pytest
from engines import CPU
from scenes import run_python

from surface_kernel.networks.device import DeviceError
from surface_kernel.runs.messages import Done, Failed, Loaded, Ready, TilesDone, Unit, error_text, sides

UNIT = Unit(case="a", path=Path("a.tif"), shape_zyx=(2, 3, 4), stages=(1, 2))
READY = Ready(
    device=CPU,
    trials=(),
    tile_s=0.5,
    flop=1.0,
    members=1,
    stages=1,
    passes=3,
    trained_zyx=(32, 32, 32),
    overlap=0.5,
)


def test_a_unit_knows_its_size_and_its_last_stage():
    assert (UNIT.voxels, UNIT.stage) == (24, 2)


def test_what_a_volume_takes_grows_with_its_tiles_and_passes():
    grid = READY.grid((48, 32, 32))
    assert (grid.tiles, grid.tile_zyx) == (2, (32, 32, 32))
    assert READY.expect_s(grid) == 3 * 0.5 * 2


@pytest.mark.parametrize(
    "message", [UNIT, CPU, Done(unit=UNIT), READY, Loaded(gpus=2), TilesDone(count=3), Failed(error="")]
)
def test_messages_travel_between_processes(message):
    assert pickle.loads(pickle.dumps(message)) == message


def test_an_error_of_ours_speaks_for_itself_and_others_with_their_kind():
    assert error_text(DeviceError("device: expected\n cpu")) == "device: expected cpu"
    assert error_text(ValueError("no\nmemory")) == "ValueError: no memory"


def test_a_shape_as_people_write_it():
    assert sides((320, 314, 314)) == "320×314×314"


def test_messages_need_no_torch():
    done = run_python("import sys, surface_kernel.runs.messages\nprint('torch' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr
