"""Files that are not what they were: nothing is predicted from them, and nothing in them is run."""

import io
import itertools
import json
import logging
import os
import pickle
import random
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from package.fake_bundle import SUBMIT, list_anew, make_bundle, make_competition, run_submit, shared_result
from PIL import Image, ImageSequence
from scenes import list_bundle, noise, write_bundle, write_competition

from surface_kernel.__main__ import main
from surface_kernel.networks.architecture import Architecture
from surface_kernel.networks.weights import Metadata, WeightsError, describe, load, save
from surface_kernel.runs.mounts import MountError, read_bundle
from surface_kernel.volumes.intensity import Intensity

MEMBERS = ["a.safetensors", "b.safetensors", "c.safetensors"]


@pytest.fixture
def bundle(tmp_path):
    """A bundle of three members that differ in their tensors alone."""
    for number, name in enumerate(MEMBERS):
        metadata = Metadata(
            architecture=Architecture("Linknet", "efficientnet-b0"),
            intensity=Intensity(),
            tile_zyx=(32, 32, 32),
            overlap=0.25,
        )
        state = {"w": torch.full((20, 5), 1.0 + number), "half": torch.ones(9).half(), "steps": torch.tensor(number)}
        save(tmp_path / name, state, metadata)
    made = write_bundle(tmp_path / "bundle", [tmp_path / name for name in MEMBERS])
    for name in MEMBERS:  # no links: what a test does to one must not be done to the other
        (made / name).unlink()
        shutil.copyfile(tmp_path / name, made / name)
    read_bundle(made)
    return made


