"""What was measured of a row becomes its table and its JSON."""

from collections.abc import Sequence
from typing import Any

from benchmarks.contenders import BASELINE
from benchmarks.rounds import Measured
from benchmarks.rows import Row
from benchmarks.spreads import Spread, best_rates, by_round, fraction, ratio
from benchmarks.table import NOTHING, megabytes, number, render, spread

_BUSY = 0.05  # cores; below it lie the ticks of the clock
_UNITS = {"products": ("GFLOP/s", "of products of large square matrices"), "weights": ("GB/s", "of streamed weights")}


def rate_table(row: Row, measured: Sequence[Measured], *, markdown: bool = False) -> str:
    """Of a row whose jobs took turns: a line for each contender, and the machine's own rate below.

    In brackets stand the least and the most of the rounds' medians. Ratios compare runs of the same round.
    """
    baseline = next((each for each in measured if each.job.contender == BASELINE), None)
    floors = [each for each in measured if each.job.kind == row.rate and each.seconds]
    rates = [(each.built["amount"], each.seconds) for each in floors]
    lines = []
    for each in measured:
        if each.job.kind == row.rate:
            continue
        times = Spread.of(by_round(each.seconds))
        if times is None:
            lines.append([each.job.label, *[NOTHING] * 6])
            continue
        against = ratio(each.seconds, baseline.seconds) if baseline else None
        reached = fraction(each.seconds, row.needed, rates) if rates else None
        lines.append(
            [
                each.job.label,
                spread(times, 1e3),
                number(each.built["amount"] / times.median),
                spread(against),
                spread(reached, 100),
                megabytes(each.peak_bytes),
                number(each.built["build_seconds"] + each.built["first_seconds"]),
            ]
        )
    titles = ["contender", "ms a run", "characters/s", f"× {BASELINE}", "% of the floor", "peak MB", "first run, s"]
    text = render(titles, lines, markdown=markdown)
    return "\n".join([row.title, "", text, *_notes(row, measured, rates)])


def start_table(row: Row, starts: Sequence[dict[str, Any]], *, markdown: bool = False) -> str:
    """Of `compile`: seconds from imported libraries to the end of the first step, from an empty cache and from a full.

    Args:
        row: what was started.
        starts: of each job in turn, as `startup.measure` gives them.
    """
    lines = []
    for job, each in zip(row.jobs, starts, strict=True):
        cold, warm = (Spread.of([one["build_seconds"] + one["first_seconds"] for one in each[at]]) for at in _STARTS)
        imports = Spread.of([one["import_seconds"] for at in _STARTS for one in each[at]])
        lines.append([job.label, spread(cold), spread(warm), spread(imports)])
    text = render(["contender", "cold, s", "warm cache, s", "imports, s"], lines, markdown=markdown)
    failed = [f"{job.label}: {each['error']}" for job, each in zip(row.jobs, starts, strict=True) if each["error"]]
    return "\n".join([row.title, "", text, *failed])


_STARTS = ("cold", "warm")


def to_json(row: Row, measured: Sequence[Measured]) -> dict[str, Any]:
    """Everything that was measured of a row, raw, so that anyone can do the statistics again."""
    return {
        "task": row.task,
        "size": str(row.size),
        "vocabulary": row.size.vocabulary,
        "floor": row.rate,
        "needed": row.needed,
        "measured": [
            {
                "label": each.job.label,
                "contender": each.job.contender,
                "kind": each.job.kind,
                "seeds": each.job.seeds,
                "streams": each.job.streams,
                "length": each.job.length,
                **each.built,
                "seconds": each.seconds,
                "peak_bytes": each.peak_bytes,
                "idle_load": each.idle_load,
                "error": each.error,
            }
            for each in measured
        ],
    }


def _notes(row: Row, measured: Sequence[Measured], rates: Sequence[tuple[float, Any]]) -> list[str]:
    notes = []
    if rates and row.rate:
        unit, what = _UNITS[row.rate]
        notes.append(f"floor: {spread(Spread.of(best_rates(rates)), 1e-9)} {unit} {what}")
    ways = [f"{each.job.label} by {each.built['way']}" for each in measured if each.built.get("way")]
    if ways:
        notes.append("fastest way: " + ", ".join(ways))
    notes += [f"{each.job.label}: {each.error}" for each in measured if each.error]
    busy = [each for each in measured if each.idle_load is not None and each.idle_load > _BUSY]
    notes += [f"{each.job.label} kept {each.idle_load:.2f} cores busy in the turns of others" for each in busy]
    return notes
