import io
import json
import os
import shutil
import zipfile

import numpy as np
import pytest
import tifffile
from engines import CPU, LoadFiles, LoadMarked, LoadSlanted, marked
from PIL import Image, ImageSequence
from scenes import names_in, noise, run_python, write_bundle, write_competition

from surface_kernel import __main__ as story
from surface_kernel.runs import pipeline
from surface_kernel.runs import run as run_module
from surface_kernel.volumes.volume import read, write_lzw

NO_TIME, UNDER_WAY = "no time was left", "it was under way when the run had to end"
GOOD = {"20": noise((40, 33, 50), 1), "3": noise((20, 33, 40), 2)}


def masks_in(path):
    """Reads every mask as the scorer does, beside its bytes."""
    found = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            with Image.open(io.BytesIO(content)) as image:
                found[name] = np.stack([np.asarray(page) for page in ImageSequence.Iterator(image)]), content
    return found


@pytest.fixture(scope="session")
def told_device(tmp_path_factory):
    """An earlier run's report: no start-up test is made, and the same tiles give the same bytes."""
    path = tmp_path_factory.mktemp("told") / "run_report.json"
    path.write_text(json.dumps({"how": {"device": CPU.to_mapping()}}))
    return path


@pytest.fixture
def submit(kernel, tmp_path, weights_file, told_device):
    """Runs the kernel on a competition folder, each time into a folder of its own; dust is kept."""
    write_bundle(tmp_path / "bundle", [weights_file], dust_voxels=0)

    def run(competition, *arguments, out="out", kept=False):
        places = "--bundle", tmp_path / "bundle", "--competition", competition, "--out", tmp_path / out
        done = kernel(*places, "--scratch", tmp_path / "scratch", "--device", told_device, *arguments)
        done.scratch = names_in(tmp_path / "scratch") if (tmp_path / "scratch").exists() else []
        assert kept or not done.scratch
        done.out = tmp_path / out
        report = done.out / "run_report.json"
        done.report = json.loads(report.read_text()) if report.exists() else None
        return done

    return run


def test_a_whole_run_is_complete_and_the_same_bytes_twice(submit, tmp_path):
    competition = write_competition(tmp_path / "competition", GOOD)
    done = submit(competition)
    assert done.code == 0
    assert done.lines[-1] == f"complete: {done.out / 'submission.zip'}"
    masks = masks_in(done.out / "submission.zip")
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
    masks, masks_good = masks_in(done.out / "submission.zip"), masks_in(good.out / "submission.zip")
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
        "header_cut": "found no ",
        "pixels_cut": "found page 8 undecodable",
        "missing": "found no such file",
        "rgb": "RGB on page 0",
        "uint16": "found uint16",
    }
    lines = (done.out / "run_report.txt").read_text().splitlines()
    for name, found in wanted.items():
        assert found in reports[name]["reason"]
        assert "wanted" in reports[name]["reason"]
        assert sum(f"{name}.tif: found" in line for line in lines) == 1
        assert ("its shape is a guess" in reports[name]["reason"]) is (name in ("header_cut", "missing"))
    assert lines[0].startswith("degraded: 2 of 7 volumes predicted")


def test_a_failing_network_leaves_zeros_and_says_so(submit, tmp_path, monkeypatch):
    monkeypatch.setattr(story, "LoadEngine", LoadFiles)
    done = submit(write_competition(tmp_path / "competition", {"20": marked((40, 33, 50)), "3": GOOD["3"]}))
    assert done.code == 3
    assert [entry["status"] for entry in done.report["volumes"]] == ["zeros", "predicted"]
    assert done.report["volumes"][0]["reason"] == "RuntimeError: the network failed"
    masks = masks_in(done.out / "submission.zip")
    assert not masks["20.tif"][0].any()
    assert masks["3.tif"][0].any()