@pytest.fixture
def engine(tmp_path, capsys):
    """Runs the engine here on a bundle and one volume; returns its exit code, what it printed and its zip, if any."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    competition = write_competition(tmp_path / "competition", {"3": noise((20, 33, 40))})

    def run(folder):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        words = ["--bundle", folder, "--competition", competition, "--out", tmp_path / "out", "--device", "cpu"]
        code = main([str(word) for word in [*words, "--scratch", tmp_path / "scratch"]])
        path = tmp_path / "out" / "submission.zip"
        return SimpleNamespace(code=code, said=capsys.readouterr().out, zip_path=path if path.exists() else None)

    yield run
    root.handlers[:] = before[0]
    root.setLevel(before[1])


def places(content, count):
    """Returns (byte, bit) all over a file: its ends, all of its length and digest, and `count` spread over the rest."""
    header_bytes = int.from_bytes(content[:8], "little")
    digest = content.index(b'"sha256":"') + len(b'"sha256":"')
    always = [*range(8), *range(digest - 1, digest + 65), 7 + header_bytes, 8 + header_bytes, len(content) - 1]
    spread = [round(step * (len(content) - 1) / count) for step in range(count)]
    return [(at, (at + turn) % 8) for turn, at in enumerate([*always, *spread])]


def flipped(content, at, bit):
    spoiled = bytearray(content)
    spoiled[at] ^= 1 << bit
    return bytes(spoiled)


def refused(bundle, name, content):
    """Whether a member of these bytes is refused: as it is, and where the manifest was made to match it."""
    (bundle / name).write_bytes(content)
    with pytest.raises(MountError, match=r"safetensors: expected sha256 .*: the file was changed"):
        read_bundle(bundle)
    list_bundle(bundle, MEMBERS)
    assert read_bundle(bundle).weights == tuple(bundle / name for name in MEMBERS)
    with pytest.raises(WeightsError) as caught:
        load(bundle / name)
    return str(caught.value).startswith(f"{bundle / name}: expected ") and str(caught.value).isprintable()


def test_one_flipped_bit_is_always_found(bundle, long, tally):
    manifest, content = (bundle / "manifest.json").read_bytes(), (bundle / MEMBERS[1]).read_bytes()
    tried = places(content, 20_000 if long else 200)
    if long:
        tried += [(at, bit) for at in range(len(content)) for bit in range(8)]
    for at, bit in tried:
        assert refused(bundle, MEMBERS[1], flipped(content, at, bit))
        (bundle / "manifest.json").write_bytes(manifest)
    tally("bits flipped in weights", len(tried))


def test_submit_finds_a_flipped_bit_before_pip_is_called(tmp_path, long, tally):
    made = make_bundle(tmp_path / "bundle")
    submit = SimpleNamespace(**runpy.run_path(str(SUBMIT)))
    content = (made / "member_0.safetensors").read_bytes()
    for at in range(len(content)):
        (made / "member_0.safetensors").write_bytes(flipped(content, at, at % 8))
        (finding,) = submit.check_bundle(made)
        assert finding.startswith("'member_0.safetensors': expected sha256 ")
        if at % (1 if long else 16) == 0:
            command = [sys.executable, "-I", str(SUBMIT), "--verify", str(made)]
            run = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert (run.returncode, run.stdout.splitlines()[:-1]) == (1, [f"finding: {finding}"])
            assert shared_result(run, "verify").findings == (finding,)
    tally("bits flipped in weights", len(content))


def test_a_file_of_another_length_is_always_found(bundle, long, tally):
    manifest, content = (bundle / "manifest.json").read_bytes(), (bundle / MEMBERS[1]).read_bytes()
    lengths = range(0, len(content), 1 if long else 17)
    for length in lengths:
        assert refused(bundle, MEMBERS[1], content[:length])
        (bundle / "manifest.json").write_bytes(manifest)
    assert refused(bundle, MEMBERS[1], content + b"\0")
    tally("weights cut short", len(lengths))


def test_swapped_weights_are_always_found(bundle, tally):
    contents = {name: (bundle / name).read_bytes() for name in MEMBERS}
    orders = [order for order in itertools.product(MEMBERS, repeat=3) if order != tuple(MEMBERS)]
    for order in orders:  # each of them is a good file, where another should be
        for name, source in zip(MEMBERS, order, strict=True):
            (bundle / name).write_bytes(contents[source])
        with pytest.raises(MountError, match=r"safetensors: expected sha256 .*: the file was changed"):
            read_bundle(bundle)
    tally("weights swapped", len(orders))


def test_other_settings_are_always_found(bundle, tally):
    texts = "{}\n", '{"threshold": 0.01}', '{"dust_voxels": 0}'
    for text in texts:
        (bundle / "settings.json").write_text(text)
        with pytest.raises(MountError, match=r"settings\.json: expected sha256 .*: the file was changed"):
            read_bundle(bundle)
    tally("settings changed", len(texts))


def test_the_engine_leaves_no_zip_of_a_bundle_that_was_changed(bundle, engine, long, tally):
    content = (bundle / MEMBERS[2]).read_bytes()
    tried = places(content, 200 if long else 20)
    for at, bit in tried:
        (bundle / MEMBERS[2]).write_bytes(flipped(content, at, bit))
        done = engine(bundle)
        assert (done.code, done.zip_path) == (1, None)
        assert done.said.startswith(f"error: {bundle / MEMBERS[2]}: expected sha256 ")
    tally("bits flipped in weights", len(tried))


class Canary:
    """Unpickled, it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def evil_files(canary, good):
    """Returns what could be put in place of weights that are `good`, by its kind. Whoever runs it makes `canary`."""
    evil, legacy, pickled, array, climbing, holder = (io.BytesIO() for _ in range(6))
    torch.save(Canary(canary), evil)
    torch.save(Canary(canary), legacy, _use_new_zipfile_serialization=False)
    pickle.dump(Canary(canary), pickled)
    np.save(array, np.array([Canary(canary)], object), allow_pickle=True)
    with zipfile.ZipFile(climbing, "w") as archive:
        archive.writestr("../" * 9 + str(canary).lstrip("/") + "/x", "")
        archive.writestr(f"{canary}/x", "")
    with zipfile.ZipFile(holder, "w") as archive:
        archive.writestr("weights.safetensors", good)
    return {
        "pickle": pickled.getvalue(),
        "torch.save": evil.getvalue(),
        "torch.save as it was": legacy.getvalue(),
        "numpy's": array.getvalue(),
        "zip that climbs out": climbing.getvalue(),
        "weights behind a zip": evil.getvalue() + good,
        "weights before a zip": good + evil.getvalue(),
        "weights behind a pickle": pickled.getvalue() + good,
        "weights in a zip": holder.getvalue(),
        "script": f"#!/bin/sh\nmkdir {canary}\n".encode() * 20,
        "template": json.dumps({"__metadata__": {"format": f"!!python/object/apply:os.mkdir ['{canary}']"}}).encode(),
        "nothing": b"",
    }


