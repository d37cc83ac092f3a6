"""The book's run: two LSTM layers of 512 on Anna Karenina with the licence text at its end, 990 steps of 100 x 100.

charlstm train experiments/anna_karenina_book.py

The chapter's hyperparameters: Adam at a constant 1e-3, keep probability 0.5, clipping at 5, sampling from the top 4.
The book prints a training loss of 1.7144 at its last step, with dropout on; this run first went below that at step 223.
Measured: validation 1.2450 nats (1.7962 bits) per character after 990 steps (1.4825 at 330, 1.3134 at 660), training
loss 1.333 with dropout on (mean of the last 20 steps), in 10 min 36 s on two CPU cores (AMD EPYC, AVX-512) that other
work shared. The test split, 1.5286, is mostly the licence.
"""

from charlstm.config import DataConfig, Experiment, ModelConfig, OptimizerConfig, SampleConfig, TrainConfig

CONFIG = Experiment(
    data=DataConfig(corpus="anna_karenina_book", batch_size=100, seq_length=100),
    model=ModelConfig(cell="lstm", hidden_size=512, num_layers=2, dropout=0.5, dropout_mask="step"),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="constant", warmup_steps=0, grad_clip=5.0, b1=0.9, b2=0.999),
    train=TrainConfig(steps=990, validate_every=330, checkpoint_every=100, keep_checkpoints=100),
    sample=SampleConfig(prime="The ", length=1000, top_n=4),
)
