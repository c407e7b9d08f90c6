"""What a person decides about a training: one TOML file, frozen and checked before any work starts."""

from surface_train.settings.entries import TrainingSettingsError
from surface_train.settings.optimisation import Average, Optimiser
from surface_train.settings.sampling import Augment, Patches
from surface_train.settings.settings_file import TrainingSettings, read
from surface_train.settings.validating import Sentinel, Validation

__all__ = [
    "Augment",
    "Average",
    "Optimiser",
    "Patches",
    "Sentinel",
    "TrainingSettings",
    "TrainingSettingsError",
    "Validation",
    "read",
]
