"""A Kaggle that runs what is pushed: it mounts the sources, runs the script, and keeps what that left as the output.

What trains is a page of standard library: a clone whose packages are stand-ins, and wheels that are stand-ins for torch
and for the pinned ones. Client, script, installation and loop are the real ones.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import torch
from package.deliveries import OWNER
from package.fake_bundle import make_competition
from package.kaggle_server import Kaggle, zip_bytes
from safetensors.numpy import save as safetensors_bytes
from scenes import ROOT

from surface_kernel.networks import weights
from surface_kernel.networks.architecture import LIBRARIES, Architecture
from surface_kernel.networks.weights import Metadata
from surface_kernel.volumes.intensity import Intensity
from surface_package.build import wheels
from surface_package.build.wheels import Pin
from surface_package.kaggle.client import Answer

HERE = f"cp3{sys.version_info.minor}"

# Goes `steps_per_session` further and stops, as a budget would stop it; `fault` is what it does first.
FIT = """
import argparse, json, os, pathlib, sys, time, tomllib

WEIGHTS = {weights}
parser = argparse.ArgumentParser()
parser.add_argument("command")
for name in ("settings", "data", "fold", "out", "budget-s"):
    parser.add_argument("--" + name, required=True)
parser.add_argument("--resume", action="store_true")
words = parser.parse_args()
if os.environ.get("RANK", "0") != "0":
    sys.exit()
