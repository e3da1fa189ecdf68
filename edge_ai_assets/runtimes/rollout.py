"""What a Deployment and its pods say of a rollout. Reads their objects, asks no cluster.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/ (status of a deployment), as
`kubectl rollout status` reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from edge_ai_assets.runtimes.manifests import RELEASE, TEMPLATE, Manifest
from edge_ai_assets.scoring.folder import sentence

CRASHES = 3
"""Ends of a new pod's container after which its release is given up, as the supervisor of a process does."""
HOPELESS = frozenset({"InvalidImageName", "ErrImageNeverPull"})
"""Reasons of a waiting container that time does not mend. Pulling an image may yet succeed."""


def complete(deployment: Manifest) -> bool:
    """Whether all pods are of the newest generation, ready for a while, and no former one is left."""
    status = deployment.get("status", {})
    wanted = deployment["spec"].get("replicas", 1)
    return bool(
        status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
        and status.get("updatedReplicas", 0) == wanted
        and status.get("replicas", 0) == wanted
        and status.get("availableReplicas", 0) == wanted
    )


def failed(deployment: Manifest, pods: Iterable[Manifest]) -> str | None:
    """Why a rollout cannot succeed any more; None while it can."""
    for pod in _new(deployment, pods):
        for container in pod.get("status", {}).get("containerStatuses", []):
            waiting = container.get("state", {}).get("waiting", {})
            if waiting.get("reason") in HOPELESS or container.get("restartCount", 0) >= CRASHES:
                return _container(container) or f"its container ended {container['restartCount']} times"
    status = deployment.get("status", {})
    if status.get("observedGeneration", 0) < deployment["metadata"]["generation"]:
        return None  # the conditions are those of the rollout before
    for condition in status.get("conditions", []):
        if (condition["type"], condition.get("reason")) == ("Progressing", "ProgressDeadlineExceeded"):
            return why(deployment, pods)
    return None


def why(deployment: Manifest, pods: Iterable[Manifest]) -> str:
    """In one sentence, what keeps a rollout that is not complete."""
    new = list(_new(deployment, pods))
    for reason in [*_reasons(new), *_conditions(deployment)]:
        return reason
    if not new:
        return "the cluster has not made a pod for it"
    return "its pod runs but was not ready in time"


def serving(pods: Iterable[Manifest]) -> list[Manifest]:
    """Pods that are ready and not about to end, newest first."""
    ready = [
        pod
        for pod in pods
        if RELEASE in _marks(pod)
        and "deletionTimestamp" not in pod["metadata"]
        and any(
            (condition["type"], condition["status"]) == ("Ready", "True")
            for condition in pod.get("status", {}).get("conditions", [])
        )
    ]
    return sorted(ready, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), reverse=True)


def _new(deployment: Manifest, pods: Iterable[Manifest]) -> Iterator[Manifest]:
    wanted = _marks(deployment).get(TEMPLATE)
    return (pod for pod in pods if _marks(pod).get(TEMPLATE) == wanted)


def _marks(thing: Manifest) -> dict[str, str]:
    return dict(thing["metadata"].get("annotations", {}))


def _reasons(pods: Iterable[Manifest]) -> Iterator[str]:
    for pod in pods:
        status = pod.get("status", {})
        for container in status.get("containerStatuses", []):
            if reason := _container(container):
                yield reason
        for condition in status.get("conditions", []):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                yield f"no node can take its pod: {condition.get('message', 'without a reason')}"


def _container(container: Manifest) -> str | None:
    waiting = container.get("state", {}).get("waiting", {})
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if "Image" in reason:
        image = container.get("image", "")
        return f"its image {image} cannot be had ({reason}): {message or 'without a reason'}"
    ended = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated")
    if ended:
        said = sentence(str(ended.get("message", "")).splitlines()) or ended.get("reason", "nothing")
        times = container.get("restartCount", 0)
        return (
            f"its container ended with exit code {ended.get('exitCode')}, {times} restarts; it said: {said}"
        )
    if reason not in ("", "ContainerCreating", "PodInitializing"):
        return f"its container cannot be started ({reason}): {message or 'without a reason'}"
    return None


def _conditions(deployment: Manifest) -> Iterator[str]:
    for condition in deployment.get("status", {}).get("conditions", []):
        if (condition["type"], condition["status"]) == ("ReplicaFailure", "True"):
            yield f"the cluster makes no pod for it: {condition.get('message', 'without a reason')}"
