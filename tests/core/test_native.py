"""Law 4 for the native core, and what holds for it alone: rows that know nothing of each other, and clean memory."""

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import (
    CELLS,
    assert_trees_close,
    assert_trees_equal,
    random_carry,
    random_ids,
    random_params,
    small_model,
)
from small_models import applied

from charlstm.config import Cell
from charlstm.core.cells import BUILT_IN
from charlstm.core.fast import loop, native
from charlstm.core.fast.loop import FusedLayer
from charlstm.core.loss import nats
from charlstm.core.network import Model
from charlstm.support import native as library

pytestmark = pytest.mark.skipif(not native.is_bound(), reason="there is no native core here")
by_cell = pytest.mark.parametrize("cell", CELLS)
SEEDS = st.integers(0, 2**32 - 1)
GATES = {"rnn": 1, "gru": 3, "lstm": 4}


def value_and_gradients(model: Model, inputs: Any, resets: Any = None) -> Any:
    """As `small_models.value_and_gradients`, with resets; all of it in one program."""

    def loss(params: Any, carry: Any, ids: Any, key: Any, resets: Any) -> Any:
        logits, after = model.apply(params, ids, carry, key, resets)
        return nats(logits, ids).mean() + sum(jnp.sin(part).mean() for part in jax.tree.leaves(after))

    return jax.jit(jax.value_and_grad(loss, (0, 1)))(*inputs, resets)


def inputs_of(model: Model, seed: int, batch: int, time: int) -> Any:
    ids = random_ids(model, seed, batch, time)
    return random_params(model, seed), random_carry(model, seed, batch), ids, jax.random.key(seed)


def pair(cell: str, **fields: Any) -> tuple[Model, Model]:
    """A model on the native core, and the same one as a Flax stack."""
    return small_model(cell, recurrence="native", **fields), small_model(cell, recurrence="plain", **fields)  # pyright: ignore[reportArgumentType]


