"""Empty modules in place of libraries that another one imports and does not need.

segmentation-models-pytorch-3d asks for torchvision, timm, timm-3d, pretrainedmodels and efficientnet-pytorch. Its own
`encoders` package imports all of them, but the encoders that run in 3-D (`architecture.ENCODERS`) use none of their
code: they read a table of addresses of 2-D weights, which nothing here downloads. So during that one import the five
are stood in for by empty modules. This keeps a second, CUDA-built torch out of a CPU machine, needs one wheel offline
instead of five (two of which exist as sources only), and cannot clash with the timm that Kaggle preinstalls.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_STOOD_IN = ("torchvision", "timm", "timm_3d", "pretrainedmodels", "efficientnet_pytorch")


@contextmanager
def stand_ins() -> Iterator[None]:
    """Let imports of the five libraries succeed, and leave no trace of that: what was really loaded comes back."""
    # Lists, taken in one step: another thread may import something meanwhile.
    real = {name: module for name, module in list(sys.modules.items()) if name.split(".")[0] in _STOOD_IN}
    for name in real:
        del sys.modules[name]
    finder = _StandInFinder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in list(sys.modules) if name.split(".")[0] in _STOOD_IN]:
            del sys.modules[name]
        sys.modules.update(real)


class _StandInMeta(type):
    """Whatever is asked of a stand-in class is a stand-in: an attribute, an entry of a table."""

    def __getattr__(cls, name: str) -> type:
        return _stand_in(name)

    def __getitem__(cls, key: object) -> type:
        return cls

    def __setitem__(cls, key: object, value: object) -> None:
        """Take entries into the table of weights' addresses."""

    def __contains__(cls, key: object) -> bool:
        return True


class _StandIn(metaclass=_StandInMeta):
    """Stands for a class, a function or a table of the libraries; it can be subclassed and made, not used."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass


def _stand_in(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (_StandIn,), {})


class _StandInFinder(MetaPathFinder, Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.split(".")[0] not in _STOOD_IN:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__getattr__"] = _stand_in
