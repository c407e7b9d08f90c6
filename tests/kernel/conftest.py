import json
import logging
import os
from types import SimpleNamespace

import numba
import pytest
import torch
from engines import CPU
from scenes import names_in, write_bundle
from worlds import write_weights

from surface_kernel.__main__ import main
from surface_kernel.runs import pipeline


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """One folder for all examples of a property."""
    return tmp_path_factory.mktemp("examples")


@pytest.fixture(autouse=True)
def _threads(monkeypatch):
    """Chooses one thread, since tests run beside others, and puts their number back.

    torch comes last: setting numba's sets torch's too.
    """
    before = numba.get_num_threads(), torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 1, raising=False)  # Python 3.11 and 3.12 have none
    yield
    numba.set_num_threads(before[0])
    torch.set_num_threads(before[1])


@pytest.fixture(autouse=True)
def nobody_is_killed_for_memory(monkeypatch):
    """Lets a worker that kills itself be no matter of memory, whether this system counts such ends or not."""
    monkeypatch.setattr(pipeline, "killed_for_memory", lambda: 0)


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory):
    """A real network, untrained; about half of a volume of noise is surface to it."""
    return write_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture
def kernel(capsys):
    """Runs a command line of the kernel here; gives its exit code and the lines it printed."""
    root = logging.getLogger()
    before = root.handlers[:], root.level

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        return SimpleNamespace(code=code, lines=capsys.readouterr().out.splitlines())

    yield run
    root.handlers[:] = before[0]
    root.setLevel(before[1])


@pytest.fixture(scope="session")
def earlier_report(tmp_path_factory):
    """An earlier run's report: no start-up test is made, and the same tiles give the same bytes."""
    path = tmp_path_factory.mktemp("earlier") / "run_report.json"
    path.write_text(json.dumps({"how": {"device": CPU.to_mapping()}}))
    return path


@pytest.fixture
def submit(kernel, tmp_path, weights_file, earlier_report):
    """Runs the kernel on a competition folder, each time into a folder of its own; dust is kept."""
    write_bundle(tmp_path / "bundle", [weights_file], dust_voxels=0)

    def run(competition, *arguments, out="out", kept=False):
        places = "--bundle", tmp_path / "bundle", "--competition", competition, "--out", tmp_path / out
        done = kernel(*places, "--scratch", tmp_path / "scratch", "--device", earlier_report, *arguments)
        done.scratch = names_in(tmp_path / "scratch") if (tmp_path / "scratch").exists() else []
        assert kept or not done.scratch
        done.out = tmp_path / out
        report = done.out / "run_report.json"
        done.report = json.loads(report.read_text()) if report.exists() else None
        return done

    return run
