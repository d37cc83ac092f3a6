"""Several processes are one: the same losses, one folder, one end, whatever happens to one of them.

All of them run here, as processes of two CPU devices each, whose collectives are Gloo's; hosts have the same.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from small_runs import TEXT, bits, timeless_metrics, words

from benchmarks.aim import command
from benchmarks.hosts import Act, Ended, start_together, two_devices
from benchmarks.kills import differences
from charlstm import cli
from charlstm.runs.loading import load_run
from charlstm.runs.metrics import read

FIELDS: dict[str, Any] = {"data__batch_size": 12, "optimizer__schedule": "constant"}
ENDLESS: dict[str, Any] = {
    "train__steps": 100_000,
    "train__validate_every": 0,
    "train__sample_every": 0,
    "train__checkpoint_every": 50,
}
LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))"
LATE = """
import time
from charlstm.{module} import {name}
before = {name}.{method}
{name}.{method} = lambda *how: (time.sleep(32), before(*how))[1]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a text, and host-0/run, which two processes made."""
    assert jax.device_count() == 1  # of this process, from now on
    folder = tmp_path_factory.mktemp("hosts")
    (folder / "text.txt").write_text(TEXT)
    assert codes(together(folder, folder)) == [0, 0]
    return folder


def train_words(folder: Path, **fields: Any) -> list[str]:
    return words(folder / "text.txt", Path("run"), **FIELDS | fields)


def together(
    folder: Path,
    place: Path,
    *other: list[str],
    act: Act = lambda processes: None,
    **fields: Any,
) -> list[Ended]:
    """Two processes train in `place`; the second with words of its own, where they are given."""
    mine = train_words(folder, **fields)
    return start_together(place, [mine, *(other or [mine])], surroundings(), act)


def surroundings() -> dict[str, str]:
    return two_devices(Path(os.environ["JAX_COMPILATION_CACHE_DIR"]))


def codes(ends: list[Ended]) -> list[int]:
    return [each.code for each in ends]


def after_steps(place: Path, count: int, number: int, sent: signal.Signals) -> Act:
    """Sends a process a signal once so many steps can be read."""

    def act(processes: list[subprocess.Popen[bytes]]) -> None:
        path = place / "host-0" / "run" / "metrics.jsonl"
        while all(each.poll() is None for each in processes):
            if path.exists() and path.read_bytes().count(b"\n") >= count:
                break
            time.sleep(0.01)
        processes[number].send_signal(sent)

    return act


def test_two_processes_are_one_device(folder: Path, tmp_path: Path) -> None:
    """With dropout: the masks are the same numbers. Process 1 makes no file."""
    assert cli.run(words(folder / "text.txt", tmp_path / "one", **FIELDS)) == 0
    run = folder / "host-0" / "run"
    ours, theirs = ([row["loss"] for row in read(each)] for each in (run, tmp_path / "one"))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    assert os.listdir(folder / "host-1") == []
    assert {path.name for path in run.iterdir()} == {path.name for path in (tmp_path / "one").iterdir()}
    assert (run / "config.json").read_text() == (tmp_path / "one" / "config.json").read_text()
    record = json.loads((run / "checkpoints/24/integrity/integrity.json").read_text())
    assert record["devices"] == 4 and load_run(run).sample(length=5, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "steps"), [(0, 9), (1, 2)])
def test_a_lost_process_ends_all_and_the_run_goes_on_to_the_bit(
    folder: Path, tmp_path: Path, number: int, steps: int
) -> None:
    """Law 5; a step before the first checkpoint, or some after it."""
    kill = after_steps(tmp_path, steps, number, signal.SIGKILL)
    begun = time.monotonic()
    ends = together(folder, tmp_path, act=kill, train__steps=24)
    if codes(ends) == [0, 0]:
        pytest.skip("it had ended before it was killed")
    assert ends[number].code == -signal.SIGKILL and ends[1 - number].code == 1
    assert time.monotonic() - begun < 120
    (line,) = [line for line in ends[1 - number].said.splitlines() if line.startswith("charlstm: ")]
    assert f"process {number} ({socket.gethostname()}) was lost; the same command, in all processes" in line
    assert "***" not in ends[1 - number].said and "Traceback" not in ends[1 - number].said
    assert codes(together(folder, tmp_path)) == [0, 0]
    assert differences(folder / "host-0" / "run", tmp_path / "host-0" / "run") == []
    assert os.listdir(tmp_path / "host-1") == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_a_signal_to_one_stops_all_after_one_step(folder: Path, tmp_path: Path, number: int) -> None:
    warn = after_steps(tmp_path, 3, number, signal.SIGTERM)
    ends = together(folder, tmp_path, act=warn, **ENDLESS)
    assert codes(ends) == [143, 143], ends
    stopped = {line for each in ends for line in each.said.splitlines() if "stopped after step" in line}
    assert len(stopped) == 1
    last = max(row["step"] for row in read(tmp_path / "host-0" / "run"))
    assert f"stopped after step {last:,}; " in stopped.pop()
    assert bits(tmp_path / "host-0" / "run", last)


@pytest.mark.slow
def test_deterministic_sums_are_those_of_one_device(folder: Path, tmp_path: Path) -> None:
    """To the bit, on two processes of two devices each."""
    same: dict[str, Any] = {"data__batch_size": 8, "train__deterministic_sums": True}
    assert codes(together(folder, tmp_path, **same)) == [0, 0]
    alone = command(*words(folder / "text.txt", tmp_path / "one", **FIELDS | same))
    subprocess.run(alone, env=surroundings() | {"JAX_NUM_CPU_DEVICES": "1"}, check=True, capture_output=True)
    assert bits(tmp_path / "one", 24) == bits(tmp_path / "host-0" / "run", 24)


@pytest.mark.slow
def test_a_run_moves_between_one_host_and_two(folder: Path, tmp_path: Path) -> None:
    half: dict[str, Any] = {"train__steps": 12}
    whole = folder / "host-0" / "run"
    assert codes(together(folder, tmp_path, **half)) == [0, 0]
    run = tmp_path / "host-0" / "run"
    shutil.copytree(run, tmp_path / "alone")
    assert cli.run(words(folder / "text.txt", tmp_path / "alone", **FIELDS)) == 0
    assert cli.run(words(folder / "text.txt", tmp_path / "begun", **FIELDS, **half)) == 0
    shutil.rmtree(run)
    shutil.move(tmp_path / "begun", run)
    ends = together(folder, tmp_path)
    assert codes(ends) == [0, 0], ends
    assert "up to step 12 this run had 1 device, and now it has 4" in ends[0].said
    for each in (tmp_path / "alone", run):
        found = [row["loss"] for row in read(each)]
        np.testing.assert_allclose(found, [row["loss"] for row in read(whole)], rtol=0, atol=1e-5)


def wrong_words(folder: Path) -> dict[str, tuple[list[str], str]]:
    """Of process 1, and what all say."""
    (folder / "other.txt").write_text(TEXT[::-1])
    return {
        "missing text": (words(folder / "none.txt", Path("run"), **FIELDS), "there is no corpus or file"),
        "other text": (words(folder / "other.txt", Path("run"), **FIELDS), "give all processes the same text"),
        "other words": (train_words(folder, seed=3), "was started with --seed=3, and process 0 with nothing; give all"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["missing text", "other text", "other words"])
def test_wrong_input_on_one_host_is_one_line_in_all(folder: Path, tmp_path: Path, kind: str) -> None:
    other, says = wrong_words(folder)[kind]
    begun = time.monotonic()
    ends = together(folder, tmp_path, other)
    assert codes(ends) == [2, 2], ends
    assert time.monotonic() - begun < 120
    for each in ends:
        assert each.said.count("\n") == 1 and says in each.said
    assert f"charlstm: process 1 ({socket.gethostname()})" in ends[0].said
    assert [os.listdir(tmp_path / f"host-{number}") for number in range(2)] == [[], []]


@pytest.mark.slow
def test_what_process_0_cannot_do_is_one_line_in_all(folder: Path, tmp_path: Path) -> None:
    ends = together(folder, tmp_path, train__accumulate=12)
    assert codes(ends) == [2, 2], ends
    says = (
        "2 processes cannot share the 12 rows of a batch in 12 groups evenly; give another --data.batch-size or --train"
    )
    for each in ends:
        assert each.said.count("\n") == 1 and says in each.said
    (tmp_path / "host-0" / "run").write_text("a file")
    ends = together(folder, tmp_path)
    assert codes(ends) == [2, 2], ends
    assert "run folder" in ends[1].said and "process 0" in ends[1].said and ends[1].said.count("\n") == 1


def begin_with(monkeypatch: pytest.MonkeyPatch, *programs: str) -> None:
    """Has each process, in the order of their numbers, run a program of its own before `charlstm`."""
    normal: Any = subprocess.Popen

    def changed(line: list[str], **how: Any) -> Any:
        before = programs[int(line[-1])]
        return normal([sys.executable, "-c", f"{before}\nfrom charlstm.cli import main; main()", *line[3:]], **how)

    monkeypatch.setattr("benchmarks.hosts.subprocess.Popen", changed)


@pytest.mark.slow
def test_processes_wait_for_one_that_reads_or_compiles_for_long(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For longer than the half minute in which Gloo connects them."""
    reading = LATE.format(module="data.dataset", name="Dataset", method="read")
    compiling = LATE.format(module="training.loop", name="Loop", method="run")
    begin_with(monkeypatch, reading, compiling)
    ends = together(folder, tmp_path)
    assert codes(ends) == [0, 0], ends


