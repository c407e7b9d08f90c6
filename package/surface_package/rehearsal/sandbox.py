"""One run of a script as on Kaggle: the tree it is given, the Python it has, what isolates it, and what it left."""

import logging
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from surface_package.build import manifest, protocol
from surface_package.build.protocol import ProtocolError, ScriptResult
from surface_package.rehearsal import guard, image
from surface_package.rehearsal.enclosure import KAGGLE, Enclosure
from surface_package.rehearsal.image import PythonImage
from surface_package.rehearsal.watch import MemoryWatch

NAMESPACES, AUDIT_HOOK = "namespaces", "audit hook"
SUBMISSION = "submission.zip"
COMPETITION = "vesuvius-challenge-surface-detection"
# The two ways in which Kaggle was seen to mount below /kaggle/input, both in one run even.
FLAT, NESTED = "flat", "nested"
BUNDLE_AT = {FLAT: "surface-bundle", NESTED: "datasets/owner/surface-bundle"}
COMPETITION_AT = {FLAT: COMPETITION, NESTED: f"competitions/{COMPETITION}"}
# What the interpreter and the programs that it starts need to know; isolation is tested without anything else.
_PATH = "/usr/local/bin:/usr/bin:/bin"
log = logging.getLogger("surface_package")


@dataclass(frozen=True, kw_only=True)
class SandboxRun:
    """What one run came to."""

    exit_code: int
    wall_s: float
    peak_bytes: int
    """Of its process tree."""
    result: ScriptResult | None
    """What it says of itself; None where it does not."""
    fault: str
    """Why there is no result; empty where there is one."""
    left: tuple[str, ...]
    """Findings: what it should not have left."""

    @property
    def why(self) -> str:
        """Why it did not end well, for people."""
        return self.result.why if self.result else self.fault


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """What Kaggle's container has: input, working, scratch, the script, an empty HOME, a Python."""

    folder: Path
    """Where all of it is made; new for each run."""
    mounts: Mapping[str, Path]
    """What is seen below the input folder, by its place there."""
    isolation: str
    """NAMESPACES or AUDIT_HOOK."""

    @property
    def working(self) -> Path:
        """Where submission.zip ends up."""
        return self.folder / "working"

    @property
    def scratch(self) -> Path:
        """Where everything else goes, the unpacked wheels among it."""
        return self.folder / "scratch"

    def run_submit(self, *words: str, shown: bool = True) -> SandboxRun:
        """Run submit.py once, without a limit of time but its own.

        Args:
            words: more of its command line.
            shown: whether what it prints for people is logged.
        """
        python = image.make(self.folder / "python")
        return self.run(manifest.submit_script(), python, words, program=protocol.SUBMIT, shown=shown)

    def run(
        self, script: Path, python: PythonImage, words: Sequence[str], *, program: str, shown: bool = False
    ) -> SandboxRun:
        """Run a script in some Python. program: which one its line must be of."""
        command = self._command(script, python, words)
        environment = {
            "PATH": f"{python.python.parent}:{_PATH}",
            "LANG": "C.UTF-8",
            "HOME": str(self.folder / "home"),
            "PYTHONDONTWRITEBYTECODE": "1",  # or the first run after an installation would fill its __pycache__
        }
        start_s = time.monotonic()
        exit_code, lines, peak_bytes = _execute(command, environment, folder=self.working, shown=shown)
        wall_s = time.monotonic() - start_s
        result, fault = None, ""
        try:
            result = protocol.read_result("\n".join(lines), program)
        except ProtocolError as error:
            last = next((line for line in reversed(lines) if line), "nothing")
            fault = f"{error}; exit code {exit_code}, and the last it printed is: {last}"
        return SandboxRun(
            exit_code=exit_code,
            wall_s=wall_s,
            peak_bytes=peak_bytes,
            result=result,
            fault=fault,
            left=tuple(self._left()),
        )

    def _command(self, script: Path, python: PythonImage, words: Sequence[str]) -> list[str]:
        """Make the tree; return the command line that runs the script in it."""
        places = {name: self.folder / name for name in ("root", "input", "working", "scratch", "source")}
        for place in (*places.values(), self.folder / "home"):
            place.mkdir(parents=True)
        copied = shutil.copyfile(script, places["source"] / "script.py")
        if self.isolation == NAMESPACES:
            for inside in self.mounts:
                (places["input"] / inside).mkdir(parents=True)
            mounts = {inside: str(path) for inside, path in self.mounts.items()}
            inner = [str(python.python), str(KAGGLE / "src/script.py"), *words]
            return Enclosure(**places, mounts=mounts).command(inner)
        for inside, path in self.mounts.items():
            (places["input"] / inside).parent.mkdir(parents=True, exist_ok=True)
            (places["input"] / inside).symlink_to(path, target_is_directory=True)
        guard.install_into(python.site, [self.working, self.scratch], self.folder / "refused.txt")
        command = [str(python.python), str(copied), *words]
        return command + [word for name in ("input", "working", "scratch") for word in (f"--{name}", str(places[name]))]

    def _left(self) -> Iterator[str]:
        """Judge what the run left behind, in its output and elsewhere."""
        for path in sorted(self.working.rglob("*.tif*")):
            name = path.relative_to(self.working)
            yield f"output: expected no .tif beside the zip, got {name}: the scorer would count it"
        for path in sorted((self.folder / "home").rglob("*")):
            yield f"HOME: expected nothing written outside of output and scratch, got {path.name}"
        refused = self.folder / "refused.txt"
        if refused.exists():
            for what in sorted(set(refused.read_text(encoding="utf-8").splitlines())):
                yield f"audit hook: expected no network and nothing written elsewhere, got {what}"

    def check_submission(self, run: SandboxRun, *, verdict: str, meaning: str, manifest_sha256: str) -> list[str]:
        """Return a finding unless submit.py ended with exit code 0 and this verdict, over this bundle and this zip.

        meaning: the verdict in words.
        """
        if run.result is None:
            return [f"submit.py: {run.fault}"]
        if run.exit_code:
            return [f"submit.py: expected exit code 0, got {run.exit_code} ({run.why})"]
        if run.result.verdict != verdict:
            return [f"submit.py: expected {meaning}, got the verdict {run.result.verdict!r} ({run.why})"]
        if run.result.manifest_sha256 != manifest_sha256:
            got = f"{run.result.manifest_sha256 or 'none'} verified"
            return [f"submit.py: expected the bundle's manifest {manifest_sha256}, got {got}"]
        digest = manifest.sha256(self.working / SUBMISSION) if (self.working / SUBMISSION).is_file() else "no such file"
        if run.result.files != {SUBMISSION: digest}:
            return [f"submit.py: expected {SUBMISSION} as it says, {dict(run.result.files)}, got {digest}"]
        return []


def _execute(
    command: list[str], environment: dict[str, str], *, folder: Path, shown: bool
) -> tuple[int, list[str], int]:
    """Run a command to its end; return its exit code, the lines it printed, and the peak memory of its tree."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    lines = []
    with process, MemoryWatch(process.pid) as watch:
        try:
            for line in process.stdout or ():
                lines.append(line.rstrip("\n"))
                if shown and protocol.PREFIX not in line:
                    log.info("  | %s", lines[-1])
        except BaseException:  # an interrupt, most likely; submit.py takes its engine along
            process.terminate()
            process.wait()
            raise
    return process.returncode, lines, watch.peak_bytes