def layer_of(cell: str, seed: int, time: int, batch: int, width: int, hidden: int, ids: bool) -> Any:
    """A layer, inputs, carry and resets at random."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Any:
        return jnp.asarray(rng.normal(0, 0.5, shape), jnp.float32)

    inner = jnp.pad(draw(hidden), (2 * hidden, 0)) if cell == "gru" else None
    scale, wide = hidden**-0.5, GATES[cell] * hidden
    layer = FusedLayer(draw(width, wide) * width**-0.5, draw(hidden, wide) * scale, draw(wide), inner)
    inputs = jnp.asarray(rng.integers(0, width, (time, batch)), jnp.int32) if ids else draw(time, batch, width)
    carry = jax.tree.map(lambda part: draw(*part.shape), BUILT_IN[cell].zero_carry(batch, hidden, np.float32))
    return layer, inputs, carry, jnp.asarray(rng.random((time, batch)) < 0.15)


def run(cell: str, layer: FusedLayer, inputs: Any, carry: Any, resets: Any, dtype: Any = None) -> Any:
    packed = native.pack(BUILT_IN[cell], layer, dtype)
    return native.run_layer(BUILT_IN[cell], packed, inputs, carry, resets, dtype, None)


def in_jax(cell: str, layer: FusedLayer, inputs: Any, carry: Any, resets: Any) -> Any:
    return loop.run_layer(BUILT_IN[cell], layer, inputs, carry, resets, None, True)


def pulled_back(run: Any, cell: str, layer: Any, inputs: Any, carry: Any, resets: Any) -> Any:
    """The output, and its gradient in everything, of a layer."""
    if inputs.ndim == 2:
        value, pull = jax.vjp(lambda layer, carry: run(cell, layer, inputs, carry, resets), layer, carry)
    else:
        value, pull = jax.vjp(lambda *each: run(cell, each[0], each[1], each[2], resets), layer, inputs, carry)
    return value, pull(jax.tree.map(jnp.cos, value))


@by_cell
@pytest.mark.parametrize("examples", [2, pytest.param(12, marks=pytest.mark.slow)])
def test_a_layer_equals_the_loop_in_jax_at_any_shape(cell: str, examples: int):
    """In value and gradient; every size of a tile and of what is left over at its edges."""
    odd = st.one_of(st.sampled_from([1, 16, 17, 32, 63, 65]), st.integers(1, 75))

    @settings(max_examples=examples)
    @given(SEEDS, st.integers(1, 6), st.integers(1, 29), odd, odd, st.booleans())
    def check(seed: int, time: int, batch: int, width: int, hidden: int, ids: bool) -> None:
        inputs = layer_of(cell, seed, time, batch, width, hidden, ids)
        found, wanted = (jax.jit(partial(pulled_back, each, cell))(*inputs) for each in (run, in_jax))
        assert_trees_close(found, wanted, 1e-5)

    check()


@by_cell
@pytest.mark.parametrize(("time", "batch", "width", "hidden"), [(300, 2, 5, 3), (9, 130, 40, 33)])
def test_gradients_that_take_several_chunks_equal_those_of_the_loop(
    cell: str, time: int, batch: int, width: int, hidden: int
):
    inputs = layer_of(cell, 1, time, batch, width, hidden, False)
    found, wanted = (jax.jit(partial(pulled_back, each, cell))(*inputs) for each in (run, in_jax))
    assert_trees_close(found, wanted, 1e-4)  # sums of up to 1,200 terms


@by_cell
@pytest.mark.parametrize(
    ("batch", "time", "fields"),
    [
        (1, 1, {"hidden": 1}),
        (5, 7, {"layers": 2, "hidden": 19, "dropout": 0.5}),
        (3, 10, {"layers": 2, "hidden": 6, "dropout": 0.3, "dropout_mask": "window", "remat": True}),
    ],
)
def test_a_model_equals_the_flax_stack_in_value_and_gradient(cell: Cell, batch: int, time: int, fields: Any):
    """Law 4."""
    through, plain = pair(cell, **fields)
    assert (through.backend, plain.backend) == ("native", "flax")
    for seed in range(2):
        inputs = inputs_of(through, seed, batch, time)
        resets = np.random.default_rng(seed).random((batch, time)) < 0.2
        assert_trees_close(
            value_and_gradients(through, inputs, resets), value_and_gradients(plain, inputs, resets), 1e-5
        )


@by_cell
def test_rounded_factors_err_as_little_as_in_the_loop(cell: Cell):
    """Values and gradients in bfloat16, against those in float32."""
    fields: Any = {"layers": 2, "hidden": 21}
    exact = small_model(cell, recurrence="fast", **fields)
    models = exact, *(small_model(cell, recurrence=each, dtype="bfloat16", **fields) for each in ("native", "fast"))
    inputs = inputs_of(exact, 1, 4, 6)
    for wanted, mine, theirs in zip(
        *(jax.tree.leaves(value_and_gradients(each, inputs)) for each in models), strict=True
    ):
        assert np.linalg.norm(mine - wanted) < 2 * np.linalg.norm(theirs - wanted) + 1e-3 * np.linalg.norm(wanted)


@by_cell
def test_seeds_side_by_side_equal_each_alone_to_the_bit(cell: Cell):
    model = small_model(cell, layers=2, hidden=9, recurrence="native")
    seeds = [inputs_of(model, seed, 3, 5) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)
    together = jax.jit(jax.vmap(lambda params, carry, ids, key: model.read(model.fuse(params), ids, carry)))(*stacked)
    for number, (params, carry, ids, _) in enumerate(seeds):
        alone = jax.jit(lambda params, ids, carry: model.read(model.fuse(params), ids, carry))(params, ids, carry)
        assert_trees_equal(jax.tree.map(lambda leaf, at=number: leaf[at], together), alone)


@by_cell
@settings(max_examples=6)
@given(seed=SEEDS, batch=st.integers(2, 20))
def test_a_row_s_bits_do_not_depend_on_the_rows_beside_it(cell: str, seed: int, batch: int):
    layer, inputs, carry, resets = layer_of(cell, seed, 3, batch, 7, 21, True)
    together = run(cell, layer, inputs, carry, resets)
    row = slice(seed % batch, seed % batch + 1)
    alone = run(cell, layer, inputs[:, row], jax.tree.map(lambda part: part[row], carry), resets[:, row])
    assert_trees_equal(alone, (together[0][:, row], jax.tree.map(lambda part: part[row], together[1])))


@by_cell
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_pass_as_in_jax(cell: Cell, value: float):
    through, fast = (small_model(cell, hidden=18, recurrence=each) for each in ("native", "fast"))
    params, carry, ids, _ = inputs_of(through, 3, 3, 4)
    carry = jax.tree.map(lambda part: part.at[1, 2].set(value), jax.tree.map(jnp.asarray, carry))
    found, wanted = (jax.tree.leaves(applied(model)(params, ids, carry)) for model in (through, fast))
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


@by_cell
def test_nothing_stays_of_a_layer_that_diverged(cell: str):
    """Memory is kept between calls; no gradient reads what one of another width left there."""
    wide, *rest = layer_of(cell, 0, 3, 5, 64, 64, False)
    jax.block_until_ready(pulled_back(run, cell, jax.tree.map(lambda leaf: leaf * jnp.nan, wide), *rest))
    for hidden in (21, 40):
        inputs = layer_of(cell, 1, 3, 5, hidden, hidden, False)
        assert_trees_close(pulled_back(run, cell, *inputs), pulled_back(in_jax, cell, *inputs), 1e-5)


@by_cell
def test_ids_that_are_none_are_clamped_as_in_jax(cell: str):
    layer, inputs, carry, _ = layer_of(cell, 0, 2, 3, 5, 4, True)
    wild = inputs.at[0].set(jnp.asarray([-7, 99, 4]))
    assert_trees_close(run(cell, layer, wild, carry, None), run(cell, layer, jnp.clip(wild, 0, 4), carry, None), 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int64])
def test_ids_of_any_type_are_read(dtype: Any):
    model = small_model("lstm", recurrence="native")
    params, carry, ids, _ = inputs_of(model, 0, 2, 5)
    assert_trees_equal(applied(model)(params, ids.astype(dtype), carry), applied(model)(params, ids, carry))


def test_wider_numbers_take_the_loop_in_jax():
    model = small_model("lstm", recurrence="native")
    with jax.enable_x64(True):
        params, carry = random_params(model, 0, dtype=np.float64), random_carry(model, 0, 2, np.float64)
        assert applied(model)(params, random_ids(model, 0, 2, 3), carry)[0].dtype == np.float64


def test_a_model_made_without_the_core_takes_the_loop_in_jax(monkeypatch: pytest.MonkeyPatch):
    assert small_model("lstm").backend == small_model("gru").backend == "native"
    monkeypatch.setattr(native, "_core", None)
    assert small_model("lstm").backend == "fast"
    with pytest.raises(ValueError, match="no native core was loaded"):
        small_model("lstm", recurrence="native")


DEVICES = """
import numpy as np
from charlstm.core.fast.native import bind
from charlstm.support.native import set_up
bind(set_up())
import jax
from reference import assert_trees_close
from charlstm.core.sharding import Layout
from test_native import inputs_of, small_model, value_and_gradients
layout = Layout.of(8)
assert layout.devices == {count}, layout
for cell in ("rnn", "gru", "lstm"):
    model = small_model(cell, layers=2, hidden=11, dropout=0.4, recurrence="native")
    params, carry, ids, key = inputs_of(model, 0, 8, 5)
    shared = jax.device_put((params, carry, ids, key), (layout.whole, layout.rows, layout.rows, None))
    resets = np.random.default_rng(0).random((8, 5)) < 0.2
    found = value_and_gradients(model.on(layout), shared, jax.device_put(resets, layout.rows))
    assert_trees_close(found, value_and_gradients(model, (params, carry, ids, key), resets), 1e-5)
