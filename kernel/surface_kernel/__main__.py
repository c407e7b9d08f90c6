"""The command line: a submission, or for your own volumes.

python -m surface_kernel --bundle DIR --competition DIR --out DIR
python -m surface_kernel predict --weights FILE... --input FILE|DIR --out DIR
python -m surface_kernel postprocess --input MASK.tif|LOGIT.npy|DIR|submission.zip --out DIR
"""

import argparse
import logging
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from surface_kernel.interrupts import status_of, terminable
from surface_kernel.networks.device import DeviceRequest
from surface_kernel.runs import competition, files
from surface_kernel.runs.records import RunConditions
from surface_kernel.runs.report import Outcome

DONE, ERROR, LOSSES, UNFORESEEN = 0, 1, 3, 70
EXIT_CODES = {Outcome.COMPLETE: DONE, Outcome.DEGRADED: LOSSES, Outcome.FAILED: ERROR}
DEVICE_HELP = (
    "cpu, cuda (all GPUs), cuda:N, or an earlier run_report.json to run as it did (default: all GPUs, else the CPU)"
)
log = logging.getLogger("surface_kernel")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; return the exit code."""
    logging.basicConfig(format="%(message)s", stream=sys.stdout, force=True)
    log.setLevel(logging.INFO)  # ours alone: libraries log at this level too
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words[:1] not in (["predict"], ["postprocess"]):
            return EXIT_CODES[_submit(words)]  # its ledger outlives any end, and submit.py tells a death from a failure
        with terminable():
            return EXIT_CODES[(_predict if words[0] == "predict" else _postprocess)(words[1:])]
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        log.error("error: %s", " ".join(str(error).split()))
        return ERROR
    except KeyboardInterrupt as interrupt:
        log.error("interrupted")
        return status_of(interrupt)


def _submit_parser() -> argparse.ArgumentParser:
    description = "Predict every test volume of the competition folder into OUT/submission.zip."
    parser = argparse.ArgumentParser(
        prog="surface_kernel",
        description=description,
        epilog="`surface_kernel predict --help`: for your own volumes; `postprocess --help`: for masks and logits",
    )
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="weights and settings, as packaged")
    parser.add_argument("--competition", type=Path, required=True, metavar="DIR", help="holds test.csv, test_images/")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for submission.zip and run_report.*")
    parser.add_argument(
        "--scratch",
        type=Path,
        default=Path(tempfile.gettempdir()),
        metavar="DIR",
        help="folder for intermediate results; the same command resumes from it (default: %(default)s)",
    )
    parser.add_argument(
        "--budget-s",
        type=float,
        default=competition.BUDGET_S,
        metavar="S",
        help="time budget in seconds (default: %(default).0f)",
    )
    parser.add_argument("--device", metavar="D", help=DEVICE_HELP)
    return parser


def _submit(words: Sequence[str]) -> Outcome:
    options = vars(_submit_parser().parse_args(words))
    return competition.submit(**options | {"device": _request(options["device"])})


def _predict_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="surface_kernel predict", description="Predict the volumes of a file or folder, each into OUT."
    )
    parser.add_argument(
        "--weights", type=Path, required=True, nargs="+", metavar="FILE", help="weights files, one for each member"
    )
    parser.add_argument(
        "--input",
        dest="source",
        type=Path,
        required=True,
        metavar="FILE|DIR",
        help=".tif or .npy, uint8, (z, y, x); or a folder of such",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="output folder, different from the input's"
    )
    parser.add_argument(
        "--save",
        choices=files.KINDS,
        default=files.MASK,
        help="mask (.tif), probability or logit (float32 .npy) (default: %(default)s)",
    )
    parser.add_argument(
        "--settings",
        "--config",
        type=Path,
        metavar="FILE.toml",
        help="views and post-processing (default: the weights' own)",
    )
    parser.add_argument("--device", metavar="D", help=DEVICE_HELP)
    return parser


def _predict(words: Sequence[str]) -> Outcome:
    options = vars(_predict_parser().parse_args(words))
    return files.predict(**options | {"device": _request(options["device"])})


def _postprocess_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="surface_kernel postprocess", description="Run the steps of post-processing on masks or logits."
    )
    parser.add_argument(
        "--input",
        dest="source",
        type=Path,
        required=True,
        metavar="FILE|DIR|ZIP",
        help="a mask (0 and 1, or 0 and 255), logits (float .npy), a folder of such, or a submission.zip",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="output folder, different from the input's"
    )
    parser.add_argument(
        "--settings",
        "--config",
        type=Path,
        metavar="FILE.toml",
        help="its [[postprocess]] tables (default: threshold 0.5, components of fewer than 1000 voxels dropped)",
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR|FILE", help="the CT: voxels that were not scanned are cleared by it"
    )
    return parser


def _postprocess(words: Sequence[str]) -> Outcome:
    from surface_kernel.runs.postprocess_files import postprocess  # numba, which a submission begins without

    return postprocess(**vars(_postprocess_parser().parse_args(words)))


def _request(device: str | None) -> DeviceRequest:
    """Read --device: a device's name, or a run_report.json whose device is taken as it was. Raises RecordError."""
    if device is None or not device.endswith(".json"):
        return DeviceRequest(name=device)
    agreed = RunConditions.from_report(Path(device)).device
    return DeviceRequest(name=agreed.name, agreed=agreed)


if __name__ == "__main__":
    logging.raiseExceptions = False  # a log that nobody reads any more must not fill up with that
    try:
        exit_code = main()
    except Exception:  # not foreseen: whoever started this should start it again, which 1 would keep it from
        traceback.print_exc()
        exit_code = UNFORESEEN
    sys.exit(exit_code)
