"""Faults of a machine, one by one: each gets one clear line or is survived, and no whole checkpoint is lost.

Kills, signals and changed texts are in tests/training and tests/compare, checkpoints alone in test_checkpoint.
"""

import ctypes
import errno
import os
import random
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import LAST, TEXT, bits, timeless_metrics, train_whole
from small_runs import short_words as words

from benchmarks.kills import differences
from charlstm import cli
from charlstm.compare import comparison, runner
from charlstm.core.optimizer import make_optimizer
from charlstm.core.step import init_state
from charlstm.runs import folder as runs
from charlstm.runs.checkpoint import Checkpoints
from charlstm.runs.folder import Run
from charlstm.runs.loading import load_run
from charlstm.runs.metrics import Metrics, TensorBoard
from charlstm.runs.metrics import read as read_metrics
from charlstm.runs.models import make_model
from charlstm.support.errors import InputError
from charlstm.support.lock import only_writer

pytestmark = pytest.mark.slow

BEFORE = 8


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text and a run on it that was left alone."""
    return train_whole(tmp_path_factory.mktemp("faults"), words)


@pytest.fixture
def text(template: Path) -> Path:
    return template / "tiny.txt"


@pytest.fixture
def whole(template: Path) -> Path:
    """To compare with, and not to touch."""
    return template / "whole"


@pytest.fixture
def stopped(whole: Path, tmp_path: Path) -> Path:
    """A run that was killed before its last checkpoint was there."""
    folder = shutil.copytree(whole, tmp_path / "stopped")
    shutil.rmtree(folder / "checkpoints" / str(LAST))
    return folder


def refused(capsys: pytest.CaptureFixture[str], command: list[str], code: int) -> str:
    """The last line that a command ends with; there is no traceback before it."""
    capsys.readouterr()
    assert cli.run(command) == code
    error = capsys.readouterr().err
    assert "Traceback" not in error
    last = error.splitlines()[-1]
    assert last.startswith("charlstm: ")
    assert last.isprintable()
    return last


# A full disk: the system lets no file grow from some moment on.


@contextmanager
def full_disk(owner: Any, name: str, when: Callable[..., bool] = lambda *_: True) -> Iterator[None]:
    """From the moment on at which `owner.name` is called."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    original = getattr(owner, name)

    def filling(*args: Any, **kwargs: Any) -> Any:
        if when(*args):
            resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, filling)
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


FULL = {
    "in-a-checkpoint": (Checkpoints, "save", lambda *_: True),
    "in-the-metrics": (Metrics, "flush", lambda *_: True),
    "in-a-sample": (Run, "write_sample", lambda *_: True),
}


@pytest.mark.parametrize("moment", FULL)
def test_a_full_disk_stops_a_run_that_goes_on_later(
    text: Path, whole: Path, stopped: Path, capsys: pytest.CaptureFixture[str], moment: str
) -> None:
    with full_disk(*FULL[moment]):
        line = refused(capsys, words(text, stopped), 1)
    assert os.strerror(errno.EFBIG) in line
    assert str(stopped) in line
    assert bits(stopped, BEFORE) == bits(whole, BEFORE)
    assert not list(stopped.rglob("*.tmp"))
    assert cli.run(words(text, stopped)) == 0
    assert differences(whole, stopped) == []