def test_the_device_is_tested_at_start_and_can_be_told_to_a_later_run(submit, tmp_path):
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
    told = submit(competition, "--device", done.out / "run_report.json", out="told")
    assert told.report["how"]["device"] == how["device"]
    assert (told.out / "submission.zip").read_bytes() == (done.out / "submission.zip").read_bytes()


def test_a_report_without_a_device_is_one_line(submit, tmp_path):
    (tmp_path / "other.json").write_text('{"how": {}}')
    done = submit(write_competition(tmp_path / "competition", GOOD), "--device", tmp_path / "other.json")
    assert done.code == 1
    assert "other.json: found no device in it" in done.lines[-1]


def test_without_time_the_zeros_stand(submit, tmp_path):
    done = submit(write_competition(tmp_path / "competition", GOOD), "--budget-s", "1e-9")
    assert done.code == 3
    assert {entry["reason"] for entry in done.report["volumes"]} == {"no time was left"}
    masks = masks_in(done.out / "submission.zip")
    assert {name: mask.shape for name, (mask, _) in masks.items()} == {f"{c}.tif": v.shape for c, v in GOOD.items()}
    assert not any(mask.any() for mask, _ in masks.values())


def test_on_a_long_run_the_zip_gets_better_as_it_goes(submit, tmp_path, monkeypatch):
    seen = []

    def look(submission):
        write(submission)
        seen.append([name for name, (mask, _) in masks_in(submission.path).items() if mask.any()])

    write = story.Submission.write
    monkeypatch.setattr(story.Submission, "write", look)
    monkeypatch.setattr(run_module, "SAVE_EVERY_S", 0.0)
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
    assert "wanted" in done.lines[0]
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
    assert "tiny.safetensors: found sha256" in done.lines[-1]
    assert not done.out.exists()


def test_zeros_stand_before_torch_is_imported(tmp_path, weights_file):
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
    done = run_python(code, *places, "--scratch", tmp_path)
    assert done.returncode == 3
    assert "ImportError" in done.stdout or "ModuleNotFoundError" in done.stdout
    masks = masks_in(tmp_path / "out" / "submission.zip")
    assert {name: mask.shape for name, (mask, _) in masks.items()} == {"1.tif": (320, 320, 320), "3.tif": (2, 3, 4)}
    assert not any(mask.any() for mask, _ in masks.values())


# --- stages, and starts that go on ---------------------------------------------------------------------------------


@pytest.fixture
def three_stages(tmp_path, submit, monkeypatch):
    """Runs the kernel with two views beside the plain one; `units` are done before the time is over."""
    monkeypatch.setattr(story, "LoadEngine", LoadSlanted)

    def run(competition, units=None, out="out", views=("none", "x", "zy"), *words):
        shutil.rmtree(tmp_path / "bundle")
        write_bundle(tmp_path / "bundle", [tmp_path / "tiny.safetensors"], dust_voxels=0, views=list(views))
        with pytest.MonkeyPatch.context() as patch:
            if units is not None:
                patch.setattr(
                    story.Run, "go_on", lambda run: sum(v.predicted for v in run.plan.volumes.values()) < units
                )
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


def test_a_start_goes_on_with_the_stages_that_are_done(begun, three_stages):
    competition, wanted, done = begun
    stages = [volume["stages"] for volume in done.report["volumes"]]
    assert 4 <= sum(stages) < 6
    assert max(stages) - min(stages) <= 1
    assert {volume["reason"] for volume in done.report["volumes"]} <= {"", NO_TIME, UNDER_WAY}
    masks = masks_in(done.out / "submission.zip")
    assert all(mask.any() for mask, _ in masks.values())
    again = three_stages(competition)
    assert (again.code, again.scratch) == (0, [])
    assert any(line.startswith("gone on with ") for line in again.lines)
    assert again.report["how"]["device"] == done.report["how"]["device"]
    assert (again.out / "submission.zip").read_bytes() == wanted


