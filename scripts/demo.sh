#!/usr/bin/env bash
# The whole pipeline in small: data, training, averaged weights, bundle, offline kernel, submission.zip, score.
# It works in demo/, which is created anew on each run.
set -euo pipefail
. "$(dirname "$0")/prepare.sh"

echo "== 1/6 a competition-shaped data set: 16 volumes to learn from, 3 with hidden labels"
rm -rf demo
mkdir demo
python -m surface_train phantom --out demo/data --volumes 16 --test-volumes 3 --size 128 144 144 --seed 7

echo "== 2/6 training, then the mean of the last epochs' weights"
python -m surface_train fit --settings train/settings/demo.toml --data demo/data/competition --fold 0 --out demo/run --plan-s "${PLAN_S:-300}"

echo "== 3/6 the bundle: what Kaggle will mount"
python -m surface_package build --weights demo/run/weights.safetensors --settings package/settings/demo.toml --out demo/bundle --uncommitted

echo "== 4/6 the rehearsal: the bundle in a local copy of Kaggle's environment, offline"
python -m surface_package rehearse demo/bundle --data demo/data/competition --out demo/rehearsal
cp demo/rehearsal/submission.zip demo/submission.zip

echo "== 5/6 the score, on labels that the kernel never saw"
python -m surface_score --pred demo/submission.zip --truth demo/data/test_labels --json demo/score.json

echo "== 6/6 a picture, a verdict and a page"
verdict=0  # 4: below the demo's bar; the page is made all the same
python -m surface_train.records.showcase --data demo/data --submission demo/submission.zip --out demo || verdict=$?
[ "$verdict" = 0 ] || [ "$verdict" = 4 ] || exit "$verdict"
python -m surface_report --run demo/run --submission demo/submission.zip --truth demo/data/test_labels \
    --images demo/data/competition/test_images --data demo/data/competition --score demo/score.json --out demo/page.html
cat demo/report.txt
echo "the page: $PWD/demo/page.html"
exit "$verdict"
