"""Plain connections between process 0 and each of the others, which train together, so that none waits for a lost one.

JAX notices that a process is gone after half a minute and then aborts the others with a stack trace, or at once where
that was process 0. Here a connection that ends without a goodbye means that its process is lost, and all end with one
line about it. A process that cannot go on tells the others why.
"""

import atexit
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from charlstm.support.errors import InputError
from charlstm.support.files import one_line
from charlstm.support.hosts import PATIENCE, Place
from charlstm.support.links import LOST, free_port, listen, read_line, relay, send, watch

_HEARTBEAT = 50
"""Seconds within which JAX ends the others where a process stands still, and after half of which it may."""
_SHOW_CURSOR = b"\x1b[?25h\n"


class Star:
    """The connections of this process."""

    def __init__(self, place: Place) -> None:
        self.place, self._links = place, dict[int, socket.socket]()
        self._names = {place.number: socket.gethostname()}
        self._lock, self._over, self._threads = threading.Lock(), False, list[threading.Thread]()
        self.agreed = False
        """Whether all processes know why they end, so that none has to be told."""

    def join(self, words: list[str], versions: dict[str, str], tell: Callable[[str], None]) -> None:
        """Meets the other processes, and has JAX join them.

        Args:
            words: of the command line, which must be those of all.
            versions: of packages, likewise.
            tell: is told what is waited for.

        Raises:
            InputError: a process does not come, or was started for something else.
        """
        hello = {"count": self.place.count, "words": words, "versions": versions}
        port = self._reach(hello, tell) if self.place.number else self._receive(hello, tell)
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ["no_grpc_proxy"] = "127.0.0.1"  # noqa: SIM112 - gRPC reads this one
        import jax

        jax.config.update("jax_enable_preemption_service", False)  # takes SIGTERM for itself
        jax.config.update("jax_check_proxy_envs", False)  # warns of proxies, which the line above leaves out
        jax.distributed.initialize(
            f"127.0.0.1:{relay(self.place.host, port) if self.place.number else port}",
            self.place.count,
            self.place.number,
            self.place.devices,
            cluster_detection_method="deactivate",
            initialization_timeout=PATIENCE,
            heartbeat_timeout_seconds=_HEARTBEAT,
            coordinator_bind_address=f"{'[::]' if socket.has_dualstack_ipv6() else '0.0.0.0'}:{port}",
        )

    def name_of(self, number: int) -> str:
        """A process, for people."""
        return f"process {number}{f' ({one_line(self._names[number], 80)})' if number in self._names else ''}"

    def leave(self) -> None:
        """Parts from the others, which all do where they are at their end."""
        import jax

        with self._lock:
            self._over = True
            send(self._links, {"bye": True})
        jax.distributed.shutdown()

    def end(self, line: str, code: int) -> None:
        """Ends the other processes, which print why, with the exit code that this one is about to have."""
        if self.agreed:
            self.leave()
            return
        with self._lock:
            self._over = True
            send(self._links, {"end": code, "line": f"{self.name_of(self.place.number)}: {line}"})
        for thread in self._threads:
            thread.join(5)  # process 0 says why before a launcher kills it because this one ended
        atexit.register(os._exit, code)  # before JAX's own end, which waits for the others

    def _receive(self, hello: dict[str, Any], tell: Callable[[str], None]) -> int:
        """Process 0 waits for the others; gives a free port for JAX."""
        place, until, told = self.place, time.monotonic() + PATIENCE, False
        try:
            server = listen(place.port)
        except OSError as error:
            why = os.strerror(error.errno or 0)  # without the address that Python adds
            what = f"process 0 cannot listen at {place.address}: {why}"
            how = "start no other process 0 on this host, or give all processes another --coordinator-address"
            raise InputError(f"{what}; {how}") from None
        with server:
            server.settimeout(5)
            while missing := [each for each in range(1, place.count) if each not in self._links]:
                names = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
                if time.monotonic() > until:
                    raise InputError(f"process {names} of {place.count} did not come to {place.address}; start all")
                try:
                    link, _ = server.accept()
                except TimeoutError:
                    if not told:
                        tell(f"waiting at {place.address} for process {names} of {place.count}")
                    told = True
                    continue
                self._welcome(link, hello)
        port = free_port()
        with self._lock:
            send(self._links, {"port": port, "names": self._names})
        return port

    def _welcome(self, link: socket.socket, hello: dict[str, Any]) -> None:
        link.settimeout(10)
        try:
            theirs = json.loads(read_line(link))
            number = int(theirs["number"])
            host = str(theirs["host"])
        except (OSError, ValueError, LookupError, TypeError):  # a stranger
            link.close()
            return
        link.settimeout(None)
        if wrong := _difference(hello, theirs, number, number in self._links):
            line = f"process {number} ({one_line(host, 80)}) {wrong}"
            send({number: link}, {"end": 2, "line": line})
            link.close()
            raise InputError(line)
        self._links[number], self._names[number] = link, host
        watch(link)
        self._start_to_hear(number, link)

    def _reach(self, hello: dict[str, Any], tell: Callable[[str], None]) -> int:
        """The others come to process 0; gives the port of its JAX."""
        place, begun, told = self.place, time.monotonic(), False
        while True:
            try:
                link = socket.create_connection((place.host, place.port), 10)
                break
            except OSError as error:
                waited = time.monotonic() - begun
                if waited > PATIENCE:
                    what = f"process 0 does not answer at {place.address}: {error.strerror or error}"
                    raise InputError(f"{what}; start it there, and let its port be reached from here") from None
                if waited > 5 and not told:
                    tell(f"waiting for process 0 at {place.address}: {error.strerror or error}")
                    told = True
                time.sleep(0.3)
        watch(link)
        self._links[0] = link
        send(self._links, hello | {"number": place.number, "host": socket.gethostname()})
        link.settimeout(PATIENCE + 10)
        try:
            answer = json.loads(read_line(link))
        except (OSError, ValueError):
            what = f"what answers at {place.address} is no process 0 of this run, or is gone"
            raise InputError(f"{what}; give all processes the same --coordinator-address") from None
        link.settimeout(None)
        if "end" in answer:
            self.agreed = True
            raise InputError(str(answer.get("line")))
        self._names |= {int(number): name for number, name in answer["names"].items()}
        self._start_to_hear(0, link)
        return int(answer["port"])

    def _start_to_hear(self, number: int, link: socket.socket) -> None:
        self._threads.append(threading.Thread(target=self._hear, args=(number, link), daemon=True))
        self._threads[-1].start()

    def _hear(self, number: int, link: socket.socket) -> None:
        """Ends this process, and so all, when another one says so or is lost. Runs in a thread of its own."""
        lost = f"{self.name_of(number)} was lost; the same command, in all processes, continues the run"
        line, code = lost, 1
        with suppress(OSError, ValueError):
            while message := json.loads(read_line(link)):
                if "bye" in message:
                    return
                if "end" in message:
                    line, code = str(message["line"]), int(message["end"])
                    break
        with self._lock:
            if self._over:
                return
            self._over = True
            others = {each: other for each, other in self._links.items() if each != number}
            send(others, {"end": code, "line": line})
            if self.place.speaks or (number == 0 and line is lost):  # then nobody else says it
                with suppress(OSError):  # the stream may be in use by the thread that this ends
                    os.write(2, _SHOW_CURSOR if os.isatty(2) else b"")
                    os.write(2, f"charlstm: {one_line(line, 4000)}\n".encode(errors="backslashreplace"))
            os._exit(code)


