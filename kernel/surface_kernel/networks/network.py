"""Networks, built from their description. What they return are logits: nothing here ends in a sigmoid.

Two libraries build them, each imported only for a network of its own, so that a bundle needs no other. The one,
segmentation-models-pytorch-3d, is imported without what it asks for: see `stand_ins`. The other,
dynamic-network-architectures, asks for timm and einops, which its U-Nets do not import.
"""

from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from surface_kernel.networks.architecture import Architecture
from surface_kernel.networks.stand_ins import stand_ins


class _ResEncStages(NamedTuple):
    """The stages of a residual encoder."""

    features: tuple[int, ...]
    blocks: tuple[int, ...]
    fold: int = 1
    """Voxels on an edge of the blocks that go in and come out as channels; above 1 nothing runs at full resolution."""


# The stages by the encoder's name. M is what nnU-Net's ResEnc planner gives for patches of 128³ (Isensee
# et al. 2024, "nnU-Net Revisited"): its L and XL are the same network on larger patches. Here L is M, half as wide
# again, and S is for small GPUs and CPUs; both are this project's choice. XS is for two CPU cores.
_RES_ENC_STAGES = {
    "resenc_xs": _ResEncStages((8, 16, 32, 64, 96), (1, 1, 1, 1, 1), fold=2),
    "resenc_s": _ResEncStages((16, 32, 64, 128, 160, 160), (1, 1, 2, 2, 2, 2)),
    "resenc_m": _ResEncStages((32, 64, 128, 256, 320, 320), (1, 3, 4, 6, 6, 6)),
    "resenc_l": _ResEncStages((48, 96, 192, 384, 480, 480), (1, 3, 4, 6, 6, 6)),
}


class NetworkError(RuntimeError):
    """A network that cannot be built or does not fit its weights; the message names it."""


def build(architecture: Architecture) -> nn.Module:
    """Build a network with fresh weights.

    Returns:
        A module that takes float (batch, 1, z, y, x) and returns float logits of the same shape.

    Raises:
        NetworkError: where its library is missing; the message says what to install.
    """
    if architecture.deep:
        return _res_enc_unet(architecture)
    module = _library().create_model(
        architecture.decoder.lower(),
        encoder_name=architecture.encoder,
        encoder_weights=None,
        in_channels=1,
        classes=1,
        activation=None,
    )
    if not isinstance(module, nn.Module):
        raise NetworkError(f"{architecture}: expected a torch module, got a {type(module).__name__}")
    if architecture.norm == "instance":
        _put_instance_norm(module)
    return module


