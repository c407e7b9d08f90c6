import os
from pathlib import Path

import pytest
from scenes import run_python

from surface_kernel import machine


def test_the_machine_has_memory_and_cores():
    assert 10**8 < machine.machine_bytes() < 10**15
    assert 1 <= machine.cores() <= os.cpu_count()


@pytest.mark.parametrize(("text", "expected"), [("12345\n", 12345), ("max\n", None), (str(10**18), None)])
def test_a_containers_limit_counts_where_it_is_less(monkeypatch, text, expected):
    all_of_it = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    monkeypatch.setattr(Path, "read_text", lambda path: text)
    assert machine.machine_bytes() == (expected or all_of_it)


def test_it_is_asked_without_torch():
    done = run_python(
        "import sys; from surface_kernel import machine; print(sorted({'torch', 'numpy'} & {*sys.modules}))"
    )
    assert done.stdout == "[]\n", done.stderr
