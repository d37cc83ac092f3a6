"""A comparison's plots: each as PNG and SVG, named in full, and readable without colour."""

import itertools
import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="the extra `report` is not installed")

from folders import config, make_comparison, make_run
from matplotlib import rc_context

from charlstm.report.entries import gather
from charlstm.report.figures import Style, figures
from charlstm.report.plots import plots

ALL = ("loss_vs_step", "loss_vs_depth", "loss_vs_compute", "gradient_vs_lag", "accuracy_vs_distance")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("comparison")
    return make_comparison(folder, depths=(1, 2), seeds=3), folder


@contextmanager
def results(folder: Path, values: dict[str, Any]) -> Iterator[None]:
    """Other results in a comparison's folder, for a while."""
    path = folder / "results.json"
    before = path.read_bytes()
    path.write_text(json.dumps(values))
    yield
    path.write_bytes(before)


def size(png: bytes) -> tuple[int, int]:
    """Width and height, from the header (PNG specification, section 11.2.2)."""
    return struct.unpack(">II", png[16:24])


def test_every_figure_is_drawn_twice_and_names_every_model(
    comparison: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    found, folder = comparison
    made = plots([folder], tmp_path / "plots")
    assert made == [tmp_path / "plots" / f"{name}.{ending}" for name in ALL for ending in ("png", "svg")]
    for path in made:
        if path.suffix == ".png":
            width, height = size(path.read_bytes())
            assert 1000 < width < 2600
            assert 600 < height < 2000
            continue
        text = [each.text for each in ElementTree.parse(path).iter(f"{SVG}text")]
        named = {"loss_vs_depth": {"rnn", "gru", "lstm"}}.get(path.stem, {model["name"] for model in found["models"]})
        if path.stem == "accuracy_vs_distance":
            named -= {"lstm-2x64"}  # it has none
        assert named <= set(text), path.stem
        if path.stem.startswith("loss"):
            assert [each for each in text if each and each.endswith("nats per character")]
            assert [each for each in text if each and each.endswith("bits per character")]


def test_what_there_is_no_data_for_is_not_drawn(comparison: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    found, folder = comparison
    bare = json.loads(json.dumps(found))
    for model in bare["models"]:
        model |= {"gradient": None, "fresh_gradient": None, "recall": None, "test": None, "operations": None}
    with results(folder, bare):
        assert {path.stem for path in plots([folder], tmp_path)} == {"loss_vs_step", "loss_vs_depth"}
    for model in bare["models"]:
        model |= {"seeds": [], "validation": None}
    with results(folder, bare):
        assert plots([folder], tmp_path) == []


def test_a_name_is_text_whatever_is_in_it(comparison: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    found, folder = comparison
    hostile = json.loads(json.dumps(found))
    hostile["models"][0]["name"] = r"<script>$\frac$ \$x & ]]>"
    with results(folder, hostile):
        plots([folder], tmp_path)
    tree = ElementTree.parse(tmp_path / "loss_vs_step.svg")
    assert r"<script>$\frac$ \$x & ]]>" in [each.text for each in tree.iter(f"{SVG}text")]
    assert not [*tree.iter(f"{SVG}script")]


def test_no_two_models_look_the_same_without_colour(comparison: tuple[dict[str, Any], Path]) -> None:
    _, folder = comparison
    for figure in figures(gather([folder])):
        looks: dict[str, Style] = {each.name: each.style for each in figure.series}
        for one, other in itertools.combinations(looks.values(), 2):
            assert one != other  # a colour has a symbol of its own


def test_gradients_start_at_one_and_cross_the_line_at_their_reach(
    comparison: tuple[dict[str, Any], Path],
) -> None:
    found, folder = comparison
    figure = next(each for each in figures(gather([folder])) if each.name == "gradient_vs_lag")
    models = {model["name"]: model for model in found["models"]}
    for series in figure.series:
        assert series.y[0] == 1
        if not series.faint:
            norms = np.array(models[series.name]["gradient"])
            furthest = max(int(np.flatnonzero(layer > 0.01 * layer[0])[-1]) for layer in norms)
            assert series.x[series.y > figure.levels["reach"]][-1] == furthest


@pytest.mark.parametrize("steps", [1, 7, 60])
def test_runs_become_pictures_too(tmp_path: Path, steps: int) -> None:
    runs = [make_run(tmp_path / name, config(seed=steps), steps=steps) for name in ("one", "two")]
    made = plots(runs, tmp_path / "plots")
    assert [path.name for path in made[:2]] == ["loss_vs_step.png", "loss_vs_step.svg"]
    text = {each.text for each in ElementTree.parse(made[1]).iter(f"{SVG}text")}
    assert {"one", "two"} <= text


def test_a_run_without_metrics_has_no_pictures(tmp_path: Path) -> None:
    assert plots([make_run(tmp_path / "run", config(), steps=0)], tmp_path / "plots") == []


DRAW = """
import sys
from pathlib import Path
from charlstm.report.plots import plots
plots([Path(sys.argv[1])], Path(sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting", [b"text.usetex: True\nfont.size: 30\n", "# caf\u00e9\n".encode("latin-1")], ids=repr
)
def test_no_setting_of_matplotlib_s_changes_a_picture(tmp_path: Path, setting: bytes) -> None:
    """Neither one in the current folder, of whatever encoding, nor one of a program that draws pictures of its own."""
    run = make_run(tmp_path / "run", config(), steps=30)
    made = plots([run], tmp_path / "plots")
    (tmp_path / "matplotlibrc").write_bytes(setting)
    subprocess.run([sys.executable, "-c", DRAW, str(run), str(tmp_path / "elsewhere")], cwd=tmp_path, check=True)
    with rc_context({"text.usetex": True, "font.size": 30, "axes.facecolor": "red"}):
        plots([run], tmp_path / "here")
    for path in made:
        assert (tmp_path / "elsewhere" / path.name).read_bytes() == path.read_bytes()
        assert (tmp_path / "here" / path.name).read_bytes() == path.read_bytes()
