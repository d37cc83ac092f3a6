"""One NVIDIA H100 (SXM): two LSTM layers of 1024 on War and Peace, in TF32.

charlstm train experiments/h100.py [--data.corpus YOUR_LARGE_FILE]
Unmeasured: no line of this was run on a GPU. The arithmetic, with the public figures of the card (495 TFLOP/s dense in
TF32, half of bfloat16's 989; 3.35 TB/s):

- Products: 12.67 million weights multiply at each character (3 kernels of 4 x 1024², the head's 1024 x 82; the first
  layer's input is a row). 6 operations each, forward and back, on 256 x 128 characters: 2.49 TFLOP, 5.0 ms at the peak.
- Bytes: about 18 floats a unit, layer and character, written and read once: 2 x 4.8 GB, 2.9 ms. Adam moves 7 floats for
  each of 13.0 million parameters: 0.36 GB, 0.1 ms.
- The loop: 2 layers x 128 steps x 2 ways are 512 products of 2.1 GFLOP, each waiting for the last. One takes 4.3 µs at
  the peak and at least as long to launch and to synchronise, so 10 to 20 µs: 5 to 10 ms, mostly latency.

To be expected, then: 10 to 20 ms a step, 1.6 to 3.3 million characters a second, and 2,000 steps in under a minute. The
loop waits more than it computes, so bfloat16 would gain little in it; with a larger hidden_size --model.dtype bfloat16
is worth a try. `auto` is charlstm's loop in JAX until cuDNN has run on a card; --model.recurrence cudnn asks for it.
More rows are nearly free until products fill the card.
"""

from charlstm.config import DataConfig, Experiment, ModelConfig, OptimizerConfig, SampleConfig, TrainConfig

CONFIG = Experiment(
    data=DataConfig(corpus="war_and_peace", batch_size=256, seq_length=128),
    model=ModelConfig(cell="lstm", hidden_size=1024, num_layers=2, dropout=0.5, recurrence="auto"),
    optimizer=OptimizerConfig(learning_rate=2e-3, schedule="cosine", warmup_steps=100),
    train=TrainConfig(steps=2000, validate_every=500, checkpoint_every=500),
    sample=SampleConfig(prime="The ", temperature=0.8),
)
