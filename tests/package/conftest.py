from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from package import forked_client
from package.deliveries import OWNER, make_delivery
from package.fake_bundle import SUBMIT, make_bundle, make_competition
from package.kaggle_server import Kaggle, serve

from surface_package.kaggle import client
from surface_package.kaggle.delivery import Delivery
from surface_package.target import Target, read_target


@pytest.fixture
def make_tree(tmp_path: Path) -> Callable[..., Path]:
    """Makes a tree with input, working and scratch, in which a fake bundle and two small volumes are mounted flat."""

    def make(code: str = "submit()", **changes: list[str]) -> Path:
        made = make_bundle(tmp_path / "made" / "bundle", code, **changes)
        (tmp_path / "input").mkdir()
        made.rename(tmp_path / "input" / "bundle")
        make_competition(tmp_path / "input" / "surface-detection", a7=(2, 3, 4), a8=(3, 5, 5))
        return tmp_path

    return make


@pytest.fixture(scope="session")
def submit() -> ModuleType:
    """submit.py's own functions. The project never imports it; a test may look inside."""
    spec = spec_from_file_location("submit_under_test", SUBMIT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def delivery(tmp_path: Path) -> Delivery:
    """A tiny rehearsed bundle, and a clone to publish it from."""
    return make_delivery(tmp_path)


@pytest.fixture
def target(delivery: Delivery) -> Target:
    """Where it goes."""
    return read_target(delivery.root / "kernel-metadata.json", public=False)


@pytest.fixture
def kaggle_kind() -> type[Kaggle]:
    """Which Kaggle runs; a module may have one of its own."""
    return Kaggle


@pytest.fixture(scope="session")
def forked_clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """What starts the real client in a moment."""
    with forked_client.serving(tmp_path_factory.mktemp("clients")) as address:
        yield forked_client.command(address)


@pytest.fixture
def kaggle(
    kaggle_kind: type[Kaggle], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, forked_clients: list[str]
) -> Iterator[Kaggle]:
    """A running Kaggle; this test's client talks to it alone, with made-up credentials and a HOME of its own."""
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "KAGGLE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "KAGGLE_CONFIG_DIR"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("KAGGLE_USERNAME", OWNER)
    monkeypatch.setenv("KAGGLE_KEY", "0123456789abcdef0123456789abcdef")
    monkeypatch.setattr(client, "command", lambda: forked_clients)
    held = kaggle_kind()
    with serve(held) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield held
    assert {request.host for request in held.requests} <= {"localhost", f"127.0.0.1:{held.port}"}
