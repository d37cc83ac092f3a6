"""The commands that read a trained run: eval, score, sample, look and export."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice
from typing import Any

from pydantic import ValidationError

from charlstm.cli.arguments import Eval, Export, Look, Sample, Score
from charlstm.cli.parsing import parse, value_of
from charlstm.cli.terminal import Reporter, counted, print_note, print_notes, to_json, write
from charlstm.support import process
from charlstm.support.errors import InputError
from charlstm.support.files import printable
from charlstm.support.schema import sentence

_LINE_COLUMNS = {"line": ">8", "nats": ">12.4f", "bits_per_char": ">13.4f", "characters": ">10", "text": ""}
_SYMBOL_COLUMNS = {"line": ">8", "column": ">8", "nats": ">10.4f", "bits": ">10.4f"}
_BATCH = 4096  # rows that are written together


def evaluate(words: list[str]) -> None:
    """`charlstm eval`."""
    asked = parse(Eval, words)
    if asked.exact + (asked.cold is not None) + asked.dynamic > 1:
        raise InputError("--exact, --cold and --dynamic each read a text in a way of its own; give one of them")
    process.prepare(tell=print_note)
    from charlstm.analysis.gradient_reach import gradient_reach
    from charlstm.cli.summary import reach_table
    from charlstm.data import corpora
    from charlstm.runs.loading import load_run

    found = load_run(asked.run, asked.checkpoint).with_weights(asked.weights)
    print_notes(found.notes)
    unit, skipped = found.config.data.symbols.removesuffix("s"), 0
    own = value_of(words, "--split") is not None or (asked.corpus and not asked.dynamic)  # which reads both texts
    if asked.text and own:
        raise InputError("--split and --corpus are about the run's own text; leave them out, or --text")
    if asked.corpus:
        found = found.with_text_at(corpora.resolve(asked.corpus))
    if asked.text is None:
        # The file that the config names is read, and never shown; a stranger's folder cannot have the hash of a secret.
        ids, what, source = found.ids(asked.split), f"{asked.split} split", {"split": asked.split, "text": None}
    else:
        what = str(asked.text)
        ids, skipped = _known_ids(found, what, asked.skip_unknown)
        source = {"split": None, "text": what}
    newline, dynamic = found.run.newline, asked.dynamic_rate if asked.dynamic else None
    try:
        result = found.evaluate_ids(ids, exact=asked.exact, cold=asked.cold, dynamic=dynamic)
        reach = gradient_reach(found.model, found.params, ids, newline=newline) if asked.lags else None
    except ValueError as error:
        field, _, rest = str(error).partition(" is ")
        option = {"cold": "--cold is ", "dynamic": "--dynamic-rate is "}.get(field)
        raise InputError(f"{option}{rest}" if option else str(error)) from None
    if asked.json:
        how = {"exact": asked.exact, "cold": asked.cold, "dynamic": dynamic, "weights": asked.weights}
        values = {"run": str(asked.run), "step": found.step, **source, **how}
        values |= {"skipped": skipped} | result._asdict() | {"bits_per_char": result.bits_per_char}
        write(to_json(values | ({"lags": reach.norms.tolist(), "reach": reach.reach()} if reach else {})) + "\n")
        return
    how = "in one row" if asked.exact else "in warmed rows"
    if asked.cold is not None:
        how = f"in windows of {counted(asked.cold, unit)}, each from an empty state"
    if asked.dynamic:
        how = f"in one row, learned from at a rate of {asked.dynamic_rate:g}"
    how += ", weights as int8" if asked.weights == "int8" else ""
    over = f"over {counted(result.characters, unit)} {how}{_left_out(skipped)}"
    write(f"{what}, step {found.step:,}: {result.loss:.5f} nats, {result.bits_per_char:.5f} bits per {unit} {over}\n")
    if reach:
        print("\n".join(reach_table(reach)))


def score(words: list[str]) -> None:
    """`charlstm score`."""
    asked = parse(Score, words)
    process.prepare(tell=print_note)
    from charlstm.analysis.evaluate import Score as Scored
    from charlstm.data.lines import Lines
    from charlstm.runs.loading import load_run

    found = load_run(asked.run, asked.checkpoint)
    print_notes(found.notes)
    symbols = found.config.data.symbols
    lines, unit = Lines(asked.file, symbols), symbols.removesuffix("s")

    def encoded() -> Iterator[tuple[int, list[str], list[Any]]]:
        first = 1
        for block in lines:
            yield first, block, found.encode_lines(block, skip_unknown=asked.skip_unknown, first=first)
            first += len(block)

    if lines.repeatable:  # so that nothing is shown before an error
        for _ in encoded():
            pass
    columns = _LINE_COLUMNS if asked.by == "line" else _SYMBOL_COLUMNS | {unit: ""}
    rows_of = _line_rows if asked.by == "line" else _symbol_rows
    total, count, skipped = Scored(0.0, 0), 0, 0
    for first, block, ids in encoded():
        scored = list(zip(block, ids, found.nats_of(ids), strict=True))
        count = first + len(block) - 1
        skipped += sum(len(line) - len(known) for line, known, _ in scored)
        sums = [Scored.of(nats) for *_, nats in scored]
        total = Scored(*(sum(each) for each in zip(total, *sums, strict=True)))
        if first == 1 and not asked.json:  # what is no row goes to standard error, so that the rows can be sorted
            print(" ".join(f"{name:{form.split('.')[0]}}" for name, form in columns.items()), file=sys.stderr)
        rows = chain.from_iterable(rows_of(found, number, *each) for number, each in enumerate(scored, first))
        while batch := list(islice(rows, _BATCH)):
            write("".join(f"{to_json(row) if asked.json else _table_row(row, columns)}\n" for row in batch))
    if not asked.json:
        each = f"{total.bits_per_char:.4f} bits per {unit} over {counted(total.characters, unit)}"
        print(f"{counted(count, 'line')}: {total.nats:.4f} nats, {each}{_left_out(skipped)}", file=sys.stderr)


def _line_rows(found: Any, number: int, line: str, known: Any, nats: Any) -> Iterator[dict[str, Any]]:
    from charlstm.analysis.evaluate import Score as Scored
    from charlstm.data.corpora import to_readable

    here = Scored.of(nats)
    values = {"nats": here.nats, "bits": here.bits, "bits_per_char": here.bits_per_char}
    rest = {"skipped": len(line) - len(known), "text": to_readable(line, found.config.data.symbols)}
    yield {"line": number, "characters": here.characters} | values | rest


def _symbol_rows(found: Any, number: int, line: str, known: Any, nats: Any) -> Iterator[dict[str, Any]]:
    from charlstm.core.loss import bits

    unknown = {*found.vocabulary.unknown(line)} if len(known) < len(line) else ()
    kept = (place for place in enumerate(line, 1) if place[1] not in unknown)
    for (column, each), value in zip(islice(kept, len(known) - len(nats), None), map(float, nats), strict=True):
        what = {"character": each} if found.config.data.symbols == "characters" else {"byte": ord(each)}
        yield {"line": number, "column": column} | what | {"nats": value, "bits": bits(value)}


def _table_row(row: dict[str, Any], columns: dict[str, str]) -> str:
    shown = {name: printable(row[name]) if name == "text" else row[name] for name in columns}
    if "character" in columns:
        shown["character"] = repr(row["character"])
    return " ".join(f"{shown[name]:{form}}" for name, form in columns.items())


def _left_out(skipped: int) -> str:
    return f"; {skipped:,} unknown left out" if skipped else ""


def sample(words: list[str]) -> None:
    """`charlstm sample`."""
    asked = parse(Sample, words)
    if asked.num < 1:
        raise InputError(f"--num is {asked.num}; it must be at least 1")
    if "" in asked.stop:
        raise InputError("--stop is ''; it must have at least one character")
    for one, other in (("prime", "prime_file"), ("stream", "json")):
        if getattr(asked, one) not in (None, False) and getattr(asked, other) not in (None, False):
            raise InputError(f"--{one} and --{other.replace('_', '-')} cannot go together; leave one of them out")
    process.prepare(tell=print_note)
    from charlstm.cli.summary import lost_prime, lost_stops
    from charlstm.data.lines import read_prime
    from charlstm.runs.loading import load_run

    found = load_run(asked.run, asked.checkpoint).with_weights(asked.weights)
    names = ("length", "temperature", "top_n", "seed")
    how: dict[str, Any] = {name: value for name in names if (value := getattr(asked, name)) is not None}
    try:
        seed = replace(found.config.sample, **how).seed
    except ValidationError as error:
        raise InputError(sentence(error, prefix="--").replace("top_n", "top-n")) from None
    if (last := seed + asked.num - 1) >= 2**32:
        raise InputError(f"--seed + --num - 1 is {last}; it must be below 2**32")
    prime = read_prime(asked.prime_file, found.config.data.symbols) if asked.prime_file is not None else asked.prime
    lost = lost_prime(found.config, found.vocabulary) if prime is None else []
    how |= {"skip_unknown": asked.skip_unknown, "stop": asked.stop}
    texts = found.samples(prime, asked.num, **how)  # which checks the prime, and draws nothing yet
    print_notes([*found.notes, *lost, *lost_stops(found.run, asked.stop)])
    if asked.json:
        for each in found.scored_samples(prime, asked.num, **how):
            write(to_json({"prime": each.prime, "text": each.text, "seed": each.seed} | each.score._asdict()) + "\n")
        return
    drawn: Iterable[Iterable[str]] = ([text] for text in texts)
    if asked.stream:
        drawn = (found.stream(prime, **dict(how, seed=seed + number)) for number in range(asked.num))
    for number, pieces in enumerate(drawn):
        if asked.num > 1:
            write(f"--- seed {seed + number} ---\n")
        for piece in chain(pieces, ["\n"]):
            write(piece)


def _known_ids(found: Any, path: str, skip_unknown: bool) -> tuple[Any, int]:
    """The ids of a text of one's own, and how many of its characters were left out."""
    from charlstm.data import corpora
    from charlstm.data.dataset import encode_pieces

    pieces = corpora.pieces(path, found.config.data.symbols, found.config.data.separator)
    if not skip_unknown:
        found.vocabulary.check_known(pieces)  # all of them at once; encoding stops at the first piece
    ids = encode_pieces(found.vocabulary, pieces, skip_unknown=True)
    if not len(ids):
        raise InputError(f"nothing of {path} is in the vocabulary; give a text in the model's characters")
    return ids, sum(map(len, pieces)) - len(ids)


