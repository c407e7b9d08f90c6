"""Mutants of good texts, thousands a second: whatever a bundle says, its readers say what is wrong, or what it is.

Every example of hypothesis is a seed, and every seed a batch of mutants.
"""

import copy
import hashlib
import json
import re
import runpy
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fuzzing import fuzz
from package.fake_bundle import SUBMIT, make_bundle
from scenes import list_bundle, write_bundle

from surface_kernel.inference.settings import SettingsError, from_json, from_toml, to_json
from surface_kernel.networks.architecture import Architecture
from surface_kernel.networks.weights import Metadata, WeightsError, describe, load, save
from surface_kernel.runs.mounts import MountError, read_bundle
from surface_kernel.volumes.intensity import Intensity

NESTED = json.loads("[" * 300 + "]" * 300)
VALUES = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        0.5,
        1.5,
        1e308,
        10**400,
        float("nan"),
        float("inf"),
        [],
        {},
        [[]],
        {"a": {}},
        NESTED,
    ),
    *("", "x", "none", "0 none", "1 x", "..", "../a", "a\0", "a\n", "\ud800", "é", "a" * 5000, "[" * 2000, "0" * 64),
    *([0, 1], [1, 2, 3], [32, 32, 32], ["0 none"], [["0 none"], ["1 none"]], {"sha256": "0" * 64, "bytes": 1}),
]


def mutant(dice, tree, write=json.dumps):
    """Makes the bytes of a text that says nearly what `tree` does: one to three entries differ, or some bytes."""
    if dice.random() < 0.6:
        changed = copy.deepcopy(tree)
        for _ in range(dice.randint(1, 3)):
            change_entry(dice, changed)
        return write(changed).encode("utf-8", "surrogatepass")
    content = bytearray(write(tree).encode())
    for _ in range(dice.randint(1, 3)):
        change_bytes(dice, content)
    return bytes(content)


def change_entry(dice, tree):
    """Changes something somewhere in a tree of dicts and lists."""
    while True:
        keys = list(tree) if isinstance(tree, dict) else range(len(tree))
        if not keys:
            return
        key = dice.choice(keys)
        if isinstance(tree[key], dict | list) and dice.random() < 0.7:
            tree = tree[key]
            continue
        deed = dice.randrange(5)
        if deed == 0:
            del tree[key]
        elif deed == 1 and isinstance(tree, dict):
            tree[dice.choice(["", "x", "../x", "a\0", "\ud800", "a" * 300, "format", "files"])] = tree.pop(key)
        elif deed == 2 and isinstance(tree, list):
            tree.insert(dice.randint(0, len(tree)), copy.deepcopy(tree[key]))
        else:
            tree[key] = copy.deepcopy(dice.choice(VALUES))
        return


def change_bytes(dice, content):
    """Changes some bytes in place: another bit, another byte, some less, some twice, the end cut off."""
    at, length = dice.randrange(len(content) + 1), dice.randint(1, 20)
    deed = dice.randrange(5)
    if deed == 0:
        content[at : at + 1] = bytes(value ^ 1 << dice.randrange(8) for value in content[at : at + 1])
    elif deed == 1:
        content[at : at + 1] = bytes([dice.choice(b'{}[]":,\\-+eE. 019ntf\0\xff')])
    elif deed == 2:
        del content[at : at + length]
    elif deed == 3:
        content[at:at] = content[at : at + length]
    elif dice.random() < 0.2:
        del content[at:]


def read_or_refuse(read, *kinds):
    """Gives what was read, or None where it was refused in one line; anything else than `kinds` fails the test."""
    refusal = ""
    try:
        return read()
    except kinds as error:
        refusal = str(error)
    assert re.search(r"\b(expected|found) ", refusal), refusal
    assert refusal.isprintable(), refusal
    return None


def test_the_manifest_as_submit_reads_it(tmp_path, long, tally):
    bundle = make_bundle(tmp_path / "bundle")
    submit = SimpleNamespace(**runpy.run_path(str(SUBMIT)))
    good = json.loads((bundle / "manifest.json").read_text())

    def check(dice):
        content = mutant(dice, good)
        (bundle / "manifest.json").write_bytes(content)
        findings = submit.check_bundle(bundle)
        assert all("expected " in finding and finding.isprintable() for finding in findings)
        if not findings:  # then what it says of the files is true
            listed = json.loads(content)["files"]
            assert {name: listed[name] | entry for name, entry in good["files"].items()} == listed

    tally("parsers fuzzed: manifest, by submit.py", fuzz(long, check, 20))


def test_the_manifest_as_the_engine_reads_it(tmp_path, long, tally):
    for name in "ab":
        (tmp_path / name).write_text(name)
    bundle = write_bundle(tmp_path / "bundle", [tmp_path / "a", tmp_path / "b"])
    good, digests = json.loads((bundle / "manifest.json").read_text()), read_bundle(bundle).digests

    def check(dice):
        (bundle / "manifest.json").write_bytes(mutant(dice, good))
        found = read_or_refuse(lambda: read_bundle(bundle), MountError)
        if found:
            assert found.digests.items() <= digests.items()
            assert {path.name for path in found.weights} < set(found.digests)

    tally("parsers fuzzed: manifest, by the engine", fuzz(long, check, 40))


