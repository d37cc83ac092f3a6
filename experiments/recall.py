"""How far back does a cell remember? "I grew up in France ... I still speak French", with a knob for the distance.

charlstm compare experiments/recall.py [--data.corpus recall_128]

A generated text: a country's name decides a language's, 16, 32 or 64 characters later, and what stands between tells
nothing of it. The comparison adds the accuracy at the language's first letter against the distance, and at twice the
longest, which is not trained. A model that has forgotten the country is right one time in eight.
Measured: 1.00 for the LSTM up to 64 and 0.93 at 128, 0.65 for the GRU from 32 on (three seeds of five), and a guess for
the RNN from 32 on, in 2 minutes on two CPU cores (AMD EPYC, AVX-512).
"""

from charlstm.config import DataConfig, Experiment, Grid, ModelConfig, OptimizerConfig, SampleConfig, TrainConfig

GRID = Grid(
    cells=("rnn", "gru", "lstm"),
    layers=(1,),
    sizes=(64,),
    seeds=5,
    match_parameters=True,
    base=Experiment(
        data=DataConfig(corpus="recall_64", batch_size=32, seq_length=128),
        model=ModelConfig(dropout=0.0),
        optimizer=OptimizerConfig(learning_rate=1e-2, schedule="cosine", warmup_steps=50),
        train=TrainConfig(steps=2000, validate_every=500, checkpoint_every=250, tensorboard=False),
        sample=SampleConfig(prime="I grew up in ", length=300, temperature=0.5),
    ),
)