"""


@pytest.mark.slow
@pytest.mark.parametrize("count", [4])
def test_devices_that_share_rows_give_the_values_of_one(count: int):
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(count)}
    environment["PYTHONPATH"] += os.pathsep + str(Path(__file__).parent)
    ran = subprocess.run(
        [sys.executable, "-c", DEVICES.format(count=count)], env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr


CHECK = "from charlstm.core.fast.native_check import check; from charlstm.support.native import load; check(load({!r}))"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "preload"),
    [
        (("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1"), ("libasan.so", "libstdc++.so.6")),
        (("-mno-avx512f",), ()),  # AVX2, on a processor that has more
    ],
    ids=["sanitizers", "AVX2"],
)
def test_the_core_passes_its_test_built_otherwise(flags: tuple[str, ...], preload: tuple[str, ...], tmp_path: Path):
    if "-mno-avx512f" in flags and os.uname().machine != "x86_64":
        pytest.skip("AVX2 is for x86-64")
    compiler = library.find_compiler()
    library.compile_core(compiler, core := tmp_path / "core.so", flags)
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}  # Python's own are many
    if preload:
        asked = [[compiler, f"-print-file-name={name}"] for name in preload]
        found = [subprocess.run(each, capture_output=True, text=True).stdout.strip() for each in asked]
        environment["LD_PRELOAD"] = " ".join(found)
    words = [sys.executable, "-c", CHECK.format(str(core))]
    ran = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]


@pytest.mark.slow
def test_the_core_compiles_for_arm():
    if (compiler := shutil.which("aarch64-linux-gnu-g++")) is None:
        assert "CHARLSTM_REQUIRE_BROWSER" not in os.environ, "CI has the cross compiler"
        pytest.skip("no cross compiler: install g++-aarch64-linux-gnu")
    words = [compiler, "-std=gnu++20", "-O1", "-Werror", "-c", "-isystem", jax.ffi.include_dir(), str(library.SOURCE)]
    ran = subprocess.run([*words, "-o", os.devnull], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
