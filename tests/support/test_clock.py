"""A clock of the seconds in which a process runs."""

import os
import signal
import subprocess
import sys
import time

from charlstm.support.clock import Clock

PAUSED = """
import time
from charlstm.support.clock import Clock
with Clock() as clock:
    began, real = clock(), time.perf_counter()
    print("ready", flush=True)
    while (now := clock()) - began < 1 and time.perf_counter() - real < 30:
        time.sleep(0.01)
    print(now - began, time.perf_counter() - real)
"""


def test_a_pause_is_left_out() -> None:
    with subprocess.Popen([sys.executable, "-c", PAUSED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline()
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(2.5)
        os.kill(process.pid, signal.SIGCONT)
        counted, real = map(float, process.stdout.readline().split())
    assert 1 <= counted < 1.5
    assert real - counted > 2


def test_work_is_counted_whoever_looks_at_the_time() -> None:
    with Clock() as clock:
        began, real = clock(), time.perf_counter()
        time.sleep(2)  # longer than a pause, but the clock's own thread goes on
        assert abs(clock() - began - (time.perf_counter() - real)) < 0.1
