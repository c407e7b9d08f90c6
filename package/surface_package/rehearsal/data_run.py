"""The run with the competition's data, judged as the scorer would and against what Kaggle's machine has."""

import json
import logging
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from surface_kernel.volumes.header import read_header
from surface_package.build import protocol
from surface_package.rehearsal import limits, mixed
from surface_package.rehearsal.masks import check_masks
from surface_package.rehearsal.rehearsal_record import RehearsalOutcome
from surface_package.rehearsal.sandbox import SUBMISSION, Sandbox

REPORT = "run_report.json"
log = logging.getLogger("surface_package")


class ReportError(ValueError):
    """The engine's report is absent, or not as we read it."""


@dataclass(frozen=True, kw_only=True)
class ReportedVolume:
    """What the engine's report says of one volume."""

    case: str
    warning: str
    """What is suspicious about the prediction; empty where nothing is."""
    seconds: float
    """That its networks took."""


def run_with_data(sandbox: Sandbox, competition: Path, manifest_sha256: str) -> RehearsalOutcome:
    """Run submit.py on the data and the small volume; findings name the run."""
    log.info("a run with the data, and a small volume of another shape")
    run = sandbox.run_submit()
    findings = sandbox.check_submission(
        run,
        verdict=protocol.COMPLETE,
        meaning="every volume predicted at the first start",
        manifest_sha256=manifest_sha256,
    )
    findings += run.left
    outcome = RehearsalOutcome(wall_s=round(run.wall_s, 3), peak_bytes=run.peak_bytes)
    log.info("took %.1f s, at most %.0f MB", run.wall_s, run.peak_bytes / 1e6)
    if run.result and run.result.files:  # submit.py vouches for the zip, not for what is in the masks
        findings += check_masks(sandbox.working / SUBMISSION, competition)
        findings += limits.memory_findings(run.peak_bytes)
        outcome, more = _judge_report(outcome, sandbox.working, competition, judge_time=not findings)
        findings += more
    return replace(outcome, findings=tuple(f"{finding} (the run with the data)" for finding in findings))


def _judge_report(
    outcome: RehearsalOutcome, working: Path, competition: Path, *, judge_time: bool
) -> tuple[RehearsalOutcome, list[str]]:
    """Judge what the engine says of every volume and, where asked, how long the hidden test would take."""
    with zipfile.ZipFile(working / SUBMISSION) as archive:
        cases = [name.removesuffix(".tif") for name in archive.namelist() if name != f"{mixed.CASE}.tif"]
    outcome = replace(outcome, volumes=len(cases))
    if not cases:
        return outcome, ["test.csv: expected at least one id, got none"]
    try:
        volumes, device = read_report(working / REPORT)
    except ReportError as error:
        return outcome, [str(error)]
    reported = [volume for volume in volumes if volume.case != mixed.CASE]  # which is noise
    if missing := sorted(set(cases) - {volume.case for volume in reported}):
        return outcome, [f"{REPORT}: expected every volume, got none of {', '.join(missing)}"]
    findings = _uniform(reported)
    if judge_time and not findings:
        return _judge_time(outcome, competition, volumes=reported, device=device)
    return outcome, findings


def _judge_time(
    outcome: RehearsalOutcome, competition: Path, *, volumes: Sequence[ReportedVolume], device: str
) -> tuple[RehearsalOutcome, list[str]]:
    """Scale a run to the hidden test; without the small volume, of which a whole tile was computed."""
    images = [competition / "test_images" / f"{reported.case}.tif" for reported in volumes]
    scaled_s = limits.scaled_s(
        wall_s=outcome.wall_s,
        voxels=sum(math.prod(read_header(path).shape_zyx) for path in images),
        seconds=[reported.seconds for reported in volumes],
        workers=limits.workers(device),
    )
    line, findings = limits.judge_time(scaled_s, device)
    log.info("%s", line)
    return replace(outcome, scaled_s=round(scaled_s, 1), device=device), findings


def read_report(path: Path) -> tuple[list[ReportedVolume], str]:
    """Return what the engine's report says of its volumes, and the device's name.

    Raises:
        ReportError: there is none, or it lacks what we read of it.
    """
    try:
        entries = json.loads(path.read_bytes())
        volumes = [
            ReportedVolume(case=str(entry["case"]), warning=str(entry["warning"]), seconds=float(entry["seconds"]))
            for entry in entries["volumes"]
        ]
        return volumes, str(entries["how"]["device"]["name"])
    except FileNotFoundError:
        raise ReportError(f"{path.name}: no such file; expected the engine's report on every volume") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        got = f"{type(error).__name__}: {error}"
        raise ReportError(f"{path.name}: expected the engine's report on every volume, got {got}") from error


def _uniform(volumes: Sequence[ReportedVolume]) -> list[str]:
    """Return a finding for every volume whose prediction says nothing, as the engine warns of it."""
    return [
        f"volume {reported.case}: {reported.warning}; run `surface_train audit` on the weights"
        for reported in volumes
        if reported.warning
    ]
