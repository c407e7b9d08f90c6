"""What a bare Python makes of a bundle: it installs the wheels, compiles all that they hold, and imports what it can.

`pythons` runs this file as a script, in an empty environment of the Python that is tried, so it sees the standard
library only. The wheels are installed by submit.py's own function. Imported is what needs no more than the standard
library and the bundle; a module that asks for torch or numpy is left to a run on Kaggle.
"""

import argparse
import importlib
import runpy
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KERNEL = "surface_kernel"


def compile_all(site: Path) -> Iterator[str]:
    """Yield a finding for every file of the site folder that this Python cannot compile."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of strangers' code, which runs all the same
        for path in sorted(site.rglob("*.py")):
            try:
                compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
            except (SyntaxError, ValueError) as error:  # the latter for a null byte
                yield f"{path.relative_to(site)}: expected code that this Python can compile, got {error}"


def import_all(site: Path, standard: set[str]) -> tuple[int, set[str], list[str]]:
    """Import the kernel's modules; return how many could be, what the others need, and findings.

    standard: modules of the standard library that rehearsed: one that this Python lacks is a finding, as is anything
    else that goes wrong but a library that is not in the bundle.
    """
    sys.path.insert(0, str(site))
    bundled = {path.name.partition(".")[0] for path in site.iterdir()}
    imported, needed, findings = 0, set(), []
    for name in module_names(site):
        try:
            importlib.import_module(name)
            imported += 1
        except SyntaxError:  # a finding of `compile_all` already
            continue
        except Exception as error:  # whatever a module may raise
            absent = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
            if absent and absent not in bundled | standard:
                needed.add(absent)
            else:
                findings.append(f"{name}: expected to import it, got {type(error).__name__}: {error}")
    return imported, needed, findings


def module_names(site: Path) -> Iterator[str]:
    """Yield the names of the kernel's modules, but for its commands, which importing could start."""
    for path in sorted((site / KERNEL).rglob("*.py")):
        parts = path.relative_to(site).with_suffix("").parts
        if parts[-1] != "__main__":
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def try_bundle(submit: dict[str, Any], arguments: argparse.Namespace) -> tuple[list[str], str]:
    """Install, compile and import a bundle; return findings, and what was done for people."""
    scratch = arguments.scratch or submit["SCRATCH"]
    try:
        bundle = submit["find_bundle"](arguments.input or submit["INPUT"])
        environment = submit["child_environment"](scratch)
        site = scratch / "site"
        submit["install"](bundle, submit["read_manifest"](bundle), site=site, environment=environment)
    except submit["SubmitError"] as error:
        return [str(error)], "not installed"
    findings = list(compile_all(site))
    imported, needed, faults = import_all(site, set(arguments.standard.split(",")))
    if not imported:
        faults.append(f"{KERNEL}: expected modules that need no library to import, got none")
    others = f"; the others need {', '.join(sorted(needed))}" if needed else ""
    return findings + faults, f"installed, compiled, {imported} modules of {KERNEL} imported{others}"


def main() -> int:
    """Go through all three steps; print what was done, and last the line that submit.py's `Result` makes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("submit", type=Path, help="submit.py")
    parser.add_argument("standard", help="names of modules, with commas between")
    for name in ("input", "working", "scratch"):
        parser.add_argument(f"--{name}", type=Path)
    arguments = parser.parse_args()
    submit = runpy.run_path(str(arguments.submit))
    findings, done = try_bundle(submit, arguments)
    submit["print_findings"](findings)
    print(done)
    verdict = "refused" if findings else "verified"
    print(submit["Result"](program="bare", verdict=verdict, message=done, findings=findings).line())
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
