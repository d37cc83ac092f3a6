"""Dataclasses that check their values on construction, and become plain JSON values and back."""

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from charlstm.support.errors import InputError, did_you_mean

Kind = TypeVar("Kind", bound="Checked")


class Checked:
    """Checks types on construction, so that no later room meets a string where a count belongs."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for each in fields(self):  # pyright: ignore[reportArgumentType]
            object.__setattr__(self, each.name, _checked(each.name, getattr(self, each.name), hints[each.name]))
        self.check()

    def check(self) -> None:
        """The limits that a type does not express."""


def require(holds: bool, name: str, value: object, must: str) -> None:
    """Raises InputError where a field's value does not hold: what it is, and what it must be."""
    if not holds:
        raise InputError(f"{name} is {value!r}; it must be {must}")


def _checked(name: str, value: Any, hint: Any) -> Any:
    """The value as its type has it: a number may be a whole one, and a tuple a list."""
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        require(value in choices, name, value, "one of " + ", ".join(choices) + did_you_mean(str(value), choices))
    elif get_origin(hint) is tuple:
        require(isinstance(value, tuple | list), name, value, "a list")
        return tuple(_checked(name, each, get_args(hint)[0]) for each in value)
    elif hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        require(number and abs(value) <= sys.float_info.max, name, value, "a finite number")
        return float(value)
    elif hint is int:
        require(isinstance(value, int) and not isinstance(value, bool), name, value, "a whole number")
    else:
        require(isinstance(value, hint), name, value, f"of type {hint.__name__}")
    return value


def to_dict(config: Any) -> dict[str, Any]:
    """Nested dictionaries of plain JSON values; `from_dict` is the inverse."""
    return dataclasses.asdict(config)


def from_dict(values: object, kind: type[Kind], prefix: str = "") -> Kind:
    """A checked dataclass from nested dictionaries; fields that are left out take their defaults.

    Raises:
        InputError: a field does not exist, or has an impossible value.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{prefix.rstrip('.') or 'a config'} must be a JSON object with fields")
    hints = get_type_hints(kind)
    for name in values:
        if name not in hints:
            raise InputError(f"there is no field {prefix}{name}{did_you_mean(str(name), hints)}")
    try:
        return kind(**{name: _nested(value, hints[name], f"{prefix}{name}.") for name, value in values.items()})
    except TypeError as error:  # a field that has no default is missing
        raise InputError(f"{prefix.rstrip('.') or 'a config'} is not whole: {error}") from None


def _nested(value: Any, hint: Any, prefix: str) -> Any:
    if _is_group(hint):
        return from_dict(value, hint, prefix)
    if get_origin(hint) is tuple and _is_group(get_args(hint)[0]) and isinstance(value, list):
        return tuple(from_dict(each, get_args(hint)[0], prefix) for each in value)
    return value


def _is_group(hint: object) -> bool:
    return isinstance(hint, type) and issubclass(hint, Checked)


def flat(config: Any) -> dict[str, Any]:
    """Every field by its dotted name, as the command line calls it: ``{"seed": 0, "data.corpus": ...}``."""
    return {
        name: value
        for group, values in to_dict(config).items()
        for name, value in (
            ((f"{group}.{key}", inner) for key, inner in values.items())
            if isinstance(values, dict)
            else ((group, values),)
        )
    }
