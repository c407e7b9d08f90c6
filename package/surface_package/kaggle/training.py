"""A training on Kaggle, session after session until it is finished: code and run go there, the run comes back.

    code and settings ──> dataset …-training ─────┐
    run ──> dataset …-checkpoint, next version ───┤ kernel …-training, 12 h on two T4
     ^                                            │
     └───────────────── its output ───────────────┘

The run's folder here is always whole and as far as the last session that came back. Every step is recorded, so that an
interrupted publish goes on where it was; a session that runs on Kaggle goes on without us.
"""

import argparse
import json
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from surface_kernel import disk
from surface_kernel.networks.weights import WeightsError
from surface_package.build import manifest
from surface_package.build.bundle import WEIGHTS
from surface_package.kaggle import checkpoints, client, training_bundle, upload
from surface_package.kaggle.checkpoints import STATE, Progress
from surface_package.kaggle.delivery import DeliveryError, Patience
from surface_package.kaggle.upload import Sent
from surface_package.kaggle.waiting import say, wait
from surface_package.target import Target

CODE_FILE = "train_on_kaggle.py"
_STUCK = "If it stays so, delete the .training.json beside the run: then publish starts another session."
SESSION = Patience(timeout_s=14 * 3600, poll_s=120)  # twelve hours, and some in Kaggle's queue


@dataclass(frozen=True)
class Training:
    """What to train: settings and fold as `fit` takes them; the run comes to runs/SETTINGS/fold_K as it does there."""

    settings: Path
    fold: str
    runs: Path = Path("runs")
    root: Path = manifest.ROOT
    patience: Patience = field(default_factory=Patience)
    session: Patience = SESSION

    @property
    def run(self) -> Path:
        """The run's folder; there is none before the first session came back."""
        return self.runs / self.settings.stem / f"fold_{self.fold}"

    def beside(self, ending: str) -> Path:
        """The path of what belongs to the run but is not in it."""
        return self.run.with_name(self.run.name + ending)

    def progress(self) -> Progress:
        """How far the run is here."""
        return checkpoints.progress(self.run) if (self.run / STATE).is_file() else Progress(0, False)


