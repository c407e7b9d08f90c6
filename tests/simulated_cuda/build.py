"""Compile the simulated CUDA once into the Python environment, for the torch that is installed there.

The folder's name is a digest of the sources and of torch's version: another torch, or another line, is another build.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

SOURCES = Path(__file__).parent / "library"
HOOKS, DEVICE = "libsimulated_hooks.so", "simulated_device.so"


class NotBuiltError(RuntimeError):
    """A simulated CUDA that cannot be had here; the message says why."""


def built() -> Path:
    """Return the folder of both libraries, compiled if they were not yet. Raises NotBuiltError."""
    version = importlib.metadata.version("torch")
    torch = Path(importlib.util.find_spec("torch").origin).parent
    if (torch / "lib" / "libtorch_cuda.so").exists():
        raise NotBuiltError(f"torch {version} is a CUDA build: the simulation needs the CPU's")
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise NotBuiltError("expected a C++ compiler on PATH, got none: install g++")
    sources = [SOURCES / "hooks.cpp", SOURCES / "device.cpp"]
    told = f"{version} {sys.version} {[path.read_text() for path in sources]}"
    folder = Path(sys.prefix) / "simulated_cuda" / hashlib.sha256(told.encode()).hexdigest()[:16]
    if not folder.is_dir():
        _compile(compiler, torch, folder)
    return folder


def _compile(compiler: str, torch: Path, folder: Path) -> None:
    print(f"compiling the simulated CUDA into {folder}: a minute, once", file=sys.stderr)
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    includes = [torch / "include", torch / "include/torch/csrc/api/include", sysconfig.get_paths()["include"]]
    common = [compiler, "-O1", "-std=c++20", "-shared", "-fPIC", *(f"-I{path}" for path in includes)]
    libraries = [f"-L{torch / 'lib'}", "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{torch / 'lib'}"]
    device = ["-DTORCH_EXTENSION_NAME=simulated_device", "-ltorch", "-ltorch_python", f"-L{partial}"]
    commands = [
        [*common, str(SOURCES / "hooks.cpp"), "-o", str(partial / HOOKS), *libraries],
        [
            *(*common, str(SOURCES / "device.cpp"), "-o", str(partial / DEVICE), *libraries, *device),
            *("-lsimulated_hooks", "-Wl,-rpath,$ORIGIN"),
        ],
    ]
    try:
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise NotBuiltError(f"{command[0]}: exit code {done.returncode}: {done.stderr[-2000:]}")
        partial.replace(folder)
    except OSError:  # another process was faster
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
