"""A training on Kaggle, session after session until it is finished: code and run go there, the run comes back.

    code and settings ──> dataset …-training ─────┐
    run ──> dataset …-checkpoint, next version ───┤ kernel …-training, 12 h on two T4
     ^                                            │
     └───────────────── its output ───────────────┘

The run's folder here is always complete, and as far as the last session that came back. Every step is recorded, so
that an interrupted publish resumes where it was; a session that runs on Kaggle continues without us.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from surface_package.build import manifest, protocol
from surface_package.build.bundle import WEIGHTS
from surface_package.kaggle import answers, checkpoints, client, upload
from surface_package.kaggle.delivery import DeliveryError, check_owner
from surface_package.kaggle.training import session_output, training_bundle
from surface_package.kaggle.training.job import TrainingJob, TrainingRecord
from surface_package.kaggle.upload import SentDataset, Upload
from surface_package.kaggle.waiting import say, wait_for_run
from surface_package.target import Target

CODE_FILE = "train_on_kaggle.py"


def train(job: TrainingJob) -> None:
    """Let Kaggle train until the run is finished, and leave it here and in its dataset.

    Raises what the parts raise, each saying what to do; running again resumes.
    """
    target = checkpoints.target_of(job.run, job.root)
    check_owner(target.kernel)
    record = TrainingRecord.read(job)
    if record.kernel_version is not None:
        record = take_session(job, target, record)
    if not job.progress().finished:
        with tempfile.TemporaryDirectory(prefix="surface-training-") as temporary:
            files = training_bundle.make(Path(temporary), settings=job.settings, fold=job.fold, root=job.root)
            while not job.progress().finished:
                record = take_session(job, target, start_session(job, target, record, files=files))
    checkpoints.send(job.run, target, job.polling)
    say(f"finished: {job.run / WEIGHTS}, and the whole run in dataset {target.dataset}")


def start_session(
    job: TrainingJob, target: Target, record: TrainingRecord, *, files: Mapping[str, Path]
) -> TrainingRecord:
    """Send what a session is given, where it is not there yet, and push the kernel, which Kaggle runs at once."""
    step = job.progress().step
    if step:
        checkpoints.send(job.run, target, job.polling)

    def keep(sent: SentDataset) -> None:
        replace(record, bundle=sent).write(job)

    code = Upload(
        target=replace(target, dataset=code_dataset(target)),
        files=files,
        words=version_words(files),
        polling=job.polling,
    )
    sent = upload.send(code, record.bundle, keep)
    with tempfile.TemporaryDirectory(prefix="surface-training-") as temporary:
        _stage_kernel(Path(temporary), job.root, target, step=step)
        version = answers.pushed_version(client.ask(target.push_kernel(Path(temporary)), job.polling.timeout_s))
    say(f"kernel {target.kernel}: pushed as version {version}, https://www.kaggle.com/code/{target.kernel}")
    record = TrainingRecord(
        bundle=sent, kernel_version=version, manifest_sha256=manifest.sha256(files[manifest.NAME]), after_step=step
    ).write(job)
    time.sleep(job.polling.poll_s)  # until Kaggle knows of the run: asked at once, it may report the one before
    return record


def code_dataset(target: Target) -> str:
    """Return the dataset of code and settings: its slug is the kernel's, which is no dataset."""
    return target.kernel


def version_words(files: Mapping[str, Path]) -> str:
    """Return what a version of that dataset is called: the manifest's digest, which stands for all of it."""
    return f"manifest {manifest.sha256(files[manifest.NAME])[:16]}"


def _stage_kernel(folder: Path, root: Path, target: Target, *, step: int) -> None:
    (folder / CODE_FILE).write_text(training_bundle.script(root, step), encoding="utf-8")
    own = json.loads((root / "kernel-metadata.json").read_bytes())
    (folder / "kernel-metadata.json").write_text(
        json.dumps(own | kernel_metadata(target, step), indent=2) + "\n", encoding="utf-8"
    )


def kernel_metadata(target: Target, step: int) -> dict[str, Any]:
    """Return what differs from kernel-metadata.json, which names machine and competition.

    step: that the run has reached; before any step there is no run to mount.
    """
    return {
        "id": target.kernel,
        "title": target.kernel.partition("/")[2].replace("-", " ").title(),
        "code_file": CODE_FILE,
        "is_private": True,
        "dataset_sources": [code_dataset(target), *([target.dataset] if step else [])],
    }


def take_session(job: TrainingJob, target: Target, record: TrainingRecord) -> TrainingRecord:
    """Wait for the session, fetch what it left, check it, and move it into the run's folder."""
    forgotten = TrainingRecord(bundle=record.bundle)
    status, failure = session_end(job, target)
    output = job.beside(".output")
    shutil.rmtree(output, ignore_errors=True)
    answer = client.ask(target.fetch_output(output), job.polling.timeout_s, show=True)
    if status != "COMPLETE":
        forgotten.write(job)
        raise DeliveryError(
            f"kernel {target.kernel} version {record.kernel_version} ended with {status}: {failure or 'no message'}.\n"
            f"  Read its log, in {output} or by: kaggle kernels logs {target.kernel}\n"
            "  Running publish again starts another session after the last step that came back."
        )
    if answer.code != 0 or not output.is_dir():
        raise answer.error("the session's output did not come")
    result = session_output.read_session(output, record)
    if result.verdict == protocol.FAILED:
        forgotten.write(job)
        raise DeliveryError(
            f"the training failed: {result.why}. Read the log in {output}; running publish again tries it again."
        )
    reached, before = session_output.check_files(output, result), job.progress()
    if reached.step <= before.step and not reached.finished:
        forgotten.write(job)
        raise DeliveryError(
            f"the session ended at step {reached.step} and began after step {before.step}: it made no progress. Read "
            f"the log in {output}; running publish again tries it again."
        )
    session_output.move_into(output, job.run)
    shutil.rmtree(output)
    say(f"session {record.kernel_version}: step {record.after_step} to {reached.step}, {job.run}")
    return forgotten.write(job)


def session_end(job: TrainingJob, target: Target) -> tuple[str, str]:
    """Wait until the session is over; return its status and failure message."""
    return wait_for_run(
        job.session, "session", lambda: answers.kernel_status(client.ask(target.ask_kernel(), job.polling.timeout_s))
    )
