"""Three nodes of Ray on this machine, one core each. Prints their address.

The first line of input is a comparison's folder. A node is killed as soon as the model that it trains there has
checkpoints; not the one that the head belongs to, as on a real cluster its own machine would be lost with it. The
others end with the input.
"""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

from charlstm.support.lock import LOCK

PATIENCE = 120.0
"""Seconds in which a node must have saved."""


def main() -> None:
    """Start, kill and end."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)
    comparison, until = Path(sys.stdin.readline().strip()), time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if found := next((node for node in nodes if has_saved(node, comparison)), None):
            cluster.remove_node(found, allow_graceful=False)
            break
        time.sleep(0.05)
    sys.stdin.read()
    cluster.shutdown()


def has_saved(node: Any, comparison: Path) -> bool:
    """Whether a node is without the head's actor, and all seeds of a model that it trains have a checkpoint."""
    raylet, models = Path("/proc", str(node.all_processes["raylet"][0].process.pid)), set[Path]()
    with suppress(OSError):  # a worker that has ended
        for worker in [pid for path in raylet.glob("task/*/children") for pid in path.read_text().split()]:
            if b"ray::Board" in Path("/proc", worker, "cmdline").read_bytes():
                return False
            opened = [Path(os.readlink(each)) for each in Path("/proc", worker, "fd").iterdir()]
            models |= {path.parents[1] for path in opened if comparison in path.parents and path.name == LOCK}
    return any(all(map(has_checkpoint, model.glob("seed-*"))) for model in models)


def has_checkpoint(run: Path) -> bool:
    return any(each.name.isdigit() for each in run.glob("checkpoints/*"))


if __name__ == "__main__":
    main()
