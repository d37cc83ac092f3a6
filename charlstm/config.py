"""Every field of a run, with its default and its bounds. Nothing else in charlstm decides a default."""

from dataclasses import field
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs, PydanticCustomError

from charlstm.support.errors import InputError, did_you_mean
from charlstm.support.schema import STRICT, Flag, Number, Text, Whole, sentence

CELLS: dict[str, Any] = {"rnn": None, "gru": None, "lstm": None}
"""The recurrent cells by name: None for a built-in one, its class for one that a user registered."""
MOST = 2**31 - 1  # of anything that is counted: devices count steps, windows and characters in int32
DYNAMIC_RATE = 1e-4  # of dynamic evaluation
_MODELS = 1000  # of a comparison
Cell = Text  # a name in CELLS, checked when a model is made: a config may be read before its cell is registered
Recurrence = Literal["auto", "native", "fast", "plain", "cudnn"]
Dtype = Literal["float32", "bfloat16"]
DropoutMask = Literal["step", "window"]
Weights = Literal["float32", "int8"]
Method = Literal["adam", "muon"]
Schedule = Literal["constant", "cosine", "step"]
Symbols = Literal["characters", "bytes"]
Documents = Literal["none", "lines"]
Each = TypeVar("Each")

Count = Annotated[Whole, Field(ge=1, le=MOST)]
NonNegative = Annotated[Whole, Field(ge=0)]
Width = Annotated[Whole, Field(ge=1, le=2**16)]  # this and the next: far beyond what can be trained, yet soon read
Depth = Annotated[Whole, Field(ge=1, le=100)]
Seed = Annotated[Whole, Field(ge=0, lt=2**32)]
Probability = Annotated[Number, Field(ge=0, lt=1)]
Rate = Annotated[Number, Field(gt=0, le=3e38)]  # float32 must hold it


def check_cell(name: str) -> None:
    """Raises InputError unless a cell of this name is built in or registered."""
    if name not in CELLS:
        near = did_you_mean(name.lower(), CELLS, cutoff=0.7)
        own = f"for a cell of your own, import the file that calls charlstm.register_cell({name!r}, ...) first"
        must = f"it must be one of {', '.join(CELLS)}{near}"
        raise InputError(f"cell is {name!r}; {must}; {own}, as in charlstm --import FILE train")


def _distinct(values: tuple[Each, ...]) -> tuple[Each, ...]:
    if len(set(values)) < len(values):
        raise PydanticCustomError("distinct", "it must have no value twice")
    return values


