"""Laws of checkpoint.py: what comes back is what was saved, to the bit, or it is refused by name."""

import asyncio
import contextlib
import errno
import functools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import unpack_before_rebuild

from charlstm.core.optimizer import make_optimizer
from charlstm.core.step import init_state
from charlstm.runs.arrays import leaf_records, seal, to_host
from charlstm.runs.checkpoint import Checkpoints
from charlstm.runs.folder import Run
from charlstm.runs.models import make_model
from charlstm.support.errors import InputError, TrainingError


class State(NamedTuple):
    step: Any
    params: Any
    optimizer: Any
    carry: Any
    key: Any


@functools.cache
def state(seed: int = 0, width: int = 5) -> State:
    """As in training: nested parameters, optax's named tuples, carries, counters, a typed key."""
    key = jax.random.key(seed)
    params = {"layer_0": {"kernel": jax.random.normal(key, (3, width)), "bias": jnp.zeros(width)}}
    adam = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.constant_schedule(1e-3)))
    carry = ((jnp.full((2, width), 0.5), jnp.full((2, width), -0.0)),)
    return State(jnp.int32(seed), params, adam.init(params), carry, key)


def bits(tree: Any) -> list[tuple[Any, ...]]:
    raw = jax.tree.map(lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, tree)
    return [(x.shape, str(x.dtype), np.asarray(x).tobytes()) for x in jax.tree.leaves(raw)]


def like(tree: Any) -> Any:
    return jax.eval_shape(lambda: tree)


def fill(folder: Path, *steps: int) -> None:
    with Checkpoints(folder, keep=9) as checkpoints:
        for step in steps:
            checkpoints.save(step, state(step), None)


def array_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.parent.name == "d")


def test_a_training_state_comes_back_to_the_bit(tmp_path: Path) -> None:
    fill(tmp_path / "made" / "checkpoints", 7)
    with Checkpoints(tmp_path / "made" / "checkpoints", keep=1, read_only=True) as checkpoints:
        for form in (state(), like(state())):
            restored = checkpoints.restore(7, form)
            assert jax.tree.structure(restored) == jax.tree.structure(state())
            assert bits(restored) == bits(state(7))
            assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(restored))
            assert restored.key.dtype == state().key.dtype


words = st.one_of(
    st.integers(0, 2**32 - 1), st.sampled_from([0x7FC00001, 0xFF800001, 0x80000000, 0x00000001, 0x7F800000])
)


@settings(max_examples=15, deadline=None)
@given(st.lists(words, min_size=1, max_size=6), st.sampled_from(["float32", "int32", "uint32", "bfloat16", "bool"]))
def test_any_bits_come_back(tmp_path_factory: pytest.TempPathFactory, content: list[int], dtype: str) -> None:
    """NaN payloads, -0.0 and denormals among them."""
    raw = np.array(content, "<u4")
    array = (raw % 2).astype(bool) if dtype == "bool" else raw.view(jnp.dtype(dtype))
    tree = {"a": jax.device_put(array), "scalar": jax.device_put(array[0])}
    with Checkpoints(tmp_path_factory.mktemp("bits"), keep=1) as checkpoints:
        checkpoints.save(0, tree)
        assert bits(checkpoints.restore(0, like(tree))) == bits(tree) == bits({"a": array, "scalar": array[0]})


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_keys_of_any_kind_come_back(tmp_path: Path, impl: str) -> None:
    keys = jax.random.split(jax.random.key(3, impl=impl), 4)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(0, {"keys": keys})
        restored = checkpoints.restore(0, like({"keys": keys}))["keys"]
        other = {"keys": jax.random.split(jax.random.key(3, impl="rbg" if impl != "rbg" else "threefry2x32"), 4)}
        with pytest.raises(InputError, match="keys: its dtype is"):
            checkpoints.restore(0, other)
    assert jax.random.key_impl(restored) == jax.random.key_impl(keys)
    assert bits(restored) == bits(keys)


def test_buffers_may_be_donated_and_overwritten_after_save_returns(tmp_path: Path) -> None:
    """Also by the restored state, and with no warning of a donation that was not possible."""
    overwrite = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 1, tree), donate_argnums=0)
    big = {"a": jnp.arange(2_000_000, dtype=jnp.float32), "b": jnp.ones((), jnp.int32)}
    expected = bits(big)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(1, big)
        for _ in range(3):
            big = overwrite(big)
        restored = checkpoints.restore(1, like(big))
        assert bits(restored) == expected
        checkpoints.save(2, restored)
        overwrite(restored)
        assert restored["a"].is_deleted()
        assert bits(checkpoints.restore(2, like(big))) == expected


