"""The source of Python's standard library, which every machine has: one LSTM layer of 256, to look inside.

charlstm train experiments/python_source.py
charlstm look runs/python_source
"""

from charlstm.config import DataConfig, Experiment, ModelConfig, OptimizerConfig, SampleConfig, TrainConfig

CONFIG = Experiment(
    data=DataConfig(corpus="python_stdlib", batch_size=64, seq_length=128),
    model=ModelConfig(cell="lstm", hidden_size=256),
    optimizer=OptimizerConfig(learning_rate=8e-3, schedule="cosine", warmup_steps=50, grad_clip=1.0),
    train=TrainConfig(steps=2000, validate_every=500, checkpoint_every=500),
    sample=SampleConfig(prime="def ", temperature=0.6),
)
