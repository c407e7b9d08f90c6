"""Operators on device tensors: checked as CUDA would, then computed by the CPU's kernel over the same memory.

One fallback serves every operator that device.cpp does not have. In half precision the heavy operators compute in
float32 and round their result, as tensor cores do; the CPU has no such kernels for some of them.
"""

import os
from collections import Counter

import simulated_device as device
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from simulated_gpu import evidence, faults, memory, streams

_HALF = (torch.float16, torch.bfloat16)
_ROUNDED = {
    *("convolution", "convolution_backward", "native_batch_norm", "native_batch_norm_backward"),
    *("_native_batch_norm_legit", "native_group_norm", "native_group_norm_backward", "mean", "sum"),
    *("upsample_nearest3d", "upsample_nearest3d_backward", "upsample_trilinear3d", "upsample_trilinear3d_backward"),
    *("max_pool3d_with_indices", "max_pool3d_with_indices_backward", "avg_pool3d", "avg_pool3d_backward"),
}
_MIXED = {"index", "index_put_", "index_put", "_index_put_impl_"}  # take indices that lie on the CPU
# torch has a kernel of these for every device, which would be preferred to a fallback.
_BY_NAME = ("convolution", "convolution_backward", "native_batch_norm", "native_batch_norm_backward", "_to_copy_none")
calls: Counter[str] = Counter()
_used: set[tuple[int, int]] = set()


def register() -> list[torch.library.Library]:
    """Register the operators; return what must be kept for as long as they are wanted."""
    torch.cuda._lazy_init = lambda: None  # or the first registration would want a real CUDA
    fallback, named = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    fallback.fallback(lambda operator, *args, **kwargs: run(operator, args, kwargs), "CUDA")
    named.impl("copy_", copy_, "CUDA")
    for name in _BY_NAME:
        packet = getattr(torch.ops.aten, name, None)
        if packet is not None and "default" in packet.overloads():
            named.impl(name, _bound(packet.default), "CUDA")
    return [fallback, named]


def _bound(operator):
    return lambda *args, **kwargs: run(operator, args, kwargs)


def run(operator, args: tuple, kwargs: dict):
    """Run an operator on device tensors."""
    name = operator._schema.name.split("::")[1]
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    index = _common_device(name, tensors)
    spoilt = faults.strike(name, index)
    _note_use(index)
    stream = streams.current_stream(index)
    with streams.lock:
        stream.work()
        calls[name] += 1
        for tensor in tensors:
            if tensor.device.type == "cuda":
                memory.reads(tensor, stream)
    half = next((tensor.dtype for tensor in tensors if tensor.dtype in _HALF), None)
    call = _Call(index=index, half=half if name in _ROUNDED else None, is_norm="norm" in name, spoilt=spoilt)
    result = call.compute(operator, args, kwargs)
    leaves = tree_leaves(result)
    if any(isinstance(leaf, bool | int | float) for leaf in leaves):  # a number came back: the host waited for it
        stream.synchronize()
    with streams.lock:
        for leaf in leaves:
            if isinstance(leaf, Tensor):
                memory.writes(leaf, stream)
    return result


def _common_device(name: str, tensors: list[Tensor]) -> int:
    """Return the device of all tensors. Raises as CUDA does where they are on several."""
    places = {str(tensor.device) for tensor in tensors if tensor.device.type == "cuda"}
    if name not in _MIXED:
        places |= {"cpu" for tensor in tensors if tensor.device.type == "cpu" and tensor.dim()}
    if len(places) != 1:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{' and '.join(sorted(places))}! ({name})"
        )
    return torch.device(places.pop()).index


def _note_use(index: int) -> None:
    """Write down that this process touches a device."""
    if (os.getpid(), index) not in _used:
        _used.add((os.getpid(), index))
        evidence.note("device", device=index, current=device.current())


