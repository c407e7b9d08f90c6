"""Memory between host and device: what is pinned, what has not come yet, and which stream wrote what last.

- A copy to pinned memory that does not wait leaves poison there until it has been waited for.
- A pinned source of a copy that does not wait is summed up, and again when it has been waited for: it must be the same.
- Work that reads what another stream wrote must have waited for that stream.
- Memory that was used on another stream than its own needs `record_stream`, or it may serve others too early.
"""

import weakref
import zlib

import torch
from torch import Tensor

from simulated_gpu import evidence, faults, streams, wishes
from simulated_gpu.streams import Clock, Stream

_empty = torch.empty
_pinned: set[int] = set()  # addresses of storages
_written: dict[int, tuple[int, int]] = {}  # address of a storage: the stream that wrote it last, and when
_unrecorded: dict[tuple[int, int], tuple[int, str]] = {}  # (address, stream): when it was used there, and by whom


def address(tensor: Tensor) -> int:
    """Return where a tensor's storage begins."""
    return tensor.untyped_storage().data_ptr()


def pin(tensor: Tensor) -> Tensor:
    """Let a CPU tensor count as pinned for as long as its storage lives."""
    place = address(tensor)
    _pinned.add(place)
    weakref.finalize(tensor.untyped_storage(), _pinned.discard, place)
    return tensor


def is_pinned(tensor: Tensor, device: object = None) -> bool:
    return tensor.device.type == "cpu" and address(tensor) in _pinned


def reads(tensor: Tensor, stream: Stream) -> None:
    """Check that what wrote a device tensor last comes before what this stream does now."""
    last = _written.get(address(tensor))
    if last and not stream.has_seen(*last):
        evidence.hazard(f"a stream reads what another may not have written yet: {tuple(tensor.shape)}")


def writes(tensor: Tensor, stream: Stream) -> None:
    """Note who wrote a device tensor last."""
    if not tensor.numel():
        return
    place = address(tensor)
    if place not in _written:  # forgotten with the memory: what lies there next is another tensor
        weakref.finalize(tensor.untyped_storage(), _written.pop, place, None)
    _written[place] = (stream.number, stream.tick)


def to_device(tensor: Tensor, source: Tensor, stream: Stream, waits: bool) -> None:
    """Check a copy from the host that was just made in a stream."""
    writes(tensor, stream)
    if waits or not is_pinned(source):
        stream.synchronize()
        return
    before, kept, at = _checksum(source), source.detach(), evidence.where()

    def check() -> None:
        if _checksum(kept) != before:
            evidence.hazard(f"a pinned buffer {tuple(kept.shape)} changed while its copy to the GPU was under way", at)

    with streams.lock:
        stream.pending.append((stream.tick, check))


def to_host(target: Tensor, values: Tensor, source: Tensor, stream: Stream, waits: bool) -> None:
    """Copy values (on the CPU, of a device tensor `source`) to the host, now or when it has been waited for."""
    reads(source, stream)
    if waits or not is_pinned(target):
        if not waits:
            evidence.hazard(f"a copy that does not wait, to memory that is not pinned: {tuple(target.shape)}")
        target.detach().copy_(values)
        stream.synchronize()
        return
    own = streams.default_stream(source.device).number  # all device memory is taken on the default stream
    if stream.number != own:
        _unrecorded[address(source), stream.number] = stream.tick, evidence.where()
    late, place = values.clone(), target.detach()
    poison = wishes.now.poison if place.dtype.is_floating_point else 0xEE
    place.fill_(poison)

    def arrive() -> None:
        with torch.inference_mode():
            place.copy_(late)

    with streams.lock:
        stream.pending.append((stream.tick, arrive))


def record_stream(tensor: Tensor, stream: Stream) -> None:
    """Keep a tensor's memory until a stream is through with it."""
    _unrecorded.pop((address(tensor), stream.number), None)


def _unrecorded_until(clock: Clock) -> None:
    for key in [key for key, (tick, _) in _unrecorded.items() if tick <= clock.get(key[1], 0)]:
        evidence.hazard("memory used on another stream than its own, without record_stream", _unrecorded.pop(key)[1])


def _checksum(tensor: Tensor) -> int:
    plain = tensor.detach().contiguous().reshape(-1)
    return zlib.crc32(memoryview(plain.view(torch.uint8).numpy())) if plain.numel() else 0


def patch() -> None:
    """Give tensors what the CPU build of torch has no pinned memory and no streams for."""
    streams.on_host_waited.append(_unrecorded_until)

    def empty(*sizes: object, pin_memory: bool = False, **named: object) -> Tensor:
        made = _empty(*sizes, **named)
        if not pin_memory:
            return made
        faults.strike("pin", streams.index_of(None))
        if made.dtype.is_floating_point:
            made.fill_(wishes.now.poison)
        return pin(made)

    torch.empty = empty
    torch.Tensor.pin_memory = lambda self, device=None: pin(self.clone())
    torch.Tensor.is_pinned = is_pinned
    torch.Tensor.record_stream = record_stream
    for kind in (torch.nn.Parameter, torch.Tensor):
        kind.__deepcopy__ = _deepcopy(kind.__deepcopy__)


def _deepcopy(plain):
    """torch copies a storage, for which the CPU build knows no CUDA: clone the tensor instead."""

    def deepcopy(self: Tensor, memo: dict) -> Tensor:
        if self.device.type != "cuda":
            return plain(self, memo)
        if id(self) not in memo:
            made = self.detach().clone()
            memo[id(self)] = (
                torch.nn.Parameter(made, self.requires_grad) if isinstance(self, torch.nn.Parameter) else made
            )
        return memo[id(self)]

    return deepcopy
