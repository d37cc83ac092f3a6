"""Parameters, a prime and a seed become text, in one compiled loop.

The loop draws a symbol from the state, and reads it. While the prime lasts, the prime's symbol is read in place of the
drawn one; so the same program serves the prime's end, the first character and the last. It runs in chunks of fixed
size: any length needs one compilation and constant memory, and a stream is the whole, cut.

The n-th character's noise comes from the seed and n alone. So a text depends on checkpoint, settings and seed, and on
nothing else: not on its length, not on how many are drawn beside it. Streams run side by side only where that has been
seen to change no bit of them: a matrix product may add up in another order for more rows.
"""

import codecs
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import chain, islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from charlstm.analysis.reader import read_all, windows
from charlstm.config import SampleConfig, Symbols
from charlstm.core.network import Carry, Model, Params
from charlstm.data.corpora import to_readable, to_symbols
from charlstm.data.vocabulary import Vocabulary

CHUNK = 64
"""Characters a call draws; a stream grows by so many at a time."""
WINDOW = 256
"""Characters of the prime that are read at once."""
BLOCK = 64
"""Streams that run side by side, where that changes no bit of them."""
_WORTH_A_BLOCK = 16  # fewer streams than this are faster one after the other
_HOTTEST = float(np.finfo(np.float32).max)


def stream(model: Model, params: Params, prime: np.ndarray, config: SampleConfig) -> Iterator[np.ndarray]:
    """Draw `config.length` symbols after a prime, and give them out as they come.

    Args:
        model, params: what predicts.
        prime: [P] ids that are read first; [0] begins from the zero state.
        config: length, temperature, top_n and seed; its prime is ignored, as only a vocabulary can encode it.

    Yields:
        [up to CHUNK] int32 ids, `config.length` in all.
    """
    for drawn in _draw(model, _begin(model, params, prime), config, [config.seed]):
        yield drawn[:, 0]


def sample(model: Model, params: Params, prime: np.ndarray, config: SampleConfig) -> np.ndarray:
    """The whole of `stream` at once: [config.length] ids."""
    return np.concatenate([np.zeros(0, np.int32), *stream(model, params, prime, config)])


def samples(model: Model, params: Params, prime: np.ndarray, config: SampleConfig, num: int) -> Iterator[np.ndarray]:
    """`sample` for each of the `num` seeds from `config.seed` on, to the bit; many streams run side by side.

    Yields:
        [config.length] int32 ids, a seed's at a time.

    Raises:
        ValueError: the last seed is too large.
    """
    replace(config, seed=config.seed + num - 1)
    begun, seeds = _begin(model, params, prime), range(config.seed, config.seed + num)
    block = BLOCK if num >= _WORTH_A_BLOCK and block_keeps_bits(model, config.top_n) else 1
    for at in range(0, num, block):
        part = list(seeds[at : at + block])
        filled = part + part[:1] * (block - len(part))
        drawn = np.concatenate([np.zeros((0, block), np.int32), *_draw(model, begun, config, filled)])
        yield from drawn.T[: len(part)]


def text_stream(
    model: Model,
    params: Params,
    vocabulary: Vocabulary,
    symbols: Symbols,
    config: SampleConfig,
    *,
    skip_unknown: bool,
    stop: str | None = None,
) -> Iterator[str]:
    """`stream` in characters that people read: the prime, and then what is drawn after it.

    Args:
        model, params: what predicts.
        vocabulary, symbols: what ids stand for; bytes are decoded as UTF-8, with U+FFFD where they are not.
        config: its prime is what is read first.
        skip_unknown: leaves out characters of the prime that the vocabulary lacks.
        stop: ends the text with the first occurrence of this in what is drawn; None draws all of `config.length`.

    Raises:
        ValueError: the prime has such a character and they are not skipped; at once, before anything is given out.
    """
    prime = vocabulary.encode(to_symbols(config.prime, symbols), skip_unknown=skip_unknown)
    pieces = map(vocabulary.decode, chain([prime], stream(model, params, prime, config)))
    if symbols == "bytes":
        pieces = _from_bytes(pieces)
    return chain(islice(pieces, 1), pieces if stop is None else _until(stop, pieces))


