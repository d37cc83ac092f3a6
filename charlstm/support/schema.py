"""One reader for every typed dataclass: configs, grids and the results of a comparison, from JSON values and back.

The dataclasses are pydantic's, so a field's bounds hold on construction too. Scalars are strict: no text becomes a
number, and no bool a whole one. A whole number is a float where one belongs, and a list a tuple.
"""

import dataclasses
import re
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from charlstm.support.errors import InputError, did_you_mean
from charlstm.support.files import one_line

Kind = TypeVar("Kind")

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
"""The `config` of every dataclass that is read by `from_dict`."""
Whole = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True)]

_MUST = {
    "greater_than_equal": "be at least {ge:.15g}",
    "greater_than": "be above {gt:.15g}",
    "less_than_equal": "be at most {le:.15g}",
    "less_than": "be below {lt:.15g}",
    "int_type": "be a whole number",
    "float_type": "be a finite number",
    "finite_number": "be a finite number",
    "bool_type": "be True or False",
    "string_type": "be text",
    "tuple_type": "be a list",
    "dict_type": "be an object",
    "dataclass_type": "be an object with fields",
    "too_short": "not be empty",
    "too_long": "have at most {max_length} values",
}
"""What a value must be or have, by pydantic's name of the error."""


def to_dict(config: Any) -> dict[str, Any]:
    """Nested dictionaries of plain JSON values; `from_dict` is the inverse."""
    return dataclasses.asdict(config)


def from_dict(values: object, kind: type[Kind], *, unknown: Literal["forbid", "ignore"] = "forbid") -> Kind:
    """A dataclass from plain JSON values; raises InputError for a field that is unknown, missing or impossible.

    `kind` has the config `STRICT`; a field that does not exist is passed over where `unknown` says so.
    """
    try:
        return _reader(kind).validate_python(values, extra=unknown)
    except ValidationError as error:
        raise InputError(sentence(error, kind)) from None


@lru_cache
def _reader(kind: type[Kind]) -> TypeAdapter[Kind]:
    return TypeAdapter(kind)


def sentence(error: ValidationError, kind: type | None = None, prefix: str = "") -> str:
    """The first problem in one line, such as ``model.hidden_size is 0; it must be at least 1``.

    A hint at a field that may be meant is taken from the dataclass `kind`; `prefix` stands before the fields' names.
    """
    first = error.errors(include_url=False)[0]
    what, where, context, value = first["type"], first["loc"], first.get("ctx", {}), first["input"]
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in where)
    path = (prefix + path.lstrip(".")).rstrip(".")
    if what.startswith("missing"):
        line = f"{path} is missing"
    elif what == "unexpected_keyword_argument":
        line = f"there is no field {path}{did_you_mean(str(where[-1]), _known(kind, where[:-1]))}"
    elif what == "value_error":  # a dataclass checked its fields together, and its message begins with their names
        line = f"{path}.{context['error']}".lstrip(".")
    elif what == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"])
        must = f"it must be one of {', '.join(choices)}{did_you_mean(str(value), choices)}"
        line = f"{path} is {one_line(repr(value), 60)}; {must}"
    else:
        must = "it must " + _MUST[what].format(**context) if what in _MUST else first["msg"]
        line = f"{path} is {one_line(repr(value), 60)}; {must}" if path else must
    return one_line(line)


def _known(kind: Any, path: tuple[int | str, ...]) -> list[str]:
    """The names of the fields of the dataclass that lies at a path inside of `kind`."""
    for step in path:
        kind = get_args(kind)[0] if isinstance(step, int) else kind and kind.__pydantic_fields__[step].annotation
    return [each.name for each in dataclasses.fields(kind)] if kind else []


def flat(config: Any) -> dict[str, Any]:
    """Every field by its dotted name, as the command line calls it: ``{"seed": 0, "data.corpus": ...}``."""
    found = dict[str, Any]()
    for group, values in to_dict(config).items():
        found |= (
            {f"{group}.{key}": inner for key, inner in values.items()} if isinstance(values, dict) else {group: values}
        )
    return found