def test_a_changed_image_is_not_mixed_with_what_was_done(begun, three_stages, tmp_path):
    competition, wanted, _ = begun
    (competition / "test_images" / "3.tif").unlink()
    write_lzw(competition / "test_images" / "3.tif", noise(GOOD["3"].shape, 99))
    again = three_stages(competition)
    assert again.code == 0
    assert "3: found another image than stage 0 was predicted from: it is begun anew" in again.lines
    assert again.report["trouble"] == ["3: found another image than stage 0 was predicted from: it is begun anew"]
    anew = three_stages(competition, out="anew")
    assert (again.out / "submission.zip").read_bytes() == (anew.out / "submission.zip").read_bytes() != wanted


def test_changed_settings_are_not_mixed_with_what_was_done(begun, three_stages):
    competition, wanted, _ = begun
    again = three_stages(competition, views=("none", "y", "zy"))
    assert again.code == 0
    assert any("found a run with other settings: begun anew, nothing is mixed" in line for line in again.lines)
    anew = three_stages(competition, None, "anew", ("none", "y", "zy"))
    assert (again.out / "submission.zip").read_bytes() == (anew.out / "submission.zip").read_bytes() != wanted


def test_another_device_is_refused_and_the_zip_stays(begun, three_stages):
    competition, _, done = begun
    before = (done.out / "submission.zip").read_bytes()
    again = three_stages(competition, None, "out", ("none", "x", "zy"), "--device", "cuda")
    assert again.code == 1
    assert again.lines[-1].startswith("error: --device: found cuda, wanted {'name': 'cpu'")
    assert (again.out / "submission.zip").read_bytes() == before
    assert three_stages(competition).code == 0


def test_an_unforeseen_error_is_told_apart_from_failure(tmp_path):
    code = """
import runpy, sys
import surface_kernel.runs.mounts
surface_kernel.runs.mounts.read_bundle = lambda folder: {}["unforeseen"]
sys.argv = ["surface_kernel", "--bundle", "b", "--competition", "c", "--out", "o"]
runpy.run_module("surface_kernel.__main__", run_name="__main__")
"""
    done = run_python("import warnings; warnings.simplefilter('ignore')" + code)
    assert done.returncode == 70
    assert "KeyError: 'unforeseen'" in done.stderr


# --- predict ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def predict(kernel, tmp_path, weights_file, told_device):
    """Predicts tmp_path / "in" into tmp_path / "out"; dust is kept."""
    (tmp_path / "in").mkdir()
    (tmp_path / "keep.toml").write_text("dust_voxels = 0\n")

    def run(*arguments, source="in", out="out"):
        options = "--weights", weights_file, "--settings", tmp_path / "keep.toml", "--device", told_device
        return kernel("predict", *options, "--input", tmp_path / source, "--out", tmp_path / out, *arguments)

    return run


def test_predict_makes_the_masks_of_a_submission(predict, submit, tmp_path):
    for case, image in GOOD.items():
        write_lzw(tmp_path / "in" / f"{case}.tif", image)
    assert predict().code == 0
    masks = masks_in(submit(write_competition(tmp_path / "c", GOOD), out="submitted").out / "submission.zip")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {
        name: content for name, (_, content) in masks.items()
    }


def test_probabilities_agree_with_the_mask(predict, tmp_path):
    write_lzw(tmp_path / "in" / "3.tif", GOOD["3"])
    assert predict(source="in/3.tif").code == 0
    assert predict("--save", "probability", source="in/3.tif").code == 0
    assert names_in(tmp_path / "out") == ["3.npy", "3.tif"]
    found = np.load(tmp_path / "out" / "3.npy")
    assert found.dtype == np.float32
    assert found.shape == GOOD["3"].shape
    clear = abs(found - 0.5) > 1e-6
    np.testing.assert_array_equal((found > 0.5)[clear], read(tmp_path / "out" / "3.tif")[clear] == 1)