def texts(
    model: Model,
    params: Params,
    vocabulary: Vocabulary,
    symbols: Symbols,
    config: SampleConfig,
    num: int,
    *,
    skip_unknown: bool,
    stop: str | None = None,
) -> Iterator[str]:
    """The whole of `text_stream` for each of the `num` seeds from `config.seed` on."""
    if stop is not None:  # one by one, as each may end early
        for seed in range(config.seed, config.seed + num):
            how = replace(config, seed=seed)
            pieces = text_stream(model, params, vocabulary, symbols, how, skip_unknown=skip_unknown, stop=stop)
            yield "".join(pieces)
        return
    prime = vocabulary.encode(to_symbols(config.prime, symbols), skip_unknown=skip_unknown)
    for drawn in samples(model, params, prime, config, num):
        yield to_readable(vocabulary.decode(np.concatenate([prime, drawn])), symbols)


def _from_bytes(pieces: Iterable[str]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character's bytes may lie in two pieces
    for piece in pieces:
        yield decoder.decode(piece.encode("latin-1"))
    yield decoder.decode(b"", final=True)


def _until(stop: str, pieces: Iterable[str]) -> Iterator[str]:
    """Pieces of a text up to the end of the first `stop`, which may lie in several of them."""
    last = ""
    for piece in pieces:
        seen = last + piece
        found = seen.find(stop)
        if found >= 0:
            yield piece[: found + len(stop) - len(last)]
            return
        yield piece
        last = seen[len(seen) - len(stop) + 1 :] if len(seen) >= len(stop) else seen


def choose(logits: Array, noise: Array, temperature: Array) -> Array:
    """Draw an id from softmax(logits / temperature) over the K likeliest, by the Gumbel-max trick (Gumbel 1954).

    Args:
        logits: [V].
        noise: [K] standard Gumbel noise; only the K likeliest ids can be drawn.
        temperature: [] float32; 0 takes the likeliest. Of equally likely ids the smallest counts as the likeliest.

    Returns:
        [] int32.
    """
    size, count = len(logits), len(noise)
    likeliest, ids = lax.top_k(logits, count) if count < size else (logits, jnp.arange(size))
    # Taking the maximum off first keeps a tiny temperature from turning every logit into infinity.
    scaled = (likeliest - likeliest.max()) / jnp.where(temperature > 0, temperature, 1)
    return ids[jnp.argmax(scaled + jnp.where(temperature > 0, noise, 0))].astype(jnp.int32)


@lru_cache(maxsize=8)
def block_keeps_bits(model: Model, top_n: int) -> bool:
    """Whether BLOCK streams side by side are to the bit what each is alone: the programs are run and compared.

    Which order a product adds up in depends on its shape and on the machine, never on the numbers: where a chunk of
    random parameters and states agrees in every bit, all do.
    """
    rng = np.random.default_rng(0)
    forms = jax.eval_shape(lambda key: _for_sampling(model)(model.init(key)), jax.random.key(0))
    fused = jax.tree.map(lambda form: rng.normal(0, 0.2, form.shape).astype(form.dtype), forms)
    count = _candidates(model, top_n)
    carry = jax.tree.map(lambda part: rng.uniform(-1, 1, part.shape).astype(part.dtype), model.zero_carry(BLOCK))
    noise = rng.gumbel(size=(CHUNK, BLOCK, count)).astype(np.float32)
    rest = np.zeros(CHUNK, np.int32), np.int32(0), jnp.float32(1)
    keys, position = [jax.random.key(seed) for seed in range(BLOCK)], np.int32(1)
    alone = np.concatenate([_noise(count)(jnp.stack([key]), position) for key in keys], 1)
    if not np.array_equal(alone, _noise(count)(jnp.stack(keys), position)):
        return False
    head = jax.jit(lambda fused, carry: model.head(fused, model.top(carry)))  # a drawn symbol hides its logits' bits
    logits, together = jax.device_get((head(fused, carry), _advancer(model)(fused, carry, noise, *rest)))
    for row in (0, BLOCK // 2, BLOCK - 1):
        one = slice(row, row + 1)
        mine = jax.tree.map(lambda part, one=one: part[one], carry)
        symbols, after = jax.device_get(_advancer(model)(fused, mine, noise[:, one], *rest))
        pairs = [(head(fused, mine), logits[one]), (symbols, together[0][:, one])]
        pairs += zip(jax.tree.leaves(after), (part[one] for part in jax.tree.leaves(together[1])), strict=True)
        if not all(np.array_equal(ours, theirs) for ours, theirs in pairs):
            return False
    return True


class _Begun(NamedTuple):
    """A model that has read all of a prime but its last symbols."""

    fused: Params
    carry: Carry
    rest: np.ndarray
    """[below WINDOW] ids that are still to be read."""


def _begin(model: Model, params: Params, prime: np.ndarray) -> _Begun:
    fused, carry = _for_sampling(model)(params), model.zero_carry(1)
    end = len(prime) // WINDOW * WINDOW
    carry = read_all(partial(_reader(model), fused), windows(prime[None, :end], WINDOW), carry)
    return _Begun(fused, carry, prime[end:].astype(np.int32))


def _draw(model: Model, begun: _Begun, config: SampleConfig, seeds: Sequence[int]) -> Iterator[np.ndarray]:
    """[up to CHUNK, len(seeds)] ids at a time."""
    rest, advance, noise = begun.rest, _advancer(model), _noise(_candidates(model, config.top_n))
    carry = jax.tree.map(lambda part: jnp.repeat(part, len(seeds), 0), begun.carry)
    forced = np.zeros(-(-max(len(rest), 1) // CHUNK) * CHUNK, np.int32)
    forced[: len(rest)] = rest
    keys, temperature = jnp.stack(list(map(jax.random.key, seeds))), jnp.float32(min(config.temperature, _HOTTEST))
    for at in range(0, len(rest) + config.length, CHUNK):
        part = forced[at : at + CHUNK] if at < len(forced) else forced[:CHUNK]
        position = np.int32(at - len(rest))
        drawn, carry = advance(begun.fused, carry, noise(keys, position), part, position, temperature)
        new = np.asarray(drawn)[max(len(rest) - at, 0) : len(rest) + config.length - at]
        if len(new):
            yield new


def _candidates(model: Model, top_n: int) -> int:
    return top_n if 0 < top_n < model.vocabulary_size else model.vocabulary_size


@lru_cache(maxsize=8)
def _for_sampling(model: Model) -> Callable[[Params], Params]:
    def fuse(params: Params) -> Params:
        """Fused, with a head of whole vectors: the columns left over would be added up in another order."""
        fused, missing = model.fuse(params), -model.vocabulary_size % 64
        head = {"kernel": ((0, 0), (0, missing)), "bias": ((0, missing),)}
        return fused | {"head": {name: jnp.pad(fused["head"][name], widths) for name, widths in head.items()}}

    return jax.jit(fuse)


@lru_cache(maxsize=8)
def _reader(model: Model) -> Callable[..., tuple[None, Carry]]:
    return jax.jit(lambda fused, ids, carry: (None, model.read(fused, ids, carry)[1]))


@lru_cache(maxsize=8)
def _noise(count: int) -> Callable[..., Array]:
    def noise(keys: Array, position: Array) -> Array:
        """[CHUNK, B, count] Gumbel noise from a position on: each row is a function of its key and position alone."""

        def one(position: Array, key: Array) -> Array:
            return jax.random.gumbel(jax.random.fold_in(key, position), (count,))

        positions = jnp.maximum(position + jnp.arange(CHUNK), 0)
        return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(positions, keys)

    return jax.jit(noise)


@lru_cache(maxsize=8)
def _advancer(model: Model) -> Callable[..., tuple[Array, Carry]]:
    def advance(
        fused: Any, carry: Carry, noise: Array, forced: Array, position: Array, temperature: Array
    ) -> tuple[Array, Carry]:
        """[CHUNK, B] symbols from `position` on; below 0 lies the prime."""

        def one(carry: Carry, at: tuple[Array, Array, Array]) -> tuple[Carry, Array]:
            position, given, noise = at
            logits = model.head(fused, model.top(carry))[:, : model.vocabulary_size]
            drawn = jax.vmap(choose, (0, 0, None))(logits, noise, temperature)
            symbols = jnp.where(position < 0, given, drawn)
            return model.read(fused, symbols[:, None], carry)[1], symbols

        carry, symbols = lax.scan(one, carry, (position + jnp.arange(CHUNK), forced, noise))
        return symbols, carry

    return jax.jit(advance)
