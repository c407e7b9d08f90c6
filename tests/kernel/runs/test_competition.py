import os
import shutil
import time

import numpy as np
import pytest
import tifffile
from engines import LoadFiles, LoadSlanted, marked
from scenes import names_in, noise, run_python, write_bundle, write_competition
from worlds import zipped

from surface_kernel.inference.engine import LANES
from surface_kernel.runs import competition as story
from surface_kernel.runs import submission_run
from surface_kernel.volumes.image_files import write_lzw

NO_TIME, UNDER_WAY = "time budget exhausted", "not finished before the time limit"
GOOD = {"20": noise((40, 33, 50), 1), "3": noise((20, 33, 40), 2)}


def test_a_whole_run_is_complete_and_the_same_bytes_twice(submit, tmp_path):
    competition = write_competition(tmp_path / "competition", GOOD)
    done = submit(competition)
    assert done.code == 0
    assert done.lines[-1] == f"complete: {done.out / 'submission.zip'}"
    masks = zipped(done.out / "submission.zip")
    assert list(masks) == ["20.tif", "3.tif"]
    for case, image in GOOD.items():
        mask = masks[f"{case}.tif"][0]
        assert mask.shape == image.shape
        assert mask.dtype == np.uint8
        assert set(np.unique(mask)) == {0, 1}
    assert names_in(done.out) == ["run_report.json", "run_report.txt", "submission.zip"]
    assert done.report["verdict"] == "complete"
    for entry in done.report["volumes"]:
        assert entry["foreground"] == pytest.approx(masks[f"{entry['case']}.tif"][0].mean())
        assert entry["variance"] > 0
    again = submit(competition, out="again")
    assert (again.out / "submission.zip").read_bytes() == (done.out / "submission.zip").read_bytes()


@pytest.mark.slow
def test_bad_volumes_do_not_take_the_others_down(submit, tmp_path, monkeypatch):
    monkeypatch.setattr(story, "USUAL_SHAPE_ZYX", (5, 6, 7))  # 320³ is tested with the zeros below
    good = submit(write_competition(tmp_path / "good", GOOD), out="out_good")
    names = ["header_cut", "20", "pixels_cut", "missing", "rgb", "3", "uint16"]
    competition = write_competition(tmp_path / "mixed", {name: GOOD.get(name) for name in names})
    images = competition / "test_images"
    write_lzw(images / "header_cut.tif", noise((9, 20, 20)))
    os.truncate(images / "header_cut.tif", 2000)
    tifffile.imwrite(images / "pixels_cut.tif", noise((9, 20, 20)), photometric="minisblack", compression="zlib")
    os.truncate(images / "pixels_cut.tif", (images / "pixels_cut.tif").stat().st_size - 99)
    tifffile.imwrite(images / "rgb.tif", noise((9, 20, 20, 3)), photometric="rgb")
    tifffile.imwrite(images / "uint16.tif", np.ones((9, 20, 20), np.uint16), photometric="minisblack")
    done = submit(competition)

    assert done.code == 3
    assert done.lines[-1].startswith("degraded: ")
    masks, masks_good = zipped(done.out / "submission.zip"), zipped(good.out / "submission.zip")
    assert list(masks) == sorted(f"{name}.tif" for name in names)
    assert {name: masks[name][1] for name in masks_good} == {name: content for name, (_, content) in masks_good.items()}
    for name in ("header_cut", "pixels_cut", "missing", "rgb", "uint16"):
        mask = masks[f"{name}.tif"][0]
        guessed = name in ("header_cut", "missing")  # of the others the header tells the shape, and it is kept
        assert mask.shape == ((5, 6, 7) if guessed else (9, 20, 20))
        assert not mask.any()

    reports = {entry["case"]: entry for entry in done.report["volumes"]}
    assert [entry["case"] for entry in done.report["volumes"]] == names
    assert done.report["verdict"] == "degraded"
    wanted = {
        "header_cut": "got no readable TIFF",
        "pixels_cut": "got a cut file (the data of page 8 end at byte ",
        "missing": "no such file; ",
        "rgb": "RGB on page 0",
        "uint16": "got uint16",
    }
    lines = (done.out / "run_report.txt").read_text().splitlines()
    for name, got in wanted.items():
        assert got in reports[name]["reason"]
        assert "expected a multi-page grey uint8 TIFF" in reports[name]["reason"]
        assert sum(f"{name}.tif: " in line for line in lines) == 1
        assert ("its shape is a guess" in reports[name]["reason"]) is (name in ("header_cut", "missing"))
    assert lines[0].startswith("degraded: 2 of 7 volumes predicted")


