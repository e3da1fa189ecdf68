"""What the pod of a run may take on Kubernetes, where the run says: its job's tags, read by dagster-k8s.

A run is one pod, because its steps run in one process: so a job's tags count, and an asset's do not. Whatever
says nothing gets what deploy/azure/values.yaml gives to all. Elsewhere than on Kubernetes nothing reads them.
"""

from __future__ import annotations

from typing import Any

POOL = "edge-ai-assets/pool"
"""Label and taint of nodes, as deploy/azure/infra/main.bicep makes them."""

TRAINING: dict[str, Any] = {
    "dagster-k8s/config": {
        "container_config": {
            # For a graphics processor add "nvidia.com/gpu": "1" to the limits, on a pool that has them.
            "resources": {"requests": {"cpu": "3", "memory": "8Gi"}, "limits": {"memory": "14Gi"}}
        },
        "pod_spec_config": {
            "node_selector": {POOL: "training"},
            "tolerations": [{"key": POOL, "operator": "Equal", "value": "training", "effect": "NoSchedule"}],
        },
    }
}
"""Of jobs that train: on nodes of their own, which are there only while something trains."""