def test_save_returns_before_the_files_are_there(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, {"a": jax.random.normal(jax.random.key(0), (3_000_000,))})
        assert not (tmp_path / "1").exists()
        checkpoints.wait()
        assert (tmp_path / "1").exists()


losses = st.sampled_from([None, 1.0, 2.0, 3.0, float("nan"), float("inf")])


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(losses, st.booleans()), min_size=1, max_size=6), st.integers(1, 3))
def test_the_newest_and_the_best_stay(
    tmp_path_factory: pytest.TempPathFactory, saves: list[tuple[float | None, bool]], keep: int
) -> None:
    """Whether or not checkpoints have a loss, and across reopening."""
    folder, known = tmp_path_factory.mktemp("kept"), dict[int, float | None]()
    checkpoints = Checkpoints(folder, keep)
    for step, (loss, reopen) in enumerate(saves):
        if reopen:
            checkpoints.close()
            checkpoints = Checkpoints(folder, keep)
        checkpoints.save(step, {"a": jnp.int32(step)}, loss)
        known[step] = loss if loss is not None and np.isfinite(loss) else None
        scored = [(value, each) for each, value in known.items() if value is not None]
        best = min(scored)[1] if scored else None
        known = {each: value for each, value in known.items() if each > step - keep or each == best}
        assert checkpoints.steps() == sorted(known) == sorted(int(path.name) for path in folder.iterdir())
        assert (checkpoints.latest(), checkpoints.best()) == (step, best)
    checkpoints.close()


def test_an_empty_folder_has_nothing(tmp_path: Path) -> None:
    for folder, read_only in ((tmp_path / "absent", True), (tmp_path / "empty", False)):
        with Checkpoints(folder, keep=1, read_only=read_only) as checkpoints:
            assert (checkpoints.steps(), checkpoints.latest(), checkpoints.best()) == ([], None, None)
            assert checkpoints.restore_newest(like(state())) is None
            with pytest.raises(InputError, match=r"there is no checkpoint 3 in .*; there are none"):
                checkpoints.restore(3, like(state()))
    assert not (tmp_path / "absent").exists()


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    fill(tmp_path, 1, 2)
    with Checkpoints(tmp_path, keep=9) as checkpoints:
        checkpoints.save(1, state(5), 1.0)
        assert (checkpoints.steps(), checkpoints.best()) == ([1, 2], 1)
        assert bits(checkpoints.restore(1, like(state(5)))) == bits(state(5))


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", range(5))
def test_a_kill_while_a_checkpoint_is_replaced_leaves_the_old_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """The old one was removed before the new one was written."""
    fill(tmp_path, 1)
    calls = list[str]()

    def dying(owner: Any, name: str) -> Any:
        original = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            if len(calls) == moment:
                raise Killed
            return original(*args, **kwargs)

        return call

    async def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        if moment == 0:
            patch.setattr(ocp.type_handlers.NumpyHandler, "_open_and_write", full)
        for owner, name in ((Path, "rename"), (shutil, "rmtree")):
            patch.setattr(owner, name, dying(owner, name))
        with contextlib.suppress(Killed, TrainingError), Checkpoints(tmp_path, keep=1) as checkpoints:
            checkpoints.save(1, state(5), 1.0)
            checkpoints.wait()
    assert calls == ["rename", "rename", "rmtree"][: min(moment, 3)]
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        assert [path.name for path in tmp_path.iterdir()] == ["1"]
        assert bits(checkpoints.restore(1, like(state()))) == bits(state(5 if moment else 1))


def test_a_loss_is_added_to_the_record_alone(tmp_path: Path) -> None:
    fill(tmp_path, 1, 2)
    before = {path: path.stat() for path in tmp_path.rglob("*") if path.is_file() and path.name != "integrity.json"}
    with Checkpoints(tmp_path, keep=9) as checkpoints:
        checkpoints.record_loss(1, 1.5)
        checkpoints.record_loss(1, 2.5)
        assert checkpoints.best() == 1
        assert bits(checkpoints.restore(1, like(state()))) == bits(state(1))
    assert json.loads((tmp_path / "1" / "integrity" / "integrity.json").read_text())["validation_loss"] == 1.5
    assert {path: path.stat().st_mtime_ns for path in before} == {path: at.st_mtime_ns for path, at in before.items()}


