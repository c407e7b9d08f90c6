"""What the machine has for this process, asked without torch."""

import os
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")


def cores() -> int:
    """Return how many cores this process may use."""
    counted = os.process_cpu_count() if hasattr(os, "process_cpu_count") else len(os.sched_getaffinity(0))
    return counted or 1


def machine_bytes(root: Path = _ROOT) -> int:
    """Return the memory for this process and all beside it.

    That is the machine's, or the least limit of this process's own cgroup and of all above it: of a container, of a job
    of Slurm, of a slice of systemd. root: where /proc and /sys are.
    """
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for folder in _memory_cgroups(root):
        for name in ("memory.max", "memory.limit_in_bytes"):  # of version 2 and 1
            text = _read(folder / name).strip()
            if text.isdecimal():
                memory_bytes = min(memory_bytes, int(text))
    return memory_bytes


def killed_for_memory(root: Path = _ROOT) -> int | None:
    """Return how many processes the system has killed for their memory; None where it does not count them."""
    texts = [_read(root / "proc/vmstat")]
    for folder in _memory_cgroups(root):
        texts += [_read(folder / name) for name in ("memory.events", "memory.oom_control")]
    lines = (line.split() for text in texts for line in text.splitlines())
    return max((int(line[1]) for line in lines if len(line) == 2 and line[0] == "oom_kill"), default=None)


def _memory_cgroups(root: Path) -> Iterator[Path]:
    """Yield the folders of this process's memory cgroup and of those above it, in every hierarchy there is."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, own = line.split(":", 2)
        version = 2 if not controllers else 1 if "memory" in controllers.split(",") else 0
        for mount, top in _mounts(root, version):
            # A container may see the whole path of its cgroup though its mount begins further down, or the other way
            # round: what is not there is skipped on the way up.
            inside = own.removeprefix(top.rstrip("/")) if own.startswith(top) else own
            folder = mount / inside.strip("/")
            yield from (each for each in (folder, *folder.parents) if each.is_relative_to(mount) and each.is_dir())


def _mounts(root: Path, version: int) -> Iterator[tuple[Path, str]]:
    """Yield where the hierarchies of cgroups of a version with memory are mounted, and which part of them that is."""
    for line in _read(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        top, mount = before.split()[3:5]
        kind, _, options = after.split(maxsplit=2)
        if (kind, version) == ("cgroup2", 2) or ((kind, version) == ("cgroup", 1) and "memory" in options.split(",")):
            yield root / mount.lstrip("/"), top


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def cache_folder() -> Path | None:
    """Return the user's folder for what need not be made twice, made if need be; None where nothing can be kept."""
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = base / "vesuvius-surface"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: a user without a home
        return None
    return folder if os.access(folder, os.W_OK) else None


def cpu_flags() -> set[str]:
    """Return the words of /proc/cpuinfo, the CPU's features among them; empty where there is no such file."""
    return set(_read(Path("/proc/cpuinfo")).split())
