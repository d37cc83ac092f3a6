"""A comparison as tasks of Ray: the table and the bits of one in a single process, whatever is lost on the way."""

import glob
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_runs import SMALL, TEXT, figures

from benchmarks.kills import differences
from charlstm import cli
from charlstm.compare import cluster
from charlstm.support.process import cores

EXPERIMENT = """
import flax.linen as nn
import charlstm

class Own(nn.GRUCell):
    pass

charlstm.register_cell("own", Own)
GRID = charlstm.Grid(cells=("lstm", "own"), layers=(1,), sizes=(8,), seeds=2)
"""
MODELS = ("lstm-1x8", "own-1x8")
STEPS = 400
FIELDS: dict[str, Any] = {name: value for name, value in SMALL.items() if not name.startswith(("model.h", "model.n"))}
FIELDS |= {"data.validation-fraction": 0.1, "data.test-fraction": 0.1, "train.sample-every": 0}
# So long that the model whose node is killed, once it has a checkpoint, still trains then.
FIELDS |= {"train.steps": STEPS, "train.validate-every": STEPS // 4, "train.checkpoint-every": STEPS // 10}
# Seeds that share the devices of this process would not be those of one core, to the bit.
ENVIRONMENT = os.environ | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "JAX_NUM_CPU_DEVICES": "2"}
UNSEEN = textwrap.dedent("""
    import sys
    from contextlib import nullcontext
    from charlstm import cli
    from charlstm.compare import cluster

    cluster._marked = lambda folder: nullcontext("a mark that is in no folder")
    sys.exit(cli.run(sys.argv[1:]))
""")
"""A head whose folder no task sees, as on machines that share none."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text, an experiment and a comparison that was trained model by model."""
    pytest.importorskip("ray", reason="it needs the extra ray")
    folder = tmp_path_factory.mktemp("cluster")
    prepare(folder)
    done = subprocess.run(command(folder, "whole", on=None), env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def prepare(folder: Path) -> None:
    (folder / "tiny.txt").write_text(15 * TEXT)  # so long that devices share the rows of an evaluation
    (folder / "small.py").write_text(EXPERIMENT)


def words(folder: Path, name: str, on: str | None = "ray") -> list[str]:
    fields = FIELDS | {"data.corpus": folder / "tiny.txt"}
    where = [] if on is None else ["--on", on]
    options = [word for field, value in fields.items() for word in (f"--{field}", str(value))]
    return ["compare", str(folder / "small.py"), "--run-dir", str(folder / name), *where, *options]


def command(
    folder: Path, name: str, on: str | None = "ray", program: tuple[str, ...] = ("-m", "charlstm")
) -> list[str]:
    return [sys.executable, *program, *words(folder, name, on)]


def assert_same(folder: Path, name: str) -> None:
    """Asserts that a comparison is the template's, with the bits of all its checkpoints, metrics and samples."""
    ours, theirs = folder / name, folder / "whole"
    assert figures(ours) == figures(theirs)
    for model in MODELS:
        for run in (f"{model}/seed-0", f"{model}/seed-1"):
            assert not differences(ours / run, theirs / run)
    assert not list(ours.glob(".*"))
    assert (ours / "report.html").exists()


def steps(comparison: Path, model: str) -> int:
    """Of the run of a model that has fewest; the folder may be a pattern."""
    paths = glob.glob(f"{comparison}/{model}/*/metrics.jsonl")
    return min((Path(path).read_bytes().count(b"\n") for path in paths), default=0)


def wait(process: subprocess.Popen[str], what: Any) -> None:
    """Returns once something holds; fails where the process ends before it does."""
    while not what():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


@contextmanager
def three_raylets() -> Iterator[subprocess.Popen[str]]:
    pipe: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-m", "three_raylets"], env=ENVIRONMENT, **pipe) as process:
        yield process


@pytest.mark.slow
def test_a_node_that_is_killed_in_mid_grid_changes_nothing(template: Path) -> None:
    """Its model goes on from a checkpoint, on one of the nodes that are left."""
    with three_raylets() as raylets:
        assert raylets.stdin and raylets.stdout
        environment = ENVIRONMENT | {"RAY_ADDRESS": raylets.stdout.readline().strip()}
        with subprocess.Popen(command(template, "killed"), env=environment, stderr=subprocess.PIPE, text=True) as head:
            raylets.stdin.write(f"{template / 'killed'}\n")
            raylets.stdin.flush()
            _, told = head.communicate()
    assert head.returncode == 0, told
    assert told.count("its task was lost, and another one goes on after step") == 1, told
    assert "goes on after step 0" not in told
    assert_same(template, "killed")


@pytest.mark.slow
def test_a_stop_saves_all_and_the_same_command_continues(template: Path, tmp_path: Path) -> None:
    """With tasks that do not see the head's folder, and begin with copies of its files."""
    ours, elsewhere = command(template, "copied", program=("-c", UNSEEN)), tmp_path / "nodes"
    elsewhere.mkdir()
    environment = ENVIRONMENT | {"TMPDIR": str(elsewhere), "RAY_TMPDIR": "/tmp"}
    with subprocess.Popen(ours, env=environment, stderr=subprocess.PIPE, text=True) as head:
        wait(head, lambda: steps(elsewhere / "charlstm-*", "lstm-1x8") > STEPS // 10)
        head.send_signal(signal.SIGINT)
        _, told = head.communicate()
    assert head.returncode == 130, told
    assert "the same command continues from there" in told.splitlines()[-1]
    done = subprocess.run(ours, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Raylet" not in done.stdout
    assert_same(template, "copied")


@pytest.mark.parametrize(
    ("on", "message"),
    [
        ("spark", "--on is 'spark'; it must be ray, or ray://HOST:PORT"),
        ("ray://", "it must be ray, or ray://HOST:PORT"),
        ("ray://127.0.0.1:1", "there is no Ray cluster at ray://127.0.0.1:1: Connection refused; start Ray there, or"),
    ],
)
def test_a_cluster_that_is_not_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], on: str, message: str
) -> None:
    if on == "ray://127.0.0.1:1":
        pytest.importorskip("ray")
    prepare(tmp_path)
    assert cli.run(words(tmp_path, "run", on)) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_task_has_the_devices_and_threads_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last bits of an RNN of 206 units, and of any evaluation in rows, depend on them."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cluster, "jax", SimpleNamespace(config=SimpleNamespace(jax_num_cpu_devices=3)))
    ray = SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": {"CPU": 8.0}}])
    for seeds, models, taken in ((5, 4, 2), (5, 20, 1), (5, 1, 3), (2, 20, 3)):
        options = cluster._options(ray, seeds, models)
        found = options["runtime_env"]["env_vars"]
        assert (options["num_cpus"], found["JAX_NUM_CPU_DEVICES"]) == (taken, "3")
        assert found["OMP_NUM_THREADS"] == str(cores())


def without_ray(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    prepare(folder)


def test_the_extra_is_named_where_it_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_ray(tmp_path, monkeypatch)
    assert cli.run(words(tmp_path, "run")) == 2
    assert "this needs ray, which is not installed; pip install 'charlstm[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_comparison_that_takes_turns_or_is_complete_imports_no_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_ray(tmp_path, monkeypatch)
    few = ["--train.steps", "2", "--train.validate-every", "0", "--cells", "rnn"]
    assert cli.run([*words(tmp_path, "short", on=None), *few]) == 0
    assert cli.run([*words(tmp_path, "short"), *few]) == 0
