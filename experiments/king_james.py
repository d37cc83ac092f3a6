"""The King James Bible, from a package, so that a first run needs no download: the default of `charlstm train`.

charlstm train experiments/king_james.py
Measured: validation 1.381 nats (1.992 bits) per character after 32 s on two CPU cores (AMD EPYC, AVX-512), from
pressing return to the sample; `charlstm eval RUN --split test` 1.341 nats. The held-out tenth is the New Testament's
end, which reads unlike the rest: the training loss was 1.14 by then.
"""

from charlstm.config import Experiment

CONFIG = Experiment()
