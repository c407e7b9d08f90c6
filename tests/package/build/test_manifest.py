import hashlib
import json
from pathlib import Path

import pytest
from package.fake_bundle import make_bundle

from surface_package.build import manifest
from surface_package.build.manifest import Contents, ManifestError


def test_a_manifest_lists_every_file_with_size_and_sha256(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"abc")
    (tmp_path / "a").write_bytes(b"")
    told = {"b": {"provenance": {"fold": "3"}}}
    contents = Contents("1.2", None, ("b",), "a", ("x==1",), ("3.12",), told, {"a": "MIT"}, {"voxels": 8})
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
    [(None, "found no manifest.json"), (b"{", "found no JSON"), (b"[]", "found format 'list'"), (b"{}", "format None")],
)
def test_a_folder_that_is_no_bundle_is_named(tmp_path: Path, content: bytes | None, found: str) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ManifestError, match=found):
        manifest.read(tmp_path)


def test_no_manifest_no_digest(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"found no manifest\.json"):
        manifest.digest(tmp_path)


def test_submit_py_does_the_checking(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    whole, lines = manifest.verify(bundle)
    assert whole
    assert lines == [f"bundle verified: {bundle}, manifest sha256 {manifest.digest(bundle)}"]
    (bundle / "settings.json").unlink()
    assert manifest.verify(bundle) == (
        False,
        ["finding: 'settings.json': found no such file, wanted 25 bytes"],
    )


def test_outside_of_a_clone_there_is_nothing_to_check_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "ROOT", tmp_path)
    with pytest.raises(ManifestError, match="wanted a clone of the project"):
        manifest.verify(tmp_path)


def test_a_manifest_that_was_changed_is_told_and_one_without_its_digest_is_read(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    content = manifest.read(bundle)
    path = bundle / "manifest.json"
    path.write_text(json.dumps(content, separators=(",", ":")))  # in another form, but the same content
    assert manifest.read(bundle) == content
    path.write_text(json.dumps(content | {"commit": "c0ffee"}))
    told = r"manifest\.json: found contents_sha256 [0-9a-f]{64}, wanted [0-9a-f]{64}: it was changed"
    with pytest.raises(ManifestError, match=told):
        manifest.read(bundle)
    del content["contents_sha256"]
    path.write_text(json.dumps(content))
    assert manifest.read(bundle) == content


def test_submit_py_takes_what_else_a_manifest_says(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    path = bundle / "manifest.json"
    more = {"members": {"member_0.safetensors": {}}, "licences": {"a": "b"}, "half": {"c": 1}, "contents_sha256": "d"}
    path.write_text(json.dumps(json.loads(path.read_bytes()) | more))
    assert manifest.verify(bundle)[0]
