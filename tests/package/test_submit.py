"""submit.py as a process on small trees; its tables of faults by its functions, where a process adds nothing."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from package.fake_bundle import SUBMIT, list_anew, make_bundle, make_competition, run_submit, shared_result

from surface_package.build import manifest, protocol
from surface_package.build.protocol import ScriptResult

Tree = Callable[..., Path]

# Counts the engine's starts in scratch, which outlives them.
COUNT = """
count = place.scratch / "starts"
starts = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(starts))
"""


def supervise(submit: ModuleType, command: list[str], folder: Path, left_s: float = 60) -> tuple[str, str]:
    """Supervise a command with so much time left."""
    deadline_s = time.monotonic() + left_s
    verdict, why = submit.supervise(command, environment=dict(os.environ), folder=folder, deadline_s=deadline_s)
    return verdict, why


def test_it_needs_the_standard_library_only_and_no_python_newer_than_3_11() -> None:
    tree = ast.parse(SUBMIT.read_text(), feature_version=(3, 11))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names


def test_a_run_from_mounts_to_submission(make_tree: Tree) -> None:
    kaggle = make_tree()
    (kaggle / "input" / "bundle" / "dataset-metadata.json").write_text("{}")
    run = run_submit(kaggle)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "verdict: complete; submission.zip holds 2 masks\n" in run.stdout
    assert shared_result(run).verdict == "complete"
    with zipfile.ZipFile(kaggle / "working" / "submission.zip") as archive:
        assert archive.namelist() == ["7.tif", "8.tif"]
    assert sorted(path.name for path in (kaggle / "working").iterdir()) == ["run_report.json", "submission.zip"]


def test_the_last_line_is_for_other_programs(make_tree: Tree) -> None:
    kaggle = make_tree()
    run = run_submit(kaggle)
    assert protocol.PREFIX in run.stdout.splitlines()[-1]
    assert shared_result(run) == ScriptResult(
        program="submit",
        verdict="complete",
        reason="",
        message="",
        manifest_sha256=manifest.digest(kaggle / "input" / "bundle"),
        files={"submission.zip": manifest.sha256(kaggle / "working" / "submission.zip")},
        findings=(),
        after_step=None,
        step=None,
    )


def test_both_ways_of_mounting_in_one_run(make_tree: Tree) -> None:
    kaggle = make_tree()
    nested = kaggle / "input" / "datasets" / "owner" / "bundle"
    nested.parent.mkdir(parents=True)
    (kaggle / "input" / "bundle").rename(nested)
    # Kaggle may lead to one folder by two names: that is still one bundle.
    (kaggle / "input" / "bundle").symlink_to(nested)
    run = run_submit(kaggle)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_engine_gets_its_folders_and_what_is_left_of_the_budget(make_tree: Tree) -> None:
    code = """
