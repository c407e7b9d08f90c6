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
    ("entries", "found"),
    [
        (
            {"decoder": "unet", "encoder": "resnet18"},
            "^decoder: found 'unet', wanted one of Unet, FPN, Linknet, ResEncUNet$",
        ),
        ({"decoder": "Unet", "encoder": "resnet19"}, "encoder: found 'resnet19', wanted one of resnet18, "),
        ({"decoder": "Unet", "encoder": ["resnet18"]}, r"encoder: found \['resnet18'\]"),
        ({"decoder": "Unet", "encoder": "resenc_s"}, "found 'resenc_s', wanted .*mobileone_s4 for the decoder Unet$"),
        (
            {"decoder": "ResEncUNet", "encoder": "resnet18"},
            "found 'resnet18', wanted one of resenc_s, resenc_m, resenc_l for the decoder ResEncUNet$",
        ),
        (
            {"decoder": "Unet", "encoder": "resnet18", "norm": "group"},
            "^norm: found 'group', wanted one of batch, instance$",
        ),
        ({"decoder": "Unet", "encoder": "resnet18", "norm": None}, "norm: found None"),
        ({"decoder": "Unet"}, r"architecture: found \['decoder'\], wanted decoder, encoder and norm"),
        ({"decoder": "Unet", "norm": "batch"}, "wanted decoder, encoder and norm"),
        ({"decoder": "Unet", "encoder": "resnet18", "depth": 4}, "found .*'depth'"),
    ],
)
def test_a_network_that_is_not_there_is_refused(entries, found):
    with pytest.raises(ArchitectureError, match=found):
        Architecture.from_mapping(entries)


@pytest.mark.parametrize("tile_zyx", [(32, 32, 32), (64, 96, 128)])
def test_multiples_of_32_are_tiles(tile_zyx):
    check_tile(tile_zyx)


@pytest.mark.parametrize(
    "tile_zyx", [(0, 32, 32), (32, 32, 48), (-32, 32, 32), (32, 32), (32, 32, 32, 32), (32.0, 32.0, 32.0), ("32",) * 3]
)
def test_other_tiles_are_refused(tile_zyx):
    with pytest.raises(ArchitectureError, match="wanted three positive multiples of 32"):
        check_tile(tile_zyx)


@pytest.mark.parametrize("tile_zyx", [(64, 32, 64), (32, 32, 128), (64, 64, 64)])
def test_instancenorm_takes_tiles_that_leave_four_voxels(tile_zyx):
    check_tile(tile_zyx, "instance")


@pytest.mark.parametrize(
    ("tile_zyx", "found"),
    [
        ((32, 32, 32), "which halve to 1, wanted 4 or more for InstanceNorm; take a larger tile or BatchNorm"),
        ((32, 64, 32), r"tile: found \(32, 64, 32\) voxels, which halve to 2"),
        ((96, 32, 32), "which halve to 3"),
        ((64, 64, 48), "wanted three positive multiples of 32"),
    ],
)
def test_instancenorm_takes_no_others(tile_zyx, found):
    with pytest.raises(ArchitectureError, match=found):
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