class _Call:
    """One call of an operator: its tensors as the CPU sees them, and its results as the device does."""

    def __init__(self, *, index: int, half: torch.dtype | None, is_norm: bool, spoilt: faults.Fault | None) -> None:
        self._index, self._half, self._is_norm, self._spoilt = index, half, is_norm, spoilt
        self._inside: dict[int, Tensor] = {}  # by the id of a device tensor
        self._outside: dict[int, Tensor] = {}  # by the id of a CPU tensor: where it came from
        self._made = 0

    def compute(self, operator, args: tuple, kwargs: dict):
        """Return the operator's result on the device."""
        grown = self._fresh_outputs(operator, kwargs)
        inner_args, inner_kwargs = tree_map(self._to_cpu, args), tree_map(self._to_cpu, kwargs)
        if isinstance(inner_kwargs.get("device"), torch.device):
            inner_kwargs["device"] = torch.device("cpu")
        result = operator(*inner_args, **inner_kwargs)
        for tensor, made in grown:
            if made.numel():
                tensor.resize_(made.shape)
                device.on_cpu(tensor).copy_(made)
        if self._half:
            self._round_written(operator, args, kwargs)
        return tree_map(self._to_device, result)

    def _fresh_outputs(self, operator, kwargs: dict) -> list[tuple[Tensor, Tensor]]:
        """Give empty `out` arguments CPU tensors of their own, which the operator may let grow."""
        grown = []
        for argument in operator._schema.arguments:
            tensor = kwargs.get(argument.name)
            if argument.is_out and isinstance(tensor, Tensor) and tensor.numel() == 0:
                with torch.inference_mode(tensor.is_inference()):
                    made = memory._empty(0, dtype=torch.float32 if self._half else tensor.dtype)
                self._inside[id(tensor)], self._outside[id(made)] = made, tensor
                grown.append((tensor, made))
        return grown

    def _round_written(self, operator, args: tuple, kwargs: dict) -> None:
        """Copy what was computed in float32 into arguments in half precision that are written."""
        for place, argument in enumerate(operator._schema.arguments):
            tensor = args[place] if place < len(args) else kwargs.get(argument.name)
            writes = argument.alias_info is not None and argument.alias_info.is_write
            if writes and isinstance(tensor, Tensor) and tensor.dtype in _HALF:
                device.on_cpu(tensor).copy_(self._inside[id(tensor)])

    def _to_cpu(self, leaf):
        if not isinstance(leaf, Tensor) or leaf.device.type != "cuda":
            return leaf
        if id(leaf) not in self._inside:
            seen = device.on_cpu(leaf)
            if self._half and seen.dtype in _HALF:
                seen = seen.float()
            self._inside[id(leaf)], self._outside[id(seen)] = seen, leaf
        return self._inside[id(leaf)]

    def _to_device(self, leaf):
        if not isinstance(leaf, Tensor):
            return leaf
        first, self._made = self._made == 0, self._made + 1
        if id(leaf) in self._outside:  # it was an argument: an operation in place
            return self._outside[id(leaf)]
        if self._half and leaf.dtype == torch.float32 and (first or not self._is_norm):  # a norm's statistics stay
            leaf = leaf.to(self._half)
        return device.on_device(self._spoil(leaf), self._index)

    def _spoil(self, tensor: Tensor) -> Tensor:
        fault = self._spoilt
        if fault is None or not tensor.is_floating_point() or fault.dtype not in ("", str(tensor.dtype)[6:]):
            return tensor
        if fault.kind == "wrong":
            return tensor * 1.5
        tensor[(0,) * tensor.dim()] = float("nan")
        return tensor


def copy_(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """Copy between host and device, or on a device."""
    index = (target if target.device.type == "cuda" else source).device.index
    faults.strike("copy", index)
    _note_use(index)
    stream = streams.current_stream(index)
    stream.work()
    if target.device.type != "cuda":
        memory.to_host(target, device.on_cpu(source), source, stream, waits=not non_blocking)
    elif source.device.type != "cuda":
        device.on_cpu(target).copy_(source)
        memory.to_device(target, source, stream, waits=not non_blocking)
    else:
        if target.dtype != source.dtype:
            faults.strike("cast", index)
        memory.reads(source, stream)
        device.on_cpu(target).copy_(device.on_cpu(source))
        memory.writes(target, stream)
    return target
