"""No setting of JAX changes a sample, a loss, a training, or whether a run opens."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from small_runs import TEXT

from charlstm.analysis.settings import settled, under_settings
from charlstm.config import DataConfig, Experiment, ModelConfig, SampleConfig, TrainConfig
from charlstm.runs.loading import load_run
from charlstm.training.train import train

CHANGES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "x64": partial(jax.enable_x64, True),
    "rbg": partial(jax.default_prng_impl, "rbg"),
    "threefry": partial(jax.threefry_partitionable, False),
    "promotion": partial(jax.numpy_dtype_promotion, "strict"),
    "ranks": partial(jax.numpy_rank_promotion, "raise"),
    "precision": partial(jax.default_matmul_precision, "bfloat16"),
    "algorithm": partial(jax.default_matmul_precision, "BF16_BF16_F32"),
    "nans": partial(jax.debug_nans, True),
    "infs": partial(jax.debug_infs, True),
    "jit": partial(jax.disable_jit, True),
    "keys": partial(jax.debug_key_reuse, True),
    "guard": partial(jax.transfer_guard, "disallow_explicit"),
    "checks": partial(jax.enable_checks, True),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("settings")
    (folder / "tiny.txt").write_text(TEXT)
    train(config(folder), folder / "run")
    return folder / "run"


def config(folder: Path) -> Experiment:
    return Experiment(
        data=DataConfig(corpus=str(folder / "tiny.txt"), batch_size=2, seq_length=8),
        model=ModelConfig(hidden_size=8, dropout=0.5),
        train=TrainConfig(steps=3, tensorboard=False),
        sample=SampleConfig(prime="In the", length=30, top_n=5),
    )


def results(run: Path) -> list[Any]:
    found = load_run(run)
    fresh = load_run(run, "fresh")
    texts = [found.sample(seed=2), fresh.sample(temperature=2.0), "".join(found.stream(seed=2))]
    return [*texts, found.evaluate(), found.score(["In the", "beginning"]), int(found.state().step)]


@pytest.fixture(scope="module")
def before(run: Path) -> Any:
    return results(run)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_no_setting_of_a_notebook_changes_a_result(run: Path, before: Any, name: str) -> None:
    with CHANGES[name]():
        assert results(run) == before


def test_no_setting_changes_a_training(run: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        for name in ("x64", "rbg", "threefry", "nans", "infs", "guard"):
            stack.enter_context(CHANGES[name]())
        state = train(config(run.parent), tmp_path / "run")
        assert all(leaf.dtype != np.float64 for leaf in jax.tree.leaves(state.params))
    for ours, theirs in zip(*(jax.tree.leaves(load_run(each).params) for each in (run, tmp_path / "run")), strict=True):
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()


def test_a_setting_comes_back_and_each_step_of_an_iterator_has_ours() -> None:
    @under_settings
    def steps() -> Any:
        for _ in range(2):
            yield jax.numpy.arange(2.0).dtype

    with jax.enable_x64(True):
        wide = jax.numpy.arange(2.0).dtype
        for each in steps():
            assert each == np.float32 and jax.numpy.arange(2.0).dtype == wide == np.float64
        with settled():
            assert jax.numpy.arange(2.0).dtype == np.float32


ENVIRONMENT = {
    "JAX_ENABLE_X64": "1",
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_THREEFRY_PARTITIONABLE": "0",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16",
    "JAX_DEBUG_NANS": "1",
    "JAX_DEBUG_INFS": "1",
    "JAX_RANDOM_SEED_OFFSET": "7",
    "JAX_HIGH_DYNAMIC_RANGE_GUMBEL": "1",
    "JAX_SOFTMAX_CUSTOM_JVP": "1",
    "JAX_LEGACY_PRNG_KEY": "error",
    "JAX_EXPLICIT_X64_DTYPES": "error",
    "JAX_TRANSFER_GUARD": "disallow_explicit",
}


@pytest.mark.slow
def test_no_variable_of_the_environment_changes_what_a_command_says(run: Path) -> None:
    def said(*words: str, **variables: str) -> str:
        environment = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
        command = [sys.executable, "-m", "charlstm", *words]
        done = subprocess.run(command, env=environment | variables, capture_output=True, text=True, check=True)
        return done.stdout

    for words in (["sample", str(run), "--num", "2"], ["eval", str(run), "--json", "--lags", "--split", "train"]):
        alone = said(*words)
        assert said(*words, **ENVIRONMENT) == alone
    assert json.loads(alone)["loss"] == load_run(run).evaluate("train").loss
