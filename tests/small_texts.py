"""How a text that will not do is refused."""

from pathlib import Path

import pytest

from charlstm.config import Symbols
from charlstm.data import corpora
from charlstm.support.errors import InputError


def refusal(corpus: str | Path, symbols: Symbols = "characters") -> str:
    """The one line that a text is refused with."""
    with pytest.raises(InputError) as refused:
        corpora.load(str(corpus), symbols)
    message = str(refused.value)
    assert message.isprintable()
    return message
