"""Headless Chromium over its DevTools pipe: what a page looks like and does, with no package beside the browser."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "about:blank")

_PATIENCE = 120.0  # seconds
# The browser reads its commands from file 3 and answers on file 4.
_AS_3_AND_4 = """
import os, sys
given = [os.dup(os.dup(os.dup(int(each)))) for each in sys.argv[1:3]]
for number, each in enumerate(given, start=3):
    os.dup2(each, number)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Tab:
    """A page, with what went wrong in it: `errors` of scripts and of the policy, and the `requests` it made."""

    def __init__(self, send: Any, receive: Any, width: int, height: int, dark: bool) -> None:
        self._send, self._receive, self._numbers, self._session = send, receive, itertools.count(1), None
        self.errors: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def call(self, method: str, **parameters: Any) -> Any:
        """One command of the DevTools protocol, and its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        self._send.write(json.dumps(message).encode() + b"\0")
        self._send.flush()
        while (told := self._next()).get("id") != number:
            pass
        assert "error" not in told, told
        return told["result"]

    def open(self, path: Path) -> None:
        """Loads a file, and returns when its scripts have run."""
        self.call("Page.navigate", url=path.resolve().as_uri())
        loaded = "document.readyState === 'complete' ? done() : addEventListener('load', () => done())"
        self.value(f"new Promise((done) => {loaded})")

    def value(self, script: str) -> Any:
        """What an expression is worth in the page, waited for where it is a promise."""
        told = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """A key, as from a keyboard."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def move(self, x: float, y: float) -> None:
        """The pointer to a place in the window."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def _next(self) -> dict[str, Any]:
        text = bytearray()
        while (byte := self._receive.read(1)) != b"\0":
            assert byte, "the browser is gone"
            text += byte
        told = json.loads(text)
        parameters = told.get("params", {})
        match told.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(json.dumps(parameters["exceptionDetails"]))
            case "Log.entryAdded":
                self.errors.append(parameters["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
        return told


@contextmanager
def tab(profile: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> Iterator[Tab]:
    """A fresh browser with one empty page, which ends with the block."""
    assert CHROMIUM is not None
    (theirs_in, send), (receive, theirs_out) = os.pipe(), os.pipe()
    flags = ["--remote-debugging-pipe", f"--user-data-dir={profile}", *_FLAGS]
    process = subprocess.Popen(
        [sys.executable, "-c", _AS_3_AND_4, str(theirs_in), str(theirs_out), CHROMIUM, *flags],
        pass_fds=(theirs_in, theirs_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    watchdog = Timer(_PATIENCE, process.kill)  # its end ends whoever waits for an answer
    watchdog.start()
    with os.fdopen(send, "wb") as commands, os.fdopen(receive, "rb") as answers:
        try:
            yield Tab(commands, answers, width, height, dark)
        finally:
            watchdog.cancel()
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