@dataclass(frozen=True)
class Record:
    """What has been done, kept as RUN.training.json. A session is on its way where there is a kernel_version.

    kernel_version: Kaggle's number of the push. manifest_sha256, after_step: of the code and the run that it was given.
    """

    bundle: Sent = field(default_factory=Sent)
    kernel_version: int | None = None
    manifest_sha256: str = ""
    after_step: int = 0

    @classmethod
    def read(cls, training: Training) -> "Record":
        """The training's record; a fresh one where there is none."""
        try:
            kept = json.loads(training.beside(".training.json").read_bytes())
            return cls(**kept | {"bundle": Sent(**kept["bundle"])})
        except (OSError, ValueError, TypeError, KeyError):
            return cls()

    def write(self, training: Training) -> "Record":
        """Keep the record, whole or not at all."""
        path = training.beside(".training.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        disk.put(path, (json.dumps(asdict(self), indent=2) + "\n").encode())
        return self


def train(training: Training) -> None:
    """Let Kaggle train until the run is finished, and leave it here and in its dataset.

    Raises what the parts raise, each saying what to do; running again goes on.
    """
    target = checkpoints.target_of(training.run, training.root)
    record = Record.read(training)
    if record.kernel_version is not None:
        record = _take(training, target, record)
    if not training.progress().finished:
        with tempfile.TemporaryDirectory(prefix="surface-training-") as temporary:
            files = training_bundle.make(Path(temporary), training.settings, training.fold, training.root)
            while not training.progress().finished:
                record = _take(training, target, _start(training, target, record, files))
    checkpoints.send(training.run, target, training.patience)
    say(f"finished: {training.run / WEIGHTS}, and the whole run in dataset {target.dataset}")


def _start(training: Training, target: Target, record: Record, files: Mapping[str, Path]) -> Record:
    """Send what a session is given, where it is not there yet, and push the kernel, which Kaggle runs at once."""
    step = training.progress().step
    if step:
        checkpoints.send(training.run, target, training.patience)
    bundle = replace(target, dataset=_bundle(target))

    def keep(sent: Sent) -> None:
        replace(record, bundle=sent).write(training)

    sent = upload.send(bundle, files, _words(files), record.bundle, training.patience, keep)
    with tempfile.TemporaryDirectory(prefix="surface-training-") as temporary:
        _stage_kernel(Path(temporary), training, target, step)
        version = client.pushed_version(client.ask(target.push_kernel(Path(temporary)), training.patience.timeout_s))
    say(f"kernel {target.kernel}: pushed as version {version}, https://www.kaggle.com/code/{target.kernel}")
    record = Record(sent, version, manifest.sha256(files[manifest.NAME]), step).write(training)
    time.sleep(training.patience.poll_s)  # until Kaggle knows of the run: asked at once, it may tell of the one before
    return record


def _bundle(target: Target) -> str:
    """The dataset of code and settings: its slug is the kernel's, which is no dataset."""
    return target.kernel


def _words(files: Mapping[str, Path]) -> str:
    """What a version of that dataset is called: the manifest's digest, which stands for all of it."""
    return f"manifest {manifest.sha256(files[manifest.NAME])[:16]}"


def _stage_kernel(folder: Path, training: Training, target: Target, step: int) -> None:
    (folder / CODE_FILE).write_text(training_bundle.script(training.root, step), encoding="utf-8")
    own = json.loads((training.root / "kernel-metadata.json").read_bytes())
    (folder / "kernel-metadata.json").write_text(json.dumps(own | kernel_metadata(target, step), indent=2) + "\n")


def kernel_metadata(target: Target, step: int) -> dict[str, Any]:
    """What differs from kernel-metadata.json, which names machine and competition. Before any step there is no run."""
    return {
        "id": target.kernel,
        "title": target.kernel.partition("/")[2].replace("-", " ").title(),
        "code_file": CODE_FILE,
        "is_private": True,
        "dataset_sources": [_bundle(target), *([target.dataset] if step else [])],
    }


def _take(training: Training, target: Target, record: Record) -> Record:
    """Wait for the session, fetch what it left, judge it, and put it into the run's folder."""
    forgotten = Record(record.bundle)
    status, failure = _session_end(training, target)
    output = training.beside(".output")
    shutil.rmtree(output, ignore_errors=True)
    answer = client.ask(target.fetch_output(output), training.patience.timeout_s, show=True)
    if status != "COMPLETE":
        forgotten.write(training)
        raise DeliveryError(
            f"kernel {target.kernel} version {record.kernel_version} ended with {status}: {failure or 'no message'}.\n"
            f"  Read its log, in {output} or by: kaggle kernels logs {target.kernel}\n"
            "  Running publish again starts another session after the last step that came back."
        )
    if answer.code != 0 or not output.is_dir():
        raise answer.error("the session's output did not come")
    _check_session(output, record)
    verdicts = re.findall(r"verdict: (\w+)", _log(output))
    if verdicts[-1:] == ["failed"]:
        forgotten.write(training)
        raise DeliveryError(f"the training failed. Read the log in {output}; running publish again tries it again.")
    reached, before = _arrived(output), training.progress()
    if reached.step <= before.step and not reached.finished:
        forgotten.write(training)
        raise DeliveryError(
            f"the session ended at step {reached.step} and began after step {before.step}: it made no progress. Read "
            f"the log in {output}; running publish again tries it again."
        )
    _put(output, training.run)
    shutil.rmtree(output)
    say(f"session {record.kernel_version}: step {record.after_step} to {reached.step}, {training.run}")
    return forgotten.write(training)


def _session_end(training: Training, target: Target) -> tuple[str, str]:
    """Wait until the session is over; give its status and failure message."""
    told = ("", "")

    def look() -> tuple[str, bool]:
        nonlocal told
        told = client.kernel_status(client.ask(target.ask_kernel(), training.patience.timeout_s))
        return told[0], told[0] in ("COMPLETE", "ERROR", "CANCEL_ACKNOWLEDGED")

    wait(training.session, "session", look)
    return told


def _check_session(output: Path, record: Record) -> None:
    """Raise DeliveryError where the log tells of another session: Kaggle may still show the one before."""
    text = _log(output)
    bundles = re.findall(r"manifest sha256 ([0-9a-f]{64})", text)
    steps = re.findall(r"(?:going on|anew,) after step (\d+)", text)
    found, wanted = (bundles[-1:], steps[-1:]), (record.manifest_sha256, str(record.after_step))
    if any(told and told[0] != own for told, own in zip(found, wanted, strict=True)):
        raise DeliveryError(
            f"the output is of another session, after step {''.join(steps[-1:])} with the bundle "
            f"{''.join(bundles[-1:]):.16}; wanted after step {record.after_step} with {record.manifest_sha256:.16}. "
            f"Kaggle may still show the session before: wait some minutes, then run publish again. {_STUCK}"
        )


def _arrived(output: Path) -> Progress:
    """Give how far the run is that came. Raises DeliveryError where it is not what the log tells of.

    The client keeps whatever comes under a file's name, an error's page too.
    """
    again = f"Run publish again: it fetches the output again. {_STUCK}"
    for digest, name in re.findall(r"left ([0-9a-f]{64}) ([\w.-]+)", _log(output)):
        if not (output / name).is_file() or manifest.sha256(output / name) != digest:
            raise DeliveryError(f"{output / name} is missing or came damaged. {again}")
    try:
        checkpoints.files(output)
        return checkpoints.progress(output)
    except (DeliveryError, WeightsError) as error:
        raise DeliveryError(f"{error}\n  {again}") from error


def _log(folder: Path) -> str:
    return "\n".join(path.read_text(errors="replace") for path in sorted(folder.glob("*.log")))


def _put(output: Path, run: Path) -> None:
    """Move a session's files into the run's folder, the state last: until then the folder is the run as it was."""
    run.mkdir(parents=True, exist_ok=True)
    for path in sorted(checkpoints.files(output).values(), key=lambda path: path.name == STATE):
        if path.suffix != ".log":
            path.replace(run / path.name)


def show_plan(training: Training) -> None:
    """Print every command and file of a training; nothing is asked of Kaggle, and only a temporary bundle is made."""
    target = checkpoints.target_of(training.run, training.root)
    progress = training.progress()

    say(f"Dry run: nothing is asked of Kaggle. {training.run} is at step {progress.step}. Until the run is finished:")
    if progress.step:
        upload.show_plan(target, checkpoints.files(training.run), f"step {progress.step}")
    with tempfile.TemporaryDirectory(prefix="surface-training-") as temporary:
        files = training_bundle.make(Path(temporary), training.settings, training.fold, training.root)
        upload.show_plan(replace(target, dataset=_bundle(target)), files, _words(files))
    say(f"  STAGED/kernel-metadata.json: {json.dumps(kernel_metadata(target, progress.step))}")
    say(f"  STAGED/{CODE_FILE}: {len(training_bundle.script(training.root, progress.step))} bytes")
    upload.show(target.push_kernel(Path("STAGED")))
    upload.show(target.ask_kernel(), "until COMPLETE")
    upload.show(target.fetch_output(training.beside(".output")), f"then moved into {training.run}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `python -m surface_package publish` takes for runs instead of a bundle."""
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--checkpoints", type=Path, metavar="RUN", help="upload a training's folder instead of a bundle")
    way.add_argument("--training", type=Path, metavar="FILE.toml", help="train on Kaggle, with these settings")
    parser.add_argument("--fold", metavar="K|all", help="of --training: the fold to check on, or none")


def run(arguments: argparse.Namespace) -> None:
    """Bring a run to Kaggle, or train there, or show how. Raises what those raise."""
    if arguments.bundle or arguments.public or arguments.submit:
        raise DeliveryError("A run is published alone and privately: give no BUNDLE, --public or --submit with it.")
    if bool(arguments.training) != bool(arguments.fold):
        raise DeliveryError("--training FILE.toml and --fold K belong together: give both, K a fold's number or all.")
    patience = Patience(timeout_s=arguments.timeout_s)
    if arguments.training:
        (show_plan if arguments.dry_run else train)(Training(arguments.training, arguments.fold, patience=patience))
    elif arguments.dry_run:
        checkpoints.show_plan(arguments.checkpoints, manifest.ROOT)
    else:
        checkpoints.publish(arguments.checkpoints, manifest.ROOT, patience)
