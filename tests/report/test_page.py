"""The page opens without a network, sorts, shows every row, and nothing runs in it that came out of a corpus."""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("jinja2", reason="the extra `report` is not installed")
pytest.importorskip("plotly", reason="the extra `report` is not installed")

from browser import Tab, open_tab
from folders import CELLS, config, make_comparison, make_run

from charlstm import cli
from charlstm.report.page import SHOWN, as_script_data, write_page
from charlstm.support.errors import InputError

pytestmark = pytest.mark.slow

HOSTILE = (
    '<script>window.hacked = 1</script></script></style></title><img src=x onerror="window.hacked = 2">\'"&amp;'
    "\0\u202e\u2066\u2028\u2029\ud800]]>--><!-- ${window.hacked = 3} {{ 7 * 7 }} %{x} <svg onload=window.hacked=4>"
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run of a hostile corpus, a long one with a plain sample, and one that was never trained."""
    folder = tmp_path_factory.mktemp("runs")
    hostile = config(corpus=HOSTILE.replace("\ud800", ""), prime=HOSTILE.replace("\ud800", ""), cell="gru", layers=2)
    return [
        make_run(
            folder / "<img src=x onerror=window.hacked=5> & $x$ <b>",
            hostile,
            steps=300,
            vocabulary=HOSTILE,
            sample=HOSTILE,
        ),
        make_run(folder / "long", config(steps=1000), steps=1000, sample="word " * 1000),
        make_run(folder / "unstarted", config(size=32), steps=0),
    ]


@pytest.fixture(scope="module")
def runs_page(runs: list[Path]) -> Path:
    write_page(runs, runs[0].parent / "page.html")
    return runs[0].parent / "page.html"


@pytest.fixture(scope="module")
def comparison_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison")
    found = make_comparison(folder / "depth", depths=(1, 2))
    found["models"][0] |= {"seeds": [], "validation": None, "test": None, "seconds": None}
    found["corpus"] = found["name"] = found["models"][1]["baseline"] = HOSTILE
    (folder / "depth" / "results.json").write_text(json.dumps(found))
    write_page([folder / "depth"], folder / "page.html")
    return folder / "page.html"


@pytest.fixture(params=["runs_page", "comparison_page"])
def page(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture(params=[(1280, False), (390, True)], ids=["desktop", "phone, dark"])
def tab(request: pytest.FixtureRequest) -> Iterator[Tab]:
    width, dark = request.param
    with open_tab(width=width, dark=dark) as tab:
        yield tab


class Elements(HTMLParser):
    """The elements of a page as a browser without scripts sees them, and its text."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if not self.found or self.found[-1][0] not in ("script", "style"):
            self.text.append(data)


def test_the_page_refers_to_nothing_outside_and_text_makes_no_element(page: Path) -> None:
    elements = Elements(page)
    assert {tag for tag, _ in elements.found}.isdisjoint({"img", "svg", "link", "iframe", "object", "base", "form"})
    assert sum(tag == "script" for tag, _ in elements.found) == 3
    for tag, attributes in elements.found:
        assert "src" not in attributes, tag
        assert (attributes.get("href") or "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on")]
    policy = next(each["content"] for tag, each in elements.found if "http-equiv" in each and tag == "meta")
    assert policy is not None
    assert re.fullmatch(
        r"default-src 'none'; script-src( 'sha256-[\w+/]{43}='){2}; style-src 'unsafe-inline'; base-uri 'none';"
        r" form-action 'none'",
        policy,
    )
    shown = "".join(elements.text)
    assert all(each.isprintable() or each in "\n\t" for each in shown)
    assert "<script>window.hacked = 1</script>" in shown


