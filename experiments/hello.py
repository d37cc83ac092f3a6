"""The chapter's first example: spell "hello", one letter after the other, from an alphabet of four.

charlstm train experiments/hello.py
"""

from pathlib import Path

from charlstm.config import DataConfig, Experiment, ModelConfig, OptimizerConfig, SampleConfig, TrainConfig

CONFIG = Experiment(
    data=DataConfig(
        corpus=str(Path(__file__).with_name("hello.txt")),
        batch_size=4,
        seq_length=10,
        validation_fraction=0.1,
        test_fraction=0.0,
    ),
    model=ModelConfig(hidden_size=16, num_layers=1),
    optimizer=OptimizerConfig(learning_rate=3e-2, warmup_steps=10),
    train=TrainConfig(steps=150, validate_every=50, checkpoint_every=50),
    sample=SampleConfig(prime="h", length=24, temperature=0.0),
)
