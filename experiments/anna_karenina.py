"""Anna Karenina, the novel alone, with the book's budget and size: 990 updates on 100 x 100 windows of 2 x 512.

charlstm train experiments/anna_karenina.py
Measured: validation 1.0688 nats (1.5420 bits) per character, at the last of its updates, and test 1.1232 (`charlstm
eval RUN --split test`), in 10 min 40 s on two CPU cores (AMD EPYC, AVX-512). The book prints a training loss of 1.7144
after 990.

What made the difference: Muon in place of Adam, which ended at 1.107 with the same forget bias, and for Muon a high
rate with a short momentum; a forget bias of -1 rather than 1 (1.115); and rows of variance 1 in the input kernels of
the first layer (`Model.init` says why; without them the loss stalls at the frequencies of the letters). docs/recipes.md
has what was tried.
"""

from charlstm.config import DataConfig, Experiment, ModelConfig, OptimizerConfig, SampleConfig, TrainConfig

CONFIG = Experiment(
    data=DataConfig(corpus="anna_karenina", batch_size=100, seq_length=100),
    model=ModelConfig(
        cell="lstm", hidden_size=512, num_layers=2, dropout=0.25, dropout_mask="window", forget_bias=-1.0
    ),
    optimizer=OptimizerConfig(
        method="muon", learning_rate=0.03, b1=0.8, schedule="cosine", warmup_steps=50, grad_clip=1.0
    ),
    train=TrainConfig(steps=990, validate_every=170, checkpoint_every=100, keep_checkpoints=3),
    sample=SampleConfig(prime="The ", temperature=0.8),
)
