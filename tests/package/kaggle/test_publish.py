"""A publish from end to end: the real kaggle client against a server of ours, and what the user is told."""

import argparse
import hashlib
import os
from dataclasses import replace

import pytest
from package.deliveries import DATASET, FILES, OWNER, write_bundle
from package.kaggle_server import SUBMISSION, Kaggle, log_of

from surface_package.kaggle import client, publish, upload
from surface_package.kaggle.client import Answer, ClientError
from surface_package.kaggle.delivery import Delivery, DeliveryError, staged
from surface_package.kaggle.publish_record import PublishRecord
from surface_package.kaggle.upload import SentDataset
from surface_package.target import TargetError, read_target

SUBMIT = "CreateCodeSubmission"


def beside(delivery: Delivery) -> list[str]:
    return sorted(path.name for path in delivery.bundle.parent.iterdir())


def recorded(delivery: Delivery, version: int | None) -> PublishRecord:
    """The record of a bundle that was sent to where no dataset was, and came to be that version."""
    sent = SentDataset(dataset=DATASET, digest=upload.digest(delivery.files()), version_before=0, version=version)
    return PublishRecord(manifest_sha256=delivery.digest(), sent=sent)


def recorded_nothing(delivery: Delivery) -> PublishRecord:
    return PublishRecord(manifest_sha256=delivery.digest(), sent=SentDataset(dataset=DATASET))


def seed(delivery: Delivery, kaggle: Kaggle) -> None:
    """As a publish leaves things once the dataset is ready: version 1 on Kaggle, the record beside the bundle."""
    kaggle.version, kaggle.files = 1, {"manifest.json": delivery.digest()}
    recorded(delivery, version=1).write(delivery)


def test_first_publish_then_the_submission_then_nothing_then_a_new_version(delivery, kaggle, capsys) -> None:
    files_before = {path.name: path.read_bytes() for path in delivery.bundle.iterdir()}
    publish.publish(delivery)
    out = capsys.readouterr().out

    (created,) = kaggle.bodies("CreateDataset")
    assert (created["ownerSlug"], created["slug"]) == (OWNER, "vesuvius-surface-bundle")
    assert (created["title"], created["licenseName"]) == ("Vesuvius Surface Bundle", "CC-BY-NC-4.0")
    assert created["isPrivate"] is True
    assert kaggle.files == {name: hashlib.sha256(content).hexdigest() for name, content in files_before.items()}
    (kernel,) = kaggle.bodies("SaveKernel")
    assert kernel["slug"] == f"{OWNER}/vesuvius-surface-kernel"
    assert (kernel["language"], kernel["kernelType"]) == ("python", "script")
    assert kernel["enableInternet"] is False
    assert kernel["isPrivate"] is True
    assert kernel["enableGpu"] is True
    assert kernel["machineShape"] == "NvidiaTeslaT4"
    assert kernel["datasetDataSources"] == [DATASET]
    assert kernel["competitionDataSources"] == ["vesuvius-challenge-surface-detection"]
    assert kernel["text"] == (delivery.root / "kernel" / "submit.py").read_text()
    calls = kaggle.calls()
    assert calls.index("CreateDataset") < calls.index("SaveKernel") < calls.index("ListKernelSessionOutput")

    assert SUBMIT not in calls
    assert "submission.zip with 1 mask\n" in out
    assert out.endswith("Nothing was submitted. --submit submits version 1: one of today's submissions.\n")
    assert os.environ["KAGGLE_KEY"] not in out + delivery.beside(".published.json").read_text()
    assert {path.name: path.read_bytes() for path in delivery.bundle.iterdir()} == files_before
    assert beside(delivery) == ["bundle", "bundle.output", "bundle.published.json", "bundle.rehearsed.json"]

    kaggle.requests.clear()
    publish.publish(replace(delivery, submit=True))
    assert kaggle.calls()[:5] == [
        "GetDatasetStatus",
        "GetDataset",
        "ListSubmissions",
        "GetSubmissionLimits",
        SUBMIT,
    ]
    (submitted,) = kaggle.bodies(SUBMIT)
    assert (submitted["kernelSlug"], submitted["kernelVersion"]) == ("vesuvius-surface-kernel", 1)
    out = capsys.readouterr().out
    assert f"dataset {DATASET}: version 1 holds these files already\n" in out
    assert "submissions: 5 left today, 0 made today, 0 in all\nsubmission: version 1 was submitted to vesuvius" in out
    assert out.endswith("score of version 1: public 0.561, private 0.553\n")

    kaggle.requests.clear()
    publish.publish(delivery)
    assert kaggle.calls() == ["GetDatasetStatus", "GetDataset"]
    assert capsys.readouterr().out.endswith("score of version 1: public 0.561, private 0.553\n")

    write_bundle(delivery.bundle, b"other")
    kaggle.requests.clear()
    publish.publish(delivery)
    out = capsys.readouterr().out
    assert f"dataset {DATASET}: at version 1, adding one, who may see it stays as set on the site (3 files, " in out
    (versioned,) = kaggle.bodies("CreateDatasetVersion")
    assert versioned["body"]["versionNotes"] == f"manifest {delivery.digest()[:16]} commit c0ffeec0ffee"
    assert kaggle.files["member0.safetensors"] == hashlib.sha256(b"other").hexdigest()
    assert len(kaggle.files) == 3
    assert (kaggle.version, kaggle.kernels) == (2, 2)
    assert "submits version 2" in out
    assert len(kaggle.board) == 1