import json
told = {name: str(value) for name, value in vars(place).items()}
told |= {name: os.environ.get(name) for name in ("TMPDIR", "NUMBA_CACHE_DIR", "HOME", "PYTHONPATH")}
(place.out / "told.json").write_text(json.dumps(told | {"module": __file__}))
submit()
"""
    kaggle = make_tree(code)
    (kaggle / "scratch").mkdir()
    (kaggle / "scratch" / "csv.py").write_text("raise ImportError('a stray file was taken for a module')")
    assert run_submit(kaggle, "--budget-s", "500").returncode == 0
    told = json.loads((kaggle / "working" / "told.json").read_text())
    assert 480 <= float(told.pop("budget_s")) < 500
    scratch = kaggle / "scratch"
    assert told == {
        "bundle": str(kaggle / "input" / "bundle"),
        "competition": str(kaggle / "input" / "surface-detection"),
        "out": str(kaggle / "working"),
        "scratch": str(scratch / "engine"),
        "module": str(scratch / "site" / "surface_kernel" / "__main__.py"),
        "PYTHONPATH": str(scratch / "site"),
        "NUMBA_CACHE_DIR": str(scratch / "numba"),
        "TMPDIR": str(scratch / "tmp"),
        "HOME": None,
    }


def test_an_engine_that_dies_three_times_is_started_a_fourth_time(make_tree: Tree) -> None:
    kaggle = make_tree(COUNT + "if starts < 4:\n    os.kill(os.getpid(), signal.SIGKILL)\nsubmit()")
    run = run_submit(kaggle)
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.findall("SIGKILL, start . of .", run.stdout) == [f"SIGKILL, start {start} of 4" for start in (1, 2, 3)]
    assert shared_result(run).verdict == "complete"


def test_an_engine_that_always_dies_is_started_four_times_and_its_zip_still_counts(make_tree: Tree) -> None:
    kaggle = make_tree(COUNT + "submit()\nos._exit(70)")
    run = run_submit(kaggle)
    assert run.returncode == 0
    assert (kaggle / "scratch" / "engine" / "starts").read_text() == "4"
    assert "exit code 70, start 4 of 4" in run.stdout
    assert "verdict: failed (it died 4 times); submission.zip holds 2 masks" in run.stdout
    result = shared_result(run)
    assert (result.verdict, result.message, list(result.files)) == ("failed", "it died 4 times", ["submission.zip"])


def test_every_start_gets_what_is_left_of_the_budget(submit: ModuleType, tmp_path: Path) -> None:
    told = tmp_path / "told"
    code = f"import os, sys, time; open({str(told)!r}, 'a').write(sys.argv[2] + '\\n'); time.sleep(0.15); os._exit(9)"
    command = [sys.executable, "-c", code]
    supervise(submit, command, tmp_path, left_s=50)
    budgets = told.read_text().split()
    assert len(budgets) == 4
    assert all(re.fullmatch(r"\d+\.\d", budget) for budget in budgets)
    assert 50 >= float(budgets[0]) > float(budgets[1]) > float(budgets[2]) > float(budgets[3]) > 0


def test_an_engine_that_could_not_be_started_is_started_again(submit: ModuleType, tmp_path: Path) -> None:
    program = tmp_path / "program"
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        program.write_text(f"#!{sys.executable}\n")
        program.chmod(0o755)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(submit, "say", say)
        assert supervise(submit, [str(program)], tmp_path) == ("complete", "")
    (line,) = lines
    assert re.fullmatch(r"the engine died: .*No such file or directory.*, start 1 of 4", line)


@pytest.mark.parametrize(("code", "verdict"), [(0, "complete"), (3, "degraded"), (1, "failed")])
def test_an_engine_that_says_how_it_ended_is_not_started_again(
    submit: ModuleType, tmp_path: Path, code: int, verdict: str
) -> None:
    command = [sys.executable, "-c", f"import sys; open('starts', 'a').write('.'); sys.exit({code})"]
    assert supervise(submit, command, tmp_path) == (verdict, "")
    assert (tmp_path / "starts").read_text() == "."


def test_an_engine_that_fails_beside_a_whole_submission_does_not_fail_the_run(make_tree: Tree) -> None:
    run = run_submit(make_tree("submit()\nsys.exit(1)"))
    assert run.returncode == 0
    assert "verdict: failed; submission.zip holds 2 masks\n" in run.stdout
    assert shared_result(run).verdict == "failed"


def test_whatever_goes_wrong_here_the_submission_is_looked_at(make_tree: Tree) -> None:
    kaggle = make_tree("submit()\nos._exit(9)")
    code = f"""
import runpy, sys
for name in ("input", "working", "scratch"):
    sys.argv += ["--" + name, {str(kaggle)!r} + "/" + name]
submit = runpy.run_path({str(SUBMIT)!r})
def fail(line):
    if line.startswith("the engine died"):
        raise ZeroDivisionError("nothing to do with it")
    print(line)
