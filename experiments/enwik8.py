"""enwik8, the first 100 MB of Wikipedia's dump, for an H100: two LSTM layers of 2048, of bytes.

charlstm train experiments/enwik8.py
charlstm train experiments/enwik8.py --data.corpus text8 --data.symbols characters
Unmeasured: no line of this was run on a GPU, and the text was never downloaded where it was written. The aim is 1.25
bits a byte on the test split in half an hour. Both texts are split as in the literature: 90, 5 and 5 million symbols.

The arithmetic, with the card's public figure of 989 TFLOP/s dense in bfloat16: 50.8 million weights multiply at each
byte (3 kernels of 4 x 2048², the head's 2048 x 205; the first layer's input is a row). 6 operations each, forward and
back, on 256 x 256 bytes make 20 TFLOP a step, 20 ms at the peak. Half an hour is then 90,000 steps at the peak, and
9,000, six epochs, at a tenth of it, which is what a loop of 256 dependent products may reach.
"""

from charlstm.config import DataConfig, Experiment, ModelConfig, OptimizerConfig, SampleConfig, TrainConfig

CONFIG = Experiment(
    data=DataConfig(corpus="enwik8", symbols="bytes", batch_size=256, seq_length=256),
    model=ModelConfig(
        cell="lstm", hidden_size=2048, num_layers=2, dropout=0.1, dropout_mask="window", dtype="bfloat16"
    ),
    optimizer=OptimizerConfig(learning_rate=2e-3, schedule="cosine", warmup_steps=500, average=0.999),
    train=TrainConfig(steps=9000, validate_every=1500, checkpoint_every=1500),
    sample=SampleConfig(prime="The ", temperature=0.8),
)
