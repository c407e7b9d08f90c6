"""Whether a bundle may go, what is staged for it, and what is remembered of it."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from package.deliveries import DATASET, FILES, OWNER, write_bundle

from surface_package.build.manifest import ManifestError
from surface_package.kaggle import delivery as room
from surface_package.kaggle import upload
from surface_package.kaggle.delivery import Delivery, DeliveryError
from surface_package.kaggle.publish_record import PublishRecord
from surface_package.kaggle.upload import SentDataset


def fresh(delivery: Delivery, dataset: str = DATASET) -> PublishRecord:
    return PublishRecord(manifest_sha256=delivery.digest(), sent=SentDataset(dataset=dataset))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "was not rehearsed: no bundle.rehearsed.json"),
        ("{", "is not JSON"),
        ('{"passed": false, "manifest_sha256": "DIGEST"}', "did not pass"),
        ('{"passed": 1, "manifest_sha256": "DIGEST"}', "did not pass"),
        ('["passed"]', "did not pass"),
        ('{"passed": true}', "has changed since it was rehearsed"),
        ('{"passed": true, "manifest_sha256": "0000"}', "has changed since it was rehearsed"),
    ],
)
def test_a_bundle_that_was_not_rehearsed_stays(delivery, content, told) -> None:
    path = delivery.beside(".rehearsed.json")
    room.check_rehearsed(delivery)
    path.unlink()
    if content is not None:
        path.write_text(content.replace("DIGEST", delivery.digest()))
    with pytest.raises(DeliveryError, match=rf"{told}.*Run: python -m surface_package rehearse "):
        room.check_rehearsed(delivery)


def test_a_bundle_that_does_not_verify_stays(delivery) -> None:
    room.check_whole(delivery)
    (delivery.bundle / "member0.safetensors").write_bytes(b"fIrst")
    with pytest.raises(DeliveryError, match=r"does not verify:\n(.|\n)*member0.safetensors(.|\n)*Build and rehearse"):
        room.check_whole(delivery)


def test_no_bundle_and_no_time(delivery, tmp_path) -> None:
    with pytest.raises(ManifestError, match=r"manifest\.json: no such file"):
        Delivery(bundle=tmp_path)
    with pytest.raises(DeliveryError, match="--timeout-s is 0"):
        replace(delivery, timeout_s=0)


def test_staged_folders_hold_what_goes_and_no_more(delivery, target) -> None:
    (delivery.bundle / "dataset-metadata.json").write_text("left from elsewhere")
    with upload.staged(target, delivery.files()) as data, room.staged(delivery) as kernel:
        assert sorted(path.name for path in data.iterdir()) == sorted((*FILES, "dataset-metadata.json"))
        for name in FILES:
            assert (data / name).samefile(delivery.bundle / name)
        assert f'"id": "{DATASET}"' in (data / "dataset-metadata.json").read_text()
        files = {path.relative_to(kernel).as_posix() for path in kernel.rglob("*") if path.is_file()}
        assert files == {"kernel-metadata.json", "kernel/submit.py"}
        for name in files:
            assert (kernel / name).read_bytes() == (delivery.root / name).read_bytes()
        assert {data.parent, kernel.parent} == {delivery.bundle.parent}
    assert not data.exists()
    assert not kernel.exists()
    assert (delivery.bundle / "dataset-metadata.json").read_text() == "left from elsewhere"


def test_staged_by_copies_where_links_are_refused(delivery, target, monkeypatch) -> None:
    def refuse(*paths: Path) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    with upload.staged(target, delivery.files()) as data:
        for name in FILES:
            assert (data / name).read_bytes() == (delivery.bundle / name).read_bytes()
            assert not (data / name).samefile(delivery.bundle / name)


def test_nothing_staged_outlives_a_failure(delivery, target) -> None:
    def fail() -> None:
        with upload.staged(target, delivery.files()), room.staged(delivery):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert sorted(path.name for path in delivery.bundle.parent.iterdir()) == ["bundle", "bundle.rehearsed.json"]


def test_a_folder_in_the_bundle_is_named(delivery) -> None:
    (delivery.bundle / "extra").mkdir()
    with pytest.raises(DeliveryError, match="holds extra, no file"):
        delivery.files()


def test_a_record_is_read_back_for_the_same_bundle_and_dataset_only(delivery, target) -> None:
    assert PublishRecord.read(delivery, target) == fresh(delivery)
    sent = SentDataset(dataset=DATASET, digest="0" * 64, version_before=2, version=3)
    done = replace(fresh(delivery), sent=sent, kernel_version=4).write(delivery)
    assert PublishRecord.read(delivery, target) == done
    other = replace(target, dataset=f"{OWNER}/another-bundle")
    assert PublishRecord.read(delivery, other) == fresh(delivery, other.dataset)
    write_bundle(delivery.bundle, b"other")
    assert PublishRecord.read(delivery, target) == fresh(delivery)


def test_a_dataset_that_is_sent_begins_a_new_record(delivery) -> None:
    sent = SentDataset(dataset=DATASET, digest="0" * 64, version_before=0, version=1)
    pushed = replace(fresh(delivery), sent=sent).pushed("1" * 64, 2)
    done = replace(pushed, output_sha256="2" * 64, submitted=True)
    again = replace(sent, version_before=1, version=None)
    assert done.uploaded(again) == replace(fresh(delivery), sent=again)
    assert done.uploaded(sent) == done


@pytest.mark.parametrize(
    "content", ["", "[]", '{"manifest_sha256": 1}', '{"manifest_sha256": 1, "sent": {}, "unknown": 2}']
)
def test_a_damaged_record_counts_for_nothing(delivery, target, content) -> None:
    delivery.beside(".published.json").write_text(content)
    assert PublishRecord.read(delivery, target) == fresh(delivery)


def test_message_names_manifest_and_commit(delivery) -> None:
    assert room.message(delivery) == f"manifest {delivery.digest()[:16]} commit c0ffeec0ffee"
