"""One run of submit.py as on Kaggle: the tree it finds, the Python it has, the walls around it, and what it left."""

import io
import logging
import shutil
import subprocess
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from surface_kernel.volumes.header import read_header
from surface_package.build import manifest
from surface_package.rehearsal import guard, image
from surface_package.rehearsal.enclosure import KAGGLE, Enclosure
from surface_package.rehearsal.image import Image as Python
from surface_package.rehearsal.watch import Watch

NAMESPACES, AUDIT_HOOK = "namespaces", "audit hook"
SUBMISSION = "submission.zip"
COMPETITION = "vesuvius-challenge-surface-detection"
# The two ways in which Kaggle was seen to mount below /kaggle/input, both in one run even.
FLAT, NESTED = "flat", "nested"
BUNDLE_AT = {FLAT: "surface-bundle", NESTED: "datasets/owner/surface-bundle"}
COMPETITION_AT = {FLAT: COMPETITION, NESTED: f"competitions/{COMPETITION}"}
# What the interpreter and the programs that it starts need to know; the walls are tested without anything else.
_PATH = "/usr/local/bin:/usr/bin:/bin"
log = logging.getLogger("surface_package")


@dataclass(frozen=True)
class Run:
    """What one run came to. peak_bytes: of its process tree. said: its lines. left: what it should not have left."""

    exit_code: int
    wall_s: float
    peak_bytes: int
    said: tuple[str, ...]
    left: tuple[str, ...]

    @property
    def errors(self) -> list[str]:
        """The lines in which it says what is wrong."""
        return [line for line in self.said if line.startswith(("error: ", "finding: "))]

    @property
    def verdict(self) -> str:
        """The line in which submit.py says what came of it."""
        return next((line for line in reversed(self.said) if line.startswith("verdict: ")), "no verdict")

    def unlike(self, verdict: str, wanted: str) -> list[str]:
        """Return a finding unless submit.py ended with exit code 0 and this verdict. wanted: the same in words."""
        if self.exit_code:
            why = "; ".join(self.errors or self.said[-1:])
            return [f"submit.py: found exit code {self.exit_code} ({why}), wanted 0"]
        if not self.verdict.startswith(f"verdict: {verdict};"):
            why = "; ".join(self.errors) or "see what it printed"
            return [f"submit.py: found {self.verdict!r} ({why}), wanted {wanted}"]
        return []


@dataclass(frozen=True)
class Stage:
    """A folder with what Kaggle's container has: input, working, scratch, the script, an empty HOME, a Python.

    mounts: below the input folder, what is seen there.
    """

    folder: Path
    mounts: Mapping[str, Path]
    isolation: str

    @property
    def working(self) -> Path:
        """Where submission.zip ends up."""
        return self.folder / "working"

    @property
    def scratch(self) -> Path:
        """Where everything else goes, the unpacked wheels among it."""
        return self.folder / "scratch"

    def run(self, *words: str, shown: bool = True) -> Run:
        """Run submit.py once, without a limit of time but its own. The folder must be new.

        words: of its command line. shown: whether what it prints is logged.
        """
        return self.play(manifest.submit_script(), image.make(self.folder / "python"), words, shown)

    def play(self, script: Path, python: Python, words: Sequence[str], shown: bool) -> Run:
        """Run another script in submit.py's place, in another Python than the one that rehearses."""
        places = {name: self.folder / name for name in ("root", "input", "working", "scratch", "source")}
        for place in (*places.values(), self.folder / "home"):
            place.mkdir(parents=True)
        copied = shutil.copyfile(script, places["source"] / "script.py")
        if self.isolation == NAMESPACES:
            for inside in self.mounts:
                (places["input"] / inside).mkdir(parents=True)
            mounts = {inside: str(path) for inside, path in self.mounts.items()}
            inner = [str(python.python), str(KAGGLE / "src/script.py"), *words]
            command = Enclosure(**places, mounts=mounts).command(inner)
        else:
            for inside, path in self.mounts.items():
                (places["input"] / inside).parent.mkdir(parents=True, exist_ok=True)
                (places["input"] / inside).symlink_to(path, target_is_directory=True)
            guard.install_into(python.site, [self.working, self.scratch], self.folder / "refused.txt")
            command = [str(python.python), str(copied), *words]
            command += [word for name in ("input", "working", "scratch") for word in (f"--{name}", str(places[name]))]
        return self._run(command, python.python, shown)

    def _run(self, command: list[str], python: Path, shown: bool) -> Run:
        environment = {
            "PATH": f"{python.parent}:{_PATH}",
            "LANG": "C.UTF-8",
            "HOME": str(self.folder / "home"),
            "PYTHONDONTWRITEBYTECODE": "1",  # or the first run after an installation would fill its __pycache__
        }
        start_s = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=self.working,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        said = []
        with process, Watch(process.pid) as watch:
            try:
                for line in process.stdout or ():
                    said.append(line.rstrip("\n"))
                    if shown:
                        log.info("  | %s", said[-1])
            except BaseException:  # an interrupt, most likely; submit.py takes its engine along
                process.terminate()
                process.wait()
                raise
        wall_s = time.monotonic() - start_s
        return Run(process.returncode, wall_s, watch.peak_bytes, tuple(said), tuple(self._left()))

    def _left(self) -> list[str]:
        """Judge what the run left behind, in its output and elsewhere."""
        findings = []
        for path in sorted(self.working.rglob("*.tif*")):
            name = path.relative_to(self.working)
            findings.append(f"output: found {name}, wanted no .tif beside the zip: the scorer would count it")
        for path in sorted((self.folder / "home").rglob("*")):
            findings.append(f"HOME: found {path.name}, wanted nothing written outside of output and scratch")
        refused = self.folder / "refused.txt"
        if refused.exists():
            tried = sorted(set(refused.read_text(encoding="utf-8").splitlines()))
            findings += [f"audit hook: found {what}, wanted no network and nothing written elsewhere" for what in tried]
        return findings


def check_masks(zip_path: Path, competition: Path) -> list[str]:
    """Read a submission's masks page by page with Pillow, as the scorer does, and compare them with their images.

    Returns one line a finding: another shape than the image's, other values than 0 and 1, a page that is not uint8.
    """
    findings = []
    with zipfile.ZipFile(zip_path) as archive:
        for name in archive.namelist():
            try:
                shape_zyx, fault = read_mask(archive.read(name))
                wanted_zyx = read_header(competition / "test_images" / name).shape_zyx
            except Exception as error:  # Pillow raises whatever its parser trips over
                findings.append(f"{name}: found {type(error).__name__}: {error}, wanted a mask and its image")
                continue
            if shape_zyx != wanted_zyx:
                findings.append(f"{name}: found a mask of {shape_zyx}, wanted {wanted_zyx} as its image has")
            if fault:
                findings.append(f"{name}: {fault}")
    return findings


def read_mask(content: bytes) -> tuple[tuple[int, int, int], str]:
    """Return a mask's shape and what is wrong with its voxels, empty if nothing is."""
    depth, sizes, fault = 0, set(), ""
    with Image.open(io.BytesIO(content)) as opened:
        for page in ImageSequence.Iterator(opened):
            depth += 1
            sizes.add(page.size)
            values = np.unique(np.asarray(page)).tolist()
            if page.mode != "L" or not set(values) <= {0, 1}:
                fault = f"found a page of mode {page.mode} with the values {values[:5]}, wanted uint8 of 0 and 1"
    if len(sizes) != 1:
        return (depth, 0, 0), f"found pages of {sorted(sizes)}, wanted one size"
    width, height = sizes.pop()
    return (depth, height, width), fault
