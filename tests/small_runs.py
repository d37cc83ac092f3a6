"""Small trainings through the command line, and what is compared of them."""

import json
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from charlstm import cli
from charlstm.runs.metrics import read
from charlstm.training.member import Member

TEXT = "In the beginning was a tiny text, and it was read again and again. " * 40
SMALL = {
    "data.batch-size": 3,
    "data.seq-length": 16,
    "model.hidden-size": 8,
    "model.num-layers": 2,
    "model.dropout": 0.25,
    "optimizer.warmup-steps": 3,
    "train.steps": 24,
    "train.validate-every": 6,
    "train.checkpoint-every": 4,
    "train.sample-every": 12,
    "train.tensorboard": False,
    "sample.length": 20,
}
LAST = 12
SHORT: dict[str, Any] = {
    "model__num_layers": 1,
    "train__steps": LAST,
    "train__checkpoint_every": 4,
    "train__sample_every": 6,
}


def words(text: Path, folder: Path, **fields: Any) -> list[str]:
    merged = SMALL | {name.replace("__", ".").replace("_", "-"): value for name, value in fields.items()}
    options = [word for name, value in merged.items() for word in (f"--{name}", str(value))]
    return ["train", "--run-dir", str(folder), "--data.corpus", str(text), *options]


def short_words(text: Path, folder: Path, **fields: Any) -> list[str]:
    """Of a training of `LAST` steps."""
    return words(text, folder, **SHORT | fields)


def train_whole(folder: Path, make: Callable[[Path, Path], list[str]] = words) -> Path:
    """The folder, now with a text `tiny.txt` and a run on it, `whole`, that was left alone."""
    (folder / "tiny.txt").write_text(TEXT)
    assert cli.run(make(folder / "tiny.txt", folder / "whole")) == 0
    return folder


def bits(folder: Path, step: int) -> list[dict[str, Any]]:
    """Name, shape and SHA-256 of every array in a checkpoint."""
    return json.loads((folder / "checkpoints" / str(step) / "integrity" / "integrity.json").read_text())["leaves"]


def timeless_metrics(folder: Path) -> list[dict[str, Any]]:
    """The metrics, but for the speed, which no two runs share."""
    return [{key: value for key, value in row.items() if key != "chars_per_second"} for row in read(folder)]


def figures(folder: Path) -> list[dict[str, Any]]:
    """The rows of a table, but for the times, which no two comparisons share."""
    rows = json.loads((folder / "results.json").read_text())["models"]
    for part in (*rows, *(seed for row in rows for seed in row["seeds"])):
        del part["seconds"], part["chars_per_second"]
    return rows


def stop_at(patch: pytest.MonkeyPatch, step: int, number: signal.Signals) -> None:
    """Sends this process a signal while the metrics of `step` are written for the first time."""
    write, sent = Member.write, []

    def write_and_stop(member: Member, record: dict[str, Any]) -> None:
        write(member, record)
        if record["step"] == step and not sent:
            sent.append(number)
            signal.raise_signal(number)

    patch.setattr(Member, "write", write_and_stop)


def unpack_before_rebuild(folder: Path) -> Path:
    """Unpacks the folders that the version before the rebuild wrote."""
    with tarfile.open(Path(__file__).parent / "data" / "before_rebuild.tar.xz") as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extractall(folder, filter="data")
        else:  # Python 3.11 before 3.11.4
            archive.extractall(folder)
    return folder
