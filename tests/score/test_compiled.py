import os
import subprocess
import sys
from pathlib import Path

import pytest

import surface_score

CODE = (
    "import numpy as np; from surface_score.features import euler_number as f; "
    "print(f(np.ones((2, 2, 2), bool)), len(f.stats.cache_hits), sum(f.stats.cache_hits.values()))"
)


def run(folder, **environment):
    command = [sys.executable, "-c", CODE]
    kept = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    environment = kept | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"} | environment
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [int(number) for number in done.stdout.split()]


@pytest.fixture
def copy(tmp_path):
    """The package without its tests' caches; only what this one function needs."""
    folder = tmp_path / "surface_score"
    folder.mkdir()
    for name in ("compiled.py", "features.py"):
        folder.joinpath(name).write_bytes((Path(surface_score.__file__).parent / name).read_bytes())
    folder.joinpath("__init__.py").touch()
    return tmp_path


def test_a_second_process_finds_what_the_first_one_kept(copy):
    assert run(copy) == [1, 0, 0]
    assert run(copy) == [1, 1, 1]


def test_compiles_anew_where_nothing_can_be_kept(copy):
    # In place of the two folders that numba would write to there are files: root may write to read-only folders.
    (copy / "surface_score" / "__pycache__").touch()
    (copy / "cache").touch()
    unwritable = {"XDG_CACHE_HOME": str(copy / "cache"), "HOME": str(copy / "cache")}
    assert run(copy, **unwritable) == [1, 0, 0]
