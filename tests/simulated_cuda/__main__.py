"""Run the tests that need a GPU on a simulated one: python tests/simulated_cuda [arguments of pytest]

A pytest of its own, since a process either has the simulation under its torch or not. It runs this folder and whatever
is marked `gpu` elsewhere. Where the simulation cannot be had all of them are skipped, by name; with
SIMULATED_CUDA_REQUIRED in the environment that is an error.
"""

import os
import sys
from pathlib import Path

import build

HERE = Path(__file__).resolve().parent


def main(words: list[str]) -> None:
    """Build what is missing and become pytest."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    try:
        environment["SIMULATED_CUDA_LIBRARIES"] = str(build.built())
    except build.NotBuiltError as error:
        if os.environ.get("SIMULATED_CUDA_REQUIRED"):
            sys.exit(f"error: {error}")
        environment["SIMULATED_CUDA_MISSING"] = str(error)
    else:
        environment["SIMULATED_CUDA"] = "on"
        path = [str(HERE / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(path)
        words = ["-p", "simulated_gpu.plugin", *words]
    marked = [path for path in sorted(HERE.parent.rglob("test_*.py")) if "pytest.mark.gpu" in path.read_text()]
    places = [] if any(Path(word.split("::")[0]).exists() for word in words) else [HERE, *marked]
    command = [sys.executable, "-m", "pytest", *words, *map(str, places)]
    os.chdir(HERE.parents[1])
    os.execve(sys.executable, command, environment)


if __name__ == "__main__":
    main(sys.argv[1:])
