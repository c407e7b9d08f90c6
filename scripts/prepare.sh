# Sourced by the other scripts and by people: changes to the clone's root and creates .venv from the requirements files.
# An environment that was prepared from the same files before is used as it is.

prepare() {
    local candidate found="" wanted
    cd "$(dirname "${BASH_SOURCE[0]}")/.." || return 1
    # The bundle carries wheels for these versions: see package/wheels.txt.
    for candidate in "${PYTHON:-}" python3 python python3.13 python3.12 python3.11; do
        if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            found=$candidate
            break
        fi
    done
    if [ -z "$found" ]; then
        echo "expected Python 3.11, 3.12 or 3.13 on PATH, got none of them: set PYTHON=/path/to/python3.12" >&2
        return 1
    fi
    wanted=$("$found" --version; cat requirements.txt requirements-no-deps.txt requirements-dev.txt)
    if [ "$(cat .venv/prepared 2>/dev/null)" != "$wanted" ]; then
        echo "== preparing .venv with $("$found" --version): some minutes, once"
        "$found" -m venv --clear .venv &&
            .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt &&
            .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-no-deps.txt &&
            printf '%s\n' "$wanted" > .venv/prepared || return 1
    fi
    export PATH="$PWD/.venv/bin:$PATH" PYTHONPATH="$PWD/kernel:$PWD/train:$PWD/package"
}

prepare
