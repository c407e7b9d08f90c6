"""The rehearsal: submit.py exactly as pushed, in a tree like Kaggle's, offline and with only Kaggle's packages.

First a run with the competition's data and a small volume made for it (`data_run`). Then every other Python on this
machine installs the bundle (`pythons`), and submit.py is run with every way of mounting and with what can be wrong
with mounts (`faults`). The first of these that has findings is the last.
"""

import datetime
import logging
import platform
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from surface_kernel import disk
from surface_package.build import manifest
from surface_package.rehearsal import enclosure, faults, image, mixed, pythons
from surface_package.rehearsal.data_run import REPORT, run_with_data
from surface_package.rehearsal.pythons import Interpreter
from surface_package.rehearsal.rehearsal_record import RehearsalOutcome, RehearsalRecord, record_path
from surface_package.rehearsal.sandbox import (
    AUDIT_HOOK,
    BUNDLE_AT,
    COMPETITION_AT,
    NAMESPACES,
    NESTED,
    SUBMISSION,
    Sandbox,
)
from surface_package.target import DATASET_FILE

REPORTS = [REPORT, "run_report.txt"]
log = logging.getLogger("surface_package")


class RehearsalError(ValueError):
    """A rehearsal that cannot begin; the message says what was expected and what to do."""


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What to rehearse, and how."""

    bundle: Path
    data: Path
    """A competition folder with test volumes."""
    out: Path | None = None
    """A folder for the run's report and submission.zip, of a passed rehearsal only and of the data alone."""
    isolation: str = ""
    """NAMESPACES or AUDIT_HOOK; by default the former where the machine allows it."""
    others: Sequence[Path] = ()
    """Pythons to try besides those on this machine."""
    full: bool = False
    """Let the small volume be predicted in every supported mount layout."""


def rehearse(asked: Rehearsal) -> RehearsalRecord:
    """Run a bundle on a competition folder as Kaggle would, write its record beside it and return it.

    Raises:
        RehearsalError, ManifestError, ImageError, PythonError: it cannot begin.
    """
    if not (asked.data / "test.csv").is_file() or not (asked.data / "test_images").is_dir():
        expected = "expected a competition folder with test.csv and test_images/; see --data"
        raise RehearsalError(f"{asked.data}: {expected}")
    digest = manifest.digest(asked.bundle)
    asked = replace(asked, isolation=asked.isolation or (NAMESPACES if enclosure.possible() else AUDIT_HOOK))
    python = platform.python_version()
    log.info("rehearsing %s with Python %s, isolation: %s", asked.bundle, python, asked.isolation)
    usable = pythons.find(asked.others)
    if missing := image.absent():
        log.info("preinstalled on Kaggle, but not installed here: %s", ", ".join(missing))
    record_path(asked.bundle).unlink(missing_ok=True)  # of an earlier rehearsal, and this one may be interrupted
    if findings := manifest.verify(asked.bundle):
        outcome = RehearsalOutcome(findings=tuple(findings))
    else:
        with tempfile.TemporaryDirectory(prefix="rehearsal-") as folder:
            outcome = _rehearse_in(Path(folder).resolve(), asked, usable)
    record = RehearsalRecord(
        manifest_sha256=digest,
        passed=not outcome.findings,
        full=asked.full,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        isolation=asked.isolation,
        python=python,
        **vars(outcome),
    )
    record.write(record_path(asked.bundle))
    return record


def _rehearse_in(folder: Path, asked: Rehearsal, usable: Mapping[str, list[Interpreter]]) -> RehearsalOutcome:
    """Go through all of it in a folder of its own."""
    delivered = folder / "delivered"
    shutil.copytree(asked.bundle, delivered, ignore=shutil.ignore_patterns(DATASET_FILE))
    competition = mixed.mix(asked.data.resolve(), folder / "mixed")
    mounts = {BUNDLE_AT[NESTED]: delivered, COMPETITION_AT[NESTED]: competition}
    sandbox = Sandbox(folder=folder / "run", mounts=mounts, isolation=asked.isolation)
    outcome = run_with_data(sandbox, competition, manifest.digest(delivered))
    if not outcome.findings:
        log.info("the bundle on other Pythons, without torch")
        tried, findings = pythons.try_pythons(usable, delivered, folder / "pythons", isolation=asked.isolation)
        outcome = replace(outcome, pythons=tuple(tried), findings=tuple(findings))
    if not outcome.findings:
        log.info("other mounts, good and bad, %s", "with a prediction each" if asked.full else "without a prediction")
        small = mixed.make_small(folder / "small")
        names, findings = faults.try_mounts(
            delivered, small, folder / "faults", isolation=asked.isolation, predict=asked.full
        )
        outcome = replace(outcome, faults=tuple(names), findings=tuple(findings))
    if asked.out is not None:
        _keep(sandbox.working, asked.out, passed=not outcome.findings)
    return outcome


def _keep(working: Path, out: Path, *, passed: bool) -> None:
    """Copy what the run made to `out`; no zip of a rehearsal that failed, nor one from an earlier.

    The zip is of the data alone; the reports list the small volume too.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / SUBMISSION).unlink(missing_ok=True)
    names = [*REPORTS, SUBMISSION] if passed else REPORTS
    for name in names:
        if (working / name).is_file():
            kept = working / name
            disk.put(out / name, mixed.without_small(kept) if name == SUBMISSION else kept.read_bytes())
