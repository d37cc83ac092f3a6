"""War and Peace, three million characters: one LSTM layer of 256.

charlstm train experiments/war_and_peace.py
Measured: validation 1.4219 nats (2.0514 bits) per character, test 1.5049, after 37 s on two CPU cores (AMD EPYC,
AVX-512). A short run: 1.4 epochs, and the loss was still falling.
"""

from charlstm.config import DataConfig, Experiment, ModelConfig, OptimizerConfig, SampleConfig, TrainConfig

CONFIG = Experiment(
    data=DataConfig(corpus="war_and_peace", batch_size=50, seq_length=100),
    model=ModelConfig(cell="lstm", hidden_size=256, num_layers=1, dropout=0.1, dropout_mask="window"),
    optimizer=OptimizerConfig(learning_rate=8e-3, schedule="cosine", warmup_steps=50, grad_clip=1.0),
    train=TrainConfig(steps=800, validate_every=400, checkpoint_every=200),
    sample=SampleConfig(prime="The ", temperature=0.8),
)
