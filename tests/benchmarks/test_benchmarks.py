"""The benchmarks: work is counted right, contenders are sane, turns and tables hold. Nothing here asserts a time."""

import json
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import assert_refused

import charlstm
from benchmarks import (
    expected,
    growth,
    inputs,
    int8,
    profile,
    report,
    rounds,
    spreads,
    startup,
    summary,
    sweep,
    table,
    together,
)
from benchmarks.__main__ import main
from benchmarks.contenders import PACKAGES, installed
from benchmarks.deadline import Deadline
from benchmarks.jobs import Job, Kind
from benchmarks.rounds import Measured
from benchmarks.rows import TASKS, Amounts, make_row
from benchmarks.shapes import SIZES, Size, forward_operations, streamed_bytes, training_operations

TINY = Size(2, 3, 4, 2, vocabulary=5)
SMALL = Size(4, 6, 8, 2)
pytestmark = pytest.mark.slow


@given(st.tuples(*[st.integers(1, 10_000)] * 4))
def test_a_size_is_read_as_it_is_written(counts: tuple[int, int, int, int]):
    assert Size.parse(str(Size(*counts))) == Size(*counts)


def test_operations_equal_a_count_by_hand():
    # A character of V=5 through two layers of H=4: [4]·[4,16] for h of both and for x of the second, and [4]·[4,5].
    a_character = 3 * (2 * 4 * 16) + 2 * 4 * 5
    assert forward_operations(TINY) == 6 * a_character == 2544
    # Backward twice as much, but for the product with Wᵀ at each layer's first step, of 2 rows.
    assert training_operations(TINY) == 3 * 2544 - 2 * 2 * (2 * 4 * 16)


def test_streamed_bytes_are_those_of_the_parameters_but_for_the_first_kernel():
    jax = pytest.importorskip("jax")
    from charlstm.config import ModelConfig
    from charlstm.core.network import Model

    params = Model(ModelConfig(hidden_size=4, num_layers=2), 5).init(jax.random.key(0))
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert streamed_bytes(TINY) == whole - 4 * (5 * 16) + 4 * 16


def test_windows_continue_one_another_with_targets_one_later():
    windows = inputs.windows(SMALL)
    first, second = next(windows), next(windows)
    for inputs_, targets in (first, second):
        np.testing.assert_array_equal(inputs_[:, 1:], targets[:, :-1])
    np.testing.assert_array_equal(first[1][:, -1], second[0][:, 0])


WORK: list[tuple[str, Kind]] = [
    ("flax-scan", "train"),
    ("flax-rnn", "train"),
    *((name, kind) for name in ("haiku", "keras", "pytorch") for kind in ("eval", "sample")),
]
"""charlstm's own is done below, from the command on; that all train is seen by their parity."""


