"""What all tests share: where the corpora are, how Hypothesis searches, and how strict JAX is."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any

import pytest

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # read when JAX is imported; the user's own cache stays as it is
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="charlstm-compiled-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # PyTorch's threads would spin on cores that others need

import jax
from hypothesis import HealthCheck, settings

from charlstm import config
from charlstm.analysis.settings import SETTINGS
from charlstm.core import optimizer
from charlstm.core.fast.native import bind
from charlstm.support import native
from charlstm.support import process as devices

TESTS = Path(__file__).resolve().parent
REPOSITORY = TESTS.parent
# Child processes import the package and the tests' own helpers from this checkout.
os.environ["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), str(TESTS)])

# No deadline: machines are shared. In CI the same examples each time, so that a red build is a change's doing.
settings.register_profile("charlstm", deadline=None, max_examples=60, derandomize="CI" in os.environ)
# For the other ends of the versions that are allowed: whether all of it works there, not again whether it is right.
settings.register_profile("few", deadline=None, max_examples=5, derandomize="CI" in os.environ)
# With XLA's full optimiser, after all of them without it.
settings.register_profile("some", deadline=None, max_examples=20, derandomize="CI" in os.environ)
# Many new examples: no health check stops a search that is slow, and nothing is kept between them.
settings.register_profile(
    "fuzz", deadline=None, max_examples=10_000, database=None, suppress_health_check=list(HealthCheck)
)
settings.load_profile("charlstm")  # pytest --hypothesis-profile=NAME asks for another

# Tests compile far more than they compute; an empty XLA_FLAGS in the environment brings the whole optimiser back.
# Without any of it, XLA may give one sum different last bits in different programs.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")
devices.use_wide_vectors()  # now, so that this process computes the bits that its children do
bind(native.set_up())  # so too, and so that no test decides for those after it

# A shape or a dtype that changes unsaid is an error. Tests that need float64 say `with jax.enable_x64(True)`.
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
SETTINGS.update(numpy_rank_promotion="raise", numpy_dtype_promotion="strict")


def _not_strict(make: Callable[..., Any]) -> Callable[..., Any]:
    """Optax mixes integer counts with floats, in Adam and in its schedules; only charlstm's own code is strict."""
    relaxed = jax.numpy_dtype_promotion("standard")
    return lru_cache(wraps(make)(lambda *args: jax.tree.map(relaxed, make(*args))))


optimizer.learning_rate = _not_strict(optimizer.learning_rate)
optimizer.make_optimizer = _not_strict(optimizer.make_optimizer)


_LONGEST = ("test_hosts", "test_blocks", "test_card", "test_compare", "test_benchmarks", "test_sharding")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the files that take longest, so that none of them is alone at the end."""
    items.sort(key=lambda item: item.path.stem not in _LONGEST)


@pytest.fixture(scope="session", autouse=True)
def _use_shared_corpora() -> Iterator[None]:
    shared = REPOSITORY.parent / "shared" / "corpora"
    with pytest.MonkeyPatch.context() as patch:
        if "CHARLSTM_CORPORA" not in os.environ and shared.is_dir():
            patch.setenv("CHARLSTM_CORPORA", str(shared))
        yield


@pytest.fixture(scope="session")
def corpora_folder(_use_shared_corpora: None) -> Path:
    """The folder of the public texts; a test that asks for it is skipped where there is none."""
    folder = os.environ.get("CHARLSTM_CORPORA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("no corpora on this machine: set CHARLSTM_CORPORA to a folder with them")
    return Path(folder)


@pytest.fixture(autouse=True)
def _forget_registered_cells() -> Iterator[None]:
    """A cell that one test registers is no other test's."""
    known = dict(config.CELLS)
    yield
    config.CELLS.clear()
    config.CELLS.update(known)