def test_another_owner_than_who_is_logged_in_is_told_before_anything_is_sent(
    delivery, kaggle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_USERNAME", "somebody")
    told = rf"belongs to {OWNER}, and somebody is logged in .*surface_package init --owner somebody"
    with pytest.raises(DeliveryError, match=told):
        publish.publish(delivery)
    assert kaggle.calls() == []


def test_dataset_failures_are_told_and_each_new_run_goes_on(delivery, kaggle) -> None:
    kaggle.absent_code, kaggle.cut = 403, 1
    kaggle.fail("StartBlobUpload", 429, code=429, message="Too many requests")
    kaggle.fail("CreateDataset", 500, code=500, message="boom")
    with pytest.raises(ClientError, match=r"did not accept the dataset(.|\n)*boom(.|\n)*run publish again"):
        publish.publish(delivery)
    # The client itself waits and goes on where an upload broke off.
    cut = next(request for request in kaggle.requests if request.part)
    size = len(kaggle.blobs[cut.name][1])
    assert [r.part for r in kaggle.requests if r.name == cut.name] == ["", f"*/{size}", f"1-{size - 1}/{size}"]
    sent = {name: (delivery.bundle / name).read_bytes() for name in FILES}
    assert dict(kaggle.blobs.values()) == sent

    # The client keeps tokens of what it sent before a failed create, and knows a file by its size and time.
    before = (delivery.bundle / "member0.safetensors").stat()
    write_bundle(delivery.bundle, b"FIRST")
    os.utime(delivery.bundle / "member0.safetensors", ns=(before.st_atime_ns, before.st_mtime_ns))
    kaggle.fail("upload", 400)
    with pytest.raises(ClientError, match="the dataset was made without"):
        publish.publish(delivery)
    assert len(kaggle.files) == 2

    kaggle.version, kaggle.arriving = 1, False
    # After an upload Kaggle goes on telling "ready", of the version before.
    kaggle.pending.append("READY")
    # The second question would come after the end of the time: one is asked, however slow the machine.
    with pytest.raises(DeliveryError, match=r"is still 'version 1, the one before' after 60 s. Run publish"):
        publish.publish(replace(delivery, poll_s=61))
    sent = {name: hashlib.sha256((delivery.bundle / name).read_bytes()).hexdigest() for name in FILES}
    assert kaggle.files == sent

    kaggle.fail("SaveKernel", 429, code=429, message="Too many requests")
    kaggle.requests.clear()
    with pytest.raises(ClientError, match=r"did not take the kernel(.|\n)*wait some minutes, then run publish again"):
        publish.publish(delivery)
    assert "StartBlobUpload" not in kaggle.calls()
    assert (kaggle.version, kaggle.kernels) == (2, 0)


def test_kernel_failures_are_told_and_each_new_run_goes_on(delivery, kaggle, capsys) -> None:
    seed(delivery, kaggle)
    target = read_target(delivery.root / "kernel-metadata.json", public=False)

    def go_on() -> None:
        """As publish, without asking again how the dataset stands."""
        with staged(delivery) as folder:
            record = publish.send_kernel(delivery, target, PublishRecord.read(delivery, target), folder=folder)
        publish.take_output(delivery, target, record)

    def told(match: str) -> None:
        with pytest.raises((ClientError, DeliveryError), match=match):
            go_on()

    kaggle.fail("SaveKernel", 200, error="Maximum weekly GPU quota of 30.00 hours reached.")
    told(r"exit code 0(.|\n)*30.00 hours reached(.|\n)*new GPU hours")

    kaggle.fail("SaveKernel", 200, versionNumber=1, url="u", error="", invalidDatasetSources=[DATASET])
    told(rf"pushed without its dataset source \['{DATASET}'\](.|\n)*exit code 0")
    assert "GetKernelSessionStatus" not in kaggle.calls()

    kaggle.kernels = 1
    kaggle.fail("GetKernelSessionStatus", 429, code=429, message="Too many requests")
    kaggle.kernel_states.append({"status": "ERROR", "failureMessage": "exit code 1"})
    kaggle.output, kaggle.log = {}, "what went wrong"
    told(rf"version 2 ended with ERROR: exit code 1\.\n  Read its log, in .*bundle\.output or by: kaggle .*{OWNER}/")
    (log,) = delivery.beside(".output").glob("*.log")
    assert "what went wrong" in log.read_text()
    kaggle.log = None
    seen = [line.split(" (")[0] for line in capsys.readouterr().out.splitlines()]
    assert seen[-2:] == ["  kernel: no answer", "  kernel: ERROR"]

    kaggle.output = {"report.txt": b"degraded"}
    told(r"names no submission.zip among what the run left")

    kaggle.output = {"submission.zip": SUBMISSION}
    kaggle.log = log_of("verdict: complete; submission.zip holds 1 mask")
    told(r"expected a line 'surface-submit: .*, got none(.|\n)*pushes the kernel again")

    kaggle.log = kaggle.printed("degraded")
    told(r"a run that ended 'degraded' .*, not with every volume predicted")

    kaggle.log = None
    publish.publish(delivery)
    assert len(kaggle.bodies("SaveKernel")) == 7
    assert not {"StartBlobUpload", "CreateDataset", "CreateDatasetVersion"} & set(kaggle.calls())
    assert "submits version 6" in capsys.readouterr().out


def test_output_failures_are_told_and_each_new_run_goes_on(delivery, kaggle) -> None:
    target = read_target(delivery.root / "kernel-metadata.json", public=False)
    kaggle.files = {"manifest.json": delivery.digest()}
    record = recorded(delivery, version=1).pushed("0" * 64, 3).write(delivery)

    def told(match: str, version: int | None) -> None:
        with pytest.raises((ClientError, DeliveryError), match=match):
            publish.take_output(delivery, target, record)
        assert PublishRecord.read(delivery, target).kernel_version == version

    kaggle.fail("ListKernelSessionOutput", 500, code=500, message="boom")
    told(r"output did not come(.|\n)*boom(.|\n)*then run publish again", 3)
    kaggle.fail("output", 503)  # the client keeps the error's page under the file's name
    told(r"came damaged(.|\n)*fetches the output again", 3)
    kaggle.output["left/1407735.tif"] = b"II"
    told(r"holds left/1407735.tif, but no .tif may(.|\n)*pushes the kernel again", None)
    del kaggle.output["left/1407735.tif"]
    assert publish.take_output(delivery, target, record).output_sha256 == hashlib.sha256(SUBMISSION).hexdigest()


def arguments(delivery: Delivery, *more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    publish.add_arguments(parser)
    return parser.parse_args([str(delivery.bundle), *more])


def test_nothing_is_asked_of_kaggle_for_a_bundle_that_may_not_go(delivery, kaggle, capsys) -> None:
    rehearsed = delivery.beside(".rehearsed.json").read_text()
    delivery.beside(".rehearsed.json").write_text(rehearsed.replace("true", "false"))
    for way in (publish.publish, publish.show_plan):
        with pytest.raises(DeliveryError, match="did not pass"):
            way(delivery)
    delivery.beside(".rehearsed.json").write_text(rehearsed)
    (delivery.bundle / "settings.json").write_text("[]\n")
    with pytest.raises(DeliveryError, match=r"does not verify:\n(.|\n)*settings.json"):
        publish.publish(delivery)
    metadata = delivery.root / "kernel-metadata.json"
    metadata.write_text(metadata.read_text().replace('"enable_internet": false', '"enable_internet": true'))
    with pytest.raises(TargetError, match='"enable_internet" is true; write false'):
        publish.publish(delivery)
    assert kaggle.requests == []
    assert capsys.readouterr().out == ""


def test_a_changed_script_is_pushed_again(delivery, monkeypatch) -> None:
    asked = []

    def ask(arguments: list[str], limit_s: float, show: bool = False) -> Answer:
        asked.append(arguments[:2])
        done = 'k has status "COMPLETE"\n' if arguments[1] == "status" else "Kernel version 1 successfully pushed.\n"
        return Answer(tuple(arguments), 0, done)

    monkeypatch.setattr(client, "ask", ask)
    target = read_target(delivery.root / "kernel-metadata.json", public=False)
    for pushes, text in ((1, "first"), (1, "first"), (2, "other")):
        (delivery.root / "kernel" / "submit.py").write_text(text)
        with staged(delivery) as folder:
            publish.send_kernel(delivery, target, PublishRecord.read(delivery, target), folder=folder)
        assert asked.count(["kernels", "push"]) == pushes


def test_a_dataset_that_came_out_failed_is_sent_anew(delivery, monkeypatch) -> None:
    failed = Answer((), 0, '{"status": "failed", "current_version_number": 1}\n')
    monkeypatch.setattr(client, "ask", lambda arguments, limit_s: failed)
    target = read_target(delivery.root / "kernel-metadata.json", public=False)
    record = replace(recorded(delivery, version=None), kernel_version=1).write(delivery)
    with pytest.raises(DeliveryError, match=rf"dataset {DATASET} came out 'failed'. Run publish again: it sends it"):
        publish.send_dataset(delivery, target, record)
    assert PublishRecord.read(delivery, target) == recorded_nothing(delivery)


def test_a_dataset_that_is_sent_again_is_run_again(delivery, kaggle) -> None:
    target = read_target(delivery.root / "kernel-metadata.json", public=False)
    done = replace(recorded(delivery, version=1).pushed("0" * 64, 3), output_sha256="1" * 64, submitted=True)
    kaggle.version = 2  # somebody added one
    again = publish.send_dataset(delivery, target, done)
    assert again == replace(recorded_nothing(delivery), sent=replace(done.sent, version_before=2, version=3))
    assert PublishRecord.read(delivery, target) == again


def test_dry_run_prints_every_command_and_file_and_touches_nothing(delivery, kaggle, capsys) -> None:
    (delivery.bundle / "dataset-metadata.json").write_text("{}")
    publish.show_plan(delivery)
    out = capsys.readouterr().out
    for line in (
        f"python kernel/submit.py --verify {delivery.bundle}",
        'STAGED/dataset-metadata.json: {"title": "Vesuvius Surface Bundle", "id": "tester/vesuvius-surface-bundle", ',
        '"licenses": [{"name": "CC-BY-NC-4.0"}]}',
        "STAGED/member0.safetensors: 5 bytes",
        "STAGED/manifest.json: ",
        f"kaggle datasets status {DATASET} --format json",
        "kaggle datasets create -p STAGED ",
        "kaggle datasets version -p STAGED -m 'manifest ",
        f"kaggle datasets status {DATASET} --format json    until ready",
        "STAGED/kernel-metadata.json: ",
        "STAGED/kernel/submit.py: ",
        "kaggle kernels push -p STAGED",
        f"kaggle kernels status {OWNER}/vesuvius-surface-kernel",
        f"kaggle kernels output {OWNER}/vesuvius-surface-kernel -p {delivery.bundle}.output.partial ",
        "kaggle competitions submissions vesuvius-challenge-surface-detection --page-size 100 --format json    this",
        "kaggle competitions submission-limits vesuvius-challenge-surface-detection ",
        "kaggle competitions submit vesuvius-challenge-surface-detection -f submission.zip -k tester/vesuvius-surface-",
        f"kernel -v VERSION -m '{OWNER}/vesuvius-surface-kernel version VERSION manifest {delivery.digest()[:16]} ",
    ):
        assert line in out
    publish.show_plan(replace(delivery, submit=True))
    assert "only with --submit" not in capsys.readouterr().out
    assert kaggle.requests == []
    assert beside(delivery) == ["bundle", "bundle.rehearsed.json"]


def test_command_line_refuses_the_placeholder_owner(delivery, capsys) -> None:
    for more in ([], ["--dry-run"]):
        assert publish.run(arguments(delivery, *more)) == 1
        told = capsys.readouterr()
        assert told.out == ""
        assert 'write your own Kaggle user name for "your-kaggle-name"' in told.err


def test_command_line_says_what_it_takes(delivery, tmp_path, capsys, monkeypatch) -> None:
    assert vars(arguments(delivery, "--public", "--timeout-s", "9")) == {
        "bundle": delivery.bundle,
        "dry_run": False,
        "public": True,
        "submit": False,
        "timeout_s": 9.0,
        "checkpoints": None,
        "training": None,
        "fold": None,
    }
    taken = []
    with monkeypatch.context() as patched:
        patched.setattr(publish, "publish", taken.append)
        assert publish.run(arguments(delivery, "--submit")) == 0
    assert taken == [Delivery(bundle=delivery.bundle, submit=True)]
    assert publish.run(arguments(replace(delivery, bundle=delivery.bundle), "--timeout-s", "0")) == 1
    assert "--timeout-s is 0.0" in capsys.readouterr().err
    assert publish.run(arguments(replace(delivery, bundle=delivery.bundle), "--dry-run", "--fold", "3")) == 1
    assert "Name a BUNDLE, or --checkpoints RUN" in capsys.readouterr().err
    missing = argparse.Namespace(**vars(arguments(delivery, "--dry-run")) | {"bundle": tmp_path / "none"})
    assert publish.run(missing) == 1
    assert "manifest.json: no such file" in capsys.readouterr().err
