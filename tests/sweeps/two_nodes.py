"""A Ray cluster of two nodes on this machine, in a process of its own: Ray forks, which JAX's threads forbid.

Says where the cluster is and who its second node is, as JSON. A line on its input kills all processes of that
node at once, and is answered by a line; the end of its input ends the cluster.
"""

import json
import sys

import psutil
from ray.cluster_utils import Cluster

LOOPBACK = "127.0.0.2"
"""Ray takes 127.0.0.1 for a mistake, and would look for this machine's address in the network."""
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "node_ip_address": LOOPBACK}


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    second = cluster.add_node(**NODE)
    (raylet,) = second.all_processes["raylet"]
    print(json.dumps({"address": cluster.address, "raylet": raylet.process.pid}), flush=True)
    for _ in sys.stdin:
        node = psutil.Process(raylet.process.pid)
        for process in (node, *node.children(recursive=True)):
            process.kill()
        print("killed", flush=True)
        cluster.remove_node(second, allow_graceful=False)
    cluster.shutdown()


if __name__ == "__main__":
    main()
