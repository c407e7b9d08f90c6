"""Which files a bundle's code comes from, and when they have a commit to their name."""

from pathlib import Path

import pytest
from package.clones import commit, git, make_clone

from surface_kernel import __version__
from surface_package.build import sources
from surface_package.build.sources import SourceError

MODULE = Path("kernel", "surface_kernel", "__main__.py")


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return make_clone(tmp_path / "clone")


def test_outside_of_git_the_files_are_taken_as_they_are(tmp_path: Path, clone: Path) -> None:
    assert sources.take(clone, tmp_path / "out") == sources.Sources(clone, None)


def test_an_archive_unpacked_inside_of_another_repository_is_not_its_code(tmp_path: Path, clone: Path) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "other")
    assert sources.take(clone, tmp_path / "out") == sources.Sources(clone, None)


def test_of_a_clone_the_commits_files_are_taken(tmp_path: Path, clone: Path) -> None:
    head = commit(clone)
    committed = (clone / MODULE).read_bytes()
    git(clone, "update-index", "--assume-unchanged", str(MODULE))
    (clone / MODULE).write_text("unseen by git status")
    (clone / ".git" / "info" / "exclude").write_text("ignored.py\n")
    (clone / MODULE).with_name("ignored.py").write_text("")
    (clone / "README.md").write_text("changed elsewhere")
    taken = sources.take(clone, tmp_path / "out")
    assert (taken.root, taken.commit, taken.version) == (tmp_path / "out", head, __version__)
    assert (taken.root / MODULE).read_bytes() == committed
    assert not (taken.kernel / "ignored.py").exists()
    assert (taken.root / "package" / "wheels.txt").is_file()


def test_a_commit_in_a_folder_of_a_larger_repository_counts(tmp_path: Path, clone: Path) -> None:
    head = commit(tmp_path)
    taken = sources.take(clone, tmp_path / "out")
    assert (taken.commit, (taken.root / MODULE).is_file()) == (head, True)


def test_line_ends_are_those_of_the_commit(tmp_path: Path, clone: Path) -> None:
    commit(clone)
    committed = (clone / MODULE).read_bytes()
    git(clone, "config", "core.autocrlf", "true")
    assert (sources.take(clone, tmp_path / "out").root / MODULE).read_bytes() == committed


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        (MODULE, "kernel/surface_kernel/__main__.py"),
        (MODULE.with_name("new.py"), "kernel/surface_kernel/new.py"),
        (Path("setup.cfg"), "setup.cfg"),
        (Path("package", "wheels.txt"), "package/wheels.txt"),
    ],
)
def test_changed_code_is_refused_by_name_unless_told(tmp_path: Path, clone: Path, place: Path, shown: str) -> None:
    commit(clone)
    git(clone, "config", "status.showUntrackedFiles", "no")  # a user's setting must not hide a new module
    with (clone / place).open("a") as file:
        file.write("\n")
    with pytest.raises(SourceError, match=f"expected .*, got changes in {shown}; .*--uncommitted"):
        sources.take(clone, tmp_path / "out")
    assert sources.take(clone, tmp_path / "out", uncommitted=True) == sources.Sources(clone, None)
    git(clone, "add", ".")  # staged is not committed
    with pytest.raises(SourceError):
        sources.take(clone, tmp_path / "out")
    git(clone, "commit", "-qm", "second")
    assert sources.take(clone, tmp_path / "out").commit == git(clone, "rev-parse", "HEAD")
    assert sources.take(clone, tmp_path / "again", uncommitted=True).commit == git(clone, "rev-parse", "HEAD")


def test_changes_elsewhere_than_in_what_is_taken_do_not_count(tmp_path: Path, clone: Path) -> None:
    head = commit(clone)
    (clone / MODULE).write_text("changed = 1")
    taken = sources.take(clone, tmp_path / "out", paths=("setup.cfg", "package"))
    assert (taken.commit, taken.kernel.exists(), (taken.root / "package").is_dir()) == (head, False, True)


@pytest.mark.parametrize("fault", ["no commit yet", "no git"])
def test_a_clone_that_git_cannot_read_is_no_archive(
    tmp_path: Path, clone: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    git(clone, "init", "-q")
    if fault == "no git":
        monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match=r"clone: expected the code .*, got (no commit|changes in .* and \d+ more;)"):
        sources.take(clone, tmp_path / "out")
    assert sources.take(clone, tmp_path / "out", uncommitted=True).commit is None


def test_what_git_says_of_a_clone_that_it_will_not_read_is_told(
    tmp_path: Path, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a clone that another user owns, which is common in containers."""
    commit(clone)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(SourceError, match=r"no commit that git can read: .*dubious ownership.*safe\.directory"):
        sources.take(clone, tmp_path / "out")
    assert sources.take(clone, tmp_path / "out", uncommitted=True) == sources.Sources(clone, None)


def test_nor_is_it_taken_for_no_clone_inside_of_a_larger_repository(
    tmp_path: Path, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(tmp_path)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(SourceError, match=r"dubious ownership"):
        sources.take(clone, tmp_path / "out")


def test_a_clone_without_git_or_any_commit_is_told_as_such(
    tmp_path: Path, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(clone, "init", "-q")
    with pytest.raises(SourceError, match="no commit that git can read: fatal: "):
        sources.take(clone, tmp_path / "out")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match="no commit that git can read: git is not installed"):
        sources.take(clone, tmp_path / "out")
