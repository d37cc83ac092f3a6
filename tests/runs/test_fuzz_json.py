"""Files of a run and of a comparison with any JSON in them: taken, and then of use to everything, or refused.

What is taken comes back as it was. Nothing is allocated, and nothing repeated, for a number that a file holds.
"""

import copy
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import config, make_run
from fuzzing import OneCheckpoint, bounded, json_files, run
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("jinja2", reason="the extra `report` is not installed")
pytest.importorskip("plotly", reason="the extra `report` is not installed")

from charlstm.analysis.evaluate import Evaluation
from charlstm.compare import results
from charlstm.compare import runner as compare
from charlstm.compare.grid import grid_models
from charlstm.compare.results import Outcome
from charlstm.compare.statistics import tabulate
from charlstm.config import Experiment, Grid
from charlstm.core.network import Model
from charlstm.core.optimizer import learning_rate, make_optimizer
from charlstm.core.step import init_state
from charlstm.data.dataset import Dataset, Fingerprint
from charlstm.data.vocabulary import Vocabulary
from charlstm.data.windows import WindowedText, split
from charlstm.report import tables
from charlstm.report.entries import gather
from charlstm.report.figures import figures
from charlstm.report.page import configs
from charlstm.runs import arrays, loading, metrics
from charlstm.runs.folder import Run, read_as
from charlstm.support.errors import InputError, TrainingError
from charlstm.support.files import write_json
from charlstm.support.schema import from_dict, to_dict

TEXT = "a small town, a long road, and nobody in sight. " * 12


