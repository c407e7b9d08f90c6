"""From a rehearsed bundle to a score on Kaggle, each step done once: dataset, kernel, output, submission."""

import argparse
import hashlib
import shlex
import shutil
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

from surface_kernel.interrupts import status_of
from surface_package.build.manifest import ManifestError, sha256
from surface_package.kaggle import answers, board, client, upload
from surface_package.kaggle.delivery import (
    Delivery,
    DeliveryError,
    check_owner,
    check_rehearsed,
    check_whole,
    message,
    staged,
)
from surface_package.kaggle.output import check_result, check_stray, check_submission
from surface_package.kaggle.publish_record import PublishRecord
from surface_package.kaggle.training import command as training
from surface_package.kaggle.upload import SentDataset, Upload
from surface_package.kaggle.waiting import say, wait_for_run
from surface_package.target import CODE_FILE, Target, TargetError, read_target


def send_dataset(delivery: Delivery, target: Target, record: PublishRecord) -> PublishRecord:
    """Make this bundle the dataset's current version, ready to be mounted; do nothing where it is that already."""

    def keep(sent: SentDataset) -> None:
        nonlocal record
        record = record.uploaded(sent).write(delivery)

    asked = Upload(target=target, files=delivery.files(), words=message(delivery), polling=delivery)
    upload.send(asked, record.sent, keep)
    return record


def send_kernel(delivery: Delivery, target: Target, record: PublishRecord, *, folder: Path) -> PublishRecord:
    """Make this script over this bundle the kernel's last version, and wait until it ran well.

    A record of a push is of one after the dataset's: sending a dataset begins a new record. folder: what is pushed.
    """
    pushed = [(folder / name).read_bytes() for name in ("kernel-metadata.json", CODE_FILE)]
    key = hashlib.sha256(b"\0".join(pushed)).hexdigest()
    if record.kernel_version is not None and record.kernel_sha256 == key:
        say(f"kernel {target.kernel}: version {record.kernel_version} was pushed already")
    else:
        version = answers.pushed_version(client.ask(target.push_kernel(folder), delivery.timeout_s))
        record = record.pushed(key, version).write(delivery)
        say(f"kernel {target.kernel}: pushed as version {version}, https://www.kaggle.com/code/{target.kernel}")
        time.sleep(delivery.poll_s)  # until Kaggle knows of the run: asked at once, it may report the version before
    if not record.output_sha256:
        wait_for_kernel(delivery, target, record)
    return record


def wait_for_kernel(delivery: Delivery, target: Target, record: PublishRecord) -> None:
    """Wait until the run is over; raises DeliveryError, and forgets the push, unless it ended well."""
    status, failure = wait_for_run(
        delivery, "kernel", lambda: answers.kernel_status(client.ask(target.ask_kernel(), delivery.timeout_s))
    )
    if status != "COMPLETE":
        replace(record, kernel_version=None).write(delivery)
        fetched = "" if fetch_output(delivery, target) else f", in {delivery.beside('.output')} or by"
        raise DeliveryError(
            f"kernel {target.kernel} version {record.kernel_version} ended with {status}: {failure or 'no message'}.\n"
            f"  Read its log{fetched}: kaggle kernels logs {target.kernel}\n"
            "  Running publish again pushes it again."
        )


def fetch_output(delivery: Delivery, target: Target) -> client.ClientError | None:
    """Fetch what the run left, and its log, to BUNDLE.output, in place of an earlier run's; return why it did not come.

    The folder is replaced only when all has come.
    """
    folder, partial = delivery.beside(".output"), delivery.beside(".output.partial")
    shutil.rmtree(partial, ignore_errors=True)
    answer = client.ask(target.fetch_output(partial), delivery.timeout_s, show=True)
    if answer.code != 0 or not partial.is_dir():
        return answer.error("the kernel's output did not come")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return None


