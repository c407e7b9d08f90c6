"""Owner, title and slugs in kernel-metadata.json; the owner is asked for only where the client does not know it."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from surface_kernel import disk
from surface_package.build import manifest
from surface_package.kaggle import client
from surface_package.target import PLACEHOLDER_OWNER, TargetError, findings, slug


class InitError(ValueError):
    """A kernel-metadata.json that cannot be given an owner; the message says what is missing and what to do."""


def init(path: Path, *, owner: str | None = None, title: str | None = None, dataset: str | None = None) -> bool:
    """Set owner, title and slugs in a kernel-metadata.json that may then be pushed; return whether that changed it.

    Args:
        path: the file.
        owner: by default the file's or the client's; where neither has one, it is asked for.
        title: of the kernel, which makes its slug; by default as it is.
        dataset: the slug of the bundle's dataset; by default as it is.

    Raises:
        InitError: nobody can be asked.
        TargetError: the file would break a rule; then it is left unchanged.
    """
    try:
        before = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InitError(f"{path}: expected JSON, got an unreadable file ({error}); take it from git again") from error
    if not isinstance(before, dict):
        raise InitError(f"{path}: expected a JSON object, got a {type(before).__name__}; take it from git again")
    if owner is None and PLACEHOLDER_OWNER in json.dumps(before):
        owner = client.user() or _asked()
    after = _renamed(before, owner=owner, title=title, dataset=dataset)
    if wrong := findings(after, public=after.get("is_private") is False):
        raise TargetError(f"{path} was left unchanged, it could not be pushed: {'; '.join(wrong)}")
    if after != before:
        disk.put(path, (json.dumps(after, indent=2, ensure_ascii=False) + "\n").encode())
    return bool(after != before)


def _renamed(metadata: dict[str, Any], *, owner: str | None, title: str | None, dataset: str | None) -> dict[str, Any]:
    renamed = {**metadata, "id": _reference(metadata.get("id"), owner, None if title is None else slug(title))}
    if title is not None:
        renamed["title"] = title
    datasets = metadata.get("dataset_sources")
    if isinstance(datasets, list):
        renamed["dataset_sources"] = [_reference(each, owner, dataset) for each in datasets]
    return renamed


def _reference(reference: object, owner: str | None, slug: str | None) -> object:
    """Put owner and slug, where they are given, into "owner/slug"; another form is left for `findings` to refuse."""
    parts = reference.split("/") if isinstance(reference, str) else []
    if len(parts) != 2:
        return reference
    return f"{parts[0] if owner is None else owner}/{parts[1] if slug is None else slug}"


def _asked() -> str:
    """Ask the user at the terminal."""
    if sys.stdin.isatty() and (name := input("Your Kaggle user name, as in kaggle.com/NAME: ").strip()):
        return name
    advice = "log in with `kaggle auth login`, or give it: --owner NAME"
    raise InitError(
        f"--owner: expected your Kaggle user name, got none, and nobody is logged in to the client; {advice}"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `python -m surface_package init`."""
    parser.add_argument(
        "--owner", metavar="NAME", help="your Kaggle user name; by default that of the kaggle client's login"
    )
    parser.add_argument("--title", help="title of the kernel, 6 to 50 characters, from which its slug is made")
    parser.add_argument(
        "--dataset", metavar="SLUG", help="slug of the bundle's dataset, 6 to 50 of a-z, 0-9 and hyphens"
    )


def run(arguments: argparse.Namespace) -> int:
    """Set what was given, and print what the file says now."""
    path = manifest.ROOT / "kernel-metadata.json"
    changed = init(path, owner=arguments.owner, title=arguments.title, dataset=arguments.dataset)
    written = json.loads(path.read_bytes())
    print(f"{path}: {'written' if changed else 'nothing to change'}")
    print(f"  kernel   {written['id']} ({written['title']})")
    print(f"  dataset  {written['dataset_sources'][0]}")
    print(f"  for      {written['competition_sources'][0]}")
    return 0
