"""Every command of the paperwork is one that the project has, every path one of SETTINGS.json, every file there."""

import json
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
from package.clones import commit
from package.fake_bundle import make_bundle
from scenes import ROOT

from surface_package import paperwork
from surface_package.__main__ import _parser
from surface_package.build import manifest
from surface_package.build.manifest import Contents, ManifestError


def commands(text: str) -> dict[str, list[list[str]]]:
    """The commands of entry_points.md by the titles of its sections."""
    found = re.findall(r"^## ([^\n]*)\n\n```\n(.*?)```$", text, re.MULTILINE | re.DOTALL)
    return {title: [shlex.split(line) for line in block.splitlines()] for title, block in found}


def run(words: list[str]) -> int:
    """Runs a command as `main` does, without its logging, which would outlive the test."""
    arguments = _parser().parse_args(words)
    return arguments.run(arguments)


def bundle_of(folder: Path, *folds: str) -> Path:
    made = make_bundle(folder)
    names = [f"member_{index}.safetensors" for index in range(len(folds))]
    members = {name: {"provenance": {"fold": fold, "epoch": 9}} for name, fold in zip(names, folds, strict=True)}
    contents = Contents(
        version="1",
        commit=None,
        weights=names,
        settings="settings.json",
        requirements=["a==1"],
        python=["3.12"],
        members=members,
    )
    manifest.write(made, contents)
    return made


def test_every_command_is_one_that_there_is(tmp_path: Path) -> None:
    paperwork.write(tmp_path / "out", bundle_of(tmp_path / "bundle", "0", "all", "0"))
    sections = commands((tmp_path / "out" / "entry_points.md").read_text())
    assert list(sections) == ["Prepare the data", "Train", "Predict"]
    parsed = []
    for command in (each for block in sections.values() for each in block):
        if command[:2] == ["python", "-m"]:
            module = import_module(f"{command[2]}.__main__")
            parser = "_submit_parser" if command[2] == "surface_kernel" else "_parser"
            getattr(module, parser)().parse_args(command[3:])
            parsed.append(command[2])
    assert parsed == ["surface_train", "surface_train", "surface_package", "surface_kernel"]
    readme = (ROOT / "README.md").read_text()
    assert shlex.join(sections["Prepare the data"][0]) in readme
    assert shlex.join(sections["Prepare the data"][1]) in readme
    for name in (word for block in sections.values() for each in block for word in each if "/settings/" in word):
        assert (ROOT / name).is_file()
    assert (ROOT / sections["Prepare the data"][0][1]).is_file()


def test_what_is_trained_is_what_is_packed(tmp_path: Path) -> None:
    paperwork.write(tmp_path / "out", bundle_of(tmp_path / "bundle", "0", "all", "0"))
    text = (tmp_path / "out" / "entry_points.md").read_text()
    sections = commands(text)
    assert [(each[each.index("--fold") + 1], each[-1]) for each in sections["Train"]] == [
        ("0", "runs/fold_0"),
        ("all", "runs/fold_all"),
    ]
    build, predict = sections["Predict"]
    weights = build[build.index("--weights") + 1 : build.index("--settings")]
    assert weights == [f"runs/fold_{fold}/weights.safetensors" for fold in ("0", "all", "0")]
    assert predict[predict.index("--bundle") + 1] == build[-1]
    assert re.findall(r"^- (\w+\.safetensors): (.*)$", text, re.MULTILINE) == [
        (f"member_{index}.safetensors", f'{{"provenance": {{"epoch": 9, "fold": "{fold}"}}}}')
        for index, fold in enumerate(("0", "all", "0"))
    ]


def test_without_a_bundle_one_fold_is_trained(tmp_path: Path) -> None:
    paperwork.write(tmp_path)
    text = (tmp_path / "entry_points.md").read_text()
    assert [each[each.index("--fold") + 1] for each in commands(text)["Train"]] == ["3"]
    assert "member_" not in text
    with pytest.raises(ManifestError):
        paperwork.write(tmp_path / "other", tmp_path)
    assert not (tmp_path / "other").exists()


def test_the_commands_paths_are_those_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paperwork, "SETTINGS", {key: f"at/{key}" for key in paperwork.SETTINGS})
    paperwork.write(tmp_path)
    settings = json.loads((tmp_path / "SETTINGS.json").read_text())
    assert settings == paperwork.SETTINGS
    text = (tmp_path / "entry_points.md").read_text()
    for key in settings.keys() - {"CLEAN_DATA_DIR", "LOGS_DIR"}:
        assert f"at/{key}" in text
    paths = (word for block in commands(text).values() for each in block for word in each if "/" in word)
    assert {path for path in paths if not path.startswith("at/")} == {"scripts/prepare.sh"}


TREE = """clone/
├── kernel/
│   ├── a.py
│   └── deep/
│       └── b.py
├── kernel-metadata.json
└── z
"""


@pytest.mark.parametrize("place", ["git", "archive", "archive in another repository"])
def test_the_tree_is_the_projects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    clone = tmp_path / "clone"
    for name in ("kernel/deep/b.py", "kernel/a.py", "z"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).touch()
    (clone / "kernel-metadata.json").write_text((ROOT / "kernel-metadata.json").read_text())
    if place == "git":
        commit(clone)
    elif place == "archive in another repository":
        (tmp_path / ".gitignore").write_text("clone\n")
        commit(tmp_path)
    for made in (
        "data/train.csv",
        "runs/fold_3/log.csv",
        "bundle/manifest.json",
        ".venv/x",
        "kernel/__pycache__/a.pyc",
    ):
        (clone / made).parent.mkdir(parents=True, exist_ok=True)
        (clone / made).touch()
    paperwork.write(tmp_path / "out", root=clone)
    assert (tmp_path / "out" / "directory_structure.txt").read_text() == TREE


def test_the_command_names_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "papers"
    assert run(["paperwork", "--out", str(out), "--bundle", str(bundle_of(tmp_path / "bundle", "3"))]) == 0
    names = ("entry_points.md", "SETTINGS.json", "directory_structure.txt")
    assert capsys.readouterr().out.splitlines() == [str(out / name) for name in names]
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    first = {path: path.read_bytes() for path in out.iterdir()}
    assert run(["paperwork", "--out", str(out), "--bundle", str(tmp_path / "bundle")]) == 0
    assert {path: path.read_bytes() for path in out.iterdir()} == first