def test_one_bad_file_does_not_take_the_others_down(predict, tmp_path):
    (tmp_path / "in" / "1.tif").write_text("no volume")
    write_lzw(tmp_path / "in" / "3.tif", GOOD["3"])
    (tmp_path / "in" / "notes.txt").write_text("not a .tif: left alone")
    done = predict()
    assert done.code == 3
    assert names_in(tmp_path / "out") == ["3.tif"]
    (error,) = [line for line in done.lines if line.startswith("error: ")]
    assert "1.tif: found no readable TIFF" in error


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda folder: (folder / "1.tif").write_text("no volume"), "1.tif: found no readable TIFF"),
        (lambda folder: None, "found no .tif or .npy in it, wanted volumes"),
        (lambda folder: folder.rmdir(), "in: found no such file"),
    ],
)
def test_without_any_volume_predict_fails(predict, tmp_path, make, found):
    make(tmp_path / "in")
    done = predict()
    assert done.code == 1
    assert found in done.lines[-1]
    assert done.lines[-1].startswith("error: ")


@pytest.mark.parametrize("source", ["in", "in/3.tif"])
def test_masks_never_replace_the_volumes(predict, tmp_path, source):
    write_lzw(tmp_path / "in" / "3.tif", GOOD["3"])
    before = (tmp_path / "in" / "3.tif").read_bytes()
    done = predict(source=source, out="in")
    assert done.code == 1
    assert "found the volumes' own folder, wanted another" in done.lines[-1]
    assert (tmp_path / "in" / "3.tif").read_bytes() == before


def test_a_device_that_is_not_there_is_one_line(predict, tmp_path):
    write_lzw(tmp_path / "in" / "3.tif", noise((2, 3, 4)))
    done = predict("--device", "tpu")
    assert done.code == 1
    assert done.lines == ['error: device: expected cpu, cuda or cuda:N, got "tpu"']


def test_logits_and_volumes_on_disk(predict, tmp_path):
    np.save(tmp_path / "in" / "3.npy", GOOD["3"])
    write_lzw(tmp_path / "in" / "4.tif", GOOD["3"])
    assert predict("--save", "logit").code == 0
    assert predict("--save", "probability", out="p").code == 0
    assert predict(out="m").code == 0
    logits = np.load(tmp_path / "out" / "3.npy")
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "4.npy"), logits)
    np.testing.assert_allclose(np.load(tmp_path / "p" / "3.npy"), 1 / (1 + np.exp(-logits)), rtol=1e-5)
    assert (tmp_path / "m" / "3.tif").read_bytes() == (tmp_path / "m" / "4.tif").read_bytes()
    for folder, names in (("out", ["3.npy", "4.npy"]), ("p", ["3.npy", "4.npy"]), ("m", ["3.tif", "4.tif"])):
        assert names_in(tmp_path / folder) == names


def test_a_name_that_stands_for_two_volumes_is_refused(predict, tmp_path):
    np.save(tmp_path / "in" / "3.npy", GOOD["3"])
    write_lzw(tmp_path / "in" / "3.tif", GOOD["3"])
    done = predict()
    assert done.code == 1
    assert "found '3' as .npy and as .tif, wanted each name once" in done.lines[-1]


@pytest.mark.parametrize(("restarts", "code", "made"), [(12, 3, ["3.tif"]), (0, 1, [])])
def test_workers_that_die_are_no_end_unless_none_is_left(predict, tmp_path, monkeypatch, restarts, code, made):
    """A volume that is the death of every worker is tried twice; the other one comes through, if workers are left."""
    monkeypatch.setattr(story, "LoadEngine", lambda files, settings: LoadMarked("die", settings=settings))
    monkeypatch.setattr(pipeline, "RESTARTS", restarts)
    write_lzw(tmp_path / "in" / "2.tif", marked((40, 33, 50)))
    write_lzw(tmp_path / "in" / "3.tif", GOOD["3"])
    done = predict()
    assert done.code == code
    assert names_in(tmp_path / "out") == made
    errors = [line for line in done.lines if line.startswith("error: ")]
    assert errors == (
        [f"error: {tmp_path}/in/2.tif: the worker died: SIGKILL"]
        if restarts
        else ["error: found no worker left for 2 volumes, wanted one"]
    )
