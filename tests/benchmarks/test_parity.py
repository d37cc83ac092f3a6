"""Contenders do the same work, and one that leaves a part of it out is found."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import inputs, parity, rounds
from benchmarks.contenders import PACKAGES, installed, make
from benchmarks.deadline import Deadline
from benchmarks.jobs import Job
from benchmarks.shapes import SMALL

LEFT_OUT = ("clipping", "correction", "carry")
LATE = 10_000
"""Updates after which Adam corrects nothing."""


@pytest.fixture(params=PACKAGES)
def name(request: pytest.FixtureRequest) -> str:
    """A contender that is installed. It is not imported: Keras must be told of its backend before."""
    if not installed(request.param):
        pytest.skip(f"{request.param} is not installed; it is in the extra `bench`")
    return request.param


def test_the_gradient_is_that_of_the_loss() -> None:
    weights = [each.astype(np.float64) for each in parity.initial_weights()]
    rng = np.random.default_rng(3)
    carry = rng.uniform(-1, 1, (parity.SIZE.layers, 2, parity.SIZE.batch, parity.SIZE.hidden))
    ids, targets = next(inputs.windows(parity.SIZE))
    _, grads, _ = parity.gradient(weights, ids, targets, carry)
    for number, grad in enumerate(grads):
        along = rng.standard_normal(grad.shape)
        ahead, behind = (
            parity.gradient(
                [*weights[:number], weights[number] + step * along, *weights[number + 1 :]], ids, targets, carry
            )
            for step in (1e-5, -1e-5)
        )
        assert (ahead[0] - behind[0]) / 2e-5 == pytest.approx((grad * along).sum(), rel=1e-6, abs=1e-9)


def test_every_update_is_clipped() -> None:
    weights, carry = parity.initial_weights(), np.zeros((parity.SIZE.layers, 2, parity.SIZE.batch, parity.SIZE.hidden))
    for ids, targets in islice(inputs.windows(parity.SIZE), parity.UPDATES):
        _, grads, carry = parity.gradient(weights, ids, targets, carry)
        assert np.sqrt(sum((each**2).sum() for each in grads)) > 2 * inputs.GRAD_CLIP


@pytest.mark.slow
def test_a_contender_has_parity_under_equal_settings(name: str, tmp_path: Path) -> None:
    answers = rounds.start(Job(name, "parity", SMALL, settings="equal"), tmp_path, Deadline(300))
    assert answers["first_value"] <= parity.TOLERANCE / 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the peers' own
@pytest.mark.parametrize("name", ["charlstm", "pytorch", "flax-rnn"], indirect=True)  # the JAX peers share one step
@pytest.mark.parametrize("part", LEFT_OUT)
def test_a_contender_that_leaves_a_part_out_has_no_parity(
    name: str, part: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    wanted = parity.reference()
    monkeypatch.setattr(parity, "reference", lambda: wanted)
    with relaxed():
        [run] = parity.check(without(part, name, monkeypatch)).ways.values()
        with pytest.raises(ValueError, match="no parity"):
            run()


@contextmanager
def relaxed() -> Iterator[None]:
    """The tests' strictness is charlstm's own."""
    import jax

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def without(part: str, name: str, patch: pytest.MonkeyPatch) -> Any:
    """A contender that leaves a part of an update out."""
    if part == "clipping":
        patch.setattr(inputs, "GRAD_CLIP", 1e6)
    contender: Any = make(name)
    if name == "charlstm":
        change_charlstm(part, patch)
    elif name == "pytorch":
        change_pytorch(part, patch)
    elif part in ("correction", "carry"):
        network = contender._network
        contender._network = lambda *size: changed(part, network(*size))
    return contender


def changed(part: str, net: Any) -> Any:
    """A network of one of the JAX libraries without a part."""
    if part == "carry":
        return replace(net, apply=lambda params, ids, carry: (net.apply(params, ids, carry)[0], carry))
    adam = net.optimizer
    return replace(net, optimizer=replace(adam, init=lambda params: late(adam.init(params))))


def late(state: Any) -> Any:
    """The optimizer's state with moments of zero, as if many updates had been done."""
    import jax

    return jax.tree.map(lambda leaf: leaf + LATE if np.issubdtype(leaf.dtype, np.integer) else leaf, state)


def change_charlstm(part: str, patch: pytest.MonkeyPatch) -> None:
    import jax

    from benchmarks.contenders import charlstm_

    init_state, make_train_step = charlstm_.init_state, charlstm_.make_train_step

    def late_state(*args: Any) -> Any:
        state = init_state(*args)
        return state._replace(optimizer=late(state.optimizer))

    def forgetful(*args: Any) -> Any:
        step = make_train_step(*args)
        return lambda state, window: step(state._replace(carry=jax.tree.map(np.zeros_like, state.carry)), window)

    match part:
        case "clipping":
            patch.setattr(charlstm_, "OPTIMIZER", replace(charlstm_.OPTIMIZER, grad_clip=1e6))
        case "correction":
            patch.setattr(charlstm_, "init_state", late_state)
        case "carry":
            patch.setattr(charlstm_, "make_train_step", forgetful)


def change_pytorch(part: str, patch: pytest.MonkeyPatch) -> None:
    import torch

    from benchmarks.contenders import pytorch_

    class LateAdam(torch.optim.Adam):
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            for each in self.param_groups[0]["params"]:
                zeros = {name: torch.zeros_like(each) for name in ("exp_avg", "exp_avg_sq")}
                self.state[each] = {"step": torch.tensor(float(LATE)), **zeros}

    forward = pytorch_._Net.forward
    match part:
        case "correction":
            patch.setattr(torch.optim, "Adam", LateAdam)
        case "carry":
            patch.setattr(pytorch_._Net, "forward", lambda net, ids, carry: (forward(net, ids, carry)[0], carry))
