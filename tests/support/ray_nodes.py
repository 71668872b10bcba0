"""A Ray cluster of two nodes on this machine, one core each.

It prints its address, takes the second node away at a line of input, and ends with its input.
"""

import sys

from ray.cluster_utils import Cluster

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
second = cluster.add_node(**NODE)
cluster.wait_for_nodes()
print(cluster.address, flush=True)
for _ in sys.stdin:
    cluster.remove_node(second, allow_graceful=False)
cluster.shutdown()
