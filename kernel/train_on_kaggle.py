"""The code that trains on Kaggle: finds the bundle of code and settings, installs it, and goes on with the run.

It needs the standard library and submit.py, which finds, verifies and installs; Kaggle receives one file with both.
`run` tells the story. Exit code 0: the run's files lie in the output, and the verdict printed last says "finished", or
"continues" where the time was over first. Exit code 1: "failed", after a line that says why.
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
from submit import SubmitError, say

FORMAT = "surface-training/1"
# Kaggle ends a session at 12 h; what is left is for checking the weights a little longer than planned, and the output.
BUDGET_S = 11.25 * 3600.0
GRACE_S = 900.0
SETTINGS, STATE, WEIGHTS = "settings.toml", "state.safetensors", "weights.safetensors"  # as `fit` leaves them


def run(place: argparse.Namespace, started_s: float) -> str:
    """Go from Kaggle's mounts to a run that is further; give the verdict."""
    for folder in (place.working, place.scratch):
        folder.mkdir(parents=True, exist_ok=True)
    bundle = submit.find_bundle(place.input, FORMAT)
    data = find_data(place.input)
    if findings := submit.check_bundle(bundle, FORMAT):
        submit.print_findings(findings)
        raise SubmitError(f"{bundle}: found {len(findings)} faults, wanted none; run publish again")
    manifest = submit.read_manifest(bundle, FORMAT)
    say(f"bundle verified: {len(manifest['files'])} files, manifest sha256 {submit.sha256(bundle / 'manifest.json')}")
    # Flat at the end. Until then it has a folder of its own: `fit` takes none in which others left something.
    out = place.working / "run"
    resumed = take_run(place.input, out, place.after_step)

    environment = submit.child_environment(place.scratch) | {"SURFACE_COMMIT": manifest.get("commit") or ""}
    submit.install(bundle, manifest, place.scratch / "site", environment)
    gpus = count_gpus(environment)
    words = ["fit", "--settings", str(bundle / manifest["settings"]), "--data", str(data)]
    words += ["--fold", str(manifest["fold"]), "--out", str(out), *(["--resume"] if resumed else [])]
    left_s = started_s + place.budget_s - time.monotonic()
    say(f"training on {gpus} GPUs for {left_s:.0f} s at most")
    command = [*launcher(gpus), "-m", "surface_train", *words, "--budget-s", f"{left_s:.1f}"]
    code = submit.run_engine(command, environment, place.scratch, left_s + GRACE_S, submit.heed_stops())
    flatten(out, place.working)
    if code:
        raise SubmitError(f"fit ended with exit code {code}, wanted 0; its last lines say why")
    if code is None:
        raise SubmitError(f"fit was stopped, {GRACE_S:.0f} s after its budget or by a signal, wanted its own end")
    return "finished" if provenance(place.working / WEIGHTS).get("finished") is True else "continues"


def find_data(top: Path) -> Path:
    """Return the competition's folder, which has cases to learn from."""
    data = submit.find_competition(top)
    if not (data / "train.csv").is_file():
        raise SubmitError(f"{data}: found no train.csv, wanted the competition's cases to learn from")
    return data


def take_run(top: Path, out: Path, after_step: int) -> bool:
    """Copy the mounted run to where it goes on, and say whether there is one.

    after_step: the step that it must have reached; 0 where none is mounted. Twelve hours would be lost on another one.
    """
    folders = [path for path in submit.folders_below(top) if (path / STATE).is_file() and (path / SETTINGS).is_file()]
    found = submit.different(folders, STATE)
    steps = [json.loads(header(path / STATE)["progress"])["step"] for path in found]
    if steps != ([after_step] if after_step else []):
        wanted = f"one at step {after_step}" if after_step else "none"
        raise SubmitError(f"{top}: found runs at the steps {steps}, wanted {wanted}; run publish again")
    say(f"going on after step {after_step}" if after_step else "beginning anew, after step 0")
    for folder in found:
        out.mkdir()
        for path in filter(Path.is_file, folder.iterdir()):
            shutil.copyfile(path, out / path.name)
    return bool(found)


def header(path: Path) -> dict[str, Any]:
    """Return what a safetensors file says of itself: its length, 8 bytes, then JSON (huggingface/safetensors)."""
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
    said = (asked.stdout.split() or asked.stderr.splitlines() or ["nothing"])[-1]
    if not said.isdigit() or said == "0":
        raise SubmitError(f"torch: found {said!r} GPUs, wanted one or two; see whether the kernel's accelerator is on")
    return int(said)


def launcher(gpus: int) -> list[str]:
    """Return what starts a module in one process, or in one for each GPU as `torchrun` does."""
    several = ["-m", "torch.distributed.run", "--nproc-per-node", str(gpus)]
    return [sys.executable, *(several if gpus > 1 else [])]


def flatten(run: Path, working: Path) -> None:
    """Put a run's files into the output itself; what lies in folders is drawn again from log.csv.

    Their digests go into the log, which comes by another way than they do.
    """
    if run.is_dir():
        for path in sorted(run.iterdir()):
            if path.is_file() and path.suffix != ".partial":
                say(f"left {submit.sha256(path)} {path.name}")
                path.replace(working / path.name)
        shutil.rmtree(run)


def main(words: list[str] | None = None) -> int:
    """Read the command line and do what it says; returns the exit code."""
    started_s = time.monotonic()
    parser = argparse.ArgumentParser(description="From mounted code, data and run to a run that is further, offline.")
    parser.add_argument("--input", type=Path, default=submit.INPUT, help="where everything is mounted")
    parser.add_argument("--working", type=Path, default=submit.WORKING, help="where the run goes")
    parser.add_argument("--scratch", type=Path, default=submit.SCRATCH, help="where everything else goes")
    parser.add_argument("--budget-s", type=float, default=BUDGET_S, help="wall time for all, in seconds")
    parser.add_argument("--after-step", type=int, default=0, help="the step that the mounted run has reached")
    place = parser.parse_args(words)
    for name in ("input", "working", "scratch"):
        setattr(place, name, getattr(place, name).absolute())
    try:
        verdict = run(place, started_s)
    except (SubmitError, OSError, ValueError, KeyError) as error:
        say(f"error: {error}" if isinstance(error, SubmitError) else f"error: {type(error).__name__}: {error}")
        verdict = "failed"
    say(f"verdict: {verdict}")
    return 1 if verdict == "failed" else 0
