"""JAX as charlstm's numbers are defined: no setting of the environment's, or of a notebook's, changes them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np

Rest = ParamSpec("Rest")
Result = TypeVar("Result")

SETTINGS: dict[str, Any] = {
    "enable_x64": False,
    "default_prng_impl": "threefry2x32",
    "threefry_partitionable": True,
    "numpy_dtype_promotion": "standard",
    "numpy_rank_promotion": "allow",
    "softmax_custom_jvp": False,
    "disable_jit": False,
    "debug_nans": False,
    "debug_infs": False,
    "debug_key_reuse": False,
    "enable_checks": False,
    "check_tracer_leaks": False,
    "transfer_guard": "allow",
}
"""Those of JAX's that change a result, or raise where it is as it should be."""
_PRECISION, _OFFSET = "jax_default_matmul_precision", "jax_random_seed_offset"


@contextmanager
def settled(wide: bool = False) -> Iterator[None]:
    """Holds `SETTINGS` in this thread; the precision of products may only be raised, which GPUs and TPUs obey.

    `wide` leaves float64 as it is set.
    """
    precision, offset = getattr(jax.config, _PRECISION), getattr(jax.config, _OFFSET)
    with ExitStack() as stack:
        for name, value in SETTINGS.items():
            if not (wide and name == "enable_x64"):
                stack.enter_context(getattr(jax, name)(value))
        stack.enter_context(jax.default_matmul_precision(precision if precision in ("highest", "float32") else None))
        if offset:  # it has no context of its own
            jax.config.update(_OFFSET, 0)
            stack.callback(jax.config.update, _OFFSET, offset)
        yield


def under_settings(function: Callable[Rest, Result]) -> Callable[Rest, Result]:
    """Calls a function under `settled`; if it gives an iterator, also each step of it, but not what its reader does.

    Arguments in float64 stay so.
    """

    @wraps(function)
    def call(*args: Rest.args, **kwargs: Rest.kwargs) -> Result:
        wide = any(getattr(leaf, "dtype", None) == np.float64 for leaf in jax.tree.leaves((args, kwargs)))
        with settled(wide):
            found: Any = function(*args, **kwargs)
        result: Any = _each(found, wide) if isinstance(found, Iterator) else found
        return result

    return call


def _each(steps: Iterator[Any], wide: bool) -> Iterator[Any]:
    end = object()
    while True:
        with settled(wide):
            step = next(steps, end)
        if step is end:
            return
        yield step
