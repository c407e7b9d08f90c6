"""The rehearsal: submit.py exactly as pushed, in a tree like Kaggle's, offline and with only Kaggle's packages.

First a run with the competition's data and a small volume made for it, judged as the scorer would and against what
Kaggle's machine has of memory and time. Then every other Python that is found installs the bundle (`pythons`), and
submit.py meets every way of mounting and what can be wrong with mounts (`faults`). Where something is found, what
comes after it is left out.
"""

import datetime
import json
import logging
import math
import platform
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from surface_kernel import disk
from surface_kernel.volumes.header import read_header
from surface_package.build import manifest
from surface_package.rehearsal import enclosure, faults, image, limits, mixed, pythons
from surface_package.rehearsal.stage import (
    AUDIT_HOOK,
    BUNDLE_AT,
    COMPETITION_AT,
    NAMESPACES,
    NESTED,
    SUBMISSION,
    Stage,
    check_masks,
)
from surface_package.target import DATASET_FILE

REPORTS = ["run_report.json", "run_report.txt"]
log = logging.getLogger("surface_package")


class RehearsalError(ValueError):
    """A rehearsal that cannot begin; the message says what was found and what was wanted."""


@dataclass(frozen=True)
class Outcome:
    """What the run with the competition's data took, what was tried besides, and what was found in all of it.

    wall_s: from submit.py's start to its end. peak_bytes: the largest memory of its process tree. volumes: how many
    masks of the data it made. scaled_s: what the hidden test would take at its speed, on `device`. pythons: versions
    of the other Pythons that installed the bundle. faults: the mounts that submit.py met.
    """

    wall_s: float = 0.0
    peak_bytes: int = 0
    volumes: int = 0
    scaled_s: float = 0.0
    device: str = ""
    pythons: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record(Outcome):
    """A rehearsal, kept as BUNDLE.rehearsed.json. manifest_sha256: of which bundle. passed: nothing was found.

    full: whether every good way of mounting predicted.
    """

    manifest_sha256: str = ""
    passed: bool = False
    full: bool = False
    date: str = ""
    isolation: str = ""
    python: str = ""

    def write(self, path: Path) -> None:
        """Write the record so that it appears complete or not at all."""
        disk.put(path, (json.dumps(asdict(self), indent=2, sort_keys=True) + "\n").encode())


def record_path(bundle: Path) -> Path:
    """Return where a bundle's record lies: beside it."""
    whole = bundle.resolve()
    return whole.with_name(whole.name + ".rehearsed.json")


def rehearse(
    bundle: Path,
    data: Path,
    out: Path | None = None,
    isolation: str | None = None,
    others: Sequence[Path] = (),
    full: bool = False,
) -> Record:
    """Run a bundle on a competition folder as Kaggle would, write its record beside it and return it.

    out: a folder for submission.zip (of a passed rehearsal only, and of the data alone) and the run's report.
    isolation: NAMESPACES where the machine allows them, else AUDIT_HOOK. others: Pythons to try besides those that are
    found. full: let every good way of mounting predict the small volume. Raises RehearsalError, ManifestError,
    ImageError, PythonError where it cannot begin.
    """
    if not (data / "test.csv").is_file() or not (data / "test_images").is_dir():
        raise RehearsalError(f"{data}: found no test.csv and test_images/, wanted a competition folder; see --data")
    digest = manifest.digest(bundle)
    isolation = isolation or (NAMESPACES if enclosure.possible() else AUDIT_HOOK)
    python = platform.python_version()
    log.info("rehearsing %s with Python %s, isolation: %s", bundle, python, isolation)
    found = pythons.find(others)
    if missing := image.absent():
        log.info("preinstalled on Kaggle, but not installed here: %s", ", ".join(missing))
    record_path(bundle).unlink(missing_ok=True)  # it tells of an earlier rehearsal, and this one may be interrupted
    whole, lines = manifest.verify(bundle)
    if whole:
        with tempfile.TemporaryDirectory(prefix="rehearsal-") as folder:
            outcome = _go_through(Path(folder).resolve(), bundle, data.resolve(), isolation, out, found, full)
    else:
        outcome = Outcome(findings=tuple(lines))
    record = Record(
        manifest_sha256=digest,
        passed=not outcome.findings,
        full=full,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        isolation=isolation,
        python=python,
        **vars(outcome),
    )
    record.write(record_path(bundle))
    return record