settings = tomllib.loads(pathlib.Path(words.settings).read_text())
out, step = pathlib.Path(words.out), 0
assert (pathlib.Path(words.data) / "train.csv").is_file()
if words.resume:
    content = (out / "state.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    step = json.loads(header["__metadata__"]["progress"])["step"]
else:
    out.mkdir()
exec(settings.get("fault", ""))
step = min(step + settings["steps_per_session"], settings["steps"])
header = json.dumps({"__metadata__": {"format": "x", "progress": json.dumps({"step": step})}}).encode()
(out / "state.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
(out / "weights.safetensors").write_bytes(WEIGHTS[step == settings["steps"]])
(out / "settings.toml").write_bytes(pathlib.Path(words.settings).read_bytes())
(out / "events").mkdir(exist_ok=True)
(out / "events" / "events.out.tfevents.000001").touch()
(out / "epoch_9.png.partial").touch()
told = [words.fold, float(words.budget_s), os.environ.get("WORLD_SIZE", "none"), os.environ["SURFACE_COMMIT"]]
with (out / "told.json").open("a") as file:
    print(json.dumps(told), file=file)
"""
SETTINGS = """
import tomllib
from types import SimpleNamespace

from surface_kernel.networks.architecture import Architecture


def read(path):
    entries = tomllib.loads(path.read_text())
    if "steps" not in entries:
        raise ValueError(f"{path}: expected steps, got none")
    return SimpleNamespace(network=Architecture(), labels_dir=entries.get("labels_dir", ""))
"""
TORCH = {
    "__init__": "from types import SimpleNamespace\ncuda = SimpleNamespace(device_count=lambda: {gpus})\n",
    "distributed/__init__": "",
    "distributed/run": """
import os, subprocess, sys
count = int(sys.argv[sys.argv.index("--nproc-per-node") + 1])
module = sys.argv[sys.argv.index("-m"):]
ranks = [os.environ | {"RANK": str(rank), "WORLD_SIZE": str(count)} for rank in range(count)]
children = [subprocess.Popen([sys.executable, *module], env=rank) for rank in ranks]
sys.exit(max(child.wait() for child in children))
""",
}


def weights_bytes(finished: bool) -> bytes:
    """Weights of one number that say whether their run is finished."""
    metadata = Metadata(
        architecture=Architecture(),
        intensity=Intensity(),
        tile_zyx=(64, 64, 64),
        provenance={"finished": finished, "fold": "3"},
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "weights.safetensors")
        weights.save(path, {"tensor": torch.zeros(1)}, metadata)
        return path.read_bytes()


def make_run(folder: Path, step: int, finished: bool = False) -> Path:
    """A run's folder as `fit` leaves it, pictures and events too."""
    (folder / "events").mkdir(parents=True)
    (folder / "events" / "events.out.tfevents.000001").write_bytes(b"events")
    (folder / "settings.toml").write_text("steps = 1\n")
    (folder / "log.csv").write_text("epoch,loss\n1,0.5\n")
    (folder / "environment.json").write_text("{}\n")
    (folder / "epoch_1.png").write_bytes(b"PNG")
    (folder / "last.safetensors.partial").write_bytes(b"half")
    metadata = {"format": "x", "progress": json.dumps({"step": step})}
    (folder / "state.safetensors").write_bytes(safetensors_bytes({}, metadata))
    (folder / "weights.safetensors").write_bytes(weights_bytes(finished))
    return folder


def make_training_clone(folder: Path) -> Path:
    """A clone outside of git, whose owner is set, and whose packages are stand-ins."""
    sources = {
        "kernel/surface_kernel": {"__init__": "", "message": None},
        "kernel/surface_kernel/networks": {"__init__": "", "architecture": None},
        "train/surface_score": {"__init__": ""},
        "train/surface_train": {
            "__init__": "",
            "__main__": FIT.replace("{weights}", repr({done: weights_bytes(done) for done in (False, True)})),
            "settings": SETTINGS,
        },
    }
    for package, modules in sources.items():
        (folder / package).mkdir(parents=True)
        for name, text in modules.items():
            own = f"{package}/{name}.py"
            (folder / own).write_text((ROOT / own).read_text() if text is None else text)
    for name in ("kernel/submit.py", "kernel/train_on_kaggle.py", "setup.cfg"):
        shutil.copyfile(ROOT / name, folder / name)
    metadata = (ROOT / "kernel-metadata.json").read_text().replace("your-kaggle-name", OWNER)
    (folder / "kernel-metadata.json").write_text(metadata)
    return folder


def make_pins(folder: Path, gpus: int) -> list[Pin]:
    """Small wheels in a cache folder: the libraries of networks, a compiled one, and a torch that sees so many GPUs."""
    made = []
    for name in (*LIBRARIES, "native", "torch"):
        package = folder / "sources" / name.replace("-", "_")
        package.mkdir(parents=True)
        modules = TORCH if name == "torch" else {"__init__": ""}
        for module, text in modules.items():
            (package / module).parent.mkdir(exist_ok=True)
            (package / f"{module}.py").write_text(text.replace("{gpus}", str(gpus)))
        made.append(wheels.write_wheel(package, "1.0", folder))
    made[2] = made[2].rename(folder / f"native-1.0-{HERE}-{HERE}-linux_x86_64.whl")
    return [Pin(path.name, wheels._sha256(path.read_bytes())) for path in made]


@dataclass
class SessionKaggle(Kaggle):
    """Datasets by their names, each with its versions' files, and sessions that run."""

    place: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="surface-sessions-")))
    versions: dict[str, int] = field(default_factory=dict)
    contents: dict[str, dict[str, bytes]] = field(default_factory=dict)
    coming: set[str] = field(default_factory=set)
    never_ready: str = ""  # how the name of a dataset ends that stays as it is
    sessions: list[subprocess.CompletedProcess[str]] = field(default_factory=list)
    forget: str = ""  # how the name of a source ends that is not mounted

    def do_GetDatasetStatus(self, body: dict) -> tuple[int, dict]:
        name = f"{body['ownerSlug']}/{body['datasetSlug']}"
        if name in self.coming and not (self.never_ready and name.endswith(self.never_ready)):
            self.coming.discard(name)
            self.versions[name] = self.versions.get(name, 0) + 1
        if not self.versions.get(name):
            return 404, {"code": 404, "message": "not found"}
        return 200, {"status": "READY"}

    def do_GetDataset(self, body: dict) -> tuple[int, dict]:
        name = f"{body['ownerSlug']}/{body['datasetSlug']}"
        return 200, {"ref": name, "currentVersionNumber": self.versions[name]}

    def do_CreateDataset(self, body: dict) -> tuple[int, dict]:
        return self.receive(f"{body['ownerSlug']}/{body['slug']}", body["files"])

    def do_CreateDatasetVersion(self, body: dict) -> tuple[int, dict]:
        return self.receive(f"{body['ownerSlug']}/{body['datasetSlug']}", body["body"]["files"])

    def receive(self, name: str, files: list[dict]) -> tuple[int, dict]:
        self.contents[name] = dict(self.blobs[file["token"]] for file in files)
        self.coming.add(name)
        return 200, {"ref": "r", "url": "https://www.kaggle.com/datasets/r", "status": "ok", "error": ""}

    def do_GetDatasetMetadata(self, body: dict) -> tuple[int, dict]:
        return 200, {"info": {"licenses": [{"name": "CC-BY-NC-4.0"}]}}

    def do_DownloadDataset(self, body: dict) -> tuple[int, bytes]:
        return 200, zip_bytes(self.contents[f"{body['ownerSlug']}/{body['datasetSlug']}"])

    def do_SaveKernel(self, body: dict) -> tuple[int, dict]:
        place = self.place / str(len(self.sessions))
        for name in body["datasetDataSources"]:
            if not (self.forget and name.endswith(self.forget)):
                mount = place / "input" / "datasets" / name
                mount.mkdir(parents=True)
                for file, content in self.contents[name].items():
                    (mount / file).write_bytes(content)
        competition = make_competition(
            place / "input" / "competitions" / body["competitionDataSources"][0], a7=(2, 3, 4)
        )
        (competition / "train.csv").write_text("id,scroll_id\n")
        (place / "script.py").write_text(body["text"])
        places = [word for name in ("input", "working", "scratch") for word in (f"--{name}", str(place / name))]
        command = [sys.executable, "-I", str(place / "script.py"), *places]
        environment = {"PATH": os.environ["PATH"]}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
        self.sessions.append(done)
        left = [path for path in (place / "working").rglob("*") if path.is_file()]
        self.output = {str(path.relative_to(place / "working")): path.read_bytes() for path in left}
        self.log = json.dumps([{"stream_name": name, "data": getattr(done, name)} for name in ("stdout", "stderr")])
        if done.returncode:
            self.kernel_states.append({"status": "ERROR", "failureMessage": "exit code 1"})
        return super().do_SaveKernel(body)

    def ask_config_view(self, name: str, folder: Path) -> str:
        return f"- username: {OWNER}"

    def ask(self, arguments: list[str], limit_s: float, *, show: bool = False) -> Answer:
        """What `client.ask` would give, without the second that the real client takes to start."""
        folder = Path(arguments[arguments.index("-p") + 1]) if "-p" in arguments else Path()
        text = getattr(self, "_".join(["ask", *arguments[:2]]))(" ".join(arguments[2:3]), folder)
        return Answer(tuple(arguments), 0, text)

    def ask_datasets_status(self, name: str, folder: Path) -> str:
        owner, _, slug = name.partition("/")
        code, answer = self.do_GetDatasetStatus({"ownerSlug": owner, "datasetSlug": slug})
        found = {"status": "ready", "current_version_number": self.versions.get(name)}
        return json.dumps(found) if code == 200 else answer["message"]

    def ask_datasets_create(self, name: str, folder: Path) -> str:
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        name = json.loads(files.pop("dataset-metadata.json"))["id"]
        tokens = [f"token{len(self.blobs) + place}" for place in range(len(files))]
        self.blobs |= dict(zip(tokens, files.items(), strict=True))
        self.receive(name, [{"token": token} for token in tokens])
        return "".join(f"Upload successful: {file} (1B)\n" for file in files) + "Dataset version is being created"

    ask_datasets_version = ask_datasets_create

    def ask_kernels_push(self, name: str, folder: Path) -> str:
        metadata = json.loads((folder / "kernel-metadata.json").read_text())
        sources = {f"{kind}DataSources": metadata[f"{kind}_sources"] for kind in ("dataset", "competition")}
        self.do_SaveKernel(sources | {"text": (folder / metadata["code_file"]).read_text()})
        return f"Kernel version {self.kernels} successfully pushed."

    def ask_kernels_status(self, name: str, folder: Path) -> str:
        _, state = self.do_GetKernelSessionStatus({})
        return f'{name} has status "{state["status"]}"\nFailure message: "{state.get("failureMessage", "")}"'

    def ask_kernels_output(self, name: str, folder: Path) -> str:
        folder.mkdir()
        for file, content in self.output.items():
            (folder / file).write_bytes(content)
        (folder / "kernel.log").write_text(self.log)
        return ""
