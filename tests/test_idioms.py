"""How the sources are written, as far as a syntax tree shows it."""

import ast
import subprocess
from collections import Counter
from pathlib import Path

from scenes import ROOT

ROOMS = ("kernel", "train", "package")
MOST_FILES = 16  # of a folder, __init__.py aside
MOST_POSITIONAL = 3


def modules(*rooms):
    """The tracked modules of some rooms, or what lies there where this is no git checkout."""
    paths = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", *rooms], capture_output=True, text=True)
    if listed.returncode == 0:
        tracked = {ROOT / name for name in listed.stdout.splitlines()}
        paths = [path for path in paths if path in tracked]
    assert len(paths) > 5
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(paths)}


TREES = modules(*ROOMS)


def place(path, node):
    return f"{path.relative_to(ROOT)}:{node.lineno}"


def is_compiled(node):
    return any(word in ast.unparse(decorator) for decorator in node.decorator_list for word in ("njit", "compiled"))


def test_no_call_spreads_a_tuple_of_arguments():
    found = [
        place(path, call)
        for path, tree in TREES.items()
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        for argument in call.args
        if isinstance(argument, ast.Starred) and isinstance(argument.value, ast.Tuple)
    ]
    assert found == []


def test_calls_of_our_own_functions_name_their_arguments():
    """Compiled kernels aside, which take no keywords at no cost: they and what they call."""
    ours, kernels = set(), set()
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                (kernels if isinstance(node, ast.FunctionDef) and is_compiled(node) else ours).add(node.name)
    found = []
    for path, tree in TREES.items():
        within = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and is_compiled(node)
            for inner in ast.walk(node)
        }
        for call in ast.walk(tree):
            if not isinstance(call, ast.Call) or id(call) in within:
                continue
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            if ast.unparse(call.func).startswith("log."):  # the logging library's
                continue
            if name in ours - kernels and len(call.args) > MOST_POSITIONAL:
                found.append(f"{place(path, call)} {name}")
    assert found == []


def test_a_file_is_written_in_one_way():
    """`disk.put` and `disk.put_parts`, the score's own, and those of the scripts that may import nothing."""
    found = Counter(
        str(path.relative_to(ROOT))
        for path in TREES
        for line in path.read_text(encoding="utf-8").splitlines()
        if "partial" in line and ".replace(" in line
    )
    assert set(found) <= {
        "kernel/submit.py",
        "kernel/train_on_kaggle.py",
        "kernel/surface_kernel/disk.py",
        "train/surface_score/report.py",
    }


def test_text_is_utf_8_whatever_the_locale():
    found = [
        place(path, call)
        for path, tree in TREES.items()
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
        if call.func.attr in ("read_text", "write_text") and "encoding" not in {word.arg for word in call.keywords}
    ]
    assert found == []


def test_folders_are_a_map():
    folders = Counter(path.parent.relative_to(ROOT) for path in TREES if path.name != "__init__.py")
    assert {str(folder) for folder, count in folders.items() if count > MOST_FILES} == set()


def test_a_class_name_is_used_once():
    names = Counter(node.name for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    assert [name for name, count in names.items() if count > 1] == []


def test_docstrings_begin_in_the_fields_words():
    """ "Return ...", not "Give", "Say" or "Tell"."""
    found = [
        f"{path.relative_to(ROOT)}: {text.splitlines()[0]}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node))
        if text.startswith(("Give ", "Gives ", "Say ", "Says ", "Tell ", "Tells "))
    ]
    assert found == []


def test_errors_say_what_was_expected_and_what_was_got():
    """Not what was "found" and "wanted"."""
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in TREES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if "wanted" in line and "found" in line and 'f"' in line
    ]
    assert found == []


def test_this_file_looks_where_the_code_is():
    assert {path.relative_to(ROOT).parts[0] for path in TREES} == set(ROOMS)
    assert Path(ROOT / "kernel/surface_kernel/disk.py") in TREES
