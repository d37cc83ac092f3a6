"""Laws of runs.py and metrics.py: what a run's folder says comes back, and what a stranger put there harms nobody."""

import dataclasses
import json
import math
import os
import re
import struct
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlstm.config import DataConfig, Experiment, ModelConfig, OptimizerConfig, SampleConfig, TrainConfig
from charlstm.data.vocabulary import Vocabulary
from charlstm.runs.config_file import Change, continued
from charlstm.runs.folder import Fingerprint, Run
from charlstm.runs.metrics import Metrics, TensorBoard, read
from charlstm.support import process
from charlstm.support.errors import InputError
from charlstm.support.files import LIMIT, one_line, write_atomic
from charlstm.support.schema import flat, to_dict

TEXT = "in the beginning\n"


def begin(folder: Path, config: Experiment | None = None) -> Run:
    return Run.create(folder, config or Experiment(), Vocabulary.of(TEXT), Fingerprint.of("king_james", TEXT))


def refused(folder: Path) -> str:
    """The message that opening ends with: one line, without a control character."""
    with pytest.raises(InputError) as error:
        Run.open(folder)
    message = str(error.value)
    assert message.isprintable() and len(message) < 1000
    return message


configs = st.builds(
    Experiment,
    seed=st.integers(0, 2**32 - 1),
    data=st.builds(DataConfig, corpus=st.text(min_size=1), batch_size=st.integers(1, 10**6)),
    model=st.builds(ModelConfig, cell=st.sampled_from(["rnn", "gru", "lstm"]), dropout=st.floats(0, 0.999)),
    optimizer=st.builds(OptimizerConfig, learning_rate=st.floats(1e-300, 3e38)),
    train=st.builds(TrainConfig, steps=st.integers(1, 10**9), tensorboard=st.booleans()),
)


@given(configs, st.text(st.characters(exclude_categories=[]), min_size=1))
def test_a_run_opens_as_it_was_created(tmp_path_factory: pytest.TempPathFactory, config: Experiment, text: str) -> None:
    folder = tmp_path_factory.mktemp("run") / "deep" / "run"
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, corpus=f"{config.data.corpus!a}"))
    made = Run.create(folder, config, Vocabulary.of(text), Fingerprint.of("corpus", text))
    assert Run.open(folder) == made
    assert list(json.loads((folder / "config.json").read_text())) == [*to_dict(config), "written_by"]


def test_a_folder_holds_what_the_design_says(tmp_path: Path) -> None:
    run = begin(tmp_path / "run")
    assert sorted(path.name for path in run.folder.iterdir()) == ["config.json", "corpus.json", "vocabulary.json"]
    assert (run.folder / "config.json").read_text().startswith('{\n  "seed": 0,\n  "data": {\n    "corpus"')
    assert json.loads((run.folder / "corpus.json").read_text()) == {
        "corpus": "king_james",
        "sha256": "0688b4e0e4c54100e86ca5028e7d66088c11b8c308c5cf2f965098eaab98e340",
        "characters": len(TEXT),
    }


def test_a_run_says_what_wrote_it(tmp_path: Path) -> None:
    path = begin(tmp_path).folder / "config.json"
    written_by = json.loads(path.read_text())["written_by"]
    assert re.fullmatch("[0-9a-f]{16}", written_by.pop("run"))
    assert written_by == {each: version(each) for each in ("charlstm", "jax", "flax", "orbax-checkpoint")}
    assert not Run.open(tmp_path).program
    made = Run.create(tmp_path / "own", Experiment(), Vocabulary.of(TEXT), Fingerprint.of("a", TEXT), program=True)
    assert Run.open(tmp_path / "own") == made and made.program
    longer = made.extended(Experiment(train=TrainConfig(steps=2000)), 1500)
    assert longer.program and Run.open(tmp_path / "own") == longer
    path.write_text(json.dumps(to_dict(Experiment())))  # as runs were written at first
    assert Run.open(tmp_path).config == Experiment()


