"""charlstm by its own functions, set up as its program is."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np

from benchmarks import inputs
from benchmarks.contenders import Weights, Work
from benchmarks.contenders.functional import from_flax, to_flax
from benchmarks.shapes import Size
from charlstm.analysis.sample import samples
from charlstm.config import OptimizerConfig, SampleConfig
from charlstm.core.loss import mean_nats
from charlstm.core.network import Model
from charlstm.core.optimizer import make_optimizer
from charlstm.core.sharding import Layout
from charlstm.core.step import init_state, make_train_step
from charlstm.data.windows import Window
from charlstm.runs.models import prepare


class Charlstm:
    """A contender; see `contenders.Contender`."""

    def __init__(self, **fields: Any) -> None:
        """`fields` are those of the model's config that differ from their defaults."""
        self._fields = fields
        prepare()

    def train(self, size: Size, weights: Weights | None = None) -> Work:
        model, tx = self._model(size), make_optimizer(OPTIMIZER, 1)
        state: Any = init_state(model, tx, size.batch)
        if weights is not None:
            state = state._replace(params=to_params(weights))
        step, windows = make_train_step(model, tx), inputs.windows(size)

        def run() -> float:
            nonlocal state
            state, metrics = step(state, Window(*next(windows), np.bool_(False)))
            jax.block_until_ready(state)
            return float(metrics.loss)

        return Work(size.characters, {"": run}, {"": lambda: to_weights(state.params)})

    def evaluate(self, size: Size) -> Work:
        layout = Layout.of(size.batch)
        model = self._model(size).on(layout)
        params = jax.device_put(model.init(jax.random.key(0)), layout.whole)
        carry = jax.device_put(model.zero_carry(size.batch), layout.rows)

        @jax.jit
        def score(params: Any, ids: Any, targets: Any, carry: Any) -> Any:
            logits, carry = model.apply(params, ids, carry)
            return mean_nats(logits, targets), carry

        windows = inputs.windows(size)

        def run() -> float:
            nonlocal carry
            loss, carry = jax.block_until_ready(score(params, *jax.device_put(next(windows), layout.rows), carry))
            return float(loss)

        return Work(size.characters, {"": run})

    def sample(self, size: Size, streams: int, length: int) -> Work:
        """Several texts as `charlstm sample --num` draws them."""
        model = self._model(size)
        params, prime = model.init(jax.random.key(0)), inputs.prime(size)
        config = SampleConfig(length=length, temperature=inputs.TEMPERATURE)

        def run() -> float:
            return float(sum(map(len, samples(model, params, prime, config, streams))))

        return Work(streams * length, {"": run})

    def _model(self, size: Size) -> Model:
        return Model(replace(size.model, **self._fields), size.vocabulary)


def to_params(weights: Weights) -> Any:
    """The parameters of a model."""
    layers, head = to_flax(weights)
    return {"stack": {f"layer_{number}": layer for number, layer in enumerate(layers)}, "head": head}


def to_weights(params: Any) -> Weights:
    """The inverse of `to_params`."""
    stack = params["stack"]
    return from_flax([stack[f"layer_{number}"] for number in range(len(stack))], params["head"])


OPTIMIZER = OptimizerConfig(
    learning_rate=inputs.LEARNING_RATE,
    schedule="constant",
    warmup_steps=0,
    grad_clip=inputs.GRAD_CLIP,
    b1=inputs.B1,
    b2=inputs.B2,
)