def test_every_sample_and_every_config_field_is_there(runs_page: Path) -> None:
    from charlstm.config import Experiment
    from charlstm.support.schema import flat

    text = "".join(Elements(runs_page).text)
    assert ("word " * 1000)[:SHOWN] in text
    assert "word " * (SHOWN // 5 + 1) not in text
    assert "unstarted has no checkpoint yet" in text
    for field in flat(Experiment()):
        assert runs_page.read_text("utf-8").count(f"<code>{field}</code>") == 1, field


@given(st.recursive(st.text() | st.floats(allow_nan=False, allow_infinity=False), st.lists))
def test_data_cannot_end_its_script(value: Any) -> None:
    text = as_script_data(value)
    assert json.loads(text) == value
    assert text.isascii()
    assert not set("<>&") & set(text)


def test_it_opens_without_a_network_and_nothing_hostile_runs(page: Path, tab: Tab) -> None:
    tab.open(page)
    assert tab.value("window.hacked === undefined")
    assert tab.requests == [page.as_uri()]
    assert tab.errors == []
    assert tab.value("document.documentElement.scrollWidth <= innerWidth")
    assert tab.value("[...document.querySelectorAll('.plot')].every((each) => each.querySelector('.main-svg'))")
    named = tab.value("[...document.querySelectorAll('.sortable tbody th')].map((each) => each.textContent)")
    rows = Elements(page).found
    assert len(named) == sum(tag == "th" and each.get("scope") == "row" for tag, each in rows) / 2  # and in configs
    assert tab.value("[...document.querySelectorAll('.sortable tbody tr')].every((each) => each.offsetHeight > 0)")


def test_text_that_was_not_escaped_would_not_run_either(runs_page: Path, tab: Tab, tmp_path: Path) -> None:
    """The policy alone, behind a fault in escaping; the same faults run in a page that has none."""
    faulty = tmp_path / "faulty.html"
    with _server() as (address, asked):
        fault = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
        fault += "".join(f"<{tag} src={address}></{tag}>" for tag in ("img", "script", "iframe"))
        fault += f"<style>@import '{address}'; body {{ background: url({address}) }}</style>"
        text = runs_page.read_text("utf-8").replace("<main>", f"<main>{fault}")
        for policy, obeyed in (("Content-Security-Policy", True), ("none", False)):
            faulty.write_text(text.replace('http-equiv="Content-Security-Policy"', f'http-equiv="{policy}"'), "utf-8")
            tab.open(faulty)
            assert tab.value("window.hacked === undefined") is obeyed
            assert (not asked) is obeyed


@contextmanager
def _server() -> Iterator[tuple[str, list[str]]]:
    """A server's address, and the paths it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/x", asked
        finally:
            server.shutdown()
            thread.join()


def _column(tab: Tab, title: str) -> list[str | None]:
    return tab.value(
        "[...document.querySelectorAll('.sortable tbody tr')]"
        f".map((row) => row.cells[{_place(tab, title)}].dataset.value ?? null)"
    )


def _place(tab: Tab, title: str) -> int:
    titles = tab.value("[...document.querySelectorAll('.sortable th button')].map((each) => each.textContent)")
    return titles.index(title)


def test_the_table_sorts_by_keyboard_as_numbers_with_the_missing_last(comparison_page: Path) -> None:
    with open_tab() as tab:
        tab.open(comparison_page)
        for title in (
            "model",
            "parameters",
            "validation",
            "test",
            "difference",
            "published",
            "speed",
            "seeds",
            "reach",
        ):
            _sort_both_ways(tab, title)


def _sort_both_ways(tab: Tab, title: str) -> None:
    before = _column(tab, title)
    tab.value(f"document.querySelectorAll('.sortable th button')[{_place(tab, title)}].focus()")
    for direction in ("ascending", "descending"):
        tab.page.keyboard.press("Enter")
        key = str if title == "model" else float
        known = sorted((key(each) for each in before if each is not None), reverse=direction == "descending")
        after = [each if each is None else key(each) for each in _column(tab, title)]
        assert after == known + [None] * (len(before) - len(known))
        sorts = tab.value("[...document.querySelectorAll('.sortable th')].map((each) => each.ariaSort)")
        assert [each for each in sorts if each] == [direction]
        assert sorts.index(direction) == _place(tab, title)


def test_a_curve_tells_its_values_and_a_name_hides_it_everywhere(comparison_page: Path) -> None:
    with open_tab(height=6000) as tab:
        tab.open(comparison_page)
        last = "[...document.querySelector('.plot').querySelectorAll('.points path')].at(-1)"
        place = f"(() => {{ const at = {last}.getBoundingClientRect();"
        x, y = tab.value(place + "return [at.x + at.width / 2, at.y + at.height / 2] })()")
        tab.page.mouse.move(x, y)
        hover = tab.page.locator(".hoverlayer .hovertext").first
        hover.wait_for(timeout=10_000)
        assert re.search(r"training step [\d,]+.*\d\.\d{4} nats.*\d\.\d{4} bits", hover.text_content() or "")
        drawn = "document.querySelectorAll('.plot .scatterlayer .trace').length"
        before = tab.value(drawn)
        name = "lstm-1x64"
        button = f'.legend button[data-name="{name}"]'
        figures = tab.value(f"document.querySelectorAll('{button}').length")
        assert figures == 4  # it is in every figure but that of depths
        tab.value(f"document.querySelector('{button}').click()")
        assert tab.value(f"[...document.querySelectorAll('{button}')].every((each) => each.ariaPressed === 'false')")
        assert tab.value(drawn) < before - figures


def test_a_comparison_says_loudly_what_diverged_and_what_is_unfinished(comparison_page: Path) -> None:
    text = " ".join("".join(Elements(comparison_page).text).split())
    assert "diverged: seed 2 after step 40" in text
    assert "0 of 3 seeds finished" in text
    assert "no seed is finished yet" in text
    for cell in CELLS:
        assert f"{cell}-2x64" in text


def test_a_trained_run_without_samples_is_sampled_as_its_config_asks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("a long road, and nobody in sight. " * 60)
    asked = {"data.corpus": text, "data.batch-size": 4, "data.seq-length": 16, "model.hidden-size": 16}
    asked |= {"train.steps": 20, "train.tensorboard": False, "sample.length": 70, "sample.prime": "a long"}
    words = [word for name, value in asked.items() for word in (f"--{name}", str(value))]
    assert cli.run(["train", "--run-dir", str(tmp_path / "run"), *words]) == 0
    drawn = capsys.readouterr().out.rstrip("\n")
    assert cli.run(["report", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'run' / 'report.html'}\n"
    assert drawn in "".join(Elements(tmp_path / "run" / "report.html").text)


def test_wrong_folders_and_a_missing_package_get_one_line(
    tmp_path: Path, runs: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusal(*words: str) -> str:
        assert cli.run(["report", *words]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        return captured.err

    assert "needs the folder" in refusal()
    assert "there is no folder" in refusal(str(tmp_path / "nowhere"))
    assert "neither a run nor a comparison" in refusal(str(tmp_path))
    (tmp_path / "grid.json").write_text("{}")
    assert "no results.json yet" in refusal(str(tmp_path))
    for name in ("", "..", "book.txt", "runs/one/config.json", "page"):  # a slip of the fingers
        (tmp_path / "book.txt").write_text("mine")
        assert "must end in .html" in refusal(str(runs[1]), "--output", str(tmp_path / name))
        assert (tmp_path / "book.txt").read_text() == "mine"
    assert "cannot be written" in refusal(str(runs[1]), "--output", str(tmp_path / "no" / "page.html"))
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert "pip install 'charlstm[report]'" in refusal(str(runs[1]))


def test_the_same_runs_give_the_same_page(runs: list[Path], runs_page: Path, tmp_path: Path) -> None:
    write_page(runs, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == runs_page.read_bytes()


def test_a_sample_outside_of_the_run_is_not_read(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", replace(config(), seed=1), steps=30, sample="inside")
    (tmp_path / "secret").write_text("a secret")
    (run / "samples" / "99.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match="leads out"):
        write_page([run], tmp_path / "page.html")
