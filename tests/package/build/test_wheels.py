import base64
import csv
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from surface_kernel.networks.architecture import LIBRARIES, Architecture
from surface_package.build import wheels
from surface_package.build.wheels import Pin, WheelError

RES_ENC = Architecture("ResEncUNet", "resenc_s")
PURE = Pin("a_b.c-1.0-py3-none-any.whl", "0" * 64)
NATIVE = [
    Pin(f"d-2.0-cp3{minor}-cp3{minor}-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl", "1" * 64)
    for minor in (11, 12, 13)
]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test fetch from an index: pip may look into folders only."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")


def test_a_file_name_says_what_pip_must_be_asked_for() -> None:
    assert (PURE.name, PURE.requirement, PURE.python, PURE.platform) == ("a-b-c", "a-b-c==1.0", None, "any")
    assert [(pin.requirement, pin.python, pin.platform) for pin in NATIVE] == [
        ("d==2.0", "3.11", "manylinux_2_28_x86_64"),
        ("d==2.0", "3.12", "manylinux_2_28_x86_64"),
        ("d==2.0", "3.13", "manylinux_2_28_x86_64"),
    ]
    assert wheels.requirements([NATIVE[0], PURE, NATIVE[1]]) == ["d==2.0", "a-b-c==1.0"]


@pytest.mark.parametrize(
    ("pins", "expected"),
    [
        ([PURE, *NATIVE], ["3.11", "3.12", "3.13"]),
        ([NATIVE[2], NATIVE[0]], ["3.11", "3.13"]),
        ([*NATIVE, Pin("e-1-cp312-cp312-manylinux_2_28_x86_64.whl", "2" * 64)], ["3.12"]),
    ],
)
def test_a_python_needs_every_compiled_wheel(pins: list[Pin], expected: list[str]) -> None:
    assert wheels.pythons(pins) == expected


def test_wheels_without_a_common_python_are_refused() -> None:
    with pytest.raises(WheelError, match="expected at least one Python"):
        wheels.pythons([NATIVE[0], Pin("e-1-cp312-cp312-manylinux_2_28_x86_64.whl", "2" * 64)])


def test_the_projects_own_pins_serve_both_of_kaggles_pythons() -> None:
    pins = wheels.read_pins()
    assert {"3.12", "3.13"} <= set(wheels.pythons(pins))
    assert {line.split("==")[0] for line in wheels.requirements(pins)} == {
        "segmentation-models-pytorch-3d",
        "dynamic-network-architectures",
        "connected-components-3d",
    }


@pytest.mark.parametrize(
    ("architectures", "libraries"),
    [
        ([Architecture()], ["segmentation-models-pytorch-3d"]),
        ([RES_ENC, RES_ENC], ["dynamic-network-architectures"]),
        ([RES_ENC, Architecture()], ["segmentation-models-pytorch-3d", "dynamic-network-architectures"]),
    ],
)
def test_a_library_is_needed_for_its_own_networks(architectures: list[Architecture], libraries: list[str]) -> None:
    pins = wheels.read_pins()
    names = list(dict.fromkeys(pin.name for pin in wheels.needed(pins, architectures)))
    assert names == [*libraries, "connected-components-3d"]
    assert wheels.pythons(wheels.needed(pins, architectures)) == wheels.pythons(pins)


def test_every_library_that_a_network_is_built_from_is_pinned() -> None:
    assert set(LIBRARIES) <= {pin.name for pin in wheels.read_pins()}
    others = [pin for pin in wheels.read_pins() if pin.name != RES_ENC.library]
    assert wheels.needed(others, [Architecture()]) == others
    with pytest.raises(WheelError, match=r"wheels\.txt: expected a wheel of dynamic-network-architectures, got none"):
        wheels.needed(others, [Architecture(), RES_ENC])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "expected a pinned wheel .*, got none"),
        ("# nothing\n", "expected a pinned wheel .*, got none"),
        (PURE.filename, "wheels.txt:1: expected a file name and its sha256, got 'a_b.c-1.0-py3-none-any.whl'"),
        (f"\n{PURE.filename} {'0' * 63}", "expected a sha256 .*, got '000"),
        (f"a-1.0.tar.gz {'0' * 64}", "expected the file name of a wheel .*, got 'a-1.0.tar.gz'"),
        (f"../a-1.0-py3-none-any.whl {'0' * 64}", "expected the file name of a wheel"),
    ],
)
def test_a_line_that_pins_nothing_is_named(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "wheels.txt").write_text(text)
    with pytest.raises(WheelError, match=found):
        wheels.read_pins(tmp_path / "wheels.txt")


def make_wheel(folder: Path) -> Path:
    package = folder / "sources" / "some_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("answer = 42\n")
    (package / "other.py").write_text("")
    (package / "sub").mkdir()
    (package / "sub" / "__init__.py").write_text("deep = 43\n")
    (package / "notes.txt").write_text("not Python")
    return wheels.write_wheel(package, "1.2", folder)