@pytest.mark.parametrize(
    ("theirs", "why"),
    [("99.1", "written by charlstm 99.1, newer than this one"), ("0.0.1", "a newer one"), (None, "a newer one")],
)
def test_a_run_of_a_newer_version_is_told_apart(tmp_path: Path, theirs: str | None, why: str) -> None:
    path = begin(tmp_path).folder / "config.json"
    values = json.loads(path.read_text())
    values["written_by"]["charlstm"] = theirs
    path.write_text(json.dumps(values))
    run = Run.open(tmp_path)
    assert run.config == Experiment()  # it has no field that is not known here
    assert bool(run.newer) == (theirs == "99.1")
    path.write_text(json.dumps(values | {"warp": 9}))
    assert why in (line := refused(tmp_path)) and "there is no field warp" in line and "malformed" not in line
    path.write_text(json.dumps(values | {"written_by": 3}))
    assert "written_by must be an object" in refused(tmp_path)


def test_a_run_keeps_the_versions_of_before(tmp_path: Path) -> None:
    path = begin(tmp_path).folder / "config.json"
    old = json.loads(path.read_text())
    ours, id_ = old["written_by"], {"run": old["written_by"].pop("run")}
    for before in (None, 3, [3], [{"jax": 3, "step": "x"}]):  # what a stranger may write there
        path.write_text(json.dumps(old | {"written_by": ours | id_ | {"before": before}}))
        assert all(each == {} for each in Run.open(tmp_path).before)
    path.write_text(json.dumps(old | {"written_by": ours | id_ | {"jax": "0.0.1"}}))
    run = Run.open(tmp_path)
    assert run.extended(run.config, 7).before == ({**ours, "jax": "0.0.1", "step": 7},)
    assert json.loads(path.read_text())["written_by"] == ours | id_ | {"before": [{**ours, "jax": "0.0.1", "step": 7}]}
    again = Run.open(tmp_path)
    assert again.extended(again.config, 9).before == again.before


def test_a_cell_that_no_one_registered_is_no_malformed_file(tmp_path: Path) -> None:
    path = begin(tmp_path).folder / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"model": values["model"] | {"cell": "mygru"}}))
    line = refused(tmp_path)
    assert "import the file that calls charlstm.register_cell('mygru', ...) first" in line
    assert "malformed" not in line and "mean" not in line


def test_a_run_is_not_begun_twice(tmp_path: Path) -> None:
    assert not Run.exists(tmp_path)
    begin(tmp_path)
    assert Run.exists(tmp_path)
    with pytest.raises(InputError, match=r"already holds config\.json; use another --run-dir"):
        begin(tmp_path)
    (tmp_path / "config.json").unlink()
    begin(tmp_path)  # as after a crash before config.json was there


def test_other_peoples_checkpoints_are_not_continued(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match="already holds checkpoints"):
        begin(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "run", tmp_path / ("x" * 300)):
        with pytest.raises(InputError, match=r"the run folder .* cannot be made: .*; use another --run-dir"):
            begin(folder)


def test_what_is_not_a_run_is_told_apart(tmp_path: Path) -> None:
    assert "there is no folder" in refused(tmp_path / "absent")
    assert "there is no folder" in refused(tmp_path / ("x" * 300))
    assert "it is not a run" in refused(tmp_path)
    (tmp_path / "config.json").mkdir()
    assert "there is no file" in refused(tmp_path)


MALFORMED = [
    b"",
    b"\xff",
    b"{",
    b"[]",
    b"3",
    b'{"seed": NaN}',
    b'{"seed": 1e999}',
    b'{"seed": "\\u001b[31m"}',
    b'{"a\\nb\\u001b": 1}',
    b'{"model": {"cell": "import os"}}',
    b'{"seed": ' + b"9" * 10_000 + b"}",
    b"[" * 200_000,
    b'{"model":' * 100_000,
    b"__import__('os')",
]


@pytest.mark.parametrize("name", ["config.json", "corpus.json", "vocabulary.json"])
@pytest.mark.parametrize("content", MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_files_are_refused_in_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    begin(tmp_path)
    (tmp_path / name).write_bytes(content)
    assert str(tmp_path / name) in refused(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "corpus.json", "vocabulary.json"])
