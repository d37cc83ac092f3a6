"""Many devices are one: the same losses, the same random numbers, and runs that move between device counts.

How many CPU devices a process has is settled when JAX starts, so eight and two of them have a process of
their own. The tests' has one.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from reference import assert_trees_equal, random_params
from seed_programs import assert_each_is_as_alone, first_states, seed_program
from small_models import put_reference_for_cudnn
from small_runs import bits, stop_at, timeless_metrics, words

from charlstm import cli
from charlstm.analysis.evaluate import evaluate
from charlstm.analysis.gradient_reach import gradient_reach
from charlstm.config import DataConfig, Experiment, Method, ModelConfig, OptimizerConfig, Recurrence, TrainConfig
from charlstm.core.network import Model
from charlstm.core.optimizer import learning_rate, make_optimizer
from charlstm.core.sharding import Layout
from charlstm.core.step import init_state, jit_update, make_train_step, make_update
from charlstm.data.windows import WindowedText
from charlstm.runs.metrics import read

pytestmark = pytest.mark.slow

HERE = Path(__file__).resolve().parent
PATHS = os.pathsep.join(str(path) for path in (HERE.parents[1], HERE.parent, HERE))
TEXT = "Many hands make light work, and eight of them make it lighter. " * 60
V, B, T = 11, 16, 6
WINDOWS = WindowedText(np.random.default_rng(0).integers(V, size=4 * B * T + 1), B, T)
EXCHANGES = ("all-gather", "all-to-all", "collective-permute", "reduce-scatter")


CONFIG = Experiment(
    data=DataConfig(batch_size=B, seq_length=T),
    model=ModelConfig(hidden_size=8, num_layers=2, dropout=0.5),
    optimizer=OptimizerConfig(warmup_steps=5),
    train=TrainConfig(steps=100),
)
MODEL = Model(CONFIG.model, V)


def trained(
    recurrence: Recurrence = "fast", steps: int = CONFIG.train.steps, method: Method = "adam"
) -> dict[str, Any]:
    """Losses on all devices of the process, and what the devices tell each other in a step."""
    model = Model(replace(MODEL.config, recurrence=recurrence), V)
    layout = Layout.of(B)
    tx = make_optimizer(replace(CONFIG.optimizer, method=method), CONFIG.train.steps, layout.own_mesh)
    schedule = learning_rate(CONFIG.optimizer, CONFIG.train.steps)
    state = init_state(model, tx, B, CONFIG.seed)
    update = jit_update(make_update(model.on(layout), tx, schedule=schedule), layout)
    program = update.lower(state, WINDOWS.window(0)).compile()
    losses = []
    for cursor in range(steps):
        state, metrics = program(state, WINDOWS.window(cursor))
        losses.append(float(metrics.loss))
    return {"losses": losses, "exchanges": [word for word in EXCHANGES if f" {word}(" in program.as_text()]}


def through_cudnn() -> dict[str, Any]:
    """A few steps through cuDNN's reference: like cuDNN, a call that XLA is not asked to share out."""
    with pytest.MonkeyPatch.context() as patch:
        put_reference_for_cudnn(patch)
        return trained("cudnn", 5)


def validation() -> list[float]:
    """Losses of a text in as many rows as devices share out, in one row, and in a number that none divides."""
    params, text = random_params(MODEL, 0), np.random.default_rng(1).integers(V, size=900)
    return [evaluate(MODEL, params, text, rows=rows, window=64).loss for rows in (16, 1, 11)]


def reach() -> list[list[float]]:
    """Norms of gradients at as many positions as devices share out."""
    text = np.random.default_rng(1).integers(V, size=200)
    return gradient_reach(MODEL, random_params(MODEL, 0), text, lags=5, positions=16).norms.tolist()


def seeds_together() -> list[int]:
    """Of 3 and of 11 seeds, fewer and more than there are devices: each is as alone, on so many devices."""
    programs = [seed_program("lstm", seeds) for seeds in (3, 11)]
    for each in programs:
        assert_each_is_as_alone(each)
        assert_trees_equal(each.take(each.put(first_states(each))), first_states(each))
    return [each.layout.devices for each in programs]


def command(folder: Path, name: str) -> list[str]:
    fields = {"data__batch_size": B, "model__num_layers": 1, "train__sample_every": 0, "train__validate_every": 12}
    return words(folder / "text.txt", folder / name, **fields)


def facts(folder: Path) -> dict[str, Any]:
    """What is found with eight devices. One run is left alone, and one is stopped and goes on."""
    codes = [cli.run(command(folder, "whole"))]
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 9, signal.SIGINT)
        codes.append(cli.run(command(folder, "stopped")))
    shutil.copytree(folder / "stopped", folder / "on-8")
    codes.append(cli.run(command(folder, "on-8")))
    layouts = [Layout.of(rows) for rows in (1, 5, 6, 12, 16)]
    return {
        "codes": codes,
        "devices": [[layout.devices, jax.local_device_count() - layout.devices] for layout in layouts],
        "trained": trained(),
        "cudnn": through_cudnn(),
        "muon": trained(steps=20, method="muon"),
        "validation": validation(),
        "reach": reach(),
        "together": seeds_together(),
    }


def with_devices(count: int, *words: str) -> str:
    """What a Python program with so many CPU devices writes to standard error."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": PATHS}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the runs of eight devices, and their `facts`."""
    folder = tmp_path_factory.mktemp("sharding")
    (folder / "text.txt").write_text(TEXT)
    script = "import json, pathlib, sys, test_sharding as t; f = pathlib.Path(sys.argv[1])"
    script += "; (f / 'facts.json').write_text(json.dumps(t.facts(f)))"
    (folder / "said.txt").write_text(with_devices(8, "-c", script, str(folder)))
    return folder


