"""What a site's scoring service is on Kubernetes: its objects, as they are sent. No cluster is asked here.

Only what every cluster has (`v1`, `apps/v1`, `networking.k8s.io/v1`, `policy/v1`), and what the Pod Security
Standard "restricted" admits.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from edge_ai_assets.runtimes.interface import Release
from edge_ai_assets.runtimes.placement import PORT, Placement
from edge_ai_assets.scoring.lease import FILE, MOUNTED

Manifest = dict[str, Any]

RELEASE = "edge-ai-assets/release"
"""Annotation with the digest of the release that a Deployment or a pod runs."""
TEMPLATE = "edge-ai-assets/template"
"""Annotation with what tells the pods of one rollout from those of the one before."""
VERSION = "app.kubernetes.io/version"
USER = 65532
"""As in the runtime image, deploy/runtime/Containerfile."""
OUTBOX = "/var/lib/edge-ai"
OPTIONS = "/etc/edge-ai"
GUARD = "/etc/edge-ai-guard"
LEAVE_SECONDS = 5
"""Before a pod that ends gets SIGTERM. It serves on meanwhile: nodes learn only now that it is to get no new
connections, and one that comes after it stopped listening would be refused."""
GRACE_SECONDS = LEAVE_SECONDS + 25
STEADY_SECONDS = 5
"""So long a new pod must stay ready before it counts and the former one is ended."""


def render(place: Placement, release: Release, *, timeout: float) -> list[Manifest]:
    """All objects of a site's service, in the order in which they are to be applied; the Deployment is last.

    Args:
        timeout: seconds in which the release must be ready, or Kubernetes calls the rollout failed.
    """
    options = _options(place, release)
    return [
        _object(place, "v1", "ServiceAccount", {"automountServiceAccountToken": False}),
        options,
        _volume(place),
        _network(place),
        _service(place),
        _disruption(place),
        _deployment(place, release, options["metadata"]["name"], timeout),
    ]


def record(place: Placement, data: dict[str, str]) -> Manifest:
    """What a runtime notes down in the cluster."""
    return _object(place, "v1", "ConfigMap", {"data": data}, f"{place.name}-record")


def lease(place: Placement, note: bytes) -> Manifest:
    """How long the site may rely on what it has: applied by itself, since it changes without a rollout."""
    return _object(place, "v1", "ConfigMap", {"data": {FILE: note.decode()}}, f"{place.name}-lease")


def _object(place: Placement, version: str, kind: str, body: Manifest, name: str | None = None) -> Manifest:
    metadata = {"name": name or place.name, "namespace": place.namespace, "labels": place.labels}
    return {"apiVersion": version, "kind": kind, "metadata": metadata} | body


def _options(place: Placement, release: Release) -> Manifest:
    """Named by its content and unchangeable: other options are a rollout, the former stay."""
    lines = [f"--site={place.site}", f"--workers={place.workers}", "--host=0.0.0.0", f"--port={PORT}"]
    if release.quota is not None:
        lines.append(f"--quota={release.quota}")
    if place.guard is None:
        lines.append("--behind-proxy")
    else:
        lines += [f"--tls-certificate={GUARD}/tls.crt", f"--tls-key={GUARD}/tls.key"]
        lines.append(f"--tokens={GUARD}/tokens.json")
    text = "".join(f"{line}\n" for line in lines)
    name = f"{place.name}-options-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
    return _object(place, "v1", "ConfigMap", {"immutable": True, "data": {"options": text}}, name)


def _volume(place: Placement) -> Manifest:
    # Not ReadWriteOncePod: while releases change, the old and the new pod both write the outbox.
    spec: Manifest = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": place.outbox}},
    }
    if place.storage_class is not None:
        spec["storageClassName"] = place.storage_class
    return _object(place, "v1", "PersistentVolumeClaim", {"spec": spec}, f"{place.name}-outbox")


def _network(place: Placement) -> Manifest:
    """No way out at all, not even to a name server. In: everybody if there are tokens, else the namespace."""
    callers: Manifest = {} if place.guard else {"from": [{"podSelector": {}}]}
    spec = {
        "podSelector": {"matchLabels": place.selector},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"ports": [{"port": PORT, "protocol": "TCP"}]} | callers],
        "egress": [],
    }
    return _object(place, "networking.k8s.io/v1", "NetworkPolicy", {"spec": spec})


def _service(place: Placement) -> Manifest:
    ports = [{"name": "http", "port": PORT, "targetPort": PORT, "protocol": "TCP"}]
    return _object(place, "v1", "Service", {"spec": {"selector": place.selector, "ports": ports}})


def _disruption(place: Placement) -> Manifest:
    """One pod at a time. Not minAvailable 1: with one replica its node could never be drained."""
    spec = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": place.selector},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return _object(place, "policy/v1", "PodDisruptionBudget", {"spec": spec})


def _deployment(place: Placement, release: Release, options: str, timeout: float) -> Manifest:
    pod = _pod(place, release, options)
    template = hashlib.sha256(json.dumps(pod, sort_keys=True).encode()).hexdigest()[:16]
    marks = {RELEASE: release.release_id, TEMPLATE: template}
    version = {VERSION: str(release.version)}
    manifest = _object(
        place,
        "apps/v1",
        "Deployment",
        {
            "spec": {
                "replicas": place.replicas,
                "revisionHistoryLimit": 2,
                "progressDeadlineSeconds": max(int(timeout), STEADY_SECONDS + 1),
                "minReadySeconds": STEADY_SECONDS,
                # The former release serves until the new one is ready, so no request is lost. Meanwhile both
                # write one outbox; SQLite numbers the rows of all writers of one host, see `affinity`.
                "strategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
                },
                "selector": {"matchLabels": place.selector},
                "template": {
                    "metadata": {"labels": place.labels | version, "annotations": marks},
                    "spec": pod,
                },
            }
        },
    )
    manifest["metadata"]["annotations"] = marks
    manifest["metadata"]["labels"] = place.labels | version
    return manifest


def _pod(place: Placement, release: Release, options: str) -> Manifest:
    beside = {"labelSelector": {"matchLabels": place.selector}, "topologyKey": "kubernetes.io/hostname"}
    pod: Manifest = {
        "serviceAccountName": place.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        # To the node of the pod that is there: its volume is attached to that one alone.
        "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [beside]}},
        "containers": [_container(place, release)],
        "volumes": [
            {"name": "outbox", "persistentVolumeClaim": {"claimName": f"{place.name}-outbox"}},
            {"name": "options", "configMap": {"name": options}},
            # Not there before the site has heard from Azure; it comes into running pods.
            {"name": "lease", "configMap": {"name": f"{place.name}-lease", "optional": True}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
        ],
    }
    if place.guard:
        pod["volumes"].append({"name": "guard", "secret": {"secretName": place.guard, "defaultMode": 0o440}})
    if place.pull_secret:
        pod["imagePullSecrets"] = [{"name": place.pull_secret}]
    return pod


def _container(place: Placement, release: Release) -> Manifest:
    mounts: list[Manifest] = [
        {"name": "outbox", "mountPath": OUTBOX},
        {"name": "options", "mountPath": OPTIONS, "readOnly": True},
        {"name": "lease", "mountPath": str(MOUNTED), "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 the root file system is read-only
    ]
    if place.guard:
        mounts.append({"name": "guard", "mountPath": GUARD, "readOnly": True})
    mine = [f"--release-id={release.release_id}", f"--version={release.version}"]
    return {
        "name": "scoring",
        "image": place.image(release.release_id),
        "imagePullPolicy": "IfNotPresent",
        "args": [f"@{OPTIONS}/options", *mine],
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "volumeMounts": mounts,
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": place.memory}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "startupProbe": _probe(place, "ready", 1, 60),
        "readinessProbe": _probe(place, "ready", 5, 2),
        "livenessProbe": _probe(place, "live", 10, 3),
        "lifecycle": {"preStop": {"sleep": {"seconds": LEAVE_SECONDS}}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _probe(place: Placement, health: str, seconds: int, failures: int) -> Manifest:
    get = {"path": f"/health/{health}", "port": PORT, "scheme": "HTTPS" if place.guard else "HTTP"}
    return {"httpGet": get, "periodSeconds": seconds, "timeoutSeconds": 3, "failureThreshold": failures}
