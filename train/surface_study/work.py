"""The study's pieces of work, side by side: one process a piece, one core a process."""

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
from surface_study.plan import Arm, Plan

log = logging.getLogger("surface_study")


class WorkError(RuntimeError):
    """Pieces of work that failed; the message names them and their logs."""


@dataclass(frozen=True)
class Piece:
    """One piece: an arm's training ("train"), or its readings ("read"), and the file that says it is done."""

    verb: str
    arm: Arm

    @property
    def leaves(self) -> str:
        """Give the name of the file that the piece leaves in the arm's folder."""
        return {"train": arms.RESULT, "read": arms.READ}[self.verb]

    def do(self, work: Path, plan: Plan) -> None:
        """Do it in this process."""
        {"train": arms.train, "read": arms.read}[self.verb](work, plan, self.arm)


def pieces(plan: Plan, verb: str) -> list[Piece]:
    """List a plan's pieces of one kind."""
    return [Piece(verb, arm) for arm in {"train": plan.arms, "read": plan.read_arms}[verb]()]


def do(work: Path, plan: Plan, wanted: Sequence[Piece], workers: int, quick: bool) -> None:
    """Do what is not done yet, `workers` processes at a time, or in this process with 0.

    Raises WorkError when pieces failed, after all others are done.
    """
    missing = [piece for piece in wanted if not arms.done(work, plan, piece.arm, piece.leaves)]
    log.info("%d of %d to do: %s", len(missing), len(wanted), ", ".join(piece.arm.name for piece in missing) or "none")
    if workers == 0:
        for piece in missing:
            piece.do(work, plan)
        return
    cores: queue.SimpleQueue[int] = queue.SimpleQueue()
    allowed = sorted(os.sched_getaffinity(0))
    for place in range(workers):
        cores.put(allowed[place % len(allowed)])

    def run(piece: Piece) -> str:
        core = cores.get()
        try:
            return _run(work, piece, core, quick)
        finally:
            cores.put(core)

    with ThreadPoolExecutor(workers) as pool:
        bar = tqdm(pool.map(run, missing), total=len(missing), unit="network", disable=None)
        failed = [complaint for complaint in bar if complaint]
    if failed:
        raise WorkError("; ".join(failed))


def _run(work: Path, piece: Piece, core: int, quick: bool) -> str:
    """Do a piece in a process of its own; give a complaint, empty when it went well."""
    place = arms.folder(work, piece.arm).with_suffix(f".{piece.verb}.log")
    command = [sys.executable, "-m", "surface_study", "--work", str(work), "--core", str(core)]
    command += ["--quick"] if quick else []
    command += ["--piece", piece.verb, piece.arm.preset, piece.arm.label_2, str(piece.arm.seed)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    with place.open("a") as file:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment).returncode
    return "" if code == 0 else f"{piece.verb} {piece.arm.name}: found exit code {code}, wanted 0: see {place}"