def test_missing_huge_and_endless_files_are_refused(tmp_path: Path, name: str) -> None:
    begin(tmp_path)
    path = tmp_path / name
    with path.open("r+b") as file:
        file.truncate(LIMIT * 2)
    assert str(path) in refused(tmp_path)
    path.unlink()
    assert str(path) in refused(tmp_path) or "not a run" in refused(tmp_path)
    os.mkfifo(path)
    assert f"there is no file {path}" in refused(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["config.json", "corpus.json", "vocabulary.json", "metrics.jsonl", "checkpoints", "samples", "tensorboard"],
)
def test_a_link_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    run = begin(tmp_path / "run")
    path, outside = run.folder / name, tmp_path / "outside"
    outside.write_text("{}")
    for target in (outside, tmp_path / "nowhere", Path("..") / "outside", path):  # the last is a loop
        path.unlink(missing_ok=True)
        path.symlink_to(target)
        assert f"{path} is a symbolic link that leads out" in refused(run.folder)
    assert outside.read_text() == "{}"


def test_a_link_that_stays_inside_is_followed(tmp_path: Path) -> None:
    run = begin(tmp_path / "run")
    (run.folder / "config.json").rename(run.folder / "original.json")
    (run.folder / "config.json").symlink_to("original.json")
    (tmp_path / "other name").symlink_to(run.folder)
    assert Run.open(tmp_path / "other name").config == run.config