def test_a_reader_cannot_save(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    with Checkpoints(tmp_path, keep=1, read_only=True) as checkpoints, pytest.raises(RuntimeError, match="reading"):
        checkpoints.save(2, state())


@pytest.mark.parametrize("leaf", [np.zeros(3), 3, "text"])
def test_only_arrays_are_saved(tmp_path: Path, leaf: Any) -> None:
    with Checkpoints(tmp_path, keep=1) as checkpoints, pytest.raises(TypeError, match="a/1 is of type"):
        checkpoints.save(2, {"a": (jnp.int32(1), leaf)})


def flip(path: Path, position: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


def break_integrity(folder: Path) -> None:
    (folder / "integrity" / "integrity.json").write_text('{"leaves": [3')


def break_nested(folder: Path) -> None:
    (folder / "integrity" / "integrity.json").write_text('{"leaves":' * 100_000)


def break_record(folder: Path) -> None:
    (folder / "integrity" / "integrity.json").write_text('{"leaves": [3], "validation_loss": "low"}')


def break_flip(folder: Path) -> None:
    for path in array_files(folder):  # a small one is in dead bytes for the most part
        for position in range(30, path.stat().st_size, 40):
            flip(path, position)


def break_truncate(folder: Path) -> None:
    for path in array_files(folder):
        path.write_bytes(path.read_bytes()[:20])


def break_missing(folder: Path) -> None:
    for path in array_files(folder):
        path.unlink()


def break_all(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def break_metadata(folder: Path) -> None:
    (folder / "state" / "_METADATA").write_text("{}")
    (folder / "_CHECKPOINT_METADATA").write_text("\0")


def break_params(folder: Path) -> None:
    shutil.rmtree(folder / "params")


DAMAGES = [
    break_params,
    break_integrity,
    break_nested,
    break_record,
    break_flip,
    break_truncate,
    break_missing,
    break_all,
    break_metadata,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_checkpoint_is_named_and_skipped(
    tmp_path: Path, damage: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path, 1, 2)
    damage(tmp_path / "2")
    with Checkpoints(tmp_path, keep=9) as checkpoints:
        restored = checkpoints.restore_newest(like(state()))
        assert restored is not None and restored.step == 1 and bits(restored.state) == bits(state(1))
        (note,) = restored.notes
        assert note.startswith("checkpoint 2 is skipped: ") and note.isprintable() and len(note) < 400
        with pytest.raises(InputError, match=r"checkpoint 2 in .* cannot be used: "):
            checkpoints.restore(2, like(state()))
    damage(tmp_path / "1")
    with Checkpoints(tmp_path, keep=9, read_only=True) as checkpoints:
        with pytest.raises(InputError, match=r"no checkpoint in .* can be used .*checkpoint 1 is skipped") as error:
            checkpoints.restore_newest(like(state()))
        assert str(error.value).isprintable()
    assert capfd.readouterr() == ("", "")


def test_no_flipped_bit_changes_what_comes_back(tmp_path: Path) -> None:
    """Wherever it is: it is found, or it does not matter."""
    fill(tmp_path, 1)
    files = sorted(path for path in (tmp_path / "1").rglob("*") if path.is_file())
    rng = np.random.default_rng(0)
    found = 0
    with Checkpoints(tmp_path, keep=9, read_only=True) as checkpoints:
        for _ in range(80):
            path = files[rng.integers(len(files))]
            whole = path.read_bytes()
            flip(path, int(rng.integers(len(whole))), int(rng.integers(8)))
            try:
                assert bits(checkpoints.restore(1, like(state()))) == bits(state(1))
            except InputError:
                found += 1
            path.write_bytes(whole)
        assert found > 5
        assert bits(checkpoints.restore(1, like(state()))) == bits(state(1))


def test_a_flipped_bit_in_a_large_array_is_found(tmp_path: Path) -> None:
    """Its file holds compressed data without a checksum, so what finds it is ours."""
    tree = {"a": jax.random.normal(jax.random.key(0), (200_000,))}
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, tree)
        checkpoints.wait()
        path = max(array_files(tmp_path / "1"), key=lambda path: path.stat().st_size)
        for part in range(1, 8):
            position = path.stat().st_size * part // 8
            flip(path, position)
            with pytest.raises(InputError, match="cannot be used"):
                checkpoints.restore(1, like(tree))
            flip(path, position)
        assert bits(checkpoints.restore(1, like(tree))) == bits(tree)


def test_a_broken_step_is_replaced_and_takes_no_place(tmp_path: Path) -> None:
    fill(tmp_path, 1, 2, 3, 4)
    break_flip(tmp_path / "3")
    break_missing(tmp_path / "4")
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.steps() == [1, 2, 3, 4]
        restored = checkpoints.restore_newest(like(state()))
        assert restored is not None and restored.step == 2 and len(restored.notes) == 2
        checkpoints.save(3, state(3))
        assert checkpoints.steps() == [2, 3]
        break_flip(tmp_path / "3")
        checkpoints.save(3, state(3))
        assert bits(checkpoints.restore(3, like(state()))) == bits(state(3))


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (state(width=6), r"params/layer_0/bias: its shape is \[5\] there, and \[6\] in this model"),
        ({"step": jnp.int32(0)}, "it has 12 arrays, and this model has 1"),
        (state()._replace(step=jnp.float32(0)), "step: its dtype is int32 there, and float32 in this model"),
        (state()._replace(carry=()), "key: its name is carry/0/0 there"),
    ],
)
def test_another_model_is_refused(tmp_path: Path, other: Any, reason: str) -> None:
    fill(tmp_path, 1)
    with Checkpoints(tmp_path, keep=9, read_only=True) as checkpoints:
        with pytest.raises(InputError, match=reason):
            checkpoints.restore(1, like(other))
        with pytest.raises(InputError, match=reason):
            checkpoints.restore_newest(other)


def test_what_is_no_checkpoint_is_left_alone(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("mine")
    folder = tmp_path / "checkpoints"
    (folder / "notes").mkdir(parents=True)
    (folder / "3.5").mkdir()
    (folder / "100").write_text("a file")
    (folder / "1").symlink_to(elsewhere)
    (folder / "2").symlink_to(tmp_path / "nowhere")
    with Checkpoints(folder, keep=1) as checkpoints:
        assert checkpoints.restore_newest(like(state())) is None
        for step in (1, 3, 99, 100, 101):
            checkpoints.save(step, state(step))
        assert checkpoints.steps() == [101]
    assert (elsewhere / "precious").read_text() == "mine"
    assert (folder / "100.moved-aside").read_text() == "a file"
    assert (folder / "notes").is_dir() and (folder / "3.5").is_dir() and (folder / "2").is_symlink()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is not a folder"):
        Checkpoints(tmp_path / "file", keep=1)


def test_a_failed_write_is_reported_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The training stops with one line; closing afterwards works."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1)
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(TrainingError, match="could not be written to") as error:
        checkpoints.save(1, state())
        checkpoints.wait()
    assert str(error.value).isprintable()
    checkpoints.close()
    checkpoints.close()
    assert capfd.readouterr() == ("", "")


def test_a_full_disk_is_one_line_and_a_later_save_works(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Simulated by a limit on the size of a file. Nothing of Orbax reaches the terminal."""
    tree = {str(i): jax.random.normal(jax.random.key(i), (100_000,)) for i in range(4)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, tree)
        checkpoints.wait()
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        try:
            with pytest.raises(TrainingError, match=r"could not be written to .*File too large") as error:
                checkpoints.save(2, tree)
                checkpoints.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert str(error.value).isprintable()
        assert checkpoints.steps() == [1]
        assert bits(checkpoints.restore(1, like(tree))) == bits(tree)
        checkpoints.save(2, tree)
        assert checkpoints.steps() == [2]
    assert capfd.readouterr() == ("", "")


def test_what_a_killed_save_left_is_cleaned_by_the_next_writer(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    left = tmp_path / "2.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "1", left)
    with Checkpoints(tmp_path, keep=1, read_only=True) as checkpoints:
        assert checkpoints.steps() == [1] and left.exists()
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        assert checkpoints.steps() == [1] and not left.exists()


FEW_DESCRIPTORS = """
import gc, resource, sys
from pathlib import Path
import jax, jax.numpy as jnp
from charlstm.runs.checkpoint import Checkpoints
gc.disable()
tree = {"params": {str(i): jnp.ones(9) for i in range(150)}, "optimizer": {str(i): jnp.ones(9) for i in range(300)}}
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
runs = [Checkpoints(Path(sys.argv[1], str(i)), keep=1) for i in range(3)]
for step in (1, 2):
    for run in runs:
        run.save(step, tree)
for run in runs:
    run.restore(2, jax.eval_shape(lambda: tree))
    run.close()
"""


def test_many_arrays_need_few_file_descriptors(tmp_path: Path) -> None:
    """Of several runs that save at once; macOS gives 256, and each array took three."""
    root, environment = str(Path(__file__).parents[2]), os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", FEW_DESCRIPTORS, str(tmp_path)]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


KILLED = """
import sys
from pathlib import Path
import jax, jax.numpy as jnp
from charlstm.runs.checkpoint import Checkpoints
checkpoints = Checkpoints(Path(sys.argv[1]), keep=2)
for step in range(10_000):
    checkpoints.save(step, {"a": jax.random.normal(jax.random.key(step), (300_000,)), "step": jnp.int32(step)})
    print(step, flush=True)
"""


@pytest.mark.slow
def test_a_save_that_is_killed_leaves_whole_checkpoints_only(tmp_path: Path) -> None:
    form = {"a": jax.ShapeDtypeStruct((300_000,), jnp.float32), "step": jax.ShapeDtypeStruct((), jnp.int32)}
    torn = 0
    for attempt in range(2):
        folder = tmp_path / str(attempt)
        command = [sys.executable, "-c", KILLED, str(folder)]
        root = str(Path(__file__).parents[2])
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, cwd=root, env=os.environ | {"JAX_PLATFORMS": "cpu"}
        ) as run:
            assert run.stdout is not None
            for _ in range(3):
                run.stdout.readline()
            time.sleep(0.004 * attempt)
            run.send_signal(signal.SIGKILL)
        torn += sum(path.name.endswith("-tmp") for path in folder.iterdir())
        with Checkpoints(folder, keep=2) as checkpoints:
            restored = checkpoints.restore_newest(form)
            assert restored is not None and restored.notes == () and restored.step >= 1
            assert restored.state["step"] == restored.step
            expected = jax.random.normal(jax.random.key(restored.step), (300_000,))
            assert bits(restored.state["a"]) == bits(expected)
            assert {path.name for path in folder.iterdir()} == {str(step) for step in checkpoints.steps()}
    assert torn > 0  # a kill was in the middle of a save


def test_a_checkpoint_of_two_devices_is_restored_on_one(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
import jax, jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from charlstm.runs.checkpoint import Checkpoints
mesh = Mesh(jax.devices(), ("d",))
assert mesh.size == 2
array = jax.device_put(jnp.arange(8.0), NamedSharding(mesh, PartitionSpec("d")))
with Checkpoints(Path(sys.argv[1]), keep=1) as checkpoints:
    checkpoints.save(1, {"a": array})
"""
    flags = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path)],
        env=os.environ | flags,
        cwd=root,
        capture_output=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == (b"", b"")
    with Checkpoints(tmp_path, keep=1, read_only=True) as checkpoints:
        restored = checkpoints.restore(1, {"a": jax.ShapeDtypeStruct((8,), jnp.float32)})
    assert restored["a"].tolist() == list(range(8)) and len(restored["a"].devices()) == 1


def test_the_record_is_plain_json(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, state(), 1.5)
    record = json.loads((tmp_path / "1" / "integrity" / "integrity.json").read_text())
    assert record["validation_loss"] == 1.5 and record["step"] == 1
    assert [entry["name"] for entry in record["leaves"]][:2] == ["step", "params/layer_0/bias"]
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".pkl", ".pickle", ".py", ".npy")]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
        ValueError(f'TensorStore\'s "chain": {os.strerror(errno.EIO)}'),
    ],
    ids=["memory", "files", "disk"],
)
def test_a_failure_of_the_system_costs_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """It was taken for damage: the newest one was skipped, and removed by the next save."""

    def fail(*_: Any, **__: Any) -> None:
        raise error

    fill(tmp_path, 1, 2, 3)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        with monkeypatch.context() as patch, pytest.raises((MemoryError, TrainingError)):
            patch.setattr(ocp.Checkpointer, "restore", fail)
            checkpoints.restore_newest(like(state()))
        checkpoints.save(4, state(4))
        assert checkpoints.steps() == [3, 4]
        assert bits(checkpoints.restore(3, like(state()))) == bits(state(3))


