import pytest
from scenes import run_python

from surface_kernel.networks.architecture import (
    DECODERS,
    ENCODERS,
    LIBRARIES,
    NORMS,
    RES_ENC_ENCODERS,
    Architecture,
    ArchitectureError,
    check_tile,
)


@pytest.mark.parametrize("norm", NORMS)
def test_a_mapping_comes_back(norm):
    chosen = Architecture("FPN", "resnet34", norm)
    assert chosen.to_mapping() == {"decoder": "FPN", "encoder": "resnet34", "norm": norm}
    assert Architecture.from_mapping(chosen.to_mapping()) == chosen


def test_what_was_written_before_there_was_a_norm_has_batchnorm():
    assert Architecture.from_mapping({"decoder": "FPN", "encoder": "resnet34"}).norm == "batch"


def test_no_network_is_listed_twice():
    for names in (DECODERS, ENCODERS + RES_ENC_ENCODERS, NORMS, LIBRARIES):
        assert len(set(names)) == len(names)


def test_a_decoder_says_which_library_builds_it_and_whether_it_has_deep_outputs():
    found = {name: Architecture(name, "resnet18") for name in ("Unet", "FPN", "Linknet")}
    found["ResEncUNet"] = Architecture("ResEncUNet", "resenc_m")
    assert found.keys() == set(DECODERS)
    assert [name for name, chosen in found.items() if chosen.deep] == ["ResEncUNet"]
    assert [chosen.library for chosen in found.values()] == [
        *["segmentation-models-pytorch-3d"] * 3,
        "dynamic-network-architectures",
    ]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            {"decoder": "unet", "encoder": "resnet18"},
            "^decoder: expected one of Unet, FPN, Linknet, ResEncUNet, got 'unet'$",
        ),
        ({"decoder": "Unet", "encoder": "resnet19"}, "encoder: expected one of resnet18, .*, got 'resnet19'"),
        ({"decoder": "Unet", "encoder": ["resnet18"]}, r"encoder: expected .*, got \['resnet18'\]"),
        ({"decoder": "Unet", "encoder": "resenc_s"}, "expected .*mobileone_s4 for the decoder Unet, got 'resenc_s'$"),
        (
            {"decoder": "ResEncUNet", "encoder": "resnet18"},
            "expected one of resenc_xs, resenc_s, resenc_m, resenc_l for the decoder ResEncUNet, got 'resnet18'$",
        ),
        (
            {"decoder": "Unet", "encoder": "resnet18", "norm": "group"},
            "^norm: expected one of batch, instance, got 'group'$",
        ),
        ({"decoder": "Unet", "encoder": "resnet18", "norm": None}, "norm: expected .*, got None"),
        ({"decoder": "Unet"}, r"architecture: expected decoder, encoder and norm, got \['decoder'\]"),
        ({"decoder": "Unet", "norm": "batch"}, "expected decoder, encoder and norm"),
        ({"decoder": "Unet", "encoder": "resnet18", "depth": 4}, "got .*'depth'"),
    ],
)
def test_a_network_that_is_not_there_is_refused(entries, message):
    with pytest.raises(ArchitectureError, match=message):
        Architecture.from_mapping(entries)


@pytest.mark.parametrize("tile_zyx", [(32, 32, 32), (64, 96, 128)])
def test_multiples_of_32_are_tiles(tile_zyx):
    check_tile(tile_zyx)


@pytest.mark.parametrize(
    "tile_zyx", [(0, 32, 32), (32, 32, 48), (-32, 32, 32), (32, 32), (32, 32, 32, 32), (32.0, 32.0, 32.0), ("32",) * 3]
)
def test_other_tiles_are_refused(tile_zyx):
    with pytest.raises(ArchitectureError, match="tile: expected three positive multiples of 32, got"):
        check_tile(tile_zyx)


@pytest.mark.parametrize("tile_zyx", [(64, 32, 64), (32, 32, 128), (64, 64, 64)])
def test_instancenorm_takes_tiles_that_leave_four_voxels(tile_zyx):
    check_tile(tile_zyx, "instance")


@pytest.mark.parametrize(
    ("tile_zyx", "message"),
    [
        (
            (32, 32, 32),
            r"at least 4 voxels after five halvings, .*, got 1 of \(32, 32, 32\); take a larger",
        ),
        ((32, 64, 32), r"tile: expected .*, got 2 of \(32, 64, 32\)"),
        ((96, 32, 32), "got 3 of"),
        ((64, 64, 48), "expected three positive multiples of 32"),
    ],
)
def test_instancenorm_takes_no_others(tile_zyx, message):
    with pytest.raises(ArchitectureError, match=message):
        check_tile(tile_zyx, "instance")


def test_a_name_is_refused_before_torch_is_loaded():
    code = """
import sys
from surface_kernel.networks.architecture import Architecture
for names in ("unet", "resnet18"), ("ResEncUNet", "resnet18"), ("Unet", "resnet18", "group"):
    try:
        Architecture(*names)
    except ValueError as error:
        print(str(error).split(":")[0], "torch" in sys.modules)
"""
    assert run_python(code).stdout == "decoder False\nencoder False\nnorm False\n"
