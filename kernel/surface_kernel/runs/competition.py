"""A submission, as a story: bundle and volumes, zeros that already count, then every volume's mask.

Where an earlier start of the same command was killed, this one resumes it.
"""

import hashlib
import logging
from dataclasses import replace
from pathlib import Path

from surface_kernel import disk
from surface_kernel.networks.device import DeviceRequest
from surface_kernel.runs import mounts
from surface_kernel.runs.clock import Clock
from surface_kernel.runs.ledger import Ledger, LedgerError
from surface_kernel.runs.messages import Load, LoadEngine
from surface_kernel.runs.pipeline import Pipeline, WorkerError
from surface_kernel.runs.progress import ProgressBar
from surface_kernel.runs.records import RunConditions, identity
from surface_kernel.runs.report import Outcome, RunReport, VolumeProgress
from surface_kernel.runs.submission import Submission
from surface_kernel.runs.submission_run import TRIES, SubmissionRun
from surface_kernel.volumes.header import VolumeError, read_header

BUDGET_S = 8.5 * 3600  # of the nine hours that Kaggle gives
USUAL_SHAPE_ZYX = (320, 320, 320)  # of 738 of the competition's 786 volumes: the guess where no header can be read
_LISTED = 10  # volumes with a reason or a warning, in the log
log = logging.getLogger("surface_kernel")


def submit(
    *,
    bundle: Path,
    competition: Path,
    out: Path,
    scratch: Path,
    budget_s: float = BUDGET_S,
    device: DeviceRequest | None = None,
) -> Outcome:
    """Predict every test volume of the competition folder into OUT/submission.zip.

    Args:
        bundle: folder of weights and settings, with a manifest.
        competition: folder with test.csv and test_images/.
        out: folder for submission.zip and the reports.
        scratch: folder below which the run keeps what is done, until all is.
        budget_s: time budget, counted from the start of the process.
        device: without one all GPUs, else the CPU.

    Raises:
        MountError: for a bundle or competition folder that cannot be used.
        SettingsError: for the bundle's settings.
        LedgerError: where another run is at work in the same scratch folder, or was begun on another device.
        OSError: where not even zeros can be written.
    """
    clock = Clock(budget_s)
    opened = mounts.read_bundle(bundle)
    volumes = [_look_at(case, path) for case, path in mounts.read_test_images(competition).items()]
    submission = Submission({volume.case: volume.shape_zyx for volume in volumes}, out)
    if not submission.exists():
        disk.retry(submission.write, TRIES)
    log.info("volumes: %d; a valid submission.zip exists after %.1f s", len(volumes), clock.elapsed_s)

    with Ledger(_run_folder(scratch, out), identity(opened)) as ledger:
        request = _agreed(device or DeviceRequest(), ledger.conditions)
        run = SubmissionRun(
            volumes,
            passes=[len(stage) for stage in opened.settings.stages(len(opened.weights))],
            ledger=ledger,
            submission=submission,
            clock=clock,
            mask=opened.settings.mask,
            progress=ProgressBar(),
        )
        run.resume()
        load = LoadEngine(files=opened.weights, settings=opened.settings)
        failed = run.may_continue() and not _predict_all(run, load, request)
        run.end()
        report = run.report()
        disk.retry(lambda: report.write(out), TRIES)
        if run.plan.resumable:
            log.info("%s: kept; run the same command again to resume", ledger.folder)
        else:
            ledger.remove()
    _log_report(report)
    outcome = Outcome.FAILED if failed else report.outcome
    log.info("%s: %s", outcome, submission.path)
    return outcome


def _look_at(case: str, path: Path) -> VolumeProgress:
    """Read an image's header: a volume that cannot be used gets no stage, and zeros of the shape that it declares."""
    try:
        return VolumeProgress(case=case, path=path, shape_zyx=read_header(path).shape_zyx)
    except VolumeError as error:
        if error.shape_zyx:
            return VolumeProgress(case=case, path=path, shape_zyx=error.shape_zyx, closed=str(error))
        closed = f"{error}; its shape is a guess"
        return VolumeProgress(case=case, path=path, shape_zyx=USUAL_SHAPE_ZYX, closed=closed)


def _run_folder(scratch: Path, out: Path) -> Path:
    """Return the folder of this run below the scratch folder: the same one when it is started again."""
    return scratch / f"surface_{hashlib.sha256(bytes(out.resolve())).hexdigest()[:12]}"


def _agreed(request: DeviceRequest, conditions: RunConditions | None) -> DeviceRequest:
    """Return the request with the device of the run that is resumed. Raises LedgerError where it asks for another."""
    if conditions is None:
        return request
    agreed = conditions.device
    if (request.agreed and request.agreed != agreed) or (request.name and request.name != agreed.name):
        expected = f"expected that of the run to resume ({agreed}), got {request.agreed or request.name}"
        raise LedgerError(f"--device: {expected}; name another --scratch to start from scratch")
    return replace(request, agreed=agreed)


def _predict_all(run: SubmissionRun, load: Load, request: DeviceRequest) -> bool:
    """Let workers do what is planned, as long as there is time; return whether they could."""
    if not run.plan.open:
        return True
    try:
        with Pipeline(load, run, device=request) as pipeline:
            for line in pipeline.run():
                run.progress.log(line)
            if pipeline.given_up:
                run.plan.ended = "no worker was left"
    except WorkerError as error:
        run.plan.ended = str(error)
        run.on_trouble(f"error: {error}")
        return False
    finally:
        run.progress.close()
    return True


def _log_report(report: RunReport) -> None:
    lines = [volume.line() for volume in report.volumes if volume.reason or volume.warning]
    for line in lines[:_LISTED]:
        log.info("%s", line)
    if more := len(lines[_LISTED:]):
        log.info("and %d more: see run_report.txt", more)