submit["supervise"].__globals__["say"] = fail
sys.exit(submit["main"]())
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr
    result = shared_result(run)
    assert (result.verdict, result.message) == ("failed", "ZeroDivisionError: nothing to do with it")
    assert "submission.zip" in result.files


def test_a_log_that_takes_no_more_does_not_cost_the_submission(make_tree: Tree) -> None:
    kaggle = make_tree(COUNT + "print('told', flush=True)\nif starts < 3:\n    os._exit(9)\nsubmit()")
    places = [word for name in ("input", "working", "scratch") for word in (f"--{name}", str(kaggle / name))]
    with Path("/dev/full").open("wb") as full:
        run = subprocess.run([sys.executable, str(SUBMIT), *places], stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert run.returncode == 0, run.stderr.decode()
    with zipfile.ZipFile(kaggle / "working" / "submission.zip") as archive:
        assert archive.namelist() == ["7.tif", "8.tif"]


def test_an_engine_without_a_submission_fails_the_run(make_tree: Tree) -> None:
    run = run_submit(make_tree("sys.exit(1)"))
    assert run.returncode == 1
    assert "submission.zip: expected a submission with 2 masks, got no such file" in run.stdout
    assert "verdict: no submission; the engine's run: failed\n" in run.stdout
    result = shared_result(run)
    assert (result.verdict, result.files, len(result.findings)) == ("no submission", {}, 1)


def test_a_missing_id_fails_the_run(make_tree: Tree) -> None:
    run = run_submit(make_tree("submit(lambda masks: masks.pop('8.tif'))"))
    assert run.returncode == 1
    assert "submission.zip: expected a mask for every id, got no '8.tif'" in run.stdout
    assert (shared_result(run).verdict, shared_result(run).files) == ("no submission", {})


def test_an_engine_that_outlives_its_budget_is_killed(
    submit: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(submit, "GRACE_S", 0.3)
    started_s = time.monotonic()
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    assert supervise(submit, command, tmp_path, left_s=0.1) == ("failed", "stopped 0 s after its budget")
    assert time.monotonic() - started_s < 10


def test_no_time_left_no_second_start(submit: ModuleType, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import os; os._exit(9)"]
    assert supervise(submit, command, tmp_path, left_s=0) == ("failed", "it died, and no time is left")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("made", [True, False])
def test_a_stopped_run_takes_its_engine_along_and_keeps_what_stands(
    make_tree: Tree, number: signal.Signals, made: bool
) -> None:
    code = "submit()\n" * made + "(place.out / 'part').write_text(str(os.getpid()))\n"
    kaggle = make_tree(code + "(place.out / 'part').rename(place.out / 'pid')\ntime.sleep(60)")
    places = [word for name in ("input", "working", "scratch") for word in (f"--{name}", str(kaggle / name))]
    pid_file = kaggle / "working" / "pid"
    with subprocess.Popen([sys.executable, str(SUBMIT), *places], stdout=subprocess.PIPE, text=True) as run:
        while not pid_file.exists():
            assert run.poll() is None
            time.sleep(0.02)
        for _ in range(3):  # a second one breaks nothing off either
            run.send_signal(number)
        result = protocol.read_result(run.communicate(timeout=20)[0], protocol.SUBMIT)
    assert run.returncode == (0 if made else 1)
    assert result.verdict == ("failed" if made else "no submission")
    assert result.message == f"stopped by {number.name}"
    assert list(result.files) == ["submission.zip"] * made
    assert not Path("/proc", pid_file.read_text()).exists()


@pytest.mark.parametrize("fault", ["changed", "truncated", "unlisted", "missing"])
def test_a_bad_bundle_stops_the_run_early_and_leaves_no_zip(make_tree: Tree, fault: str) -> None:
    kaggle = make_tree()
    (kaggle / "working").mkdir()
    (kaggle / "working" / "submission.zip").write_bytes(b"of an earlier run")
    spoil(kaggle / "input" / "bundle", fault)
    run = run_submit(kaggle)
    assert run.returncode == 1
    assert run.stdout.count("finding: ") == 1
    assert "expected the files that its manifest lists, got 1 fault;" in run.stdout
    result = shared_result(run)
    assert (result.verdict, result.reason, len(result.findings)) == ("no submission", "bundle_damaged", 1)
    assert (result.files, result.manifest_sha256) == ({}, "")
    assert not (kaggle / "scratch" / "site").exists()
    assert [path.name for path in (kaggle / "working").iterdir()] == ["earlier_submission.zip"]


def spoil(bundle: Path, fault: str) -> None:
    path = bundle / "member_0.safetensors"
    content = path.read_bytes()
    if fault == "changed":
        path.write_bytes(content[:-1] + b"?")
    elif fault == "truncated":
        path.write_bytes(content[:-1])
    elif fault == "missing":
        path.unlink()
    elif fault == "unlisted":
        (bundle / "extra.py").write_text("")
    elif fault == "link":
        path.rename(bundle.parent / "elsewhere")
        path.symlink_to(bundle.parent / "elsewhere")
    elif fault == "folder":
        path.unlink()
        path.mkdir()
    else:
        manifest = json.loads((bundle / "manifest.json").read_text())
        exec(fault, {"manifest": manifest, "files": manifest["files"]})
        (bundle / "manifest.json").write_text(json.dumps(manifest))


FAULTS = [
    ("changed", r"'member_0.safetensors': expected sha256 [0-9a-f]{64}, got [0-9a-f]{64}"),
    ("truncated", r"'member_0.safetensors': expected 32 bytes, got 31"),
    ("missing", r"'member_0.safetensors': expected 32 bytes, got no such file"),
    ("unlisted", r"'extra.py': expected only files that the manifest lists, got another"),
    ("link", r"'member_0.safetensors': expected a file, got a link"),
    ("folder", r"'member_0.safetensors': expected a file, got a folder or a special file"),
    ("files['../x'] = files['settings.json']", r"expected names of files inside the bundle, got '\.\./x'"),
    (r"files['a\\b'] = files['settings.json']", r"expected names of files inside the bundle, got 'a\\\\b'"),
    ("files['..'] = files['settings.json']", r"expected names of files inside the bundle, got '\.\.'"),
    (
        "files['manifest.json'] = files['settings.json']",
        r"expected names .*, got 'manifest.json'",
    ),
    (
        "files['settings.json']['sha256'] = 'A' * 64",
        r"files: 'settings.json': expected a sha256 and a number of bytes, got",
    ),
    ("files['settings.json']['bytes'] = True", r"files: 'settings.json': expected a sha256 and a number of bytes, got"),
    ("files['settings.json'] = None", r"files: 'settings.json': expected .*, got None"),
    ("manifest['files'] = []", r"expected a table 'files' .*, got none"),
    ("manifest['format'] = 'surface-bundle/2'", r"expected JSON of format 'surface-bundle/1', got 'surface-bundle/2'"),
    ("manifest['weights'] = ['other']", r"weights: expected files that it lists, got \['other'\]"),
    ("manifest['weights'] = []", r"weights: expected .*, got \[\]"),
    ("manifest['settings'] = 'other'", r"settings: expected a file that it lists, got 'other'"),
    ("manifest['settings'] = ['settings.json']", r"settings: expected .*, got \['settings.json'\]"),
    (
        "manifest['requirements'] = ['--index-url=http://x']",
        r"requirements: expected .*, got \['--index-url=http://x'\]",
    ),
    ("manifest['requirements'] = ['x @ http://x']", r"requirements: expected .*, got \['x @ http://x'\]"),
    ("del manifest['python']", r"python: expected .*, got None"),
]


@pytest.mark.parametrize(("fault", "finding"), FAULTS, ids=[fault for fault, _ in FAULTS])
def test_each_fault_of_a_bundle_is_one_finding(submit: ModuleType, tmp_path: Path, fault: str, finding: str) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    assert submit.check_bundle(bundle) == []
    spoil(bundle, fault)
    findings = submit.check_bundle(bundle)
    assert len(findings) == 1
    assert re.search(finding, findings[0])
    assert "\n" not in findings[0]


def test_a_name_with_a_line_break_is_still_one_line(submit: ModuleType, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    (bundle / "two\nlines").write_text("")
    (bundle / os.fsdecode(b"\xff")).write_text("")
    findings = submit.check_bundle(bundle)
    assert len(findings) == 2
    assert all(finding.isprintable() for finding in findings)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b"\xff", b"[" * 100_000, b"9" * 5000, b'{"format": 1}', b" " * (2 << 20)]
)
def test_a_manifest_that_is_none_is_one_finding(submit: ModuleType, tmp_path: Path, content: bytes) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    (bundle / "manifest.json").write_bytes(content)
    (finding,) = submit.check_bundle(bundle)
    assert finding.startswith("manifest.json: expected ")
    assert finding.isprintable()


@pytest.mark.parametrize("name", ["manifest.json", "settings.json", "new"])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path)])
def test_what_is_no_file_is_one_finding_and_not_waited_for(
    submit: ModuleType, tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    bundle = make_bundle(tmp_path / "input" / "bundle")
    (bundle / name).unlink(missing_ok=True)
    make(bundle / name)
    (finding,) = submit.check_bundle(bundle)
    assert re.match("manifest.json: .* got no such file|'(settings.json|new)': .* got a (link|folder or)", finding)
    if name == "manifest.json":
        with pytest.raises(submit.SubmitError, match=r"expected one folder with a manifest.json .*, got none"):
            submit.find_bundle(tmp_path / "input")


def test_a_name_that_no_file_system_takes_is_one_finding(submit: ModuleType, tmp_path: Path) -> None:
    for name in ("a" * 5000, "\ud800", "\x07"):
        bundle = make_bundle(tmp_path / "bundle")
        listed = json.loads((bundle / "manifest.json").read_text())
        listed["files"][name] = listed["files"]["settings.json"]
        (bundle / "manifest.json").write_text(manifest.sealed(listed))
        (finding,) = submit.check_bundle(bundle)
        assert re.search("expected \\d+ bytes, got no such file", finding)
        assert finding.isprintable()
        shutil.rmtree(bundle)
        shutil.rmtree(tmp_path / "bundle-sources")


def test_the_search_passes_by_what_cannot_be_read(submit: ModuleType, tmp_path: Path) -> None:
    for number in range(30):  # in whatever order a folder is listed, one comes before what is looked for
        (tmp_path / f"circle{number}").symlink_to(f"circle{number}")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / os.fsdecode(b"\xff")).mkdir()
    for name in ("manifest.json", "test.csv", "test_images"):
        (tmp_path / "folders" / name).mkdir(parents=True)
    (tmp_path / "pipes" / "test_images").mkdir(parents=True)
    for name in ("manifest.json", "test.csv"):
        os.mkfifo(tmp_path / "pipes" / name)
    (tmp_path / "nonsense").mkdir()
    (tmp_path / "nonsense" / "manifest.json").write_bytes(b"[" * 100_000)
    bundle, competition = make_bundle(tmp_path / "z"), make_competition(tmp_path / "y", a7=(2, 3, 4))
    assert submit.find_bundle(tmp_path) == bundle
    assert submit.find_competition(tmp_path) == competition


