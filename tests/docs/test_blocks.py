"""Every code block of README and docs runs as it stands, in order, page by page, each page in a folder of its own."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from charlstm.data import corpora

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
LANGUAGES = ("python", "sh", "")  # the last is output, or a listing
MINUTES = 8


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    code: str
    line: int
    not_run: str | None
    """The reason why it is not run."""
    needs: str | None
    """A package without which it is not run."""


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page. A comment on the line before says what holds for one."""
    found, before, lines = [], "", page.read_text("utf-8").splitlines()
    at = 0
    while at < len(lines):
        if lines[at].startswith("```"):
            end = next(end for end in range(at + 1, len(lines)) if lines[end] == "```")
            comment = re.fullmatch(r"<!-- (not run|needs): (.+) -->", before)
            reason = {comment[1]: comment[2]} if comment else {}
            code = "\n".join(lines[at + 1 : end])
            found.append(Block(lines[at][3:], code, at + 1, reason.get("not run"), reason.get("needs")))
            at = end
        before = lines[at]
        at += 1
    return found


def runnable(page: Path) -> list[Block]:
    return [
        block
        for block in blocks_of(page)
        if block.language and not block.not_run and (not block.needs or importlib.util.find_spec(block.needs))
    ]


# Python blocks of a page share their names; the driver is one process for all of them.
_DRIVER = """
import json, subprocess, sys
names = {"__name__": "__main__"}
for language, code, place in json.load(open(sys.argv[1])):
    print("---", place, flush=True)
    if language == "sh":
        subprocess.run(["bash", "-euo", "pipefail", "-c", code], check=True)
    else:
        exec(compile(code, place, "exec"), names)
"""


@pytest.fixture(scope="session")
def book() -> str:
    return corpora.load("king_james", "characters")[:60_000]


@pytest.fixture(scope="session")
def king_james(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `charlstm train` leaves, but for its size."""
    folder = tmp_path_factory.mktemp("trained")
    small = ["--model.hidden-size", "16", "--train.steps", "5", "--sample.length", "10"]
    _run([sys.executable, "-m", "charlstm", "train", "--run-dir", "runs/king_james", *small], folder)
    return folder / "runs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_have_a_language_that_is_run(page: Path):
    for block in blocks_of(page):
        assert block.language in LANGUAGES, f"{page.name}:{block.line}"
        assert block.not_run is None or len(block.not_run) > 5, f"{page.name}:{block.line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files(page: Path):
    prose = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose):
        assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"


def test_a_loop_of_ones_own_is_short():
    """The page promises fifteen lines."""
    page = REPOSITORY / "docs" / "python.md"
    (code,) = (block.code for block in blocks_of(page) if "def smoothed" in block.code)
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 15


def test_the_readme_is_short():
    assert len((REPOSITORY / "README.md").read_text("utf-8").splitlines()) <= 150


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)], ids=lambda page: page.stem)
def test_blocks_run(page: Path, tmp_path: Path, book: str, request: pytest.FixtureRequest):
    (tmp_path / "my_book.txt").write_text(book, "utf-8")
    (tmp_path / "experiments").symlink_to(REPOSITORY / "experiments")
    if "runs/king_james" in page.read_text("utf-8"):
        (tmp_path / "runs").mkdir()
        (tmp_path / "runs" / "king_james").symlink_to(request.getfixturevalue("king_james") / "king_james")
    blocks = [(block.language, block.code, f"{page.name}:{block.line}") for block in runnable(page)]
    (tmp_path / "blocks.json").write_text(json.dumps(blocks))
    (tmp_path / "driver.py").write_text(_DRIVER)
    _run([sys.executable, "driver.py", "blocks.json"], tmp_path)


def _run(command: list[str], folder: Path) -> None:
    """Runs a command in a folder, with this checkout's `charlstm` on the path."""
    programs = folder / "bin"
    programs.mkdir()
    program = programs / "charlstm"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m charlstm "$@"\n')
    program.chmod(0o755)
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60 * MINUTES,
    )
    assert done.returncode == 0, done.stdout[-6000:]
