"""What the tests of bad input share: nearly right bytes, JSON and text, and the laws of a command that got them.

Each test runs in CI with a few examples; `pytest tests/test_fuzz_*.py --hypothesis-profile=fuzz` runs each with 10,000.
"""

import copy
import io
import json
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, NamedTuple, Self

import pytest
from hypothesis import strategies as st

from charlstm import cli

SECONDS = 30
"""That one example may take; what takes longer hangs."""
MEGABYTES = 512
"""By which one example may raise the highest memory that the process ever had."""

BOMS = [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\0\0", b"\0\0\xfe\xff"]
ODD_TEXT = [
    "\0",
    "\x1b[31m",
    "\x85",
    "\u2028",
    "\u202e",
    "e\u0301",
    "\u05d0\u0644",
    "\ud83d",
    "\udc80",
    "\U0001f469",
    "\r\n",
]
any_text = st.text(st.characters(exclude_categories=[]), max_size=20) | st.lists(
    st.sampled_from(ODD_TEXT) | st.text(max_size=3), max_size=6
).map("".join)


# Files of text.

_PIECES = st.one_of(
    st.text(max_size=10).map(str.encode),
    any_text.map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=8),
    st.sampled_from([b"\r\n", b"\r", b"\n", b"\n\r", b"\0", b"\xe2\x80\xa8", b"\x1b[2J", *BOMS]),
    # Overlong, surrogates, beyond Unicode, cut short, a stray continuation.
    st.sampled_from(
        [b"\xc0\x80", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe4\xb8", b"\xf0\x9f\x91", b"\xbf"]
    ),
)
any_file: st.SearchStrategy[bytes] = st.one_of(
    st.lists(_PIECES, max_size=12).map(b"".join),
    st.text(max_size=60).map(str.encode),
    st.builds(lambda piece, times: piece * times, _PIECES, st.integers(0, 4000)),
    st.builds(
        lambda text, how: text.encode(how, "surrogatepass"), any_text, st.sampled_from(["utf-16", "utf-32", "utf-7"])
    ),
    st.binary(max_size=200),
)
"""Bytes that are text, nearly text, or none."""


# Files of JSON.

_RAW = [
    *(
        "1e400",
        "-1e400",
        "-0",
        "-0.0",
        "1E5",
        "9" * 19,
        "9" * 400,
        "9" * 5000,
        "NaN",
        "Infinity",
        "1.",
        "01",
        "0x1",
        "",
    ),
    *("[" * 100_000, "[" * 900 + "]" * 900, '{"a":' * 300 + "1" + "}" * 300, "[" * 20 + "]" * 20, '{"a": 1, "a": 2}'),
    *('"\\ud800"', '"\\u0000"', '"a\nb"', '"\\x"', '"' + "x" * 100_000 + '"', "[1, 2", "'a'", "null null", "tru"),
]
"""What `json.dumps` does not write. A place is held by a text of its own, and filled in afterwards."""
_PLACES = [f"<<raw {number}>>" for number in range(len(_RAW))]
_numbers = st.integers() | st.floats() | st.sampled_from([2**31, 2**63, 10**30, 10**400, 5e-324, 1.7e308, -1, 0, True])
_scalars = st.none() | st.booleans() | _numbers | any_text | st.sampled_from(_PLACES)
any_json: st.SearchStrategy[Any] = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3), max_leaves=6
)


@st.composite
def json_files(draw: st.DrawFn, valid: Any, *, lines: bool = False) -> bytes:
    """A file with any JSON in it, or with the valid value changed in some places, or with its bytes changed.

    Args:
        draw: of Hypothesis.
        valid: what a good file holds; where it has lines, a list with the value of each.
        lines: whether each is a line of its own.
    """
    value = draw(any_json) if draw(st.integers(0, 9)) == 0 else copy.deepcopy(valid)
    for _ in range(draw(st.integers(0, 3))):
        value = _changed(draw, value)
    ascii_only = draw(st.booleans())

    def dumped(each: Any) -> str:
        text = json.dumps(each, ensure_ascii=ascii_only)
        for place, raw in zip(_PLACES, _RAW, strict=True):
            text = text.replace(f'"{place}"', raw) if place in text else text
        return text

    text = "".join(dumped(each) + "\n" for each in value) if lines and isinstance(value, list) else dumped(value)
    return _damaged(draw, text.encode("utf-8", "surrogatepass"))


def _changed(draw: st.DrawFn, value: Any) -> Any:
    """The value with one of those inside of it replaced, dropped, renamed or doubled."""
    if not isinstance(value, dict | list) or not value:
        return draw(any_json)
    inner, key = value, _key(draw, value)
    for _ in range(draw(st.integers(0, 5))):
        if not (isinstance(inner[key], dict | list) and inner[key]):
            break
        inner = inner[key]
        key = _key(draw, inner)
    how = draw(st.sampled_from(["replace", "replace", "number", "drop", "rename", "double"]))
    if how in ("replace", "number"):
        inner[key] = draw(any_json if how == "replace" else _numbers)
    elif how == "drop":
        del inner[key]
    elif isinstance(inner, dict):
        inner[draw(any_text)] = inner[key] if how == "double" else inner.pop(key)
    else:
        inner.insert(draw(st.integers(0, len(inner))), copy.deepcopy(inner[key]))
    return value


def _key(draw: st.DrawFn, value: dict[str, Any] | list[Any]) -> Any:
    return draw(st.sampled_from(list(value) if isinstance(value, dict) else range(len(value))))


def _damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Mostly as it is; or cut short, with other bytes somewhere, with a byte order mark, or in another encoding."""
    how = draw(st.sampled_from(["", "", "", "", "cut", "bytes", "mark", "other"]))
    at = draw(st.integers(0, len(content))) if how in ("cut", "bytes") else 0
    if how == "cut":
        return content[:at]
    if how == "bytes":
        return content[:at] + draw(st.binary(max_size=4)) + content[at + draw(st.integers(0, 3)) :]
    if how == "mark":
        return draw(st.sampled_from(BOMS)) + content
    if how == "other":
        return content.decode("utf-8", "replace").encode(draw(st.sampled_from(["utf-16", "utf-32"])))
    return content


# Commands.


class Told(NamedTuple):
    """What a command ended with and wrote."""

    code: int
    out: str
    err: str


def run(*words: str) -> Told:
    """Carries out a command line in this process, and holds it to what is promised of every one of them."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with bounded(), redirect_stdout(out), redirect_stderr(err):
        try:
            code = cli.run(words)
        except SystemExit as stop:  # after --help
            assert not stop.code
            code = 0
    told = Told(code, *(each.buffer.getvalue().decode() for each in (out, err)))  # pyright: ignore[reportAttributeAccessIssue]
    assert code in (0, 1, 2)
    if code == 2:
        assert told.out == ""
        *progress, line = told.err.removesuffix("\n").split("\n")
        assert line.startswith("charlstm: ") and line.isprintable() and len(line) < 5000
        assert not progress or words[0] == "compare"  # which says where it is, and may meet a wrong file on its way
        assert "Traceback" not in progress
    return told


@contextmanager
def bounded() -> Iterator[None]:
    """Fails where the block takes longer than SECONDS, or MEGABYTES more than the process ever had."""

    def ring(*_: object) -> None:
        pytest.fail(f"it took longer than {SECONDS} s")  # no subclass of Exception, which the program might catch

    before, handler = _most_memory(), signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    assert _most_memory() - before < MEGABYTES * 2**20


def _most_memory() -> int:
    """Bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class OneCheckpoint:
    """In place of the checkpoints on disk: one, of step 30."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def steps(self) -> list[int]:
        return [30]
