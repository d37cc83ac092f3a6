"""The King James Bible, from a package, so that a first run needs no download: the default of `charlstm train`.

charlstm train experiments/king_james.py
"""

from charlstm.config import Experiment

CONFIG = Experiment()
