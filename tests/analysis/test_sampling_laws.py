"""Law 6 at length, and draws against the model's own probabilities, for random models and random settings.

Each law is held against at least CHARLSTM_LAW_CHARACTERS of text from each of CHARLSTM_LAW_MODELS models. What a model
predicts is told by Flax's own cells over the whole text at once, which the sampler never sees. NumPy draws the models,
and not Hypothesis: each takes seconds to compile.
"""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from reference import CELLS, small_model, wide_params
from scipy.stats import chisquare

from charlstm.analysis import sample as module
from charlstm.analysis.sample import CHUNK, TextSampler, block_keeps_bits, sample, samples, stream
from charlstm.config import SampleConfig, Symbols
from charlstm.core.network import Model
from charlstm.data.vocabulary import Vocabulary

pytestmark = pytest.mark.slow

CHARACTERS = int(os.environ.get("CHARLSTM_LAW_CHARACTERS", "10000"))
MODELS = int(os.environ.get("CHARLSTM_LAW_MODELS", "3"))
TEXTS = 20
"""A law about several texts holds for so many, which have CHARACTERS together."""
LENGTH = -(-CHARACTERS // TEXTS)
PRIME = 8
TIE = 1e-4
"""Logits that are nearer than this may change places between two orders of adding up."""

each_model = pytest.mark.parametrize("number", range(MODELS))


class Case(NamedTuple):
    """A model, and settings for it that ask for CHARACTERS."""

    model: Model
    params: Any
    vocabulary: Vocabulary
    symbols: Symbols
    prime: np.ndarray
    config: SampleConfig


@cache
def case(number: int) -> Case:
    """The model of a number: every cell in turn, and characters and bytes by turns; all else is drawn."""
    rng = np.random.default_rng([6, number])
    symbols: Symbols = "bytes" if number % 2 else "characters"
    code_points = rng.choice(
        256 if number % 2 else 0x110000, rng.integers(4, 257 if number % 2 else 120), replace=False
    )
    vocabulary = Vocabulary(tuple(map(chr, sorted(code_points.tolist()))))
    sizes = {"layers": int(rng.integers(1, 4)), "hidden": int(rng.integers(2, 33)), "vocabulary": len(vocabulary)}
    model = small_model(CELLS[number % 3], **sizes)
    config = SampleConfig(
        length=CHARACTERS,
        temperature=float(rng.uniform(0.5, 1.5)),
        top_n=int(rng.integers(2, len(vocabulary))) if number % 2 else 0,
        seed=int(rng.integers(2**31)),
    )
    prime = rng.integers(len(vocabulary), size=rng.integers(0, 300))
    return Case(model, wide_params(model, number, rng.uniform(1, 4)), vocabulary, symbols, prime, config)


@cache
def whole(number: int) -> np.ndarray:
    """A model's text of CHARACTERS."""
    model, params, _, _, prime, config = case(number)
    return sample(model, params, prime, config)


def digests() -> list[str]:
    """Of every model's text."""
    return [hashlib.sha256(whole(number).tobytes()).hexdigest() for number in range(MODELS)]


def test_another_process_draws_the_same(tmp_path: Path):
    """It compiles for itself, and hashes strings by another seed."""
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path), "PYTHONHASHSEED": "random"}
    code = "from test_sampling_laws import digests; print(*digests())"
    words, folder = [sys.executable, "-c", code], Path(__file__).parent
    child = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=True)
    assert child.stdout.split() == digests()
    assert all(len(whole(number)) == CHARACTERS for number in range(MODELS))


@each_model
def test_a_longer_text_begins_with_the_shorter(number: int):
    model, params, _, _, prime, config = case(number)
    for length in (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, *np.random.default_rng(number).integers(CHARACTERS, size=2)):
        shorter = sample(model, params, prime, replace(config, length=int(length)))
        np.testing.assert_array_equal(shorter, whole(number)[:length], strict=True)