def restore(architecture: Architecture, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Build a network with the given state, ready for inference.

    Half-precision tensors are widened: the device decides about precision, not the file.

    Raises:
        NetworkError: as `build` does, and where the state is another network's.
    """
    module = build(architecture)
    try:
        module.load_state_dict(state, strict=True)  # copies into float32 parameters, whatever it is given
    except RuntimeError as error:
        why = " ".join(str(error).split())[:300]
        raise NetworkError(f"{architecture}: expected a state of this network, got another: {why}") from error
    return module.eval().requires_grad_(False)


def supervise_deeply(module: nn.Module, on: bool) -> None:
    """Choose what a network of `Architecture.deep` returns in training.

    In evaluation it returns one tensor of logits either way, and the state dict is the same.

    Args:
        module: as `build` or `restore` made it.
        on: False, as built: logits of the tile's shape; the coarser outputs get no gradient, which
            DistributedDataParallel would wait for. True: a list of logits, these first, then those of every coarser
            stage of the decoder, each half as long on every axis as the one before; a stage of the encoder fewer.

    Raises:
        NetworkError: for a network without such outputs.
    """
    if not isinstance(module, _ResEncUNet):
        raise NetworkError(f"expected a network with the decoder ResEncUNet, got a {type(module).__name__}")
    module.decoder.deep_supervision = on


class _ResEncUNet(nn.Module):
    """The library's U-Net, its encoder and decoder under their own names, which evaluates to one tensor.

    The library registers most layers under two names and the encoder once more in the decoder. Only the name that
    `forward` uses is kept: a safetensors file takes no tensor twice, and SyncBatchNorm would replace one of the two.
    """

    decoder: Any  # the library's class, which no module of ours imports before it is needed

    def __init__(self, encoder: nn.Module, decoder: nn.Module, *, fold: int) -> None:
        """Take the library's halves, which see `fold`³ voxels as so many channels."""
        super().__init__()
        self.encoder, self.decoder, self._fold = encoder, decoder, fold
        del decoder.encoder
        for block in self.modules():
            for name in [name for name, _ in block.named_children() if hasattr(block, "all_modules")]:
                if name != "all_modules":
                    delattr(block, name)

    def forward(self, tiles: Tensor) -> Tensor | list[Tensor]:
        fold = self._fold
        outputs: Tensor | list[Tensor] = self.decoder(self.encoder(_folded(tiles, fold) if fold > 1 else tiles))
        logits = outputs if isinstance(outputs, list) else [outputs]
        if fold > 1:
            logits = [_unfolded(each, fold) for each in logits]
        return logits if self.training and isinstance(outputs, list) else logits[0]


def _folded(tiles: Tensor, fold: int) -> Tensor:
    """Return (batch, fold³, z, y, x) of (batch, 1, fold·z, fold·y, fold·x): the voxels of a block are its channels."""
    batch, _, z, y, x = tiles.shape
    blocks = tiles.view(batch, z // fold, fold, y // fold, fold, x // fold, fold).permute(0, 2, 4, 6, 1, 3, 5)
    return blocks.reshape(batch, fold**3, z // fold, y // fold, x // fold)


def _unfolded(blocks: Tensor, fold: int) -> Tensor:
    """Return what `_folded` was given."""
    batch, _, z, y, x = blocks.shape
    tiles = blocks.view(batch, fold, fold, fold, z, y, x).permute(0, 4, 1, 5, 2, 6, 3)
    return tiles.reshape(batch, 1, fold * z, fold * y, fold * x)


def _res_enc_unet(architecture: Architecture) -> nn.Module:
    """Build nnU-Net's U-Net with a residual encoder and its own initial values."""
    try:
        from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
    except ModuleNotFoundError as error:
        raise NetworkError(_missing(architecture.library, error)) from error
    features, blocks, fold = _RES_ENC_STAGES[architecture.encoder]
    module = ResidualEncoderUNet(
        input_channels=fold**3,
        n_stages=len(features),
        features_per_stage=features,
        conv_op=nn.Conv3d,
        kernel_sizes=3,
        strides=(1, *[2] * (len(features) - 1)),
        n_blocks_per_stage=blocks,
        num_classes=fold**3,
        n_conv_per_stage_decoder=1,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d if architecture.norm == "instance" else nn.BatchNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )
    module.apply(module.initialize)  # the last norm of every residual block is zero: each starts as the identity
    return _ResEncUNet(module.encoder, module.decoder, fold=fold)


def _put_instance_norm(module: nn.Module) -> None:
    """Put a fresh InstanceNorm with affine parameters, and without running statistics, where BatchNorm is."""
    for name, child in list(module.named_children()):
        if isinstance(child, _BatchNorm):
            setattr(module, name, nn.InstanceNorm3d(child.num_features, eps=child.eps, affine=True))
        else:
            _put_instance_norm(child)


def _library() -> ModuleType:
    """Import segmentation-models-pytorch-3d; once imported it comes from sys.modules."""
    try:
        with stand_ins():
            import segmentation_models_pytorch_3d as library
    except ModuleNotFoundError as error:
        raise NetworkError(_missing("segmentation-models-pytorch-3d", error)) from error
    return library  # type: ignore[no-any-return]


def _missing(distribution: str, error: ModuleNotFoundError) -> str:
    return f"expected {distribution}, got none ({error}): pip install --no-deps -r requirements-no-deps.txt"
