"""What a person reads about a run or a comparison at its start and at its end. Facts in, lines out."""

import lzma
import math
import shlex
from collections.abc import Sequence
from pathlib import Path

import jax

from charlstm.analysis.evaluate import Evaluation
from charlstm.analysis.gradient_reach import GradientReach
from charlstm.cli.terminal import counted
from charlstm.compare.grid import GridModel
from charlstm.compare.results import ModelResult
from charlstm.config import DataConfig, Experiment
from charlstm.core.cells import BUILT_IN
from charlstm.core.network import Model
from charlstm.core.sharding import Layout
from charlstm.core.size import count_parameters
from charlstm.data.corpora import to_readable, to_symbols
from charlstm.data.dataset import Dataset
from charlstm.data.vocabulary import Vocabulary, not_known
from charlstm.runs.folder import Run
from charlstm.support.files import one_line

_LONGEST_PRIME = 60  # characters of it that a suggested command shows
_SEARCHED, _TAKEN = 1000, 16  # characters of a text that are searched for a prime, and that it has


def introduction(run: Run, data: Dataset, model: Model, step: int, layout: Layout) -> list[str]:
    """The text, the model, and the work ahead."""
    config, steps, size = run.config.data, run.config.train.steps, count_parameters(model.config, model.vocabulary_size)
    depth = f"{model.config.cell}, {counted(model.config.num_layers, 'layer')} of {model.config.hidden_size}"
    work = f"{steps:,} steps of {config.batch_size} x {config.seq_length} {config.symbols}"
    return [
        text_line(config, data),
        f"model    {depth}: {size:,} parameters, on {_devices(layout)}",
        f"train    {work}, {steps / data.train.windows_per_epoch:.2f} epochs",
        f"run      {f'continues after step {step:,} in' if step else 'writes to'} {one_line(run.folder)}",
        *([f"origin   {run.init_from}"] if run.init_from and step else []),
        *(f"change   {each}" for each in run.changes if each.step == step),
    ]


def text_line(config: DataConfig, data: Dataset) -> str:
    """What is read, and how much of it for what."""
    sizes = f"{len(data.train):,} to train on, {len(data.validation):,} to validate, {len(data.test):,} to test"
    return f"text     {one_line(config.corpus)}: {len(data.vocabulary):,} different {config.symbols}; {sizes}"


def conclusion(run: Run, data: Dataset, found: Evaluation | None) -> list[str]:
    """The validation loss beside what anyone can check it against."""
    if found is None:
        return ["there is no validation split to measure on; --data.validation-fraction 0.05 makes one"]
    text, symbols = run.vocabulary.decode(data.validation), run.config.data.symbols
    as_bytes = text.encode("latin-1") if symbols == "bytes" else text.encode("utf-8", "surrogatepass")
    rows = {
        f"all {len(run.vocabulary):,} {symbols} equally likely": math.log2(len(run.vocabulary)),
        "the same text through xz -9": 8 * len(lzma.compress(as_bytes, preset=9)) / len(text),
        "this model": found.bits_per_char,
    }
    width = max(map(len, rows))
    head = f"validation, bits per {symbols.removesuffix('s')} over all {found.characters:,}:"
    return [head, *(f"  {name:<{width}}  {value:7.4f}" for name, value in rows.items())]


def next_commands(run: Run, data: Dataset) -> list[str]:
    """The commands to type next."""
    folder = str(run.folder)
    folder = shell_word(f"./{folder}" if folder.startswith("-") else folder)
    prime = _known_prime(run, data)
    prime = f" --prime{'=' if prime.startswith('-') else ' '}{shell_word(prime)}" if prime else ""
    split = " --split test" if run.config.data.test_fraction else ""
    charlstm = "charlstm" if run.config.model.cell in BUILT_IN else "charlstm --import FILE"  # which registers the cell
    sample = f"  {charlstm} sample {folder}{prime} --temperature 0.8 --stream"
    return ["next:", sample, f"  {charlstm} eval {folder}{split}"]


def _known_prime(run: Run, data: Dataset) -> str:
    """The config's prime, or where the text lacks some of it, the beginning of the text's first line."""
    prime, symbols = run.config.sample.prime, run.config.data.symbols
    if _unknown(prime, run.config, run.vocabulary):
        lines = to_readable(run.vocabulary.decode(data.train.ids[:_SEARCHED]), symbols).split("\n")
        prime = next((line[:_TAKEN] for line in lines if line.strip()), "")
        prime = "" if _unknown(prime, run.config, run.vocabulary) else prime  # of bytes that are not UTF-8
    return prime[:_LONGEST_PRIME]


