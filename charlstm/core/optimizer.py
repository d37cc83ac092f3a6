"""One optax chain from a config: global-norm clipping, Adam, weight decay, a learning-rate schedule."""

from functools import lru_cache, partial

import jax
import optax

from charlstm.config import OptimizerConfig


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
def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """The chain. Clipping: Pascanu et al. 2013, algorithm 1. Adam: Kingma & Ba 2015. Decoupled decay: AdamW, 2019."""
    kernels = partial(jax.tree.map_with_path, lambda path, _: path[-1].key == "kernel")  # biases do not decay
    decayed = (optax.add_decayed_weights(config.weight_decay, mask=kernels),) if config.weight_decay else ()
    return optax.chain(
        optax.clip_by_global_norm(config.grad_clip),
        optax.scale_by_adam(config.b1, config.b2),
        *decayed,
        optax.scale_by_learning_rate(learning_rate(config, steps)),
    )
