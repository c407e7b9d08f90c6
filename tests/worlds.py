"""Small runs of the whole engine: a competition, a bundle, and what came of them."""

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engines import CPU
from PIL import Image, ImageSequence
from scenes import write_bundle, write_competition
from torch import nn

from surface_kernel.__main__ import main
from surface_kernel.networks import network, weights
from surface_kernel.networks.architecture import Architecture
from surface_kernel.networks.weights import Metadata
from surface_kernel.volumes.intensity import Intensity

TINY = Architecture("Linknet", "efficientnet-b0")


def write_weights(path, seed=0):
    """Writes a real network, untrained, its last layer scaled so that about half of a volume of noise is surface."""
    torch.manual_seed(seed)
    module = network.build(TINY).eval()
    last = [layer for layer in module.modules() if isinstance(layer, nn.Conv3d)][-1]
    sample = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 32), dtype=np.uint8)
    with torch.inference_mode():
        last.bias -= module(torch.from_numpy(Intensity().table(sample)[sample])[:, None]).median()
        last.weight *= 100
    weights.save(
        path,
        module.state_dict(),
        Metadata(architecture=TINY, intensity=Intensity(), tile_zyx=(32, 32, 32), overlap=0.25),
    )
    return path


def zipped(zip_path):
    """Reads every mask as the scorer does, beside its bytes, by its name in the zip."""
    found = {}
    with zipfile.ZipFile(zip_path) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            with Image.open(io.BytesIO(content)) as image:
                found[name] = np.stack([np.asarray(page) for page in ImageSequence.Iterator(image)]), content
    return found


def masks_in(zip_path):
    """Reads every mask as the scorer does, by id."""
    return {Path(name).stem: mask for name, (mask, _) in zipped(zip_path).items()}


@dataclass
class World:
    """Folders of a run, and an earlier run's report with a device, so that no start-up test is made."""

    bundle: Path
    competition: Path
    out: Path
    scratch: Path
    earlier: Path

    @classmethod
    def make(cls, folder, images, files, **settings):
        """Writes a competition of these images and a bundle of these weights."""
        folder.mkdir(parents=True, exist_ok=True)
        earlier = folder / "run_report.json"
        earlier.write_text(json.dumps({"how": {"device": CPU.to_mapping()}}))
        bundle = write_bundle(folder / "bundle", files, **{"dust_voxels": 0, **settings})
        return cls(
            bundle, write_competition(folder / "competition", images), folder / "out", folder / "scratch", earlier
        )

    def words(self):
        """Gives the engine's command line."""
        places = {"bundle": self.bundle, "competition": self.competition, "out": self.out, "scratch": self.scratch}
        return [word for name, path in {**places, "device": self.earlier}.items() for word in (f"--{name}", str(path))]

    def run(self, *words):
        """Runs the engine here; gives its exit code."""
        return main([*self.words(), *map(str, words)])

    @property
    def zip(self):
        return self.out / "submission.zip"

    @property
    def digest(self):
        return hashlib.sha256(self.zip.read_bytes()).hexdigest()

    @property
    def ledger(self):
        """The run's folder below scratch; None where there is none."""
        return next(iter(self.scratch.glob("surface_*")), None)

    def report(self) -> dict[str, Any]:
        """Gives the report, volumes by id."""
        report = json.loads((self.out / "run_report.json").read_text())
        return report | {"volumes": {volume["case"]: volume for volume in report["volumes"]}}
