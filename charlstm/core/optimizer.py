"""One optax chain from a config: global-norm clipping, Adam or Muon, weight decay, a learning-rate schedule."""

from functools import lru_cache, partial
from math import sqrt
from typing import Any

import jax
import optax
from jax.sharding import Mesh
from optax import contrib

from charlstm.config import OptimizerConfig
from charlstm.core.sharding import spread

_MUON_RMS = 0.2  # of an update's entries, about that of one by Adam, so that one rate serves both (Liu et al. 2025)


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The rate at each step, counted from 0: a linear warm-up, then constant, cosine or stepwise decay.

    A cosine ends at `decay_to` × the peak after `steps` updates (Loshchilov & Hutter 2017, without restarts).
    """
    peak, after = config.learning_rate, max(steps - config.warmup_steps, 1)
    decay = {
        "constant": lambda: optax.constant_schedule(peak),
        "cosine": lambda: optax.cosine_decay_schedule(peak, after, config.decay_to),
        "step": lambda: optax.exponential_decay(peak, config.decay_every, config.decay_to, staircase=True),
    }[config.schedule]()
    if config.warmup_steps == 0:
        return decay
    # The first update has a rate above zero: step 0 is the first of warmup_steps rises.
    warmup = optax.linear_schedule(peak / config.warmup_steps, peak, max(config.warmup_steps - 1, 1))
    return optax.join_schedules([warmup, decay], [config.warmup_steps])


@lru_cache(maxsize=32)  # the same object for the same config, so that what was compiled with it is found again
def make_optimizer(config: OptimizerConfig, steps: int, mesh: Mesh | None = None) -> optax.GradientTransformation:
    """The chain. Clipping: Pascanu et al. 2013, algorithm 1. Decoupled decay: AdamW, Loshchilov & Hutter 2019.

    The devices of a mesh share Muon's products among them; without one, each device computes them all.
    """
    kernels = partial(jax.tree.map_with_path, lambda path, _: path[-1].key == "kernel")  # biases do not decay
    decayed = (optax.add_decayed_weights(config.weight_decay, mask=kernels),) if config.weight_decay else ()
    return optax.chain(
        optax.clip_by_global_norm(config.grad_clip),
        _direction(config, mesh),
        *decayed,
        optax.scale_by_learning_rate(learning_rate(config, steps)),
    )


def _direction(config: OptimizerConfig, mesh: Mesh | None) -> optax.GradientTransformation:
    """Adam: Kingma & Ba 2015. Muon: Jordan 2024, which makes the momentum of a matrix nearly orthogonal."""
    adam = optax.scale_by_adam(config.b1, config.b2)
    if config.method == "adam":
        return adam
    axes = partial(jax.tree.map, lambda _: contrib.MuonDimensionNumbers())
    muon = optax.chain(
        optax.stateless(lambda updates, params: spread(updates, mesh)),
        contrib.scale_by_muon(beta=config.b1, weight_dimension_numbers=axes),
        optax.stateless(_to_muon_rms),
    )
    return optax.partition({"adam": adam, "muon": muon}, _methods)


def _methods(params: Any) -> Any:
    """The method of each parameter: Muon's is for matrices from units to units, which are square here."""
    return jax.tree.map(lambda leaf: "muon" if leaf.ndim == 2 and len(set(leaf.shape)) == 1 else "adam", params)


def _to_muon_rms(updates: Any, params: Any) -> Any:
    """Orthogonal matrices H×H, whose entries have an RMS of 1/√H, with an RMS of their own."""
    return jax.tree.map(lambda leaf: leaf * _MUON_RMS * sqrt(leaf.shape[0]), updates)
