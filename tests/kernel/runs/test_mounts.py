import json
import os
from hashlib import sha256
from pathlib import Path

import pytest

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
    assert found.settings == Settings(dust_voxels=7)
    assert found.digests == {name: sha256(content).hexdigest() for name, content in CONTENTS.items()}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_file_that_was_changed_is_named_with_both_digests(tmp_path, name):
    bundle(tmp_path)
    (tmp_path / name).write_bytes(CONTENTS[name] + b" ")
    found, wanted = (sha256(content).hexdigest() for content in (CONTENTS[name] + b" ", CONTENTS[name]))
    with pytest.raises(MountError) as caught:
        read_bundle(tmp_path)
    told = f"found sha256 {found}, wanted {wanted} as the manifest lists: the file was changed"
    assert str(caught.value) == f"{tmp_path / name}: {told}"


def test_weights_that_changed_places_are_refused(tmp_path):
    bundle(tmp_path)
    (tmp_path / "a.safetensors").write_bytes(CONTENTS["b.safetensors"])
    (tmp_path / "b.safetensors").write_bytes(CONTENTS["a.safetensors"])
    with pytest.raises(MountError, match=r"b\.safetensors: found sha256 .* the file was changed"):
        read_bundle(tmp_path)


@pytest.mark.parametrize(
    ("manifest", "found"),
    [
        (b"{", "found no readable manifest"),
        (b"\xff", "found no readable manifest"),
        (b"[" * 100_000, "found no readable manifest"),
        (b"9" * 5000, "found no readable manifest"),
        (b" " * (2 << 20), "found more than 1048576 bytes"),
        (b"[]", "found another format, wanted surface-bundle/1"),
        (GOOD | {"format": "surface-bundle/2"}, "found another format"),
        (GOOD | {"weights": None}, "found weights None, wanted a list of file names"),
        (GOOD | {"weights": []}, r"found weights \[\]"),
        (GOOD | {"weights": "a.safetensors"}, "found weights 'a.safetensors'"),
        (GOOD | {"weights": [1]}, r"found weights \[1\]"),
        (GOOD | {"weights": ["c.safetensors"]}, "found no file 'c.safetensors'"),
        (GOOD | {"weights": ["../a.safetensors"]}, "found no file '../a.safetensors'"),
        (GOOD | {"weights": [".."]}, "found no file '..'"),
        (GOOD | {"weights": [""]}, "found no file ''"),
        (GOOD | {"weights": ["a.safetensors\0"]}, r"found no file 'a\.safetensors\\x00'"),
        (GOOD | {"weights": ["\ud800"]}, r"found no file '\\ud800'"),
        (GOOD | {"weights": ["a" * 5000]}, "found no file 'aaa"),
        (GOOD | {"settings": None}, "found settings None, wanted a file name"),
        (GOOD | {"settings": ["settings.json"]}, r"found settings \['settings.json'\]"),
        (GOOD | {"settings": "../settings.json"}, "found no file '../settings.json'"),
        (GOOD | {"files": None}, "found no table 'files'"),
        (GOOD | {"files": ["a.safetensors"]}, "found no table 'files'"),
        (listed(a=None), r"found 'a\.safetensors' listed as None, wanted a sha256"),
        (listed(b=["00"]), r"found 'b\.safetensors' listed as \['00'\], wanted a sha256"),
        (listed(settings={"sha256": 7}), r"found 'settings\.json' listed as {'sha256': 7}, wanted a sha256"),
        (listed(settings={"sha256": "A" * 64}), "wanted a sha256"),
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
    with pytest.raises(MountError, match=r"manifest\.json: found no readable file"):
        read_bundle(tmp_path)


@pytest.mark.parametrize("name", ["manifest.json", *CONTENTS])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path)])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, name, make):
    bundle(tmp_path)
    (tmp_path / name).unlink()
    make(tmp_path / name)
    with pytest.raises(MountError, match="found no "):
        read_bundle(tmp_path)


@pytest.mark.parametrize("text", [b'{"tresh": 1}', b"nonsense"])
def test_settings_that_cannot_be_meant_are_named(tmp_path, text):
    with pytest.raises(SettingsError, match=r"settings\.json"):
        read_bundle(bundle(tmp_path, settings=text))


def test_stages_of_other_members_than_the_bundle_has_are_refused(tmp_path):
    with pytest.raises(SettingsError, match="stages: found the members 0, wanted each of 0 to 1"):
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
        (None, "found no readable table"),
        (b"", "found no rows"),
        (b"id,scroll_id\n", "found no rows"),
        (b"id\n\xff\xfe\n", "found no readable table"),
        (b"case,scroll_id\n1,2\n", "found no rows"),
        (b"id,scroll_id\n,3\n", "found no rows"),
        (b"id,scroll_id\n../../etc,2\n", r"found id '\.\./\.\./etc', wanted"),
        (b"id,scroll_id\na/b,2\n", "found id 'a/b', wanted"),
        (b"id,scroll_id\na\\b,2\n", "found id .*, wanted a plain name"),
        (b"id,scroll_id\na\0b,2\n", r"found id 'a\\x00b', wanted a plain name"),
        (b"id,scroll_id\na\x1bb,2\n", r"found id 'a\\x1bb', wanted a plain name"),
        (b'id,scroll_id\n"a\nb",2\n', r"found id 'a\\nb', wanted a plain name"),
        (b"id,scroll_id\n" + b"1" * 101 + b",2\n", "found id '111.*1', wanted 100 bytes at most"),
        (b"id,scroll_id\n1.5,2\n", r"found id '1\.5', wanted a plain name without dots"),
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
    with pytest.raises(MountError, match="found no readable table"):
        read_test_images(tmp_path)


def test_the_longest_id_is_taken(tmp_path):
    (tmp_path / "test.csv").write_text(f"id,scroll_id\n{'1' * 100},2\n")
    assert list(read_test_images(tmp_path)) == ["1" * 100]
