"""Part of pytest where tests run on the simulated CUDA: `gpu` says what is simulated, and hazards fail every test."""

import json
import os
import tempfile
from pathlib import Path

import pytest

# Of this process alone, and before it imports torch: workers are forked from a server that keeps this environment.
_FOLDER = Path(tempfile.mkdtemp(prefix="simulated_cuda_"))
os.environ["SIMULATED_CUDA"] = str(_FOLDER / "wishes.json")


class SimulatedGpu:
    """What is simulated for one test, and what was seen."""

    def __init__(self, evidence: Path) -> None:
        self._evidence = evidence
        self.wish()

    def wish(self, **entries: object) -> None:
        """Simulate this from here on, in workers that start later too: entries of `wishes.Wishes`."""
        from simulated_gpu import wishes

        text = json.dumps(entries | {"evidence": str(self._evidence)})
        Path(os.environ["SIMULATED_CUDA"]).write_text(text)
        wishes.read()

    def fail(self, kind: str, **entries: object) -> None:
        """Simulate one fault; entries of `faults.Fault`, and those of `wish`."""
        from dataclasses import fields

        from simulated_gpu.wishes import Wishes

        own = {field.name for field in fields(Wishes)}
        fault = {"kind": kind} | {name: value for name, value in entries.items() if name not in own}
        self.wish(faults=[fault], **{name: value for name, value in entries.items() if name in own})

    def seen(self, kind: str) -> list[dict]:
        """Return what was seen of a kind: "hazard", "device", "fault", "group", "start"."""
        if not self._evidence.exists():
            return []
        lines = [json.loads(line) for line in self._evidence.read_text().splitlines()]
        return [line for line in lines if line["kind"] == kind]

    @property
    def hazards(self) -> list[str]:
        """What may go wrong on a real GPU."""
        return [f"{line['text']}, at {line['at']}" for line in self.seen("hazard")]

    def forget(self) -> None:
        """Forget what was seen: a test that wants a hazard has had it."""
        self._evidence.unlink(missing_ok=True)

    def calls(self, operator: str) -> int:
        """Count an operator's calls in this process so far."""
        from simulated_gpu import kernels

        return kernels.calls[operator]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the tests that need no GPU to the other pytest."""
    wanted = [item for item in items if {"gpu", "simulated_cuda"} & {mark.name for mark in item.iter_markers()}]
    config.hook.pytest_deselected(items=[item for item in items if item not in wanted])
    items[:] = wanted


@pytest.fixture
def gpu(tmp_path_factory: pytest.TempPathFactory):
    """One simulated GPU, without faults; a test wishes for others."""
    made = SimulatedGpu(tmp_path_factory.mktemp("evidence") / "seen.jsonl")
    yield made
    hazards = made.hazards
    made.wish()
    assert hazards == []


@pytest.fixture(autouse=True)
def _watched(gpu: SimulatedGpu) -> None:
    """Let hazards fail every test."""
