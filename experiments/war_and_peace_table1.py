"""Karpathy, Johnson and Li 2015, "Visualizing and Understanding Recurrent Networks", table 1, on War and Peace.

charlstm compare experiments/war_and_peace_table1.py [--sizes 64 128 256 512] [--train.steps 13000]
Measured: test 1.219 to 1.400 nats per byte at sizes 64 and 128 after 15 epochs, in 33 minutes of training on two CPU
cores (AMD EPYC, AVX-512) that other work shared in part; docs/comparison.md has the table. The larger sizes are
unmeasured in this grid.

The paper's protocol: bytes as symbols, 80 % to train on and 10 % each to validate and to test, batches of 100 windows
of 100, clipped gradients, the step with the best validation loss. Of each row of the batch the end is held out, as in
char-rnn, the authors' released code. The optimizer, its rates and the LSTM's forget bias are this project's own. The
best cell of the paper's table is 1.077 nats (slides of the paper); the others could not be read again.
"""

from charlstm.config import DataConfig, Experiment, Grid, ModelConfig, OptimizerConfig, SampleConfig, TrainConfig

GRID = Grid(
    cells=("rnn", "gru", "lstm"),
    layers=(1, 2, 3),
    sizes=(64, 128),
    seeds=1,
    match_parameters=True,
    learning_rates={"rnn": 0.01, "gru": 0.03, "lstm": 0.04},
    base=Experiment(
        data=DataConfig(
            corpus="war_and_peace",
            symbols="bytes",
            batch_size=100,
            seq_length=100,
            validation_fraction=0.1,
            test_fraction=0.1,
            held_out="rows",
        ),
        model=ModelConfig(dropout=0.0, forget_bias=-1.0),
        optimizer=OptimizerConfig(schedule="cosine", warmup_steps=100, grad_clip=1.0),
        train=TrainConfig(steps=3900, validate_every=260, checkpoint_every=130, tensorboard=False),
        sample=SampleConfig(prime="The ", length=600, temperature=0.7),
    ),
)
