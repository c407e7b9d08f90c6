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
HEAD = ["| fault | tried, all held | worst seen | on |", "|---|---|---|---|"]
FAILED = set()


class Tally:
    """Counts what was tried of every row, and the worst figure that was seen.

    A test calls it after its assertions: what is counted has held. A row of a test that fails is left out.
    """

    def __init__(self):
        self.tried = defaultdict(int)
        self.worst = defaultdict(dict)
        self.tests = defaultdict(set)
        self.test, self.failed = "", set()

    def __call__(self, row, tried=1, **worst):
        self.tried[row] += tried
        self.tests[row].add(self.test)
        for name, value in worst.items():
            self.worst[row][name] = max(value, self.worst[row].get(name, value))

    def rows(self):
        """Gives the lines of the table by their row, those that held."""
        today = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
        lines = {}
        for row in self.tried:
            worst = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in self.worst[row].items())
            if not self.tests[row] & self.failed:
                lines[row] = f"| {row} | {self.tried[row]:,} | {worst} | {today} |"
        return lines


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="the long form of the faults: about an hour")
    parser.addoption("--write-table", action="store_true", help="put the counts into docs/reliability.md")


def pytest_configure(config):
    config.stash[COUNTED] = Tally()


def pytest_runtest_setup(item):
    item.config.stash[COUNTED].test = item.nodeid


def pytest_runtest_logreport(report):
    if report.failed:
        FAILED.add(report.nodeid)


def pytest_sessionfinish(session):
    """Puts the rows into the document, in place of those of the same name."""
    if not session.config.getoption("--write-table", default=False):
        return
    tally = session.config.stash[COUNTED]
    tally.failed = FAILED
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    table, _, after = rest.partition(END)
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in table.splitlines() if line.startswith("| ")}
    rows = {row: line for row, line in rows.items() if row != HEAD[0].split(" | ")[0].removeprefix("| ")} | tally.rows()
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    cores, python = len(os.sched_getaffinity(0)), platform.python_version()
    machine = f"{cpu.group(1) if cpu else platform.machine()}, {cores} cores, Python {python}, `scripts/faults.sh`:"
    lines = [BEGIN, machine, "", *HEAD, *(rows[row] for row in sorted(rows)), END]
    DOCUMENT.write_text(before + "\n".join(lines) + after)


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
