"""Every field of a run, with its default and its limits. Nothing else in charlstm decides a default."""

from dataclasses import dataclass, field
from typing import Any, Literal

from charlstm.support.schema import Checked, require

Cell = Literal["rnn", "gru", "lstm"]
Recurrence = Literal["auto", "fast", "plain", "cudnn"]
Dtype = Literal["float32", "bfloat16"]
DropoutMask = Literal["step", "window"]
Schedule = Literal["constant", "cosine", "step"]
Symbols = Literal["characters", "bytes"]
HeldOut = Literal["end", "rows"]

MOST = 2**31 - 1
"""Of anything that is counted: devices count steps, windows and characters in int32."""
WIDEST, DEEPEST = 2**16, 100
"""Of a model, H and L: far beyond what can be trained, and few enough that a config alone costs nobody minutes."""


@dataclass(frozen=True, kw_only=True)
class DataConfig(Checked):
    """What is read, and how it is cut. Fractions are of the text, or of each of its stretches, taken from the end."""

    corpus: str = "king_james"
    """A name that `charlstm corpora` lists, or the path of a UTF-8 text file."""
    symbols: Symbols = "characters"
    """What one step of the model reads and predicts: a Unicode character, or a raw byte of the file."""
    batch_size: int = 32
    """Rows that are read side by side, B."""
    seq_length: int = 64
    """Characters in a window, T: how far backpropagation reaches."""
    validation_fraction: float = 0.05
    """The part of the text that chooses between checkpoints."""
    test_fraction: float = 0.05
    """The last part of the text, for the number that is reported."""
    held_out: HeldOut = "end"
    """Whether both parts are the end of the text, or the end of each of B equal stretches of it, as in char-rnn."""

    def check(self) -> None:
        require(self.corpus != "", "corpus", self.corpus, "a corpus name or a path")
        for name in ("batch_size", "seq_length"):
            require(1 <= getattr(self, name) <= MOST, name, getattr(self, name), "at least 1 and below 2**31")
        for name in ("validation_fraction", "test_fraction"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "at least 0 and below 1")
        both = self.validation_fraction + self.test_fraction
        require(both < 1, "validation_fraction + test_fraction", both, "below 1, or nothing is left to train on")

    @property
    def stretches(self) -> int:
        """Parts of the text whose ends are held out."""
        return self.batch_size if self.held_out == "rows" else 1


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Checked):
    """Shape of the network. Sizes are counts; dropout is a probability in [0, 1)."""

    cell: Cell = "lstm"
    """The recurrent cell of every layer."""
    hidden_size: int = 256
    """Units in a layer, H."""
    num_layers: int = 1
    """Layers in the stack, L."""
    dropout: float = 0.0
    """Probability that a unit of a layer's output is dropped in training; the book's keep probability is 1 - this."""
    dropout_mask: DropoutMask = "step"
    """Whether a new mask is drawn at every step, as in the book, or one mask holds for a window (Gal 2016)."""
    forget_bias: float = 1.0
    """Initial bias of the LSTM's forget gate."""
    recurrence: Recurrence = "auto"
    """The time loop: charlstm's own (fast), Flax's cells (plain), NVIDIA's (cudnn), or cudnn where it can be and fast
    elsewhere (auto). Same parameters, same values."""
    remat: bool = False
    """Keep the carries between chunks of about √T steps and compute the rest again: long windows in less memory."""
    dtype: Dtype = "float32"
    """What the factors of products and the activations between layers are rounded to; all else stays float32."""

    def check(self) -> None:
        require(1 <= self.hidden_size <= WIDEST, "hidden_size", self.hidden_size, f"at least 1 and at most {WIDEST}")
        require(1 <= self.num_layers <= DEEPEST, "num_layers", self.num_layers, f"at least 1 and at most {DEEPEST}")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "at least 0 and below 1")
        cudnn_can = self.cell == "lstm" and self.dtype == "float32"
        must = f"auto, fast or plain for cell {self.cell} in {self.dtype}: cuDNN's is for lstm in float32"
        require(self.recurrence != "cudnn" or cudnn_can, "recurrence", self.recurrence, must)


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Checked):
    """Global-norm clipping, then Adam, under a learning-rate schedule."""

    learning_rate: float = 6e-3
    """The highest rate of the schedule."""
    schedule: Schedule = "cosine"
    """After warm-up: constant, a half cosine down to decay_to, or multiplied by decay_to every decay_every steps."""
    warmup_steps: int = 50
    """Steps over which the rate rises linearly from 0 to learning_rate."""
    decay_to: float = 0.01
    """A factor of learning_rate: where a cosine ends, or what each step of a stepwise decay multiplies by."""
    decay_every: int = 1000
    """Steps between two decays of a stepwise schedule."""
    grad_clip: float = 1.0
    """Gradients with a larger global norm are scaled down to it."""
    b1: float = 0.9
    """Adam's decay of the first moment."""
    b2: float = 0.99
    """Adam's decay of the second moment."""
    weight_decay: float = 0.0
    """Decoupled weight decay of all kernels, as a factor of the learning rate (AdamW)."""

    def check(self) -> None:
        require(0 < self.learning_rate <= 3e38, "learning_rate", self.learning_rate, "above 0, and within float32")
        require(0 <= self.warmup_steps <= MOST, "warmup_steps", self.warmup_steps, "at least 0 and below 2**31")
        require(0 <= self.decay_to <= 1, "decay_to", self.decay_to, "between 0 and 1")
        require(1 <= self.decay_every <= MOST, "decay_every", self.decay_every, "at least 1 and below 2**31")
        require(self.grad_clip > 0, "grad_clip", self.grad_clip, "above 0")
        require(0 <= self.b1 < 1, "b1", self.b1, "at least 0 and below 1")
        require(0 <= self.b2 < 1, "b2", self.b2, "at least 0 and below 1")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "at least 0")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Checked):
    """How long, and what happens on the way. An interval of 0 means never, except at the end."""

    steps: int = 1500
    """Updates of the parameters in all."""
    validate_every: int = 750
    """Steps between two exact losses on the validation split."""
    checkpoint_every: int = 250
    """Steps between two checkpoints; the last step always has one."""
    keep_checkpoints: int = 3
    """How many of the newest checkpoints stay, beside the best by validation."""
    sample_every: int = 0
    """Steps between two samples that are written to the run's samples folder."""
    tensorboard: bool = True
    """Whether TensorBoard event files are written beside metrics.jsonl."""

    def check(self) -> None:
        require(1 <= self.steps <= MOST, "steps", self.steps, "at least 1 and below 2**31")
        for name in ("validate_every", "checkpoint_every", "sample_every"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        require(self.keep_checkpoints >= 1, "keep_checkpoints", self.keep_checkpoints, "at least 1")


@dataclass(frozen=True, kw_only=True)
class SampleConfig(Checked):
    """How text is drawn from a model."""

    prime: str = "In the beginning"
    """Text that the model reads first; the sample goes on from it."""
    length: int = 1000
    """Characters to draw, not counting the prime."""
    temperature: float = 0.8
    """Logits are divided by this; 0 takes the likeliest character each time."""
    top_n: int = 0
    """Only the n likeliest characters can be drawn; 0 means all."""
    seed: int = 0
    """Same checkpoint, settings and seed, same text."""

    def check(self) -> None:
        require(0 <= self.length <= MOST, "length", self.length, "at least 0 and below 2**31")
        require(self.temperature >= 0, "temperature", self.temperature, "at least 0")
        require(self.top_n >= 0, "top_n", self.top_n, "at least 0 (0 means all)")
        require(0 <= self.seed < 2**32, "seed", self.seed, "between 0 and 2**32 - 1")


@dataclass(frozen=True, kw_only=True)
class Experiment(Checked):
    """One run, whole: with this and the text, it can be repeated to the bit."""

    seed: int = 0
    """Initial parameters and dropout masks follow from it."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)

    def check(self) -> None:
        require(0 <= self.seed < 2**32, "seed", self.seed, "between 0 and 2**32 - 1")


@dataclass(frozen=True, kw_only=True)
class Published(Checked):
    """A test loss that someone else reports, to stand beside ours."""

    cell: Cell
    num_layers: int
    size: int
    test: float
    """Nats per character."""


@dataclass(frozen=True, kw_only=True)
class Axes(Checked):
    """What is compared: every cell at every depth and size, each with every seed."""

    cells: tuple[Cell, ...] = ("rnn", "gru", "lstm")
    """The recurrent cells."""
    layers: tuple[int, ...] = (1, 2, 3)
    """Depths of the stack, L."""
    sizes: tuple[int, ...] = (128,)
    """Units in a layer, H; with match_parameters, those of the one-layer LSTM that sets the number of parameters."""
    seeds: int = 5
    """Runs of each model: with `seed`, with `seed` + 1, and so on."""
    match_parameters: bool = False
    """Choose each width so that the number of parameters is nearest to that of the one-layer LSTM of the size."""
    rnn_learning_rate: float = 0.0
    """Of every model with this cell; 0 leaves it that of the optimizer."""
    gru_learning_rate: float = 0.0
    """Likewise."""
    lstm_learning_rate: float = 0.0
    """Likewise."""
    baseline_cell: Cell = "rnn"
    """The cell of the model that each other one of its size is compared with."""
    baseline_layers: int = 1
    """The depth of that model."""

    def check(self) -> None:
        for name in ("cells", "layers", "sizes"):
            values = getattr(self, name)
            require(len(set(values)) == len(values) > 0, name, values, "at least one, and none of them twice")
            require(len(values) <= 100, name, f"a list of {len(values)}", "at most 100 of them")
        for name in ("layers", "sizes"):
            require(min(getattr(self, name)) >= 1, name, getattr(self, name), "at least 1, each of them")
        require(1 <= self.seeds <= 1000, "seeds", self.seeds, "between 1 and 1000")
        for name in ("rnn_learning_rate", "gru_learning_rate", "lstm_learning_rate"):
            fits = 0 <= getattr(self, name) <= 3e38
            require(fits, name, getattr(self, name), "above 0 and within float32, or 0 for that of the optimizer")


@dataclass(frozen=True, kw_only=True)
class Grid(Axes):
    """A comparison, whole: its axes, and what all its runs share."""

    base: Experiment = field(default_factory=Experiment)
    """Every run's config but for the cell, the depth, the width, the learning rate and the seed."""
    published: tuple[Published, ...] = ()
    """Losses from elsewhere for some of the models."""

    def check(self) -> None:
        super().check()
        last = self.base.seed + self.seeds - 1
        require(last < 2**32, "seed + seeds - 1", last, "below 2**32")


CELLS: dict[str, Any] = dict.fromkeys(("rnn", "gru", "lstm"))
"""Cells by name: None for a built-in one, the class for one of a user's own."""


def check_cell(name: str) -> None:
    """Raises ValueError for a cell that is neither built in nor registered."""
    if name not in CELLS:
        raise ValueError(f"cell is {name!r}; it must be one of {', '.join(CELLS)}")
