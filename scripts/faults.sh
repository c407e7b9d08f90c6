#!/usr/bin/env bash
# The long form of the faults: about an hour on two cores. What was counted goes into docs/reliability.md.
set -euo pipefail
. "$(dirname "$0")/prepare.sh"
python -m pytest tests/faults -m "not gpu" --long --write-table "$@"