def test_a_failing_network_leaves_zeros_and_says_so(submit, tmp_path, monkeypatch):
    monkeypatch.setattr(story, "LoadEngine", LoadFiles)
    done = submit(write_competition(tmp_path / "competition", {"20": marked((40, 33, 50)), "3": GOOD["3"]}))
    assert done.code == 3
    assert [entry["status"] for entry in done.report["volumes"]] == ["zeros", "predicted"]
    assert done.report["volumes"][0]["reason"] == "RuntimeError: the network failed"
    masks = zipped(done.out / "submission.zip")
    assert not masks["20.tif"][0].any()
    assert masks["3.tif"][0].any()


@pytest.mark.slow
def test_the_device_is_tested_at_start_and_a_later_run_can_take_it(submit, tmp_path):
    competition = write_competition(tmp_path / "competition", GOOD)
    done = submit(competition, "--device", "cpu")
    assert done.code == 0
    how = done.report["how"]
    assert how["trials"][0].startswith("float32, contiguous, batch 1: ")
    assert how["tiles"] == {"40×33×50": [32, 32, 32], "20×33×40": [32, 32, 32]}
    lines = "\n".join(done.lines)
    assert "1 × 40×33×50: 8 tiles of 32×32×32, each voxel computed 4.0 times, " in lines
    assert " GFLOP, about " in lines
    assert "for 2 volumes on one device" in lines
    again = submit(competition, "--device", done.out / "run_report.json", out="again")
    assert again.report["how"]["device"] == how["device"]
    assert (again.out / "submission.zip").read_bytes() == (done.out / "submission.zip").read_bytes()


def test_without_time_the_zeros_count(submit, tmp_path):
    done = submit(write_competition(tmp_path / "competition", GOOD), "--budget-s", "1e-9")
    assert done.code == 3
    assert {entry["reason"] for entry in done.report["volumes"]} == {NO_TIME}
    masks = zipped(done.out / "submission.zip")
    assert {name: mask.shape for name, (mask, _) in masks.items()} == {f"{c}.tif": v.shape for c, v in GOOD.items()}
    assert not any(mask.any() for mask, _ in masks.values())


def test_on_a_long_run_the_zip_gets_better_as_it_goes(submit, tmp_path, monkeypatch):
    seen, units = [], []

    def look(submission):
        write(submission)
        seen.append([name for name, (mask, _) in zipped(submission.path).items() if mask.any()])

    def one_after_the_other(run, done):
        units.append(done.unit)
        ends_s = time.monotonic() + 60
        while len(units) == 2 and not seen[-1]:  # both volumes may else be finished between two looks
            assert run.may_continue()
            assert time.monotonic() < ends_s
        return on_done(run, done)

    write, on_done = story.Submission.write, submission_run.SubmissionRun.on_done
    monkeypatch.setattr(story.Submission, "write", look)
    monkeypatch.setattr(submission_run.SubmissionRun, "on_done", one_after_the_other)
    monkeypatch.setattr(submission_run, "SAVE_EVERY_S", 0.0)
    assert submit(write_competition(tmp_path / "competition", GOOD)).code == 0
    assert [len(names) for names in seen] == [0, 1, 2]  # and not once more when nothing is new


BAD_BUNDLES = {
    "no manifest": lambda bundle: (bundle / "manifest.json").unlink(),
    "another format": lambda bundle: (bundle / "manifest.json").write_text('{"format": "zip"}'),
    "no weights": lambda bundle: (bundle / "tiny.safetensors").unlink(),
    "bad settings": lambda bundle: (bundle / "settings.json").write_text('{"views": ["x"]}'),
    "no table": lambda bundle: (bundle.parent / "competition" / "test.csv").unlink(),
}


@pytest.mark.parametrize("kind", BAD_BUNDLES)
def test_a_bad_mount_is_one_line_and_leaves_no_zip(submit, tmp_path, kind):
    competition = write_competition(tmp_path / "competition", {"3": noise((2, 3, 4))})
    (tmp_path / "scratch").mkdir()
    BAD_BUNDLES[kind](tmp_path / "bundle")
    done = submit(competition)
    assert done.code == 1
    assert len(done.lines) == 1
    assert done.lines[0].startswith("error: ")
    assert "expected" in done.lines[0] or "wanted" in done.lines[0]
    assert not done.out.exists()


def test_weights_with_another_digest_are_one_line(submit, tmp_path):
    weights = tmp_path / "bundle" / "tiny.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.unlink()  # a link to the file that all tests share
    weights.write_bytes(content)
    done = submit(write_competition(tmp_path / "competition", {"3": noise((2, 3, 4))}))
    assert done.code == 1
    assert len(done.lines) == 1
    assert "tiny.safetensors: expected sha256" in done.lines[-1]
    assert not done.out.exists()