@dataclass(frozen=True)
class Place:
    """A run, a comparison of it and others, and the experiments' files that go on with them."""

    folder: Path
    config: Experiment
    grid: Grid
    text: Dataset

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def comparison(self) -> Path:
        return self.folder / "grid"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("json")
    (folder / "text").write_text(TEXT)
    asked = config(cell="gru", size=4, steps=30, corpus=str(folder / "text"))
    grid = Grid(cells=("rnn", "gru"), layers=(1,), sizes=(4,), seeds=2, base=asked)
    text = Dataset.read(asked.data)
    for kind, name, value in (("Experiment", "CONFIG", asked), ("Grid", "GRID", grid)):
        program = f"from charlstm.support.schema import from_dict\nfrom charlstm.config import {kind}\n"
        (folder / f"{name}.py").write_text(f"{program}{name} = from_dict({to_dict(value)!r}, {kind})\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr("charlstm.support.process.prepare", lambda **_: None)
        patch.setattr("charlstm.report.page.get_plotlyjs", lambda: "", raising=False)
        patch.setattr("plotly.offline.get_plotlyjs", lambda: "")
        made = Place(folder, asked, grid, text)
        _finish(made.run, asked, text)
        for model in grid_models(grid, len(text.vocabulary)):
            for number in range(grid.seeds):
                _finish(made.comparison / model.name / f"seed-{number}", model.run(number), text)
        write_json(made.comparison / "grid.json", to_dict(grid))
        write_json(made.comparison / "corpus.json", asdict(text.fingerprint))
        write_json(made.comparison / "results.json", asdict(_tallied(made)))
        tables.write_tables(_tallied(made), made.comparison)
        yield made


def _finish(folder: Path, asked: Experiment, text: Dataset) -> None:
    """A run that is trained and measured."""
    make_run(folder, asked, steps=30, vocabulary="".join(text.vocabulary.characters), sample="a long road")
    write_json(folder / "corpus.json", asdict(text.fingerprint))
    with metrics.Metrics(folder / "metrics.jsonl", 3) as lines:
        lines.append({"step": 30, "split": "validation", "loss": 1.5})
    write_json(folder / "result.json", asdict(Outcome(seed=asked.seed, best_step=30, validation=1.5, seconds=2.0)))
    recall = {"distances": [16, 32], "accuracy": [0.9, 0.5], "chance": 0.125}
    measured = {"test": 1.6, "gradient": [[1.0, 0.1, 0.001]], "fresh_gradient": [[1.0, 0.1, 0.0]], "recall": recall}
    write_json(folder / "measures.json", measured)


def _tallied(place: Place) -> results.Results:
    models = grid_models(place.grid, len(place.text.vocabulary))
    return tabulate(place.comparison, place.grid, models, len(place.text.vocabulary))


# What each file is read by. A reader gives a result or raises InputError, and then it was of no use to anything.


def _config(place: Place) -> None:
    found = Run.open(place.run)
    assert from_dict(to_dict(found.config), Experiment) == found.config
    write_json(place.run / "config.json", to_dict(found.config))
    assert Run.open(place.run) == found
    optimizer = found.config.optimizer
    for step in (0, found.config.train.steps - 1):
        rate = np.asarray(learning_rate(optimizer, found.config.train.steps)(step))
        assert 0 <= rate <= optimizer.learning_rate * 1.0001
    _shown(place.run)
    ids = found.vocabulary.encode(TEXT)
    data = found.config.data
    train = split(ids, data.validation_fraction, data.test_fraction, data.stretches).train
    WindowedText(train, data.batch_size, data.seq_length)


def _vocabulary(place: Place) -> None:
    found = Vocabulary.load(place.run / "vocabulary.json")
    text = "".join(found.characters)
    assert found.encode(text).tolist() == list(range(len(found)))
    assert found.decode(np.arange(len(found))) == text
    found.save(place.run / "vocabulary.json")
    assert Vocabulary.load(place.run / "vocabulary.json") == found
    _shown(place.run)


def _corpus(place: Place) -> None:
    found = read_as(Fingerprint, place.run / "corpus.json")
    assert Run.open(place.run).fingerprint == found
    if found.sha256 == place.text.fingerprint.sha256 and found.characters == len(TEXT):
        Run.open(place.run).check_text(place.text.fingerprint, place.text.vocabulary)


def _metrics(place: Place) -> None:
    found = metrics.read(place.run)
    step = found[0]["step"] if found else 0
    with metrics.Metrics(place.run / "metrics.jsonl", step):
        pass
    kept = metrics.read(place.run)
    assert repr(kept) == repr([record for record in found if record["step"] <= step])
    json.dumps(metrics.time_taken(found, 10**6), allow_nan=False)
    _shown(place.run)


def _grid(place: Place) -> None:
    _shown(place.comparison)
    compare._open(place.comparison, place.grid, place.text)


def _measured(place: Place) -> None:
    found = _tallied(place)
    assert from_dict(json.loads(json.dumps(asdict(found), allow_nan=False)), results.Results) == found
    assert tables.markdown(found) and tables._csv(found)


def _results(place: Place) -> None:
    found = results.read(place.comparison)
    assert from_dict(json.loads(json.dumps(asdict(found), allow_nan=False)), results.Results) == found
    _shown(place.comparison)


def _shown(folder: Path) -> None:
    """All that a page says of a folder."""
    shown = gather([folder])
    for figure in figures(shown):
        assert figure.panels
    table = tables.make_table([entry.result for entry in shown], "character", [entry.note for entry in shown])
    assert all(cell.text.isprintable() for column in table for cell in column.cells)
    configs(shown)


RUN, SEED = "run", "grid/gru-1x4/seed-1"
FILES: dict[str, Callable[[Place], None]] = {
    f"{RUN}/config.json": _config,
    f"{RUN}/vocabulary.json": _vocabulary,
    f"{RUN}/corpus.json": _corpus,
    f"{RUN}/metrics.jsonl": _metrics,
    "grid/grid.json": _grid,
    f"{SEED}/result.json": _measured,
    f"{SEED}/measures.json": _measured,
    "grid/results.json": _results,
}


@pytest.fixture(scope="module")
def valid(place: Place) -> dict[str, Any]:
    """What the files hold as they should be; metrics a value a line."""
    found = {}
    for name in FILES:
        path = place.folder / name
        text = path.read_text()
        found[name] = [json.loads(line) for line in text.splitlines()] if name.endswith("l") else json.loads(text)
    return found


class Kept:
    """Every file under a folder, to be put back after each example."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._contents = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self._before = dict(_stamps(self._folder))

    def changed(self) -> set[str]:
        """The files that were written, made or removed since they were as they should be."""
        return {path for path, _ in self._before.items() ^ dict(_stamps(self._folder)).items()}

    def put_back(self, written: Path) -> None:
        # What charlstm writes is another file by its inode; `written` may bear the same time as before.
        for path in self.changed() | {str(written)}:
            self._before.pop(path, None)
            if path in self._contents:
                Path(path).write_bytes(self._contents[path])
                self._before[path] = _stamp(os.stat(path))
            elif os.path.exists(path):
                os.unlink(path)


def _stamps(folder: str) -> Iterator[tuple[str, tuple[int, int]]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _stamps(entry.path)
            else:
                yield entry.path, _stamp(entry.stat())


def _stamp(known: os.stat_result) -> tuple[int, int]:
    return known.st_mtime_ns, known.st_ino


@pytest.fixture(scope="module")
def kept(place: Place) -> Kept:
    return Kept(place.folder)


@pytest.mark.parametrize("name", FILES)
@given(st.data())
def test_a_file_of_any_json_is_of_use_or_refused(
    place: Place, valid: dict[str, Any], kept: Kept, name: str, data: st.DataObject
) -> None:
    content = data.draw(json_files(valid[name], lines=name.endswith("l")))
    path = place.folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    try:
        with bounded():
            FILES[name](place)
    except InputError:
        pass
    finally:
        kept.put_back(path)


_DEEP = b"[" * 900 + b"]" * 900


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (f"{RUN}/config.json", b'{"model": {"num_layers": 1000000000}}'),
        (f"{RUN}/config.json", b'{"data": {"batch_size": 1' + b"0" * 30 + b"}}"),
        (f"{RUN}/config.json", b'{"train": {"steps": 1' + b"0" * 30 + b"}}"),
        (f"{RUN}/config.json", b'{"data": {"symbols": "bytes"}, "seed": ' + _DEEP + b"}"),
        (f"{RUN}/metrics.jsonl", b'{"step": 1, "split": "validation"}\n'),
        (f"{RUN}/metrics.jsonl", b'{"step": 1, "split": "validation", "loss": "1"}\n'),
        (f"{RUN}/metrics.jsonl", b'{"step": -1, "loss": 1}\n'),
        (f"{RUN}/metrics.jsonl", b'{"step": 1, "loss": ' + _DEEP + b"}\n"),
        (f"{RUN}/metrics.jsonl", b'{"step": 1, "loss": 1e300}\n' * 30),
        (f"{SEED}/measures.json", b'{"gradient": []}'),
        (f"{SEED}/measures.json", b'{"gradient": [[]]}'),
        (f"{SEED}/measures.json", b'{"gradient": [[1], [1, 2]]}'),
        (f"{SEED}/measures.json", b'{"gradient": [[1, 0.5]]}'),
        (f"{SEED}/measures.json", b'{"test": 1e308}'),
        (f"{SEED}/measures.json", b'{"recall": {"distances": [1], "accuracy": [1], "chance": 0}}'),
    ],
    ids=range(15),
)
def test_what_once_was_a_traceback_or_had_no_end_is_refused(
    place: Place, kept: Kept, name: str, content: bytes
) -> None:
    (place.folder / name).write_bytes(content)
    try:
        with bounded(), pytest.raises(InputError):
            FILES[name](place)
    finally:
        kept.put_back(place.folder / name)


@pytest.mark.parametrize(
    ("field", "value"), [("vocabulary", 0), ("num_layers", 10**400), ("operations", 1e308)], ids=range(3)
)
def test_numbers_that_nothing_can_be_drawn_of_are_refused(
    place: Place, valid: dict[str, Any], field: str, value: Any
) -> None:
    found = copy.deepcopy(valid["grid/results.json"])
    (found if field in found else found["models"][0])[field] = value
    with pytest.raises(InputError, match=f"{field} is "):
        from_dict(found, results.Results)


def test_speeds_beyond_all_measure_are_no_speeds() -> None:
    for speed in (10**400, 1e300, math.inf, math.nan, True, "9"):
        assert metrics.time_taken([{"step": 1, "loss": 1.0, "chars_per_second": speed}], 64) == (None, None)


def test_a_run_of_another_vocabulary_is_not_gone_on_with(place: Place, kept: Kept) -> None:
    """It would draw characters that its vocabulary lacks, or others than those it learned."""
    for symbols, known in (("characters", '["a", "b"]'), ("bytes", '["a", "\\u4e2d"]')):
        path = place.run / "config.json"
        config = to_dict(place.config)
        write_json(path, config | {"data": config["data"] | {"symbols": symbols}})
        (place.run / "vocabulary.json").write_text(known)
        told = run(*COMMANDS["train"](place), f"--data.symbols={symbols}")
        assert told.code == 2 and "vocabulary.json is" in told.err
        kept.put_back(path)


# The same through the commands.


class _Checkpoints(OneCheckpoint):
    """In place of those on disk: one of step 30, of the model that the run began with."""

    asked: Experiment
    symbols: int

    def best(self) -> None:
        return None

    def restore_params(self, step: int, like: Any) -> Any:
        params = _params(self.asked, self.symbols)
        try:
            arrays.check_forms(arrays.leaf_records(params, arrays.to_host(params)), like)
        except arrays.BrokenError as error:
            raise InputError(str(error)) from None
        return params


_PARAMS: dict[int, Any] = {}


def _params(asked: Experiment, symbols: int) -> Any:
    if symbols not in _PARAMS:
        chain = make_optimizer(asked.optimizer, asked.train.steps)
        _PARAMS[symbols] = init_state(Model(asked.model, symbols), chain, asked.data.batch_size, asked.seed).params
    return _PARAMS[symbols]


def _begin(*_: Any) -> None:
    raise TrainingError("begun")


COMMANDS = {
    "eval": lambda place: ["eval", str(place.run), "--json"],
    "sample": lambda place: ["sample", str(place.run), "--length", "3", "--num", "2"],
    "export": lambda place: ["export", str(place.run), "--output", str(place.folder / "model.safetensors")],
    "train": lambda place: ["train", str(place.folder / "CONFIG.py"), "--run-dir", str(place.run)],
    "report": lambda place: [
        "report",
        str(place.run),
        str(place.comparison),
        "--output",
        str(place.folder / "page.html"),
    ],
    "compare": lambda place: ["compare", str(place.folder / "GRID.py"), "--run-dir", str(place.comparison)],
}


@given(st.data())
def test_a_command_on_any_json_ends_well_or_says_one_line(
    place: Place, valid: dict[str, Any], kept: Kept, data: st.DataObject
) -> None:
    command = data.draw(st.sampled_from(list(COMMANDS)))
    of_run = [name for name in FILES if name.startswith(RUN)]
    of_grid = [name for name in FILES if not name.startswith(RUN)]
    names = {"report": [*of_run, *of_grid], "compare": of_grid}.get(command, of_run)
    name = data.draw(st.sampled_from(names))
    path = place.folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data.draw(json_files(valid[name], lines=name.endswith("l"))))
    before = path.read_bytes()
    _Checkpoints.asked, _Checkpoints.symbols = place.config, len(place.text.vocabulary)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "Checkpoints", _Checkpoints)
        patch.setattr("charlstm.training.train.open_member", _begin)
        patch.setattr(loading, "evaluate", lambda *_, **__: Evaluation(1.5, 3))
        patch.setattr("charlstm.report.plots.plots", lambda *_: [])
        try:
            told = run(*COMMANDS[command](place))
            assert told.code != 1 or (command == "train" and told.err == "charlstm: begun\n")
            if told.code == 2:
                assert command == "compare" or kept.changed() <= {str(path)}
                assert path.read_bytes() == before
        finally:
            kept.put_back(path)


@pytest.mark.parametrize("output", ["no/such/page.html", "text/page.html", "n" * 250 + ".html"])
def test_a_page_that_cannot_be_written_leaves_nothing(
    place: Place, kept: Kept, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.chdir(place.folder)
    assert "cannot be written" in run("report", str(place.run), "--output", output).err
    assert not kept.changed()
