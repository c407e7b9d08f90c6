"""Entries of a settings file: checked by type and name on the way into dataclasses, by range within them."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from surface_train.loss_weights import LossWeights

NO_ENTRY = "no entry"  # in the metadata of a field that a file does not write under its name
_Table = TypeVar("_Table")


class TrainingSettingsError(ValueError):
    """Settings that cannot be used; the message names the entry, what was expected and what was given."""


def require(sound: bool, entry: str, *, expected: str, got: object) -> None:
    """Raise TrainingSettingsError by the name of the entry unless `sound`."""
    if not sound:
        raise TrainingSettingsError(f"{entry}: expected {expected}, got {_shown(got)}")


def from_table(
    kind: type[_Table], entries: Mapping[str, Any], place: str = "", *, others: tuple[str, ...] = ()
) -> _Table:
    """Make a dataclass, and the dataclasses inside it, from a TOML table.

    Args:
        kind: the dataclass; its annotations are the types of the entries.
        entries: the table as tomllib returns it. Entries that it lacks keep their defaults.
        place: what names in messages begin with: "loss." inside the table `loss`.
        others: entries that the file may have too, which the caller reads.

    Raises:
        TrainingSettingsError: for an unknown entry, or a value of another type or out of range.
        ValueError: from the classes that are not this package's, naming the entry too.
    """
    hints = get_type_hints(kind)
    listed = dataclasses.fields(kind)  # type: ignore[arg-type]
    known = [field.name for field in listed if NO_ENTRY not in field.metadata]
    if unknown := sorted(set(entries) - set(known)):
        raise TrainingSettingsError(
            f"{place}{unknown[0]}: unknown entry, expected one of {', '.join([*known, *others])}"
        )
    values = {name: _value(hints[name], value, place + name) for name, value in entries.items()}
    if issubclass(kind, LossWeights):
        return kind.from_preset(values.pop("preset", "rebalanced"), values)
    try:
        return kind(**values)
    except ValueError as error:
        # The kernel's classes do not know the table of the file that they are read from.
        if place and not str(error).startswith(place.removesuffix(".")):
            raise TrainingSettingsError(f"{place}{error}") from error
        raise


def _value(kind: Any, given: Any, entry: str) -> Any:
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        require(isinstance(given, dict), entry, expected="a table", got=given)
        return from_table(kind, given, entry + ".")
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        require(given in choices, entry, expected=" or ".join(map(repr, choices)), got=given)
        return given
    if get_origin(kind) is tuple:
        return _tuple(get_args(kind), given, entry)
    if kind is float and type(given) is int:
        return float(given)
    expected = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}[kind]
    require(type(given) is kind, entry, expected=expected, got=given)
    return given


def _tuple(kinds: tuple[Any, ...], given: Any, entry: str) -> tuple[Any, ...]:
    items = given if isinstance(given, list) else []
    if kinds == (str, ...):
        sound = isinstance(given, list) and all(isinstance(item, str) for item in items)
        require(sound, entry, expected='a list of strings, as ["1", "2"]', got=given)
    else:
        sound = len(items) == len(kinds) and all(type(item) is int for item in items)
        require(sound, entry, expected=f"{len(kinds)} whole numbers", got=given)
    return tuple(items)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if isinstance(value, bool) else repr(value)