def pin(wheel: Path) -> Pin:
    return Pin(wheel.name, hashlib.sha256(wheel.read_bytes()).hexdigest())


def test_our_wheel_is_one_that_pip_installs(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path)
    assert wheel.name == "some_package-1.2-py3-none-any.whl"
    command = [sys.executable, "-m", "pip", "install", "--isolated", "--quiet", "--no-index", "--no-deps"]
    command += ["--target", str(tmp_path / "site"), "--find-links", str(tmp_path), "some-package==1.2"]
    subprocess.run(command, check=True)
    run = [
        sys.executable,
        "-c",
        "import some_package, some_package.sub as s, importlib.metadata as m\n"
        "print(some_package.answer, s.deep, m.version('some-package'))",
    ]
    shown = subprocess.run(run, cwd=tmp_path / "site", check=True, capture_output=True, text=True).stdout
    assert shown == "42 43 1.2\n"


def test_our_wheel_lists_all_that_it_holds(tmp_path: Path) -> None:
    with zipfile.ZipFile(make_wheel(tmp_path)) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    info = "some_package-1.2.dist-info"
    code = ["some_package/__init__.py", "some_package/other.py", "some_package/sub/__init__.py"]
    assert list(content) == sorted([*code, f"{info}/METADATA", f"{info}/RECORD", f"{info}/WHEEL"])
    rows = {row[0]: row[1:] for row in csv.reader(content[f"{info}/RECORD"].decode().splitlines())}
    assert rows.pop(f"{info}/RECORD") == ["", ""]
    assert list(rows) == [name for name in content if not name.endswith("RECORD")]
    for name, (digest, size) in rows.items():
        kind, _, text = digest.partition("=")
        assert kind == "sha256"
        assert base64.urlsafe_b64decode(text + "=") == hashlib.sha256(content[name]).digest()
        assert int(size) == len(content[name])


def test_the_same_sources_give_the_same_wheel(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert make_wheel(first).read_bytes() == make_wheel(second).read_bytes()
    (second / "sources" / "some_package" / "other.py").write_text("changed = 1")
    changed = wheels.write_wheel(second / "sources" / "some_package", "1.2", second)
    assert changed.read_bytes() != (first / "some_package-1.2-py3-none-any.whl").read_bytes()
    (tmp_path / "empty").mkdir()
    with pytest.raises(WheelError, match="got no Python file"):
        wheels.write_wheel(tmp_path / "empty", "1.2", tmp_path)


def test_what_the_cache_holds_is_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", None)
    wheel = make_wheel(tmp_path)
    assert wheels.gather([pin(wheel)], tmp_path) == [wheel]


def test_offline_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", None)
    pinned = pin(make_wheel(tmp_path))
    with pytest.raises(WheelError, match=r"expected .* in the cache, got no such file; build once without --offline"):
        wheels.gather([pinned], tmp_path / "cache", offline=True)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / pinned.filename).write_bytes(b"else")
    with pytest.raises(WheelError, match="got another sha256"):
        wheels.gather([pinned], tmp_path / "cache", offline=True)


def test_a_wheel_is_fetched_by_pip_for_another_python_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_wheel(tmp_path)
    index = tmp_path / "index"
    index.mkdir()
    wheel = made.rename(index / "some_package-1.2-cp313-cp313-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / wheel.name).write_bytes(b"cut off")  # what an earlier fetch left is replaced
    (fetched,) = wheels.gather([pin(wheel)], cache)
    assert fetched.read_bytes() == wheel.read_bytes()
    assert list(cache.iterdir()) == [fetched]

    other = Pin(wheel.name, "0" * 64)
    with pytest.raises(WheelError, match=f"expected sha256 {'0' * 64} .*, got {pin(wheel).sha256}"):
        wheels.gather([other], cache)
    newer = Pin(wheel.name.replace("1.2", "1.3"), "0" * 64)
    with pytest.raises(WheelError, match=r"expected this file from pip, got nothing \(ERROR: .*some-package==1\.3"):
        wheels.gather([newer], cache)
    assert list(cache.iterdir()) == [fetched]


def test_an_environment_without_pip_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As uv makes them."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '{python}: No module named pip' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    wanted = Pin("some_package-1.2-py3-none-any.whl", "0" * 64)
    with pytest.raises(
        WheelError, match=r"python: expected pip to fetch some_package.*, got none; .*uv pip install pip"
    ):
        wheels.gather([wanted], tmp_path / "cache")


def test_the_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert wheels.cache_folder() == Path("/caches/vesuvius-surface/wheels")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert wheels.cache_folder() == Path("/home/someone/.cache/vesuvius-surface/wheels")
