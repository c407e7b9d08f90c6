"""One run of submit.py as on Kaggle: the tree it finds, the Python it has, the walls around it, and what it left."""

import io
import logging
import shutil
import subprocess
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from surface_kernel import volume
from surface_package import guard, image, manifest
from surface_package.enclosure import KAGGLE, Enclosure
from surface_package.watch import Watch

NAMESPACES, AUDIT_HOOK = "namespaces", "audit hook"
# What the interpreter and the programs that it starts need to know; the walls are tested without anything else.
_PATH = "/usr/local/bin:/usr/bin:/bin"
log = logging.getLogger("surface_package")


@dataclass(frozen=True)
class Run:
    """What one run of submit.py came to. peak_bytes: of its process tree. findings: empty if all is well."""

    exit_code: int
    wall_s: float
    peak_bytes: int
    findings: tuple[str, ...]


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

    def run(self) -> Run:
        """Run submit.py once, without a limit of time but its own. The folder must be new."""
        places = {name: self.folder / name for name in ("root", "input", "working", "scratch", "source")}
        for place in (*places.values(), self.folder / "home"):
            place.mkdir(parents=True)
        script = shutil.copyfile(manifest.submit_script(), places["source"] / "script.py")
        kaggle = image.make(self.folder / "python")
        if self.isolation == NAMESPACES:
            for inside in self.mounts:
                (places["input"] / inside).mkdir(parents=True)
            mounts = {inside: str(path) for inside, path in self.mounts.items()}
            command = Enclosure(**places, mounts=mounts).command([str(kaggle.python), str(KAGGLE / "src/script.py")])
        else:
            for inside, path in self.mounts.items():
                (places["input"] / inside).parent.mkdir(parents=True, exist_ok=True)
                (places["input"] / inside).symlink_to(path, target_is_directory=True)
            guard.install_into(kaggle.site, [places["working"], places["scratch"]], self.folder / "refused.txt")
            command = [str(kaggle.python), str(script)]
            command += [word for name in ("input", "working", "scratch") for word in (f"--{name}", str(places[name]))]
        return self._run(command, kaggle.python)

    def _run(self, command: list[str], python: Path) -> Run:
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
                    log.info("  | %s", said[-1])
            except BaseException:  # an interrupt, most likely; submit.py takes its engine along
                process.terminate()
                process.wait()
                raise
        wall_s = time.monotonic() - start_s
        findings = (*self._heard(process.returncode, said), *self._left())
        return Run(process.returncode, wall_s, watch.peak_bytes, findings)

    def _heard(self, exit_code: int, said: list[str]) -> list[str]:
        """Judge how submit.py ended. A submission that stands is enough for Kaggle, and not for a rehearsal."""
        errors = [line for line in said if line.startswith(("error: ", "finding: "))]
        verdict = next((line for line in reversed(said) if line.startswith("verdict: ")), "no verdict")
        if exit_code:
            why = "; ".join(errors or said[-1:])
            return [f"submit.py: found exit code {exit_code} ({why}), wanted 0"]
        if not verdict.startswith("verdict: complete;"):
            why = "; ".join(errors) or "see what it printed"
            return [f"submit.py: found {verdict!r} ({why}), wanted every volume predicted at the first start"]
        return []

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
                shape_zyx, fault = _read_mask(archive.read(name))
                wanted_zyx = volume.read_header(competition / "test_images" / name).shape_zyx
            except Exception as error:  # Pillow raises whatever its parser trips over
                findings.append(f"{name}: found {type(error).__name__}: {error}, wanted a mask and its image")
                continue
            if shape_zyx != wanted_zyx:
                findings.append(f"{name}: found a mask of {shape_zyx}, wanted {wanted_zyx} as its image has")
            if fault:
                findings.append(f"{name}: {fault}")
    return findings


def _read_mask(content: bytes) -> tuple[tuple[int, int, int], str]:
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
