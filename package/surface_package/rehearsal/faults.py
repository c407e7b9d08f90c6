"""What can go wrong with mounts, tried one by one: each a run of submit.py as pushed, in a tree of its own.

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

from surface_package.build import manifest, protocol
from surface_package.rehearsal.masks import check_masks
from surface_package.rehearsal.sandbox import (
    BUNDLE_AT,
    COMPETITION_AT,
    FLAT,
    NESTED,
    SUBMISSION,
    Sandbox,
    SandboxRun,
)

log = logging.getLogger("surface_package")


@dataclass(frozen=True, kw_only=True)
class MountCase:
    """What is mounted, and how submit.py must end."""

    name: str
    """The case in words."""
    mounts: Mapping[str, Path]
    """As a `Sandbox` takes them."""
    reason: str = ""
    """For which submit.py must stop, a word of its SubmitError; empty for a good tree."""
    names: str = ""
    """What its findings must name, if anything."""


def mount_cases(bundle: Path, competition: Path, folder: Path) -> Iterator[MountCase]:
    """Yield every way of mounting two good things, then what is wrong, missing or there twice.

    Both in the nested way is left out of the good ones: that is the run with the data. folder: a new one on the
    bundle's file system, for bundles made from it.
    """
    wrong, changed = _spoil(bundle, folder / "wrong")
    other = _rename(bundle, folder / "other")
    for way, competition_way in product((FLAT, NESTED), repeat=2):
        where, mounted = f"{way} bundle, {competition_way} competition", {COMPETITION_AT[competition_way]: competition}
        if (way, competition_way) != (NESTED, NESTED):
            yield MountCase(name=where, mounts={BUNDLE_AT[way]: bundle, **mounted})
        name, mounts = f"a changed file, {where}", {BUNDLE_AT[way]: wrong, **mounted}
        yield MountCase(name=name, mounts=mounts, reason="bundle_damaged", names=changed)
    both = {BUNDLE_AT[way]: bundle for way in BUNDLE_AT} | {COMPETITION_AT[way]: competition for way in COMPETITION_AT}
    yield MountCase(name="both of them flat and nested", mounts=both)
    for way in (FLAT, NESTED):
        mounted = {COMPETITION_AT[way]: competition}
        yield MountCase(name=f"no bundle, {way} competition", mounts=mounted, reason="no_bundle")
        alone = {BUNDLE_AT[way]: bundle}
        yield MountCase(name=f"no competition, {way} bundle", mounts=alone, reason="no_competition")
        two = {BUNDLE_AT[way]: bundle, f"{BUNDLE_AT[way]}-2": other}
        yield MountCase(name=f"two bundles, {way}", mounts={**two, **mounted}, reason="several_bundles")
    mixed = {BUNDLE_AT[FLAT]: bundle, BUNDLE_AT[NESTED]: other, COMPETITION_AT[NESTED]: competition}
    yield MountCase(name="two bundles, flat and nested", mounts=mixed, reason="several_bundles")


def try_mounts(
    bundle: Path, competition: Path, folder: Path, *, isolation: str, predict: bool
) -> tuple[list[str], list[str]]:
    """Run every case in a folder below `folder`; return their names, and a line for each that ended otherwise.

    Args:
        bundle: a verified one, on the same file system as `folder`.
        competition: a competition folder with the small volume alone.
        folder: where the trees are made, one at a time.
        isolation: NAMESPACES or AUDIT_HOOK.
        predict: whether the good trees' engines get time to predict.
    """
    names, findings = [], []
    for number, case in enumerate(mount_cases(bundle, competition, folder)):
        sandbox = Sandbox(folder=folder / str(number), mounts=case.mounts, isolation=isolation)
        words = [] if case.reason or predict else ["--budget-s", "0"]
        run = sandbox.run_submit(*words, shown=False)
        wrong = [
            *(_stopped(sandbox, run, case) if case.reason else _started(sandbox, run, competition, predict=predict)),
            *run.left,
        ]
        end = "stopped, as expected" if case.reason else "predicted" if predict else "started"
        log.info("  %s: %s, %.1f s", case.name, "; ".join(wrong) or end, run.wall_s)
        names.append(case.name)
        findings += [f"{finding} ({case.name})" for finding in wrong]
        shutil.rmtree(sandbox.folder)  # its scratch holds the wheels, unpacked
    return names, findings


def _stopped(sandbox: Sandbox, run: SandboxRun, case: MountCase) -> Iterator[str]:
    result = run.result
    named = result is not None and (not case.names or any(case.names in finding for finding in result.findings))
    ended = (run.exit_code, result and result.verdict, result and result.reason)
    if ended != (1, protocol.NO_SUBMISSION, case.reason) or not named:
        expected = f"expected exit code 1 and the reason {case.reason}{f' with {case.names}' * bool(case.names)}"
        got = f"exit code {run.exit_code} and {result.reason or 'no reason' if result else 'no result'} ({run.why})"
        yield f"submit.py: {expected}, got {got}"
    if (sandbox.scratch / "site").exists():
        yield "submit.py: expected it to stop before it installs anything, got wheels unpacked"
    if left := sorted(path.name for path in sandbox.working.iterdir()):
        yield f"output: expected nothing of a run that must stop, got {', '.join(left)}"


def _started(sandbox: Sandbox, run: SandboxRun, competition: Path, *, predict: bool) -> Iterator[str]:
    verdict, meaning = protocol.DEGRADED, "zeros of an engine that was given no time"
    if predict:
        verdict, meaning = protocol.COMPLETE, "every volume predicted at the first start"
    (mounted, *_) = (path for place, path in sandbox.mounts.items() if place in BUNDLE_AT.values())
    yield from sandbox.check_submission(run, verdict=verdict, meaning=meaning, manifest_sha256=manifest.digest(mounted))
    if not run.exit_code and (sandbox.working / SUBMISSION).is_file():
        yield from check_masks(sandbox.working / SUBMISSION, competition)


def _spoil(bundle: Path, folder: Path) -> tuple[Path, str]:
    """Make a bundle in which one bit of one file is another; return it and the file's name."""
    _link(bundle, folder)
    name = str(manifest.read(bundle)["settings"])
    content = bytearray((bundle / name).read_bytes())
    content[-1] ^= 1
    (folder / name).unlink()  # a link to the good one
    (folder / name).write_bytes(content)
    return folder, name


def _rename(bundle: Path, folder: Path) -> Path:
    """Make a second bundle, good too, whose manifest names another commit."""
    _link(bundle, folder)
    entries = manifest.read(bundle)
    (folder / manifest.NAME).unlink()
    (folder / manifest.NAME).write_text(manifest.sealed(entries | {"commit": "0" * 40}), encoding="utf-8")
    return folder


def _link(bundle: Path, folder: Path) -> None:
    """Make a copy of a bundle that takes no room: submit.py takes hard links for files, which they are."""
    folder.mkdir(parents=True)
    for path in bundle.iterdir():
        os.link(path, folder / path.name)
