"""What the parts found becomes aims that were met or not, and one page of Markdown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.card import laws
from benchmarks.card.parts import PARTS
from benchmarks.card.speed import SEEDS, SIZES
from benchmarks.contenders import BASELINE
from benchmarks.spreads import Spread, by_round, ratio
from benchmarks.table import NOTHING, number, render

Results = dict[str, Any]
"""What the command writes; ``results["parts"][name]["found"]`` are a part's findings."""
TRAININGS = tuple(f"train-{name}" for name in SIZES)
_BACKENDS = ("charlstm-fast", "charlstm-cudnn", "charlstm-plain")
_READ_OFF = 5.2  # ms, of cuDNN through PyTorch on an H100, read from the plots of FlashRNN (Pöppel et al. 2024)


@dataclass(frozen=True)
class Aim:
    """A figure and its bound."""

    what: str
    bound: float
    parts: tuple[str, ...]
    """Those that measure it; without one of them the aim is not judged."""
    figure: Callable[[Results], float | None]
    """None where they could not measure it."""
    least: bool = False
    """Whether the bound is the least that will do, instead of the most."""
    law: bool = False
    """Whether it holds on every device, so that a rehearsal judges it too."""

    def judge(self, results: Results) -> dict[str, Any]:
        """The figure, and whether the aim is met; None where nothing was measured, or in a rehearsal."""
        figure = self.figure(results)
        met = figure is not None and (figure >= self.bound if self.least else figure <= self.bound)
        judged = results["parts"].keys() >= set(self.parts) and (self.law or not results["rehearsal"])
        bound = f"at {'least' if self.least else 'most'} {_cell(self.bound)}"
        return {"aim": self.what, "wanted": bound, "found": figure, "met": met if judged else None}


def _found(results: Results, part: str) -> list[dict[str, Any]]:
    return results["parts"].get(part, {}).get("found", [])


def _gradient(products: str) -> Callable[[Results], float | None]:
    def largest(results: Results) -> float | None:
        off = [each["gradient off by"] for each in _found(results, "law4") if each["products"] == products]
        return max(off) if off and None not in off else None

    return largest


def _different(results: Results) -> float | None:
    same = [each["same bits"] for each in _found(results, "resume")]
    return same.count(False) if same and None not in same else None


def _seconds(results: Results, name: str) -> dict[str, list[list[float]]]:
    """Of a training step at one size by each contender that has a figure, by rounds."""
    starts = [each["starts"][0] for each in _found(results, f"train-{name}")]
    return {each["contender"]: each["seconds"] for start in starts for each in start if each["seconds"]}


def _best(seconds: dict[str, list[list[float]]]) -> str | None:
    """charlstm's fastest backend."""
    ours = {name: _median(seconds[name]) for name in _BACKENDS if name in seconds}
    return min(ours, key=ours.__getitem__) if ours else None


def _median(seconds: list[list[float]]) -> float:
    spread = Spread.of(by_round(seconds))
    assert spread is not None  # whoever has no figure is left out
    return spread.median


def _against_pytorch(results: Results) -> float | None:
    seconds = _seconds(results, "book")
    if not (best := _best(seconds)) or BASELINE not in seconds:
        return None
    found = ratio(seconds[best], seconds[BASELINE])
    return found and found.median


def _against_cudnn(results: Results) -> float | None:
    """The time of the loop over that of cuDNN, by JAX or PyTorch, at the size where it is worst."""
    found = []
    for name in SIZES:
        seconds = _seconds(results, name)
        theirs = [_median(seconds[each]) for each in ("charlstm-cudnn", BASELINE) if each in seconds]
        if "charlstm-fast" not in seconds or not theirs:
            return None
        found.append(_median(seconds["charlstm-fast"]) / min(theirs))
    return max(found)


def _layer(results: Results) -> float | None:
    return min((each["ms"] for each in _found(results, "layer") if each["ms"]), default=None)


