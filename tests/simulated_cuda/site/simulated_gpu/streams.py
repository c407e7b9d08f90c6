"""Streams and events as vector clocks: how far each stream has come, and what it has waited for of the others.

An operator ticks its stream's clock. Of two pieces of work the later one is safe where its stream's clock has the
earlier one's tick. What the host may rely on is what it has waited for: until then a copy back is `pending`.
"""

import threading
import time
import weakref
from collections.abc import Callable
from itertools import count

import simulated_device as device
import torch

from simulated_gpu import faults

lock = threading.RLock()
Clock = dict[int, int]  # a stream's number, and its tick
_WAIT_S = 0.003  # that an event is waited for: other threads get their chance to go wrong meanwhile
_numbers = count(1)
_all: "weakref.WeakValueDictionary[int, Stream]" = weakref.WeakValueDictionary()
_defaults: dict[int, "Stream"] = {}
_current = threading.local()
on_host_waited: list[Callable[[Clock], None]] = []
"""Called with the clock that the host has waited for."""


def index_of(place: object) -> int:
    """Return the number of the device that is meant, as torch.cuda's functions understand it."""
    if place is None:
        return device.current()
    if isinstance(place, int):
        return place
    if isinstance(place, Stream):
        return place.device_index
    chosen = torch.device(place)
    if chosen.type != "cuda":
        raise ValueError(f"Expected a cuda device, but got: {chosen}")
    index = device.current() if chosen.index is None else chosen.index
    if not 0 <= index < device.device_count():
        raise RuntimeError("CUDA error: invalid device ordinal")
    return index


class Stream:
    """What runs in order on a device."""

    def __init__(self, device: object = None, priority: int = 0) -> None:
        self.device_index, self.number = index_of(device), next(_numbers)
        self.device = torch.device("cuda", self.device_index)
        self.clock: Clock = {}
        self.tick = 0
        self.pending: list[tuple[int, Callable[[], None]]] = []
        _all[self.number] = self

    def work(self) -> int:
        """Do one more piece of work; return its tick."""
        with lock:
            self.tick += 1
            self.clock[self.number] = self.tick
            return self.tick

    def has_seen(self, number: int, tick: int) -> bool:
        """Whether work of another stream comes before what this one does next."""
        return number == self.number or self.clock.get(number, 0) >= tick

    def wait_stream(self, other: "Stream") -> None:
        faults.strike("sync", self.device_index)
        with lock:
            _merge(self.clock, other.clock)

    def wait_event(self, event: "Event") -> None:
        with lock:
            _merge(self.clock, event.clock)

    def record_event(self, event: "Event | None" = None) -> "Event":
        event = event or Event()
        event.record(self)
        return event

    def synchronize(self) -> None:
        faults.strike("sync", self.device_index)
        with lock:
            clock = dict(self.clock)
        host_waited(clock)

    def query(self) -> bool:
        return not self.pending


class Event:
    """A place in a stream that can be waited for."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> None:
        self.clock: Clock = {}
        self.stream: Stream | None = None
        self.at_s = 0.0

    def record(self, stream: Stream | None = None) -> None:
        self.stream, self.at_s = stream or current_stream(), time.perf_counter()
        faults.strike("sync", self.stream.device_index)
        self.stream.work()
        with lock:
            self.clock = dict(self.stream.clock)

    def wait(self, stream: Stream | None = None) -> None:
        (stream or current_stream()).wait_event(self)

    def synchronize(self) -> None:
        time.sleep(_WAIT_S)
        if self.stream is not None:
            faults.strike("sync", self.stream.device_index)
        host_waited(self.clock)

    def query(self) -> bool:
        return True

    def elapsed_time(self, other: "Event") -> float:
        return (other.at_s - self.at_s) * 1e3


def _merge(clock: Clock, other: Clock) -> None:
    for number, tick in other.items():
        clock[number] = max(clock.get(number, 0), tick)


def host_waited(clock: Clock) -> None:
    """Do what was pending up to this clock: the host has waited for it."""
    with lock:
        for stream in list(_all.values()):
            limit = clock.get(stream.number, 0)
            due = [act for tick, act in stream.pending if tick <= limit]
            stream.pending[:] = [each for each in stream.pending if each[0] > limit]
            for act in due:
                act()
        for call in on_host_waited:
            call(clock)


def default_stream(device: object = None) -> Stream:
    """Return the stream of a device that work goes to unless another is chosen."""
    index = index_of(device)
    with lock:
        if index not in _defaults:
            _defaults[index] = Stream(index)
        return _defaults[index]


def current_stream(device: object = None) -> Stream:
    """Return the stream of a device that this thread's work goes to."""
    index = index_of(device)
    return getattr(_current, "streams", {}).get(index) or default_stream(index)


def synchronize(device: object = None) -> None:
    """Wait for all streams of a device."""
    index = index_of(device)
    for stream in list(_all.values()):
        if stream.device_index == index:
            stream.synchronize()


class StreamContext:
    """Chooses a stream, and its device, for this thread."""

    def __init__(self, stream: Stream | None) -> None:
        self.stream = stream

    def __enter__(self) -> None:
        if self.stream is None:
            return
        if not hasattr(_current, "streams"):
            _current.streams = {}
        self.before = device.exchange(self.stream.device_index), _current.streams.get(self.stream.device_index)
        _current.streams[self.stream.device_index] = self.stream

    def __exit__(self, *_: object) -> None:
        if self.stream is not None:
            device.exchange(self.before[0])
            _current.streams[self.stream.device_index] = self.before[1]


class DeviceContext:
    """Chooses a device for this thread."""

    def __init__(self, device: object) -> None:
        self.index = -1 if device is None else index_of(device)

    def __enter__(self) -> None:
        self.before = device.exchange(self.index)

    def __exit__(self, *_: object) -> None:
        device.exchange(self.before)
