import json

import pytest

from surface_kernel.mounts import MountError, read_bundle, read_test_images
from surface_kernel.settings import Settings, SettingsError

GOOD = {"format": "surface-bundle/1", "weights": ["b.safetensors", "a.safetensors"], "settings": "settings.json"}


def bundle(folder, manifest=GOOD, settings='{"dust_voxels": 7}'):
    for name in ("a.safetensors", "b.safetensors"):
        (folder / name).write_bytes(b"")
    text = manifest if isinstance(manifest, str) else json.dumps(manifest)
    (folder / "manifest.json").write_text(text)
    (folder / "settings.json").write_text(settings)
    return folder


def test_a_bundle_gives_its_weights_in_member_order_and_its_settings(tmp_path):
    found = read_bundle(bundle(tmp_path))
    assert found.weights == (tmp_path / "b.safetensors", tmp_path / "a.safetensors")
    assert found.settings == Settings(dust_voxels=7)


@pytest.mark.parametrize(
    ("manifest", "found"),
    [
        ("{", "found no readable manifest"),
        ("[]", "found another format, wanted surface-bundle/1"),
        (GOOD | {"format": "surface-bundle/2"}, "found another format"),
        ({"format": GOOD["format"]}, "found weights None, wanted a list of file names"),
        (GOOD | {"weights": []}, r"found weights \[\]"),
        (GOOD | {"weights": "a.safetensors"}, "found weights 'a.safetensors'"),
        (GOOD | {"weights": [1]}, r"found weights \[1\]"),
        (GOOD | {"weights": ["c.safetensors"]}, "found no file 'c.safetensors'"),
        (GOOD | {"weights": ["../a.safetensors"]}, "found no file '../a.safetensors'"),
        (GOOD | {"weights": [".."]}, "found no file '..'"),
        (GOOD | {"weights": [""]}, "found no file ''"),
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
    with pytest.raises(MountError, match=r"manifest\.json: found no readable manifest"):
        read_bundle(tmp_path)


@pytest.mark.parametrize("text", ['{"tresh": 1}', "nonsense"])
def test_settings_that_cannot_be_meant_are_named(tmp_path, text):
    with pytest.raises(SettingsError, match=r"settings\.json"):
        read_bundle(bundle(tmp_path, settings=text))


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
        (b"id,scroll_id\n1.5,2\n", r"found id '1\.5', wanted a plain name without dots"),
    ],
)
def test_a_table_that_cannot_be_followed_is_named(tmp_path, content, found):
    if content is not None:
        (tmp_path / "test.csv").write_bytes(content)
    with pytest.raises(MountError, match=found) as caught:
        read_test_images(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'test.csv'}: ")
