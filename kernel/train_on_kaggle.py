"""The code that trains on Kaggle: finds the bundle of code and settings, installs it, and resumes the run.

It needs the standard library and submit.py, which finds, verifies and installs; Kaggle receives one file with both.
`run` tells the story. Exit code 0: the run's files are in the output, and the verdict is "finished", or "continues"
where the time budget ended first. Exit code 1: "failed", after a line that says why. The last line is the one for other
programs, as submit.py prints it.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import submit
from submit import Result, SubmitError, say

FORMAT = "surface-training/1"
# Kaggle ends a session at 12 h; what is left is for a validation that takes longer than planned, and for the output.
BUDGET_S = 11.25 * 3600.0
GRACE_S = 900.0
SETTINGS, STATE, WEIGHTS = "settings.toml", "state.safetensors", "weights.safetensors"  # as `fit` leaves them


def run(place: argparse.Namespace, started_s: float, result: Result) -> None:
    """Go from Kaggle's mounts to a run that is further, and note in `result` what came of it."""
    for folder in (place.working, place.scratch):
        folder.mkdir(parents=True, exist_ok=True)
    bundle = submit.find_bundle(place.input, FORMAT)
    data = find_data(place.input)
    manifest = submit.verified_manifest(bundle, FORMAT, result)
    # Flat at the end. Until then it has a folder of its own: `fit` takes none in which others left something.
    out = place.working / "run"
    resumed = take_run(place.input, out, place.after_step)

    environment = submit.child_environment(place.scratch) | {"SURFACE_COMMIT": manifest.get("commit") or ""}
    submit.install(bundle, manifest, site=place.scratch / "site", environment=environment)
    gpus = count_gpus(environment)
    words = ["fit", "--settings", str(bundle / manifest["settings"]), "--data", str(data)]
    words += ["--fold", str(manifest["fold"]), "--out", str(out), *(["--resume"] if resumed else [])]
    left_s = started_s + place.budget_s - time.monotonic()
    say(f"training on {gpus} GPUs for at most {left_s:.0f} s")
    code = submit.run_engine(
        [*launcher(gpus), "-m", "surface_train", *words, "--budget-s", f"{left_s:.1f}"],
        environment=environment,
        folder=place.scratch,
        limit_s=left_s + GRACE_S,
        stops=submit.catch_signals(),
    )
    files = flatten(out, place.working)
    if code:
        raise SubmitError("fit_failed", f"fit: expected exit code 0, got {code}; its last lines say why")
    if code is None:
        late = f"{GRACE_S:.0f} s after its budget or by a signal"
        raise SubmitError("fit_stopped", f"fit: expected it to end by itself, it was stopped {late}")
    result.files, result.step = files, step_of(place.working)
    finished = provenance(place.working / WEIGHTS).get("finished") is True
    result.verdict = "finished" if finished else "continues"
    say(f"verdict: {result.verdict}")


def find_data(top: Path) -> Path:
    """Return the competition's folder, which has cases to learn from."""
    data = submit.find_competition(top)
    if not (data / "train.csv").is_file():
        raise SubmitError("no_cases", f"{data}: expected train.csv with cases to learn from, got no such file")
    return data


def take_run(top: Path, out: Path, after_step: int) -> bool:
    """Copy the mounted run to where it is resumed; return whether there is one.

    after_step: the step that it must have reached; 0 where none is mounted. Twelve hours would be lost on another one.
    """
    runs = [path for path in submit.folders_below(top) if (path / STATE).is_file() and (path / SETTINGS).is_file()]
    runs = submit.distinct(runs, STATE)
    steps = [step_of(folder) for folder in runs]
    if steps != ([after_step] if after_step else []):
        expected = f"one run at step {after_step}" if after_step else "no run"
        raise SubmitError("other_run", f"{top}: expected {expected}, got runs at the steps {steps}; run publish again")
    say(f"resuming after step {after_step}" if after_step else "starting from scratch, after step 0")
    for folder in runs:
        out.mkdir()
        for path in filter(Path.is_file, folder.iterdir()):
            shutil.copyfile(path, out / path.name)
    return bool(runs)


def step_of(run: Path) -> int:
    """Return the step that a run has reached."""
    return int(json.loads(header(run / STATE)["progress"])["step"])


def header(path: Path) -> dict[str, Any]:
    """Return a safetensors file's metadata: its length, 8 bytes, then JSON (huggingface/safetensors)."""
    with path.open("rb") as stream:
        content = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return dict(content["__metadata__"])


def provenance(weights: Path) -> dict[str, Any]:
    """Return what a weights file says of the run that made it."""
    return dict(json.loads(header(weights)["provenance"]))


def count_gpus(environment: dict[str, str]) -> int:
    """Ask torch how many GPUs it sees; none is an error, as days would go by on a CPU."""
    command = [sys.executable, "-c", "import torch; print(torch.cuda.device_count())"]
    asked = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", errors="replace")
    answer = (asked.stdout.split() or asked.stderr.splitlines() or ["nothing"])[-1]
    if not answer.isdigit() or answer == "0":
        raise SubmitError(
            "no_gpu", f"torch: expected one or two GPUs, got {answer!r}; turn the kernel's accelerator on"
        )
    return int(answer)


def launcher(gpus: int) -> list[str]:
    """Return what starts a module in one process, or in one for each GPU as `torchrun` does."""
    several = ["-m", "torch.distributed.run", "--nproc-per-node", str(gpus)]
    return [sys.executable, *(several if gpus > 1 else [])]


def flatten(run: Path, working: Path) -> dict[str, str]:
    """Move a run's files into the output itself, and return their sha256 by name.

    What is in folders is drawn again from log.csv. The digests go into the log, which comes by another way than the
    files do.
    """
    if not run.is_dir():
        return {}
    files = {}
    for path in sorted(run.iterdir()):
        if path.is_file() and path.suffix != ".partial":
            files[path.name] = submit.sha256(path)
            path.replace(working / path.name)
    shutil.rmtree(run)
    return files


def main(words: list[str] | None = None) -> int:
    """Read the command line and do what it says; returns the exit code."""
    started_s = time.monotonic()
    parser = argparse.ArgumentParser(description="From mounted code, data and run to a run that is further, offline.")
    submit.places(parser, BUDGET_S)
    parser.add_argument("--after-step", type=int, default=0, help="the step that the mounted run has reached")
    place = submit.parse(parser, words)
    result = Result(program="train", verdict="failed", after_step=place.after_step)
    try:
        run(place, started_s, result)
    except (SubmitError, OSError, ValueError, KeyError) as error:
        submit.refuse(result, "failed", error)
    say(result.line())
    return 1 if result.verdict == "failed" else 0
