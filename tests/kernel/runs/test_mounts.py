import json
import os
from hashlib import sha256
from pathlib import Path

import pytest
from masks import mask_settings

from surface_kernel.inference.settings import Settings, SettingsError
from surface_kernel.runs.mounts import MountError, read_bundle, read_test_images

CONTENTS = {"a.safetensors": b"a", "b.safetensors": b"b", "settings.json": b'{"dust_voxels": 7}'}
GOOD = {"format": "surface-bundle/1", "weights": ["b.safetensors", "a.safetensors"], "settings": "settings.json"}
GOOD["files"] = {name: {"sha256": sha256(content).hexdigest()} for name, content in CONTENTS.items()}


def bundle(folder, manifest=GOOD, settings=CONTENTS["settings.json"]):
    for name, content in (CONTENTS | {"settings.json": settings}).items():
        (folder / name).write_bytes(content)
    if manifest is GOOD:
        digest = {"sha256": sha256(settings).hexdigest()}
        manifest = GOOD | {"files": GOOD["files"] | {"settings.json": digest}}
    text = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(text)
    return folder


def listed(**changes):
    """The good manifest with another entry for some files; None takes it out."""
    files = {name: changes.get(name.partition(".")[0], entry) for name, entry in GOOD["files"].items()}
    return GOOD | {"files": {name: entry for name, entry in files.items() if entry is not None}}


def test_a_bundle_gives_its_weights_in_member_order_and_its_settings(tmp_path):
    found = read_bundle(bundle(tmp_path))
    assert found.weights == (tmp_path / "b.safetensors", tmp_path / "a.safetensors")
    assert found.settings == Settings(mask=mask_settings(least_voxels=7))
    assert found.digests == {name: sha256(content).hexdigest() for name, content in CONTENTS.items()}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_file_that_was_changed_is_named_with_both_digests(tmp_path, name):
    bundle(tmp_path)
    (tmp_path / name).write_bytes(CONTENTS[name] + b" ")
    found, wanted = (sha256(content).hexdigest() for content in (CONTENTS[name] + b" ", CONTENTS[name]))
    with pytest.raises(MountError) as caught:
        read_bundle(tmp_path)
    message = f"expected sha256 {wanted} as the manifest lists, got {found}: the file was changed"
    assert str(caught.value) == f"{tmp_path / name}: {message}"


def test_weights_that_changed_places_are_refused(tmp_path):
    bundle(tmp_path)
    (tmp_path / "a.safetensors").write_bytes(CONTENTS["b.safetensors"])
    (tmp_path / "b.safetensors").write_bytes(CONTENTS["a.safetensors"])
    with pytest.raises(MountError, match=r"b\.safetensors: expected sha256 .* the file was changed"):
        read_bundle(tmp_path)


@pytest.mark.parametrize(
    ("manifest", "found"),
    [
        (b"{", "expected the manifest of a surface-bundle/1 bundle, got"),
        (b"\xff", "expected the manifest of a surface-bundle/1 bundle, got"),
        (b"[" * 100_000, "expected the manifest of a surface-bundle/1 bundle, got"),
        (b"9" * 5000, "expected the manifest of a surface-bundle/1 bundle, got"),
        (b" " * (2 << 20), "expected at most 1048576 bytes, got more"),
        (b"[]", r"format: expected surface-bundle/1, got \[\]"),
        (GOOD | {"format": "surface-bundle/2"}, "format: expected surface-bundle/1, got 'surface-bundle/2'"),
        (GOOD | {"weights": None}, "weights: expected a list of file names, got None"),
        (GOOD | {"weights": []}, r"weights: expected a list of file names, got \[\]"),
        (GOOD | {"weights": "a.safetensors"}, "weights: expected a list of file names, got 'a.safetensors'"),
        (GOOD | {"weights": [1]}, r"weights: expected a list of file names, got \[1\]"),
        (GOOD | {"weights": ["c.safetensors"]}, "got no file 'c.safetensors'"),
        (GOOD | {"weights": ["../a.safetensors"]}, "got no file '../a.safetensors'"),
        (GOOD | {"weights": [".."]}, "got no file '..'"),
        (GOOD | {"weights": [""]}, "got no file ''"),
        (GOOD | {"weights": ["a.safetensors\0"]}, r"got no file 'a\.safetensors\\x00'"),
        (GOOD | {"weights": ["\ud800"]}, r"got no file '\\ud800'"),
        (GOOD | {"weights": ["a" * 5000]}, "got no file 'aaa"),
        (GOOD | {"settings": None}, "settings: expected a file name, got None"),
        (GOOD | {"settings": ["settings.json"]}, r"settings: expected a file name, got \['settings.json'\]"),
        (GOOD | {"settings": "../settings.json"}, "got no file '../settings.json'"),
        (GOOD | {"files": None}, "files: expected a table with a sha256 for every file, got None"),
        (GOOD | {"files": ["a.safetensors"]}, "files: expected a table with a sha256 for every file"),
        (listed(a=None), r"files: expected a sha256 for 'a\.safetensors', got None"),
        (listed(b=["00"]), r"files: expected a sha256 for 'b\.safetensors', got \['00'\]"),
        (listed(settings={"sha256": 7}), r"files: expected a sha256 for 'settings\.json', got {'sha256': 7}"),
        (listed(settings={"sha256": "A" * 64}), "files: expected a sha256 for"),
    ],
)
def test_a_manifest_that_cannot_be_followed_is_named(tmp_path, manifest, found):
    folder = tmp_path / "bundle"
    folder.mkdir()
    (tmp_path / "a.safetensors").write_bytes(b"outside of the bundle")
    with pytest.raises(MountError, match=found) as caught:
        read_bundle(bundle(folder, manifest))
    assert str(caught.value).startswith(f"{folder / 'manifest.json'}: ")


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path):
    with pytest.raises(MountError, match=r"manifest\.json: no such file"):
        read_bundle(tmp_path)


