"""A set of files as a dataset's newest version on Kaggle: sent once, recognised by its digest, waited for."""

import hashlib
import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from surface_package.build.manifest import sha256
from surface_package.kaggle import answers, client
from surface_package.kaggle.answers import DatasetState
from surface_package.kaggle.delivery import DeliveryError, Polling
from surface_package.kaggle.waiting import say, wait
from surface_package.target import DATASET_FILE, Target, dataset_metadata


@dataclass(frozen=True, kw_only=True)
class SentDataset:
    """What was sent last, and where to."""

    dataset: str = ""
    """As "owner/slug"."""
    digest: str = ""
    """Of the files."""
    version_before: int | None = None
    """Kaggle's number of the dataset's version before this one; None while unknown."""
    version: int | None = None
    """Kaggle's number of this one; None while unknown."""


@dataclass(frozen=True, kw_only=True)
class Upload:
    """What is to be a dataset's newest version."""

    target: Target
    files: Mapping[str, Path]
    """By their names there."""
    words: str
    """What the version is called."""
    polling: Polling

    def unsent(self) -> SentDataset:
        """Return what is known before anything was sent."""
        return SentDataset(dataset=self.target.dataset, digest=digest(self.files))

    def state(self) -> DatasetState:
        """Ask Kaggle for the dataset's status and version."""
        return answers.dataset_state(client.ask(self.target.ask_dataset(), self.polling.timeout_s))


def digest(files: Mapping[str, Path]) -> str:
    """Return a sha256 that stands for these files, by name and content."""
    listed = {name: sha256(path) for name, path in files.items()}
    return hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()


def send(upload: Upload, sent: SentDataset, keep: Callable[[SentDataset], None]) -> SentDataset:
    """Make the files the dataset's current version, ready to be mounted; do nothing where they are that already.

    Args:
        upload: the files and where they go.
        sent: what is known of the last time.
        keep: called with what is known now, after each step.

    Raises:
        ClientError, DeliveryError: with what to do.
    """
    unsent, state = upload.unsent(), upload.state()
    if (sent.dataset, sent.digest) != (unsent.dataset, unsent.digest) or state.status == "absent":
        sent = unsent
    if sent.version is not None and (sent.version, "ready") == (state.version, state.status):
        say(f"dataset {sent.dataset}: version {state.version} holds these files already")
        return sent
    # Where the version on Kaggle is not the one that was sent, somebody else has sent another since.
    if sent.version_before is None or sent.version not in (None, state.version):
        _send_files(upload, state)
        sent = replace(unsent, version_before=state.version)
        keep(sent)
    return _wait_until_ready(upload, sent, keep)


def _send_files(upload: Upload, state: DatasetState) -> None:
    target, files = upload.target, upload.files
    size_mb = sum(path.stat().st_size for path in files.values()) / 1e6
    first = state.status == "absent"
    kept = "who may see it stays as set on the site"
    what = "not there yet, creating it" if first else f"at version {state.version}, adding one, {kept}"
    say(f"dataset {target.dataset}: {what} ({len(files)} files, {size_mb:.1f} MB)")
    with staged(target, files) as folder:
        command = target.create_dataset(folder) if first else target.version_dataset(folder, upload.words)
        answers.check_upload(client.ask(command, upload.polling.timeout_s, show=True), list(files))


def _wait_until_ready(upload: Upload, sent: SentDataset, keep: Callable[[SentDataset], None]) -> SentDataset:
    """Wait until the version that was sent can be mounted; "ready" of the version before it does not count."""
    state = DatasetState("absent", 0)

    def look() -> tuple[str, bool]:
        nonlocal state
        state = upload.state()
        if state.status in ("failed", "deleted"):
            return state.status, True
        # For some seconds after an upload Kaggle still reports the version before, and as ready.
        if 0 < state.version <= (sent.version_before or 0):
            return f"version {state.version}, the one before", False
        return state.status, state.status == "ready"

    wait(upload.polling, "dataset", look)
    if state.status != "ready":
        # Forget it: the next run would else wait for a version that will never be ready.
        keep(SentDataset())
        raise DeliveryError(
            f"dataset {sent.dataset} came out {state.status!r}. Run publish again: it sends it once more."
        )
    sent = replace(sent, version=state.version)
    keep(sent)
    return sent


@contextmanager
def staged(target: Target, files: Mapping[str, Path]) -> Iterator[Path]:
    """Yield a folder of what `datasets` uploads: these files, flat, and the metadata. It is removed afterwards.

    It is beside the first of them, so that hard links can stand for gigabytes.
    """
    beside = next(iter(files.values())).resolve().parent.parent
    with tempfile.TemporaryDirectory(dir=beside, prefix=".publish-") as temporary:
        folder = Path(temporary)
        for name, path in files.items():
            try:
                os.link(path.resolve(), folder / name)
            except OSError:
                shutil.copyfile(path, folder / name)
        (folder / DATASET_FILE).write_text(json.dumps(dataset_metadata(target), indent=2) + "\n", encoding="utf-8")
        yield folder


def show(arguments: Sequence[str], note: str = "") -> None:
    """Print a command of a dry run."""
    say(f"  {shlex.join(['kaggle', *arguments])}{'    ' * bool(note)}{note}")


def show_plan(target: Target, files: Mapping[str, Path], words: str) -> None:
    """Print every command and file of `send`."""
    say(f"  STAGED/dataset-metadata.json: {json.dumps(dataset_metadata(target))}")
    for name, path in files.items():
        say(f"  STAGED/{name}: {path.stat().st_size} bytes")
    show(target.ask_dataset())
    show(target.create_dataset(Path("STAGED")), "if it is not there yet, else")
    show(target.version_dataset(Path("STAGED"), words), "if these files are not its newest version already")
    show(target.ask_dataset(), "until ready")
