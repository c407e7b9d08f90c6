"""submit.py and train_on_kaggle.py, once from mounts to output, on two simulated GPUs.

What is installed is real: the kernel's own wheel. What it needs beside comes from this environment.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from gpu_training import TINY
from package.fake_bundle import SUBMIT
from scenes import ROOT, noise, write_competition
from worlds import masks_in, write_weights

from surface_kernel.volumes.image_files import write_lzw
from surface_package.build import manifest, protocol, wheels
from surface_package.build.bundle import assemble

pytestmark = [pytest.mark.simulated_cuda, pytest.mark.slow]


def environment(*rooms):
    """Of a script: the simulation, and these rooms of the project beside what is installed."""
    kept = {name: value for name, value in os.environ.items() if name.startswith("SIMULATED_CUDA")}
    path = [os.environ["PYTHONPATH"].split(os.pathsep)[0], *(str(ROOT / room) for room in rooms)]
    return kept | {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path)}


def run_script(script, tree, rooms=()):
    places = [word for name in ("input", "working", "scratch") for word in (f"--{name}", str(tree / name))]
    command = [sys.executable, str(script), *places, "--budget-s", "600"]
    return subprocess.run(command, capture_output=True, text=True, timeout=550, env=environment(*rooms))


def kernel_wheel(folder):
    return wheels.write_wheel(ROOT / "kernel" / "surface_kernel", "0.1.0", folder)


def devices(gpu):
    used = {}
    for line in gpu.seen("device"):
        used.setdefault(line["process"], set()).add(line["device"])
    return sorted(used.values(), key=str)


def test_submit_predicts_on_both_gpus(gpu, tmp_path):
    gpu.wish(gpus=2)
    wheel, weights = kernel_wheel(tmp_path), write_weights(tmp_path / "member_0.safetensors")
    (tmp_path / "settings.json").write_text(json.dumps({"dust_voxels": 0}))
    contents = {"version": "0.1.0", "commit": None, "weights": [weights.name], "settings": "settings.json"}
    contents |= {"requirements": ["surface-kernel==0.1.0"], "python": ["3.11", "3.12", "3.13"]}
    files = {name: tmp_path / name for name in (weights.name, "settings.json", wheel.name)}
    (tmp_path / "input").mkdir()
    assemble(tmp_path / "input" / "bundle", files, manifest.Contents(**contents))
    volumes = {str(seed): noise((40, 40, 40), seed) for seed in range(5)}
    write_competition(tmp_path / "input" / "surface-detection", volumes)
    done = run_script(SUBMIT, tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert protocol.read_result(done.stdout, protocol.SUBMIT).verdict == "complete"
    report = json.loads((tmp_path / "working" / "run_report.json").read_text())
    assert report["how"]["device"]["name"] == "cuda"
    assert report["trouble"] == []
    assert devices(gpu) == [{0}, {1}]
    assert all(0.05 < mask.mean() < 0.95 for mask in masks_in(tmp_path / "working" / "submission.zip").values())


def test_train_on_kaggle_trains_on_both_gpus(gpu, tmp_path):
    from surface_package.kaggle.training import training_bundle

    gpu.wish(gpus=2)
    code = tmp_path / "input" / "code"
    code.mkdir(parents=True)
    wheel = kernel_wheel(code)
    (code / "settings.toml").write_text(
        TINY.replace("epochs = 3", "epochs = 2").replace("steps_per_epoch = 3", "steps_per_epoch = 2")
    )
    files = {}
    for name in (wheel.name, "settings.toml"):
        content = (code / name).read_bytes()
        files[name] = {"sha256": manifest.sha256(code / name), "bytes": len(content)}
    entries = {"format": training_bundle.FORMAT, "version": "0.1.0", "commit": None, "settings": "settings.toml"}
    entries |= {"fold": "all", "requirements": ["surface-kernel==0.1.0"], "python": ["3.11", "3.12", "3.13"]}
    (code / "manifest.json").write_text(json.dumps(entries | {"files": files}))
    data = write_competition(tmp_path / "input" / "surface-detection", {})
    rows = ["id,scroll_id"]
    for case in range(3):
        for kind in ("images", "labels"):
            (data / f"train_{kind}").mkdir(exist_ok=True)
        image = noise((40, 40, 40), case)
        write_lzw(data / "train_images" / f"{case}.tif", image)
        write_lzw(data / "train_labels" / f"{case}.tif", (image > 128).astype(np.uint8))
        rows.append(f"{case},{case}")
    (data / "train.csv").write_text("\n".join([*rows, ""]))
    (tmp_path / "pushed.py").write_text(training_bundle.script(ROOT, 0))
    done = run_script(tmp_path / "pushed.py", tmp_path, rooms=("train",))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "training on 2 GPUs" in done.stdout
    assert protocol.read_result(done.stdout, protocol.TRAIN).verdict == "finished"
    assert sorted(line["current"] for line in gpu.seen("group")) == [0, 1]
