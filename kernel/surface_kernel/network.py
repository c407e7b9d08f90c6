"""Networks, built from their description. What they return are logits: nothing here ends in a sigmoid.

segmentation-models-pytorch-3d asks for torchvision, timm, timm-3d, pretrainedmodels and efficientnet-pytorch. Its own
`encoders` package imports all of them, but the encoders that run in 3-D (`architecture.ENCODERS`) use none of their
code: they read a table of addresses of 2-D weights, which nothing here downloads. So during that one import the five
are stood in for by empty modules. This keeps a second, CUDA-built torch out of a CPU machine, needs one wheel offline
instead of five (two of which exist as sources only), and cannot clash with the timm that Kaggle preinstalls.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
from torch import nn

from surface_kernel.architecture import Architecture

_STOOD_IN = ("torchvision", "timm", "timm_3d", "pretrainedmodels", "efficientnet_pytorch")


class NetworkError(RuntimeError):
    """A network that cannot be built or does not fit its weights."""


def build(architecture: Architecture) -> nn.Module:
    """Build a network with fresh weights: float (batch, 1, z, y, x) in, float logits of the same shape out."""
    module = _library().create_model(
        architecture.decoder.lower(),
        encoder_name=architecture.encoder,
        encoder_weights=None,
        in_channels=1,
        classes=1,
        activation=None,
    )
    if not isinstance(module, nn.Module):
        raise NetworkError(f"{architecture}: found a {type(module).__name__}, wanted a torch module")
    return module


def restore(architecture: Architecture, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Build a network with the given state, ready for inference. Raises NetworkError when they do not belong together.

    Half-precision tensors are widened: the device decides about precision, not the file.
    """
    module = build(architecture)
    try:
        module.load_state_dict(state, strict=True)  # copies into float32 parameters, whatever it is given
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise NetworkError(f"{architecture}: found a state that does not fit: {first}") from error
    return module.eval().requires_grad_(False)


def _library() -> ModuleType:
    """Import segmentation-models-pytorch-3d; once imported it comes from sys.modules."""
    try:
        with _stand_ins():
            import segmentation_models_pytorch_3d as library
    except ModuleNotFoundError as error:
        wanted = "wanted it: pip install --no-deps -r requirements-no-deps.txt"
        raise NetworkError(f"found no segmentation-models-pytorch-3d ({error}), {wanted}") from error
    return library  # type: ignore[no-any-return]


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Let imports of the five libraries succeed, and leave no trace of that: what was really loaded comes back."""
    real = {name: module for name, module in sys.modules.items() if name.split(".")[0] in _STOOD_IN}
    for name in real:
        del sys.modules[name]
    finder = _StandInFinder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.split(".")[0] in _STOOD_IN]:
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
