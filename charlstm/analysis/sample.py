"""Text from parameters, a prime and a seed, by one compiled loop.

It runs in chunks of a fixed size: one compilation and constant memory suffice for any length. The noise of the n-th
character follows from the seed and n alone, so a text depends on neither its length nor those drawn beside it.
"""

import codecs
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import chain, tee
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from charlstm.analysis.reader import compiled, read_all, starts, windows
from charlstm.analysis.settings import under_settings
from charlstm.config import SampleConfig, Symbols
from charlstm.core.fast import native, native_draw
from charlstm.core.network import Carry, Model, Params
from charlstm.data.corpora import to_readable, to_symbols
from charlstm.data.vocabulary import Vocabulary

CHUNK = 64  # characters that a call draws, and by which a stream grows
WINDOW = 256  # characters of the prime that a call reads
BLOCK = 64  # streams that run side by side, where that changes no bit of them
_WORTH_A_BLOCK = 16  # fewer streams than this are faster one after the other
_HOTTEST = 2.0**126  # the largest float32 whose reciprocal XLA does not flush to 0
Stop = str | Sequence[str] | None


def stream(
    model: Model, params: Params, prime: np.ndarray, config: SampleConfig, newline: int | None = None
) -> Iterator[np.ndarray]:
    """Draws int32 ids after a prime, [P] ids, and yields up to CHUNK at a time; the prime of `config` is not used.

    Where documents end with the id `newline`, the prime begins one: it is read after a newline.
    """
    return next(streams(model, params, prime, config, 1, newline))


@under_settings
def streams(
    model: Model, params: Params, prime: np.ndarray, config: SampleConfig, num: int, newline: int | None = None
) -> Iterator[Iterator[np.ndarray]]:
    """`stream` for each of the `num` seeds from `config.seed` on, to the bit; many of them run side by side.

    What is read of one is drawn for those beside it too, and kept until they are read.
    """
    replace(config, seed=config.seed + num - 1)  # raises ValueError if the last seed is too large
    prepared, seeds = _prepared(model, params, prime, newline), range(config.seed, config.seed + num)
    block = BLOCK if num >= _WORTH_A_BLOCK and block_keeps_bits(model, config.top_n) else 1
    for at in range(0, num, block):
        part = list(seeds[at : at + block])
        filled = part + part[:1] * (block - len(part))
        for row, chunks in enumerate(tee(_draw(model, *prepared, config, filled, newline), len(part))):
            yield map(itemgetter((slice(None), row)), chunks)


def sample(
    model: Model, params: Params, prime: np.ndarray, config: SampleConfig, newline: int | None = None
) -> np.ndarray:
    """All of `stream` at once: [config.length] ids."""
    return np.concatenate([np.zeros(0, np.int32), *stream(model, params, prime, config, newline)])


def samples(model: Model, params: Params, prime: np.ndarray, config: SampleConfig, num: int) -> Iterator[np.ndarray]:
    """All of each of `streams` at once."""
    for drawn in streams(model, params, prime, config, num):
        yield np.concatenate([np.zeros(0, np.int32), *drawn])


@dataclass(frozen=True)
class TextSampler:
    """Draws text from a model of a vocabulary's symbols: the prime of a `SampleConfig`, and what follows it.

    A text ends where the first of the `stop` strings is complete in what is drawn, or after `config.length` symbols.
    Where documents end with the id `newline`, a text is one of them: it is read after a newline, and ends before the
    first that is drawn. Raises ValueError at once if a stop is empty, or if the vocabulary lacks characters of the
    prime that are not skipped.
    """

    model: Model
    params: Params
    vocabulary: Vocabulary
    symbols: Symbols
    newline: int | None = None

    def stream(self, config: SampleConfig, *, skip_unknown: bool = False, stop: Stop = None) -> Iterator[str]:
        """One text in pieces, the prime first; bytes that are not UTF-8 become U+FFFD."""
        prime, drawn = self.draw(config, 1, skip_unknown=skip_unknown, stop=stop)
        pieces = chain([prime], chain.from_iterable(drawn))
        return _from_bytes(pieces) if self.symbols == "bytes" else pieces

    def texts(self, config: SampleConfig, num: int, *, skip_unknown: bool = False, stop: Stop = None) -> Iterator[str]:
        """All of `stream` for each of the `num` seeds from `config.seed` on."""
        prime, drawn = self.draw(config, num, skip_unknown=skip_unknown, stop=stop)
        return (to_readable(prime + "".join(pieces), self.symbols) for pieces in drawn)

    def draw(
        self, config: SampleConfig, num: int, *, skip_unknown: bool = False, stop: Stop = None
    ) -> tuple[str, Iterator[Iterator[str]]]:
        """The prime, and the pieces of what follows it for each of the seeds, in the model's symbols."""
        stops = [to_symbols(each, self.symbols) for each in ([stop] if isinstance(stop, str) else stop or ())]
        if "" in stops:
            raise ValueError("stop is ''; it must have at least one character")
        prime = self.vocabulary.encode(to_symbols(config.prime, self.symbols), skip_unknown=skip_unknown)
        drawn = streams(self.model, self.params, prime, config, num, self.newline)
        whole = drawn if self.newline is None else map(partial(_before, self.newline), drawn)
        return self.vocabulary.decode(prime), (_until(stops, map(self.vocabulary.decode, each)) for each in whole)


