"""A run without workers: what becomes of masks that lie there, and of a disk that fails."""

import errno
from types import SimpleNamespace

import numpy as np
import pytest
from engines import CPU
from masks import mask_settings
from scenes import names_in, noise
from worlds import masks_in

from surface_kernel import disk
from surface_kernel.postprocess import mask as postprocess_mask
from surface_kernel.runs.clock import Clock
from surface_kernel.runs.ledger import Ledger
from surface_kernel.runs.messages import Done, Ready, Unit
from surface_kernel.runs.progress import ProgressBar
from surface_kernel.runs.records import UnitRecord, file_digest
from surface_kernel.runs.report import VolumeProgress
from surface_kernel.runs.submission import Submission
from surface_kernel.runs.submission_run import SubmissionRun
from surface_kernel.volumes.scanned import bits_shape

SHAPE = (6, 7, 8)
READY = Ready(
    device=CPU,
    trials=("first",),
    tile_s=0.0,
    flop=1.0,
    members=1,
    stages=2,
    passes=2,
    trained_zyx=(32, 32, 32),
    overlap=0.5,
)


SCANNED = np.full(bits_shape(SHAPE), 255, np.uint8)
SCANNED[0] = 0  # nothing was scanned on the first plane


def raw_of(stage):
    return (noise(SHAPE, stage) > 128).astype(np.uint8)


def mask_of(stage):
    mask = raw_of(stage)
    mask[0] = 0
    return mask


@pytest.fixture
def start(tmp_path):
    """Starts a run of one volume in two stages, the same one each time; ends the one before."""
    (tmp_path / "a.tif").write_bytes(b"an image")
    ledgers = []

    def begin(**mask):
        for ledger in ledgers:
            ledger.close()
        ledgers.append(Ledger(tmp_path / "scratch", {}))
        submission = Submission({"a": SHAPE}, tmp_path / "out")
        run = SubmissionRun(
            [VolumeProgress(case="a", path=tmp_path / "a.tif", shape_zyx=SHAPE)],
            passes=[1, 1],
            ledger=ledgers[-1],
            submission=submission,
            clock=Clock(1000.0, lambda: 1.0),
            mask=mask_settings(**mask),
            progress=ProgressBar(),
        )
        return SimpleNamespace(run=run, ledger=ledgers[-1], submission=submission)

    yield begin
    for ledger in ledgers:
        ledger.close()


def predict(scene, stage):
    """Leaves what a worker leaves of a stage; returns what it sends."""
    files = scene.ledger.files("a", stage)
    files.mask.write_bytes(raw_of(stage).tobytes())
    files.sums.write_bytes(bytes(4 * mask_of(stage).size))
    files.scanned.write_bytes(SCANNED.tobytes())
    volume = scene.run.plan.volumes["a"]
    unit = Unit(
        case="a",
        path=volume.path,
        shape_zyx=SHAPE,
        mask=files.mask,
        sums=files.sums,
        scanned=files.scanned,
        stages=(stage,),
        record=files.record,
    )
    done = Done(unit=unit, image_sha256=file_digest(volume.path), sums_crc32=7)
    disk.put(files.record, UnitRecord.of(done).to_bytes())
    assert scene.run.on_done(done)
    return done


def written(scene):
    scene.run.end()
    return masks_in(scene.submission.path)["a"]


def test_a_mask_goes_into_the_submission_and_the_ledger(start):
    scene = start()
    line = scene.run.finish(predict(scene, 0))
    assert line.startswith("a  6×7×8  0.0 s  stages 1 of 2  foreground ")
    np.testing.assert_array_equal(written(scene), mask_of(0))
    assert names_in(scene.ledger.folder) == ["a.0.json", "a.0.sums", "a.0.tif", "a.kept.json", "lock", "run.json"]


def test_a_stage_that_was_overtaken_does_not_replace_the_later_one(start):
    scene = start()
    first, second = predict(scene, 0), predict(scene, 1)
    scene.run.finish(second)
    scene.run.finish(first)
    np.testing.assert_array_equal(written(scene), mask_of(1))
    assert "a.0.mask" not in names_in(scene.ledger.folder)


