"""kernel-metadata.json made the user's own: owner, title and slugs, asked for only where they cannot be found out."""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from surface_kernel import disk
from surface_package.build import manifest
from surface_package.kaggle import client
from surface_package.target import PLACEHOLDER_OWNER, TargetError, findings, slug

ASK_LIMIT_S = 60.0


class InitError(ValueError):
    """A kernel-metadata.json that cannot be made somebody's; the message says what is missing and what to do."""


def init(path: Path, owner: str | None = None, title: str | None = None, dataset: str | None = None) -> bool:
    """Set owner, title and slugs in a kernel-metadata.json that may then be pushed; say whether that changed anything.

    owner: what the file has or the client knows, else it is asked for. title: of the kernel, which makes its slug.
    dataset: the slug of the bundle's dataset. What is not given stays as it is. Raises InitError where nobody can be
    asked, TargetError where the file would break a rule: then it is left alone.
    """
    try:
        before = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InitError(f"{path}: found it unreadable ({error}), wanted JSON; take it from git again") from error
    if not isinstance(before, dict):
        raise InitError(f"{path}: found a {type(before).__name__}, wanted a JSON object; take it from git again")
    if owner is None and PLACEHOLDER_OWNER in json.dumps(before):
        owner = _known_to_client() or _asked()
    after = _renamed(before, owner, title, dataset)
    if found := findings(after, public=after.get("is_private") is False):
        raise TargetError(f"{path} was left alone, it could not be pushed: {'; '.join(found)}")
    if after != before:
        disk.put(path, (json.dumps(after, indent=2, ensure_ascii=False) + "\n").encode())
    return bool(after != before)


def _renamed(metadata: dict[str, Any], owner: str | None, title: str | None, dataset: str | None) -> dict[str, Any]:
    renamed = {**metadata, "id": _reference(metadata.get("id"), owner, None if title is None else slug(title))}
    if title is not None:
        renamed["title"] = title
    datasets = metadata.get("dataset_sources")
    if isinstance(datasets, list):
        renamed["dataset_sources"] = [_reference(each, owner, dataset) for each in datasets]
    return renamed


def _reference(reference: object, owner: str | None, slug: str | None) -> object:
    """Put owner and slug, where they are given, into "owner/slug"; what has another form is for `findings` to tell."""
    parts = reference.split("/") if isinstance(reference, str) else []
    if len(parts) != 2:
        return reference
    return f"{parts[0] if owner is None else owner}/{parts[1] if slug is None else slug}"


def _known_to_client() -> str:
    """Ask the client who is logged in; "" where it does not know, or is not there."""
    try:
        answer = client.ask(["config", "view"], ASK_LIMIT_S)
    except client.ClientError:
        return ""
    found = re.search(r"^- username: (\S+)$", answer.text, re.MULTILINE)
    return found[1] if found and found[1] != "None" else ""


def _asked() -> str:
    """Ask whoever sits at the terminal."""
    if sys.stdin.isatty() and (name := input("Your Kaggle user name, as in kaggle.com/NAME: ").strip()):
        return name
    wanted = "wanted your Kaggle user name; log in with `kaggle auth login`, or give it: --owner NAME"
    raise InitError(f"found nobody logged in to the kaggle client, {wanted}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `python -m surface_package init` takes."""
    parser.add_argument("--owner", metavar="NAME", help="your Kaggle user name; the client's, where it knows one")
    parser.add_argument("--title", help="of the kernel, 6 to 50 characters; its slug follows")
    parser.add_argument("--dataset", metavar="SLUG", help="of the bundle's dataset, 6 to 50 of a-z, 0-9 and hyphens")


def run(arguments: argparse.Namespace) -> int:
    """Set what was given, and print what the file says now."""
    path = manifest.ROOT / "kernel-metadata.json"
    changed = init(path, arguments.owner, arguments.title, arguments.dataset)
    written = json.loads(path.read_bytes())
    print(f"{path}: {'written' if changed else 'nothing to change'}")
    print(f"  kernel   {written['id']} ({written['title']})")
    print(f"  dataset  {written['dataset_sources'][0]}")
    print(f"  for      {written['competition_sources'][0]}")
    return 0
