"""The line that submit.py prints for other programs: made by submit.py itself, read here."""

import json
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from package.fake_bundle import result_line

from surface_package.build import protocol
from surface_package.build.protocol import PREFIX, ProtocolError, ScriptResult, read_result

DIGEST = "a" * 64
GOOD = json.loads(
    result_line(
        "submit",
        "complete",
        manifest_sha256=DIGEST,
        files={"submission.zip": "b" * 64},
        findings=["one"],
        after_step=3,
        step=4,
    ).removeprefix(PREFIX)
)


def line(**changes: object) -> str:
    """A good line with other entries; ... leaves one out."""
    return PREFIX + json.dumps({name: value for name, value in {**GOOD, **changes}.items() if value is not ...})


def test_prefix_and_entries_are_the_same_on_both_sides(submit: ModuleType) -> None:
    assert submit.PREFIX == PREFIX
    assert set(submit.Result.__dataclass_fields__) == set(ScriptResult.__dataclass_fields__)


def test_what_submit_py_prints_is_read_back() -> None:
    assert read_result(f"prose\n{line()}\nmore prose\n", "submit") == ScriptResult(
        program="submit",
        verdict="complete",
        reason="",
        message="",
        manifest_sha256=DIGEST,
        files={"submission.zip": "b" * 64},
        findings=("one",),
        after_step=3,
        step=4,
    )


def test_the_last_line_counts_and_may_follow_an_unfinished_one() -> None:
    assert (
        read_result(f"{line(verdict='failed')}\nunfinished{line(verdict='degraded')}", "submit").verdict == "degraded"
    )


def test_many_findings_are_cut_and_counted() -> None:
    findings = [f"finding {number}" for number in range(50)]
    read = read_result(result_line("verify", "refused", findings=findings), "verify")
    assert read.findings == (*findings[:20], "and 30 more")


@pytest.mark.parametrize("output", ["", "verdict: complete; submission.zip holds 2 masks\n", "surface-submit {}\n"])
def test_no_line_is_an_error(output: str) -> None:
    with pytest.raises(ProtocolError, match=r"expected a line 'surface-submit: {…}' .*, got none"):
        read_result(output, "submit")


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (PREFIX, "expected JSON"),
        (line()[:-1], "expected JSON"),
        (json.dumps(line()), "expected JSON"),  # escaped, as a log's JSON holds it
        (PREFIX + "[" * 100_000, "expected JSON"),
        (PREFIX + "[]", "expected a JSON object"),
        *[(line(**{name: ...}), f"others or fewer: {name}") for name in GOOD],
        (line(more=1), "others or fewer: more"),
        (line(program="verify"), "verdict: expected .* of 'submit', got 'complete' of 'verify'"),
        (line(verdict="fine"), "verdict: expected 'complete' or .*, got 'fine' of 'submit'"),
        (line(verdict=None), "verdict: expected another kind of value, got None"),
        (line(manifest_sha256="abc"), "manifest_sha256: expected another kind"),
        (line(files=["submission.zip"]), "files: expected another kind"),
        (line(files={"submission.zip": "A" * 64}), "files: expected another kind"),
        (line(findings="one"), "findings: expected another kind"),
        (line(findings=[1]), "findings: expected another kind"),
        (line(step=True), "step: expected another kind"),
        (line(step=-1), "step: expected another kind"),
        (line(after_step="3"), "after_step: expected another kind"),
    ],
)
def test_a_malformed_line_is_an_error(output: str, message: str) -> None:
    with pytest.raises(ProtocolError, match=message) as caught:
        read_result(output, "submit")
    assert len(str(caught.value)) < 1000


@given(st.text())
def test_no_output_trips_the_reader(text: str) -> None:
    for output in (text, PREFIX + text):
        with pytest.raises(ProtocolError):
            read_result(output, "submit")


def test_why_is_message_and_findings() -> None:
    assert read_result(line(message="it died", findings=["a", "b"]), "submit").why == "it died; a; b"
    assert read_result(line(message="", findings=[]), "submit").why == "it gives no reason"


def test_every_program_has_its_verdicts() -> None:
    for program, verdicts in protocol.VERDICTS.items():
        for verdict in verdicts:
            assert read_result(result_line(program, verdict), program).verdict == verdict
