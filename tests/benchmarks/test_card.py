"""The ten minutes on a card, rehearsed: every part runs, one that fails costs its own figures, and aims are judged."""

import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

import pytest
from refusals import assert_refused

from benchmarks.card import WHEELS, page
from benchmarks.card.__main__ import _part, main
from benchmarks.card.parts import PARTS
from benchmarks.contenders import BASELINE

REPOSITORY = Path(__file__).resolve().parents[2]
ON_THE_CARD = ("jax", "flax", "optax", "orbax-checkpoint", "torch")
"""What a machine with a GPU has, with all that they need."""


NOT_INSTALLED = """
import importlib.metadata

found = importlib.metadata.version

def version(name):
    if name == "charlstm":
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)

importlib.metadata.version = version
"""
"""charlstm runs from the checkout."""


def needed_by(packages: Iterable[str]) -> set[str]:
    """Packages and what they require, by lower-case names."""
    found, waiting = set[str](), [*packages]
    while waiting:
        if (name := waiting.pop().lower().replace("_", "-")) not in found:
            found.add(name)
            with suppress(PackageNotFoundError):
                waiting += [each for each in map(named, requires(name) or []) if each]
    return found


def named(requirement: str) -> str | None:
    """The package of a requirement; None for one of an extra."""
    match = re.match(r"[\w.-]+", requirement)
    return match[0] if match and "extra ==" not in requirement else None


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, where only what a card's machine has and what is carried to it can be imported."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    there = needed_by([*ON_THE_CARD, *WHEELS])
    missing = {name for each in wanted if (name := named(each)) and name.lower() not in {*there, "charlstm"}}
    assert {"tyro", "pooch", "tensorboardX", "safetensors", "matplotlib"} <= missing
    for name in missing:
        module = name.removeprefix("dm-").replace("-", "_")
        (tmp_path / f"{module}.py").write_text(f"raise ModuleNotFoundError({name!r})\n")
    (tmp_path / "sitecustomize.py").write_text(NOT_INSTALLED)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def card(*words: str) -> "subprocess.CompletedProcess[str]":
    """The command, in a process of its own: the parent too must import no more than there is."""
    return subprocess.run([sys.executable, "-m", "benchmarks.card", *words], capture_output=True, text=True)


def test_the_parts_take_ten_minutes_together():
    assert sum(part.seconds for part in PARTS.values()) <= 600


def test_a_part_is_rehearsed_where_little_is_installed(bare: Path):
    done = card("--rehearse", "--only", "layer")
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(Path("card.json").read_text())
    assert list(results["parts"]) == ["device", "layer"] and results["rehearsal"]
    assert [each["by"] for each in results["parts"]["layer"]["found"]] == ["charlstm, fast"] * 2
    assert all(each["ms"] > 0 for each in results["parts"]["layer"]["found"])
    text = Path("card.md").read_text()
    assert text.startswith("# Rehearsal for a card\n\n`python -m benchmarks.card --rehearse --only layer`\n")
    assert "| charlstm, fast | bfloat16 |" in text and "What failed" not in text
    assert "card.json and card.md have all of it" in done.stdout
    assert "charlstm " not in text.partition("## Aims")[0]  # it has no version there


@pytest.mark.slow
def test_all_of_it_is_rehearsed_where_little_is_installed(bare: Path):
    """One of the four trainings stands for the others, which are of other sizes."""
    pytest.importorskip("torch", reason="PyTorch is not installed; it is in the extra `bench`")
    parts = [name for name in PARTS if name not in page.TRAININGS or name == "train-book"]
    done = card("--rehearse", "--only", ",".join(parts))
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(Path("card.json").read_text())
    assert list(results["parts"]) == parts
    assert all(told["found"] and not page.failures(told) for told in results["parts"].values())
    assert [aim["met"] for aim in results["aims"]] == [True] * 4 + [None] * 4  # laws hold here too
    assert [aim["aim"] for aim in results["aims"] if aim["found"] is None] == [
        "time of fast over that of cuDNN, training, worst of four sizes"
    ]
    text = Path("card.md").read_text()
    assert all(f"## {PARTS[name].title}\n" in text for name in parts)
    for place in (socket.gethostname(), str(Path.home()), str(REPOSITORY)):
        assert place not in text and place not in json.dumps(results)


