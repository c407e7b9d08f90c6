"""What can go wrong with mounts, gone through: each a run of submit.py as pushed, in a tree of its own.

A bad tree must end it with exit code 1 and a named reason, before anything of the bundle is installed, without a zip.
A good tree must get as far as the engine. Unless that is to predict, it is given no time: then it starts, leaves
zeros as masks and says so, which costs seconds and shows that mounts, wheels and engine work together.
"""

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from surface_package.build import manifest
from surface_package.rehearsal.stage import (
    BUNDLE_AT,
    COMPETITION_AT,
    FLAT,
    NESTED,
    SUBMISSION,
    Run,
    Stage,
    check_masks,
)

log = logging.getLogger("surface_package")


@dataclass(frozen=True)
class Scene:
    """What is mounted, in words and as a Stage takes it.

    reason: what submit.py must give as its reason to stop; empty for a good tree.
    """

    name: str
    mounts: Mapping[str, Path]
    reason: str = ""


def scenes(bundle: Path, competition: Path, folder: Path) -> Iterator[Scene]:
    """Yield all of them: every way of mounting two good things, then what is wrong, missing or there twice.

    Both in the nested way is left out of the good ones: that is the run with the data. folder: a new one on the
    bundle's file system, for bundles made from it.
    """
    wrong, fault = _spoil(bundle, folder / "wrong")
    other = _rename(bundle, folder / "other")
    for way, competition_way in product((FLAT, NESTED), repeat=2):
        where, mounted = f"{way} bundle, {competition_way} competition", {COMPETITION_AT[competition_way]: competition}
        if (way, competition_way) != (NESTED, NESTED):
            yield Scene(where, {BUNDLE_AT[way]: bundle, **mounted})
        yield Scene(f"a changed file, {where}", {BUNDLE_AT[way]: wrong, **mounted}, fault)
    both = {BUNDLE_AT[way]: bundle for way in BUNDLE_AT} | {COMPETITION_AT[way]: competition for way in COMPETITION_AT}
    yield Scene("both of them flat and nested", both)
    for way in (FLAT, NESTED):
        mounted = {COMPETITION_AT[way]: competition}
        yield Scene(f"no bundle, {way} competition", mounted, "found no bundle, wanted one folder")
        yield Scene(f"no competition, {way} bundle", {BUNDLE_AT[way]: bundle}, "found none, wanted one folder with")
        two = {BUNDLE_AT[way]: bundle, f"{BUNDLE_AT[way]}-2": other}
        yield Scene(f"two bundles, {way}", {**two, **mounted}, "found 2 bundles (")
    mixed = {BUNDLE_AT[FLAT]: bundle, BUNDLE_AT[NESTED]: other, COMPETITION_AT[NESTED]: competition}
    yield Scene("two bundles, flat and nested", mixed, "found 2 bundles (")


def go_through(
    bundle: Path, competition: Path, folder: Path, isolation: str, predict: bool
) -> tuple[list[str], list[str]]:
    """Run every scene in a folder below `folder`; return their names, and a line for each that ended otherwise.

    bundle: a whole one, in the same file system. predict: whether the good trees' engines get time to predict.
    """
    names, findings = [], []
    for number, scene in enumerate(scenes(bundle, competition, folder)):
        stage = Stage(folder / str(number), scene.mounts, isolation)
        words = [] if scene.reason or predict else ["--budget-s", "0"]
        run = stage.run(*words, shown=False)
        found = [*(_stopped(stage, run, scene.reason) if scene.reason else _started(stage, run, competition, predict))]
        found += run.left
        end = "stopped, as it must" if scene.reason else "predicted" if predict else "started"
        log.info("  %s: %s, %.1f s", scene.name, "; ".join(found) or end, run.wall_s)
        names.append(scene.name)
        findings += [f"{finding} ({scene.name})" for finding in found]
        shutil.rmtree(stage.folder)  # its scratch holds the wheels, unpacked
    return names, findings


def _stopped(stage: Stage, run: Run, reason: str) -> Iterator[str]:
    if run.exit_code != 1 or not any(reason in line for line in run.errors):
        said = "; ".join(run.errors or run.said[-1:])
        yield f"submit.py: found exit code {run.exit_code} ({said}), wanted 1 and {reason!r}"
    if (stage.scratch / "site").exists():
        yield "submit.py: found wheels unpacked, wanted it to stop before"
    if left := sorted(path.name for path in stage.working.iterdir()):
        yield f"output: found {', '.join(left)}, wanted nothing of a run that must stop"


def _started(stage: Stage, run: Run, competition: Path, predict: bool) -> Iterator[str]:
    if predict:
        unlike = run.unlike("complete", "every volume predicted at the first start")
    else:
        unlike = run.unlike("degraded", "zeros of an engine that was given no time")
    yield from unlike
    if not run.exit_code:
        yield from check_masks(stage.working / SUBMISSION, competition)


def _spoil(bundle: Path, folder: Path) -> tuple[Path, str]:
    """Make a bundle in which one bit of one file is another; return it, and what submit.py must find."""
    _link(bundle, folder)
    name = manifest.read(bundle)["settings"]
    content = bytearray((bundle / name).read_bytes())
    content[-1] ^= 1
    (folder / name).unlink()  # a link to the good one
    (folder / name).write_bytes(content)
    return folder, f"{name!r}: found sha256 "


def _rename(bundle: Path, folder: Path) -> Path:
    """Make a second bundle, whole too, whose manifest differs by a space at its end."""
    _link(bundle, folder)
    content = (bundle / manifest.NAME).read_bytes()
    (folder / manifest.NAME).unlink()
    (folder / manifest.NAME).write_bytes(content + b" ")
    return folder


def _link(bundle: Path, folder: Path) -> None:
    """Make a copy of a bundle that takes no room: submit.py takes hard links for files, which they are."""
    folder.mkdir(parents=True)
    for path in bundle.iterdir():
        os.link(path, folder / path.name)
