"""Batches of tiles through the networks of an ensemble, with what is done where memory does not suffice."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from surface_kernel.inference.cutting import TileBatch
from surface_kernel.inference.views import View
from surface_kernel.networks.device import Device
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
    large runs on the CPU in float32.

    Args:
        ensemble: the networks.
        passes: their logits are summed.
        tables: what networks are fed for every grey value, one an intensity: float32 (256,).
        batch: tiles of a batch.
        report: called with a line about whatever a report should say.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        *,
        passes: Sequence[Pass],
        tables: Sequence[Table],
        batch: int,
        report: Callable[[str], object],
    ) -> None:
        if not passes:
            raise ValueError("passes: expected at least one member and view, got none")
        self._ensemble, self._device, self._passes = ensemble, ensemble.device, passes
        self._tables, self._together, self._report = tables, batch, report

    @torch.inference_mode()
    def logits(self, batch: TileBatch) -> Tensor:
        """Return the logits summed over the passes: float32 (tile, z, y, x), on the device.

        On a GPU the work has only begun when this returns.
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
                logits = self._exact(part, "cpu").to(self._device.name)
            made.append(logits)
            first += len(logits)
        return made[0] if len(made) == 1 else torch.cat(made)

    @torch.inference_mode()
    def exact_logits(self, batch: TileBatch) -> Tensor:
        """Return the logits as `logits` does, computed in float32: on the CPU, memory of their own."""
        # A copy: the network may give back its input, whose buffer serves other tiles soon.
        return self._exact(batch.inputs, self._device.name).cpu().clone()

    def _unless_out_of_memory(self, inputs: Sequence[Tensor]) -> Tensor | None:
        try:
            members = self._ensemble.members
            with autocast(self._device):
                return self._sum(inputs, self._device.name, lambda member: members[member].network)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
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
            values = [torch.from_numpy(table).to(device_name)[grey] for table in self._tables]
        total: Tensor | None = None
        for member, view in self._passes:
            seen = view.of(values[self._ensemble.fed_with[member]])
            logits = view.undo(network(member)(seen))[:, 0].float()
            total = logits if total is None else total + logits
        assert total is not None  # there is a pass at least
        return total.contiguous()


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that a device's memory did not suffice."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return "can't allocate memory" in text or "CUBLAS_STATUS_ALLOC_FAILED" in text  # the CPU's allocator, cuBLAS
