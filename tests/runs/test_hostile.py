"""A run's folder is data, whoever built it: it executes nothing, leads nowhere else, and is refused in one line."""

import functools
import io
import json
import os
import pickle
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore
from folders import make_comparison
from hypothesis import given
from hypothesis import strategies as st
from small_runs import LAST, TEXT
from small_runs import short_words as words

from benchmarks import memory
from charlstm import cli
from charlstm.compare.runner import run_grid
from charlstm.config import DataConfig, Experiment, Grid, ModelConfig, TrainConfig
from charlstm.core.optimizer import make_optimizer
from charlstm.core.size import count_parameters
from charlstm.core.step import init_state
from charlstm.data.vocabulary import Vocabulary
from charlstm.runs.checkpoint import Checkpoints
from charlstm.runs.folder import Run
from charlstm.runs.models import check_memory, make_model
from charlstm.support.errors import InputError
from charlstm.support.process import memory as machine_memory

NAMES = ["config.json", "vocabulary.json", "corpus.json", "metrics.jsonl", "checkpoints", "samples"]
DEEP = b"[" * 200_000 + b"\n"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "tiny.txt").write_text(TEXT)
    assert (
        cli.run(words(folder / "tiny.txt", folder / "whole", train__checkpoint_every=0, train__validate_every=0)) == 0
    )
    return folder


@pytest.fixture
def run(template: Path, tmp_path: Path) -> Path:
    """A run, to make hostile."""
    return shutil.copytree(template / "whole", tmp_path / "run")


@pytest.fixture
def commands(template: Path, run: Path) -> dict[str, list[str]]:
    """Everything that can be done with a run."""
    go_on = words(template / "tiny.txt", run, train__checkpoint_every=0, train__validate_every=0, train__steps=LAST + 1)
    others = {name: [name, str(run)] for name in ("eval", "sample", "report", "export")}
    return {"train": go_on, **others}


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    def late(*_: object) -> None:
        pytest.fail("it hangs")  # no subclass of Exception, which the program might take for a reason to refuse

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def refused(capsys: pytest.CaptureFixture[str], command: list[str]) -> str:
    """The one line that a command ends with, and nothing else."""
    capsys.readouterr()
    assert cli.run(command) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    line = captured.err.removesuffix("\n")
    assert line.isprintable()
    assert len(line) < 1500
    return line


def content(folder: Path) -> dict[str, Any]:
    """All that is in a folder, links not followed."""
    found: dict[str, Any] = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        found[name] = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return found


# Links out of it.


