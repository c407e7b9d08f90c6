"""The rules for kernel-metadata.json, one by one, and the dataset's metadata that follows from it."""

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slugify import slugify

from surface_package.build.manifest import ROOT
from surface_package.target import (
    PLACEHOLDER_OWNER,
    Target,
    TargetError,
    dataset_metadata,
    findings,
    is_public,
    read_target,
)

SHIPPED = json.loads((ROOT / "kernel-metadata.json").read_text())
SLUG = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=12)


def metadata(**changes: object) -> dict:
    owned = json.loads(json.dumps(SHIPPED).replace(PLACEHOLDER_OWNER, "tester"))
    return {key: value for key, value in {**owned, **changes}.items() if value is not ...}


def test_the_shipped_file_lacks_nothing_but_an_owner() -> None:
    assert findings(metadata(), public=False) == []
    assert [finding.partition(" names")[0] for finding in findings(SHIPPED, False)] == ['"id"', '"dataset_sources"']
    assert SHIPPED["machine_shape"] == "NvidiaTeslaT4"
    assert SHIPPED["competition_sources"] == ["vesuvius-challenge-surface-detection"]
    assert SHIPPED["kernel_sources"] == SHIPPED["model_sources"] == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"enable_internet": True}, '"enable_internet" is true; write false'),
        ({"enable_internet": ...}, '"enable_internet" is nothing; write false'),
        ({"enable_internet": 0}, '"enable_internet" is 0; write false'),
        ({"enable_internet": "false"}, '"enable_internet" is "false"; write false'),
        ({"is_private": False}, '"is_private" is false; write true'),
        ({"is_private": ...}, '"is_private" is nothing; write true'),
        ({"enable_gpu": ...}, '"enable_gpu" is nothing; write true'),
        ({"machine_shape": ...}, 'write "NvidiaTeslaT4"'),
        ({"enable_tpu": True}, '"enable_tpu" is true; write false'),
        ({"code_file": "submit.py"}, '"code_file" is "submit.py"; write "kernel/submit.py"'),
        ({"kernel_type": "notebook"}, '"kernel_type" is "notebook"; write "script"'),
        ({"language": "r"}, '"language" is "r"; write "python"'),
        ({"title": "Short"}, '"title" is "Short"; write 6 to 50 characters'),
        ({"title": "T" * 51}, "write 6 to 50 characters"),
        ({"title": "Another Kernel"}, "which Kaggle turns into another-kernel"),
        ({"id": "tester/x"}, "write a slug of 6 to 50 characters, not 1"),
        ({"dataset_sources": ["tester/" + "x" * 51]}, "write a slug of 6 to 50 characters, not 51"),
        ({"dataset_sources": ["INSERT_SLUG_HERE"]}, '"dataset_sources" names "INSERT_SLUG_HERE"; write "owner/slug"'),
        ({"dataset_sources": []}, '"dataset_sources" is []; write the bundle'),
        ({"dataset_sources": ["a/bbbbbb", "a/cccccc"]}, "one"),
        ({"dataset_sources": [f"{PLACEHOLDER_OWNER}/bundle"]}, "write your own Kaggle user name"),
        ({"competition_sources": ...}, '"competition_sources" is null; write the one'),
    ],
)
def test_each_rule(changes, told) -> None:
    found = findings(metadata(**changes), public=False)
    assert any(told in finding for finding in found), found
    assert len(found) == 1 or "id" in changes, found


def test_public_only_where_file_and_user_agree() -> None:
    assert findings(metadata(is_private=False), public=True) == []
    assert findings(metadata(), public=True) == ['"is_private" is true; write false (--public was given)']


def test_read_target(tmp_path) -> None:
    path = tmp_path / "kernel-metadata.json"
    with pytest.raises(TargetError, match="cannot be read"):
        read_target(path, public=False)
    for text in ("{", "[]"):
        path.write_text(text)
        with pytest.raises(TargetError):
            read_target(path, public=False)
    path.write_text(json.dumps(metadata(enable_internet=True, language="r")))
    with pytest.raises(TargetError, match=r'Edit it:\n  "language".*\n  "enable_internet"'):
        read_target(path, public=False)
    path.write_text(json.dumps(metadata(is_private=False)))
    assert read_target(path, public=True) == Target(
        kernel="tester/vesuvius-surface-kernel",
        dataset="tester/vesuvius-surface-bundle",
        competition="vesuvius-challenge-surface-detection",
        public=True,
    )
    assert is_public(path)
    path.write_text(json.dumps(metadata()))
    assert not is_public(path)


@given(st.lists(SLUG, min_size=1, max_size=4).map("-".join).filter(lambda slug: 6 <= len(slug) <= 50))
def test_the_datasets_title_has_the_slugs_length_and_gives_the_slug_back(slug) -> None:
    written = dataset_metadata(Target(kernel="o/kernel", dataset=f"o/{slug}", competition="c", public=False))
    assert len(written["title"]) == len(slug)
    assert slugify(written["title"]) == slug
    assert written["id"] == f"o/{slug}"
    assert written["licenses"] == [{"name": "CC-BY-NC-4.0"}]


@given(st.text(string.ascii_letters + string.digits + " -_()+/", min_size=6, max_size=50))
def test_a_titles_slug_is_the_clients(title) -> None:
    slug = slugify(title)
    about_title = [found for found in findings(metadata(title=title, id=f"tester/{slug}"), False) if "turns" in found]
    assert about_title == []


def test_a_title_in_any_language_has_the_clients_slug() -> None:
    assert findings(metadata(title="Überfläche Größe", id="tester/uberflache-grosse"), public=False) == []


def test_only_public_is_created_public(tmp_path) -> None:
    for public in (False, True):
        target = Target(kernel="o/kernel", dataset="o/bundle", competition="c", public=public)
        asked = target.create_dataset(tmp_path)
        assert ("--public" in asked) is public
