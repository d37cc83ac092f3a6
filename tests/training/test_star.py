"""Processes meet only for the same thing, and hear how the others end. Here they are threads, and nothing is ended."""

import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from charlstm.support import links
from charlstm.support.errors import InputError
from charlstm.support.hosts import Place
from charlstm.training import star
from charlstm.training.star import Star

HELLO: dict[str, Any] = {"count": 2, "words": ["--seed=1"], "versions": {"jax": "1"}}


class EndedError(BaseException):
    """In place of the end of the process."""


@pytest.fixture(autouse=True)
def ends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The exit codes of processes that would have ended."""
    found: list[int] = []

    def end(code: int) -> None:
        found.append(code)
        raise EndedError

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    return found


@pytest.fixture(autouse=True)
def _close(ends: list[int]) -> Iterator[None]:
    yield
    for each in made:
        each._over = True
    for each in made:
        for link in each._links.values():
            with suppress(OSError):
                cut(link)
        for thread in each._threads:
            thread.join(20)
        for link in each._links.values():
            link.close()
    made.clear()


made: list[Star] = []


def make(place: Place) -> Star:
    made.append(Star(place))
    return made[-1]


def places(count: int = 2) -> list[Place]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return [Place(f"127.0.0.1:{port}", count, number) for number in range(count)]


def meet(*hellos: dict[str, Any]) -> tuple[list[Star], list[Any]]:
    """A star of each process, and what came of its greeting: the port for JAX, or why there is none."""
    stars = [make(each) for each in places(len(hellos))]
    found: list[Any] = [None] * len(hellos)

    def one(number: int) -> None:
        try:
            step: Callable[..., int] = stars[number]._reach if number else stars[number]._receive
            found[number] = step(hellos[number], lambda line: None)
        except InputError as error:
            found[number] = str(error)
            stars[number].agreed = False
            stars[number]._over = True

    threads = [threading.Thread(target=one, args=(number,)) for number in range(len(hellos))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return stars, found


def wait_for(holds: Callable[[], object]) -> None:
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


def cut(link: socket.socket) -> None:
    link.shutdown(socket.SHUT_RDWR)


def test_three_meet_and_know_each_other() -> None:
    hello = HELLO | {"count": 3}
    stars, ports = meet(hello, hello, hello)
    assert len(set(ports)) == 1 and isinstance(ports[0], int)
    assert all(each.name_of(2) == f"process 2 ({socket.gethostname()})" for each in stars)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"count": 3}, "is one of 3, and process 0 one of 2; give all the same --num-processes"),
        ({"versions": {"jax": "2"}}, "has jax 2, and process 0 has 1; install the same in all"),
        ({"words": ["--seed=2"]}, "was started with --seed=2, and process 0 with --seed=1; give all the same"),
    ],
)
def test_what_differs_is_told_in_both(change: dict[str, Any], says: str) -> None:
    _, found = meet(HELLO, HELLO | change)
    for each in found:
        assert re.fullmatch(r"process 1 \(.*\) .*", each) and says in each


def test_two_with_one_number_are_told_apart() -> None:
    assert "a --process-id of its own below 2" in star._difference(HELLO, HELLO, 1, known=True)
    assert "a --process-id of its own below 2" in star._difference(HELLO, HELLO, 2, known=False)


def test_a_stranger_is_passed_over() -> None:
    leader, follower = map(make, places())
    thread = threading.Thread(target=leader._receive, args=(HELLO, lambda line: None), daemon=True)
    thread.start()

    def greet(words: bytes) -> None:
        with socket.create_connection((leader.place.host, leader.place.port)) as link:
            link.sendall(words)
            with suppress(ConnectionResetError):
                assert link.recv(100) == b""

    wait_for(lambda: _answers(leader.place))
    for words in (b"GET / HTTP/1.0\r\n\r\n", b"[]\n", json.dumps({"number": "x", "host": 1}).encode() + b"\n"):
        greet(words)
    assert follower._reach(HELLO, lambda line: None) > 0
    thread.join(20)


def _answers(place: Place) -> bool:
    with socket.socket() as link:
        return link.connect_ex((place.host, place.port)) == 0


def test_who_does_not_come_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(star, "PATIENCE", -1)
    leader, follower = map(make, places())
    with pytest.raises(InputError, match="process 1 of 2 did not come to 127.0.0.1:"):
        leader._receive(HELLO, lambda line: None)
    with pytest.raises(InputError, match="process 0 does not answer at 127.0.0.1:.*refused; start it there"):
        follower._reach(HELLO, lambda line: None)


def test_who_waits_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address may be mistyped, or of a host that comes later."""
    place, told = places()[1], list[str]()
    monkeypatch.setattr(star, "PATIENCE", 10)
    monkeypatch.setattr(star.time, "monotonic", iter(range(0, 100, 6)).__next__)
    with pytest.raises(InputError, match="process 0 does not answer at"):
        make(place)._reach(HELLO, told.append)
    assert told == [f"waiting for process 0 at {place.address}: Connection refused"]


def test_a_port_that_is_taken_is_one_line() -> None:
    place = places()[0]
    with (
        socket.create_server(("", place.port), family=socket.AF_INET6, dualstack_ipv6=True),
        pytest.raises(
            InputError, match="cannot listen at .* in use; start no other .* give all processes another --coord"
        ),
    ):
        make(place)._receive(HELLO, lambda line: None)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_connection_that_ends_is_a_lost_process(
    lost: int, ends: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    stars, _ = meet(HELLO, HELLO)
    stars[lost]._over = True
    cut(next(iter(stars[lost]._links.values())))
    wait_for(lambda: ends)
    assert ends == [1]
    name = f"process {lost} ({socket.gethostname()})"
    assert (
        capfd.readouterr().err == f"charlstm: {name} was lost; the same command, in all processes, continues the run\n"
    )


@pytest.mark.parametrize("failed", [0, 1, 2])
def test_one_that_fails_ends_all_with_its_line_and_code(
    failed: int, ends: list[int], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(star.atexit, "register", lambda *_: None)
    hello = HELLO | {"count": 3}
    stars, _ = meet(hello, hello, hello)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "join", lambda *_: None)  # the others do not end
        stars[failed].end("the disk is full\x1b[2J", 7)
    wait_for(lambda: len(ends) == 2)
    assert ends == [7, 7]
    line = f"charlstm: process {failed} ({socket.gethostname()}): the disk is full\ufffd[2J\n"
    assert capfd.readouterr().err == 2 * line


def test_who_said_goodbye_is_not_lost(ends: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jax.distributed.shutdown", lambda: None)
    stars, _ = meet(HELLO, HELLO)
    for each in stars:
        each.leave()
    for each in stars:
        cut(next(iter(each._links.values())))
        each._threads[0].join(20)
    assert ends == []


def test_a_relay_keeps_connections_whose_other_end_is_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = links.relay("127.0.0.1", server.getsockname()[1])
        with socket.create_connection(("127.0.0.1", port)) as near:
            far, _ = server.accept()
            with far:
                near.sendall(b"there")
                assert far.recv(100) == b"there"
                far.sendall(b"and back")
                assert near.recv(100) == b"and back"
            near.settimeout(0.5)
            with pytest.raises(TimeoutError):
                near.recv(1)
