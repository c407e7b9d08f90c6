"""What a session left, compared with what its log says it left, and moved into the run's folder."""

from pathlib import Path

from surface_kernel.networks.weights import WeightsError
from surface_package.build import manifest, protocol
from surface_package.build.protocol import ProtocolError, ScriptResult
from surface_package.kaggle import checkpoints
from surface_package.kaggle.checkpoints import SETTINGS, STATE, RunProgress
from surface_package.kaggle.delivery import DeliveryError
from surface_package.kaggle.output import read_result
from surface_package.kaggle.training.job import TrainingRecord

STUCK = "If that changes nothing, delete the .training.json beside the run: then publish starts another session."
AGAIN = f"Run publish again: it fetches the output again. {STUCK}"


def read_session(output: Path, record: TrainingRecord) -> ScriptResult:
    """Return what a session says of itself in its log.

    Raises:
        DeliveryError: it says nothing, or it is another session: Kaggle may still show the one before.
    """
    try:
        result = read_result(output, protocol.TRAIN)
    except ProtocolError as error:
        raise DeliveryError(f"{error}. {AGAIN}") from error
    # One that failed early has verified no bundle yet.
    unknown = result.verdict == protocol.FAILED and not result.manifest_sha256
    if result.after_step != record.after_step or not (unknown or result.manifest_sha256 == record.manifest_sha256):
        raise DeliveryError(
            f"the output is of another session, after step {result.after_step} with the bundle "
            f"{result.manifest_sha256 or 'unknown':.16}, not after step {record.after_step} with "
            f"{record.manifest_sha256:.16}. Kaggle may still show the session before: wait some minutes, then run "
            f"publish again. {STUCK}"
        )
    return result


def check_files(output: Path, result: ScriptResult) -> RunProgress:
    """Return how far the run is that came.

    The client keeps whatever comes under a file's name, an error's page too.

    Raises:
        DeliveryError: it is not what the session says it left.
    """
    if missing := {SETTINGS, STATE} - set(result.files):
        raise DeliveryError(f"the log in {output} names no {' and no '.join(sorted(missing))}. {AGAIN}")
    for name, digest in result.files.items():
        if not (output / name).is_file() or manifest.sha256(output / name) != digest:
            raise DeliveryError(f"{output / name} is missing or came damaged. {AGAIN}")
    try:
        checkpoints.files(output)
        reached = checkpoints.progress(output)
    except (DeliveryError, WeightsError) as error:
        raise DeliveryError(f"{error}\n  {AGAIN}") from error
    if (reached.step, reached.finished) != (result.step, result.verdict == protocol.FINISHED):
        raise DeliveryError(
            f"{output} holds a run at step {reached.step}, {'' if reached.finished else 'not '}finished, but its log "
            f"says step {result.step}, {result.verdict}. {AGAIN}"
        )
    return reached


def move_into(output: Path, run: Path) -> None:
    """Move a session's files into the run's folder, the state last: until then the folder is the run as it was."""
    run.mkdir(parents=True, exist_ok=True)
    for path in sorted(checkpoints.files(output).values(), key=lambda path: path.name == STATE):
        if path.suffix != ".log":
            path.replace(run / path.name)