@pytest.mark.parametrize("name", ["manifest.json", *CONTENTS])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path)])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, name, make):
    bundle(tmp_path)
    (tmp_path / name).unlink()
    make(tmp_path / name)
    with pytest.raises(MountError, match=r"no such file; expected one of|got no file"):
        read_bundle(tmp_path)


@pytest.mark.parametrize("text", [b'{"tresh": 1}', b"nonsense"])
def test_settings_that_cannot_be_meant_are_named(tmp_path, text):
    with pytest.raises(SettingsError, match=r"settings\.json"):
        read_bundle(bundle(tmp_path, settings=text))


def test_stages_of_other_members_than_the_bundle_has_are_refused(tmp_path):
    with pytest.raises(SettingsError, match="stages: expected the members 0 to 1, as there are weights, got 0"):
        read_bundle(bundle(tmp_path, settings=b'{"stages": [["0 none"]]}'))


def test_the_images_come_in_the_tables_order_whether_or_not_they_exist(tmp_path):
    (tmp_path / "test.csv").write_bytes(b"id,scroll_id\r\n1407735,26002\r\n 99 ,34117\r\n5,35360\r\n")
    found = read_test_images(tmp_path)
    assert list(found) == ["1407735", "99", "5"]
    assert found["99"] == tmp_path / "test_images" / "99.tif"


def test_a_byte_order_mark_is_no_part_of_the_column_name(tmp_path):
    (tmp_path / "test.csv").write_bytes(b"\xef\xbb\xbfid,scroll_id\n5,35360\n")
    assert list(read_test_images(tmp_path)) == ["5"]


def test_an_id_counts_once_and_an_empty_row_not_at_all(tmp_path):
    (tmp_path / "test.csv").write_bytes("\ufeffid,scroll_id\n7,2\n,2\n8,2\n7,2\n".encode())  # as Excel saves it
    assert list(read_test_images(tmp_path)) == ["7", "8"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "expected a table with the columns id, scroll_id, got"),
        (b"", "expected a row with an id for each test volume, got none"),
        (b"id,scroll_id\n", "expected a row with an id for each test volume, got none"),
        (b"id\n\xff\xfe\n", "expected a table with the columns id, scroll_id, got"),
        (b"case,scroll_id\n1,2\n", "expected a row with an id for each test volume, got none"),
        (b"id,scroll_id\n,3\n", "expected a row with an id for each test volume, got none"),
        (b"id,scroll_id\n../../etc,2\n", r"id: expected a plain name without dots, got '\.\./\.\./etc'"),
        (b"id,scroll_id\na/b,2\n", "id: expected a plain name without dots, got 'a/b'"),
        (b"id,scroll_id\na\\b,2\n", "id: expected a plain name without dots, got"),
        (b"id,scroll_id\na\0b,2\n", r"id: expected a plain name without dots, got 'a\\x00b'"),
        (b"id,scroll_id\na\x1bb,2\n", r"id: expected a plain name without dots, got 'a\\x1bb'"),
        (b'id,scroll_id\n"a\nb",2\n', r"id: expected a plain name without dots, got 'a\\nb'"),
        (b"id,scroll_id\n" + b"1" * 101 + b",2\n", "id: expected at most 100 bytes, got '111.*1'"),
        (b"id,scroll_id\n1.5,2\n", r"id: expected a plain name without dots, got '1\.5'"),
    ],
)
def test_a_table_that_cannot_be_followed_is_named(tmp_path, content, found):
    if content is not None:
        (tmp_path / "test.csv").write_bytes(content)
    with pytest.raises(MountError, match=found) as caught:
        read_test_images(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'test.csv'}: ")


def test_a_table_that_is_no_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "test.csv")
    with pytest.raises(MountError, match="expected a table with the columns id, scroll_id, got"):
        read_test_images(tmp_path)


def test_the_longest_id_is_taken(tmp_path):
    (tmp_path / "test.csv").write_text(f"id,scroll_id\n{'1' * 100},2\n")
    assert list(read_test_images(tmp_path)) == ["1" * 100]
