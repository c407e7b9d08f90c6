from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from package.fake_bundle import SUBMIT, make_bundle, make_competition


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
