"""The study's pieces of work, in parallel: one process per piece, one core per process."""

import logging
import os
import queue
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from surface_study import arm as arms
from surface_study.plan import Arm, StudyPlan

log = logging.getLogger("surface_study")


class WorkError(RuntimeError):
    """Raised when pieces of work failed; the message names them and their logs."""


@dataclass(frozen=True)
class Piece:
    """One piece of work: an arm's training ("train"), or its ways of inference ("read")."""

    kind: str
    arm: Arm

    def output(self, work: Path) -> Path:
        """Return the file that the piece writes last."""
        return arms.folder(work, self.arm) / {"train": arms.RESULT, "read": arms.READ}[self.kind]

    def run(self, work: Path, plan: StudyPlan) -> None:
        """Do the piece in this process."""
        {"train": arms.train, "read": arms.read}[self.kind](work, plan, self.arm)


def pieces(plan: StudyPlan, kind: str) -> list[Piece]:
    """Return a plan's pieces of one kind."""
    return [Piece(kind, arm) for arm in {"train": plan.arms, "read": plan.read_arms}[kind]()]


def run_pieces(todo: Sequence[Piece], *, work: Path, plan: StudyPlan, workers: int, quick: bool) -> None:
    """Run the pieces that are not done yet.

    Args:
        todo: The pieces to run; those whose output exists and belongs to the plan are skipped.
        work: The folder of the study.
        plan: The sizes.
        workers: Processes at a time; 0 runs everything in this process.
        quick: Whether the plan is that of --quick, for the command line of the processes.

    Raises:
        WorkError: If pieces failed, after all others are done.
    """
    missing = [piece for piece in todo if not arms.is_done(piece.output(work), plan)]
    log.info("%d of %d to do: %s", len(missing), len(todo), ", ".join(piece.arm.name for piece in missing) or "none")
    if workers == 0:
        for piece in missing:
            piece.run(work, plan)
        return
    # A queue of cores to pin processes to: unpinned, those of several threads would slow one another down.
    cores: queue.SimpleQueue[int] = queue.SimpleQueue()
    allowed = sorted(os.sched_getaffinity(0))
    for place in range(workers):
        cores.put(allowed[place % len(allowed)])

    def run(piece: Piece) -> str:
        core = cores.get()
        try:
            return _run_process(piece, work=work, core=core, quick=quick)
        finally:
            cores.put(core)

    with ThreadPoolExecutor(workers) as pool:
        bar = tqdm(pool.map(run, missing), total=len(missing), unit="network", disable=None)
        errors = [error for error in bar if error]
    if errors:
        raise WorkError("; ".join(errors))


def _run_process(piece: Piece, *, work: Path, core: int, quick: bool) -> str:
    """Run a piece in a process of its own; return an error message, empty on success."""
    log_file = arms.folder(work, piece.arm).with_suffix(f".{piece.kind}.log")
    command = [sys.executable, "-m", "surface_study", "--work", str(work), "--core", str(core)]
    command += ["--quick"] if quick else []
    command += ["--piece", piece.kind, piece.arm.preset, piece.arm.label_2, str(piece.arm.seed)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    with log_file.open("a") as file:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment).returncode
    return "" if code == 0 else f"{piece.kind} {piece.arm.name}: expected exit code 0, got {code}; see {log_file}"
