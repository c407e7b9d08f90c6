#!/usr/bin/env bash
# Everything that must hold: style, types, import contracts, tests. With --all also the tests marked slow.
set -euo pipefail
. "$(dirname "$0")/prepare.sh"

case "${1:-}" in
    "") marks="not slow" ;;
    --all) marks="slow or not slow" ;;
    *) echo "expected nothing or --all, got $1" >&2; exit 2 ;;
esac

step() { echo "== $*"; "$@"; }
step ruff check .
step ruff format --check .
step mypy
step lint-imports --no-logo
# Two workers with a thread each: more would wait for one another on the two cores of CI.
export OMP_NUM_THREADS=1
step python -m pytest -m "$marks" -n 2 --dist worksteal
step python tests/simulated_cuda -m "$marks" -n 2 --dist worksteal
