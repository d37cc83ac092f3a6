"""Tiny Shakespeare, a million characters of plays: one LSTM layer of 256.

charlstm train experiments/tiny_shakespeare.py
Measured: validation 1.5469 nats (2.2317 bits) per character, test 1.6289, after 36 s on two CPU cores (AMD EPYC,
AVX-512).
"""

from charlstm.config import DataConfig, Experiment, ModelConfig, OptimizerConfig, SampleConfig, TrainConfig

CONFIG = Experiment(
    data=DataConfig(corpus="tiny_shakespeare", batch_size=50, seq_length=100),
    model=ModelConfig(cell="lstm", hidden_size=256, num_layers=1, dropout=0.2, dropout_mask="window"),
    optimizer=OptimizerConfig(learning_rate=8e-3, schedule="cosine", warmup_steps=50, grad_clip=1.0),
    train=TrainConfig(steps=800, validate_every=200, checkpoint_every=200),
    sample=SampleConfig(prime="ROMEO:\n", temperature=0.8),
)
