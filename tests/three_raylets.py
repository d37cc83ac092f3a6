"""Three nodes of Ray on this machine, one core each. Prints their address, and at the first line of input kills one.

That is not the one that the head belongs to, as on a real cluster its own machine would be lost with it. The others end
with the input.
"""

import sys
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster


def main() -> None:
    """Start, kill and end."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)
    if sys.stdin.readline():
        cluster.remove_node(next(node for node in nodes if not has_board(node)), allow_graceful=False)
    sys.stdin.read()
    cluster.shutdown()


def has_board(node: Any) -> bool:
    """Whether the head's actor is among a node's workers."""
    raylet = Path("/proc", str(node.all_processes["raylet"][0].process.pid))
    workers = [pid for path in raylet.glob("task/*/children") for pid in path.read_text().split()]
    return any(b"ray::Board" in Path("/proc", pid, "cmdline").read_bytes() for pid in workers)


if __name__ == "__main__":
    main()