@each_model
def test_a_stream_is_the_whole(number: int):
    """In ids and in what people read, where a chunk may end inside a character's bytes."""
    model, params, vocabulary, symbols, prime, config = case(number)
    np.testing.assert_array_equal(np.concatenate(list(stream(model, params, prime, config))), whole(number))
    written = vocabulary.decode(prime) if symbols == "characters" else "λόγος 𐀀 book"
    sampler, config = TextSampler(model, params, vocabulary, symbols), replace(config, prime=written)
    pieces = list(sampler.stream(config, skip_unknown=True))
    assert len(pieces) >= CHARACTERS // CHUNK
    assert ["".join(pieces)] == list(sampler.texts(config, 1, skip_unknown=True))


def many(number: int, prime: np.ndarray, **changes: Any) -> np.ndarray:
    """[TEXTS, LENGTH] ids, side by side where that keeps the bits."""
    model, params, _, _, _, config = case(number)
    return np.stack(list(samples(model, params, prime, replace(config, length=LENGTH, **changes), TEXTS)))


@each_model
def test_each_of_many_is_itself_alone(number: int):
    model, params, _, _, prime, config = case(number)
    together = many(number, prime)
    assert len({text.tobytes() for text in together}) > 1  # a cold model may draw some texts twice
    for index, text in enumerate(together):
        alone = replace(config, length=LENGTH, seed=config.seed + index)
        np.testing.assert_array_equal(text, sample(model, params, prime, alone))


UNUSED = "a block would change bits here, so texts are drawn one by one"


def test_texts_that_are_drawn_side_by_side_are_each_itself_alone():
    """A block keeps the bits where XLA optimises, which it does not in these tests' own process."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    words, folder = (
        [sys.executable, "-c", "import test_sampling_laws as laws; laws.check_side_by_side()"],
        Path(__file__),
    )
    child = subprocess.run(words, cwd=folder.parent, env=environment, capture_output=True, text=True, timeout=600)
    assert child.returncode == 0, child.stderr
    if UNUSED in child.stdout:
        pytest.skip(UNUSED)


def check_side_by_side() -> None:
    model = small_model("gru", hidden=64, vocabulary=64)
    if not block_keeps_bits(model, 0):
        print(UNUSED)
        return
    params, prime = wide_params(model, 0, 2.0), np.arange(PRIME)
    config = SampleConfig(length=LENGTH, temperature=1.0)
    together = list(samples(model, params, prime, config, TEXTS))
    for seed, text in enumerate(together):
        np.testing.assert_array_equal(text, sample(model, params, prime, replace(config, seed=seed)))


@cache
def flax(model: Model) -> Any:
    """The model through Flax's cells: ids [B, T] to logits [B, T, V]."""
    plain = replace(model, config=replace(model.config, recurrence="plain"))
    return jax.jit(lambda params, ids: plain.apply(params, ids, plain.zero_carry(len(ids)))[0])


