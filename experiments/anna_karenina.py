"""Anna Karenina, the novel alone, with the book's budget and size: 990 updates on 100 x 100 windows of 2 x 512.

charlstm train experiments/anna_karenina.py
"""

from charlstm.config import DataConfig, Experiment, ModelConfig, OptimizerConfig, SampleConfig, TrainConfig

CONFIG = Experiment(
    data=DataConfig(corpus="anna_karenina", batch_size=100, seq_length=100),
    model=ModelConfig(cell="lstm", hidden_size=512, num_layers=2, dropout=0.2, dropout_mask="window"),
    optimizer=OptimizerConfig(learning_rate=6e-3, schedule="cosine", warmup_steps=50, grad_clip=1.0),
    train=TrainConfig(steps=990, validate_every=170, checkpoint_every=100, keep_checkpoints=3),
    sample=SampleConfig(prime="The ", temperature=0.8),
)