def test_a_full_disk_under_tensorboard_is_no_hang(
    text: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, fields = tmp_path / "run", {"train__tensorboard": True, "train__checkpoint_every": 0}
    with full_disk(TensorBoard, "add", lambda _, record: record["step"] == 2):
        assert os.strerror(errno.EFBIG) in refused(capsys, words(text, folder, **fields), 1)
    assert cli.run(words(text, folder, **fields)) == 0
    assert timeless_metrics(folder) == timeless_metrics(whole)


@pytest.mark.parametrize("name", ["vocabulary.json", "corpus.json", "config.json"])
def test_a_full_disk_at_the_start_leaves_no_run(
    text: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    from charlstm.data import vocabulary
    from charlstm.support import files

    owner: Any = vocabulary if name == "vocabulary.json" else files
    with full_disk(owner, "write_atomic", lambda path, _: path.name == name):
        line = refused(capsys, words(text, tmp_path / "run"), 1)
    assert os.strerror(errno.EFBIG) in line
    assert not Run.exists(tmp_path / "run")
    assert not list(tmp_path.rglob("*.tmp"))
    if name == "config.json":
        assert cli.run(words(text, tmp_path / "run")) == 0
        assert differences(whole, tmp_path / "run") == []


# A folder that may not be written. Root may write everywhere, so it lays down that power for a while.


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()  # <linux/capability.h>
    assert libc.capget(header, sets) == 0
    before = sets[0]
    sets[0] = before & ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH of this thread and those that it starts
    assert libc.capset(header, sets) == 0
    try:
        yield
    finally:
        sets[0] = before
        assert libc.capset(header, sets) == 0
        for path in paths:
            path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="capabilities are Linux's")
def test_a_folder_without_write_permission(
    text: Path, whole: Path, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is begun or continued in it; what only reads works."""
    denied = os.strerror(errno.EACCES)
    with unwritable(stopped):
        assert denied in refused(capsys, words(text, stopped), 1)
        assert denied in refused(capsys, words(text, stopped / "new"), 2)
        assert "--output" in refused(capsys, ["report", str(stopped)], 2)
        assert cli.run(["eval", str(stopped)]) == 0
        assert cli.run(["sample", str(stopped), "--length", "5"]) == 0
    assert cli.run(words(text, stopped)) == 0
    assert differences(whole, stopped) == []
    with unwritable(stopped):
        assert cli.run(words(text, stopped)) == 0  # it is finished, so there is nothing to write


# What vanishes.


@pytest.mark.parametrize("what", ["", "checkpoints"])
def test_a_folder_that_vanishes_is_one_line(
    text: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    folder, save = tmp_path / "run", Checkpoints.save

    def save_and_vanish(checkpoints: Checkpoints, step: int, *rest: Any, **named: Any) -> None:
        save(checkpoints, step, *rest, **named)
        checkpoints.wait()
        if step == BEFORE:
            shutil.rmtree(folder / what)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_vanish)
        line = refused(capsys, words(text, folder), 1)
    assert str(folder) in line
    assert "is gone" in line or os.strerror(errno.ENOENT) in line
    assert Run.exists(folder) == bool(what)
    assert what or not folder.exists()  # nothing is left in it that would be in the way of the next
    assert cli.run(words(text, folder)) == 0
    assert differences(whole, folder) == []


def test_a_text_that_vanished_or_changed_is_one_line(
    text: Path, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = text.rename(tmp_path / "moved.txt")
    try:
        assert "there is no corpus or file" in refused(capsys, words(text, stopped), 2)
        assert "there is no corpus or file" in refused(capsys, ["eval", str(stopped)], 2)
        text.write_text(TEXT.replace("tiny", "tidy"))
        for command in (words(text, stopped), ["eval", str(stopped)]):
            assert "changed since" in refused(capsys, command, 2)
        assert cli.run(["eval", str(stopped), "--text", str(moved)]) == 0
    finally:
        moved.replace(text)


# A damaged checkpoint, file by file.


def emptied(_: bytes) -> bytes:
    return b""


def halved(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[random.Random(len(data)).randrange(len(data))] ^= 1 << random.Random(len(data)).randrange(8)
    return bytes(changed)


def content(state: Any) -> list[bytes]:
    raw = jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, state)
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(raw)]


def is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


@pytest.mark.parametrize("damage", [emptied, halved, flipped])
def test_any_damaged_file_of_the_newest_checkpoint_loses_nothing(whole: Path, tmp_path: Path, damage: Any) -> None:
    """A run is a function of the state that it goes on from, so that is what is compared, for every file in turn."""
    folder = shutil.copytree(whole, tmp_path / "run")
    run, newest = Run.open(folder), folder / "checkpoints" / str(LAST)
    model, tx = make_model(run.config, len(run.vocabulary)), make_optimizer(run.config.optimizer, LAST)
    like = jax.eval_shape(lambda: init_state(model, tx, run.config.data.batch_size))

    def next_state() -> list[bytes]:
        with Checkpoints(run.folder / "checkpoints", 3) as checkpoints:
            restored = checkpoints.restore_newest(like)
        assert restored is not None
        return content(restored.state)

    states = {LAST: next_state()}
    shutil.move(newest, tmp_path / "aside")
    states[BEFORE] = next_state()
    shutil.move(tmp_path / "aside", newest)
    assert states[LAST] != states[BEFORE]
    paths = sorted(path for path in newest.rglob("*") if path.is_file() and path.stat().st_size)
    assert len(paths) > 5
    fell_back = set[str]()
    for path in paths:
        before = path.read_bytes()
        path.write_bytes(damage(before))
        found = next_state()
        assert found in states.values(), path
        if found == states[BEFORE]:
            fell_back.add(path.name)
        path.write_bytes(before)
        assert {each.name for each in (run.folder / "checkpoints").iterdir()} >= {str(LAST), str(BEFORE)}
    assert "integrity.json" in fell_back
    assert next_state() == states[LAST]


@pytest.mark.parametrize("lost", ["params", "integrity", "params/d", "params/manifest.ocdbt", "."])
def test_a_checkpoint_with_a_part_missing_is_named_and_passed_over(
    text: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], lost: str
) -> None:
    folder = shutil.copytree(whole, tmp_path / "run")
    path = folder / "checkpoints" / str(LAST) / lost
    if lost == ".":
        for each in path.iterdir():
            shutil.rmtree(each) if each.is_dir() else each.unlink()
    else:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = load_run(folder, "latest")
    assert found.step == BEFORE
    assert f"checkpoint {LAST} in " in found.notes[0]
    with pytest.raises(InputError, match=f"checkpoint {LAST} in .* cannot be used"):
        load_run(folder, str(LAST))
    if lost == "params":
        capsys.readouterr()
        assert cli.run(words(text, folder)) == 0
        assert f"checkpoint {LAST} is skipped" in capsys.readouterr().err
        assert differences(whole, folder) == []


def test_what_else_lies_in_a_checkpoint_does_not_matter(whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "run")
    for place in ("", "params", "params/d", "state", "state/d", "integrity"):
        (folder / "checkpoints" / str(LAST) / place / "left.pkl").write_bytes(b"\x80\x05extra")
    assert load_run(folder, str(LAST)).step == LAST


# Two processes, and clocks.


def test_two_that_begin_in_one_folder_do_not_mix_their_files(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other has the folder, and no config.json in it yet."""
    (tmp_path / "run").mkdir()
    with only_writer(tmp_path / "run"):
        assert "another process trains in" in refused(capsys, words(text, tmp_path / "run"), 2)
    assert not list((tmp_path / "run").iterdir())


def test_a_clock_that_jumps_back_changes_nothing(
    text: Path, whole: Path, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in stopped.rglob("*"):
        os.utime(path, (4e9, 4e9))  # in the year 2096
    began = time.time()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: 2 * began - time.monotonic() * 1000 % began)
        assert cli.run(words(text, stopped)) == 0
    assert differences(whole, stopped) == []
    assert "-" not in "".join(each for each in capsys.readouterr().err.splitlines() if "chars/s" in each)
    assert all(row["chars_per_second"] > 0 for row in read_metrics(stopped) if "split" not in row)


# The same of a comparison.

GRID = "from charlstm.config import Grid\nGRID = Grid(cells=('rnn',), layers=(1,), sizes=(8,), seeds=1)\n"


@pytest.fixture(scope="module")
def grid(template: Path) -> Path:
    """A comparison of one model that was left alone."""
    (template / "small.py").write_text(GRID)
    assert cli.run(compared(template, template / "grid")) == 0
    return template / "grid"


def compared(template: Path, folder: Path) -> list[str]:
    options = words(template / "tiny.txt", folder)
    axes = ("--model.hidden-size", "--model.num-layers")
    pairs = [pair for pair in zip(options[1::2], options[2::2], strict=True) if pair[0] not in axes]
    return ["compare", str(template / "small.py"), *(word for pair in pairs for word in pair)]


FULL_GRID = {
    "in-a-checkpoint": (Checkpoints, "save", lambda _, step, *__: step == LAST),
    "in-a-result": (comparison, "write_json", lambda path, _: path.name == "result.json"),
    "at-the-start": (runner, "write_json", lambda path, _: path.name == "grid.json"),
}


@pytest.mark.parametrize("moment", FULL_GRID)
def test_a_full_disk_stops_a_comparison_that_goes_on_later(
    template: Path, grid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], moment: str
) -> None:
    command = compared(template, tmp_path / "grid")
    with full_disk(*FULL_GRID[moment]):
        line = refused(capsys, command, 1)
    assert os.strerror(errno.EFBIG) in line
    assert cli.run(command) == 0
    member = Path("rnn-1x8", "seed-0")
    assert bits(tmp_path / "grid" / member, LAST) == bits(grid / member, LAST)
    assert timeless_metrics(tmp_path / "grid" / member) == timeless_metrics(grid / member)


def test_a_member_that_another_process_trains_is_left_to_it(
    template: Path, grid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(grid, tmp_path / "grid")
    member = folder / "rnn-1x8" / "seed-0"
    (member / "result.json").unlink()
    with only_writer(member):
        assert "another process trains in" in refused(capsys, compared(template, folder), 2)
        assert "another process trains in" in refused(capsys, words(template / "tiny.txt", member), 2)
    assert bits(member, LAST) == bits(grid / "rnn-1x8" / "seed-0", LAST)


def test_a_full_disk_is_told_by_its_file(tmp_path: Path) -> None:
    """Where the system names none, the folder is named."""
    from charlstm.support.errors import TrainingError

    for error, name in ((OSError(errno.ENOSPC, "full"), tmp_path), (OSError(errno.ENOSPC, "full", "/a/b"), "/a/b")):
        with (
            pytest.raises(TrainingError, match=f"^{name}: full; mend that"),
            runs.as_training_errors(tmp_path),
        ):
            raise error
    with pytest.raises(TrainingError), runs.as_training_errors(tmp_path):
        raise BrokenPipeError  # taken for that of the output, it would end a training with the code of success