SETTINGS = [
    {"views": ["none", "x", "zy", "z+yx90"], "threshold": 0.4, "dust_voxels": 7, "compiled": False, "stages": None},
    {"views": ["none"], "stages": [["0 none"], ["1 none", "1 x"], ["0 x"]], "threshold": None},
]


def checked(settings):
    """Checks what no settings may break, and that they come back."""
    if settings:
        assert settings.mask.threshold is None or 0 < settings.mask.threshold < 1
        assert isinstance(settings.mask.clear_unscanned, bool)
        pairs = [pair for stage in settings.staged or settings.stages(2) for pair in stage]
        assert pairs[0] == (0, "none")
        assert len(set(pairs)) == len(pairs)
        assert from_json(to_json(settings).encode(), "settings.json") == settings


def test_settings_in_json(long, tally):
    def check(dice):
        content = mutant(dice, dice.choice(SETTINGS))
        checked(read_or_refuse(lambda: from_json(content, "settings.json"), SettingsError))

    tally("parsers fuzzed: settings in JSON", fuzz(long, check, 100))


def to_toml(entries):
    """Writes one entry a line, nearly as TOML wants it: what JSON and TOML do not share is for the reader to find."""
    pairs = entries.items() if isinstance(entries, dict) else enumerate(entries)
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in pairs if value is not None)


def test_settings_in_toml(tmp_path, long, tally):
    path = tmp_path / "settings.toml"

    def check(dice):
        path.write_bytes(mutant(dice, dice.choice(SETTINGS), to_toml))
        checked(read_or_refuse(lambda: from_toml(path), SettingsError))

    tally("parsers fuzzed: settings in TOML", fuzz(long, check, 10))


def test_the_head_of_a_weights_file(tmp_path, long, tally):
    path = tmp_path / "w.safetensors"
    metadata = Metadata(
        architecture=Architecture(),
        intensity=Intensity(),
        tile_zyx=(32, 64, 96),
        provenance={"fold": 1, "deep": {"er": [1, "a"]}},
    )
    save(path, {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3).half(), "c": torch.tensor(3)}, metadata)
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header, tensors = json.loads(content[8 : 8 + length]), content[8 + length :]
    strings = {name: text if name == "sha256" else json.loads(text) for name, text in header["__metadata__"].items()}

    def write(tree):
        """Writes the metadata's values as JSON in strings, but for the digest and where there is no metadata."""
        inner = tree.get("__metadata__")
        if isinstance(inner, dict):
            texts = {name: value if name == "sha256" else json.dumps(value) for name, value in inner.items()}
            tree = tree | {"__metadata__": texts}
        return json.dumps(tree, separators=(",", ":"))

    def check(dice):
        text = mutant(dice, header | {"__metadata__": strings}, write)
        text += b" " * (-len(text) % 8)
        length = len(text)
        if dice.random() < 0.1:
            length = dice.choice([0, 7, 1 << 20, 1 << 63, dice.randrange(2 * length + 1)])
        seal(path, struct.pack("<Q", length) + text + tensors)
        described, loaded = (read_or_refuse(lambda read=read: read(path), WeightsError) for read in (describe, load))
        assert loaded is None or loaded[0] == described or "nan" in str(described)
        if loaded:
            assert sum(tensor.nbytes for tensor in loaded[1].values()) == len(tensors)
            assert 0 < loaded[0].threshold < 1

    tally("parsers fuzzed: head of a weights file", fuzz(long, check, 30))


def seal(path: Path, content):
    """Writes a weights file with the digest that is right for it, so that it is all up to the readers."""
    at = slice(35, 99)
    blank = content[: at.start] + b"0" * 64 + content[at.stop :]
    whole = content[: at.start] + hashlib.sha256(blank).hexdigest().encode() + content[at.stop :]
    path.write_bytes(whole if content[at] == blank[at] or b"sha256" in content[: at.start] else content)


def test_the_good_texts_are_good(tmp_path):
    path = tmp_path / "w.safetensors"
    save(
        path, {"a": torch.ones(3)}, Metadata(architecture=Architecture(), intensity=Intensity(), tile_zyx=(32, 64, 96))
    )
    before = path.read_bytes()
    seal(path, before)
    assert path.read_bytes() == before
    for entries in SETTINGS:
        (tmp_path / "settings.toml").write_text(to_toml(entries))
        assert from_toml(tmp_path / "settings.toml") == from_json(json.dumps(entries).encode(), "settings.json")
    with pytest.raises(SettingsError):
        from_json(b"[]", "settings.json")
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "settings.json").write_text("{}")
    (tmp_path / "bundle" / "a").write_text("a")
    assert read_bundle(list_bundle(tmp_path / "bundle", ["a"])).weights == (tmp_path / "bundle" / "a",)
