import os
import signal

import numpy as np
import pytest
from engines import LoadMarked, marked
from scenes import names_in, noise, write_competition
from worlds import zipped

from surface_kernel.runs import files, pipeline
from surface_kernel.volumes.image_files import write_lzw
from surface_kernel.volumes.volume import read

KEEP = 'postprocess = [{step = "threshold"}]  # small components are kept\n'
GOOD = {"20": noise((40, 33, 50), 1), "3": noise((20, 33, 40), 2)}


@pytest.fixture
def predict(kernel, tmp_path, weights_file, earlier_report):
    """Predicts tmp_path / "in" into tmp_path / "out"; small components are kept."""
    (tmp_path / "in").mkdir()
    (tmp_path / "keep.toml").write_text(KEEP)

    def run(*arguments, source="in", out="out"):
        options = "--weights", weights_file, "--settings", tmp_path / "keep.toml", "--device", earlier_report
        return kernel("predict", *options, "--input", tmp_path / source, "--out", tmp_path / out, *arguments)

    return run


def test_predict_makes_the_masks_of_a_submission(predict, submit, tmp_path):
    for case, image in GOOD.items():
        write_lzw(tmp_path / "in" / f"{case}.tif", image)
    assert predict().code == 0
    masks = zipped(submit(write_competition(tmp_path / "c", GOOD), out="submitted").out / "submission.zip")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {
        name: content for name, (_, content) in masks.items()
    }


@pytest.mark.slow
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
    assert "1.tif: expected a multi-page grey uint8 TIFF, (z, y, x), got no readable TIFF" in error


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda folder: (folder / "1.tif").write_text("no volume"), "got no readable TIFF"),
        (lambda folder: None, "expected .tif or .npy volumes, got none"),
        (lambda folder: folder.rmdir(), "in: no such file; expected a multi-page grey uint8 TIFF"),
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
    assert "in: expected another folder than that of the volumes" in done.lines[-1]
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
    assert "expected each name once, got '3' as .npy and as .tif" in done.lines[-1]


@pytest.mark.parametrize(("restarts", "code", "made"), [(12, 3, ["3.tif"]), (0, 1, [])])
def test_workers_that_die_are_no_end_unless_none_is_left(predict, tmp_path, monkeypatch, restarts, code, made):
    """A volume that is the death of every worker is tried twice; the other one comes through, if workers are left."""
    monkeypatch.setattr(files, "LoadEngine", lambda files, settings: LoadMarked("die", settings=settings))
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
        else ["error: no worker was left for 2 of 2 volumes"]
    )


def test_one_rule_says_what_a_volume_is_and_the_rest_is_named(predict, tmp_path):
    for name in ("a.tif", "b.tiff", "c.TIF", "._a.tif", "notes.txt"):
        write_lzw(tmp_path / "in" / name, GOOD["3"])
    done = predict()
    assert done.code == 0
    assert names_in(tmp_path / "out") == ["a.tif", "b.tif", "c.tif"]
    named = "passed over, since volumes are named *.tif, *.tiff, *.npy: ._a.tif, notes.txt"
    assert [line for line in done.lines if "passed over" in line] == [f"{tmp_path}/in: {named}"]


def test_what_ends_it_leaves_nothing_half_done(predict, tmp_path, monkeypatch):
    """SIGTERM comes when the first volume is finished, and after it the files of an earlier run that was killed."""
    for case, image in GOOD.items():
        write_lzw(tmp_path / "in" / f"{case}.tif", image)
    (tmp_path / "out").mkdir()
    for name in ("3.raw.partial", "3.raw.partial.77.partial", "3.scanned.partial.77.partial"):
        (tmp_path / "out" / name).touch()
    real = files.FilesRun.on_done

    def on_done(run, done):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(run, done)

    monkeypatch.setattr(files.FilesRun, "on_done", on_done)
    before = signal.getsignal(signal.SIGTERM)
    done = predict()
    assert (done.code, done.lines[-1]) == (143, "interrupted")
    assert names_in(tmp_path / "out") == []
    assert signal.getsignal(signal.SIGTERM) is before
