"""Headless Chromium, driven by Playwright: what a page shows, does, asks for and complains of."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run"),
)


def require_browser() -> None:
    """Skips the test where there is no browser, or fails it where CHARLSTM_REQUIRE_BROWSER is 1."""
    missing = None if CHROMIUM else "there is no Chromium on this machine"
    try:
        import playwright.sync_api  # noqa: F401 - whether it is there
    except ModuleNotFoundError:
        missing = "Playwright is not installed"
    if missing and os.environ.get("CHARLSTM_REQUIRE_BROWSER") == "1":
        pytest.fail(f"{missing}, and CHARLSTM_REQUIRE_BROWSER asks for it")
    if missing:
        pytest.skip(missing)


@dataclass
class Tab:
    """A page of the browser, Playwright's `page`, with what its scripts and its policy complained of and what it
    requested.
    """

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda line: line.type == "error" and self.errors.append(line.text))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def open(self, path: Path) -> None:
        """Loads a file and runs its scripts."""
        self.page.goto(path.resolve().as_uri(), wait_until="load")

    def value(self, script: str) -> Any:
        """The value of a JavaScript expression in the page, awaited if it is a promise."""
        return self.page.evaluate(script)


@contextmanager
def open_tab(*, width: int = 1280, height: int = 900, dark: bool = False) -> Iterator[Tab]:
    """A fresh browser with one empty tab, closed when the block ends."""
    require_browser()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        phone = width < 600
        yield Tab(
            browser.new_page(
                viewport={"width": width, "height": height},
                color_scheme="dark" if dark else "light",
                is_mobile=phone,
                has_touch=phone,
            )
        )
        browser.close()
