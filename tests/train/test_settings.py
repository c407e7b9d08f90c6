import ast
import inspect
import itertools
import os
import re
import subprocess
import sys
from dataclasses import Field, FrozenInstanceError, asdict, dataclass, fields, replace
from pathlib import Path

import pytest

from surface_kernel.inference.settings import from_toml
from surface_kernel.networks.architecture import Architecture
from surface_kernel.postprocess.mask_settings import COMPETITION_STEPS, MaskSettings
from surface_kernel.postprocess.steps import DropSmallComponents, Threshold
from surface_train import settings
from surface_train.loss_weights import LossWeights
from surface_train.settings import (
    Augment,
    Average,
    Optimiser,
    Patches,
    Sentinel,
    TrainingSettings,
    TrainingSettingsError,
    Validation,
)

SHIPPED = sorted((Path(__file__).parents[2] / "train" / "settings").glob("*.toml"))


def read(folder: Path, text: str) -> TrainingSettings:
    (folder / "run.toml").write_text(text)
    return settings.read(folder / "run.toml")


def documented(part: type) -> dict[str, str]:
    """The line of documentation under each field of a class."""
    body = ast.parse(inspect.getsource(part)).body[0].body  # type: ignore[attr-defined]
    return {
        field.target.id: line.value.value
        for field, line in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(line, ast.Expr)
    }


@pytest.mark.parametrize(
    "part", [Augment, Average, LossWeights, Optimiser, Patches, Sentinel, TrainingSettings, Validation]
)
def test_every_setting_is_documented_by_a_line_under_it(part: type) -> None:
    assert list(documented(part)) == [field.name for field in fields(part)]


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert read(tmp_path, "") == TrainingSettings()