KINDS = list(evil_files(Path("canary"), b""))


@pytest.mark.parametrize("kind", KINDS)
def test_an_evil_file_in_place_of_weights_is_refused_and_not_run(bundle, tmp_path, kind, tally):
    canary = tmp_path / "canary"
    content = evil_files(canary, (bundle / MEMBERS[0]).read_bytes())[kind]
    assert refused(bundle, MEMBERS[0], content)
    with pytest.raises(WeightsError):
        describe(bundle / MEMBERS[0])
    assert not canary.exists()
    tally("evil files in place of weights", 2)  # listed by the manifest, and not


def test_the_canary_would_have_sung(tmp_path):
    for number, kind in enumerate(("pickle", "torch.save", "torch.save as it was")):
        canary = tmp_path / str(number)
        content = io.BytesIO(evil_files(canary, b"")[kind])
        if kind == "pickle":
            pickle.load(content)
        else:
            torch.load(content, weights_only=False)
        assert canary.exists()


def test_the_engine_predicts_nothing_from_a_file_that_the_manifest_was_made_to_match(
    bundle, engine, tmp_path, long, tally
):
    canary, good = tmp_path / "canary", (bundle / MEMBERS[0]).read_bytes()
    files = {"flipped": flipped(good, len(good) - 1, 0), **evil_files(canary, good)}
    for kind in files if long else ("flipped", "torch.save"):  # workers start each time
        (bundle / MEMBERS[0]).write_bytes(files[kind])
        list_bundle(bundle, MEMBERS)
        done = engine(bundle)
        assert done.code == 1
        assert f"{bundle / MEMBERS[0]}: expected " in done.said
        assert not canary.exists()
        with zipfile.ZipFile(done.zip_path) as archive, Image.open(archive.open("3.tif")) as mask:
            assert not any(np.asarray(page).any() for page in ImageSequence.Iterator(mask))
        tally("bits flipped in weights" if kind == "flipped" else "evil files in place of weights")


EVIL_MEMBERS = ["../canary", "../../canary", "a/../../../canary", "/tmp/canary", "..\\canary"]


@pytest.mark.parametrize("listed", [True, False])
def test_an_evil_wheel_is_refused_and_not_unpacked(tmp_path, listed, long, tally):
    for number, name in enumerate(EVIL_MEMBERS):
        kaggle = tmp_path / str(number)
        made = make_bundle(kaggle / "input" / "bundle", f"open({str(kaggle / 'canary')!r}, 'w')\nsubmit()")
        shutil.rmtree(kaggle / "input" / "bundle-sources")
        make_competition(kaggle / "input" / "competition", a7=(2, 3, 4))
        (wheel,) = made.glob("*.whl")
        with zipfile.ZipFile(wheel, "a") as archive:
            info = zipfile.ZipInfo("x")
            info.filename = name
            archive.writestr(info, "canary")
        if listed:
            list_anew(made, wheel.name)
        run = run_submit(kaggle)
        assert run.returncode == 1
        assert shared_result(run).reason == "bundle_damaged"
        assert len(shared_result(run).findings) == 1
        assert not list(kaggle.rglob("canary"))
        assert not (kaggle / "scratch" / "site").exists()
    tally("evil files in place of wheels", number + 1)


def test_random_bytes_in_place_of_weights_are_refused(bundle, long, tally):
    manifest, good = (bundle / "manifest.json").read_bytes(), (bundle / MEMBERS[1]).read_bytes()
    random_ = random.Random(0)
    count = 2000 if long else 50
    for _ in range(count):
        begin, end = sorted(random_.choices(range(len(good)), k=2))
        content = good[:begin] + random_.randbytes(end - begin + 1) + good[end + 1 :]
        assert refused(bundle, MEMBERS[1], content)
        (bundle / "manifest.json").write_bytes(manifest)
    tally("bursts of noise in weights", count)