def _from_bytes(pieces: Iterable[str]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character's bytes may lie in two pieces
    for piece in pieces:
        yield decoder.decode(piece.encode("latin-1"))
    yield decoder.decode(b"", final=True)


def _before(newline: int, pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Pieces of ids up to the first newline."""
    for piece in pieces:
        ends = np.flatnonzero(piece == newline)
        yield piece[: ends[0]] if len(ends) else piece
        if len(ends):
            return


def _until(stops: Sequence[str], pieces: Iterable[str]) -> Iterator[str]:
    """Pieces of a text up to where the first of the stops is complete, which may lie in several of them."""
    last, longest = "", max(map(len, stops), default=1)
    for piece in pieces:
        seen = last + piece
        if ends := [at + len(stop) for stop in stops if (at := seen.find(stop)) >= 0]:
            yield piece[: min(ends) - len(last)]
            return
        yield piece
        last = seen[max(len(seen) - longest + 1, 0) :]


def choose(logits: Array, noise: Array, temperature: Array) -> Array:
    """Draws an id, [] int32, from softmax(logits [V] / temperature) by the Gumbel-max trick (Gumbel 1954).

    Only the K likeliest ids can be drawn, with noise [K]. Temperature 0 takes the likeliest, the smallest of several.
    """
    size, count = len(logits), len(noise)
    likeliest, ids = lax.top_k(logits, count) if count < size else (logits, jnp.arange(size))
    # Taking the maximum off first keeps a tiny temperature from turning every logit into infinity.
    scaled = (likeliest - likeliest.max()) / jnp.where(temperature > 0, temperature, 1)
    return ids[jnp.argmax(scaled + jnp.where(temperature > 0, noise, 0))].astype(jnp.int32)


@lru_cache(maxsize=8)
def block_keeps_bits(model: Model, top_n: int) -> bool:
    """Whether BLOCK streams side by side equal each alone in every bit, as a product may sum in another order.

    That order depends on shapes and on the machine, never on numbers: a chunk of random ones stands for all.
    """
    rng = np.random.default_rng(0)
    forms = jax.eval_shape(lambda key: _for_sampling(model)(model.init(key)), jax.random.key(0))
    fused = jax.tree.map(lambda form: rng.normal(0, 0.2, form.shape).astype(form.dtype), forms)
    count = _candidates(model, top_n)
    carry = jax.tree.map(lambda part: rng.uniform(-1, 1, part.shape).astype(part.dtype), model.zero_carry(BLOCK))
    noise = rng.gumbel(size=(CHUNK, BLOCK, count)).astype(np.float32)
    rest = np.zeros(CHUNK, np.int32), np.int32(0), jnp.float32(1), None
    keys, position = [jax.random.key(seed) for seed in range(BLOCK)], np.int32(1)
    alone = np.concatenate([_noise(count)(jnp.stack([key]), position) for key in keys], 1)
    if not np.array_equal(alone, _noise(count)(jnp.stack(keys), position)):
        return False
    # A drawn symbol hides its logits' bits. The core has a head of its own.
    heads = [] if "packed" in fused else [jax.jit(lambda fused, carry: model.head(fused, model.top(carry)))]

    def read(carry: Carry, noise: np.ndarray) -> list[np.ndarray]:
        symbols, after = jax.device_get(_advancer(model)(fused, carry, noise, *rest))
        return [symbols.T, *(np.asarray(head(fused, carry)) for head in heads), *jax.tree.leaves(after)]

    together = read(carry, noise)
    for row in (0, BLOCK // 2, BLOCK - 1):
        one = slice(row, row + 1)
        alone = read(jax.tree.map(lambda part, one=one: part[one], carry), noise[:, one])
        if not all(np.array_equal(mine, all_rows[one]) for mine, all_rows in zip(alone, together, strict=True)):
            return False
    return True


def _prepared(
    model: Model, params: Params, prime: np.ndarray, newline: int | None = None
) -> tuple[Params, Carry, np.ndarray]:
    """Fused parameters, the carry after all whole windows of a prime, and the ids [below WINDOW] left to read."""
    fused, carry = _for_sampling(model)(params), model.zero_carry(1)
    prime = prime if newline is None else np.concatenate([[newline], prime])
    end = len(prime) // WINDOW * WINDOW
    carry = read_all(partial(_reader(model), fused, newline=newline), windows(prime[None, :end], WINDOW), carry)
    return fused, carry, prime[end:].astype(np.int32)


@under_settings
def _draw(
    model: Model,
    fused: Params,
    carry: Carry,
    rest: np.ndarray,
    config: SampleConfig,
    seeds: Sequence[int],
    newline: int | None = None,
) -> Iterator[np.ndarray]:
    """[up to CHUNK, len(seeds)] ids at a time."""
    advance, noise = _advancer(model), _noise(_candidates(model, config.top_n))
    carry = jax.tree.map(lambda part: jnp.repeat(part, len(seeds), 0), carry)
    forced = np.zeros(-(-max(len(rest), 1) // CHUNK) * CHUNK, np.int32)
    forced[: len(rest)] = rest
    keys, temperature = jnp.stack(list(map(jax.random.key, seeds))), jnp.float32(min(config.temperature, _HOTTEST))
    for at in range(0, total := len(rest) + config.length, CHUNK):
        part = forced[at : at + CHUNK] if at < len(forced) else forced[:CHUNK]
        position = np.int32(at - len(rest))
        count = np.int32(min(CHUNK, total - at))
        drawn, carry = advance(fused, carry, noise(keys, position), part, position, temperature, newline, count)
        new = np.asarray(drawn)[max(len(rest) - at, 0) : total - at]
        if len(new):
            yield new


def _candidates(model: Model, top_n: int) -> int:
    return top_n if 0 < top_n < model.vocabulary_size else model.vocabulary_size


@compiled
def _for_sampling(model: Model, params: Params) -> Params:
    """Fused, with what a native core draws from, or with a head padded to whole vectors for the loop in JAX.

    Columns left over would be summed in another order.
    """
    fused, missing = model.fuse(params), -model.vocabulary_size % 64
    if model.backend == "native" and isinstance(fused["stack"][0], native.PackedLayer):
        layers = [each.layer for each in fused["stack"]]
        weights = model.weights if model.rounding is None else "float32"  # int8 would skip the rounding to bfloat16
        packed = native_draw.pack_stack(model.cell, layers, params["head"], model.rounding, weights)
        return fused | {"packed": packed}
    head = {"kernel": ((0, 0), (0, missing)), "bias": ((0, missing),)}
    return fused | {"head": {name: jnp.pad(fused["head"][name], widths) for name, widths in head.items()}}


@compiled
def _reader(model: Model, fused: Params, ids: Array, carry: Carry, newline: Any = None) -> tuple[None, Carry]:
    return None, model.read(fused, ids, carry, resets=starts(ids, newline))[1]


@compiled
def _noise(count: int, keys: Array, position: Any) -> Array:
    """[CHUNK, B, count] Gumbel noise from a position on: each row is a function of its key and position alone."""

    def one(position: Array, key: Array) -> Array:
        return jax.random.gumbel(jax.random.fold_in(key, position), (count,), mode="low")

    positions = jnp.maximum(position + jnp.arange(CHUNK), 0)
    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(positions, keys)


@compiled
def _advancer(
    model: Model,
    fused: Params,
    carry: Carry,
    noise: Any,
    forced: Any,
    position: Any,
    temperature: Array,
    newline: Any = None,
    count: Any = CHUNK,
) -> tuple[Array, Carry]:
    """[CHUNK, B] symbols from `position` on, of which `count` are asked for; below 0 lies the prime."""
    if "packed" in fused:
        starts_at = jnp.int32(native_draw.NO_SYMBOL if newline is None else newline)
        given = native_draw.Given(noise, forced, position, temperature, starts_at, jnp.int32(count))
        return native_draw.draw(model.cell, fused["packed"], model.vocabulary_size, carry, given, model.rounding)

    def one(carry: Carry, at: tuple[Array, Array, Array]) -> tuple[Carry, Array]:
        position, given, noise = at
        logits = model.head(fused, model.top(carry))[:, : model.vocabulary_size]
        drawn = jax.vmap(choose, (0, 0, None))(logits, noise, temperature)
        symbols = jnp.where(position < 0, given, drawn)
        ids = symbols[:, None]
        return model.read(fused, ids, carry, resets=starts(ids, newline))[1], symbols

    carry, symbols = lax.scan(one, carry, (position + jnp.arange(CHUNK), forced, noise))
    return symbols, carry
