# Sourced by the other scripts and by people, from bash, dash or zsh: changes to the clone's root and creates .venv from
# the requirements files. An environment that was prepared from the same files is used as it is, whichever of the
# supported Pythons it has; PYTHON=/path/to/python3.12 asks for another one.

# Where this file lies; dash does not say, so there the clone is looked for around the caller.
if [ -n "${BASH_VERSION:-}" ]; then
    eval 'prepare_file=${BASH_SOURCE[0]}'
elif [ -n "${ZSH_VERSION:-}" ]; then
    eval 'prepare_file=${(%):-%x}'
elif [ -f ./scripts/prepare.sh ]; then
    prepare_file=./scripts/prepare.sh
else
    prepare_file=$(dirname "$0")/prepare.sh
fi

prepare_supported() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null
}

prepare_find_python() {
    # The bundle carries wheels for these versions: see package/wheels.txt.
    for candidate in "${PYTHON:-}" python3 python python3.13 python3.12 python3.11; do
        if [ -n "$candidate" ] && prepare_supported "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "expected Python 3.11, 3.12 or 3.13 on PATH, got none of them: set PYTHON=/path/to/python3.12" >&2
    return 1
}

# Whether .venv holds what the requirements ask for; with PYTHON, for that version.
prepare_is_done() {
    [ "$(sed 1d .venv/prepared 2>/dev/null)" = "$1" ] && prepare_supported .venv/bin/python || return 1
    [ -z "${PYTHON:-}" ] || [ "$("$PYTHON" --version 2>&1)" = "$(.venv/bin/python --version 2>&1)" ]
}

# Empty .venv, if it is ours: the marker is written before anything else, `prepared` by earlier versions of this script.
prepare_make_room() {
    if [ -L .venv ] || { [ -e .venv ] && [ ! -f .venv/made-by-prepare ] && [ ! -f .venv/prepared ]; }; then
        echo "expected no .venv in $PWD but one that scripts/prepare.sh made, got another: move it away" >&2
        return 1
    fi
    mkdir -p .venv && : > .venv/made-by-prepare &&
        find .venv -mindepth 1 -maxdepth 1 ! -name made-by-prepare -exec rm -rf {} +
}

prepare() {
    prepare_root=$(CDPATH='' cd -- "$(dirname "$prepare_file")/.." && pwd)
    if ! grep -qs '^name = vesuvius-surface$' "$prepare_root/setup.cfg" || ! [ -f "$prepare_root/requirements.txt" ]; then
        echo "expected a clone of vesuvius-surface, got $prepare_root: change to the clone's root, then source this" >&2
        return 1
    fi
    cd -- "$prepare_root" || return 1
    prepare_wanted=$(cat requirements.txt requirements-no-deps.txt requirements-dev.txt)
    if ! prepare_is_done "$prepare_wanted"; then
        prepare_python=$(prepare_find_python) && prepare_make_room || return 1
        echo "== preparing .venv with $("$prepare_python" --version): some minutes, once"
        "$prepare_python" -m venv .venv &&
            .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt &&
            .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-no-deps.txt &&
            { .venv/bin/python --version && printf '%s\n' "$prepare_wanted"; } > .venv/prepared || return 1
    fi
    export PATH="$PWD/.venv/bin:$PATH" PYTHONPATH="$PWD/kernel:$PWD/train:$PWD/package"
}

prepare
