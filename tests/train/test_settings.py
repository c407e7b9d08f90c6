import re
from dataclasses import FrozenInstanceError, asdict, replace
from pathlib import Path

import pytest

from surface_kernel.networks.architecture import Architecture
from surface_train import settings
from surface_train.settings import (
    Augment,
    Average,
    LossWeights,
    Optimiser,
    Patches,
    Sentinel,
    Settings,
    SettingsError,
    Validation,
)

SHIPPED = sorted((Path(__file__).parents[2] / "train" / "settings").glob("*.toml"))


def read(folder: Path, text: str) -> Settings:
    (folder / "run.toml").write_text(text)
    return settings.read(folder / "run.toml")


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert read(tmp_path, "") == Settings()


def test_there_are_settings_to_ship() -> None:
    assert {"unet_resnet18", "demo"} <= {path.stem for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_file_reads(path: Path) -> None:
    assert settings.read(path).epochs >= 1


def test_the_file_for_a_gpu_lists_every_entry_with_its_default() -> None:
    path = next(path for path in SHIPPED if path.stem == "unet_resnet18")
    assert settings.read(path) == Settings()
    written = set(re.findall(r"^(\w+) =", path.read_text(), re.MULTILINE))
    tables = {name: value for name, value in asdict(Settings()).items() if isinstance(value, dict)}
    assert written == (set(asdict(Settings())) - set(tables)) | {name for table in tables.values() for name in table}


def test_a_preset_stands_under_the_numbers_of_the_file(tmp_path: Path) -> None:
    found = read(tmp_path, '[loss]\npreset = "topology_first"\ncldice_weight = 0.15').loss
    assert (found.preset, found.cldice_weight, found.boundary_weight) == ("topology_first", 0.15, 0.2)
    assert found.variance_kind == "clamped"
    assert read(tmp_path, "[loss]\nfocal_gamma = 1").loss == replace(LossWeights(), focal_gamma=1.0)


def test_lists_of_words_are_kept_in_order(tmp_path: Path) -> None:
    assert read(tmp_path, 'exclude = ["12", "7"]').exclude == ("12", "7")


def test_averaging_lasts_from_its_first_epoch_to_the_runs_last() -> None:
    assert Settings(epochs=10, average=Average(start_epoch=8)).average_epochs == 3
    assert Settings(epochs=10, average=Average(start_epoch=10)).average_epochs == 1


def test_tables_reach_their_parts(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """
        epochs = 7
        folds = "case"
        overlap = 0          # a whole number where a share is wanted
        [network]
        decoder = "FPN"
        [patches]
        shape_zyx = [64, 96, 128]
        [average]
        start_epoch = 3
        """,
    )
    assert (found.epochs, found.folds, found.overlap, found.average.start_epoch) == (7, "case", 0.0, 3)
    assert type(found.overlap) is float
    assert found.network == Architecture("FPN", "resnet18")
    assert found.patches == Patches((64, 96, 128))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "epoch: found an unknown entry, wanted one of epochs"),
        ("[loss]\ndice = 1", "loss.dice: found an unknown entry, wanted one of preset, dice_weight"),
        ("epochs = 3.5", "epochs: found 3.5, wanted a whole number"),
        ("epochs = true", "epochs: found True, wanted a whole number"),
        ('overlap = "half"', "overlap: found 'half', wanted float"),
        ("[augment]\nflips = 1", "augment.flips: found 1, wanted bool"),
        ("[network]\nencoder = 18", "network.encoder: found 18, wanted a word"),
        ('[network]\nencoder = "resnet19"', "encoder: expected one of resnet18, resnet34"),
        ("patches = 3", "patches: found 3, wanted a table"),
        ("[patches]\nshape_zyx = [64, 64]", "patches.shape_zyx: found [64, 64], wanted 3 whole numbers"),
        ("[patches]\nshape_zyx = [64, 64, 64.0]", "wanted 3 whole numbers"),
        ("[patches]\nshape_zyx = [64, 64, 60]", "expected three positive multiples of 32"),
        ('folds = "scrolls"', "folds: found 'scrolls', wanted 'scroll' or 'case'"),
        ("epochs = 10", "average.start_epoch: found 75, wanted at most the 10 epochs of the run"),
        (
            "steps_per_epoch = 1\n[average]\nsamples_per_epoch = 2",
            "samples_per_epoch: found 2, wanted at most steps_per",
        ),
        (
            "[average]\nlearning_rate = 0.1",
            "average.learning_rate: found 0.1, wanted at most optimiser.learning_rate, 0.001",
        ),
        (
            "[sentinel]\nleast_foreground = 0.96",
            "sentinel: found least_foreground 0.96 and most_foreground 0.95, wanted",
        ),
        ("exclude = 3", 'exclude: found 3, wanted a list of words, as ["1", "2"]'),
        ("exclude = [3]", "exclude: found [3], wanted a list of words"),
        ('[loss]\npreset = "best"', "loss.preset: found 'best', wanted 'original' or 'topology_first'"),
        ("[loss]\ndice_weight = -1", "loss.dice_weight: found -1.0, wanted a finite number, 0 or more"),
        ("epochs = ", "found no readable TOML"),
        ("epochs = 1\nepochs = 2", "found no readable TOML"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)) as caught:
        read(tmp_path, text)
    assert str(tmp_path / "run.toml") in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml: found no readable TOML"):
        settings.read(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("part", "entry", "value"),
    [
        (Settings, "epochs", 0),
        (Settings, "steps_per_epoch", 0),
        (Settings, "fold_count", 1),
        (Settings, "overlap", 1.0),
        (Settings, "overlap", -0.1),
        (Patches, "batch", 0),
        (Patches, "surface_share", 1.1),
        (Patches, "resident", 0),
        (Patches, "patches_per_volume", 0),
        (Patches, "cache_gb", 0.0),
        (Patches, "workers", 0),
        (Augment, "grey", 1.0),
        (Augment, "scale", 1.0),
        (Augment, "gamma", -0.1),
        (Augment, "noise", -0.1),
        (Augment, "blur", 1.1),
        (Augment, "low_resolution", -0.1),
        (Augment, "cut_outs", 2.0),
        (Optimiser, "learning_rate", 0.0),
        (Optimiser, "learning_rate", float("nan")),
        (Optimiser, "weight_decay", -1.0),
        (Optimiser, "warmup_steps", -1),
        (Optimiser, "momentum", 1.0),
        (Optimiser, "plateau_validations", 0),
        (Optimiser, "clip_norm", 0.0),
        (Optimiser, "accumulate", 0),
        (Average, "start_epoch", 0),
        (Average, "learning_rate", 0.0),
        (Average, "samples_per_epoch", 0),
        (Average, "decay", 1.0),
        (Average, "batchnorm_steps", 0),
        (Average, "gate_margin", -0.1),
        (Validation, "every_epochs", 0),
        (Validation, "cases", 0),
        (Validation, "patience", 0),
        (Sentinel, "validations", 0),
        (Sentinel, "least_variance", 0.25),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(part: type, entry: str, value: float) -> None:
    with pytest.raises(SettingsError, match=rf"{entry}: found {value}, wanted"):
        part(**{entry: value})


def test_settings_cannot_be_changed_later() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().epochs = 3  # type: ignore[misc]


def test_the_digest_is_that_of_the_entries() -> None:
    assert Settings().digest == Settings(epochs=100).digest
    others = [
        Settings(seed=1),
        Settings(patches=Patches(batch=3)),
        Settings(loss=LossWeights(entropy_target=0.4)),
        replace(Settings(), network=Architecture("FPN", "resnet18")),
    ]
    assert len({Settings().digest, *(other.digest for other in others)}) == 5


def test_the_digest_leaves_out_what_the_weights_do_not_depend_on() -> None:
    assert Settings(patches=Patches(workers=3, cache_gb=1.0)).digest == Settings().digest
