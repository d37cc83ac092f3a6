"""Entries say of runs and comparisons what their files say."""

import json
import math
import statistics
from pathlib import Path

import numpy as np
import pytest
from folders import STEPS, config, make_comparison, make_run

from charlstm.report.entries import gather
from charlstm.runs.metrics import read
from charlstm.support.errors import InputError


def test_a_run_is_described_by_its_config_and_metrics(tmp_path: Path) -> None:
    import jax

    from charlstm.core.network import Model

    asked = config(cell="gru", layers=2, size=24)
    folder = make_run(tmp_path / "run", asked, steps=400, vocabulary="abc")
    (shown,) = gather([folder])
    records = read(folder)
    params = Model(asked.model, 3).init(jax.random.key(0))
    assert shown.result.parameters == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert shown.result.validation is not None
    assert shown.result.validation.mean == min(row["loss"] for row in records if "split" in row)
    assert shown.result.test is None
    seconds = math.fsum(4 * 16 / row["chars_per_second"] for row in records if "split" not in row)
    assert shown.result.seconds == pytest.approx(seconds)
    speeds = [row["chars_per_second"] for row in records if "split" not in row]
    assert shown.result.chars_per_second == statistics.median(speeds)
    assert shown.note == f"step 400 of {STEPS}"


def test_a_seed_that_diverged_is_in_no_mean(tmp_path: Path) -> None:
    found = make_comparison(tmp_path, depths=(1,), seeds=4)
    shown = gather([tmp_path])
    assert [each.name for each in shown] == [model["name"] for model in found["models"]]
    last = found["models"][-1]
    kept = [seed["run"] for seed in last["seeds"] if seed["diverged_after"] is None]
    assert len(kept) == 2
    losses = [[row["loss"] for row in read(tmp_path / run) if "split" in row] for run in kept]
    curve = shown[-1].validation
    assert curve is not None
    np.testing.assert_allclose(curve.loss, np.mean(losses, 0))
    assert shown[-1].note == "3 of 4 seeds finished"
    assert shown[0].note == ""


def test_names_differ_whatever_is_given(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / place / "run", config(), steps=3) for place in "ab"]
    make_comparison(tmp_path / "grid", depths=(1,), seeds=1)
    make_comparison(tmp_path / "other", depths=(1,), seeds=1)
    given = [*folders, folders[0], tmp_path / "grid", tmp_path / "other", tmp_path / "grid"]
    names = [each.name for each in gather(given)]
    assert len(set(names)) == len(names) == 2 + 2 * 3  # a folder that is given twice is shown once
    assert str(folders[1]) in names
    assert str(tmp_path / "other" / "gru-1x64") in names


def test_a_run_outside_of_the_comparison_is_not_opened(tmp_path: Path) -> None:
    found = make_comparison(tmp_path / "grid", depths=(1,), seeds=1)
    make_run(tmp_path / "elsewhere", config(), steps=3)
    for run in ("../elsewhere", str(tmp_path / "elsewhere")):
        found["models"][0]["seeds"][0]["run"] = run
        (tmp_path / "grid" / "results.json").write_text(json.dumps(found))
        with pytest.raises(InputError, match="leads out"):
            gather([tmp_path / "grid"])


def test_numbers_beyond_all_measure_get_one_line(tmp_path: Path) -> None:
    pytest.importorskip("jinja2", reason="the extra `report` is not installed")
    pytest.importorskip("plotly", reason="the extra `report` is not installed")
    from charlstm.report.page import write_page

    found = make_comparison(tmp_path, depths=(1,), seeds=1)
    found["models"][1]["gradient"] = [[1e-300, 1e99]]
    (tmp_path / "results.json").write_text(json.dumps(found))
    with pytest.raises(InputError, match="too large to be drawn"):
        write_page([tmp_path], tmp_path / "page.html")
    found["models"][0]["operations"] = 1.7e308
    (tmp_path / "results.json").write_text(json.dumps(found))
    with pytest.raises(InputError, match=r"models\[0\].operations is 1.7e\+308; it must be at most 1e\+100"):
        write_page([tmp_path], tmp_path / "page.html")


def test_a_run_with_a_number_beyond_all_measure_gets_one_line(tmp_path: Path) -> None:
    folder = make_run(tmp_path, config(), steps=0)
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0, "chars_per_second": 1e-200}\n')
    with pytest.raises(InputError, match=r"cannot be shown: seconds is 6.4e\+201"):
        gather([folder])


def test_a_comparison_without_models_has_nothing_to_show(tmp_path: Path) -> None:
    found = make_comparison(tmp_path, depths=(1,), seeds=1) | {"models": []}
    (tmp_path / "results.json").write_text(json.dumps(found))
    with pytest.raises(InputError, match="no models"):
        gather([tmp_path])
