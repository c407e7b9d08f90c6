"""torch.cuda's functions, as far as the project and torch itself call them."""

from types import SimpleNamespace

import simulated_device as device
import torch

from simulated_gpu import streams, wishes
from simulated_gpu.streams import index_of


def _properties(place: object = None) -> SimpleNamespace:
    major, minor = wishes.now.capability
    return SimpleNamespace(
        name=_name(place), major=major, minor=minor, total_memory=wishes.now.total_bytes, index=index_of(place)
    )


def _name(place: object = None) -> str:
    return f"simulated GPU {index_of(place)}"


def _has_bfloat16(including_emulation: bool = True) -> bool:
    return including_emulation or wishes.now.capability >= (8, 0)


def _free_and_total(place: object = None) -> tuple[int, int]:
    total = wishes.now.limit_bytes or wishes.now.total_bytes
    return total - device.used_bytes(index_of(place)), total


def _peak(place: object = None) -> int:
    return device.peak_bytes(index_of(place))


def patch() -> None:
    """Put these in place of torch.cuda's own, which would ask a driver."""
    own = {
        "_lazy_init": lambda: None,
        "_is_in_bad_fork": lambda: False,
        "is_available": lambda: device.device_count() > 0,
        "is_initialized": lambda: True,
        "device_count": device.device_count,
        "current_device": device.current,
        "set_device": lambda place: device.exchange(index_of(place)),
        "get_device_capability": lambda place=None: wishes.now.capability,
        "get_device_name": _name,
        "get_device_properties": _properties,
        "is_bf16_supported": _has_bfloat16,
        "mem_get_info": _free_and_total,
        "memory_allocated": lambda place=None: device.used_bytes(index_of(place)),
        "memory_reserved": lambda place=None: device.used_bytes(index_of(place)),
        "max_memory_allocated": _peak,
        "max_memory_reserved": _peak,
        "reset_peak_memory_stats": lambda place=None: device.reset_peak(index_of(place)),
        "empty_cache": lambda: None,
        "manual_seed": lambda seed: None,  # what is drawn on a device is drawn by the CPU's generator
        "manual_seed_all": lambda seed: None,
        "synchronize": streams.synchronize,
        "Stream": streams.Stream,
        "Event": streams.Event,
        "stream": streams.StreamContext,
        "device": streams.DeviceContext,
        "current_stream": streams.current_stream,
        "default_stream": streams.default_stream,
    }
    for name, value in own.items():
        setattr(torch.cuda, name, value)