def test_a_changed_text_is_refused(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.check_text(Fingerprint.of("elsewhere.txt", TEXT), run.vocabulary)
    for other in (TEXT + "x", TEXT[:-1] + "x", ""):
        with pytest.raises(InputError, match=r"the text of king_james changed since .* began") as error:
            Run.open(tmp_path).check_text(Fingerprint.of("king_james", other), run.vocabulary)
        assert str(error.value).isprintable()
        assert str(error.value).endswith("or train on this one in another --run-dir")  # eval has no such option


ALL_FIELDS = list(flat(Experiment()))


FREE = {"data.corpus", "model.recurrence", *(name for name in ALL_FIELDS if name.startswith(("train.", "sample.")))}


@given(configs, configs, st.integers(0, 10**9), st.booleans())
def test_what_changes_no_update_may_change_and_the_rest_is_named(
    old: Experiment, new: Experiment, step: int, allow: bool
) -> None:
    before, after = flat(old), flat(new)
    changed = {name for name in ALL_FIELDS if before[name] != after[name]} - FREE
    fixed = changed - {"optimizer.learning_rate", "model.dropout"}
    if not (fixed or (changed and not allow) or new.train.steps < step):
        assert continued(old, new, step, allow_change=allow) == new
        return
    with pytest.raises(InputError, match="use another --run-dir") as error:
        continued(old, new, step, allow_change=allow)
    told = str(error.value)
    assert told.isprintable()
    named = set(re.findall(r"([a-z_.0-9]+) was ", told))
    assert named == (fixed or (set() if allow else changed)) or len(told) > 2000
    assert ("steps, so train.steps cannot be" in told) == (not named)
    assert ("--allow-change" in told) == (not fixed and bool(changed) and not allow)


@given(configs, st.sampled_from(["fast", "plain", "auto"]), st.sampled_from(["fast", "plain", "auto"]))
def test_the_time_loop_is_the_run_s_own_unless_another_is_named(config: Experiment, before: Any, after: Any) -> None:
    old, new = (
        dataclasses.replace(config, model=dataclasses.replace(config.model, recurrence=each))
        for each in (before, after)
    )
    assert continued(old, new) == (old if after == "auto" else new)


def test_a_refused_change_is_told_with_both_values() -> None:
    old, new = Experiment(), Experiment(seed=3, data=DataConfig(batch_size=3), optimizer=OptimizerConfig(b1=0.5))
    with pytest.raises(InputError, match=r"seed was 0 and is 3, data\.batch_size was 32 and is 3; this cannot change"):
        continued(old, new, allow_change=True)
    # The state has another form with these.
    for other, told in (
        (OptimizerConfig(weight_decay=0.1), r"weight_decay was 0\.0 and is 0\.1"),
        (OptimizerConfig(method="muon"), "method was 'adam' and is 'muon'"),
    ):
        with pytest.raises(InputError, match=f"{told}; this cannot change"):
            continued(old, Experiment(optimizer=other), allow_change=True)


def test_a_comparison_s_folder_names_a_run_in_it(tmp_path: Path) -> None:
    (tmp_path / "grid.json").write_text("{}")
    with pytest.raises(InputError, match="is a comparison; give one of its runs, or use `charlstm compare`"):
        Run.open(tmp_path)
    run = begin(tmp_path / "rnn-1x16" / "seed-3")
    with pytest.raises(InputError, match=f"give one of its runs, such as {re.escape(str(run.folder))}, or"):
        Run.open(tmp_path)


def test_a_run_records_from_which_step_on_it_changed(tmp_path: Path) -> None:
    run = begin(tmp_path)
    assert run.extended(run.config, 7) == run
    longer = Experiment(train=TrainConfig(steps=2000, sample_every=5), sample=SampleConfig(length=3))
    assert run.extended(longer, 1500).config == Run.open(tmp_path).config == longer
    slower = dataclasses.replace(longer, optimizer=OptimizerConfig(learning_rate=1e-4))
    made = Run.open(tmp_path).extended(slower, 1800, allow_change=True)
    assert Run.open(tmp_path) == made
    assert made.changes == (
        Change(step=1500, field="train.steps", was=1500, now=2000),
        Change(step=1800, field="optimizer.learning_rate", was=6e-3, now=1e-4),
    )
    told = "from 1,500 to 2,000 at step 1,500", "from 0.006 to 0.0001 at step 1,800"
    assert all(str(each).endswith(line) for each, line in zip(made.changes, told, strict=True))
    with pytest.raises(InputError, match=r"has made 1,800 steps, so train\.steps cannot be 1,500; 1800 ends"):
        made.extended(dataclasses.replace(slower, train=TrainConfig()), 1800)
    # Newer checkpoints were lost, so that steps from 1700 on are trained anew.
    assert [each.step for each in made.extended(slower, 1700).changes] == [1500, 1700]


@pytest.mark.parametrize("content", [3, [3], [{"step": 1}], [{"step": -1, "field": "a", "was": 1, "now": 2}]])
def test_malformed_changes_are_refused(tmp_path: Path, content: Any) -> None:
    path = begin(tmp_path).folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"changes": content}))
    assert "config.json is malformed: changes" in refused(tmp_path)


