"""The long checks can fail, and do at a small scale here what they do at a large one by hand."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from benchmarks import endurance, kills, soak, stops
from benchmarks.aim import Aim, environment, shoot


@pytest.mark.slow
def test_killed_runs_end_with_the_same_bits(tmp_path: Path) -> None:
    """Law 5, in the first compilation, a step, a save and a validation, each of which kills itself."""
    found = kills.kill_runs(tmp_path, runs=4, jobs=2, seed=54, certain=True)  # a kill each
    assert found["different"] == {}
    assert found["kills"] >= 4
    assert set(found["killed in"]) >= set(kills.AIMED)
    alone, other = tmp_path / "alone", tmp_path / "other"
    for name, change in (
        ("metrics.jsonl", lambda text: text + text.splitlines()[-1] + "\n"),  # a step that was written twice
        ("samples/20.txt", str.upper),
        (f"checkpoints/{kills.STEPS}/integrity/integrity.json", lambda text: text.replace("sha256", "sha", 1)),
        (f"checkpoints/{kills.STEPS}/integrity/integrity.json", lambda text: text.replace("_loss", "loss", 1)),
    ):
        shutil.copytree(alone, other)
        assert kills.differences(alone, other) == []
        (other / name).write_text(change((other / name).read_text()))
        assert len(kills.differences(alone, other)) == 1
        shutil.rmtree(other)
    end = shoot(
        ["train", "--run-dir", str(alone), "--seed", "9"],
        Aim("step", 1, 0, signal.SIGTERM),
        environment(tmp_path / "cache"),
    )
    assert not end.hit and end.code == 2 and "began with another config" in end.said


@pytest.mark.parametrize(
    ("saved", "steps", "code", "says"),
    [
        ([4, 6], 6, 143, None),
        ([4], 6, 143, "checkpoints of"),
        ([6], 6, 0, "exit code 0"),
        ([], 0, 143, "checkpoints of"),
    ],
)
def test_a_stop_that_lost_something_is_told(
    tmp_path: Path, saved: list[int], steps: int, code: int, says: str | None
) -> None:
    for step in saved:
        (tmp_path / "checkpoints" / str(step)).mkdir(parents=True)
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps({"step": step + 1}) + "\n" for step in range(steps)))
    found = stops._complaint(tmp_path, 143, code)
    assert found == says if says is None else says in str(found)


@pytest.mark.slow
def test_runs_are_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stops, "_PHASES", {"step": 0.1})
    monkeypatch.setattr(stops, "_words", lambda folder: ["train", "--run-dir", str(folder), *kills.WORDS])
    found = stops.stop_runs(tmp_path, times=1, seed=1)
    assert found["wrong"] == []
    assert sum(each["stops"] for each in found["seconds"].values()) == 2


def test_growth_and_slowness_are_measured() -> None:
    samples = [(5.0 * number, 100e6 + 5e6 * number / 12) for number in range(720)]  # 5 MB a minute, for an hour
    assert endurance._memory(samples)["MB a minute"] == pytest.approx(5)
    assert endurance._memory([(second, 100e6) for second, _ in samples])["MB a minute"] == pytest.approx(0)
    steady = [{"chars_per_second": 2048.0} for _ in range(3600)]  # a second each
    found = endurance._speed(steady)
    assert (found["characters a second"], found["largest deviation"]) == (pytest.approx(2048), pytest.approx(0))
    slow = steady[:1800] + [{"chars_per_second": 1024.0} for _ in range(900)]
    assert endurance._speed(slow)["largest deviation"] > 0.3
    rarely = [{"chars_per_second": 2048.0 if step % 3 else 512.0} for step in range(1800)]  # which no median shows
    assert endurance._speed(steady[:1800] + rarely)["largest deviation"] > 0.3


def test_a_large_text_has_its_size_and_its_letters(tmp_path: Path) -> None:
    for letters in endurance._LETTERS.values():
        endurance._write(tmp_path / "text.txt", 2, letters)
        text = (tmp_path / "text.txt").read_bytes()
        assert len(text) == 2_000_000 and set(letters) <= set(text.decode())


def test_what_does_not_hold_is_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    every = dict.fromkeys(kills.AIMED, 1)
    for different, hit, failures in (
        ({}, every, []),
        ({"run-3": ["metrics.jsonl"]}, every, ["no difference"]),
        ({}, {"step": 5}, ["killed in each phase"]),
    ):

        def found(*_: Any, different: Any = different, hit: Any = hit) -> dict[str, Any]:
            return {"runs": 5, "killed in": hit, "different": different}

        monkeypatch.setattr(kills, "kill_runs", found)
        assert soak.main(["runs", "--runs", "5", "--out", str(tmp_path / "soak.json")]) == bool(failures)
        assert json.loads(capsys.readouterr().out)["failures"] == failures
    assert soak.main(["runs", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
