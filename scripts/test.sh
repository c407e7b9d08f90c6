#!/usr/bin/env bash
# Everything that must hold: style, types, import contracts, tests. With --all also the tests marked slow.
set -euo pipefail
. "$(dirname "$0")/prepare.sh"

case "${1:-}" in
    "") marks="not slow" ;;
    --all) marks="slow or not slow" ;;
    *) echo "found $1, wanted nothing or --all" >&2; exit 2 ;;
esac

step() { echo "== $*"; "$@"; }
step ruff check .
step ruff format --check .
step mypy
step lint-imports --no-logo
step python -m pytest -m "$marks"
