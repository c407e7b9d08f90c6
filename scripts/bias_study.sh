#!/usr/bin/env bash
# Do the losses collapse, which one is best, and what does the reference's inference make of them? An hour on two quiet
# cores and 6 GB in runs/bias_study; an interrupted study is resumed. It writes docs/bias_study.md and .png.
set -euo pipefail
. "$(dirname "$0")/prepare.sh"

python -m surface_study --work runs/bias_study --docs docs "$@"
