"""Faults in two lengths: short ones in every run of the tests; with --long as many as docs/reliability.md tells of.

`scripts/faults.sh` runs the long form and puts what was counted into that document.
"""

import datetime
import logging
import os
import platform
import re
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from worlds import write_weights

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- table: written by scripts/faults.sh -->", "<!-- end of table -->"
COUNTED = pytest.StashKey["Tally"]()


class Tally:
    """Counts what was tried of every row, and the worst figure that was seen.

    A test calls it after its assertions: what is counted has held.
    """

    def __init__(self):
        self.tried = defaultdict(int)
        self.worst = defaultdict(dict)

    def __call__(self, row, tried=1, **worst):
        self.tried[row] += tried
        for name, value in worst.items():
            self.worst[row][name] = max(value, self.worst[row].get(name, value))

    def table(self):
        lines = ["| fault | tried, all held | worst seen |", "|---|---|---|"]
        for row in sorted(self.tried):
            worst = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in self.worst[row].items())
            lines.append(f"| {row} | {self.tried[row]:,} | {worst} |")
        return "\n".join(lines)


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="the long form of the faults: about an hour")
    parser.addoption("--write-table", action="store_true", help="put the counts into docs/reliability.md")


def pytest_configure(config):
    config.stash[COUNTED] = Tally()


def pytest_sessionfinish(session, exitstatus):
    if not session.config.getoption("--write-table", default=False) or exitstatus != 0:
        return
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    cores, python = len(os.sched_getaffinity(0)), platform.python_version()
    machine = f"{cpu.group(1) if cpu else platform.machine()}, {cores} cores, Python {python}"
    head = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {machine}, `scripts/faults.sh`:"
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    table = session.config.stash[COUNTED].table()
    DOCUMENT.write_text(f"{before}{BEGIN}\n{head}\n\n{table}\n{END}{after}")


@pytest.fixture(scope="session")
def long(request):
    """Whether this is the long form."""
    return request.config.getoption("--long", default=False)


@pytest.fixture(scope="session")
def tally(request):
    """Counts what held: tally("row of the table", 17, slowest_s=0.2)."""
    return request.config.stash[COUNTED]


@pytest.fixture
def quiet_logging():
    """Puts back what a command of the kernel changes about logging."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """Chooses one thread: tests run beside others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 1, raising=False)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def weights_once(tmp_path_factory):
    """A small real network's weights."""
    return write_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")
