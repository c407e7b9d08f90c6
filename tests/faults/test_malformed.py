"""Files that are no volumes: each is a volume or a named verdict, in little time and memory."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from malformed import WHOLE, corpus, whole_files
from PIL import Image
from scenes import run_python

from surface_kernel.volumes.volume import open_volume

TESTS = Path(__file__).parents[1]
MOST_S, MOST_GROWN_MB, MOST_CHILDREN_MB = 10, 400, 700
SHORT, LONG = range(1), range(1000, 1040)
JUDGE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from malformed import judge
judge(Path(sys.argv[2]), int(sys.argv[3]))
"""


def test_each_is_a_volume_or_a_named_verdict(tmp_path, long, tally):
    """A process of its own opens them all: what it took for the worst of them is its peak."""
    for seed in LONG if long else SHORT:
        folder = tmp_path / str(seed)
        folder.mkdir()
        done = run_python(JUDGE, TESTS, folder, seed)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        verdicts = {Path(name).name: verdict for name, _, verdict in found["files"]}
        assert len(verdicts) == len(found["files"]) >= 500
        for name, seconds, verdict in found["files"]:
            refused = (
                verdict.startswith((f"{name}: expected ", f"{name}: no such file; expected ")) and "\n" not in verdict
            )
            assert verdict == "uint8" or refused, (name, verdict)
            assert seconds < MOST_S, (name, seconds)
        assert {verdicts[f"whole_{name}.tif"] for name in whole_files()} == {"uint8"}
        assert sum(verdict == "uint8" for verdict in verdicts.values()) < len(verdicts) // 4
        assert found["grown_mb"] < MOST_GROWN_MB
        assert found["children_mb"] < MOST_CHILDREN_MB
        slowest_s = max(seconds for _, seconds, _ in found["files"])
        tally("malformed inputs", len(verdicts), slowest_s=slowest_s, memory_mb=found["grown_mb"])


@pytest.mark.parametrize("name", whole_files())
def test_the_good_ones_are_what_they_were_made_of(tmp_path, name):
    (tmp_path / "a.tif").write_bytes(whole_files()[name])
    np.testing.assert_array_equal(open_volume(tmp_path / "a.tif"), WHOLE % 2 if name == "mask" else WHOLE)


def test_a_corpus_is_its_seeds(tmp_path):
    made = []
    for place, seed in enumerate((5, 5, 6)):
        (folder := tmp_path / str(place)).mkdir()
        files = [path for path in corpus(folder, seed) if path.is_file()]
        made.append({path.name: path.read_bytes() for path in files})
    assert made[0] == made[1]
    assert made[0].keys() == made[2].keys()
    assert sum(made[0][name] != made[2][name] for name in made[0]) > 200


def test_bent_pixels_are_never_another_volume_than_pillows(tmp_path, long, tally):
    """Bytes of the strips changed at random: what we decode ourselves, Pillow decodes to the same voxels."""
    compared = 0
    for seed in range(600 if long else 40):
        rng = np.random.default_rng(seed)
        for name in ("lzw", "zlib"):
            content = bytearray(whole_files()[name])
            with tifffile.TiffFile(io.BytesIO(content)) as file:
                page = file.pages[int(rng.integers(6))].aspage()
            first, count = page.dataoffsets[0], page.databytecounts[0]
            content[first + int(rng.integers(count))] = int(rng.integers(256))
            (tmp_path / "a.tif").write_bytes(content)
            try:
                with Image.open(tmp_path / "a.tif") as image:
                    expected = np.stack([np.asarray((image.seek(z), image)[1]) for z in range(image.n_frames)])
            except OSError:
                continue
            np.testing.assert_array_equal(open_volume(tmp_path / "a.tif"), expected)
            compared += 1
    assert compared > 10
    tally("bent strips against Pillow", compared)
