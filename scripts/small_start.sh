#!/usr/bin/env bash
# The weights that the demo begins with: trained on phantoms that look unlike the demo's, halved, put into the tree.
# It works in small_start/, which is created anew on each run; a quarter of an hour on two CPU cores.
set -euo pipefail
. "$(dirname "$0")/prepare.sh"

rm -rf small_start
mkdir small_start
python -m surface_train phantom --out small_start/data --volumes 40 --test-volumes 2 --size 112 128 128 --seed 101 --looks other
python -m surface_train fit --settings train/settings/small_start.toml --data small_start/data/competition --fold 0 --out small_start/run
set -- small_start/data/competition/test_images/*.tif
python -m surface_package build --half "$1" --weights small_start/run/weights.safetensors --settings package/settings/demo.toml --out small_start/bundle --uncommitted
mkdir -p train/weights
cp small_start/bundle/member_0.safetensors train/weights/small_start.safetensors
python -m surface_train audit train/weights/small_start.safetensors --data small_start/data/competition