@pytest.mark.parametrize(
    ("name", "value"), [("validation_loss", 1.0), ("devices", 2), ("step", 2), ("sha256", "0" * 64), ("sha257", "")]
)
def test_what_the_record_says_has_a_hash_too(tmp_path: Path, name: str, value: Any) -> None:
    """The loss decides which one is the best, and so which ones are removed."""
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        checkpoints.save(1, state(), 1.5)
    path = tmp_path / "1" / "integrity" / "integrity.json"
    record = json.loads(path.read_text())
    if name == "sha257":  # a bit of the name is enough
        del record["sha256"]
    path.write_text(json.dumps(record | {name: value}))
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        assert checkpoints.best() is None
        with pytest.raises(InputError, match=r"integrity\.json does not match its SHA-256"):
            checkpoints.restore(1, like(state()))


def test_a_record_from_before_it_had_a_hash_is_read(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        checkpoints.save(1, state(), 1.5)
    path = tmp_path / "1" / "integrity" / "integrity.json"
    record = json.loads(path.read_text())
    del record["sha256"]
    path.write_text(json.dumps(record))
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        assert checkpoints.best() == 1
        assert bits(checkpoints.restore(1, like(state()))) == bits(state())


@pytest.mark.parametrize("devices", [["a\nline"], "2", 0, True, -1, None])
def test_devices_that_are_no_number_are_not_told(tmp_path: Path, devices: Any) -> None:
    fill(tmp_path, 1)
    path = tmp_path / "1" / "integrity" / "integrity.json"
    path.write_text(json.dumps(seal(json.loads(path.read_text()) | {"devices": devices})))
    with Checkpoints(tmp_path, keep=3, read_only=True) as checkpoints:
        restored = checkpoints.restore_newest(like(state()))
    assert restored is not None and restored.devices is None


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("store", ["gs", "s3", "az", "hf"])
def test_a_path_that_is_the_address_of_a_bucket_is_refused(store: str, read_only: bool) -> None:
    with pytest.raises(InputError, match="cannot hold a checkpoint"):
        Checkpoints(Path("/", store, "run", "checkpoints"), keep=1, read_only=read_only)


@pytest.mark.parametrize("name", ["a[1]", "a*", "a?b", "a\\b", "gs:"])
def test_a_path_that_is_taken_for_another_is_refused(tmp_path: Path, name: str) -> None:
    """What Orbax made of these was lost, mixed with another run's, or outside of the folder."""
    with pytest.raises(InputError, match="cannot hold a checkpoint"):
        Checkpoints(tmp_path / name / "checkpoints", keep=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a b", "a#b", "a%20b", "a:b", "{a}", "~a", "a'b", 'a"b', "a\x1b", "ünï", "s3:", "@1"])
def test_every_other_path_does(tmp_path: Path, name: str) -> None:
    fill(tmp_path / name / "checkpoints", 1)
    with Checkpoints(tmp_path / name / "checkpoints", keep=1) as checkpoints:
        assert bits(checkpoints.restore(1, like(state()))) == bits(state(1))
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a[1]", "a*", "a?b"])
def test_what_came_to_such_a_path_can_be_read(tmp_path: Path, name: str) -> None:
    fill(tmp_path / "made", 1)
    (tmp_path / "made").rename(tmp_path / name)
    with Checkpoints(tmp_path / name, keep=1, read_only=True) as checkpoints:
        assert bits(checkpoints.restore(1, like(state()))) == bits(state(1))


# Parameters, on their own.


def test_params_are_read_whichever_optimizer_made_them(tmp_path: Path) -> None:
    """Neither the optimizer's structure nor its bytes are needed."""
    params, tx = state(1).params, optax.sgd(optax.exponential_decay(1e-2, 10, 0.5), momentum=0.9)
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        checkpoints.save(1, state(1))
        checkpoints.save(2, State(jnp.int32(2), params, tx.init(params), (), jax.random.key(2)))
    shutil.rmtree(tmp_path / "1" / "state")
    (tmp_path / "2" / "state" / "_METADATA").write_text("torn")
    with Checkpoints(tmp_path, keep=3, read_only=True) as checkpoints:
        for step in (1, 2):
            assert {path.name for path in (tmp_path / str(step)).iterdir()} >= {"params", "integrity"}
            assert bits(checkpoints.restore_params(step, like(params))) == bits(params)
            with pytest.raises(InputError, match="its state cannot be read|its name is optimizer/"):
                checkpoints.restore(step, like(state()))
        with pytest.raises(InputError, match=r"params/layer_0/bias: its shape is \[5\] there, and \[6\] in this model"):
            checkpoints.restore_params(1, like(state(width=6).params))


@pytest.mark.parametrize("damage", [break_params, break_integrity, break_record, break_flip, break_truncate, break_all])
def test_broken_params_are_named(tmp_path: Path, damage: Any) -> None:
    fill(tmp_path, 1)
    damage(tmp_path / "1")
    with (
        Checkpoints(tmp_path, keep=3, read_only=True) as checkpoints,
        pytest.raises(InputError, match="checkpoint 1 in .* cannot be used"),
    ):
        checkpoints.restore_params(1, like(state().params))


@pytest.fixture(scope="module")
def before_rebuild(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders written when a checkpoint held everything in the item `state`."""
    folder = tmp_path_factory.mktemp("before")
    return unpack_before_rebuild(folder)


@pytest.mark.parametrize("name", ["run", "plain"])
def test_an_old_checkpoint_opens_as_it_is(before_rebuild: Path, name: str) -> None:
    run = Run.open(before_rebuild / name)
    model, tx = make_model(run.config, len(run.vocabulary)), make_optimizer(run.config.optimizer, 1)
    form = jax.eval_shape(lambda: init_state(model, tx, run.config.data.batch_size))
    with Checkpoints(run.folder / "checkpoints", keep=2, read_only=True) as checkpoints:
        newest = checkpoints.restore_newest(form)
        assert newest is not None and newest.notes == ()
        record = json.loads(
            ((run.folder / "checkpoints") / str(newest.step) / "integrity" / "integrity.json").read_text()
        )
        assert leaf_records(newest.state, to_host(newest.state)) == record["leaves"]
        assert not list((run.folder / "checkpoints").rglob("params"))
        for step in checkpoints.steps():
            params = checkpoints.restore_params(step, form.params)
            assert bits(params) == bits(checkpoints.restore(step, form).params)


def test_an_old_run_continues_in_the_new_form(before_rebuild: Path, tmp_path: Path) -> None:
    """And what it keeps of the old form counts: the best of it stays."""
    run = Run.open(shutil.copytree(before_rebuild / "run", tmp_path / "run"))
    model, tx = make_model(run.config, len(run.vocabulary)), make_optimizer(run.config.optimizer, 1)
    form = jax.eval_shape(lambda: init_state(model, tx, run.config.data.batch_size))
    with Checkpoints(run.folder / "checkpoints", keep=1) as checkpoints:
        best, newest = checkpoints.best(), checkpoints.restore_newest(form)
        assert best is not None and newest is not None
        checkpoints.save(99, newest.state)
        assert checkpoints.steps() == [best, 99]
        assert bits(checkpoints.restore(99, form)) == bits(newest.state)


def test_the_writes_of_a_failed_save_are_over_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Orbax raises the first error while other items are still written, into the folder that the next save clears."""
    serialize, writing = ocp.type_handlers.NumpyHandler._open_and_write, list[float]()

    async def slow_or_failing(self: Any, value: Any, *rest: Any) -> None:
        if value.dtype == np.float32:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        await asyncio.sleep(0.3)
        await serialize(self, value, *rest)
        writing.append(time.monotonic())

    with Checkpoints(tmp_path, keep=1) as checkpoints:
        with monkeypatch.context() as patch, pytest.raises(TrainingError, match="No space left on device"):
            patch.setattr(ocp.type_handlers.NumpyHandler, "_open_and_write", slow_or_failing)
            checkpoints.save(1, State(jnp.int32(0), {"w": jnp.ones(3)}, (), (), jax.random.key(0)))
            checkpoints.wait()
        ended = time.monotonic()
        checkpoints.save(1, state())
        assert checkpoints.steps() == [1]
    assert writing and max(writing) < ended
