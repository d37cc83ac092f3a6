"""Character-level recurrent language models in JAX: train, compare, look into and sample.

The public names are those of `__init__.pyi`. Each is imported when it is first used, so that `import charlstm` and
`charlstm --help` never load JAX.
"""

from importlib.metadata import PackageNotFoundError, version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
try:
    __version__ = version("charlstm")
except PackageNotFoundError:  # it runs from a source tree
    __version__ = "0"