def test_there_are_settings_to_ship() -> None:
    assert {"unet_resnet18", "demo"} <= {path.stem for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_file_reads(path: Path) -> None:
    assert settings.read(path).epochs >= 1


def test_the_file_for_a_gpu_lists_every_entry_with_its_default() -> None:
    path = next(path for path in SHIPPED if path.stem == "unet_resnet18")
    assert replace(settings.read(path), mask=MaskSettings()) == TrainingSettings()
    written = set(re.findall(r"^(\w+) =", path.read_text(), re.MULTILINE))
    entries = asdict(TrainingSettings())
    del entries["mask"]  # whose entries stand at the file's top
    mask = {"clear_unscanned", "step", "rounds", "least_voxels", "connectivity"}
    tables = {name: value for name, value in entries.items() if isinstance(value, dict)}
    assert written == (set(entries) - set(tables)) | {name for table in tables.values() for name in table} | mask


@pytest.mark.parametrize("name", ["unet_resnet18", "resenc"])
def test_the_files_for_real_data_validate_what_a_bundle_submits(name: str) -> None:
    path = next(path for path in SHIPPED if path.stem == name)
    bundled = from_toml(SHIPPED[0].parents[2] / "package" / "settings" / "competition.toml", of_purpose=True)
    assert settings.read(path).mask == bundled.mask == MaskSettings(steps=COMPETITION_STEPS)


def test_a_preset_stands_under_the_numbers_of_the_file(tmp_path: Path) -> None:
    found = read(tmp_path, '[loss]\npreset = "topology_first"\ncldice_weight = 0.15').loss
    assert (found.preset, found.cldice_weight, found.boundary_weight) == ("topology_first", 0.15, 0.2)
    assert found.variance_kind == "clamped"
    assert read(tmp_path, "[loss]\nfocal_gamma = 1").loss == replace(LossWeights(), focal_gamma=1.0)


def test_lists_of_words_are_kept_in_order(tmp_path: Path) -> None:
    assert read(tmp_path, 'exclude = ["12", "7"]').exclude == ("12", "7")


def test_averaging_lasts_from_its_first_epoch_to_the_runs_last() -> None:
    assert TrainingSettings(epochs=10, average=Average(start_epoch=8)).average_epochs == 3
    assert TrainingSettings(epochs=10, average=Average(start_epoch=10)).average_epochs == 1


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
    assert found.patches == Patches(shape_zyx=(64, 96, 128))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "epoch: unknown entry, expected one of epochs, steps_per_epoch"),
        ("postproces = 3", "sentinel, postprocess, clear_unscanned"),
        ("[mask]\nclear_unscanned = true", "mask: unknown entry, expected one of epochs"),
        ("threshold = 0.5", "threshold: unknown entry, expected one of epochs"),
        ("clear_unscanned = 3", "clear_unscanned: expected true or false, got 3"),
        ('[[postprocess]]\nstep = "melt"', "postprocess, step 1: step: expected one of threshold, hysteresis"),
        ("[loss]\ndice = 1", "loss.dice: unknown entry, expected one of preset, dice_weight"),
        ("epochs = 3.5", "epochs: expected a whole number, got 3.5"),
        ("epochs = true", "epochs: expected a whole number, got true"),
        ('overlap = "half"', "overlap: expected a number, got 'half'"),
        ("[augment]\nflips = 1", "augment.flips: expected true or false, got 1"),
        ("[network]\nencoder = 18", "network.encoder: expected a string, got 18"),
        ('[network]\nencoder = "resnet19"', "network.encoder: "),
        ('[network]\nencoder = "resnet19"', "'resnet19'"),
        ('[network]\nencoder = "resnet19"', "resnet18"),
        ("[intensity]\nlimit = 0", "intensity"),
        ("patches = 3", "patches: expected a table, got 3"),
        ("[patches]\nshape_zyx = [64, 64]", "patches.shape_zyx: expected 3 whole numbers, got [64, 64]"),
        ("[patches]\nshape_zyx = [64, 64, 64.0]", "patches.shape_zyx: expected 3 whole numbers, got [64, 64, 64.0]"),
        ("[patches]\nshape_zyx = [64, 64, 60]", "patches.shape_zyx: "),
        ("[patches]\nshape_zyx = [64, 64, 60]", "multiples of 32"),
        ('[network]\nnorm = "instance"\n[patches]\nshape_zyx = [32, 32, 32]', "patches.shape_zyx: "),
        ('folds = "scrolls"', "folds: expected 'scroll' or 'case', got 'scrolls'"),
        ("epochs = 10", "average.start_epoch: expected an epoch of the run, at most epochs = 10, got 75"),
        (
            "steps_per_epoch = 1\n[average]\nsamples_per_epoch = 2",
            "average.samples_per_epoch: expected at most steps_per_epoch = 1, got 2",
        ),
        (
            "[average]\nlearning_rate = 0.1",
            "average.learning_rate: expected at most optimiser.learning_rate = 0.001, got 0.1",
        ),
        (
            "[sentinel]\nleast_foreground = 0.96",
            "sentinel.least_foreground: expected a share from 0 to below most_foreground, 0.95, which is at most 1, "
            "got 0.96",
        ),
        ("exclude = 3", 'exclude: expected a list of strings, as ["1", "2"], got 3'),
        ("exclude = [3]", 'exclude: expected a list of strings, as ["1", "2"], got [3]'),
        ('[loss]\npreset = "best"', "loss.preset: expected 'original' or 'topology_first'"),
        ("[loss]\ndice_weight = -1", "loss.dice_weight: expected a finite number >= 0, got -1"),
        ("[loss]\nfocal_gamma = -1", "loss.focal_gamma: expected a finite number >= 0, got -1"),
        ("epochs = ", "expected a settings file in TOML, got Invalid value"),
        ("epochs = 1\nepochs = 2", "expected a settings file in TOML, got Cannot overwrite a value"),
    ],
)
def test_what_cannot_be_used_is_refused_by_file_and_entry(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TrainingSettingsError, match=re.escape(message)) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'run.toml'}: ")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingSettingsError, match=r"none\.toml: no such file; expected a settings file, as those in train/settings$"
    ):
        settings.read(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("part", "entry", "value"),
    [
        (TrainingSettings, "epochs", 0),
        (TrainingSettings, "steps_per_epoch", 0),
        (TrainingSettings, "fold_count", 1),
        (TrainingSettings, "overlap", 1.0),
        (TrainingSettings, "overlap", -0.1),
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
        (Optimiser, "most_skipped_steps", -1),
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
    with pytest.raises(TrainingSettingsError, match=rf"{entry}: expected .*, got {value:g}$"):
        part(**{entry: value})


@pytest.mark.parametrize("field", fields(Augment), ids=lambda field: field.name)
def test_without_augmentation_every_variation_is_off_whatever_its_default(field: Field) -> None:
    value = getattr(Augment.none(), field.name)
    assert (value, type(value)) == (0, type(field.default))
    assert field.default  # all variations are on by default: the next may be, too


def test_without_augmentation_the_next_variation_is_off_too() -> None:
    @dataclass(frozen=True, kw_only=True)
    class More(Augment):
        twists: float = 0.4
        swirls: bool = True

    found = More.none()
    assert (found.twists, found.swirls, found.noise) == (0, False, 0)


def test_settings_cannot_be_changed_later() -> None:
    with pytest.raises(FrozenInstanceError):
        TrainingSettings().epochs = 3  # type: ignore[misc]


def test_the_digest_is_that_of_the_entries() -> None:
    assert TrainingSettings().digest == TrainingSettings(epochs=100).digest
    others = [
        TrainingSettings(seed=1),
        TrainingSettings(patches=Patches(batch=3)),
        TrainingSettings(loss=LossWeights(entropy_target=0.4)),
        replace(TrainingSettings(), network=Architecture("FPN", "resnet18")),
    ]
    assert len({TrainingSettings().digest, *(other.digest for other in others)}) == 5


EVERY_TABLE = """
epochs = 7
folds = "case"
exclude = ["3", "1"]
labels_dir = "mended"
label_2 = "surface"
[network]
decoder = "FPN"
norm = "instance"
[patches]
shape_zyx = [64, 96, 128]
workers = 9
[augment]
gamma = 0
turns = false
[loss]
preset = "topology_first"
cldice_weight = 0.15
[optimiser]
kind = "sgd"
learning_rate = 0.01
[average]
kind = "ema"
start_epoch = 3
[validation]
patience = 3
[sentinel]
validations = 2
"""


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        ("", "a4c958f66b9f7881f3d8e646712b9a49c92ac874693f5758335fd7b27bad1830"),
        (EVERY_TABLE, "464a8add0542927339b07416d78bcf3c81f410142225618c72527ddde84cd09d"),
        ('[loss]\npreset = "original"', "8c8f01326d94d3ef63f84018611d5948a4be1f49c9b3765a263d10e06cfe494b"),
        ('[loss]\npreset = "topology_first"', "0111575dee4fdcae80ad566789e31c93058c4e9fea3c2a872f494bb723805465"),
        ('[loss]\npreset = "calibrated"', "037391344e8090cd16de28106c34b03d942fe18801718e68292d9bb7de85a471"),
    ],
    ids=["defaults", "every table", "original", "topology_first", "calibrated"],
)
def test_a_file_has_the_digest_that_runs_before_saved(tmp_path: Path, text: str, digest: str) -> None:
    """Computed at commit c58b484. A run resumes only with the digest that it began with."""
    assert read(tmp_path, text).digest == digest