@pytest.fixture(scope="module")
def eight(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "facts.json").read_text())


def test_a_hundred_losses_on_eight_devices_equal_those_on_one(eight: dict[str, Any]):
    """With dropout: the masks are the same numbers."""
    np.testing.assert_allclose(eight["trained"]["losses"], trained()["losses"], rtol=0, atol=1e-5)


def test_devices_exchange_nothing_but_sums(eight: dict[str, Any]):
    """No row, mask or activation travels: what is sent does not grow with the batch."""
    assert eight["trained"]["exchanges"] == []


def test_devices_share_the_products_of_muon(eight: dict[str, Any]):
    np.testing.assert_allclose(eight["muon"]["losses"], trained(steps=20, method="muon")["losses"], rtol=0, atol=1e-5)
    assert "all-gather" in eight["muon"]["exchanges"]


def test_devices_share_what_cudnn_computes(eight: dict[str, Any]):
    np.testing.assert_allclose(eight["cudnn"]["losses"], eight["trained"]["losses"][:5], rtol=0, atol=1e-5)
    assert eight["cudnn"]["exchanges"] == []


def test_as_many_devices_compute_as_share_the_rows_evenly(eight: dict[str, Any], folder: Path):
    assert eight["devices"] == [[1, 7], [5, 3], [6, 2], [6, 2], [8, 0]]
    assert "on 8 cores of the CPU" in (folder / "said.txt").read_text()


def test_evaluation_shares_its_rows_and_keeps_its_loss(eight: dict[str, Any]):
    np.testing.assert_allclose(eight["validation"], validation(), rtol=0, atol=1e-6)


def test_lags_share_their_positions_and_keep_their_norms(eight: dict[str, Any]):
    np.testing.assert_allclose(eight["reach"], reach(), rtol=1e-5)


def test_devices_share_seeds(eight: dict[str, Any]):
    assert eight["together"] == [8, 8]


def test_a_run_on_eight_devices_that_was_stopped_ends_with_the_same_bits(eight: dict[str, Any], folder: Path):
    """Law 5."""
    assert eight["codes"] == [0, 130, 0]
    assert bits(folder / "whole", 24) == bits(folder / "on-8", 24)
    assert timeless_metrics(folder / "whole") == timeless_metrics(folder / "on-8")
    assert "this run had" not in (folder / "said.txt").read_text()


@pytest.mark.parametrize("count", [1, 2])
def test_a_run_goes_on_with_fewer_devices(folder: Path, count: int):
    again = command(folder, shutil.copytree(folder / "stopped", folder / f"on-{count}").name)
    if count == 1:
        assert cli.run(again) == 0
    else:
        told = with_devices(count, "-m", "charlstm", *again)
        assert f"on {count} cores of the CPU" in told
        assert "up to step 10 this run had 8 devices, and now it has 2" in told
    ours, theirs = ([row["loss"] for row in read(each)] for each in (folder / f"on-{count}", folder / "whole"))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("recurrence", ["auto", "fast"])
def test_sums_in_one_order_have_the_same_bits_on_any_number_of_devices(tmp_path: Path, recurrence: str):
    """With dropout of all kinds, an average, and a run that moves from two devices to four on the way."""
    (tmp_path / "text.txt").write_text(TEXT)
    how = {"data__batch_size": B, "train__sample_every": 0, "train__deterministic_sums": True}
    how |= {"model__recurrent_dropout": 0.2, "model__input_dropout": 0.1, "model__carry_dropout": 0.1}
    how |= {"optimizer__average": 0.9, "optimizer__schedule": "constant", "model__recurrence": recurrence}

    def train(name: str, count: int, steps: int = 12) -> None:
        asked = words(tmp_path / "text.txt", tmp_path / name, **how, train__steps=steps)
        told = with_devices(count, "-m", "charlstm", *asked)
        assert count == 1 or f"on {count} cores of the CPU" in told
        assert "this run had" not in told

    train("one", 1)
    train("eight", 8)
    train("moved", 2, steps=4)
    train("moved", 4)
    losses = {name: [row["loss"] for row in read(tmp_path / name) if "split" not in row] for name in ("one", "eight")}
    assert losses["one"] == losses["eight"]
    assert bits(tmp_path / "one", 12) == bits(tmp_path / "eight", 12) == bits(tmp_path / "moved", 12)


def test_groups_of_rows_on_devices_equal_the_rows_together():
    script = "import json, sys, test_sharding; print(json.dumps(test_sharding.grouped()), file=sys.stderr)"
    found = json.loads(with_devices(2, "-c", script).splitlines()[-1])
    np.testing.assert_allclose(found, grouped(), rtol=0, atol=1e-6)


def grouped() -> list[float]:
    """Losses of four groups of rows, without dropout, once they are seen to be those of one."""
    model, tx = Model(replace(CONFIG.model, dropout=0.0), V), make_optimizer(CONFIG.optimizer, CONFIG.train.steps)
    found = {}
    for groups in (1, 4):
        state, step = init_state(model, tx, B, 0), make_train_step(model, tx, accumulate=groups)
        found[groups] = []
        for cursor in range(10):
            state, metrics = step(state, WINDOWS.window(cursor))
            found[groups].append(float(metrics.loss))
    np.testing.assert_allclose(found[4], found[1], rtol=0, atol=1e-6)
    return found[4]