@pytest.mark.parametrize(("name", "kind"), WORK)
def test_a_contender_does_the_work_and_begins_near_chance(name: str, kind: Kind, tmp_path: Path):
    if not installed(name):
        pytest.skip(f"{name} is not installed; it is in the extra `bench`")
    job = Job(name, kind, SMALL, streams=2, length=3)
    answers = rounds.start(job, tmp_path, Deadline(300))
    if kind == "sample":
        assert answers["first_value"] == answers["amount"] == 6
    else:
        assert answers["first_value"] == pytest.approx(np.log(SMALL.vocabulary), rel=0.05)
        assert answers["amount"] == SMALL.characters
    assert answers["run_seconds"] > 0


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the command writes of one row of charlstm alone."""
    out = tmp_path_factory.mktemp("compared") / "results.json"
    words = ["--only", "train", "--sizes", "2x3x4x1", "--starts", "2", "--rounds", "2", "--peers", "none"]
    words += ["--settings", "equal", "--out", str(out)]
    assert main(words) == 0
    return json.loads(out.read_text())


def test_a_comparison_keeps_every_raw_second_of_every_round(compared: dict[str, Any]):
    (row,) = compared["rows"]
    assert (row["task"], row["size"], row["floor"], row["settings"]) == ("train", "2x3x4x1", "products", "equal")
    assert len(row["starts"]) == 2
    for ours, *others in row["starts"]:
        assert ours["contender"] == "charlstm" and ours["error"] is None
        assert len(ours["seconds"]) == 2 and all(second > 0 for runs in ours["seconds"] for second in runs)
        assert ours["first_value"] == pytest.approx(np.log(83), rel=0.05)
        assert {each["contender"] for each in others} <= {"floor-jax", "floor-pytorch"}
        assert all(len(each["seconds"]) == 2 for each in others)


def test_a_comparison_says_what_was_typed_and_that_the_contenders_do_the_same(compared: dict[str, Any]):
    assert compared["command"].startswith("python -m benchmarks --only train --sizes 2x3x4x1 --starts 2")
    (parity,) = compared["parity"]
    assert (parity["contender"], parity["settings"], parity["error"]) == ("charlstm", "equal", None)


def test_a_contender_without_parity_is_not_timed(tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]):
    def start(job: Job, *_: Any) -> dict[str, float]:
        if job.contender == "pytorch":
            raise rounds.WorkerError("no parity: losses are off by 1.0e-02")
        return {"first_value": 0.0}

    timed = list[str]()
    monkeypatch.setattr(rounds, "start", start)
    monkeypatch.setattr(rounds, "measure", lambda jobs, *_: timed.extend(job.contender for job in jobs) or [])
    monkeypatch.setattr("benchmarks.__main__.present", lambda *_, **__: ["pytorch"])
    out = tmp_path / "results.json"
    words = ["--only", "train", "--sizes", "2x3x4x1", "--settings", "equal", "--out", str(out)]
    assert main([*words, "--starts", "1"]) == 0
    assert timed[0] == "charlstm" and "pytorch" not in timed
    said = "no parity: losses are off by 1.0e-02"
    assert f"parity of pytorch, equal settings: not timed: {said}" in capsys.readouterr().out
    assert json.loads(out.read_text())["parity"][1]["error"] == said
    assert main([*words, "--parity"]) == 1


def test_a_comparison_says_which_machine_and_versions_but_no_place(compared: dict[str, Any]):
    assert compared["machine"]["cores"] >= 1 and compared["machine"]["versions"]["jax"]
    text = json.dumps(compared)
    assert socket.gethostname() not in text and str(Path.home()) not in text and str(Path.cwd()) not in text


def test_a_start_is_measured_from_an_empty_cache_and_from_a_full_one(capsys: pytest.CaptureFixture[str]):
    row = make_row("compile", Size(2, 3, 4, 1), ["charlstm"], [], Amounts())
    (starts,) = startup.measure(row.jobs, 1, Deadline(300))
    assert starts["error"] is None and len(starts["cold"]) == len(starts["warm"]) == 1
    assert "charlstm" in report.start_table(row, [starts])


def test_a_sweep_draws_what_it_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("matplotlib", reason="the extra `report` is not installed")
    out, picture = tmp_path / "sweep.json", tmp_path / "sweep.png"
    words = ["--base", "2x3x4x1", "--axes", "T", "--factors", "2", "--rounds", "1"]
    assert sweep.main([*words, "--out", str(out), "--plot", str(picture)]) == 0
    (point,) = json.loads(out.read_text())["points"]
    assert (point["axis"], point["factor"], point["size"]) == ("T", 2, "2x6x4x1")
    assert picture.stat().st_size > 5_000
    assert "T × 2" in capsys.readouterr().out


def test_seeds_together_and_one_after_the_other_are_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "text.txt").write_text("a text of some length, " * 200)
    data = f"DataConfig(corpus={str(tmp_path / 'text.txt')!r}, batch_size=2, seq_length=8)"
    base = f"Experiment(data={data}, train=TrainConfig(steps=40), sample=SampleConfig(length=5))"
    (tmp_path / "grid.py").write_text(
        f"from charlstm.config import *\nGRID = Grid(cells=('lstm', 'rnn'), layers=(1, 2), sizes=(8,), base={base})\n"
    )
    out = tmp_path / "together.json"
    words = [str(tmp_path / "grid.py"), "--seeds", "2", "--steps", "2", "--rounds", "1", "--out", str(out)]
    assert together.main(words) == 0
    found = json.loads(out.read_text())
    assert (found["model"], found["config"]["train"]["steps"]) == ("lstm-1x8", 2)
    assert found["ratio"] == [found["together"][0] / found["alone"][0]]
    assert "lstm-1x8, 2 seeds of 2 steps" in capsys.readouterr().out
    assert_refused(together.main, [*words, "--cell", "gru"], "no model with the cell gru; there are lstm, rnn", capsys)


def test_a_worker_that_fails_is_named_and_the_others_go_on():
    jobs = [Job("nobody", "train", SMALL), Job("floor-jax", "weights", SMALL)]
    *failed, other = rounds.measure(jobs, 1, 0.01, Deadline(300))
    assert all(each.error and not each.seconds for each in failed)
    assert other.error is None and len(other.seconds) == 1
    row = replace(make_row("sample", SMALL, [], [], Amounts()), jobs=tuple(jobs))
    assert "there is no contender 'nobody'" in report.rate_table(row, [[*failed, other]])


def test_runs_far_slower_than_their_turn_are_counted():
    row = make_row("train", SMALL, ["charlstm", "pytorch"], [], Amounts())
    seconds = [[[1.0, 1.2, 1.4], [5.0, 5.0]], [[2.0]]]
    built = {"amount": 1, "build_seconds": 1.0, "first_seconds": 1.0}
    measured = [Measured(job, each, built) for job, each in zip(row.jobs, seconds, strict=True)]
    said = "runs above 1.3 × the median of their turn: charlstm 0 of 5, pytorch 0 of 1"
    assert said in report.rate_table(row, [measured])
    seconds[0][1] = [5.0, 5.0, 6.6]
    assert said.replace("0 of 5", "1 of 6") in report.rate_table(row, [measured])


def test_no_answer_is_awaited_past_the_deadline():
    (measured,) = rounds.measure([Job("charlstm", "train", SMALL)], 1, 0.01, Deadline(0.0))
    assert measured.error == "gave no answer in time"


def test_ratios_compare_runs_of_the_same_round():
    # The machine is three times slower in the second round, for both.
    ours, baseline = [[1.0, 1.0, 9.0], [3.0]], [[2.0], [6.0]]
    assert spreads.ratio(ours, baseline) == spreads.Spread(2.0, 2.0, 2.0)
    slow, quick = (10.0, [[1.0], [5.0]]), (10.0, [[2.0], [1.0]])
    assert spreads.fraction([[1.0], [1.0]], 5.0, [slow, quick]) == spreads.Spread(0.5, 0.5, 0.5)
    assert spreads.ratio([], baseline) is None


def test_spreads_are_over_processes():
    of_starts = [spreads.Spread(1.0, 0.5, 9.0), None, spreads.Spread(3.0, 3.0, 3.0), spreads.Spread(2.0, 0.1, 2.0)]
    assert spreads.over_starts(of_starts) == spreads.Spread(2.0, 1.0, 3.0)
    assert spreads.over_starts([None]) is None


def test_both_readings_stand_side_by_side_with_the_aims():
    def start(ours: float, theirs: float) -> list[dict[str, Any]]:
        names = {"charlstm": ("train", ours), "pytorch": ("train", theirs), "floor-jax": ("products", 1.0)}
        return [{"contender": name, "kind": kind, "amount": 8, "seconds": [[s]]} for name, (kind, s) in names.items()]

    row = {"task": "train", "size": "100x100x512x2", "floor": "products", "needed": 4}
    rows = [
        row | {"settings": "shipped", "starts": [start(1.0, 2.0)]},
        row | {"settings": "equal", "starts": [start(1.0, 1.0), start(2.0, 1.0), start(2.0, 1.5)]},
    ]
    lines = [line.strip("|").split("|") for line in summary.side_by_side(rows).splitlines()[2:]]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["train 100x100x512x2", "pytorch", "2.00 [2.00, 2.00]", "0.750 [0.500, 1.00]", "1.15"],
        ["train 100x100x512x2", "% of the product rate", "50.0 [50.0, 50.0]", "25.0 [25.0, 50.0]", "–"],
    ]


def test_settings_give_all_libraries_what_charlstm_sets_itself(monkeypatch: Any):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_prefer_vector_width=256 --xla_backend_optimization_level=1")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "7")
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "7")
    shipped, jax, torch = (
        job.environment
        for job in (
            Job("haiku", "train", SMALL, settings="shipped"),
            Job("haiku", "train", SMALL, settings="equal"),
            Job("pytorch", "train", SMALL, settings="equal"),
        )
    )
    assert shipped["XLA_FLAGS"] == torch["XLA_FLAGS"] == "--xla_backend_optimization_level=1"
    assert jax["XLA_FLAGS"] == "--xla_backend_optimization_level=1 --xla_cpu_prefer_vector_width=512"
    assert "JAX_NUM_CPU_DEVICES" not in shipped | torch and 1 <= int(jax["JAX_NUM_CPU_DEVICES"]) <= 4
    assert not any(name.startswith("MALLOC") for name in shipped)
    malloc = {name: value for name, value in jax.items() if name.startswith("MALLOC")}
    assert malloc.items() <= torch.items() and set(malloc) == {
        "MALLOC_MMAP_MAX_",
        "MALLOC_TRIM_THRESHOLD_",
        "MALLOC_TOP_PAD_",
        "MALLOC_ARENA_MAX",
    }


def test_a_table_is_aligned_or_markdown():
    cells = [["charlstm", "1"], ["pytorch", "12.5"]]
    assert table.render(["", "ms"], cells).splitlines() == [
        "            ms",
        "--------  ----",
        "charlstm     1",
        "pytorch   12.5",
    ]
    _, rule, first, _ = table.render(["", "ms"], cells, markdown=True).splitlines()
    assert (rule, first) == ("| -------- | ---: |", "| charlstm |    1 |")


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234567, "1,230,000"), (99.96, "100"), (9.996, "10.0"), (0.012345, "0.0123"), (0, "0"), (None, table.NOTHING)],
)
def test_numbers_have_three_significant_digits(value: float | None, text: str):
    assert table.number(value) == text


@given(st.floats(1e-6, 1e9))
def test_a_number_is_read_back_to_three_digits(value: float):
    assert float(table.number(value).replace(",", "")) == pytest.approx(value, rel=0.0051)


def test_growth_is_against_the_base_in_the_same_round():
    base, size = SMALL, growth.scaled(SMALL, "B", 4)
    beside, point = (
        rounds.Measured(Job("charlstm", "train", each), seconds, {"import_bytes": 100}, peak)
        for each, seconds, peak in ((base, [[1.0], [2.0]], 200), (size, [[3.0], [6.0]], 500))
    )
    grown = growth.Growth("B", 4, size, base, point, beside)
    assert grown.time == spreads.Spread(3.0, 3.0, 3.0)
    assert (grown.memory, grown.operations) == (4.0, 4.0)
    assert growth.growth_table([grown]).splitlines()[2].split()[-6:] == ["3.00]", "0.750", "0.750", "0", "4.00", "1.00"]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("size", SIZES)
def test_a_row_is_for_all_contenders_and_its_rate_for_none_of_them(task: Any, size: Size):
    row = make_row(task, size, ["charlstm", "pytorch"], ["floor-jax"], Amounts())
    labels = {job.contender for job in row.contenders}
    assert labels == {"charlstm", "pytorch"}
    assert (row.rate is None) == (row.needed == 0) == (len(row.jobs) == len(row.contenders))


def test_text_is_timed_from_int8_too(capsys: pytest.CaptureFixture[str]):
    assert int8.main(["--size", "1x1x16x1", "--starts", "1", "--length", "70"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["float32", "int8", "int8"]
    assert_refused(int8.main, ["--starts", "0"], "at least 1", capsys)


@pytest.mark.parametrize("command", [main, sweep.main, together.main])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rounds", "0"], "at least 1"),
        (["--nonsense"], "--nonsense"),
        (["--out", "/"], "--out /"),
        (["--out", "/no/such/folder/x.json"], "folder that exists"),
    ],
)
def test_a_wrong_argument_is_one_line_and_exit_code_2(
    command: Any, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
):
    assert_refused(command, words, said, capsys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "trian"], "did you mean train?"),
        (["--peers", "theano"], "there is no peer 'theano'"),
        (["--sizes", "100x100x512"], "BxTxHxL"),
        (["--sizes", "0x1x1x1"], "BxTxHxL"),
    ],
)
def test_a_wrong_word_of_a_comparison_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert_refused(main, words, said, capsys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--base", "book"], "BxTxHxL"),
        (["--axes", "T,X"], "there is no axis 'X'"),
        (["--factors", "2,x"], "whole number"),
        (["--contender", "theano"], "theano"),
    ],
)
def test_a_wrong_word_of_a_sweep_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert_refused(sweep.main, words, said, capsys)


def test_a_peer_that_is_asked_for_and_missing_is_named(monkeypatch: Any, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setitem(PACKAGES, "keras", ("no_such_package",))
    assert_refused(main, ["--peers", "keras"], "pip install -e '.[bench]'", capsys)


def test_a_profile_counts_the_kernels_of_a_step(capsys: pytest.CaptureFixture[str]):
    assert profile.main([str(SMALL), "--steps", "2", "--rows", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[0] == "kernel" and len(lines) == 7
    assert sum(calls for _, calls in profile.kernel_times(SMALL, 2).values()) >= 2 * SMALL.layers * SMALL.time


@pytest.mark.slow
def test_expected_losses_are_those_of_the_runs_that_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    how = ["--corpora", "recall_32", "--sizes", "1x4", "--steps", "2,4", "--folder", str(tmp_path)]
    assert expected.main(how) == 0
    table = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")] for line in table.splitlines()[2:]]
    assert [row[1:3] for row in rows] == [["1 × 4", "2"], ["1 × 4", "4"]]
    assert f"{charlstm.load_run(tmp_path / 'recall_32-1x4-4').evaluate().loss:.3f}" in table
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("checkpoints/*")}
    assert expected.main(how) == 0
    assert capsys.readouterr().out == table
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("checkpoints/*")} == before


@pytest.mark.parametrize("sizes", ["1", "1x2x3", "1xa", "0x4"])
def test_expected_losses_need_sizes(sizes: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        expected.main(["--sizes", sizes])
    assert stop.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