_star: Star | None = None
_speaks = True


def join(place: Place, words: list[str], versions: dict[str, str], tell: Callable[[str], None]) -> None:
    """Joins the processes of a place; see `Star.join`. Whoever joins must `leave` or `end`, also if this raises."""
    global _star, _speaks
    _star, _speaks = Star(place), place.speaks
    _star.join(words, versions, tell)


def leave() -> None:
    """Parts from the other processes, if there are any that `join` met and that were not left."""
    global _star
    if _star is not None:
        star, _star = _star, None
        star.leave()


def end(line: str, code: int) -> None:
    """Ends the other processes, if there are any, with this line and exit code, unless they know of it."""
    global _star
    if _star is not None:
        star, _star = _star, None
        star.end(line, code)


def end_is_agreed() -> None:
    """All processes are about to end for a reason that all know."""
    if _star is not None:
        _star.agreed = True


def speaks() -> bool:
    """Whether this process writes to its standard error."""
    return _speaks


def name_of(number: int) -> str:
    """A process, for people."""
    return f"process {number}" if _star is None else _star.name_of(number)


def wait_for_loss() -> None:
    """Waits for word of the process whose loss made a collective fail, which ends this one."""
    if _star is not None:
        time.sleep(LOST + 5)


def _difference(ours: dict[str, Any], theirs: dict[str, Any], number: int, known: bool) -> str:
    """What keeps a process from joining process 0; or ""."""
    if theirs.get("count") != ours["count"]:
        return (
            f"is one of {theirs.get('count')}, and process 0 one of {ours['count']}; give all the same --num-processes"
        )
    if known or not 0 < number < ours["count"]:
        return f"cannot join: there is one already; give each process a --process-id of its own below {ours['count']}"
    for package, version in ours["versions"].items():
        if (other := theirs["versions"].get(package)) != version:
            return f"has {package} {other}, and process 0 has {version}; install the same in all"
    mine, other = (set(each["words"]) for each in (ours, theirs))
    if mine != other:
        here, there = (" ".join(sorted(each)) or "nothing" for each in (mine - other, other - mine))
        what = f"was started with {one_line(there, 200)}, and process 0 with {one_line(here, 200)}"
        return f"{what}; give all the same, or --num-processes 1 to train each by itself"
    return ""