def test_a_valid_zip_exists_before_torch_is_imported(tmp_path, weights_file, earlier_report):
    write_bundle(tmp_path / "bundle", [weights_file])
    write_competition(tmp_path / "competition", {"3": noise((2, 3, 4)), "1": None})
    code = """
import sys
for name in ("torch", "numba", "cc3d"):
    sys.modules[name] = None  # an import of it fails; the workers have their own
from surface_kernel.__main__ import main
sys.exit(main())
"""
    places = "--bundle", tmp_path / "bundle", "--competition", tmp_path / "competition", "--out", tmp_path / "out"
    done = run_python(code, *places, "--scratch", tmp_path, "--device", earlier_report)
    assert done.returncode == 3
    assert "ImportError" in done.stdout or "ModuleNotFoundError" in done.stdout
    masks = zipped(tmp_path / "out" / "submission.zip")
    assert {name: mask.shape for name, (mask, _) in masks.items()} == {"1.tif": (320, 320, 320), "3.tif": (2, 3, 4)}
    assert not any(mask.any() for mask, _ in masks.values())


# --- stages, and starts that resume ---------------------------------------------------------------------------------


@pytest.fixture
def three_stages(tmp_path, submit, monkeypatch):
    """Runs the kernel with two views beside the plain one; `units` are done before the time is over."""
    monkeypatch.setattr(story, "LoadEngine", LoadSlanted)

    def run(competition, units=None, out="out", views=("none", "x", "zy"), *words):
        shutil.rmtree(tmp_path / "bundle")
        write_bundle(tmp_path / "bundle", [tmp_path / "tiny.safetensors"], dust_voxels=0, views=list(views))
        with pytest.MonkeyPatch.context() as patch:
            if units is not None:
                patch.setattr(story.SubmissionRun, "may_continue", lambda run: run.plan.units_done < units)
            return submit(competition, *words, out=out, kept=True)

    return run


@pytest.fixture
def begun(tmp_path, weights_file, three_stages):
    """A competition of which four of six units are done, and the bytes of a whole run of it."""
    (tmp_path / "tiny.safetensors").hardlink_to(weights_file)
    competition = write_competition(tmp_path / "competition", GOOD)
    whole = three_stages(competition, out="whole")
    assert (whole.code, whole.scratch) == (0, [])
    done = three_stages(competition, units=4)
    assert done.code == 3
    assert len(done.scratch) == 1
    return competition, (whole.out / "submission.zip").read_bytes(), done


def test_a_start_resumes_after_the_stages_that_are_done(begun, three_stages):
    competition, wanted, done = begun
    stages = [volume["stages"] for volume in done.report["volumes"]]
    assert 4 <= sum(stages) < 6
    assert max(stages) - min(stages) <= LANES  # so many units are under way at a time
    assert {volume["reason"] for volume in done.report["volumes"]} <= {"", NO_TIME, UNDER_WAY}
    masks = zipped(done.out / "submission.zip")
    assert all(mask.any() for mask, _ in masks.values())
    again = three_stages(competition)
    assert (again.code, again.scratch) == (0, [])
    assert any(line.startswith("resumed from ") and line.endswith(" of 6 units done") for line in again.lines)
    assert again.report["how"]["device"] == done.report["how"]["device"]
    assert (again.out / "submission.zip").read_bytes() == wanted


@pytest.mark.slow
def test_a_changed_image_is_not_mixed_with_what_was_done(begun, three_stages, tmp_path):
    competition, wanted, _ = begun
    (competition / "test_images" / "3.tif").unlink()
    write_lzw(competition / "test_images" / "3.tif", noise(GOOD["3"].shape, 99))
    again = three_stages(competition)
    assert again.code == 0
    assert "3: image changed since stage 0 was predicted; starting over" in again.lines
    assert again.report["trouble"] == ["3: image changed since stage 0 was predicted; starting over"]
    anew = three_stages(competition, out="anew")
    assert (again.out / "submission.zip").read_bytes() == (anew.out / "submission.zip").read_bytes() != wanted


@pytest.mark.slow
def test_changed_settings_are_not_mixed_with_what_was_done(begun, three_stages):
    competition, wanted, _ = begun
    again = three_stages(competition, views=("none", "y", "zy"))
    assert again.code == 0
    assert any("ledger belongs to a run with different settings; starting from scratch" in line for line in again.lines)
    anew = three_stages(competition, None, "anew", ("none", "y", "zy"))
    assert (again.out / "submission.zip").read_bytes() == (anew.out / "submission.zip").read_bytes() != wanted


def test_another_device_is_refused_and_the_zip_stays(begun, three_stages):
    competition, _, done = begun
    before = (done.out / "submission.zip").read_bytes()
    again = three_stages(competition, None, "out", ("none", "x", "zy"), "--device", "cuda")
    assert again.code == 1
    assert again.lines[-1].startswith("error: --device: expected that of the run to resume (cpu, float32, ")
    assert (again.out / "submission.zip").read_bytes() == before
    assert three_stages(competition).code == 0
