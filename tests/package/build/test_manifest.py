import hashlib
import json
import re
import runpy
from pathlib import Path

import pytest
from package.fake_bundle import SUBMIT, make_bundle

from surface_package.build import manifest
from surface_package.build.manifest import Contents, ManifestError


def test_a_manifest_lists_every_file_with_size_and_sha256(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"abc")
    (tmp_path / "a").write_bytes(b"")
    told = {"b": {"provenance": {"fold": "3"}}}
    contents = Contents(
        version="1.2",
        commit=None,
        weights=("b",),
        settings="a",
        requirements=("x==1",),
        python=("3.12",),
        members=told,
        licences={"a": "MIT"},
        half={"voxels": 8},
    )
    written = manifest.write(tmp_path, contents)
    empty, abc = (hashlib.sha256(content).hexdigest() for content in (b"", b"abc"))
    content = json.loads(written.read_text())
    own = content.pop("contents_sha256")
    assert own == hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    assert content == {
        "format": "surface-bundle/1",
        "kernel": {"version": "1.2"},
        "commit": None,
        "weights": ["b"],
        "settings": "a",
        "requirements": ["x==1"],
        "python": ["3.12"],
        "members": {"b": {"provenance": {"fold": "3"}}},
        "licences": {"a": "MIT"},
        "half": {"voxels": 8},
        "files": {"a": {"sha256": empty, "bytes": 0}, "b": {"sha256": abc, "bytes": 3}},
    }
    first = written.read_bytes()
    assert manifest.write(tmp_path, contents).read_bytes() == first  # its own file is not among them
    assert manifest.digest(tmp_path) == hashlib.sha256(first).hexdigest()
    assert manifest.read(tmp_path) == json.loads(first)


@pytest.mark.parametrize(
    ("content", "found"),
    [(None, "no such file"), (b"{", "got an unreadable file"), (b"[]", "got 'list'"), (b"{}", "got None")],
)
def test_a_folder_that_is_no_bundle_is_named(tmp_path: Path, content: bytes | None, found: str) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ManifestError, match=found):
        manifest.read(tmp_path)


def test_no_manifest_no_digest(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"manifest\.json: no such file"):
        manifest.digest(tmp_path)


def test_submit_py_does_the_checking(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    assert manifest.verify(bundle) == []
    (bundle / "settings.json").unlink()
    assert manifest.verify(bundle) == ["'settings.json': expected 25 bytes, got no such file"]


@pytest.mark.parametrize(
    ("change", "raised"),
    [
        ("say(result.line())\n    return 1 if", r"submit\.py --verify: expected a line 'surface-submit: .*got none"),
        ('program="verify"', r"submit\.py --verify: line 'surface-submit: …': verdict: expected .* of 'verify'"),
    ],
)
def test_a_submit_py_that_does_not_say_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, raised: str
) -> None:
    text = SUBMIT.read_text()
    assert text.count(change) == 1
    (tmp_path / "submit.py").write_text(text.replace(change, "return 1 if" if "say" in change else 'program="submit"'))
    monkeypatch.setattr(manifest, "submit_script", lambda: tmp_path / "submit.py")
    with pytest.raises(ManifestError, match=raised):
        manifest.verify(make_bundle(tmp_path / "bundle"))


def test_a_submit_py_that_verified_another_manifest_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "digest", lambda bundle: "0" * 64)
    (finding,) = manifest.verify(make_bundle(tmp_path / "bundle"))
    assert re.search(r"manifest\.json: expected sha256 [0-9a-f]{64} as verified, got 0{64}$", finding)


def test_outside_of_a_clone_there_is_nothing_to_check_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "ROOT", tmp_path)
    with pytest.raises(ManifestError, match="expected a clone of the project"):
        manifest.verify(tmp_path)


def test_a_manifest_that_was_changed_is_told_and_one_without_its_digest_is_read(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    content = manifest.read(bundle)
    path = bundle / "manifest.json"
    path.write_text(json.dumps(content, separators=(",", ":")))  # in another form, but the same content
    assert manifest.read(bundle) == content
    path.write_text(json.dumps(content | {"commit": "c0ffee"}))
    told = r"manifest\.json: contents_sha256: expected [0-9a-f]{64}, got [0-9a-f]{64}: it was changed"
    with pytest.raises(ManifestError, match=told):
        manifest.read(bundle)
    del content["contents_sha256"]
    path.write_text(json.dumps(content))
    assert manifest.read(bundle) == content


def test_submit_py_takes_what_else_a_manifest_says(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    path = bundle / "manifest.json"
    more = {"members": {"member_0.safetensors": {}}, "licences": {"a": "ä"}, "half": {"c": 1}}
    path.write_text(manifest.sealed(json.loads(path.read_bytes()) | more))
    assert manifest.verify(bundle) == []


@pytest.mark.parametrize("stride", [23, pytest.param(1, marks=pytest.mark.slow)])
def test_submit_py_finds_every_flipped_bit_of_every_delivered_file(tmp_path: Path, stride: int) -> None:
    bundle = make_bundle(tmp_path / "bundle", commit="é" * 3)
    check = runpy.run_path(str(manifest.submit_script()))["check_bundle"]
    assert check(bundle) == []
    for path in bundle.iterdir():
        content = path.read_bytes()
        for bit in range(0, 8 * len(content), stride):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            assert check(bundle), (path.name, bit)
        path.write_bytes(content)
    assert check(bundle) == []
