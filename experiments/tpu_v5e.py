"""One host of TPU v5e, eight chips that share the batch: two LSTM layers of 1024 on War and Peace, in bfloat16.

charlstm train experiments/tpu_v5e.py [--data.corpus YOUR_LARGE_FILE]
Unmeasured: no line of this was run on a TPU. The arithmetic, for each chip with its 128 of 1,024 rows, and the public
figures of a chip (197 TFLOP/s in bfloat16, 819 GB/s of memory, 1,600 Gbit/s to other chips):

- Products: 12.67 million weights multiply at each character (3 kernels of 4 x 1024², the head's 1024 x 82; the first
  layer's input is a row). 6 operations each, forward and back, on 128 x 128 characters: 1.25 TFLOP, 6.3 ms at the peak.
- Bytes: 5 float32 and 13 bfloat16 numbers a unit, layer and character, written and read once: 2 x 1.5 GB, 3.8 ms. Adam
  moves 7 floats for each of 13.0 million parameters: 0.36 GB, 0.4 ms.
- The sum of gradients: 52 MB, of which a ring sends 2 x 7/8 over each chip's links: 91 MB, 0.5 ms.
- The loop: 2 layers x 128 steps x 2 ways are 512 products of 1.1 GFLOP, each waiting for the last. One takes 5.5 µs at
  the peak, and its kernel of 8.4 MB takes 10 µs to read from memory unless it stays on the chip: 3 to 5 ms and more.

To be expected, then: 12 to 25 ms a step, 5 to 11 million characters a second, and 1,000 steps in under half a minute.
Fewer rows a chip would leave its 128-wide matrix units half empty; more are nearly free. War and Peace is short for
1,024 rows, 21 windows an epoch: a larger text is what this is for. Several hosts: docs/hosts.md (unmeasured too).
"""

from charlstm.config import DataConfig, Experiment, ModelConfig, OptimizerConfig, SampleConfig, TrainConfig

CONFIG = Experiment(
    data=DataConfig(corpus="war_and_peace", batch_size=1024, seq_length=128),
    model=ModelConfig(cell="lstm", hidden_size=1024, num_layers=2, dropout=0.5, dtype="bfloat16"),
    optimizer=OptimizerConfig(learning_rate=3e-3, schedule="cosine", warmup_steps=100),
    train=TrainConfig(steps=1000, validate_every=250, checkpoint_every=250),
    sample=SampleConfig(prime="The ", temperature=0.8),
)
