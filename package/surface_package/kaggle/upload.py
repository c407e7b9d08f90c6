"""A set of files as a dataset's newest version on Kaggle: sent once, known again by its digest, waited for."""

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
from surface_package.kaggle import client
from surface_package.kaggle.delivery import DeliveryError, Patience
from surface_package.kaggle.waiting import say, wait
from surface_package.target import DATASET_FILE, Target, dataset_metadata


@dataclass(frozen=True)
class Sent:
    """What was sent last, and where to: the files' digest, and Kaggle's version numbers, None while unknown."""

    dataset: str = ""
    digest: str = ""
    version_before: int | None = None
    version: int | None = None


def digest(files: Mapping[str, Path]) -> str:
    """Give a sha256 that stands for these files, by name and content."""
    listed = {name: sha256(path) for name, path in files.items()}
    return hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()


def send(
    target: Target,
    files: Mapping[str, Path],
    words: str,
    sent: Sent,
    patience: Patience,
    keep: Callable[[Sent], None],
) -> Sent:
    """See that the dataset's current version holds these files and is ready; create it, add a version, or find it done.

    sent: what is known of the last time; `keep` is given what is known now, after each step. Raises ClientError and
    DeliveryError.
    """
    wanted = Sent(target.dataset, digest(files))
    state = client.dataset_state(client.ask(target.ask_dataset(), patience.timeout_s))
    if (sent.dataset, sent.digest) != (wanted.dataset, wanted.digest) or state.status == "absent":
        sent = wanted
    if sent.version is not None and (sent.version, "ready") == (state.version, state.status):
        say(f"dataset {target.dataset}: version {state.version} holds these files already")
        return sent
    if sent.version_before is None or sent.version not in (None, state.version):
        size_mb = sum(path.stat().st_size for path in files.values()) / 1e6
        first = state.status == "absent"
        kept = "who may see it stays as set on the site"
        what = "not there yet, creating it" if first else f"at version {state.version}, adding one, {kept}"
        say(f"dataset {target.dataset}: {what} ({len(files)} files, {size_mb:.1f} MB)")
        with staged(target, files) as folder:
            asked = target.create_dataset(folder) if first else target.version_dataset(folder, words)
            client.check_upload(client.ask(asked, patience.timeout_s, show=True), list(files))
        sent = replace(wanted, version_before=state.version)
        keep(sent)
    return _ready(target, sent, patience, keep)


def _ready(target: Target, sent: Sent, patience: Patience, keep: Callable[[Sent], None]) -> Sent:
    """Wait until the version that was sent can be mounted; "ready" of the version before it does not count."""
    state = client.DatasetState("absent", 0)

    def look() -> tuple[str, bool]:
        nonlocal state
        state = client.dataset_state(client.ask(target.ask_dataset(), patience.timeout_s))
        if state.status in ("failed", "deleted"):
            return state.status, True
        if 0 < state.version <= (sent.version_before or 0):
            return f"version {state.version}, the one before", False
        return state.status, state.status == "ready"

    wait(patience, "dataset", look)
    if state.status != "ready":
        keep(Sent())
        raise DeliveryError(f"dataset {target.dataset} came out {state.status!r}. Run publish again: it sends it anew.")
    sent = replace(sent, version=state.version)
    keep(sent)
    return sent


@contextmanager
def staged(target: Target, files: Mapping[str, Path]) -> Iterator[Path]:
    """Give a folder, for the length of the block, of what `datasets` uploads: these files, flat, and the metadata.

    It lies beside the first of them, so that hard links can stand for gigabytes.
    """
    beside = next(iter(files.values())).resolve().parent.parent
    with tempfile.TemporaryDirectory(dir=beside, prefix=".publish-") as temporary:
        folder = Path(temporary)
        for name, path in files.items():
            try:
                os.link(path.resolve(), folder / name)
            except OSError:
                shutil.copyfile(path, folder / name)
        (folder / DATASET_FILE).write_text(json.dumps(dataset_metadata(target), indent=2) + "\n")
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
