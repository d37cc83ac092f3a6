"""Vanilla RNN, GRU and LSTM with one, two and three layers on Anna Karenina, five seeds each, parameters matched.

charlstm compare experiments/depth.py
Measured: test nats per character from 1.315 (GRU, two layers) to 1.364 (RNN, one layer), in 24 minutes on
two CPU cores (AMD EPYC, AVX-512); docs/comparison.md has the table. Each has about 74,000 parameters, and
reads the text 7.5 times.

The rates were chosen for each cell by single runs of 1,720 steps, by validation, and so was the forget gates' bias:
with the customary 1 the LSTM learns much more slowly.
"""

from charlstm.config import DataConfig, Experiment, Grid, ModelConfig, OptimizerConfig, SampleConfig, TrainConfig

GRID = Grid(
    cells=("rnn", "gru", "lstm"),
    layers=(1, 2, 3),
    sizes=(96,),
    seeds=5,
    match_parameters=True,
    learning_rates={"rnn": 8e-3, "gru": 0.015, "lstm": 0.04},
    base=Experiment(
        data=DataConfig(corpus="anna_karenina", batch_size=32, seq_length=64),
        model=ModelConfig(dropout=0.0, forget_bias=-1.0),
        optimizer=OptimizerConfig(schedule="cosine", warmup_steps=50, grad_clip=1.0),
        train=TrainConfig(steps=6480, validate_every=648, checkpoint_every=324, tensorboard=False),
        sample=SampleConfig(prime="Levin ", length=600, temperature=0.7),
    ),
)
