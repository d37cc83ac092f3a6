"""A cell of one's own beside the built-in ones: the minimal gated unit, which has one gate where a GRU has two.

charlstm compare experiments/mgu.py [--data.corpus king_james --sample.prime "In the beginning"]

Everything that knows the cell is in this file. The text is that of recall.py, so that the comparison measures recall
beside loss and gradient reach.
Measured: test 0.147 ± 0.031 nats per character for the MGU, 0.139 ± 0.001 for the LSTM, 0.157 ± 0.047 for the GRU and
0.177 ± 0.015 for the RNN; recall at 64 characters 0.70, 1.00, 0.62 and 0.12. Three seeds each, in 2 min 36 s on two CPU
cores (AMD EPYC) that other work shared.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

import charlstm
from charlstm.config import DataConfig, Experiment, Grid, ModelConfig, OptimizerConfig, SampleConfig, TrainConfig


class MGU(nn.RNNCellBase):
    """Minimal gated unit (Zhou, Wu, Zhang and Zhou 2016, arXiv:1603.09420): the gate f both forgets and writes."""

    features: int
    """Units, H."""

    @nn.compact
    def __call__(self, carry: Array, inputs: Array) -> tuple[Array, Array]:
        """One step: the state [B, H] and inputs [B, D] to the new state, as carry and as output."""

        def dense(name: str, x: Array, **options: Any) -> Array:
            return nn.Dense(self.features, name=name, **options)(x)

        recurrent: dict[str, Any] = {"use_bias": False, "kernel_init": nn.initializers.orthogonal()}
        f = nn.sigmoid(dense("if", inputs) + dense("hf", carry, **recurrent))
        n = jnp.tanh(dense("in", inputs) + dense("hn", f * carry, **recurrent))
        carry = (1 - f) * carry + f * n
        return carry, carry

    @nn.nowrap
    def initialize_carry(self, rng: Any, input_shape: tuple[int, ...]) -> Array:
        return jnp.zeros((*input_shape[:-1], self.features))

    @property
    def num_feature_axes(self) -> int:
        return 1


charlstm.register_cell("mgu", MGU)

GRID = Grid(
    cells=("rnn", "gru", "lstm", "mgu"),
    layers=(1,),
    sizes=(64,),
    seeds=3,
    match_parameters=True,
    learning_rates={"rnn": 3e-3},
    base=Experiment(
        data=DataConfig(corpus="recall_64", batch_size=32, seq_length=128),
        model=ModelConfig(dropout=0.0),
        optimizer=OptimizerConfig(learning_rate=1e-2, schedule="cosine", warmup_steps=50),
        train=TrainConfig(steps=1500, validate_every=500, checkpoint_every=250, tensorboard=False),
        sample=SampleConfig(prime="I grew up in ", length=300, temperature=0.5),
    ),
)
