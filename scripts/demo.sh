#!/usr/bin/env bash
# The whole pipeline in small: data, training, averaged weights, bundle, offline kernel, submission.zip, score, a page.
# It works in demo/, which is created anew on each run. Exit code 4: the masks are below the demo's bar.
# PLAN_S: seconds of the training; unless set, 3/2 of what came before it, so that a slow machine trains for longer.
set -euo pipefail
. "$(dirname "$0")/prepare.sh"
began_s=$SECONDS

echo "== 1/6 a competition-shaped data set: 12 volumes to learn from, 3 with hidden labels"
rm -rf demo
mkdir demo
python -m surface_train phantom --out demo/data --volumes 12 --test-volumes 3 --size 112 112 112 --seed 7

echo "== 2/6 the weights to begin with, trained on phantoms that look otherwise: their masks of the hidden volumes"
python -m surface_kernel predict --weights train/weights/small_start.safetensors --settings package/settings/demo.toml \
    --input demo/data/competition/test_images --out demo/start
# One process: several would each compile the score on its first run.
python -m surface_score --pred demo/start --truth demo/data/test_labels --workers 1 --json demo/start_score.json \
    --explain demo/start_explain

PLAN_S=${PLAN_S:-$(((SECONDS - began_s) * 3 / 2))}
echo "== 3/6 training on from there for $PLAN_S s, then the mean of the last epochs' weights"
python -m surface_train fit --settings train/settings/demo.toml --data demo/data/competition --fold 0 --out demo/run \
    --init train/weights/small_start.safetensors --plan-s "$PLAN_S"

echo "== 4/6 the bundle, which Kaggle will mount, and its rehearsal: a local copy of Kaggle's environment, offline"
python -m surface_package build --weights demo/run/weights.safetensors --settings package/settings/demo.toml --out demo/bundle --uncommitted
python -m surface_package rehearse demo/bundle --data demo/data/competition --out demo/rehearsal
cp demo/rehearsal/submission.zip demo/submission.zip

echo "== 5/6 the score, on labels that the kernel never saw"
python -m surface_score --pred demo/submission.zip --truth demo/data/test_labels --workers 1 --json demo/score.json \
    --explain demo/explain

echo "== 6/6 a picture, a verdict and a page"
verdict=0  # 4: below the demo's bar; the page is made all the same
python -m surface_train.records.showcase --data demo/data --submission demo/submission.zip --start demo/start --out demo || verdict=$?
[ "$verdict" = 0 ] || [ "$verdict" = 4 ] || exit "$verdict"
python -m surface_report --run demo/run --submission demo/submission.zip --compare demo/start --truth demo/data/test_labels \
    --images demo/data/competition/test_images --data demo/data/competition --score demo/score.json demo/start_score.json \
    --explain demo/explain demo/start_explain --out demo/page.html
cat demo/report.txt
echo "the page: $PWD/demo/page.html"
exit "$verdict"
