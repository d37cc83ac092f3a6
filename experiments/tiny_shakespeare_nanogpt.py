"""Tiny Shakespeare on nanoGPT's split, scored as nanoGPT scores: an LSTM of 3.3 million parameters.

charlstm train experiments/tiny_shakespeare_nanogpt.py && charlstm eval runs/tiny_shakespeare_nanogpt --cold 256
Measured: 1.4455 nats (2.0855 bits) per character in cold windows of 256, and 1.4299 with the state carried on
(`charlstm eval RUN`), after 33 min on two CPU cores (AMD EPYC, AVX-512) that other work shared. The loss
was still falling. nanoGPT's README has 1.4697, for a transformer of 10.7 million parameters.

The split is the first 90 % and the last 10 %, which chose the checkpoint and this recipe too, as it does there. What
made the difference is in docs/recipes.md.
"""

from charlstm.config import DataConfig, Experiment, ModelConfig, OptimizerConfig, SampleConfig, TrainConfig

CONFIG = Experiment(
    data=DataConfig(
        corpus="tiny_shakespeare", validation_fraction=0.1, test_fraction=0.0, batch_size=64, seq_length=128
    ),
    model=ModelConfig(
        cell="lstm",
        hidden_size=512,
        num_layers=2,
        dropout=0.5,
        dropout_mask="window",
        recurrent_dropout=0.2,
        input_dropout=0.05,
        carry_dropout=0.05,
        forget_bias=-1.0,
    ),
    optimizer=OptimizerConfig(method="muon", learning_rate=0.02, weight_decay=0.03, average=0.998),
    train=TrainConfig(steps=3000, validate_every=200, checkpoint_every=200),
    sample=SampleConfig(prime="ROMEO:\n", temperature=0.8),
)