def lost_prime(config: Experiment, vocabulary: Vocabulary) -> list[str]:
    """Says what a sample leaves out of the config's prime, which was written before the vocabulary was known."""
    prime = config.sample.prime
    unknown = _unknown(prime, config, vocabulary)
    return [f"the prime {prime!r:.60} of the run's config loses characters {not_known(unknown)}"] if unknown else []


def lost_stops(run: Run, stops: Sequence[str]) -> list[str]:
    """Says which stops are never drawn."""
    unknown = {each: _unknown(each, run.config, run.vocabulary) for each in stops}
    return [f"--stop {stop!r:.60} is never drawn; {not_known(lost)}" for stop, lost in unknown.items() if lost]


def _unknown(text: str, config: Experiment, vocabulary: Vocabulary) -> list[str]:
    """What the model lacks of a text that a person wrote."""
    return vocabulary.unknown(to_symbols(text, config.data.symbols))


def shell_word(text: str) -> str:
    """A text as a word to type into a shell: in quotes, and as $'...' where a terminal would not show what is in it."""
    if text.isprintable():
        return shlex.quote(text)
    escaped = (each if each.isprintable() and each not in "\\'" else _octal(each) for each in text)
    return f"$'{''.join(escaped)}'"


def _octal(character: str) -> str:
    names = {"\n": "\\n", "\t": "\\t"}
    errors = "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass"  # half a pair, or a byte
    return names.get(character) or "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", errors))


def grid_introduction(models: Sequence[GridModel], seeds: int, done: int, folder: Path, data: Dataset) -> list[str]:
    """The text, the models, and where they go."""
    least, most = (sort(each.parameters for each in models) for sort in (min, max))
    count = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    lines = [
        text_line(models[0].config.data, data),
        f"models   {len(models)} with {counted(seeds, 'seed')} each, of {count} parameters",
        f"folder   {one_line(folder)}{f', where {done} of them are trained' if done else ''}",
    ]
    if len(models) > 1 and all(each.baseline is None for each in models):
        lines.append("none of them is the baseline that --baseline-cell and --baseline-layers name: no differences")
    if not len(data.validation):
        lines.append("there is no validation split, so the last step of each run counts as its best")
    return [*lines, *map(one_line, lost_prime(models[0].config, data.vocabulary))]


def model_line(row: ModelResult) -> str:
    """A model's losses in a few words."""
    parts = [f"{name} {loss.mean:.4f}" for name in ("validation", "test") if (loss := getattr(row, name))]
    if lost := sum(run.diverged_after is not None for run in row.seeds):
        parts.append(f"{lost} of {len(row.seeds)} seeds diverged")
    return f"{row.name}: {', '.join(parts) or 'trained'}"


def reach_table(found: GradientReach) -> list[str]:
    """The norms at lags that double, as parts of those at lag 0, and each layer's reach."""
    lags = found.norms.shape[1]
    shown = [0, *(2**power for power in range(lags.bit_length()) if 2**power < lags)]
    lines = ["gradient by lag " + "".join(f"{lag:>9}" for lag in shown) + "   at 1 %"]
    for number, (norms, reach) in enumerate(zip(found.norms, found.reach(), strict=True), start=1):
        parts = "".join(f"{part:9.1e}" for part in norms[shown] / norms[0])
        lines.append(f"  layer {number:<7} {parts}   {f'> {lags - 1}' if reach is None else reach:>6}")
    return lines


def _devices(layout: Layout) -> str:
    first, processes = layout.mesh.devices.flat[0], layout.processes
    each = layout.devices // processes
    if first.platform == "cpu":
        used = "the CPU" if each == 1 else f"{each} cores of the CPU"
    else:
        used = first.device_kind if each == 1 else f"{each} x {first.device_kind}"
    used += f" in each of {processes} processes" if processes > 1 else ""
    idle = (jax.device_count() if processes > 1 else jax.local_device_count()) - layout.devices
    also = "all processes use as many and " if processes > 1 else ""
    return used if not idle else f"{used}; {idle} idle, since {also}data.batch_size must share out evenly"
