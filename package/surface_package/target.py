"""What kernel-metadata.json, the one place of owner and slugs, says, held against Kaggle's rules and ours."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True)
class Target:
    """Where a bundle goes: "owner/slug" of kernel and dataset, the competition's slug, and who may see it.

    Its methods give what is asked of the client, each in one place, so that a dry run shows what a run does.
    """

    kernel: str
    dataset: str
    competition: str
    public: bool

    def ask_dataset(self) -> list[str]:
        """How the dataset stands, as JSON."""
        return ["datasets", "status", self.dataset, "--format", "json"]

    def create_dataset(self, folder: Path) -> list[str]:
        """The dataset's first version, private unless the user asked for public."""
        return ["datasets", "create", "-p", str(folder), *(["--public"] if self.public else [])]

    def version_dataset(self, folder: Path, words: str) -> list[str]:
        """The dataset's next version; who may see it stays as set on the site."""
        return ["datasets", "version", "-p", str(folder), "-m", words]

    def push_kernel(self, folder: Path) -> list[str]:
        """The kernel's next version, which Kaggle runs at once."""
        return ["kernels", "push", "-p", str(folder)]

    def ask_kernel(self) -> list[str]:
        """How the kernel's last version stands."""
        return ["kernels", "status", self.kernel]

    def fetch_output(self, folder: Path) -> list[str]:
        """The files that the kernel's last version left, and its log."""
        return ["kernels", "output", self.kernel, "-p", str(folder)]

    def submit(self, version: int | str, words: str) -> list[str]:
        """The submission of that version, which spends one of the day's."""
        where = ["-f", "submission.zip", "-k", self.kernel, "-v", str(version)]
        return ["competitions", "submit", self.competition, *where, "-m", words]

    def ask_limits(self) -> list[str]:
        """How many submissions are left today. Not as JSON, from which the client leaves out every 0."""
        return ["competitions", "submission-limits", self.competition]

    def list_submissions(self) -> list[str]:
        """The newest submissions with their scores, as JSON."""
        return ["competitions", "submissions", self.competition, "--page-size", "100", "--format", "json"]


def findings(metadata: dict[str, Any], public: bool) -> list[str]:
    """All that is wrong with the content of a kernel-metadata.json, a sentence each; empty where it may be pushed."""
    found = []
    for key, wanted in {**FIXED, "is_private": not public}.items():
        value = metadata.get(key)
        if value != wanted or type(value) is not type(wanted):
            why = " (--public was given)" if key == "is_private" and public else ""
            shown = json.dumps(value) if key in metadata else "nothing"
            found.append(f'"{key}" is {shown}; write {json.dumps(wanted)}{why}')
    if not isinstance(metadata.get("machine_shape"), str):
        found.append('"machine_shape" is no text; write "NvidiaTeslaT4", or Kaggle chooses a GPU')
    title = metadata.get("title")
    found += _reference_findings("id", metadata.get("id"))
    if not isinstance(title, str) or not 6 <= len(title) <= 50:
        found.append(f'"title" is {json.dumps(title)}; write 6 to 50 characters')
    elif slug(title) != str(metadata.get("id")).partition("/")[2]:
        found.append(f'"title" is {json.dumps(title)}, which Kaggle turns into {slug(title)}; write that slug in "id"')
    datasets = metadata.get("dataset_sources")
    if not isinstance(datasets, list) or len(datasets) != 1:
        found.append(f'"dataset_sources" is {json.dumps(datasets)}; write the bundle\'s one "owner/slug"')
    else:
        found += _reference_findings("dataset_sources", datasets[0])
    competitions = metadata.get("competition_sources")
    if not isinstance(competitions, list) or len(competitions) != 1 or not isinstance(competitions[0], str):
        found.append(f'"competition_sources" is {json.dumps(competitions)}; write the one competition\'s slug')
    return found


def _reference_findings(key: str, reference: object) -> list[str]:
    parts = re.fullmatch(r"([\w-]+)/([a-z0-9-]+)", reference) if isinstance(reference, str) else None
    if not parts:
        return [f'"{key}" names {json.dumps(reference)}; write "owner/slug", the slug in a-z, 0-9 and hyphens']
    found = []
    if parts[1] == PLACEHOLDER_OWNER:
        found.append(f'"{key}" names {reference}; write your own Kaggle user name for "{PLACEHOLDER_OWNER}"')
    if not 6 <= len(parts[2]) <= 50:
        found.append(f'"{key}" names {reference}; write a slug of 6 to 50 characters, not {len(parts[2])}')
    return found


def slug(title: str) -> str:
    """Give the slug that Kaggle makes of a title."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def read_target(path: Path, public: bool) -> Target:
    """Read and judge a kernel-metadata.json.

    `public` says that the user asked for everybody to see kernel and dataset; the file must say the same. Raises
    TargetError where the file is missing, is no JSON object or breaks a rule.
    """
    try:
        metadata = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise TargetError(f"{path} cannot be read: {error}. Publish from a clone that holds it.") from error
    if not isinstance(metadata, dict):
        raise TargetError(f"{path} holds {type(metadata).__name__}, not a JSON object. Take it from git again.")
    if found := findings(metadata, public):
        listed = "".join(f"\n  {finding}" for finding in found)
        raise TargetError(f"{path} cannot be published. Edit it:{listed}")
    return Target(metadata["id"], metadata["dataset_sources"][0], metadata["competition_sources"][0], public)


def dataset_metadata(target: Target) -> dict[str, Any]:
    """The content of dataset-metadata.json: the title is the slug in words, so it has the slug's 6 to 50 characters."""
    title = target.dataset.partition("/")[2].replace("-", " ").title()
    return {"title": title, "id": target.dataset, "licenses": [{"name": LICENCE}]}
