"""results.json comes back as it was written, and nothing else than one clear line comes of a wrong one."""

import copy
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from folders import make_comparison
from hypothesis import given
from hypothesis import strategies as st

from charlstm.compare import results
from charlstm.support.errors import InputError


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return make_comparison(tmp_path_factory.mktemp("comparison"), depths=(1, 2), seeds=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("changed")


def read(folder: Path, values: dict[str, Any]) -> results.Results:
    (folder / "results.json").write_text(json.dumps(values))
    return results.read(folder)


def test_what_is_known_comes_back_and_the_rest_is_passed_over(found: dict[str, Any], folder: Path) -> None:
    assert json.loads(json.dumps(asdict(read(folder, found | {"later": [1]})))) == found


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where each value inside lies."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.data(), anything)
def test_any_other_value_anywhere_is_taken_or_refused_in_one_line(
    found: dict[str, Any], folder: Path, data: st.DataObject, other: Any
) -> None:
    changed: Any = copy.deepcopy(found)
    *outer, last = data.draw(st.sampled_from([place for place in places(found) if place]))
    inner = changed
    for key in outer:
        inner = inner[key]
    inner[last] = other
    try:
        taken = read(folder, changed)
    except InputError as error:
        assert "\n" not in str(error)
        assert "is malformed" in str(error)
    else:
        json.dumps(asdict(taken), allow_nan=False)


@pytest.mark.parametrize("field", ["name", "corpus", "symbols", "vocabulary", "confidence", "models"])
def test_what_must_be_there_is_named(found: dict[str, Any], folder: Path, field: str) -> None:
    with pytest.raises(InputError, match=f"{field} is missing"):
        read(folder, {name: value for name, value in found.items() if name != field})


def test_text_is_one_printable_line(found: dict[str, Any], folder: Path) -> None:
    assert read(folder, found | {"corpus": "a\nb\0c\u202ed\ud800"}).corpus == "a b\ufffdc\ufffdd\ufffd"


def test_no_results_yet_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no results.json yet"):
        results.read(tmp_path)