@pytest.mark.parametrize("name", NAMES)
def test_no_command_follows_a_link_out(
    run: Path, commands: dict[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """What it leads to would do: it is the run's own."""
    outside = (run / name).rename(tmp_path / "outside")
    (run / name).symlink_to(outside)
    before = content(tmp_path)
    for command in commands.values():
        assert f"{name} is a symbolic link that leads out" in refused(capsys, command)
        assert content(tmp_path) == before


def inner(run: Path) -> list[Path]:
    """All files and folders of the newest checkpoint, itself among them."""
    newest = run / "checkpoints" / str(LAST)
    return [newest, *sorted(newest.rglob("*"))]


@functools.cache
def form(run: Path) -> Any:
    opened = Run.open(run)
    model = make_model(opened.config, len(opened.vocabulary))
    tx = make_optimizer(opened.config.optimizer, opened.config.train.steps)
    return jax.eval_shape(lambda: init_state(model, tx, opened.config.data.batch_size))


def cannot_be_used(run: Path, like: Any) -> str:
    """Why; both for a reader and for one that would write."""
    for read_only in (True, False):
        with Checkpoints(run / "checkpoints", keep=3, read_only=read_only) as checkpoints:
            if LAST not in checkpoints.steps():
                return "is no checkpoint"
            with pytest.raises(InputError) as error:
                checkpoints.restore(LAST, like)
            assert checkpoints.best() is None
    assert str(error.value).isprintable()
    return str(error.value)


def test_no_link_inside_of_a_checkpoint_is_followed(run: Path, template: Path, tmp_path: Path) -> None:
    """Neither out of the folder nor to another place in it, for every file and folder in turn."""
    places = inner(run)
    assert len(places) > 8
    for path in places:
        outside = path.rename(tmp_path / "outside")
        path.symlink_to(outside)
        before = content(tmp_path)
        why = cannot_be_used(run, form(template / "whole"))
        assert "is a symbolic link" in why or "is no checkpoint" in why
        assert content(tmp_path) == before
        path.unlink()
        outside.rename(path)
    with Checkpoints(run / "checkpoints", keep=3) as checkpoints:
        checkpoints.restore(LAST, form(template / "whole"))


def test_a_link_inside_of_a_checkpoint_is_one_line_for_every_command(
    run: Path, commands: dict[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = run / "checkpoints" / str(LAST) / "integrity"
    place.symlink_to(place.rename(tmp_path / "outside"))
    before = content(tmp_path)
    for name in ("train", "eval", "sample"):
        assert "integrity is a symbolic link" in refused(capsys, commands[name])
        assert content(tmp_path) == before


def test_what_a_save_left_is_no_way_out(run: Path, template: Path, tmp_path: Path) -> None:
    """Orbax would write through a link where it makes its own folder."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    for name in (f"{LAST + 1}.orbax-checkpoint-tmp", f"{LAST + 1}"):
        (run / "checkpoints" / name).symlink_to(outside)
    like = form(template / "whole")
    with Checkpoints(run / "checkpoints", keep=1) as checkpoints:
        restored = checkpoints.restore_newest(like)
        assert restored is not None and restored.step == LAST
        checkpoints.save(LAST + 1, restored.state)
        checkpoints.restore(LAST + 1, like)
    assert content(outside) == {"precious": b"mine"}


# What is no file, or a file of another kind.


class Payload:
    """Unpickled, it leaves a file behind."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.canary),)


def pipe(path: Path, _: Path) -> None:
    os.mkfifo(path)


def pickled(path: Path, canary: Path) -> None:
    path.write_bytes(pickle.dumps(Payload(canary)) + b"\n")


def deep(path: Path, _: Path) -> None:
    path.write_bytes(DEEP)


def endless(path: Path, _: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


def folder(path: Path, _: Path) -> None:
    path.mkdir()


KINDS = [pipe, pickled, deep, endless, folder]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES[:4])
def test_every_command_refuses_what_stands_for_a_file(
    run: Path,
    commands: dict[str, list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: Callable[[Path, Path], None],
    name: str,
) -> None:
    (run / name).unlink()
    kind(run / name, tmp_path / "executed")
    for command in ("train", "report") if name == "metrics.jsonl" else commands:  # the others do not read it
        assert name in refused(capsys, commands[command])
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_stands_for_a_file_of_a_checkpoint_is_run_or_waited_for(
    run: Path, template: Path, tmp_path: Path, kind: Callable[[Path, Path], None]
) -> None:
    like, used = form(template / "whole"), list[str]()
    for path in inner(run):
        if not path.is_file():
            continue
        path.rename(tmp_path / "aside")
        kind(path, tmp_path / "executed")
        try:  # what Orbax does not need does not matter
            with Checkpoints(run / "checkpoints", keep=3, read_only=True) as checkpoints:
                checkpoints.restore(LAST, like)
                used.append(str(path.relative_to(run / "checkpoints")))
        except InputError as error:
            assert str(error).isprintable()
            assert len(str(error)) < 1500
        path.rmdir() if path.is_dir() else path.unlink()
        (tmp_path / "aside").rename(path)
    assert not (tmp_path / "executed").exists()
    unread = ("_CHECKPOINT_METADATA", "commit_success.txt")
    assert (
        not used or kind in (pickled, deep, folder) or (kind is endless and all(name.endswith(unread) for name in used))
    )
    assert not [
        name for name in used if name.endswith((".json", "/_METADATA", ".ocdbt")) and "ocdbt.process" not in name
    ]


def test_a_device_is_not_read(run: Path, commands: dict[str, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "checkpoints" / str(LAST) / "state" / "_METADATA"
    path.unlink()
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        pytest.skip("only root makes devices")
    assert "neither a file nor a folder" in refused(capsys, commands["sample"])


# Arrays that are not what they should be, as TensorStore stores them. One is built by hand.

ARRAY = np.arange(3, dtype="<f4")


def by_hand(folder: Path, zarray: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    """A checkpoint of one array without OCDBT, whose files are plain; `like` for it comes back."""
    state = {"a": jnp.asarray(ARRAY)}
    with Checkpoints(folder, keep=1) as checkpoints:
        checkpoints.save(1, state)
    stored = json.loads((folder / "1" / "state" / "_METADATA").read_text()) | {"use_ocdbt": False} | metadata
    shutil.rmtree(folder / "1" / "state")
    (folder / "1" / "state" / "a").mkdir(parents=True)
    (folder / "1" / "state" / "_METADATA").write_text(json.dumps(stored))
    (folder / "1" / "state" / "a" / "0").write_bytes(ARRAY.tobytes())
    plain = {"zarr_format": 2, "shape": [3], "chunks": [3], "dtype": "<f4", "order": "C", "fill_value": None}
    plain |= {"filters": None, "compressor": None, "dimension_separator": "."}
    (folder / "1" / "state" / "a" / ".zarray").write_text(json.dumps(plain | zarray))
    return state


def test_an_honest_array_that_was_built_by_hand_is_read(tmp_path: Path) -> None:
    """So that those below are refused for what they say, and for nothing else."""
    like = by_hand(tmp_path, {})
    with Checkpoints(tmp_path, keep=1, read_only=True) as checkpoints:
        assert checkpoints.restore(1, like)["a"].tolist() == ARRAY.tolist()


@pytest.mark.parametrize(
    "zarray",
    [
        {"shape": [2**50]},
        {"shape": [2**50], "chunks": [2**50]},
        {"shape": [2**31, 2**31], "chunks": [1, 1]},
        {"chunks": [2**50]},
        {"chunks": [2**36]},
        {"dtype": "<c16"},
        {"shape": []},
        {"kvstore": "file:///etc/"},
        {"filters": [{"id": "pickle"}]},
        {"compressor": {"id": "pickle"}},
        {"compressor": {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1}},
        {"compressor": {"id": "zlib", "level": 1}},
        {"chunks": [1]},
    ],
    ids=str,
)
def test_an_absurd_array_is_refused_before_it_is_read(tmp_path: Path, zarray: dict[str, Any]) -> None:
    """Where chunks are missing, TensorStore would fill terabytes with zeros if it was let to."""
    like = by_hand(tmp_path, zarray, store_array_data_equal_to_fill_value=False)
    (tmp_path / "1" / "state" / "a" / "0").unlink()
    with (
        Checkpoints(tmp_path, keep=1, read_only=True) as checkpoints,
        pytest.raises(InputError, match="cannot be used") as error,
    ):
        checkpoints.restore(1, like)
    assert str(error.value).isprintable()


def test_a_chunk_that_is_absent_is_no_array_of_zeros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its hash would be right: a file of some bytes would stand for gigabytes."""
    monkeypatch.setattr(sys.modules[__name__], "ARRAY", np.zeros(3, "<f4"))
    like = by_hand(tmp_path, {"fill_value": 0.0}, store_array_data_equal_to_fill_value=False)
    with Checkpoints(tmp_path, keep=1, read_only=True) as checkpoints:
        assert checkpoints.restore(1, like)["a"].tolist() == [0, 0, 0]
        (tmp_path / "1" / "state" / "a" / "0").unlink()
        with pytest.raises(InputError, match="cannot be used"):
            checkpoints.restore(1, like)


def test_a_codec_that_believes_its_file_is_not_asked(tmp_path: Path) -> None:
    """A chunk of blosc says how much memory it needs: this one 2 GB, for three numbers."""
    blosc = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}
    like = by_hand(tmp_path, {"compressor": blosc})
    header = bytes([2, 1, 0x21, 4]) + b"".join(size.to_bytes(4, "little") for size in (2**31 - 2**12, 2**20, 2**12))
    (tmp_path / "1" / "state" / "a" / "0").write_bytes(header.ljust(2**12, b"\0"))
    memory.forget_peak()
    before = memory.peak() or 0
    with Checkpoints(tmp_path, keep=1, read_only=True) as checkpoints, pytest.raises(InputError, match="not with zstd"):
        checkpoints.restore(1, like)
    assert (memory.peak() or 0) - before < 2**27


def zstd_bomb(blocks: int) -> bytes:
    """A frame that says 128 kB of zeros in each four bytes (RFC 8878)."""
    block = ((2**17 << 3) | (1 << 1)).to_bytes(3, "little") + b"\0"
    return bytes.fromhex("28b52ffd0038") + block * blocks


def test_a_compressed_bomb_takes_no_memory(tmp_path: Path) -> None:
    """TensorStore stops where the array has all its bytes: this one would go on for a gigabyte."""
    like = by_hand(tmp_path, {"compressor": {"id": "zstd", "level": 1}})
    (tmp_path / "1" / "state" / "a" / "0").write_bytes(zstd_bomb(8000))
    memory.forget_peak()
    before = memory.peak() or 0
    with Checkpoints(tmp_path, keep=1, read_only=True) as checkpoints, pytest.raises(InputError, match="cannot be"):
        checkpoints.restore(1, like)
    assert (memory.peak() or 0) - before < 2**27


@pytest.mark.parametrize("name", ["../../outside", "/etc/passwd", "..", "a/../../../outside"])
def test_a_name_in_the_metadata_leads_nowhere(tmp_path: Path, name: str) -> None:
    like = by_hand(tmp_path / "run", {})
    (tmp_path / "run" / "1" / "state" / "a").rename(tmp_path / "outside")
    path = tmp_path / "run" / "1" / "state" / "_METADATA"
    stored = json.loads(path.read_text())
    (entry,) = stored["tree_metadata"].values()
    entry["key_metadata"] = [{"key": name, "key_type": 2}]
    path.write_text(json.dumps(stored | {"tree_metadata": {f"('{name}',)": entry}}))
    with (
        Checkpoints(tmp_path / "run", keep=1, read_only=True) as checkpoints,
        pytest.raises(InputError, match="cannot"),
    ):
        checkpoints.restore(1, like)


@pytest.mark.parametrize("prefix", ["../outside/", "/outside/", "a/../../outside/"])
def test_tensorstore_keeps_to_its_folder(tmp_path: Path, prefix: str) -> None:
    """Arrays lie in an OCDBT database, which names its data files: none with .. is opened, and / begins no path."""
    spec: dict[str, Any] = {"driver": "ocdbt", "base": f"file://{tmp_path}/run/", "value_data_prefix": prefix}
    spec["config"] = {"max_inline_value_bytes": 0}
    try:
        store = tensorstore.KvStore.open(spec).result()
        store.write("key", b"x" * 1000).result()
    except ValueError as error:
        assert "nvalid" in str(error)
    assert [path.name for path in tmp_path.iterdir() if path.name != "run"] == []
    assert not Path("/outside").exists()


# Numbers that ask for terabytes.


@pytest.mark.parametrize(
    "fields",
    [
        {"model": {"hidden_size": 10**9}},
        {"model": {"hidden_size": 10**18}},
        {"model": {"hidden_size": 4 * 10**5}},
        {"model": {"num_layers": 10**9}},
        {"data": {"batch_size": 10**12}},
    ],
    ids=str,
)
def test_a_config_that_asks_for_terabytes_is_refused(
    run: Path, commands: dict[str, list[str]], capsys: pytest.CaptureFixture[str], fields: dict[str, dict[str, int]]
) -> None:
    path = run / "config.json"
    values = json.loads(path.read_text())
    for group, given_ in fields.items():
        values[group] |= given_
    path.write_text(json.dumps(values))
    ((group, given_),) = fields.items()
    for name in ("eval", "sample"):
        line = refused(capsys, commands[name])
        assert "this machine has" in line or "it must be" in line
        refused(capsys, [*commands[name], "--checkpoint", "fresh"])
    ((field, value),) = given_.items()
    option = f"--{group}.{field.replace('_', '-')}"
    if group == "model":
        refused(capsys, [*commands["train"], option, str(value), "--run-dir", str(run.parent / "new")])
        assert not (run.parent / "new").exists()


@given(st.integers(1, 5000), st.integers(1, 6), st.integers(1, 10**5), st.sampled_from(["rnn", "gru", "lstm"]))
def test_a_model_that_this_machine_holds_is_not_refused(hidden: int, layers: int, rows: int, cell: Any) -> None:
    """Three float32 numbers of each parameter and the carry, exactly: less than that is no training."""
    config = Experiment(
        model=ModelConfig(cell=cell, hidden_size=hidden, num_layers=layers), data=DataConfig(batch_size=rows)
    )
    carries = rows * layers * hidden * (2 if cell == "lstm" else 1)
    needed = 12 * count_parameters(config.model, 90) + 4 * carries
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("charlstm.runs.models.memory", lambda: needed)
        check_memory(config, 90)
        patch.setattr("charlstm.runs.models.memory", lambda: needed - 1)
        with pytest.raises(InputError, match="lower model.hidden_size"):
            check_memory(config, 90)
    assert machine_memory() > 2**28


# The text that a config names.


@pytest.mark.parametrize("corpus", ["/etc/passwd", "/dev/zero", "/proc/self/mem", "/proc/kmsg", "pipe", "secret"])
@pytest.mark.parametrize("symbols", ["characters", "bytes"])
def test_a_config_that_names_another_file_shows_nothing_of_it(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], corpus: str, symbols: str
) -> None:
    """It is read only to compare its SHA-256, so a folder's builder must know it already."""
    if corpus == "pipe":
        os.mkfifo(tmp_path / corpus)
    (tmp_path / "secret").write_text("root:hunter2\n" * 9)
    values = json.loads((run / "config.json").read_text())
    values["data"] |= {"corpus": str(tmp_path / corpus), "symbols": symbols}  # an absolute path stays as it is
    (run / "config.json").write_text(json.dumps(values))
    line = refused(capsys, ["eval", str(run)])
    assert "root:" not in line and "hunter2" not in line


# A comparison's folder.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["results.json", "grid.json", "rnn-1x64/seed-0/config.json", "rnn-1x64/seed-0"])
def test_a_hostile_comparison_is_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: Callable[[Path, Path], None], name: str
) -> None:
    make_comparison(tmp_path / "grid", depths=(1,), seeds=1)
    path = tmp_path / "grid" / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    kind(path, tmp_path / "executed")
    refused(capsys, ["report", str(tmp_path / "grid")])
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "grid" / "report.html").exists()


@pytest.mark.parametrize("name", ["results.json", "grid.json", "rnn-1x64", "rnn-1x64/seed-0"])
def test_a_comparison_with_a_link_out_is_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    make_comparison(tmp_path / "grid", depths=(1,), seeds=1)
    path = tmp_path / "grid" / name
    path.symlink_to(path.rename(tmp_path / "outside"))
    before = content(tmp_path)
    assert "symbolic link" in refused(capsys, ["report", str(tmp_path / "grid")])
    assert content(tmp_path) == before


@pytest.mark.parametrize("run_", ["../../outside", "/etc", "rnn-1x64/../../outside"])
def test_a_run_outside_of_a_comparison_is_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], run_: str
) -> None:
    found = make_comparison(tmp_path / "grid", depths=(1,), seeds=1)
    shutil.copytree(tmp_path / "grid" / "rnn-1x64" / "seed-0", tmp_path / "outside")
    found["models"][0]["seeds"][0]["run"] = run_
    (tmp_path / "grid" / "results.json").write_text(json.dumps(found))
    assert "leads out" in refused(capsys, ["report", str(tmp_path / "grid")])


@pytest.mark.parametrize("name", [".", "seed-0"])
def test_a_comparison_goes_through_no_link_out(template: Path, tmp_path: Path, name: str) -> None:
    data = DataConfig(corpus=str(template / "tiny.txt"), batch_size=3, seq_length=16)
    base = Experiment(data=data, train=TrainConfig(steps=2, tensorboard=False))
    outside = tmp_path / "outside"
    (outside / "checkpoints" / "3.orbax-checkpoint-tmp").mkdir(parents=True)
    path = tmp_path / "grid" / "rnn-1x8" / name
    path.parent.mkdir(parents=True)
    path.symlink_to(outside)
    before = content(outside)
    with pytest.raises(InputError, match="symbolic link that leads out"):
        run_grid(Grid(cells=("rnn",), layers=(1,), sizes=(8,), seeds=1, base=base), tmp_path / "grid")
    assert content(outside) == before


# Terminals.

BAD = "\x1bc\x1b(0\x07\x9b31m\r\u202e"
SHOWN = "\ufffd"


class Screen(io.TextIOWrapper):
    """A terminal that keeps what it gets."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), "utf-8", newline="")

    def isatty(self) -> bool:
        return True

    def shown(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode()  # pyright: ignore[reportAttributeAccessIssue]


def on_a_terminal(command: list[str], code: int) -> str:
    """What a command shows on a terminal that can neither move nor colour anything."""
    out, error = Screen(), Screen()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERM", "dumb")
        patch.setenv("NO_COLOR", "1")
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", error)
        found = cli.run(command)
    assert found == code, error.shown()
    text = out.shown() + error.shown()
    assert not set(text) & set(BAD) - set("c(031m"), text
    return text


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run whose text, path, folder and prime would all speak to a terminal."""
    place = tmp_path_factory.mktemp("terminal") / f"folder{BAD}"
    place.mkdir()
    text = place / f"text{BAD}.txt"
    text.write_text(f"a text {BAD} that clears the screen, ".replace("\r", "\r\r") * 60, newline="")
    run = place / f"run{BAD}"
    command = words(text, run, train__steps=4, train__sample_every=0, sample__temperature=3.0)
    shown = on_a_terminal([*command, "--sample.prime", BAD], 0)
    return {"run": run, "text": text, "train": command, "shown": shown}


@pytest.mark.slow
def test_training_sends_no_escape_code(spoken: dict[str, Any]) -> None:
    assert SHOWN in spoken["shown"]
    assert "continues" not in spoken["shown"]
    assert "began with another config" in on_a_terminal([*spoken["train"], "--seed", "9"], 2)


@pytest.mark.parametrize(
    ("words_", "code"),
    [
        (["eval", "RUN"], 0),
        (["eval", "RUN", "--text", "TEXT"], 0),
        (["eval", "RUN", "--json"], 0),
        (["eval", "RUN", "--checkpoint", BAD], 2),
        (["eval", "RUN", "--split", BAD], 2),
        (["eval", f"no{BAD}"], 2),
        (["sample", "RUN", "--length", "60", "--temperature", "9", "--stream"], 0),
        (["sample", "RUN", "--length", "60", "--temperature", "9", "--num", "2"], 0),
        (["sample", "RUN", "--prime", f"{BAD}\u20ac"], 2),
        (["report", "RUN"], 0),
        (["report", "RUN", "--output", f"/no{BAD}/page.html"], 2),
        (["export", "RUN"], 0),
        (["export", "RUN", "--output", f"/no{BAD}/model.safetensors"], 2),
        (["train", "--data.corpus", f"no{BAD}"], 2),
        (["train", "--seed", BAD], 2),
        (["train", f"no{BAD}.py"], 2),
        (["train", f"--{BAD}"], 2),
        (["train", "--data.corpus", "TEXT", "--run-dir", f"/proc/no{BAD}", "--data.batch-size", "2"], 2),
        (["compare", f"no{BAD}.py"], 2),
        ([BAD], 2),
    ],
    ids=lambda each: " ".join(each).encode("ascii", "ignore").decode() if isinstance(each, list) else str(each),
)
def test_no_command_sends_an_escape_code(spoken: dict[str, Any], words_: list[str], code: int) -> None:
    named = {"RUN": str(spoken["run"]), "TEXT": str(spoken["text"])}
    on_a_terminal([named.get(word, word) for word in words_], code)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("config.json", '"cell": "lstm"', f'"cell": {json.dumps(BAD)}'),
        ("config.json", '"seed": 0', f"{json.dumps(BAD)}: 0"),
        ("corpus.json", '"corpus"', json.dumps(BAD)),
        ("vocabulary.json", "[", f"[{json.dumps(BAD)}, "),
        ("metrics.jsonl", '"step"', json.dumps(BAD)),
    ],
)
def test_no_field_of_a_file_sends_an_escape_code(
    spoken: dict[str, Any], tmp_path: Path, name: str, old: str, new: str
) -> None:
    run = shutil.copytree(spoken["run"], tmp_path / f"run{BAD}")
    content_ = (run / name).read_text()
    assert old in content_
    (run / name).write_text(content_.replace(old, new, 1))
    on_a_terminal(["report", str(run)], 2)
    if name != "metrics.jsonl":
        on_a_terminal(["sample", str(run)], 2)


def test_the_list_of_texts_sends_no_escape_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / f"texts{BAD}"
    place.mkdir()
    (place / "anna.txt").write_text("a")
    monkeypatch.setenv("CHARLSTM_CORPORA", str(place))
    monkeypatch.setenv("COLUMNS", "400")
    assert SHOWN in on_a_terminal(["corpora"], 0)


@pytest.mark.slow
def test_a_comparison_sends_no_escape_code(spoken: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text(
        "from charlstm.config import Grid\nGRID = Grid(cells=('rnn',), layers=(1,), sizes=(4,), seeds=1)\n"
    )
    fields = {"data.corpus": spoken["text"], "data.batch-size": 2, "data.seq-length": 16, "train.steps": 1}
    typed = [word for name, value in fields.items() for word in (f"--{name}", str(value))]
    shown = on_a_terminal(["compare", str(tmp_path / "small.py"), "--run-dir", str(tmp_path / f"grid{BAD}"), *typed], 0)
    assert SHOWN in shown
    assert "rnn-1x4" in shown


def test_a_vocabulary_goes_through_no_link(tmp_path: Path) -> None:
    """Its draft had a name that could be guessed, and followed a link that was there."""
    (tmp_path / "precious").write_text("mine")
    (tmp_path / ".vocabulary.json.tmp").symlink_to(tmp_path / "precious")
    Vocabulary.of("ab").save(tmp_path / "vocabulary.json")
    assert (tmp_path / "precious").read_text() == "mine"
    assert Vocabulary.load(tmp_path / "vocabulary.json") == Vocabulary.of("ab")
