"""Every field of a run, with its default and its limits. Nothing else in charlstm decides a default."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from charlstm.errors import InputError, did_you_mean

Cell = Literal["rnn", "gru", "lstm"]
Recurrence = Literal["auto", "fast", "plain", "cudnn"]
Dtype = Literal["float32", "bfloat16"]
DropoutMask = Literal["step", "window"]
Schedule = Literal["constant", "cosine", "step"]
Symbols = Literal["characters", "bytes"]
HeldOut = Literal["end", "rows"]


def _check(holds: bool, name: str, value: object, must: str) -> None:
    if not holds:
        raise InputError(f"{name} is {value!r}; it must be {must}")


class _Checked:
    """Checks types on construction, so that no later room meets a string where a count belongs."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for each in fields(self):  # pyright: ignore[reportArgumentType]
            value, hint = getattr(self, each.name), hints[each.name]
            if get_origin(hint) is Literal:
                choices = get_args(hint)
                hint_text = "one of " + ", ".join(choices) + did_you_mean(str(value), choices)
                _check(value in choices, each.name, value, hint_text)
            elif hint is float:
                number = isinstance(value, int | float) and not isinstance(value, bool)
                _check(number and math.isfinite(value), each.name, value, "a finite number")
                object.__setattr__(self, each.name, float(value))
            elif hint is int:
                _check(isinstance(value, int) and not isinstance(value, bool), each.name, value, "a whole number")
            else:
                _check(isinstance(value, hint), each.name, value, f"of type {hint.__name__}")
        self.check()

    def check(self) -> None:
        """The limits that a type does not express."""


@dataclass(frozen=True, kw_only=True)
class DataConfig(_Checked):
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
        _check(self.corpus != "", "corpus", self.corpus, "a corpus name or a path")
        _check(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        _check(self.seq_length >= 1, "seq_length", self.seq_length, "at least 1")
        for name in ("validation_fraction", "test_fraction"):
            _check(0 <= getattr(self, name) < 1, name, getattr(self, name), "at least 0 and below 1")
        both = self.validation_fraction + self.test_fraction
        _check(both < 1, "validation_fraction + test_fraction", both, "below 1, or nothing is left to train on")

    @property
    def stretches(self) -> int:
        """Parts of the text whose ends are held out."""
        return self.batch_size if self.held_out == "rows" else 1


@dataclass(frozen=True, kw_only=True)
class ModelConfig(_Checked):
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
        _check(self.hidden_size >= 1, "hidden_size", self.hidden_size, "at least 1")
        _check(self.num_layers >= 1, "num_layers", self.num_layers, "at least 1")
        _check(0 <= self.dropout < 1, "dropout", self.dropout, "at least 0 and below 1")
        cudnn_can = self.cell == "lstm" and self.dtype == "float32"
        must = f"auto, fast or plain for cell {self.cell} in {self.dtype}: cuDNN's is for lstm in float32"
        _check(self.recurrence != "cudnn" or cudnn_can, "recurrence", self.recurrence, must)


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(_Checked):
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
        _check(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        _check(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "at least 0")
        _check(0 <= self.decay_to <= 1, "decay_to", self.decay_to, "between 0 and 1")
        _check(self.decay_every >= 1, "decay_every", self.decay_every, "at least 1")
        _check(self.grad_clip > 0, "grad_clip", self.grad_clip, "above 0")
        _check(0 <= self.b1 < 1, "b1", self.b1, "at least 0 and below 1")
        _check(0 <= self.b2 < 1, "b2", self.b2, "at least 0 and below 1")
        _check(self.weight_decay >= 0, "weight_decay", self.weight_decay, "at least 0")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(_Checked):
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
        _check(self.steps >= 1, "steps", self.steps, "at least 1")
        for name in ("validate_every", "checkpoint_every", "sample_every"):
            _check(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        _check(self.keep_checkpoints >= 1, "keep_checkpoints", self.keep_checkpoints, "at least 1")


@dataclass(frozen=True, kw_only=True)
class SampleConfig(_Checked):
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
        _check(self.length >= 0, "length", self.length, "at least 0")
        _check(self.temperature >= 0, "temperature", self.temperature, "at least 0")
        _check(self.top_n >= 0, "top_n", self.top_n, "at least 0 (0 means all)")
        _check(0 <= self.seed < 2**32, "seed", self.seed, "between 0 and 2**32 - 1")


@dataclass(frozen=True, kw_only=True)
class Experiment(_Checked):
    """One run, whole: with this and the text, it can be repeated to the bit."""

    seed: int = 0
    """Initial parameters and dropout masks follow from it."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)

    def check(self) -> None:
        _check(0 <= self.seed < 2**32, "seed", self.seed, "between 0 and 2**32 - 1")


def to_dict(config: Experiment) -> dict[str, Any]:
    """Nested dictionaries of plain JSON values; `from_dict` is the inverse."""
    return dataclasses.asdict(config)


def from_dict(values: object, kind: type = Experiment, prefix: str = "") -> Any:
    """A checked config from nested dictionaries; fields that are left out take their defaults.

    Raises:
        InputError: a field does not exist, or has an impossible value.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{prefix.rstrip('.') or 'a config'} must be a JSON object with fields")
    hints = get_type_hints(kind)
    for name in values:
        if name not in hints:
            raise InputError(f"there is no field {prefix}{name}{did_you_mean(str(name), hints)}")
    nested = {
        name: from_dict(value, hints[name], f"{prefix}{name}.") if issubclass_checked(hints[name]) else value
        for name, value in values.items()
    }
    return kind(**nested)


def issubclass_checked(hint: object) -> bool:
    """Whether a field holds a group of fields."""
    return isinstance(hint, type) and issubclass(hint, _Checked)


def flat(config: Experiment) -> dict[str, Any]:
    """Every field by its dotted name, as the command line calls it: ``{"seed": 0, "data.corpus": ...}``."""
    return {
        name: value
        for group, values in to_dict(config).items()
        for name, value in (
            ((f"{group}.{key}", inner) for key, inner in values.items())
            if isinstance(values, dict)
            else ((group, values),)
        )
    }