def take_output(delivery: Delivery, target: Target, record: PublishRecord) -> PublishRecord:
    """Fetch what the run left to BUNDLE.output, and check its log and its submission.zip."""
    folder = delivery.beside(".output")
    path = folder / "submission.zip"
    here = record.output_sha256 and path.is_file() and sha256(path) == record.output_sha256
    if not here and (error := fetch_output(delivery, target)):
        raise error
    try:
        check_result(folder, record.manifest_sha256)
        check_stray(folder)
        masks = check_submission(path)
    except zipfile.BadZipFile as error:
        raise DeliveryError(f"{path} came damaged: {error}. Run publish again: it fetches the output again.") from error
    except DeliveryError:
        replace(record, kernel_version=None).write(delivery)
        raise
    say(f"output {folder}: submission.zip with {masks} mask{'s' * (masks != 1)}")
    return replace(record, output_sha256=sha256(path)).write(delivery)


def publish(delivery: Delivery) -> None:
    """Go from bundle to score. Raises TargetError, ManifestError, DeliveryError, ClientError, each with what to do."""
    target = read_target(delivery.root / "kernel-metadata.json", delivery.public)
    check_rehearsed(delivery)
    check_whole(delivery)
    check_owner(target.kernel)
    say(f"bundle {delivery.bundle}: verified and rehearsed, {message(delivery)}")
    record = send_dataset(delivery, target, PublishRecord.read(delivery, target))
    with staged(delivery) as folder:
        record = send_kernel(delivery, target, record, folder=folder)
    record = take_output(delivery, target, record)
    if delivery.submit or record.submitted:
        board.submit(delivery, target, record)
    else:
        say(f"Nothing was submitted. --submit submits version {record.kernel_version}: one of today's submissions.")


def show_plan(delivery: Delivery) -> None:
    """Print every command and file of a publish; runs nothing, writes nothing. Refuses what a publish would refuse."""
    target = read_target(delivery.root / "kernel-metadata.json", delivery.public)
    check_rehearsed(delivery)
    say(f"Dry run: nothing is run or written. STAGED is a temporary folder beside {delivery.bundle},")
    say("one for the dataset, then another for the kernel.")
    say(f"  python {CODE_FILE} --verify {shlex.quote(str(delivery.bundle))}")
    upload.show_plan(target, delivery.files(), message(delivery))
    for name in ("kernel-metadata.json", CODE_FILE):
        say(f"  STAGED/{name}: {(delivery.root / name).stat().st_size} bytes")
    upload.show(target.push_kernel(Path("STAGED")))
    upload.show(target.ask_kernel(), "until COMPLETE")
    upload.show(target.fetch_output(delivery.beside(".output.partial")), f"kept as {delivery.beside('.output').name}")
    upload.show(target.list_submissions(), "" if delivery.submit else "this and what follows only with --submit")
    upload.show(target.ask_limits(), "if it is not on the board yet, else skipped")
    upload.show(target.submit("VERSION", board.words(delivery, target, "VERSION")), "if one is left, else skipped")
    upload.show(target.list_submissions(), "until scored")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `python -m surface_package publish`."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", nargs="?", help="a rehearsed bundle")
    training.add_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="print every command and file, run nothing")
    parser.add_argument("--public", action="store_true", help="let everybody see dataset and kernel")
    parser.add_argument("--submit", action="store_true", help="spend a submission on the checked run, show its score")
    parser.add_argument(
        "--timeout-s", type=float, default=3600, metavar="S", help="longest wait for one step, in seconds [3600]"
    )


def run(arguments: argparse.Namespace) -> int:
    """Publish, or show how: 0 done, 1 with a sentence on stderr that says what happened and what to do."""
    try:
        if arguments.checkpoints or arguments.training:
            training.run(arguments)
            return 0
        if arguments.bundle is None or arguments.fold:
            raise DeliveryError("Name a BUNDLE, or --checkpoints RUN, or --training FILE.toml --fold K.")
        delivery = Delivery(
            bundle=arguments.bundle.resolve(),
            public=arguments.public,
            submit=arguments.submit,
            timeout_s=arguments.timeout_s,
        )
        (show_plan if arguments.dry_run else publish)(delivery)
    except (TargetError, ManifestError, DeliveryError, client.ClientError) as error:
        print(f"publish: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print(
            "publish: interrupted. Run publish again to resume; what runs on Kaggle continues there.", file=sys.stderr
        )
        return status_of(interrupt)
    return 0
