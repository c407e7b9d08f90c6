import os

import pytest
from scenes import run_python

from surface_kernel import machine


def test_the_machine_has_memory_and_cores():
    assert 10**8 < machine.machine_bytes() < 10**15
    assert 1 <= machine.cores() <= os.cpu_count()


ALL_OF_IT = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
MOUNTS = {
    1: "30 20 0:30 {top} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
    2: "31 20 0:31 {top} /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
}
LIMITS = {1: "memory.limit_in_bytes", 2: "memory.max"}
FOLDERS = {1: "sys/fs/cgroup/memory", 2: "sys/fs/cgroup"}


def system(root, version, own, limits, top="/"):
    """Lay out /proc and /sys of a process in the cgroup `own`. limits: of cgroups, by their paths below the mount."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text(MOUNTS[version].format(top=top))
    line = f"4:cpu,memory:{own}\n" if version == 1 else f"0::{own}\n"
    (root / "proc/self/cgroup").write_text(f"9:name=systemd:/x\n{line}")
    for path, text in limits.items():
        folder = root / FOLDERS[version] / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LIMITS[version]).write_text(f"{text}\n")
    return root


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("own", "limits", "expected"),
    [
        ("/", {"": "12345"}, 12345),  # a container with a namespace of its own
        ("/", {"": "max"}, None),
        ("/", {"": str(10**18)}, None),  # more than there is
        ("/slurm/job_7/step_0", {"slurm": "max", "slurm/job_7": "2000", "slurm/job_7/step_0": "max"}, 2000),
        ("/a/b", {"": "max", "a": "4000", "a/b": "3000"}, 3000),
        ("/a/b", {"": "max", "a": "3000", "a/b": "4000"}, 3000),
        ("/gone", {"": "5000"}, 5000),  # the host's path, where only the container's part is mounted
    ],
)
def test_the_least_limit_from_the_own_cgroup_upwards_counts(tmp_path, version, own, limits, expected):
    assert machine.machine_bytes(system(tmp_path, version, own, limits)) == (expected or ALL_OF_IT)


def test_a_mount_may_begin_further_down(tmp_path):
    root = system(tmp_path, 2, "/docker/12/job", {"": "9000", "job": "8000"}, top="/docker/12")
    assert machine.machine_bytes(root) == 8000


def test_without_any_file_it_is_the_machines(tmp_path):
    assert machine.machine_bytes(tmp_path) == ALL_OF_IT
    assert machine.killed_for_memory(tmp_path) is None


def test_processes_killed_for_memory_are_counted(tmp_path):
    root = system(tmp_path, 2, "/a", {"a": "max"})
    (root / "sys/fs/cgroup/a/memory.events").write_text("low 0\noom 5\noom_kill 3\n")
    assert machine.killed_for_memory(root) == 3
    (root / "proc/vmstat").write_text("pgfault 7\noom_kill 4\n")
    assert machine.killed_for_memory(root) == 4


def test_there_is_no_cache_where_nothing_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert machine.cache_folder() == tmp_path / "cache" / "vesuvius-surface"
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert machine.cache_folder() is None


def test_it_is_asked_without_torch():
    done = run_python(
        "import sys; from surface_kernel import machine; print(sorted({'torch', 'numpy'} & {*sys.modules}))"
    )
    assert done.stdout == "[]\n", done.stderr
