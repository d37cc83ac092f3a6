"""The schedule's values, and updates that equal clipping, Adam, Muon and weight decay by hand in float64."""

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charlstm.config import Method, OptimizerConfig, Schedule
from charlstm.core.optimizer import learning_rate, make_optimizer

PEAK = 0.01


def rates(schedule: Schedule, warmup_steps: int, steps: int, at: list[int]) -> list[float]:
    config = OptimizerConfig(
        learning_rate=PEAK, schedule=schedule, warmup_steps=warmup_steps, decay_to=0.1, decay_every=20
    )
    return [float(np.asarray(learning_rate(config, steps)(step))) for step in at]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
@pytest.mark.parametrize("warmup_steps", [1, 2, 10])
def test_warmup_rises_in_equal_steps_to_the_peak(schedule: Schedule, warmup_steps: int):
    rising = rates(schedule, warmup_steps, 100, list(range(warmup_steps)))
    np.testing.assert_allclose(rising, PEAK * (1 + np.arange(warmup_steps)) / warmup_steps, rtol=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
@pytest.mark.parametrize("warmup_steps", [0, 10])
def test_the_first_step_after_warmup_has_the_peak(schedule: Schedule, warmup_steps: int):
    assert rates(schedule, warmup_steps, 100, [warmup_steps]) == pytest.approx([PEAK])


def test_constant_stays():
    assert rates("constant", 10, 100, [50, 99, 1000]) == pytest.approx([PEAK] * 3)


def test_cosine_passes_the_middle_and_ends_at_its_part_of_the_peak():
    assert rates("cosine", 10, 110, [60, 110, 500]) == pytest.approx([0.55 * PEAK, 0.1 * PEAK, 0.1 * PEAK])


def test_stepwise_decay_multiplies_every_so_many_steps():
    assert rates("step", 10, 100, [29, 30, 49, 50]) == pytest.approx([PEAK, 0.1 * PEAK, 0.1 * PEAK, 0.01 * PEAK])


def test_a_warmup_longer_than_the_training_still_rises():
    assert rates("cosine", 10, 5, [0, 4]) == pytest.approx([0.1 * PEAK, 0.5 * PEAK])


def nearly_orthogonal(matrix: np.ndarray) -> np.ndarray:
    """Jordan 2024 on the singular values: a quintic, five times, that leads them from (0, 1] to about 1."""
    left, values, right = np.linalg.svd(matrix)
    values = values / (np.linalg.norm(matrix) + 1e-8)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return left * values @ right


def by_hand(config: OptimizerConfig, steps: int, params: Any, gradients: list[Any]) -> Any:
    """Pascanu et al. 2013, then Adam (Kingma & Ba 2015, algorithm 1) or Muon with Nesterov's momentum, then decay."""
    first, second = ({name: np.zeros_like(value) for name, value in params.items()} for _ in range(2))
    for count, gradient in enumerate(gradients, 1):
        norm = np.sqrt(sum((value**2).sum() for value in gradient.values()))
        rate = float(np.asarray(learning_rate(config, steps)(count - 1)))
        for name, value in params.items():
            clipped = gradient[name] * min(1, config.grad_clip / norm)
            first[name] = config.b1 * first[name] + (1 - config.b1) * clipped
            second[name] = config.b2 * second[name] + (1 - config.b2) * clipped**2
            mean, square = first[name] / (1 - config.b1**count), second[name] / (1 - config.b2**count)
            direction = mean / (np.sqrt(square) + 1e-8)
            if config.method == "muon" and value.shape == (4, 4):
                ahead = config.b1 * first[name] / (1 - config.b1 ** (count + 1))
                ahead = ahead + (1 - config.b1) * clipped / (1 - config.b1**count)
                direction = 0.2 * np.sqrt(4) * nearly_orthogonal(ahead)
            decay = config.weight_decay * value if name == "kernel" else 0
            params = params | {name: value - rate * (direction + decay)}
    return params


@settings(max_examples=20)
@given(
    method=st.sampled_from(["adam", "muon"]),
    inputs=st.sampled_from([3, 4]),
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([1e-3, 1.0, 1e3]),
    grad_clip=st.sampled_from([0.1, 1.0]),
    weight_decay=st.sampled_from([0.0, 0.3]),
)
def test_updates_equal_those_by_hand(
    method: Method, inputs: int, seed: int, size: float, grad_clip: float, weight_decay: float
):
    config = OptimizerConfig(
        method=method, learning_rate=PEAK, warmup_steps=2, grad_clip=grad_clip, weight_decay=weight_decay
    )
    rng = np.random.default_rng(seed)
    shapes = {"kernel": (inputs, 4), "bias": (4,)}
    params, *gradients = ({k: size * rng.standard_normal(shape) for k, shape in shapes.items()} for _ in range(5))
    with jax.enable_x64(True):
        chain = make_optimizer(config, 10)
        got: Any = params
        state = chain.init(got)
        for gradient in gradients:
            updates, state = chain.update(gradient, state, got)
            got = jax.tree.map(np.add, got, updates)
    wanted = by_hand(config, 10, params, gradients)
    for name in shapes:
        # The schedule's rate is float32.
        np.testing.assert_allclose(got[name] - params[name], wanted[name] - params[name], rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize(("norm", "after"), [(100.0, 0.5), (0.25, 0.25)])
def test_clipping_limits_the_global_norm_and_leaves_smaller_ones(norm: float, after: float):
    # With b1 = 0 and one step, Adam's second moment keeps the square of the gradient as it was clipped.
    config = OptimizerConfig(b1=0.0, b2=0.9, grad_clip=0.5)
    gradient = {"a": {"kernel": np.full(8, 3.0, np.float32)}, "b": {"kernel": np.full(8, 4.0, np.float32)}}
    gradient = jax.tree.map(lambda leaf: leaf * np.float32(norm / np.sqrt(8 * 25)), gradient)
    chain = make_optimizer(config, 10)
    _, state = chain.update(gradient, chain.init(gradient), gradient)
    second = [leaf for leaf in jax.tree.leaves(state) if leaf.shape == (8,)][-2:]
    assert np.sqrt(sum(float(leaf.sum()) for leaf in second) / 0.1) == pytest.approx(after, rel=1e-5)
