import logging

from engines import CPU

from surface_kernel.runs.messages import Ready
from surface_kernel.runs.progress import ProgressBar, describe

READY = Ready(
    device=CPU,
    trials=("float32, contiguous, batch 1: 500 ms a tile",),
    tile_s=0.5,
    flop=1000.0,
    members=1,
    stages=2,
    passes=3,
    trained_zyx=(32, 32, 32),
    overlap=0.5,
)


def test_lines_by_hand():
    # Two tiles along z, one along y and x: 2 × 32 voxels for 48 along z. 2 × 32³ × 3 passes × 1000 FLOP are 0.2 GFLOP,
    # and 2 × 3 × 0.5 s are 3 s.
    assert describe(READY, {(48, 32, 32): 2}) == [
        "start-up test: float32, contiguous, batch 1: 500 ms a tile",
        "networks: 1, passes: 3, on cpu, float32, contiguous, 2 tiles a batch, 1 threads",
        "2 × 48×32×32: 2 tiles of 32×32×32, each voxel computed 4.0 times, 0 GFLOP, about 3 s per volume",
        "expected: 6 s for 2 volumes on one device",
    ]


def test_without_a_start_up_test_nothing_is_expected():
    lines = describe(Ready(**{**vars(READY), "trials": (), "tile_s": 0.0}), {(48, 32, 32): 2})
    assert len(lines) == 2
    assert lines[1].endswith(" GFLOP")


def test_a_bar_counts_the_tiles_of_what_is_to_be_done(caplog):
    progress = ProgressBar()
    progress.add(3)  # before there is a bar
    with caplog.at_level(logging.INFO, "surface_kernel"):
        progress.begin(READY, {(48, 32, 32): 2}, {(48, 32, 32): 3})
        progress.log("a line")
        progress.log("error: another")
    assert progress._bar.total == 3 * 2
    progress.close()
    assert [record.levelname for record in caplog.records][-2:] == ["INFO", "ERROR"]
