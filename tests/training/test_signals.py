"""Signals are noted and acted on later; the second one that a person sends acts at once."""

import signal
import subprocess
import sys
import time

import pytest

from charlstm.support.errors import Interrupted
from charlstm.training.signals import collected

PATIENCE = signal.Signals.SIGTERM, signal.Signals.SIGINT
BUSY = """
import hashlib
from charlstm.training.signals import collected
with collected():
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # like XLA's compiler, it lets no handler run
"""
IGNORED = """
import signal
from charlstm.training.signals import collected
with collected() as received:
    signal.raise_signal(signal.SIGHUP), signal.raise_signal(signal.SIGINT), signal.raise_signal(signal.SIGTERM)
assert received == [signal.SIGTERM], received
assert signal.getsignal(signal.SIGHUP) == signal.getsignal(signal.SIGINT) == signal.SIG_IGN
"""


@pytest.mark.parametrize("second", PATIENCE)
def test_a_second_signal_ends_at_once_whatever_goes_on(second: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline()
        for number in (signal.SIGHUP, second, signal.SIGHUP):  # of a terminal that closes and its shell, all at once
            process.send_signal(number)
        time.sleep(0.8)
        process.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(second)
        assert process.wait(10) == 128 + second


def test_what_a_process_was_started_to_ignore_stays_ignored() -> None:
    """As `nohup` and a script's background job do it."""
    subprocess.run(["sh", "-c", 'trap "" HUP INT; exec "$@"', "sh", sys.executable, "-c", IGNORED], check=True)


def test_signals_are_as_before_afterwards() -> None:
    numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    before = [signal.getsignal(number) for number in numbers]
    with collected() as received:
        received.check()
        for number in numbers:
            signal.raise_signal(number)
    assert received == list(numbers)
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.set_wakeup_fd(-1) == -1
    with pytest.raises(Interrupted, match="^stopped after step 7 of lstm-1x8$"):
        received.check(7, "lstm-1x8")
    with collected(False) as received:
        assert [signal.getsignal(number) for number in numbers] == before
