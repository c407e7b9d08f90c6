"""Batches of tiles through the networks of an ensemble, with what is done where memory does not suffice."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from surface_kernel.inference.cutting import TileBatch
from surface_kernel.inference.views import View
from surface_kernel.networks.device import Device
from surface_kernel.networks.device_errors import out_of_memory
from surface_kernel.networks.placing import autocast
from surface_kernel.volumes.intensity import Intensity, Table

Pass = tuple[int, View]  # a member's number, and how it sees the volume


@dataclass(frozen=True)
class Member:
    """One network of an ensemble, on its device, and how it wants to be fed."""

    network: nn.Module
    intensity: Intensity
    exact: nn.Module | None = None
    """The same network in float32, wherever it is, for tiles that the fast one cannot do; None: itself."""


class Ensemble:
    """The members on a device, and their copies in float32 where those were wanted."""

    def __init__(self, members: Sequence[Member], device: Device) -> None:
        self.members, self.device = list(members), device
        self.intensities = list(dict.fromkeys(member.intensity for member in members))
        self.fed_with = [self.intensities.index(member.intensity) for member in members]
        """The number of each member's intensity."""
        self._exact: dict[tuple[int, str], nn.Module] = {}

    def exact(self, member: int, device_name: str) -> nn.Module:
        """Return a member's network in float32 on a device: made when first wanted, and kept."""
        if (member, device_name) not in self._exact:
            source = self.members[member].exact or self.members[member].network
            self._exact[member, device_name] = copy.deepcopy(source).float().to(device_name)
        return self._exact[member, device_name]


class Forward:
    """Runs an ensemble on the batches of one volume.

    Where memory does not suffice for a batch, it is halved, for the rest of the volume too; a single tile that is too
    large runs on the CPU in float32, or is left to the caller.

    Args:
        ensemble: the networks.
        passes: their logits are summed.
        tables: what networks are fed for every grey value, one an intensity: float32 (256,).
        batch: tiles of a batch.
        report: called with a line about whatever a report should say.
        on_pass: called after every pass on the CPU in place of a GPU, which may take minutes: work goes on.
        to_cpu: whether a single tile that is too large runs on the CPU; else the error is raised.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        *,
        passes: Sequence[Pass],
        tables: Sequence[Table],
        batch: int,
        report: Callable[[str], object],
        on_pass: Callable[[], object] = lambda: None,
        to_cpu: bool = True,
    ) -> None:
        if not passes:
            raise ValueError("passes: expected at least one member and view, got none")
        self._ensemble, self._device, self._passes = ensemble, ensemble.device, passes
        self.too_large = False
        """Whether some tile was too large and ran on the CPU."""
        self._together, self._report, self._on_pass, self._to_cpu = batch, report, on_pass, to_cpu
        self._tables = {"cpu": [torch.from_numpy(table) for table in tables]}  # by the name of a device

    @torch.inference_mode()
    def logits(self, batch: TileBatch) -> list[Tensor]:
        """Return the logits summed over the passes: float32 (tile, z, y, x), in parts that make up the batch.

        A part lies on the device, or on the CPU where it was computed there. On a GPU the work has only begun when this
        returns.

        Raises:
            RuntimeError, MemoryError: where memory does not suffice for one tile and the CPU is not to be used.
        """
        made: list[Tensor] = []
        first = 0
        while first < len(batch.inputs[0]):
            part = [rows[first : first + self._together] for rows in batch.inputs]
            logits = self._unless_out_of_memory(part)
            if logits is None and self._together > 1:
                self._together //= 2
                self._report(f"memory did not suffice: {self._together} tiles at a time from here on")
                continue
            if logits is None:
                self._report(f"memory did not suffice for {batch.named(first)}: run on the CPU in float32")
                logits, self.too_large = self._exact(part, "cpu"), True
            made.append(logits)
            first += len(logits)
        return made

    @torch.inference_mode()
    def exact_logits(self, batch: TileBatch) -> Tensor:
        """Return the logits as `logits` does, computed in float32: on the CPU, memory of their own."""
        try:
            # A copy: the network may give back its input, whose buffer serves other tiles soon.
            return self._exact(batch.inputs, self._device.name).cpu().clone()
        except (MemoryError, RuntimeError) as error:
            if not self._device.is_gpu or not out_of_memory(error):
                raise
        self._report(f"memory did not suffice for {batch.named(0)}: run on the CPU in float32")
        return self._exact(batch.inputs, "cpu").clone()

    def _unless_out_of_memory(self, inputs: Sequence[Tensor]) -> Tensor | None:
        try:
            members = self._ensemble.members
            with autocast(self._device):
                return self._sum(inputs, self._device.name, lambda member: members[member].network)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error) or (self._together == 1 and not self._to_cpu):
                raise
        if self._device.is_gpu:  # only now: until here the error held what had been allocated
            torch.cuda.empty_cache()
        return None

    def _exact(self, inputs: Sequence[Tensor], device_name: str) -> Tensor:
        return self._sum(inputs, device_name, lambda member: self._ensemble.exact(member, device_name))

    def _sum(self, inputs: Sequence[Tensor], device_name: str, network: Callable[[int], nn.Module]) -> Tensor:
        values = [rows.to(device_name, non_blocking=True)[:, None] for rows in inputs]
        if self._device.is_gpu:  # it was sent grey values, which are fewer bytes
            grey = values[0].int()
            values = [table[grey] for table in self._tables_on(device_name)]
        total: Tensor | None = None
        for member, view in self._passes:
            seen = view.of(values[self._ensemble.fed_with[member]])
            logits = view.undo(network(member)(seen))[:, 0].float()
            total = logits if total is None else total + logits
            if device_name != self._device.name:
                self._on_pass()
        assert total is not None  # there is a pass at least
        return total.contiguous()

    def _tables_on(self, device_name: str) -> list[Tensor]:
        """Return the tables on a device: copied once, since a copy waits for all that the device is at."""
        if device_name not in self._tables:
            self._tables[device_name] = [table.to(device_name) for table in self._tables["cpu"]]
        return self._tables[device_name]