def test_a_raw_mask_that_an_earlier_start_left_is_finished(start):
    scene = start()
    scene.run.on_ready(READY)
    predict(scene, 0)
    again = start()
    again.run.resume()
    assert again.run.plan.units_done == 1
    np.testing.assert_array_equal(written(again), mask_of(0))
    assert again.run.report().how["device"] == CPU.to_mapping()
    assert again.run.report().device == "no device"


def test_how_networks_run_is_what_the_first_start_said(start):
    scene = start()
    scene.run.on_ready(READY)
    expected = {"device": CPU.to_mapping(), "trials": ["first"], "tiles": {"6×7×8": [32, 32, 32]}}
    assert scene.run.report().how == expected
    again = start()
    again.run.on_ready(Ready(**{**vars(READY), "trials": ()}))
    assert again.run.report().how == expected
    assert again.run.report().device == str(CPU)


def test_before_networks_run_a_report_names_no_device(start):
    assert start().run.report().how == {"trials": []}


def test_a_step_that_fails_leaves_the_mask_before_it_and_is_named(start, monkeypatch):
    scene = start(least_voxels=10**6)
    scene.run.finish(predict(scene, 0))
    assert not written(scene).any()

    def fails_half_way(mask, least_voxels, connectivity, **more):
        mask[:] = 1 - mask
        raise MemoryError("no room for labels")

    monkeypatch.setattr(postprocess_mask, "drop_small_components", fails_half_way)
    scene.run.finish(predict(scene, 1))
    np.testing.assert_array_equal(written(scene), mask_of(1))
    note = "drop_small_components failed, the mask before it was kept: MemoryError: no room for labels"
    assert scene.run.plan.reports()[0].notes == (note,)


def test_the_share_that_was_not_scanned_is_in_the_report_and_outlives_a_start(start):
    scene = start()
    scene.run.on_ready(READY)
    gone = raw_of(0)[0].sum() / raw_of(0).sum()
    line = scene.run.finish(predict(scene, 0))
    assert f"unscanned {gone:.2%} removed" in line
    assert scene.run.plan.reports()[0].unscanned == pytest.approx(gone)
    again = start()
    again.run.resume()
    assert again.run.plan.reports()[0].unscanned == pytest.approx(gone)


def test_without_the_rule_a_mask_is_left_as_it_is_and_units_need_not_say(start):
    scene = start(clear_unscanned=False)
    assert scene.run.next_unit([]).scanned is None
    scene.run.finish(predict(scene, 0))
    np.testing.assert_array_equal(written(scene), raw_of(0))


def test_with_it_units_say_which_voxels_were_scanned(start):
    scene = start()
    assert scene.run.next_unit([]).scanned == scene.ledger.files("a", 0).scanned


def test_a_mask_that_cannot_be_finished_leaves_the_one_before(start):
    scene = start()
    done = predict(scene, 0)
    line = scene.run.finish(Done(unit=done.unit, error="OSError: no"))
    assert "zeros: its mask could not be finished: OSError: no" in line
    assert not scene.run.plan.open
    assert not written(scene).any()


def test_a_full_disk_loses_sums_before_it_loses_the_zip(start, monkeypatch):
    scene = start()
    scene.run.finish(predict(scene, 0))
    write = Submission.write

    def needs_room(submission):
        if any(name.endswith(".sums") for name in names_in(scene.ledger.folder)):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(submission)

    monkeypatch.setattr(Submission, "write", needs_room)
    scene.run.save()
    assert scene.run.trouble == [
        "submission.zip could not be written: the one before stays ([Errno 28] No space left on device)"
    ]
    np.testing.assert_array_equal(written(scene), mask_of(0))
    assert "the sums of all stages are removed" in scene.run.trouble[1]


def test_a_ledger_that_takes_no_mask_costs_a_note_only(start, monkeypatch):
    scene = start()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Ledger, "keep", full)
    scene.run.finish(predict(scene, 0))
    np.testing.assert_array_equal(written(scene), mask_of(0))
    assert scene.run.plan.reports()[0].notes == ("its mask is not in the ledger: [Errno 28] No space left on device",)
