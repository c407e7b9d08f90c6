import pytest
from scenes import run_python

from surface_kernel.architecture import DECODERS, ENCODERS, Architecture, ArchitectureError, check_tile


def test_a_mapping_comes_back():
    chosen = Architecture("FPN", "resnet34")
    assert chosen.to_mapping() == {"decoder": "FPN", "encoder": "resnet34"}
    assert Architecture.from_mapping(chosen.to_mapping()) == chosen


def test_no_network_is_listed_twice():
    assert len(set(ENCODERS)) == len(ENCODERS)
    assert len(set(DECODERS)) == len(DECODERS)


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        ({"decoder": "unet", "encoder": "resnet18"}, "decoder: found 'unet', wanted one of Unet, FPN, Linknet"),
        ({"decoder": "Unet", "encoder": "resnet19"}, "encoder: found 'resnet19', wanted one of resnet18, "),
        ({"decoder": "Unet", "encoder": ["resnet18"]}, r"encoder: found \['resnet18'\]"),
        ({"decoder": "Unet"}, r"architecture: found \['decoder'\], wanted decoder and encoder"),
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


def test_a_name_is_refused_before_torch_is_loaded():
    code = "import sys, surface_kernel.architecture; print('torch' in sys.modules)"
    assert run_python(code).stdout == "False\n"
