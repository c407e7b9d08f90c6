"""What must never be published with a bundle: files and texts that hold somebody's secrets, and paths of a machine.

A finding says what it looks like and where, never the secret itself: it ends up in logs.
"""

import json
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

NAMES = (
    "kaggle.json",
    "access_token",
    ".netrc",
    "_netrc",
    ".env",
    ".env.*",
    "*.env",
    "credentials*",
    ".git-credentials",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
    ".pypirc",
)
_QUOTE = r"""\\*["']"""  # JSON in JSON has backslashes before its quotes
LOOKS = {
    "a Kaggle key": rf"(?i)\bkey(?:{_QUOTE})?\s*[:=]\s*(?:{_QUOTE})?[0-9a-f]{{32}}(?![0-9a-f])",
    "a Kaggle token": r"KGAT_[0-9A-Za-z]{16,}",
    "Kaggle credentials": (
        rf"(?is){_QUOTE}username{_QUOTE}\s*:[^{{}}]{{0,500}}{_QUOTE}key{_QUOTE}\s*:"
        rf"|{_QUOTE}key{_QUOTE}\s*:[^{{}}]{{0,500}}{_QUOTE}username{_QUOTE}\s*:"
    ),
    "an AWS access key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a GitHub token": r"\b(?:gh[pousr]_[0-9A-Za-z]{36}|github_pat_[0-9A-Za-z_]{22})",
    "a Hugging Face token": r"\bhf_[0-9A-Za-z]{20}",
    "a private key": r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----",
}


def in_name(name: str) -> str:
    """Return the pattern of a secret's usual file name that this name fits; "" for none."""
    return next((pattern for pattern in NAMES if fnmatchcase(name.lower(), pattern)), "")


def in_text(text: str) -> str:
    """Return what secret a text seems to hold; "" for none."""
    return next((what for what, look in LOOKS.items() if re.search(look, text)), "")


def in_paths(text: str, folders: Iterable[Path]) -> str:
    """Return which of these absolute folders a text names, itself or something below it; "" for none.

    The root folder is passed over: every absolute path is below it.
    """
    for folder in map(str, folders):
        spellings = {folder, json.dumps(folder)[1:-1]}  # JSON spells other letters than ASCII's in its own way
        look = rf"(?<![\w.-])(?:{'|'.join(map(re.escape, spellings))})(?![\w.-])"
        if folder != "/" and re.search(look, text):
            return folder
    return ""
