"""What a person is told of a run at its start and at its end. Facts in, lines out."""

import shlex

import jax

from charlstm.analysis.evaluate import Evaluation, lzma_bits, uniform_bits
from charlstm.config import DataConfig
from charlstm.core.network import Params
from charlstm.core.sharding import Layout
from charlstm.data.windows import Batches, Splits
from charlstm.runs.folder import Run
from charlstm.support.files import one_line


def introduction(run: Run, splits: Splits, batches: Batches, params: Params, step: int, layout: Layout) -> list[str]:
    """The text, the model, and the work ahead."""
    config = run.config
    data, model, steps = config.data, config.model, config.train.steps
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    depth = f"{model.num_layers} {'layer' if model.num_layers == 1 else 'layers'}"
    where = f"continues after step {step:,} in" if step else "writes to"
    return [
        of_text(data, len(run.vocabulary), splits),
        f"model    {model.cell}, {depth} of {model.hidden_size}: {count:,} parameters, on {_devices(layout)}",
        f"train    {steps:,} steps of {data.batch_size} x {data.seq_length} {data.symbols},"
        f" {batches.epoch(steps):.2f} epochs",
        f"run      {where} {one_line(run.folder)}",
    ]


def of_text(data: DataConfig, vocabulary_size: int, splits: Splits) -> str:
    """What is read, and how much of it for what."""
    sizes = f"{len(splits.train):,} to train on, {len(splits.validation):,} to validate, {len(splits.test):,} to test"
    return f"text     {one_line(data.corpus)}: {vocabulary_size} different {data.symbols}; {sizes}"


def conclusion(run: Run, splits: Splits, found: Evaluation | None) -> list[str]:
    """The validation loss beside what anyone can check it against."""
    if found is None:
        return ["there is no validation split to measure on; --data.validation-fraction 0.05 makes one"]
    text = run.vocabulary.decode(splits.validation)
    as_bytes = text.encode("latin-1") if run.config.data.symbols == "bytes" else text.encode("utf-8", "surrogatepass")
    symbol = "character" if run.config.data.symbols == "characters" else "byte"
    rows = {
        f"all {len(run.vocabulary)} {run.config.data.symbols} equally likely": uniform_bits(len(run.vocabulary)),
        "the same text through xz -9": lzma_bits(as_bytes, len(text)),
        "this model": found.bits_per_char,
    }
    width = max(map(len, rows))
    head = f"validation, bits per {symbol} over all {found.characters:,}:"
    return [head, *(f"  {name:<{width}}  {value:7.4f}" for name, value in rows.items())]


def what_next(run: Run) -> list[str]:
    """The commands to type next."""
    folder = shlex.quote(str(run.folder))
    # The prime is shown in one line whatever is in it; a person can copy the command only if nothing was cut.
    words = " ".join(run.config.sample.prime.split()[:3])
    prime = f" --prime {shlex.quote(one_line(words))}" if words else ""
    split = " --split test" if run.config.data.test_fraction else ""
    return [
        "next:",
        f"  charlstm sample {folder}{prime} --temperature 0.8 --stream",
        f"  charlstm eval {folder}{split}",
    ]


def other_devices(step: int, before: int | None, now: int) -> str:
    """That a run goes on with another number of devices, which changes the order of its sums."""
    devices = "1 device" if before == 1 else f"{before} devices"
    return (
        f"up to step {step:,} this run had {devices}, and now it has {now}:"
        " its losses agree with those of an unbroken run to about 1e-5, not to the bit"
    )


def _devices(layout: Layout) -> str:
    first = layout.mesh.devices.flat[0]
    if first.platform == "cpu":
        used = "the CPU" if layout.devices == 1 else f"{layout.devices} cores of the CPU"
    else:
        used = first.device_kind if layout.devices == 1 else f"{layout.devices} x {first.device_kind}"
    return used if not layout.idle else f"{used}; {layout.idle} idle, since data.batch_size must share out evenly"
