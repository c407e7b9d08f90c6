"""A tiny bundle that verifies and was rehearsed, and a clone to publish it from."""

import json
import shutil
from pathlib import Path

from surface_package.build import manifest
from surface_package.kaggle.delivery import Delivery

OWNER = "tester"
DATASET = f"{OWNER}/vesuvius-surface-bundle"
FILES = ("manifest.json", "member0.safetensors", "settings.json")


def write_bundle(folder: Path, weights: bytes) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "member0.safetensors").write_bytes(weights)
    (folder / "settings.json").write_text("{}\n")
    contents = manifest.Contents(
        version="0.1.0",
        commit="c0ffee" * 6 + "beef",
        weights=["member0.safetensors"],
        settings="settings.json",
        requirements=["surface-kernel==0.1.0"],
        python=["3.12"],
    )
    manifest.write(folder, contents)
    rehearsal = {"passed": True, "manifest_sha256": manifest.digest(folder)}
    folder.with_name(folder.name + ".rehearsed.json").write_text(json.dumps(rehearsal))


def make_delivery(folder: Path) -> Delivery:
    """The bundle in `folder`/work, and beside it a clone whose kernel-metadata.json names an owner."""
    root, bundle = folder / "clone", folder / "work" / "bundle"
    (root / "kernel").mkdir(parents=True)
    shutil.copy(manifest.ROOT / "kernel" / "submit.py", root / "kernel" / "submit.py")
    text = (manifest.ROOT / "kernel-metadata.json").read_text().replace("your-kaggle-name", OWNER)
    (root / "kernel-metadata.json").write_text(text)
    bundle.parent.mkdir()
    write_bundle(bundle, b"first")
    return Delivery(bundle=bundle, root=root, timeout_s=60, poll_s=0.01)
