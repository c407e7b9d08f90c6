"""What a run of submit.py must say of itself: each way in which it does not is one finding."""

from pathlib import Path

import pytest
from package.fake_bundle import result_line

from surface_package.build import manifest, protocol
from surface_package.rehearsal.sandbox import AUDIT_HOOK, SUBMISSION, Sandbox, SandboxRun

DIGEST = "a" * 64


def ended(exit_code: int, verdict: str, **entries: object) -> SandboxRun:
    result = protocol.read_result(result_line("submit", verdict, **entries), "submit")
    return SandboxRun(exit_code=exit_code, wall_s=1.0, peak_bytes=1, result=result, fault="", left=())


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    made = Sandbox(folder=tmp_path, mounts={}, isolation=AUDIT_HOOK)
    made.working.mkdir()
    (made.working / SUBMISSION).write_bytes(b"zip")
    return made


def check(sandbox: Sandbox, run: SandboxRun) -> list[str]:
    return sandbox.check_submission(run, verdict="complete", meaning="all of it", manifest_sha256=DIGEST)


def files(sandbox: Sandbox) -> dict[str, str]:
    return {SUBMISSION: manifest.sha256(sandbox.working / SUBMISSION)}


def test_a_run_that_says_what_it_left_has_no_finding(sandbox: Sandbox) -> None:
    assert check(sandbox, ended(0, "complete", manifest_sha256=DIGEST, files=files(sandbox))) == []


def test_each_way_in_which_it_does_not_is_a_finding(sandbox: Sandbox) -> None:
    silent = SandboxRun(exit_code=0, wall_s=1.0, peak_bytes=1, result=None, fault="no line", left=())
    good = files(sandbox)
    for run, finding in (
        (silent, "submit.py: no line"),
        (ended(1, "complete", message="why"), "submit.py: expected exit code 0, got 1 (why)"),
        (ended(0, "failed", message="why"), "submit.py: expected all of it, got the verdict 'failed' (why)"),
        (ended(0, "complete", files=good), f"submit.py: expected the bundle's manifest {DIGEST}, got none verified"),
        (
            ended(0, "complete", files=good, manifest_sha256="b" * 64),
            f"submit.py: expected the bundle's manifest {DIGEST}, got {'b' * 64} verified",
        ),
        (ended(0, "complete", manifest_sha256=DIGEST), f"submit.py: expected {SUBMISSION} as it says, {{}}, got "),
        (
            ended(0, "complete", manifest_sha256=DIGEST, files={SUBMISSION: "c" * 64}),
            f"submit.py: expected {SUBMISSION} as it says, ",
        ),
    ):
        (only,) = check(sandbox, run)
        assert only.startswith(finding)
    (sandbox.working / SUBMISSION).unlink()
    (only,) = check(sandbox, ended(0, "complete", manifest_sha256=DIGEST, files=good))
    assert only.endswith("got no such file")
