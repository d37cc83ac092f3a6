"""What was measured of a row becomes its table and its JSON."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.contenders import BASELINE
from benchmarks.rounds import Measured
from benchmarks.rows import Row
from benchmarks.spreads import Spread, best_rates, by_round, fraction, over_starts, ratio
from benchmarks.table import NOTHING, megabytes, number, render, spread

_BUSY = 0.05  # cores; below it lie the ticks of the clock
_SLOW = 1.3  # times the median of a turn
_UNITS = {"products": ("GFLOP/s", "of products of large square matrices"), "weights": ("GB/s", "of streamed weights")}


def rate_table(row: Row, starts: Sequence[Sequence[Measured]], *, markdown: bool = False) -> str:
    """Of a row whose jobs took turns, at each of a few starts: a line for each contender, and the machine's rate below.

    A process counts by the median of its rounds, and a ratio compares runs of the same round. What is shown is the
    median over processes, with the least and the most in brackets. A column without a figure is left out.
    """
    by_job = list(zip(*starts, strict=True))
    baselines = next((each for each in by_job if each[0].job.contender == BASELINE), ())
    rates = [_rates(row, measured) for measured in starts]
    lines = []
    for each in by_job:
        job, told = each[0].job, [one for one in each if one.seconds]
        if job.kind == row.rate:
            continue
        times = over_starts(Spread.of(by_round(one.seconds)) for one in each)
        if times is None:
            lines.append([job.contender, *[NOTHING] * 6])
            continue
        pairs = zip(each, baselines, strict=False)
        against = over_starts(ratio(one.seconds, baseline.seconds) for one, baseline in pairs)
        reached = over_starts(fraction(one.seconds, row.needed, of) for one, of in zip(each, rates, strict=True) if of)
        lines.append(
            [
                job.contender,
                spread(times, 1e3),
                number(told[0].built["amount"] / times.median),
                spread(against),
                spread(reached, 100),
                megabytes(max((one.peak_bytes for one in told if one.peak_bytes), default=None)),
                number(median(one.built["build_seconds"] + one.built["first_seconds"] for one in told)),
            ]
        )
    titles = ["contender", "ms a run", "characters/s", f"× {BASELINE}", "% of the floor", "peak MB", "first run, s"]
    told = [at for at in range(len(titles)) if at == 0 or any(line[at] != NOTHING for line in lines)]
    text = render([titles[at] for at in told], [[line[at] for at in told] for line in lines], markdown=markdown)
    return "\n".join([row.title, "", text, "", *_notes(row, by_job, rates)]).rstrip()


def _rates(row: Row, measured: Sequence[Measured]) -> list[tuple[float, list[list[float]]]]:
    return [(each.built["amount"], each.seconds) for each in measured if each.job.kind == row.rate and each.seconds]


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
        lines.append([job.contender, spread(cold), spread(warm), spread(imports)])
    text = render(["contender", "cold, s", "warm cache, s", "imports, s"], lines, markdown=markdown)
    failed = [f"{job.contender}: {each['error']}" for job, each in zip(row.jobs, starts, strict=True) if each["error"]]
    return "\n".join([row.title, "", text, *failed])


_STARTS = ("cold", "warm")


def to_json(row: Row, starts: Sequence[Sequence[Measured]]) -> dict[str, Any]:
    """Everything that was measured of a row, raw, so that anyone can do the statistics again: see `summary`."""
    return {
        "task": row.task,
        "size": str(row.size),
        "settings": row.settings,
        "vocabulary": row.size.vocabulary,
        "floor": row.rate,
        "needed": row.needed,
        "starts": [[_measured_to_json(each) for each in measured] for measured in starts],
    }


def _measured_to_json(each: Measured) -> dict[str, Any]:
    return {
        "contender": each.job.contender,
        "kind": each.job.kind,
        "streams": each.job.streams,
        "length": each.job.length,
        **each.built,
        "seconds": each.seconds,
        "peak_bytes": each.peak_bytes,
        "idle_load": each.idle_load,
        "error": each.error,
    }


def _notes(row: Row, by_job: Sequence[Sequence[Measured]], rates: Sequence[Any]) -> list[str]:
    notes = []
    if row.rate and (found := over_starts(Spread.of(best_rates(each)) for each in rates if each)):
        unit, what = _UNITS[row.rate]
        notes.append(f"floor: {spread(found, 1e-9)} {unit} {what}")
    ways = [(each[0].job.contender, {one.built["way"] for one in each if one.built.get("way")}) for each in by_job]
    if said := [f"{label} by {' or '.join(sorted(names))}" for label, names in ways if names]:
        notes.append("fastest way: " + ", ".join(said))
    slow = [
        (each[0].job.contender, [t > _SLOW * median(runs) for one in each for runs in one.seconds for t in runs])
        for each in by_job
        if each[0].job.kind != row.rate
    ]
    said = [f"{label} {sum(found):,} of {len(found):,}" for label, found in slow if found]
    notes += [f"runs above {_SLOW} × the median of their turn: {', '.join(said)}"] if said else []
    for each in by_job:
        label, idle = each[0].job.contender, max((one.idle_load or 0 for one in each), default=0)
        notes += sorted({f"{label}: {one.error}" for one in each if one.error})
        notes += [f"{label} kept {idle:.2f} cores busy in the turns of others"] if idle > _BUSY else []
    return notes