@pytest.mark.slow
def test_a_full_disk_ends_all_with_its_line(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated by a limit to the size of process 0's files, which a checkpoint is beyond."""
    begin_with(monkeypatch, LIMITED, "")
    ends = together(folder, tmp_path, model__hidden_size=32, train__validate_every=0, train__sample_every=0)
    assert codes(ends) == [1, 1], ends
    for each in ends:
        (line,) = [line for line in each.said.splitlines() if line.startswith("charlstm: ")]
        assert "a checkpoint could not be written" in line and "File too large" in line


@pytest.mark.slow
def test_patience_and_divergence_end_all(folder: Path, tmp_path: Path) -> None:
    still: dict[str, Any] = {"optimizer__learning_rate": 1e-30, "train__validate_every": 2, "train__patience": 2}
    ends = together(folder, tmp_path, **still)
    assert codes(ends) == [0, 0] and "it ended early, after step 6 of 24" in ends[0].said
    again = together(folder, tmp_path, **still)
    assert codes(again) == [0, 0] and "this run is finished" in again[0].said
    far: dict[str, Any] = {"optimizer__learning_rate": 1e38, "optimizer__warmup_steps": 0, "train__checkpoint_every": 1}
    ends = together(folder, tmp_path / "far", **far)
    assert codes(ends) == [1, 1], ends
    assert all("not finite" in each.said and "Traceback" not in each.said for each in ends)


PROGRAM = """
import sys
import jax
import numpy as np
address, number, text = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.distributed.initialize(address, 2, number)
import optax
import charlstm
from charlstm.training.peers import JoinedPeers, Received

# What process 0 has, all have, to the bit.
strange = np.array([-0.0, np.nan, 1e-45, -np.inf], np.float32)
state = {"floats": jax.numpy.array(strange), "key": jax.random.key(7), "flag": jax.numpy.array([True, False])}
form = jax.eval_shape(lambda: state)
found = JoinedPeers(Received()).spread(state if number == 0 else form)
assert np.asarray(found["floats"]).tobytes() == strange.tobytes()
assert jax.random.key_data(found["key"]).tolist() == jax.random.key_data(jax.random.key(7)).tolist()
assert found["flag"].tolist() == [True, False]

config = charlstm.Experiment(
    data=charlstm.DataConfig(corpus=text, batch_size=4, seq_length=8),
    model=charlstm.ModelConfig(hidden_size=8),
    train=charlstm.TrainConfig(steps=5, tensorboard=False),
)
steps = []
tx = optax.sgd(0.1)
state = charlstm.train(config, "run", tx=tx, callbacks=[lambda step, state, metrics: steps.append(float(metrics.loss))])
assert len(steps) == 5 and int(state.step) == 5 and state.carry[0][0].shape == (4, 8)
if number == 0:
    assert charlstm.load_run("run", "latest").step == 5
print("found", [float(jax.numpy.sum(leaf)) for leaf in jax.tree.leaves(state.params)], steps)
"""


@pytest.mark.slow
def test_a_program_that_joined_by_itself_trains(folder: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    processes = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        line = [sys.executable, "-c", PROGRAM, address, str(number), str(folder / "text.txt")]
        how: Any = {"cwd": tmp_path / str(number), "env": surroundings(), "stdout": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(line, **how))
    said = [process.communicate(timeout=300)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    (ours,), (theirs,) = ([line for line in lines if line.startswith("found")] for lines in said)
    assert ours == theirs
    assert os.listdir(tmp_path / "1") == []


@pytest.mark.slow
def test_three_processes_leave_devices_idle_that_cannot_share(folder: Path, tmp_path: Path) -> None:
    """Four rows each, on three devices each; and of three, both others end where one is lost."""
    three = surroundings() | {"JAX_NUM_CPU_DEVICES": "3"}
    mine = train_words(folder)
    kill = after_steps(tmp_path, 2, 1, signal.SIGKILL)
    ends = start_together(tmp_path, [mine] * 3, three, kill)
    assert [ends[0].code, ends[2].code] == [1, 1]
    assert all("process 1 (" in each.said and "was lost" in each.said for each in (ends[0], ends[2]))
    ends = start_together(tmp_path, [mine] * 3, three)
    assert codes(ends) == [0, 0, 0], ends
    assert "on 2 cores of the CPU in each of 3 processes; 3 idle, since all processes use as many and" in ends[0].said
    ours, theirs = ([row["loss"] for row in read(each / "host-0" / "run")] for each in (tmp_path, folder))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mpirun") is None, reason="Open MPI is not installed: apt-get install openmpi-bin")
def test_open_mpi_starts_one_run(folder: Path, tmp_path: Path) -> None:
    """Nothing but mpirun says that there are two. It binds each process to a core, which is one device then."""
    version = subprocess.run(["mpirun", "--version"], capture_output=True, text=True, check=True).stdout
    if "(Open MPI) 4." not in version:
        pytest.skip(f"JAX finds the processes of Open MPI 4 by itself, and this is {version.splitlines()[0]}")
    mpi = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    line = ["mpirun", "--oversubscribe", "-n", "2", sys.executable, "-m", "charlstm"]

    def run(*words: str) -> Any:
        how: Any = {"cwd": tmp_path, "env": os.environ | mpi, "capture_output": True, "text": True, "timeout": 300}
        return subprocess.run([*line, *words], **how)

    done = run(*train_words(folder))
    assert done.returncode == 0, done.stderr
    assert done.stdout == load_run(tmp_path / "run").sample() + "\n"  # and no greeting of Gloo's
    assert "in each of 2 processes" in done.stderr and done.stderr.count("writes to run") == 1
    ours, theirs = (timeless_metrics(each) for each in (tmp_path / "run", folder / "host-0" / "run"))
    np.testing.assert_allclose([row["loss"] for row in ours], [row["loss"] for row in theirs], rtol=0, atol=1e-5)
    done = run(*words(folder / "none.txt", Path("other")))
    assert done.returncode == 2 and done.stderr.count("there is no corpus or file") == 1
    done = run("eval", "run")
    assert done.returncode == 2 and "Open MPI started this as one of several processes" in done.stderr
    alone = run(*train_words(folder, train__steps=24), "--num-processes", "1")
    assert alone.returncode in (0, 2)  # both continue one folder: the second to come is refused, or finds it finished
