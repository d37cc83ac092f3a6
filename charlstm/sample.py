"""Parameters, a prime and a seed become text, in one compiled loop.

The loop draws a symbol from the state, and reads it. While the prime lasts, the prime's symbol is read in place of the
drawn one; so the same program serves the prime's end, the first character and the last. It runs in chunks of fixed
size: any length needs one compilation and constant memory, and a stream is the whole, cut.

The n-th character's noise comes from the seed and n alone, and every stream runs at batch size 1. So a text depends on
checkpoint, settings and seed, and on nothing else: not on its length, not on how many are drawn beside it.
"""

import codecs
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import chain
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from charlstm.config import SampleConfig, Symbols
from charlstm.corpora import to_symbols
from charlstm.model import Carry, Model, Params
from charlstm.vocabulary import Vocabulary

CHUNK = 64
"""Characters a call draws; a stream grows by so many at a time."""
WINDOW = 256
"""Characters of the prime that are read at once."""
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
    fused = model.fuse(params)
    carry, read, advance = model.zero_carry(1), _reader(model), _advancer(model, config.top_n)
    whole = len(prime) // WINDOW * WINDOW
    for at in range(0, whole, WINDOW):
        carry = read(fused, prime[None, at : at + WINDOW].astype(np.int32), carry)
    rest = prime[whole:].astype(np.int32)
    forced = np.zeros(-(-max(len(rest), 1) // CHUNK) * CHUNK, np.int32)
    forced[: len(rest)] = rest
    key, temperature = jax.random.key(config.seed), jnp.float32(min(config.temperature, _HOTTEST))
    for at in range(0, len(rest) + config.length, CHUNK):
        part = forced[at : at + CHUNK] if at < len(forced) else forced[:CHUNK]
        drawn, carry = advance(fused, carry, part, np.int32(at - len(rest)), key, temperature)
        new = np.asarray(drawn)[max(len(rest) - at, 0) : len(rest) + config.length - at]
        if len(new):
            yield new


def sample(model: Model, params: Params, prime: np.ndarray, config: SampleConfig) -> np.ndarray:
    """The whole of `stream` at once: [config.length] ids."""
    return np.concatenate([np.zeros(0, np.int32), *stream(model, params, prime, config)])


def text_stream(
    model: Model, params: Params, vocabulary: Vocabulary, symbols: Symbols, config: SampleConfig, *, skip_unknown: bool
) -> Iterator[str]:
    """`stream` in characters that people read: the prime, and then what is drawn after it.

    Args:
        symbols: what the vocabulary holds; bytes are decoded as UTF-8, with U+FFFD where they are not.
        config: its prime is what is read first.
        skip_unknown: leaves out characters of the prime that the vocabulary lacks.

    Raises:
        InputError: the prime has such a character and they are not skipped.
    """
    prime = vocabulary.encode(to_symbols(config.prime, symbols), skip_unknown=skip_unknown)
    if symbols == "characters":
        yield vocabulary.decode(prime)
        yield from map(vocabulary.decode, stream(model, params, prime, config))
        return
    decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character's bytes may lie in two chunks
    for ids in chain([prime], stream(model, params, prime, config)):
        yield decoder.decode(vocabulary.decode(ids).encode("latin-1"))
    yield decoder.decode(b"", final=True)


def noise(key: Array, position: Array, count: int) -> Array:
    """The Gumbel noise of one draw, [count] float32: a function of key and position alone."""
    return jax.random.gumbel(jax.random.fold_in(key, position), (count,))


def choose(logits: Array, noise: Array, temperature: Array) -> Array:
    """Draw an id from softmax(logits / temperature) over the K likeliest, by the Gumbel-max trick (Gumbel 1954).

    Args:
        logits: [V].
        noise: [K] of `noise`; only the K likeliest ids can be drawn.
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
def _reader(model: Model) -> Callable[..., Carry]:
    return jax.jit(lambda fused, ids, carry: model.read(fused, ids, carry)[1])


@lru_cache(maxsize=8)
def _advancer(model: Model, top_n: int) -> Callable[..., tuple[Array, Carry]]:
    size = model.vocabulary_size
    count = top_n if 0 < top_n < size else size

    def advance(
        fused: Any, carry: Carry, forced: Array, position: Array, key: Array, temperature: Array
    ) -> tuple[Array, Carry]:
        """CHUNK symbols from `position` on; below 0 lies the prime."""
        positions = position + jnp.arange(CHUNK)
        noises = jax.vmap(noise, (None, 0, None))(key, jnp.maximum(positions, 0), count)  # all at once: half the time

        def one(carry: Carry, at: tuple[Array, Array, Array]) -> tuple[Carry, Array]:
            position, given, noise = at
            drawn = choose(model.head(fused, model.top(carry))[0], noise, temperature)
            symbol = jnp.where(position < 0, given, drawn)
            return model.read(fused, symbol.reshape(1, 1), carry)[1], symbol

        carry, symbols = lax.scan(one, carry, (positions, forced, noises))
        return symbols, carry

    return jax.jit(advance)
