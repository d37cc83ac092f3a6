"""Vanilla RNN, GRU and LSTM with one, two and three layers on Anna Karenina, five seeds each, parameters matched.

charlstm compare experiments/depth.py
"""

from charlstm.config import DataConfig, Experiment, Grid, ModelConfig, OptimizerConfig, SampleConfig, TrainConfig

GRID = Grid(
    cells=("rnn", "gru", "lstm"),
    layers=(1, 2, 3),
    sizes=(96,),
    seeds=5,
    match_parameters=True,
    rnn_learning_rate=8e-3,
    gru_learning_rate=0.015,
    lstm_learning_rate=0.04,
    base=Experiment(
        data=DataConfig(corpus="anna_karenina", batch_size=32, seq_length=64),
        model=ModelConfig(dropout=0.0, forget_bias=-1.0),
        optimizer=OptimizerConfig(schedule="cosine", warmup_steps=50, grad_clip=1.0),
        train=TrainConfig(steps=6480, validate_every=648, checkpoint_every=324, tensorboard=False),
        sample=SampleConfig(prime="Levin ", length=600, temperature=0.7),
    ),
)