Axis = Annotated[tuple[Each, ...], Field(min_length=1, max_length=100), AfterValidator(_distinct)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DataConfig:
    """Which text is read, and how it is split. Fractions are of the text, or of each of its stretches, from the end."""

    corpus: Text = "king_james"
    """A name that `charlstm corpora` lists, or a UTF-8 text file, a folder of them, or a quoted glob."""
    separator: Text = "\n"
    """What stands between the texts of several files."""
    symbols: Symbols = "characters"
    """What one step of the model reads and predicts: a Unicode character, or a raw byte of the file."""
    documents: Documents = "none"
    """Whether each line is a text of its own, read from the zero state, and a sample is one; or the text is one."""
    batch_size: Count = 32
    """Rows in a batch, B: stretches of the text that are read in parallel."""
    seq_length: Count = 64
    """Characters in a window, T: how far backpropagation reaches."""
    validation_fraction: Probability = 0.05
    """The part of the text that chooses between checkpoints."""
    test_fraction: Probability = 0.05
    """The part of the text that the reported loss is computed on."""
    held_out: Literal["end", "rows"] = "end"
    """Whether the two parts are the end of the text, or the end of each of B equal stretches of it, as in char-rnn."""
    cache: Flag = False
    """Read the ids from a file in the platform's cache folder, not from memory: for a text larger than that."""

    def __post_init__(self) -> None:
        if not self.corpus:
            raise ValueError("corpus is ''; it must be a corpus name or a path")
        if (held_out := self.validation_fraction + self.test_fraction) >= 1:
            must = "it must be below 1, or nothing is left to train on"
            raise ValueError(f"validation_fraction + test_fraction is {held_out:g}; {must}")
        if self.cache and self.held_out == "rows":
            raise ValueError("cache is True; held_out must be 'end', as its rows are put together in memory")

    @property
    def stretches(self) -> int:
        return self.batch_size if self.held_out == "rows" else 1


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelConfig:
    """Shape of the network. Sizes are counts; dropout is a probability in [0, 1)."""

    cell: Cell = "lstm"
    """The recurrent cell of every layer: rnn, gru, lstm, or one that was given to `charlstm.register_cell`."""
    hidden_size: Width = 256
    """Units in a layer, H."""
    num_layers: Depth = 1
    """Layers in the stack, L."""
    dropout: Probability = 0.0
    """Probability that a unit of a layer's output is dropped in training; the book's keep probability is 1 - this."""
    dropout_mask: DropoutMask = "step"
    """Whether a new mask is drawn at every step, as in the book, or one mask holds for a window (Gal 2016)."""
    recurrent_dropout: Probability = 0.0
    """Probability that a recurrent weight is dropped for a window in training (weight drop: Merity et al. 2017)."""
    input_dropout: Probability = 0.0
    """Probability that a character of a window is read as none in training; it is predicted all the same."""
    carry_dropout: Probability = 0.0
    """Probability that a row's carry is zero before a window in training, as at the start of a text."""
    forget_bias: Number = 1.0
    """Initial bias of the LSTM's forget gate."""
    recurrence: Recurrence = "auto"
    """The time loop, all of one result: auto (native on a CPU that has it, else fast), NVIDIA's cudnn, Flax's plain."""
    remat: Flag = False
    """Keep only the carries between chunks of about √T steps, and recompute the rest: long windows in less memory."""
    dtype: Dtype = "float32"
    """Precision of matrix products' factors and of the activations between layers; all else stays float32."""

    def __post_init__(self) -> None:
        if self.recurrence == "cudnn" and (self.cell != "lstm" or self.dtype != "float32"):
            must = f"auto, fast or plain for cell {self.cell} in {self.dtype}: cuDNN's is for lstm in float32"
            raise ValueError(f"recurrence is 'cudnn'; it must be {must}")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OptimizerConfig:
    """Global-norm clipping, then Adam or Muon, under a learning-rate schedule."""

    method: Method = "adam"
    """Adam, or Muon for square kernels, such as the recurrent ones, with Adam for all other parameters."""
    learning_rate: Rate = 6e-3
    """The highest rate of the schedule."""
    schedule: Schedule = "cosine"
    """After warm-up: constant, a half cosine down to decay_to, or multiplied by decay_to every decay_every steps."""
    warmup_steps: Annotated[NonNegative, Field(le=MOST)] = 50
    """Steps over which the rate rises linearly from 0 to learning_rate."""
    decay_to: Annotated[Number, Field(ge=0, le=1)] = 0.01
    """A factor of learning_rate: where a cosine ends, or what each step of a stepwise decay multiplies by."""
    decay_every: Count = 1000
    """Steps between two decays of a stepwise schedule."""
    grad_clip: Annotated[Number, Field(gt=0)] = 1.0
    """The largest global norm of the gradients; larger ones are scaled down to it."""
    b1: Probability = 0.9
    """Adam's decay of the first moment, and Muon's momentum."""
    b2: Probability = 0.99
    """Adam's decay of the second moment."""
    weight_decay: Annotated[Number, Field(ge=0)] = 0.0
    """Decoupled weight decay of all kernels, as a factor of the learning rate (AdamW)."""
    average: Probability = 0.0
    """Decay of a running average of the parameters, which is then what is evaluated and sampled; 0 means none."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainConfig:
    """How long to train, and what to do on the way. An interval of 0 means never, except at the end."""

    steps: Count = 1500
    """Updates of the parameters."""
    validate_every: NonNegative = 750
    """Steps between two losses over the whole validation split."""
    checkpoint_every: NonNegative = 250
    """Steps between two checkpoints; the last step always has one."""
    keep_checkpoints: Annotated[Whole, Field(ge=1)] = 3
    """How many of the newest checkpoints to keep, besides the best by validation loss."""
    sample_every: NonNegative = 0
    """Steps between two samples, which are written to the run's samples folder."""
    tensorboard: Flag = True
    """Whether TensorBoard event files are written beside metrics.jsonl."""
    accumulate: Count = 1
    """Groups of a batch's rows that are read one after the other for an update, in the memory of one; it divides B."""
    deterministic_sums: Flag = False
    """Sum gradients over rows in one order: 1, 2, 4 and 8 devices that B divides among give the same bits, by Adam."""
    patience: NonNegative = 0
    """Stop early once so many validations were made after the one with the lowest loss; 0 means never."""

    def __post_init__(self) -> None:
        if self.patience and not self.validate_every:
            raise ValueError(f"patience is {self.patience}; it must be 0 where validate_every is 0")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SampleConfig:
    """How text is drawn from a model."""

    prime: Text = "In the beginning"
    """Text that the model reads first; the sample continues it."""
    length: Annotated[NonNegative, Field(le=MOST)] = 1000
    """Characters to draw after the prime."""
    temperature: Annotated[Number, Field(ge=0)] = 0.8
    """Logits are divided by this; 0 takes the likeliest character each time."""
    top_n: NonNegative = 0
    """Draw only among the n likeliest characters; 0 means among all."""
    seed: Seed = 0
    """The same checkpoint, settings and seed give the same text."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Experiment:
    """All that decides a run: with this and the text, it can be repeated to the bit."""

    seed: Seed = 0
    """Initial parameters and dropout masks follow from it."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)

    def __post_init__(self) -> None:
        if self.model.recurrence == "cudnn" and self.data.documents == "lines":
            raise ValueError("model.recurrence is 'cudnn'; data.documents lines needs another, such as auto")
        if self.data.batch_size % self.train.accumulate:
            must = f"it must divide data.batch_size, {self.data.batch_size}"
            raise ValueError(f"train.accumulate is {self.train.accumulate}; {must}")
        if self.train.deterministic_sums and self.optimizer.method == "muon":
            raise ValueError("train.deterministic_sums is True; Muon's updates have no such promise, so use adam")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Published:
    """A test loss that someone else reports, to stand beside ours."""

    cell: Cell
    num_layers: Whole
    size: Whole
    test: Number  # nats per character


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Axes:
    """What is compared: every cell at every depth and size, each with every seed."""

    cells: Axis[Cell] = ("rnn", "gru", "lstm")
    """The recurrent cells."""
    layers: Axis[Depth] = (1, 2, 3)
    """Depths of the stack, L."""
    sizes: Axis[Width] = (128,)
    """Units in a layer, H; with match_parameters, those of the one-layer LSTM that sets the number of parameters."""
    seeds: Annotated[Whole, Field(ge=1, le=1000)] = 5
    """Runs of each model: with `seed`, with `seed` + 1, and so on."""
    match_parameters: Flag = False
    """Choose each width so that the number of parameters is nearest to that of the one-layer LSTM of the size."""
    learning_rates: Annotated[dict[Cell, Rate], Field(max_length=100)] = field(default_factory=dict)
    """Cells that have a learning rate of their own, and the rate: rnn 0.01 lstm 0.04."""
    baseline_cell: Cell = "rnn"
    """The cell of the model that every other model of its size is compared with."""
    baseline_layers: Whole = 1
    """The depth of that model."""

    @model_validator(mode="before")
    @classmethod
    def _read_old_rates(cls, values: Any) -> Any:
        """The rates of a grid were once fields such as rnn_learning_rate; 0 left a cell that of the optimizer."""
        given = values.kwargs if isinstance(values, ArgsKwargs) else values
        old = {f"{cell}_learning_rate": cell for cell in ("rnn", "gru", "lstm")}
        if not isinstance(given, dict) or given.keys().isdisjoint(old):
            return values
        rates = {cell: given[name] for name, cell in old.items() if given.get(name, 0) != 0}
        new = given.get("learning_rates", {})
        rest = {name: value for name, value in given.items() if name not in old}
        return rest | {"learning_rates": rates | new if isinstance(new, dict) else new}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Grid(Axes):
    """All of a comparison: its axes, and what its runs share."""

    base: Experiment = field(default_factory=Experiment)
    """The config of every run, but for the cell, the depth, the width, the learning rate and the seed."""
    published: Annotated[tuple[Published, ...], Field(max_length=_MODELS)] = ()
    """Test losses of some of the models that others report."""

    def __post_init__(self) -> None:
        if (models := len(self.cells) * len(self.layers) * len(self.sizes)) > _MODELS:
            raise ValueError(f"cells, layers and sizes make {models:,} models; they must make at most {_MODELS:,}")
        if (last := self.base.seed + self.seeds - 1) >= 2**32:
            raise ValueError(f"seed + seeds - 1 is {last}; it must be below 2**32")
        if patience := self.base.train.patience:
            why = "in a comparison, whose seeds train in one program"
            raise ValueError(f"base.train.patience is {patience}; it must be 0 {why}")


def explain(error: ValidationError) -> str:
    """What is wrong with a config, in one line with the field's dotted name."""
    groups = {type(value).__name__: f"{name}." for name, value in vars(Experiment()).items()}
    return sentence(error, globals().get(error.title), groups.get(error.title, ""))