def spoil_wheel(bundle: Path, member: zipfile.ZipInfo | None, content: bytes = b"") -> Path:
    """Put one more member into the bundle's wheel, none for no zip at all, and make the manifest match."""
    (wheel,) = bundle.glob("*.whl")
    if member is None:
        wheel.write_bytes(b"PK\3\4 no wheel")
    else:
        with zipfile.ZipFile(wheel, "a") as archive:
            archive.writestr(member, content)
    list_anew(bundle, wheel.name)
    return wheel


def member(name: str, mode: int = 0o100644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("placeholder")
    info.filename = name
    info.external_attr = mode << 16
    return info


@pytest.mark.parametrize(
    ("info", "found"),
    [
        (member("../evil.py"), "expected members inside of the wheel, got '../evil.py'"),
        (member("a/../../evil.py"), "expected members inside of the wheel, got 'a/../../evil.py'"),
        (member("a/.."), "expected members inside of the wheel, got 'a/..'"),
        (member("/etc/evil"), "expected members inside of the wheel, got '/etc/evil'"),
        (member("C:/evil"), "expected members inside of the wheel, got 'C:/evil'"),
        (member("a\\evil"), "expected members inside of the wheel, got 'a\\\\evil'"),
        (member("link", 0o120777), "expected files, got the member 'link' as a link or a device"),
        (member("fifo", 0o010644), "expected files, got the member 'fifo' as a link or a device"),
        (None, "expected a wheel, got no readable zip (BadZipFile"),
    ],
)
def test_a_wheel_that_pip_should_not_see_is_a_finding_though_the_manifest_lists_it(
    submit: ModuleType, tmp_path: Path, info: zipfile.ZipInfo | None, found: str
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    wheel = spoil_wheel(bundle, info)
    (finding,) = submit.check_bundle(bundle)
    assert finding.startswith(f"{wheel.name!r}: {found}")


def test_wheels_that_would_fill_the_disk_are_a_finding(
    submit: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    spoil_wheel(bundle, member("surface_kernel/..big"), bytes(100_000))
    assert submit.check_bundle(bundle) == []
    monkeypatch.setattr(submit, "WHEELS_LIMIT_BYTES", 100_000)
    (finding,) = submit.check_bundle(bundle)
    assert re.fullmatch(r"wheels: expected at most 100000 bytes to unpack, got 10\d{4}", finding)


def test_an_evil_wheel_is_never_installed(make_tree: Tree) -> None:
    kaggle = make_tree()
    spoil_wheel(kaggle / "input" / "bundle", member("../../evil.py"), b"raise SystemExit")
    run = run_submit(kaggle)
    assert run.returncode == 1
    assert "expected members inside of the wheel, got '../../evil.py'" in run.stdout
    assert shared_result(run).reason == "bundle_damaged"
    assert not (kaggle / "scratch" / "site").exists()
    assert not list(kaggle.rglob("evil.py"))


TEXT = st.text("a0./\\\\\0=-", max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["files", "weights", "settings", "requirements", "python"])


@settings(deadline=None)
@given(st.dictionaries(KEYS, JSON | st.dictionaries(TEXT, JSON)))
def test_no_manifest_trips_the_check_of_its_form(submit: ModuleType, manifest: dict[str, object]) -> None:
    findings = submit.check_form(manifest)
    assert findings
    assert all(isinstance(finding, str) for finding in findings)


def test_verify_prints_its_findings_and_exits_with_1(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    command = [sys.executable, "-I", str(SUBMIT), "--verify", str(bundle)]
    good = subprocess.run(command, capture_output=True, text=True)
    assert (good.returncode, good.stdout.count("\n")) == (0, 2)
    digest = manifest.digest(bundle)
    assert good.stdout.startswith(f"bundle verified: {bundle}, manifest sha256 {digest}\n")
    result = shared_result(good, "verify")
    assert (result.verdict, result.manifest_sha256, result.findings) == ("verified", digest, ())
    spoil(bundle, "truncated")
    spoil(bundle, "unlisted")
    bad = subprocess.run(command, capture_output=True, text=True)
    assert bad.returncode == 1
    assert [line.split(":")[0] for line in bad.stdout.splitlines()] == ["finding", "finding", "surface-submit"]
    result = shared_result(bad, "verify")
    assert (result.verdict, result.reason, result.manifest_sha256) == ("refused", "bundle_damaged", "")
    assert [f"finding: {finding}" for finding in result.findings] == bad.stdout.splitlines()[:2]
    shutil.rmtree(bundle)
    none = subprocess.run(command, capture_output=True, text=True)
    assert none.returncode == 1
    assert re.match("finding: manifest.json: .*, got no such file\n", none.stdout)


def test_the_wrong_number_of_bundles_is_named(submit: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(submit.SubmitError, match=r"expected one folder with a manifest\.json .*, got none") as caught:
        submit.find_bundle(tmp_path)
    assert caught.value.reason == "no_bundle"
    with pytest.raises(submit.SubmitError, match="got no such folder") as caught:
        submit.find_bundle(tmp_path / "input")
    assert caught.value.reason == "no_input"
    first = make_bundle(tmp_path / "a" / "b" / "c")
    assert submit.find_bundle(tmp_path) == first
    (tmp_path / "link").symlink_to(tmp_path / "a")  # one bundle by two paths is one
    assert submit.find_bundle(tmp_path) == first
    second = Path(shutil.copytree(first, tmp_path / "d"))
    assert submit.find_bundle(tmp_path) == second  # and so is one that two mounts show; the nearest is taken
    (second / "manifest.json").write_text((first / "manifest.json").read_text() + " ")
    with pytest.raises(submit.SubmitError, match=f"got 2 \\({first}, {second}\\)") as caught:
        submit.find_bundle(tmp_path)
    assert caught.value.reason == "several_bundles"


def test_a_broken_manifest_is_named_where_no_bundle_is_found(submit: ModuleType, tmp_path: Path) -> None:
    (make_bundle(tmp_path / "bundle") / "manifest.json").write_text("{")
    with pytest.raises(submit.SubmitError, match=r"got none \(.*bundle: manifest.json: expected JSON"):
        submit.find_bundle(tmp_path)


def test_what_lies_too_deep_or_among_images_is_not_looked_at(submit: ModuleType, tmp_path: Path) -> None:
    make_bundle(tmp_path / "a" / "b" / "c" / "deep")
    make_bundle(tmp_path / "competition" / "train_images" / "bundle")
    make_bundle(tmp_path / "competition" / "deprecated_train_labels" / "bundle")
    with pytest.raises(submit.SubmitError, match="got none"):
        submit.find_bundle(tmp_path)


def test_the_competition_is_told_from_what_looks_like_it(submit: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "test.csv").write_text("id\n1\n")
    with pytest.raises(
        submit.SubmitError, match=r"expected one folder with test.csv and test_images, got none"
    ) as caught:
        submit.find_competition(tmp_path)
    assert caught.value.reason == "no_competition"
    make_competition(tmp_path / "a-copy")
    assert submit.find_competition(tmp_path) == tmp_path / "a-copy"
    make_competition(tmp_path / "b-copy")
    assert submit.find_competition(tmp_path) == tmp_path / "a-copy"  # the same ids, the same competition
    (tmp_path / "b-copy" / "test.csv").write_text("id,scroll_id\n9,1\n")
    with pytest.raises(submit.SubmitError, match=r"got 2 \(.*a-copy, .*b-copy\)") as caught:
        submit.find_competition(tmp_path)
    assert caught.value.reason == "several_competitions"
    own = make_competition(tmp_path / "competitions" / submit.COMPETITION)
    assert submit.find_competition(tmp_path) == own


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        (b"id,scroll_id\n7,1\n8,1\n", ["7", "8"]),
        (b"\xef\xbb\xbfid,scroll_id\r\n7,1\r\n", ["7"]),
        (b"scroll_id,id\n1, 7 \n1,8\n1,7\n", ["7", "8"]),
        (b"id\n7\n\n8", ["7", "8"]),
    ],
)
def test_ids_come_from_the_id_column(submit: ModuleType, tmp_path: Path, content: bytes, ids: list[str]) -> None:
    (tmp_path / "test.csv").write_bytes(content)
    assert submit.read_ids(tmp_path / "test.csv") == ids


@pytest.mark.parametrize("content", [b"", b"id,scroll_id\n", b"name\n7\n", b"\xff\xfe\x00", b"id\n\x00\xff"])
def test_a_table_without_ids_is_refused(submit: ModuleType, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "test.csv").write_bytes(content)
    with pytest.raises(submit.SubmitError, match=r"test\.csv: expected ") as caught:
        submit.read_ids(tmp_path / "test.csv")
    assert caught.value.reason == "no_ids"


def test_a_python_without_wheels_is_named(make_tree: Tree) -> None:
    run = run_submit(make_tree(python=["3.99"]))
    assert run.returncode == 1
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"expected Python 3.99 on Linux x86_64, got Python {here} on Linux" in run.stdout
    assert "; add its wheels to package/wheels.txt" in run.stdout
    assert shared_result(run).reason == "other_python"


def test_a_wheel_that_does_not_fit_is_named(make_tree: Tree) -> None:
    run = run_submit(make_tree(requirements=["surface-kernel==0.1.0", "connected-components-3d==4.1.1"]))
    assert run.returncode == 1
    (line,) = [line for line in run.stdout.splitlines() if line.startswith("error: ")]
    assert "No matching distribution found for connected-components-3d==4.1.1" in line
    assert (shared_result(run).reason, f"error: {shared_result(run).message}") == ("not_installed", line)


TIFF = b"II*\0 and so on"
ZIPS = [
    ({"7.tif": TIFF, "8.tif": b"MM\0* and so on"}, []),
    ({"7.tif": TIFF}, ["expected a mask for every id, got no '8.tif'"]),
    ({"7.tif": TIFF, "8.tif": TIFF, "9.tif": TIFF}, ["expected only ids of test.csv, got '9.tif'"]),
    ({"7.tif": TIFF, "a/8.tif": TIFF}, ["got no '8.tif'", "got 'a/8.tif'"]),
    ({"7.tif": TIFF, "8.tif": b""}, ["'8.tif': expected a TIFF, got b'' at its start"]),
    ({"7.tif": TIFF, "8.tif": b"PK\3\4"}, ["'8.tif': expected a TIFF, got b'PK"]),
    ({}, ["got no '7.tif'", "got no '8.tif'"]),
]


@pytest.mark.parametrize(("members", "findings"), ZIPS)
def test_a_submission_holds_each_id_once(
    submit: ModuleType, tmp_path: Path, members: dict[str, bytes], findings: list[str]
) -> None:
    path = tmp_path / "submission.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    found = submit.check_submission(path, ["7", "8"])
    assert len(found) == len(findings)
    assert all(wanted in line for wanted, line in zip(findings, found, strict=True))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_mask_that_is_there_twice_is_a_finding(submit: ModuleType, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "submission.zip", "w") as archive:
        archive.writestr("7.tif", TIFF)
        archive.writestr("7.tif", TIFF)
    (finding,) = submit.check_submission(tmp_path / "submission.zip", ["7"])
    assert "got '7.tif' twice" in finding


@settings(deadline=None)
@given(at=st.integers(0, 400), bit=st.integers(0, 7), cut=st.booleans())
def test_a_damaged_zip_is_a_finding_or_holds_the_same_masks(
    submit: ModuleType, tmp_path_factory: pytest.TempPathFactory, at: int, bit: int, cut: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.zip"
    masks = {"7.tif": TIFF * 4, "8.tif": TIFF * 5}
    with zipfile.ZipFile(path, "w") as archive:
        for name, mask in masks.items():
            archive.writestr(zipfile.ZipInfo(name), mask)
    content = bytearray(path.read_bytes())
    at %= len(content)
    content[at] ^= 1 << bit
    path.write_bytes(content[:at] if cut else content)
    if submit.check_submission(path, ["7", "8"]) == []:
        with zipfile.ZipFile(path) as archive:
            assert {name: archive.read(name) for name in archive.namelist()} == masks
