"""Bytes that a reader of files neither takes nor refuses, looked for by the branches that they reach.

    pip install atheris && python tests/guided.py READER -atheris_runs=10000      (READER as in `_READERS`)

It changes what led to a new branch of the code, where `tests/test_fuzz_*.py` draws from what is nearly right: so it
needs no idea of what may go wrong, and many more examples. Atheris has no wheels for every Python, so CI is without it.
"""

import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

atheris: Any = import_module("atheris")

with atheris.instrument_imports(include=["charlstm"]):
    from charlstm.compare import results
    from charlstm.data import corpora
    from charlstm.data.vocabulary import Vocabulary
    from charlstm.report import curves
    from charlstm.runs import folder as runs
    from charlstm.runs import metrics
    from charlstm.support.errors import InputError


def _text(path: Path) -> None:
    text = corpora.load(str(path), "characters")
    vocabulary = Vocabulary.of(text)
    assert vocabulary.decode(vocabulary.encode(text)) == text


def _metrics(path: Path) -> None:
    records = metrics.read(path.parent)
    metrics.time_taken(records, 64)
    curves.training([records])
    with metrics.Metrics(path, 1):
        pass


_READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "text": ("text", _text),
    "vocabulary": ("vocabulary.json", Vocabulary.load),
    "config": ("config.json", lambda path: runs.Run.open(path.parent)),
    "corpus": ("corpus.json", lambda path: runs.read_as(runs.Fingerprint, path)),
    "metrics": ("metrics.jsonl", _metrics),
    "results": ("results.json", lambda path: results.read(path.parent)),
}
_SEEDS = {
    "config": b'{"seed": 0, "data": {"corpus": "a", "batch_size": 1}, "model": {"cell": "gru"}}',
    "corpus": b'{"corpus": "a", "sha256": "0", "characters": 1}',
    "metrics": b'{"step": 1, "loss": 1.5, "chars_per_second": 9}\n{"step": 1, "split": "validation", "loss": 1}\n',
    "results": b'{"name": "a", "corpus": "a", "symbols": "bytes", "vocabulary": 1, "confidence": 0.9, "models": []}',
    "vocabulary": b'["a", "b"]',
    "text": "a\r\n\ufeffé\r".encode(),
}
"""Where the search begins."""


def main() -> None:
    """Runs until a reader fails, or as long as libFuzzer's own options say."""
    reader, *options = sys.argv[1:]
    name, read = _READERS[reader]
    with tempfile.TemporaryDirectory() as folder:
        path, seeds = Path(folder, "run", name), Path(folder, "seeds")
        path.parent.mkdir()
        seeds.mkdir()
        (seeds / "valid").write_bytes(_SEEDS[reader])
        (path.parent / runs.VOCABULARY).write_bytes(_SEEDS["vocabulary"])
        (path.parent / runs.CORPUS).write_bytes(_SEEDS["corpus"])

        def check(content: bytes) -> None:
            path.write_bytes(content)
            try:
                read(path)
            except InputError as error:
                assert "\n" not in str(error)

        atheris.Setup([sys.argv[0], *options, str(seeds)], check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