def predictions(number: int, primes: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Logits [N, LENGTH, V] for each drawn character, from its prime [N, PRIME] and what was drawn before it."""
    ids = np.concatenate([primes, drawn], 1).astype(np.int32)
    return np.asarray(flax(case(number).model)(case(number).params, ids), np.float64)[:, PRIME - 1 : -1]


def of(values: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """[N, LENGTH, 1], of the drawn among values of all characters."""
    return np.take_along_axis(values, drawn[..., None], -1)


@each_model
def test_temperature_0_and_top_1_take_the_likeliest(number: int):
    model, params, _, _, _, config = case(number)
    rng = np.random.default_rng(number)
    # Such a text soon goes round in a circle, so many are begun.
    primes = rng.integers(model.vocabulary_size, size=(-(-CHARACTERS // CHUNK), PRIME))
    greedy = np.stack([sample(model, params, each, replace(config, length=CHUNK, temperature=0)) for each in primes])
    logits = predictions(number, primes, greedy)
    best, second = np.sort(logits)[..., :-3:-1].transpose(2, 0, 1)
    clear = best - second > TIE
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(greedy[clear], logits.argmax(-1)[clear])
    for prime, text in zip(primes, greedy, strict=True):
        anyhow = SampleConfig(length=CHUNK, top_n=1, temperature=rng.uniform(0.1, 9), seed=int(rng.integers(2**32)))
        np.testing.assert_array_equal(sample(model, params, prime, anyhow), text)


@each_model
def test_only_the_likeliest_are_drawn(number: int):
    """So hot that all of them are, the last of the k likeliest too."""
    rng, size = np.random.default_rng(number), case(number).model.vocabulary_size
    prime, top_n = rng.integers(size, size=PRIME), case(number).config.top_n or int(rng.integers(2, size))
    drawn = many(number, prime, temperature=50.0, top_n=top_n)
    logits = predictions(number, np.tile(prime, (TEXTS, 1)), drawn)
    likelier = (logits > of(logits, drawn) + TIE).sum(-1)
    assert likelier.max() == top_n - 1


def chance(number: int, primes: np.ndarray, drawn: np.ndarray) -> float:
    """How likely it is that draws which follow the model's probabilities are as far from them as these.

    A draw's place in its own distribution, the probabilities of all characters laid end to end, is uniform, and
    independent of every other's (Rosenblatt 1952). They are laid in order of likelihood, which shows a temperature that
    is wrong, and of ids, which shows a key that is used twice, by neighbours in time or by two texts. This is Pearson's
    chi-square for each of the five tables: the least chance, times five (Bonferroni).
    """
    logits, config = predictions(number, primes, drawn), case(number).config
    least = np.sort(logits)[..., -config.top_n, None] if config.top_n else -np.inf
    weights = np.where(logits >= least, np.exp((logits - logits.max(-1, keepdims=True)) / config.temperature), 0)
    shares = weights / weights.sum(-1, keepdims=True)
    mine = of(shares, drawn)
    within = np.random.default_rng(number).uniform(size=drawn.shape) * mine[..., 0]
    by_likelihood = np.where(shares > mine, shares, 0).sum(-1) + within
    by_id = (of(shares.cumsum(-1), drawn) - mine)[..., 0] + within
    tables = [np.histogram(places, 30, (0, 1))[0] for places in (by_likelihood, by_id)]
    even, odd = by_id[:, : LENGTH // 2 * 2], by_id[:, 1 : LENGTH - 1 + LENGTH % 2]
    pairs = [(even[:, ::2], even[:, 1::2]), (odd[:, ::2], odd[:, 1::2]), (by_id[::2], by_id[1::2])]
    tables += [np.histogram2d(left.ravel(), right.ravel(), 6, [(0, 1), (0, 1)])[0].ravel() for left, right in pairs]
    return min(1, len(tables) * min(chisquare(table).pvalue for table in tables))


@each_model
def test_frequencies_follow_the_probabilities(number: int):
    primes = prime_of(number)
    for seed in range(3):
        assert chance(number, primes, many(number, primes[0], seed=1000 * seed)) > 1e-3


def prime_of(number: int) -> np.ndarray:
    """[TEXTS, PRIME], all of them the same."""
    prime = np.random.default_rng(number).integers(case(number).model.vocabulary_size, size=PRIME)
    return np.tile(prime, (TEXTS, 1))


@pytest.mark.parametrize("seed", range(3))
def test_a_broken_sampler_does_not(monkeypatch: pytest.MonkeyPatch, seed: int):
    primes = prime_of(0)
    good = many(0, primes[0], seed=1000 * seed)
    assert chance(0, primes, np.repeat(good[::2], 2, 0)) < 1e-3, "each seed is used for two texts"
    hot = many(0, primes[0], seed=1000 * seed, temperature=1.15 * case(0).config.temperature)
    assert chance(0, primes, hot) < 1e-3, "the temperature is off by 15 %"
    noise = module._noise
    monkeypatch.setattr(module, "_noise", lambda count: lambda *args: noise(count)(*args)[np.arange(CHUNK) // 2 * 2])
    assert chance(0, primes, many(0, primes[0], seed=1000 * seed)) < 1e-3, "each key is used for two characters"
