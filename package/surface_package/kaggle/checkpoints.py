"""A run folder on its way to Kaggle and back: which of its files travel, under which name, and how far it is.

A run travels flat, as the client skips folders, and its only folder stays behind: `fit` writes events/ again from
log.csv. So what `kaggle datasets download OWNER/SLUG --unzip -p DIR` brings is a run: `fit --resume --out DIR` resumes
it, and `build --weights DIR` takes its weights.
"""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
from slugify import slugify

from surface_kernel import disk
from surface_kernel.networks import weights as kernel_weights
from surface_package.build import leaks, manifest
from surface_package.build.bundle import WEIGHTS
from surface_package.kaggle import upload
from surface_package.kaggle.delivery import DeliveryError, Polling, check_owner
from surface_package.kaggle.upload import SentDataset, Upload
from surface_package.kaggle.waiting import say
from surface_package.target import Target, is_public, read_target

SETTINGS, STATE = "settings.toml", "state.safetensors"  # as `fit` leaves them
SLUG_LIMIT = 50  # characters, for Kaggle; 6 at least
CHECKPOINT, TRAINING = "-checkpoint", "-training"  # how the slugs end of what belongs to a run
_TEXTS = (".toml", ".json", ".csv")


@dataclass(frozen=True)
class RunProgress:
    """How far a run is."""

    step: int
    """That it has reached."""
    finished: bool
    """Whether it has no more steps to take, and was validated."""


def files(run: Path) -> dict[str, Path]:
    """Return the files of a run that travel, by name. Raises DeliveryError for no run or a file with secrets."""
    if missing := [name for name in (SETTINGS, STATE) if not (run / name).is_file()]:
        raise DeliveryError(f"{run} has no {' and no '.join(missing)}. Name the folder of a training that `fit` made.")
    shown = (path for path in sorted(run.iterdir()) if path.is_file() and not path.name.startswith("."))
    travelling = {path.name: path for path in shown if path.suffix != disk.PARTIAL}
    for path in travelling.values():
        _refuse_leaks(path)
    return travelling


def _refuse_leaks(path: Path) -> None:
    if pattern := leaks.in_name(path.name):
        raise DeliveryError(f"{path} has a name like {pattern}, as secrets have. Move it out of the run's folder.")
    text = path.read_text(encoding="utf-8-sig", errors="replace") if path.suffix in _TEXTS else ""
    if path.suffix == ".safetensors":
        text = "\n".join(_metadata(path).values())
    if what := leaks.in_text(text):
        raise DeliveryError(f"{path} holds what looks like {what}. Take it out: a checkpoint must hold no secrets.")
    folder = leaks.in_paths(text, (manifest.ROOT, Path.home()))
    if path.name == SETTINGS and not folder:
        labels = str(tomllib.loads(text).get("labels_dir", ""))
        folder = labels if Path(labels).is_absolute() else ""
    if folder:
        advice = "Take it out of a comment; a labels_dir has to be relative to the data, from the run's start on."
        raise DeliveryError(f"{path} names the folder {folder} of this machine. {advice}")


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safetensors.safe_open(path, framework="np") as opened:
            return dict(opened.metadata() or {})
    except (OSError, safetensors.SafetensorError) as error:
        raise DeliveryError(f"{path} is no readable safetensors file: {error}. Take the run from its source.") from None


def progress(run: Path) -> RunProgress:
    """Read how far a run is. Raises DeliveryError where that cannot be read."""
    path = run / STATE
    try:
        step = int(json.loads(_metadata(path)["progress"])["step"])
    except (KeyError, TypeError, ValueError) as error:
        raise DeliveryError(f"{path} names no step: {error!r}. Take the run from its source.") from error
    return RunProgress(step, _shipped(run).get("finished") is True)


def _shipped(run: Path) -> Mapping[str, Any]:
    """Return what the weights to ship say of their run; nothing where there are none yet."""
    return kernel_weights.describe(run / WEIGHTS).provenance if (run / WEIGHTS).is_file() else {}


def slug(run: Path, ending: str) -> str:
    """Return the slug of what belongs to a run: "surface-", its name as `fit` makes it, and the ending.

    runs/unet_resnet18/fold_3 becomes surface-unet-resnet18-fold-3-checkpoint, another folder surface-NAME-checkpoint.
    A name that is too long is cut, and a digest of all of it is put behind.
    """
    place = run.absolute()
    name = f"{place.parent.name}-{place.name}" if place.name.startswith("fold_") else place.name
    words = slugify(f"surface-{name}")
    room = SLUG_LIMIT - len(ending)
    if len(words) > room:
        words = f"{words[: room - 9].rstrip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return words + ending


def target_of(run: Path, root: Path) -> Target:
    """Return where a run's checkpoints go: to the owner that kernel-metadata.json names, private whatever that says."""
    path = root / "kernel-metadata.json"
    own = read_target(path, public=is_public(path))
    owner = own.dataset.partition("/")[0]
    names = {"kernel": f"{owner}/{slug(run, TRAINING)}", "dataset": f"{owner}/{slug(run, CHECKPOINT)}"}
    return replace(own, **names, public=False)


def record_path(run: Path) -> Path:
    """Return where it is kept what of a run was sent: beside the run, not in it."""
    return run.with_name(run.name + ".published.json")


def send(run: Path, target: Target, polling: Polling) -> SentDataset:
    """Make the run as it is here the newest version of its dataset, ready to be mounted."""
    path = record_path(run)
    try:
        sent = SentDataset(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        sent = SentDataset()

    def keep(known: SentDataset) -> None:
        disk.put(path, (json.dumps(asdict(known), indent=2) + "\n").encode())

    chosen, reached = files(run), progress(run)
    say(f"run {run}: step {reached.step}, {'finished' if reached.finished else 'not finished'}")
    asked = Upload(target=target, files=chosen, words=f"step {reached.step}", polling=polling)
    return upload.send(asked, sent, keep)


def publish(run: Path, root: Path, polling: Polling) -> None:
    """Bring a run to Kaggle, and print how to take it from there."""
    target = target_of(run, root)
    check_owner(target.dataset)
    send(run, target, polling)
    say("To resume it anywhere, or to build a bundle of it:")
    fold = _shipped(run).get("fold", "K")
    for line in (
        f"kaggle datasets download {target.dataset} --unzip -p DIR",
        f"python -m surface_train fit --settings DIR/{SETTINGS} --data data --fold {fold} --out DIR --resume",
        "python -m surface_package build --weights DIR --settings package/settings/competition.toml --out bundle",
    ):
        say(f"  {line}")


def show_plan(run: Path, root: Path) -> None:
    """Print every command and file of a publish; nothing is asked of Kaggle, nothing is written."""
    say(f"Dry run: nothing is run or written. STAGED is a temporary folder beside {run}.")
    upload.show_plan(target_of(run, root), files(run), f"step {progress(run).step}")
