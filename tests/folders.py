"""Run folders and a comparison's, made up in a moment: what a page and plots read, without a training."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from charlstm.config import DataConfig, Experiment, ModelConfig, SampleConfig, TrainConfig
from charlstm.data.vocabulary import Vocabulary
from charlstm.runs.folder import Fingerprint, Run
from charlstm.runs.metrics import Metrics

CELLS = ("rnn", "gru", "lstm")
STEPS = 600


def make_run(
    folder: Path, config: Experiment, *, steps: int, vocabulary: str = "abcdefgh", last: float = 1.2, sample: str = ""
) -> Path:
    """A run that trained for some steps towards a loss, with a sample of the last where one is given."""
    noise = np.random.default_rng(config.seed)
    run = Run.create(folder, config, Vocabulary.of(vocabulary), Fingerprint(config.data.corpus, "0" * 64, 1000))
    with Metrics(run.folder / "metrics.jsonl", 0) as metrics:
        for step in range(1, steps + 1):
            loss = last + 2.5 * math.exp(-step / 80) + 0.05 * noise.standard_normal()
            metrics.append({"step": step, "epoch": step / 100, "loss": loss, "chars_per_second": 1000.0 + step})
            if step % 100 == 0:
                metrics.append({"step": step, "split": "validation", "loss": loss + 0.05})
    if sample:
        run.write_sample(steps, sample)
    return folder


def config(*, cell: str = "lstm", layers: int = 1, size: int = 64, seed: int = 0, **data: Any) -> Experiment:
    """A small config of one model."""
    return Experiment(
        seed=seed,
        data=DataConfig(corpus=data.pop("corpus", "made_up"), batch_size=4, seq_length=16),
        model=replace(ModelConfig(hidden_size=size, num_layers=layers), cell=cell),
        train=TrainConfig(steps=data.pop("steps", STEPS)),
        sample=SampleConfig(prime=data.pop("prime", "ab"), length=50),
    )


def make_comparison(
    folder: Path,
    *,
    depths: tuple[int, ...] = (1, 2, 3),
    sizes: tuple[int, ...] = (64,),
    seeds: int = 3,
    sample: str = "a made-up text",
) -> dict[str, Any]:
    """A comparison of all cells at some depths, the last model of which has a seed that diverged, one short of all."""
    models = []
    for depth in depths:
        for (rank, cell), size in itertools.product(enumerate(CELLS), sizes):
            name, loss = f"{cell}-{depth}x{size}", 1.54 - 0.1 * rank - 0.03 * depth - 0.04 * size / 64
            for seed in range(seeds):
                asked = config(cell=cell, layers=depth, size=size, seed=seed)
                make_run(folder / name / f"seed-{seed}", asked, steps=STEPS, last=loss + 0.01 * seed, sample=sample)
            models.append(_model(name, cell, depth, size, loss, seeds))
    models[-1]["seeds"][-1] |= {"diverged_after": 40, "test": None, "validation": None}
    models[-1]["seeds"].pop(0)
    models[-1] |= {"test": None, "difference": None, "reach": None, "recall": None}
    models[-1] |= {"calibration": None, "saturated": None, "found_units": None}
    found = {
        "name": "depth",
        "corpus": "made_up",
        "symbols": "characters",
        "vocabulary": 8,
        "confidence": 0.95,
        "models": models,
        "ngram": None,
    }
    (folder / "results.json").write_text(json.dumps(found))
    (folder / "grid.json").write_text(json.dumps({"seeds": seeds}))
    return found


def _model(name: str, cell: str, depth: int, size: int, loss: float, seeds: int) -> dict[str, Any]:
    def interval(mean: float, half: float) -> dict[str, Any]:
        return {"mean": mean, "low": mean - half, "high": mean + half, "n": seeds}

    lag, distances = np.arange(200), [1, 2, 4, 8, 16, 32, 64]
    memory = {"rnn": 3, "gru": 12, "lstm": 20}[cell]
    fall = [list(np.exp(-lag / (memory + layer))) for layer in range(depth)]
    return {
        "name": name,
        "cell": cell,
        "num_layers": depth,
        "hidden_size": size,
        "size": size,
        "parameters": 20_000 * depth,
        "learning_rate": 0.008,
        "reaches_beyond": False,
        "operations": 1.9e10 * size * depth,
        "seconds": 301.2 * depth,
        "chars_per_second": 310_000.0 / depth,
        "validation": interval(loss, 0.01),
        "test": interval(loss + 0.04, 0.012),
        "difference": None if cell == "rnn" else interval(loss - 1.5, 0.01),
        "baseline": None if cell == "rnn" else f"rnn-{depth}x{size}",
        "reach": interval(memory * 4.6, 1.5),
        "gradient": fall,
        "fresh_gradient": [list(np.exp(-lag / 4.0))] * depth,
        "recall": {
            "distances": distances,
            "accuracy": [0.125 + 0.87 * math.exp(-d / memory) for d in distances],
            "chance": 0.125,
        },
        "calibration": interval(0.02 * depth, 0.01),
        "saturated": interval(0.3, 0.05),
        "found_units": interval(2.0 * depth, 0.5),
        "published": 1.449 if name == "lstm-2x64" else None,
        "seeds": [
            {
                "seed": seed,
                "run": f"{name}/seed-{seed}",
                "best_step": 500,
                "validation": loss + 0.01 * seed,
                "test": loss + 0.05,
                "diverged_after": None,
                "seconds": 60.0,
                "chars_per_second": 50_000.0,
            }
            for seed in range(seeds)
        ],
    }
