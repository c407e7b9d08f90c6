"""Secrets made up for the test, none of which was ever anybody's; each in two halves, so that no scanner finds them."""

import json
from pathlib import Path

import pytest

from surface_package.build import leaks

HEX = "0123456789abcdef"
SECRETS = {
    "a Kaggle key": "KEY=" + HEX * 2,
    "a Kaggle token": "KGAT" + "_" + HEX,
    "Kaggle credentials": '{"username": "ada", "key": "any"}',
    "an AWS access key": "AKIA" + "ABCDEFGHIJKLMNOP",
    "a GitHub token": "ghp" + "_" + "Ab0" * 12,
    "a Hugging Face token": "hf" + "_" + "Ab0" * 10,
    "a private key": "-----BEGIN OPENSSH " + "PRIVATE KEY-----",
}


@pytest.mark.parametrize(("what", "secret"), SECRETS.items(), ids=SECRETS)
def test_a_secret_is_seen_alone_in_a_text_and_in_json_in_json(what: str, secret: str) -> None:
    for text in (secret, f"a = 1\n# {secret}\n", json.dumps({"a": {"b": secret}}), json.dumps([json.dumps([secret])])):
        assert leaks.in_text(text) == what


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("a GitHub token", "github_pat" + "_" + "A1_" * 10),
        ("a GitHub token", "gho" + "_" + "Ab0" * 12),
        ("a Kaggle key", json.dumps({"key": HEX * 2})),
        ("Kaggle credentials", '{\n "key": "any",\n "username": "ada"\n}'),
        ("a private key", "-----BEGIN " + "PRIVATE KEY-----"),
    ],
)
def test_other_spellings_are_seen(what: str, text: str) -> None:
    assert leaks.in_text(text) == what


@pytest.mark.parametrize(
    "text",
    [
        "",
        json.dumps({"settings_sha256": HEX * 4, "commit": HEX * 2 + "01234567", "fold": 2}),
        "for key in sorted(names):\n    key = lookup(key)\n",
        json.dumps({"key": HEX * 4}),  # a sha256 beside "key" is none of Kaggle's
        json.dumps([{"username": "ada"}, {"key": 1}]),
        "half_of_it, shf_" + "a" * 30,
        "-----BEGIN PUBLIC KEY-----",
    ],
)
def test_what_is_no_secret_passes(text: str) -> None:
    assert leaks.in_text(text) == ""


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("kaggle.json", "kaggle.json"),
        ("Kaggle.JSON", "kaggle.json"),
        (".netrc", ".netrc"),
        ("server.pem", "*.pem"),
        ("my.key", "*.key"),
        ("id_rsa.pub", "id_rsa*"),
        (".env", ".env"),
        (".env.local", ".env.*"),
        ("credentials.safetensors", "credentials*"),
        ("weights.safetensors", ""),
        ("settings.toml", ""),
        ("keys.py", ""),
    ],
)
def test_a_name_that_holds_secrets_by_custom_is_told(name: str, pattern: str) -> None:
    assert leaks.in_name(name) == pattern


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("cache = '/people/ada'", "/people/ada"),
        ("/people/ada/data/train.csv", "/people/ada"),
        (json.dumps({"out": "/people/ada"}), "/people/ada"),
        ("file:///srv/a clone/x.py", "/srv/a clone"),
        (json.dumps(["/people/andré/runs"]), "/people/andré"),
        ("/people/andré", "/people/andré"),
        ("/people/adam", ""),
        ("/people/ada.txt", ""),
        ("/old/people/ada", ""),
        ("people/ada", ""),
        ("/people", ""),
        ("/", ""),
        ("", ""),
    ],
)
def test_a_path_of_the_machine_is_told_where_it_is_one(text: str, found: str) -> None:
    folders = [Path("/"), Path("/people/ada"), Path("/srv/a clone"), Path("/people/andré")]
    assert leaks.in_paths(text, folders) == found