def look(words: list[str]) -> None:
    """`charlstm look`."""
    asked = parse(Look, words)
    process.prepare(tell=print_note)
    from charlstm.data import corpora
    from charlstm.report.look import as_json
    from charlstm.report.look import look as look_into
    from charlstm.report.look_page import check_page, write_look
    from charlstm.runs.loading import load_run

    output = asked.output or (None if asked.json else asked.run / "look.html")
    found = load_run(asked.run, asked.checkpoint)
    print_notes(found.notes)
    if output:
        check_page(output)  # before the work
    if asked.corpus:
        found = found.with_text_at(corpora.resolve(asked.corpus))
    if asked.text is None:
        ids, source = found.ids("validation"), "the validation split"
    else:
        source = str(asked.text)
        ids, skipped = _known_ids(found, source, asked.skip_unknown)
        print_notes([f"{skipped:,} unknown characters of {source} are left out"] if skipped else [])
    reporter = Reporter()
    with reporter.bar(0, 1, counts_steps=False):
        seen = look_into(found, ids, source, reporter.advance)
    print_notes([f"n-grams are left out: {seen.why_not}"] if seen.why_not else [])
    if output:
        write_look(seen, output)
    write(f"{to_json(as_json(seen)) if asked.json else output}\n")


def export(words: list[str]) -> None:
    """`charlstm export`."""
    asked = parse(Export, words)
    process.prepare(tell=print_note)
    from charlstm.runs.export import export
    from charlstm.runs.loading import load_run

    found = load_run(asked.run, asked.checkpoint)
    print_notes(found.notes)
    write(f"{export(found, asked.output)}\n")