@pytest.mark.parametrize("name", ["vocabulary.json", "corpus.json", "samples", "tensorboard", "checkpoints"])
def test_what_lies_there_already_is_not_replaced(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("my own")
    with pytest.raises(InputError, match=f"already holds {name}; use another --run-dir, or move it away"):
        begin(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == [name] and path.read_text() == "my own"


@given(st.text(st.characters(exclude_categories=[])), st.integers(0, 10**9))
def test_samples_are_written_as_they_are(tmp_path_factory: pytest.TempPathFactory, text: str, step: int) -> None:
    run = begin(tmp_path_factory.mktemp("run"))
    path = run.write_sample(step, "overwritten")
    assert run.write_sample(step, text) == path == run.folder / "samples" / f"{step}.txt"
    assert path.read_bytes().decode("utf-8", "surrogatepass") == text
    assert [path.name for path in (run.folder / "samples").iterdir()] == [f"{step}.txt"]


def test_writing_follows_no_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    run = begin(tmp_path / "run")
    (run.folder / "samples").mkdir()
    (run.folder / "samples" / "7.txt").symlink_to(precious)
    (run.folder / "samples" / ".7.txt.tmp").symlink_to(precious)
    assert run.write_sample(7, "text").read_text() == "text"
    assert precious.read_text() == "mine"


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError("no space left on device")

    write_atomic(tmp_path / "file", b"old")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(os, "fsync", fail)
        write_atomic(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    write_atomic(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    (tmp_path / ".file.tmp").mkdir()  # which cannot be removed as a file
    with pytest.raises(OSError) as error:  # noqa: PT011 - which one is the system's own
        write_atomic(tmp_path / "file", b"newer")
    assert error.value.filename == str(tmp_path / "file")


finite = st.floats(allow_nan=False, allow_infinity=False)
records = st.builds(
    lambda step, rest: {"step": step, **rest},
    st.integers(0, 50),
    st.dictionaries(st.text(max_size=3).filter(lambda key: key != "step"), finite | st.text(max_size=9) | st.none()),
)


def exactly(values: list[dict[str, Any]]) -> str:
    return repr(values)  # -0.0 and 0.0 are equal, but not the same


@given(st.lists(records, max_size=8), st.lists(st.booleans(), min_size=8, max_size=8))
def test_metrics_come_back_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, written: list[dict[str, Any]], between: list[bool]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    with Metrics(folder / "metrics.jsonl", 0) as metrics:
        for record, flushed in zip(written, between, strict=False):
            metrics.append(record)
            if flushed:
                metrics.flush()
                assert exactly(read(folder)[-1:]) == exactly([record])
    assert exactly(read(folder)) == exactly(written)


@given(st.lists(records, min_size=1, max_size=5), st.data())
def test_a_file_torn_anywhere_keeps_its_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, written: list[dict[str, Any]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("run")
    path = folder / "metrics.jsonl"
    with Metrics(path, 0) as metrics:
        for record in written:
            metrics.append(record)
    content = path.read_bytes()
    torn = content[: data.draw(st.integers(0, len(content)))]
    path.write_bytes(torn)
    whole = written[: torn.count(b"\n")]
    assert exactly(read(folder)) == exactly(whole)
    step = data.draw(st.integers(-1, 50))
    with Metrics(path, step) as metrics:
        whole = [record for record in whole if record["step"] <= step]
        assert path.read_bytes() in (b"", path.read_bytes().rstrip(b"\n") + b"\n")
        assert exactly(read(folder)) == exactly(whole)
        metrics.append({"step": 51})
    assert exactly(read(folder)) == exactly([*whole, {"step": 51}])


def test_a_run_that_goes_on_from_an_earlier_step_writes_its_lines_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Metrics(path, 3) as metrics:
        assert read(tmp_path) == []
        for step in range(4):
            metrics.append({"step": step})
    with Metrics(path, 1) as metrics:
        metrics.append({"step": 2, "again": True})
    assert read(tmp_path) == [{"step": 0}, {"step": 1}, {"step": 2, "again": True}]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_never_written(tmp_path: Path, value: float) -> None:
    with Metrics(tmp_path / "metrics.jsonl", 0) as metrics:
        metrics.append({"step": 1})
        for record in ({"step": 2, "loss": value}, {"step": 2, "nested": [{"loss": value}]}):
            with pytest.raises(ValueError, match="not JSON compliant"):
                metrics.append(record)
    assert read(tmp_path) == [{"step": 1}]


GARBAGE = [
    b"",
    b"garbage",
    b"\xff",
    b"[1]",
    b"{}",
    b'{"step": "1"}',
    b'{"step": 1, "loss": NaN}',
    b"[" * 100_000,
    b"\0",
]


@pytest.mark.parametrize("line", GARBAGE, ids=range(len(GARBAGE)))
def test_a_garbage_line_is_refused_by_number(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    content = b'{"step": 1}\n' + line + b'\n{"step": 2}\n'
    path.write_bytes(content)
    for use in (lambda: read(tmp_path), lambda: Metrics(path, 1)):
        with pytest.raises(InputError, match=re.escape(f"line 2 of {path} ") + "(is no|has more than)") as error:
            use()
        assert str(error.value).isprintable()
    assert path.read_bytes() == content


def test_a_folder_named_as_the_metrics_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(InputError, match="is not a file"):
        read(tmp_path)


@given(st.text(st.characters(exclude_categories=[])))
def test_one_line_is_one_printable_line(text: str) -> None:
    assert one_line(text).isprintable() and len(one_line(text, 50)) <= 53


def test_a_run_that_was_copied_as_hard_links_leaves_the_other_s_metrics(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "metrics.jsonl", tmp_path / "theirs"
    theirs.write_bytes(b'{"step": 1}\n')
    ours.hardlink_to(theirs)
    with Metrics(ours, 1) as metrics:
        assert metrics.best == math.inf
        metrics.append({"step": 2})
    assert theirs.read_bytes() == b'{"step": 1}\n'
    assert read(tmp_path) == [{"step": 1}, {"step": 2}]


def test_metrics_go_to_the_folder_that_was_opened(tmp_path: Path) -> None:
    """Neither to another that has taken its name, nor through a link that was put there after the check."""
    (tmp_path / "run").mkdir()
    with Metrics(tmp_path / "run" / "metrics.jsonl", 0) as metrics:
        (tmp_path / "run").rename(tmp_path / "moved")
        (tmp_path / "run").mkdir()
        metrics.append({"step": 1})
    assert read(tmp_path / "moved") == [{"step": 1}] and not list((tmp_path / "run").iterdir())
    with Metrics(tmp_path / "run" / "metrics.jsonl", 0) as metrics, pytest.raises(OSError, match="symbolic link"):
        (tmp_path / "run" / "metrics.jsonl").symlink_to(tmp_path / "moved" / "metrics.jsonl")
        metrics.append({"step": 2})
    assert read(tmp_path / "moved") == [{"step": 1}]


def test_metrics_that_memory_would_not_hold_are_not_read_but_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "split": "validation", "loss": 2.5}\n' * 500)
    monkeypatch.setattr("charlstm.runs.metrics.memory", lambda: 2**20)
    with pytest.raises(InputError, match="too little memory for its records"):
        read(tmp_path)
    with Metrics(path, 1) as metrics:
        assert metrics.best == 2.5


def test_event_files_are_in_order_whatever_the_clock_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard reads them by name; a colon in the folder's means nothing."""
    monkeypatch.chdir(tmp_path)
    made = list[str]()
    for now in (2000, 1000, 3000):
        monkeypatch.setattr("charlstm.runs.metrics.time.time_ns", lambda now=now: now)
        with TensorBoard(Path("s3:board"), 0) as board:
            board.add({"step": 1, "loss": 1.0})
        (new,) = {path.name for path in (tmp_path / "s3:board").iterdir()} - set(made)
        made.append(new)
    assert made == sorted(made)


def test_an_event_file_is_one_of_tf_records(tmp_path: Path) -> None:
    """As tensorboardX writes them, whose own writer has no way to flush without a wait for the disk."""
    from tensorboardX.proto import event_pb2
    from tensorboardX.record_writer import RecordWriter

    with TensorBoard(tmp_path, 4) as board:
        board.add({"step": 5, "split": "validation", "loss": 1.5})
        (path,) = tmp_path.iterdir()
        assert path.stat().st_size == 0
        board.show()
        data, events = path.read_bytes(), list[Any]()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        events.append(event_pb2.Event.FromString(data[12 : 12 + length]))  # type: ignore[attr-defined]
        data = data[16 + length :]
    assert [event.step for event in events] == [5, 5, 5]
    (value,) = events[-1].summary.value
    assert (value.tag, value.simple_value) == ("validation/loss", 1.5)
    writer = RecordWriter(str(tmp_path / "theirs"))
    for event in events:
        writer.write(event.SerializeToString())
    writer.close()
    assert (tmp_path / "theirs").read_bytes() == path.read_bytes()


def test_a_container_s_memory_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = process.memory()
    for content, found in (("1000\n", 1000), ("max\n", whole), (str(2**63), whole)):
        (tmp_path / "memory.max").write_text(content)
        monkeypatch.setattr(process, "_CONTAINER", [str(tmp_path / "memory.max"), str(tmp_path / "none")])
        assert process.memory() == found