def test_masks_are_made_as_the_kernel_makes_them_where_nothing_is_said(tmp_path: Path) -> None:
    assert TrainingSettings().mask == MaskSettings()
    text = '[[postprocess]]\nstep = "drop_small_components"\nleast_voxels = 1000\nconnectivity = {}'
    usual = read(tmp_path, '[[postprocess]]\nstep = "threshold"\n' + text.format(26))
    assert usual == TrainingSettings()
    other = read(tmp_path, "clear_unscanned = false\n" + '[[postprocess]]\nstep = "threshold"\n' + text.format(6))
    drop = DropSmallComponents(least_voxels=1000, connectivity=6)
    assert other.mask == MaskSettings(steps=(Threshold(), drop), clear_unscanned=False)
    assert other.digest != usual.digest == TrainingSettings().digest  # the best weights are chosen by masks


def test_the_digest_leaves_out_what_the_weights_do_not_depend_on() -> None:
    assert TrainingSettings(patches=Patches(workers=3, cache_gb=1.0)).digest == TrainingSettings().digest


def test_a_file_of_any_editor_is_read_whatever_the_locale(tmp_path: Path) -> None:
    """Windows' editors begin a file with a byte-order mark; a locale of ASCII knows no umlaut."""
    (tmp_path / "run.toml").write_text("seed = 9  # für später", encoding="utf-8-sig")
    code = "import pathlib; from surface_train import settings; print(settings.read(pathlib.Path('run.toml')).seed)"
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | ascii_only,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("9\n", "")
