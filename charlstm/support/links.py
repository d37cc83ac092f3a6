"""Connections between processes, which hand each other lines of JSON and are told when one ends."""

import json
import socket
import threading
from contextlib import suppress
from typing import Any

LOST = 15
"""Seconds within which the end of a host without power is noticed."""
_LONGEST = 2**16
"""Bytes of a message at most."""


def listen(port: int) -> socket.socket:
    """Accepts connections at a port of this host, or at any if it is 0."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def free_port() -> int:
    """A port at which nothing listens."""
    with listen(0) as server:
        return server.getsockname()[1]


def watch(link: socket.socket) -> None:
    """Has the system notice the end of a host that says nothing."""
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", LOST // 5 - 1)):
        if hasattr(socket, name):
            link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def send(links: dict[int, socket.socket], message: dict[str, Any]) -> None:
    """Sends a message to all."""
    for link in links.values():
        with suppress(OSError):  # it is gone, and who hears of it says so
            link.sendall(json.dumps(message).encode() + b"\n")


def read_line(link: socket.socket) -> bytes:
    """The next line of a connection; empty at its end."""
    found = bytearray()
    while not found.endswith(b"\n") and len(found) < _LONGEST and (byte := link.recv(1)):
        found += byte
    return bytes(found)


def relay(host: str, port: int) -> int:
    """A port here that leads there, and whose connections stay when those there end.

    JAX aborts a process as soon as its connection to process 0 is closed, before anyone can say that this was lost.
    """
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            near, _ = server.accept()
            try:
                far = socket.create_connection((host, port))
            except OSError:
                near.close()  # JAX tries again
                continue
            threading.Thread(target=_pump, args=(near, far, True), daemon=True).start()
            threading.Thread(target=_pump, args=(far, near, False), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1]


def _pump(source: socket.socket, target: socket.socket, closes: bool) -> None:
    with suppress(OSError):
        while data := source.recv(2**16):
            target.sendall(data)
    if closes:
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
