"""Three nodes of Ray on this machine, one core each. Prints their address, and at the first line of input kills one.

The others end with the input.
"""

import sys

from ray.cluster_utils import Cluster


def main() -> None:
    """Start, kill and end."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)
    if sys.stdin.readline():
        cluster.remove_node(nodes[0], allow_graceful=False)
        print("killed", flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main()
