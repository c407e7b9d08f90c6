"""A bundle whose engine is a page of standard library, so that what surrounds an engine is tested in seconds."""

import hashlib
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from surface_kernel.volumes.image_files import write_lzw
from surface_package.build import manifest, protocol, wheels
from surface_package.build.bundle import assemble
from surface_package.build.protocol import ScriptResult

SUBMIT = Path(__file__).parents[2] / "kernel" / "submit.py"

# Reads the pages' sizes out of the TIFF headers, writes zeros of the same shape, and reports them. {code} is a test's.
ENGINE = """
import argparse, csv, json, os, pathlib, signal, struct, sys, time, zipfile

parser = argparse.ArgumentParser()
for name in ("bundle", "competition", "out", "scratch"):
    parser.add_argument("--" + name, type=pathlib.Path)
parser.add_argument("--budget-s", type=float)
place = parser.parse_args()
place.scratch.mkdir(exist_ok=True)


def shape(path):
    content, sizes = path.read_bytes(), []
    (at,) = struct.unpack_from("<I", content, 4)
    while at:
        (count,) = struct.unpack_from("<H", content, at)
        tags = dict(struct.unpack_from("<H6xH", content, at + 2 + 12 * i) for i in range(count))
        sizes.append((tags[257], tags[256]))
        (at,) = struct.unpack_from("<I", content, at + 2 + 12 * count)
    return len(sizes), *sizes[0]


def mask(pages, height, width, value=0):
    head, body, at = b"II*\\0", b"", 8
    for page in range(pages):
        tags = (256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, at + 2 + 9 * 12 + 4)
        tags += (277, 1), (278, height), (279, height * width)
        body += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, v) for tag, v in tags)
        at += 2 + 9 * 12 + 4 + height * width
        body += struct.pack("<I", at if page + 1 < pages else 0) + bytes([value]) * (height * width)
    return head + struct.pack("<I", 8) + body


def report(volumes, device="cpu"):
    entries = {"volumes": volumes, "how": {"device": {"name": device}}}
    (place.out / "run_report.json").write_text(json.dumps(entries))


def submit(change=lambda masks: None):
    rows = csv.DictReader((place.competition / "test.csv").open())
    masks = {row["id"] + ".tif": mask(*shape(place.competition / "test_images" / (row["id"] + ".tif"))) for row in rows}
    change(masks)
    with zipfile.ZipFile(place.out / "submission.zip", "w") as archive:
        for name in sorted(masks):
            archive.writestr(name, masks[name])
    report([{"case": name[:-4], "warning": "", "seconds": 0.0} for name in sorted(masks)])
    if not place.budget_s:  # then zeros are all there is time for
        sys.exit(3)


{code}
"""


def make_competition(folder: Path, **shapes_zyx: tuple[int, int, int]) -> Path:
    """A competition folder with a dark image for each id, named by a letter and the id: a7=(2, 3, 4)."""
    (folder / "test_images").mkdir(parents=True)
    for name, shape_zyx in shapes_zyx.items():
        write_lzw(folder / "test_images" / f"{name[1:]}.tif", np.zeros(shape_zyx, np.uint8))
    rows = [f"{name[1:]},1" for name in shapes_zyx]
    (folder / "test.csv").write_text("\n".join(["id,scroll_id", *rows, ""]))
    return folder


def make_bundle(
    out: Path, code: str = "submit()", modules: Mapping[str, str] | None = None, **changes: list[str]
) -> Path:
    """A whole bundle whose engine runs `code`, and has other `modules`; `changes` are of the manifest's contents."""
    package = out.parent / f"{out.name}-sources" / "surface_kernel"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()  # without it another surface_kernel on the path would come first
    (package / "__main__.py").write_text(ENGINE.replace("{code}", code))
    for name, text in (modules or {}).items():
        (package / name).parent.mkdir(exist_ok=True)
        (package / f"{name}.py").write_text(text)
    wheel = wheels.write_wheel(package, "0.1.0", package.parent)
    for name in ("member_0.safetensors", "settings.json"):
        (package.parent / name).write_text(json.dumps({"name": name}))
    contents = {
        "version": "0.1.0",
        "commit": None,
        "weights": ["member_0.safetensors"],
        "settings": "settings.json",
        "requirements": ["surface-kernel==0.1.0"],
        "python": ["3.11", "3.12", "3.13", "3.14"],
    } | changes
    files = {name: package.parent / name for name in ("member_0.safetensors", "settings.json", wheel.name)}
    assemble(out, files, manifest.Contents(**contents))  # type: ignore[arg-type]
    return out


def list_anew(bundle: Path, *names: str) -> None:
    """Make the manifest list files as they are now."""
    listed = json.loads((bundle / "manifest.json").read_text())
    for name in names:
        content = (bundle / name).read_bytes()
        listed["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (bundle / "manifest.json").write_text(manifest.sealed(listed))


def run_submit(kaggle: Path, *words: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Run submit.py on a tree with input, working and scratch."""
    places = [word for name in ("input", "working", "scratch") for word in (f"--{name}", str(kaggle / name))]
    command = [sys.executable, "-I", str(SUBMIT), *places, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env={"PATH": os.environ["PATH"]})


def shared_result(run: subprocess.CompletedProcess[str], program: str = protocol.SUBMIT) -> ScriptResult:
    """What a script printed for other programs, as the package room reads it."""
    return protocol.read_result(run.stdout, program)


def result_line(program: str, verdict: str, **entries: object) -> str:
    """The line that submit.py would print, made by submit.py itself."""
    made = runpy.run_path(str(SUBMIT))["Result"](program=program, verdict=verdict, **entries).line()
    return str(made)
