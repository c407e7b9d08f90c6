"""kernel-metadata.json, the one place of owner and slugs, checked against Kaggle's rules and ours."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slugify import slugify

PLACEHOLDER_OWNER = "your-kaggle-name"
LICENCE = "CC-BY-NC-4.0"  # Kaggle's spelling; the competition's data are CC BY-NC 4.0, and so is what is made of them
CODE_FILE = "kernel/submit.py"
DATASET_FILE = "dataset-metadata.json"  # read by the client beside an upload, and never delivered
# What the client would fill in itself if it were absent or other, and what no submission of this kind survives.
FIXED = {
    "code_file": CODE_FILE,
    "language": "python",
    "kernel_type": "script",
    "enable_gpu": True,
    "enable_tpu": False,
    "enable_internet": False,
}


class TargetError(ValueError):
    """kernel-metadata.json cannot be published; the message lists every finding and what to edit."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a bundle goes.

    Its methods return the arguments of the `kaggle` client, each in one place, so that a dry run shows what a run does.
    """

    kernel: str
    """As "owner/slug"."""
    dataset: str
    """As "owner/slug"."""
    competition: str
    """Its slug."""
    public: bool
    """Whether everybody may see kernel and dataset."""

    def ask_dataset(self) -> list[str]:
        """Ask for the dataset's status and version, as JSON."""
        return ["datasets", "status", self.dataset, "--format", "json"]

    def create_dataset(self, folder: Path) -> list[str]:
        """Create the dataset, private unless the user asked for public."""
        return ["datasets", "create", "-p", str(folder), *(["--public"] if self.public else [])]

    def version_dataset(self, folder: Path, words: str) -> list[str]:
        """Add the dataset's next version; who may see it stays as set on the site."""
        return ["datasets", "version", "-p", str(folder), "-m", words]

    def push_kernel(self, folder: Path) -> list[str]:
        """Push the kernel's next version, which Kaggle runs at once."""
        return ["kernels", "push", "-p", str(folder)]

    def ask_kernel(self) -> list[str]:
        """Ask for the status of the kernel's last version."""
        return ["kernels", "status", self.kernel]

    def fetch_output(self, folder: Path) -> list[str]:
        """Fetch the files that the kernel's last version left, and its log."""
        return ["kernels", "output", self.kernel, "-p", str(folder)]

    def submit(self, version: int | str, words: str) -> list[str]:
        """Submit that version, which spends one of the day's submissions."""
        where = ["-f", "submission.zip", "-k", self.kernel, "-v", str(version)]
        return ["competitions", "submit", self.competition, *where, "-m", words]

    def ask_limits(self) -> list[str]:
        """Ask how many submissions are left today. Not as JSON, from which the client leaves out every 0."""
        return ["competitions", "submission-limits", self.competition]

    def list_submissions(self) -> list[str]:
        """List the newest submissions with their scores, as JSON."""
        return ["competitions", "submissions", self.competition, "--page-size", "100", "--format", "json"]


def findings(metadata: dict[str, Any], public: bool) -> list[str]:
    """Return what is wrong with the content of a kernel-metadata.json, a sentence each; none where it may be pushed."""
    wrong = []
    for key, fixed in {**FIXED, "is_private": not public}.items():
        value = metadata.get(key)
        if value != fixed or type(value) is not type(fixed):
            why = " (--public was given)" if key == "is_private" and public else ""
            shown = json.dumps(value) if key in metadata else "nothing"
            wrong.append(f'"{key}" is {shown}; write {json.dumps(fixed)}{why}')
    if not isinstance(metadata.get("machine_shape"), str):
        wrong.append('"machine_shape" is no text; write "NvidiaTeslaT4", or Kaggle chooses a GPU')
    wrong += _reference_findings("id", metadata.get("id"))
    return wrong + _title_findings(metadata) + _source_findings(metadata)


def _title_findings(metadata: dict[str, Any]) -> list[str]:
    title = metadata.get("title")
    if not isinstance(title, str) or not 6 <= len(title) <= 50:
        return [f'"title" is {json.dumps(title)}; write 6 to 50 characters']
    if slug(title) != str(metadata.get("id")).partition("/")[2]:
        return [f'"title" is {json.dumps(title)}, which Kaggle turns into {slug(title)}; write that slug in "id"']
    return []


def _source_findings(metadata: dict[str, Any]) -> list[str]:
    wrong, datasets, competitions = [], metadata.get("dataset_sources"), metadata.get("competition_sources")
    if not isinstance(datasets, list) or len(datasets) != 1:
        wrong.append(f'"dataset_sources" is {json.dumps(datasets)}; write the bundle\'s one "owner/slug"')
    else:
        wrong += _reference_findings("dataset_sources", datasets[0])
    if not isinstance(competitions, list) or len(competitions) != 1 or not isinstance(competitions[0], str):
        wrong.append(f'"competition_sources" is {json.dumps(competitions)}; write the one competition\'s slug')
    return wrong


def _reference_findings(key: str, reference: object) -> list[str]:
    parts = re.fullmatch(r"([\w-]+)/([a-z0-9-]+)", reference) if isinstance(reference, str) else None
    if not parts:
        return [f'"{key}" names {json.dumps(reference)}; write "owner/slug", the slug in a-z, 0-9 and hyphens']
    wrong = []
    if parts[1] == PLACEHOLDER_OWNER:
        wrong.append(f'"{key}" names {reference}; write your own Kaggle user name for "{PLACEHOLDER_OWNER}"')
    if not 6 <= len(parts[2]) <= 50:
        wrong.append(f'"{key}" names {reference}; write a slug of 6 to 50 characters, not {len(parts[2])}')
    return wrong


def slug(title: str) -> str:
    """Return the slug that the `kaggle` client makes of a title, by the library that it makes it with."""
    return slugify(title)


def read_target(path: Path, public: bool) -> Target:
    """Read and check a kernel-metadata.json.

    public: whether the user asked for everybody to see kernel and dataset; the file must say the same. Raises
    TargetError where the file is missing, is no JSON object or breaks a rule.
    """
    metadata = _metadata(path)
    if wrong := findings(metadata, public):
        listed = "".join(f"\n  {finding}" for finding in wrong)
        raise TargetError(f"{path} cannot be published. Edit it:{listed}")
    return Target(
        kernel=metadata["id"],
        dataset=metadata["dataset_sources"][0],
        competition=metadata["competition_sources"][0],
        public=public,
    )


def is_public(path: Path) -> bool:
    """Whether a kernel-metadata.json lets everybody see kernel and dataset. Raises TargetError as `read_target`."""
    return _metadata(path).get("is_private") is False


def _metadata(path: Path) -> dict[str, Any]:
    try:
        metadata = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise TargetError(f"{path} cannot be read: {error}. Publish from a clone that holds it.") from error
    if not isinstance(metadata, dict):
        raise TargetError(f"{path} holds {type(metadata).__name__}, not a JSON object. Take it from git again.")
    return metadata


def dataset_metadata(target: Target) -> dict[str, Any]:
    """Return the content of dataset-metadata.json: its title is the slug in words, so it has 6 to 50 characters too."""
    title = target.dataset.partition("/")[2].replace("-", " ").title()
    return {"title": title, "id": target.dataset, "licenses": [{"name": LICENCE}]}
