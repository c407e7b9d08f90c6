"""What Kaggle asks of a winner beside the code: how to run it, where things are, and what there is.

https://www.kaggle.com/WinningModelDocumentationGuidelines names the three files. They are made from the project: its
commands, with the paths of SETTINGS.json, for the folds that a bundle's weights come from.
"""

import argparse
import json
import os
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from surface_kernel import disk
from surface_package.build import manifest
from surface_package.build.sources import git

FILES = ("entry_points.md", "SETTINGS.json", "directory_structure.txt")
# Nothing is cleaned: training and prediction read the competition's TIFFs. A run's log is beside its weights.
SETTINGS = {
    "RAW_DATA_DIR": "data",
    "CLEAN_DATA_DIR": "data",
    "MODEL_DIR": "runs",
    "LOGS_DIR": "runs",
    "BUNDLE_DIR": "bundle",
    "SUBMISSION_DIR": "submission",
    "TRAIN_SETTINGS": "train/settings/unet_resnet18.toml",
    "PREDICT_SETTINGS": "package/settings/competition.toml",
}
FOLD = "3"  # without a bundle: the three smallest scrolls left out, as in README.md


def write(out: Path, bundle: Path | None = None, root: Path = manifest.ROOT) -> list[Path]:
    """Write the three files into a folder, each complete or not at all, and return their paths.

    bundle: its weights' folds are the ones to train; one fold without it. Raises ManifestError where it is no bundle.
    """
    members = manifest.read(bundle).get("members", {}) if bundle else {}
    settings = json.dumps(SETTINGS, indent=2) + "\n"
    texts = (_entry_points(root, members), settings, _tree(_files(root), root.name))
    out.mkdir(parents=True, exist_ok=True)
    for name, text in zip(FILES, texts, strict=True):
        disk.put(out / name, text.encode())
    return [out / name for name in FILES]


def _entry_points(root: Path, members: dict[str, dict[str, Any]]) -> str:
    lines = ["# Entry points", "", "In the clone, with the paths of SETTINGS.json."]
    folds = [str(member["provenance"].get("fold", FOLD)) for member in members.values()] or [FOLD]
    for title, commands in _commands(root, folds).items():
        lines += ["", f"## {title}", "", "```", *map(shlex.join, commands), "```"]
    if members:
        lines += ["", "## The weights that were submitted", ""]
        lines += [f"- {name}: {json.dumps(member, sort_keys=True)}" for name, member in sorted(members.items())]
    return "\n".join([*lines, ""])


def _commands(root: Path, folds: list[str]) -> dict[str, list[list[str]]]:
    """Return the commands from data to submission, by what they do."""
    competition = json.loads((root / "kernel-metadata.json").read_bytes())["competition_sources"][0]
    data, runs, bundle, submission = (SETTINGS[f"{name}_DIR"] for name in ("RAW_DATA", "MODEL", "BUNDLE", "SUBMISSION"))
    runs_by_fold = {fold: f"{runs}/fold_{fold}" for fold in folds}
    train = ["python", "-m", "surface_train", "fit", "--settings", SETTINGS["TRAIN_SETTINGS"], "--data", data]
    weights = [f"{runs_by_fold[fold]}/weights.safetensors" for fold in folds]
    build = ["python", "-m", "surface_package", "build", "--weights", *weights]
    return {
        "Prepare the data": [
            [".", "scripts/prepare.sh"],
            ["kaggle", "competitions", "download", "-c", competition, "-p", data],
            ["unzip", "-q", f"{data}/{competition}.zip", "-d", data],
        ],
        "Train": [[*train, "--fold", fold, "--out", run] for fold, run in runs_by_fold.items()],
        "Predict": [
            [*build, "--settings", SETTINGS["PREDICT_SETTINGS"], "--out", bundle],
            ["python", "-m", "surface_kernel", "--bundle", bundle, "--competition", data, "--out", submission],
        ],
    }


def _files(root: Path) -> list[PurePosixPath]:
    """Return the project's files, relative: those that git tracks, outside of git what is neither made nor hidden."""
    tracked = git(root, ["ls-files", "-z"])
    if tracked:  # a repository that only surrounds an unpacked archive tracks none of it
        return [PurePosixPath(name) for name in tracked.decode().split("\0") if name]
    made = {"__pycache__", *(path for key, path in SETTINGS.items() if key.endswith("_DIR"))}
    files = []
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if name not in made and not name.startswith(".")]
        files += [PurePosixPath(Path(folder, name).relative_to(root).as_posix()) for name in names]
    return files


def _tree(paths: Iterable[PurePosixPath], name: str) -> str:
    """Draw files as a tree, folders with a slash."""
    top: dict[str, Any] = {}
    for path in paths:
        folder = top
        for part in path.parts[:-1]:
            folder = folder.setdefault(part, {})
        folder[path.name] = None
    return "\n".join([f"{name}/", *_branches(top), ""])


def _branches(folder: dict[str, Any], indent: str = "") -> Iterator[str]:
    for index, (name, below) in enumerate(sorted(folder.items())):
        last = index == len(folder) - 1
        yield f"{indent}{'└── ' if last else '├── '}{name}{'' if below is None else '/'}"
        if below is not None:
            yield from _branches(below, indent + ("    " if last else "│   "))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `python -m surface_package paperwork`."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=f"where {', '.join(FILES)} go")
    parser.add_argument(
        "--bundle", type=Path, metavar="BUNDLE", help="the submitted bundle, whose weights name their folds"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the files, and print their paths."""
    for path in write(arguments.out, arguments.bundle):
        print(path)
    return 0
