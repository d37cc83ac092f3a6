"""Vanilla RNN, GRU and LSTM with one, two and three layers on Anna Karenina, five seeds each, parameters matched.

charlstm compare experiments/depth.py
"""

from charlstm.config import DataConfig, Experiment, Grid, ModelConfig, OptimizerConfig, SampleConfig, TrainConfig

GRID = Grid(
    cells=("rnn", "gru", "lstm"),
    layers=(1, 2, 3),
    sizes=(128,),
    seeds=5,
    match_parameters=True,
    learning_rates=(1e-2, 3e-2, 4e-2),
    base=Experiment(
        data=DataConfig(corpus="anna_karenina", batch_size=64, seq_length=100),
        model=ModelConfig(dropout=0.0),
        optimizer=OptimizerConfig(schedule="cosine", warmup_steps=50, grad_clip=1.0),
        train=TrainConfig(steps=2800, validate_every=280, checkpoint_every=140, tensorboard=False),
        sample=SampleConfig(prime="Levin ", length=600, temperature=0.7),
    ),
)
