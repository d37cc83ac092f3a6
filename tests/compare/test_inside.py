"""A comparison has its models' calibration, saturated gates and found units, and the best n-gram as a row."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import make_comparison

from charlstm.analysis.inside.ngram import ngram
from charlstm.compare import results
from charlstm.compare.runner import run_grid
from charlstm.compare.statistics import MEASURES, measure_ngram
from charlstm.config import DataConfig, Experiment, Grid, OptimizerConfig, SampleConfig, TrainConfig
from charlstm.data.dataset import Dataset
from charlstm.report import tables

TEXT = 'He said, "Come (soon)." Nobody came.\n' * 60


def data_config(folder: Path, **fields: Any) -> DataConfig:
    (path := folder / "text.txt").write_text(TEXT)
    return DataConfig(corpus=str(path), batch_size=2, seq_length=8, **fields)


def test_the_n_gram_is_the_one_that_is_best_by_validation(tmp_path: Path):
    data = Dataset.read(data_config(tmp_path))
    found = measure_ngram(data)
    losses = [ngram(data.train.ids, ids, len(data.vocabulary)).nats.mean(1) for ids in (data.validation, data.test)]
    order = int(np.argmin(losses[0])) + 1
    assert found == {"order": order, "validation": losses[0][order - 1], "test": losses[1][order - 1]}
    assert "validation" not in measure_ngram(Dataset.read(data_config(tmp_path, validation_fraction=0.0)))


def test_the_n_gram_is_a_row_of_every_table(tmp_path: Path):
    made = make_comparison(tmp_path / "depth", depths=(1,))
    before = results.read(tmp_path / "depth")
    assert before.ngram is None and before.rows == list(before.models)
    made["ngram"] = {"order": 7, "validation": 1.25, "test": 1.5}
    (tmp_path / "depth" / "results.json").write_text(json.dumps(made))
    found = results.read(tmp_path / "depth")
    assert [row.name for row in found.rows] == [*(each.name for each in found.models), "7-gram"]
    row = next(line for line in tables.markdown(found).splitlines() if line.startswith("| 7-gram"))
    assert " 1.5000 " in row and " 1.2500 " in row
    assert "N-gram: interpolated Kneser-Ney" in tables.markdown(found)
    tables.write_tables(found, tmp_path)
    assert (tmp_path / "results.csv").read_text().splitlines()[-1].startswith("7-gram,n-gram,0,")


@pytest.mark.slow
def test_the_page_has_the_row(tmp_path: Path):
    pytest.importorskip("plotly", reason="the extra `report` is not installed")
    from charlstm.report.page import write_page

    made = make_comparison(tmp_path / "depth", depths=(1,)) | {"ngram": {"order": 7, "test": 1.5}}
    (tmp_path / "depth" / "results.json").write_text(json.dumps(made))
    write_page([tmp_path / "depth"], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text("utf-8")
    assert page.count("7-gram") == 1 + page.count('data-value="7-gram"') and "Kneser-Ney" in page


@pytest.mark.slow
def test_a_grid_measures_every_seed_and_old_measures_go_without(tmp_path: Path):
    grid = Grid(
        cells=("rnn", "lstm"),
        layers=(1,),
        sizes=(4,),
        seeds=2,
        base=Experiment(
            data=data_config(tmp_path),
            optimizer=OptimizerConfig(warmup_steps=2),
            train=TrainConfig(steps=4, validate_every=2, tensorboard=False),
            sample=SampleConfig(prime="He", length=5),
        ),
    )
    found = run_grid(grid, tmp_path / "grid")
    assert found.ngram is not None and results.read(tmp_path / "grid") == found
    for model in found.models:
        for each in (model.calibration, model.saturated, model.found_units):
            assert each is not None and each.n == 2
        assert model.calibration is not None and 0 <= model.calibration.mean <= 1
    for path in (tmp_path / "grid").glob(f"*/*/{MEASURES}"):
        values = json.loads(path.read_text())
        path.write_text(json.dumps({name: values[name] for name in ("test", "gradient", "fresh_gradient", "recall")}))
    (tmp_path / "grid" / "ngram.json").unlink()
    again = run_grid(grid, tmp_path / "grid")
    assert again.ngram == found.ngram
    assert {model.calibration for model in again.models} == {None}
    assert [model.test for model in again.models] == [model.test for model in found.models]