def _go_through(
    folder: Path,
    bundle: Path,
    data: Path,
    isolation: str,
    out: Path | None,
    found: dict[str, list[pythons.Interpreter]],
    full: bool,
) -> Outcome:
    delivered = folder / "delivered"
    shutil.copytree(bundle, delivered, ignore=shutil.ignore_patterns(DATASET_FILE))
    competition = mixed.mix(data, folder / "mixed")
    mounts = {BUNDLE_AT[NESTED]: delivered, COMPETITION_AT[NESTED]: competition}
    stage = Stage(folder / "run", mounts, isolation)
    outcome = _run(stage, competition)
    if not outcome.findings:
        log.info("the bundle on other Pythons, without torch")
        tried, findings = pythons.go_through(found, delivered, folder / "pythons", isolation)
        outcome = replace(outcome, pythons=tuple(tried), findings=tuple(findings))
    if not outcome.findings:
        log.info("other mounts, good and bad, %s", "with a prediction each" if full else "without a prediction")
        small = mixed.make_small(folder / "small")
        names, findings = faults.go_through(delivered, small, folder / "faults", isolation, full)
        outcome = replace(outcome, faults=tuple(names), findings=tuple(findings))
    if out is not None:
        _keep(stage.working, out, passed=not outcome.findings)
    return outcome


def _run(stage: Stage, competition: Path) -> Outcome:
    """Run with the data, and judge what came of it."""
    log.info("a run with the data, and a small volume of another shape")
    run = stage.run()
    findings = [*run.unlike("complete", "every volume predicted at the first start"), *run.left]
    outcome = Outcome(round(run.wall_s, 3), run.peak_bytes)
    log.info("took %.1f s, %.0f MB at most", run.wall_s, run.peak_bytes / 1e6)
    if run.exit_code == 0:  # submit.py vouches for the zip, not for what is in the masks
        with zipfile.ZipFile(stage.working / SUBMISSION) as archive:
            names = [name for name in archive.namelist() if name != f"{mixed.CASE}.tif"]
        findings += check_masks(stage.working / SUBMISSION, competition)
        if not names:
            findings.append("test.csv: found no id, wanted at least one")
        report = _read_report(stage.working)
        findings += _uniform(report)
        findings += limits.memory_findings(run.peak_bytes)
        outcome = replace(outcome, volumes=len(names))
        if not findings:
            outcome, findings = _judge_time(outcome, competition, names, report)
    return replace(outcome, findings=tuple(f"{finding} (the run with the data)" for finding in findings))


def _judge_time(
    outcome: Outcome, competition: Path, names: Sequence[str], report: dict[str, Any]
) -> tuple[Outcome, list[str]]:
    """Scale a run to the hidden test; without the small volume, of which a whole tile was computed."""
    voxels = sum(math.prod(read_header(competition / "test_images" / name).shape_zyx) for name in names)
    seconds = [entry.get("seconds", 0.0) for entry in report.get("volumes", ()) if f"{entry['case']}.tif" in names]
    device = str(report.get("how", {}).get("device", {}).get("name", "unknown"))
    scaled_s = limits.scaled_s(outcome.wall_s, voxels, seconds, limits.workers(device))
    line, findings = limits.judge_time(scaled_s, device)
    log.info("%s", line)
    return replace(outcome, scaled_s=round(scaled_s, 1), device=device), findings


def _read_report(working: Path) -> dict[str, Any]:
    """Return what the engine reports of its run; empty where it does not."""
    path = working / REPORTS[0]
    told = json.loads(path.read_bytes()) if path.is_file() else {}
    return told if isinstance(told, dict) else {}


def _uniform(report: dict[str, Any]) -> list[str]:
    """Return a finding for every volume of the data whose prediction says nothing, as the engine warns of it."""
    return [
        f"volume {entry['case']}: {entry['warning']}, wanted a prediction; run `surface_train audit` on the weights"
        for entry in report.get("volumes", ())
        if entry["warning"] and entry["case"] != mixed.CASE  # which is noise
    ]


def _keep(working: Path, out: Path, passed: bool) -> None:
    """Leave what the run made in `out`; no zip of a rehearsal that failed, nor one from an earlier.

    The zip is of the data alone; the reports tell of the small volume too.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / SUBMISSION).unlink(missing_ok=True)
    names = [*REPORTS, SUBMISSION] if passed else REPORTS
    for name in names:
        if (working / name).is_file():
            kept = working / name
            disk.put(out / name, mixed.without_small(kept) if name == SUBMISSION else kept.read_bytes())