def test_without_a_gpu_a_rehearsal_is_proposed(bare: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    done = card()
    said = "python -m benchmarks.card: JAX sees no GPU here, but cpu; --rehearse runs all parts on the CPU\n"
    assert (done.returncode, done.stderr) == (2, said) and not Path("card.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "trian-book"], "did you mean train-book?"),
        (["--out", "card.md"], "ends in .json"),
        (["--out", "/no/such/folder/x.json"], "folder that exists"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_a_wrong_argument_is_one_line_and_exit_code_2(words: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert_refused(main, words, said, capsys)


class Words:
    """What was asked of the command."""

    rehearse, corpus = True, None


def test_a_part_that_takes_too_long_is_ended(tmp_path: Path):
    told = _part("device", 0.1, Words, tmp_path)
    assert told["found"] == [] and told["seconds"] < 5
    assert page.failures(told) == ["it was ended after 0 s"]


def test_a_part_that_crashes_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(PARTS["device"].environment, "JAX_PLATFORMS", "nonsense")
    told = _part("device", 60, Words, tmp_path)
    (why,) = page.failures(told)
    assert told["found"] == [] and "nonsense" in why


def made_up(**parts: list[dict[str, Any]]) -> dict[str, Any]:
    told = {name.replace("_", "-"): {"seconds": 1.0, "error": None, "found": found} for name, found in parts.items()}
    return {"command": "", "machine": {}, "rehearsal": False, "parts": told}


def trained(**milliseconds: float | None) -> list[dict[str, Any]]:
    """What a part finds of training by some contenders."""
    start = [
        {"contender": name.replace("_", "-"), "seconds": [[ms / 1e3]] if ms else [], "error": None if ms else "no card"}
        for name, ms in milliseconds.items()
    ]
    return [{"markdown": "", "size": "1x1x1x1", "starts": [start]}]


def met(results: dict[str, Any]) -> dict[str, Any]:
    return {aim["aim"].split(":")[0]: (aim["found"], aim["met"]) for aim in page.judge(results)}


def test_aims_are_judged_by_what_was_found():
    half: Any = {"charlstm_cudnn": 2.0, BASELINE: 4.0}
    results = made_up(
        law4=[{"products": "float32", "gradient off by": each} for each in (1e-6, 2e-5)]
        + [{"products": "TF32", "gradient off by": each} for each in (1e-3, None)],
        resume=[{"same bits": True}],
        train_book=trained(charlstm_fast=5.0, **half),
        train_long=trained(charlstm_fast=6.0, **half),
        train_wide=trained(charlstm_fast=9.0, **half),
        train_small=trained(charlstm_fast=1.0, charlstm_cudnn=None, pytorch=4.0),
        layer=[{"ms": None}, {"ms": 6.0}, {"ms": 5.0}],
    )
    found = met(results)
    assert found["law 4, float32"] == (2e-5, False)
    assert found["law 4, TF32"] == (None, False)  # one backend failed
    assert found["law 5"] == (0, True)
    assert found["training at the book's size, × PyTorch"] == (2.0, True)
    assert found["time of fast over that of cuDNN, training, worst of four sizes"] == (4.5, False)
    assert found["one layer forward and backward in reduced precision, ms"] == (5.0, True)
    assert found["time of 8 seeds over that of one"] == (None, None)  # that part did not run
    assert found["law 4, bfloat16"] == (None, False)
    assert page.failures(results["parts"]["train-small"]) == ["charlstm-cudnn: no card"]
    results["rehearsal"] = True  # which judges laws alone
    assert met(results)["law 4, float32"][1] is False
    assert met(results)["training at the book's size, × PyTorch"] == (2.0, None)


def test_the_fastest_backend_of_each_size_is_what_auto_should_mean():
    results = made_up(
        train_book=trained(charlstm_fast=5.0, charlstm_plain=9.0, charlstm_cudnn=2.0, pytorch=1.0),
        train_small=trained(charlstm_fast=1.0, charlstm_plain=1.5, charlstm_cudnn=None),
    )
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.render_auto(results).splitlines()]
    assert lines[0] == ["training, ms a step", "fast", "cudnn", "plain", "the fastest"]
    assert lines[2] == ["book, 1x1x1x1", "5.00", "2.00", "9.00", "cudnn"]
    assert lines[3] == ["long, –", "–", "–", "–", "–"]
    assert lines[5] == ["small, 1x1x1x1", "1.00", "–", "1.50", "fast"]