def _seeds(results: Results) -> float | None:
    return next((each["times one"] for each in _found(results, "seeds")), None)


AIMS = (
    *(
        Aim(f"law 4, {products}: how far a gradient is off", bound, ("law4",), _gradient(products), law=True)
        for products, bound in laws.BOUNDS.items()
    ),
    Aim("law 5: continued runs with other bits", 0, ("resume",), _different, law=True),
    Aim("training at the book's size, × PyTorch", 1, ("train-book",), _against_pytorch, least=True),
    Aim("one layer forward and backward in reduced precision, ms", _READ_OFF, ("layer",), _layer),
    Aim("time of fast over that of cuDNN, training, worst of four sizes", 3, TRAININGS, _against_cudnn),
    Aim(f"time of {SEEDS} seeds over that of one", 2, ("seeds",), _seeds),
)


def judge(results: Results) -> list[dict[str, Any]]:
    """Each aim: what was wanted and found, and whether it is met."""
    return [aim.judge(results) for aim in AIMS]


def failures(told: dict[str, Any]) -> list[str]:
    """Why a part has not all of its figures, a line each."""
    rows = [each for found in told["found"] for start in found.get("starts", []) for each in start]
    named = [
        (row.get("backend") or row.get("by") or row.get("contender"), row.get("error")) for row in told["found"] + rows
    ]
    return [told["error"]] * bool(told["error"]) + [f"{name}: {error}" for name, error in named if error]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of the same keys in Markdown; a column in which all is None is left out."""
    titles = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    return render(titles, [[_cell(row[name]) for name in titles] for row in rows], markdown=True)


def render_page(results: Results) -> str:
    """The whole page."""
    device = next(iter(_found(results, "device")), {}).get("device", "a device that could not be asked")
    title = "Rehearsal for a card" if results["rehearsal"] else f"The first ten minutes on {device}"
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [f"# {title}", f"`{results['command']}`"]
    if results["rehearsal"]:
        lines.append("In small, on the CPU: times mean nothing here, and aims of speed are not judged.")
    lines += [f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}; {versions}."]
    lines += ["## Aims", table(results["aims"])]
    if results["parts"].keys() & set(TRAININGS):
        lines += ["## What auto should mean", render_auto(results)]
    failed = [f"- {name}: {why}" for name, told in results["parts"].items() for why in failures(told)]
    lines += ["## What failed", "\n".join(failed)] if failed else []
    for name, told in results["parts"].items():
        lines += [f"## {PARTS[name].title}", *render_part(told)]
    return "\n\n".join(lines) + "\n"


def render_part(told: dict[str, Any]) -> list[str]:
    """The paragraphs of a part."""
    rows = [each for each in told["found"] if "markdown" not in each]
    tables = [each["markdown"] for each in told["found"] if "markdown" in each] + ([table(rows)] if rows else [])
    failed = [f"**Failed:** {told['error']}"] if told["error"] else []
    return [*tables, *failed, f"Took {told['seconds']:.0f} s."]


def render_auto(results: Results) -> str:
    """The time of a training step by each backend, and the fastest of them, at four sizes."""
    lines = []
    for name in SIZES:
        seconds = _seconds(results, name)
        best = _best(seconds)
        size = next((each["size"] for each in _found(results, f"train-{name}")), NOTHING)
        times = [number(1e3 * _median(seconds[each])) if each in seconds else NOTHING for each in _BACKENDS]
        lines.append([f"{name}, {size}", *times, best.removeprefix("charlstm-") if best else NOTHING])
    titles = ["training, ms a step", *(each.removeprefix("charlstm-") for each in _BACKENDS), "the fastest"]
    return render(titles, lines, markdown=True)


def _cell(value: Any) -> str:
    match value:
        case None:
            return NOTHING
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float() if 0 < abs(value) < 1e-3:
            return f"{value:.1e}"
        case float():
            return number(value)
    return str(value)
