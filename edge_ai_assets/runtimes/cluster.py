"""A Kubernetes API server as we need it: objects as dictionaries, applied, read, listed, deleted.

What they are is `manifests`', what they say of a rollout `rollout`'s. PyPI `kubernetes` does the talking.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_ai_assets.runtimes.manifests import Manifest
from edge_ai_assets.runtimes.placement import MANAGER

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

KINDS = {
    "ConfigMap": ("/api/v1", "configmaps"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    "PersistentVolumeClaim": ("/api/v1", "persistentvolumeclaims"),
    "Pod": ("/api/v1", "pods"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "Service": ("/api/v1", "services"),
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
}
APPLY = "application/apply-patch+yaml"
MANAGED_BY = "app.kubernetes.io/managed-by"
CONNECT_SECONDS, READ_SECONDS = 5.0, 20.0
RETRIES = 4
BACKOFF_SECONDS = 0.5
"""Doubled with each retry: about 8 s in all, over which the API server of a single node restarts."""
CONFLICTS = 3
PASSING = (429, 500, 502, 503, 504)


class ClusterError(RuntimeError):
    """The API server refused; the message says what and why."""


class Unreachable(ClusterError):
    """The API server did not answer, or not sensibly: asking again may help."""


class Cluster:
    """One namespace of a cluster.

    Args:
        client: see `connect`.
    """

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self._client, self._namespace = client, namespace

    def apply(self, manifest: Manifest) -> Manifest:
        """Server-side apply: make the object be as said here, and leave alone what others say of it.

        An object that is ours is made so against anybody; with another's, fields that he set are not taken.

        Returns:
            The object as it is now.

        Raises:
            ClusterError: it was refused, or is somebody else's.
            Unreachable: nobody knows whether it was done; doing it again is harmless.
        """
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        present = self.get(kind, name)
        ours = present is None or present["metadata"].get("labels", {}).get(MANAGED_BY) == MANAGER
        query = [("fieldManager", MANAGER), ("force", "true" if ours else "false")]
        for _ in range(CONFLICTS):
            try:
                return self._asked("PATCH", kind, name, query, manifest)
            except _Conflict as error:
                if not ours:
                    raise ClusterError(f"{kind} {name} is somebody else's and left alone: {error}") from error
        raise Unreachable(f"{kind} {name} was changed by others {CONFLICTS} times while it was applied")

    def get(self, kind: str, name: str) -> Manifest | None:
        """An object; None when there is none."""
        try:
            return self._asked("GET", kind, name)
        except _NotFound:
            return None

    def labelled(self, kind: str, labels: dict[str, str]) -> list[Manifest]:
        """The objects with these labels."""
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        return list(self._asked("GET", kind, "", [("labelSelector", selector)])["items"])

    def delete(self, kind: str, name: str) -> None:
        """Delete an object, and wait for nothing; nothing when there is none."""
        try:
            self._asked("DELETE", kind, name, [("propagationPolicy", "Foreground")])
        except _NotFound:
            return

    def _asked(
        self,
        method: str,
        kind: str,
        name: str,
        query: list[tuple[str, str]] | None = None,
        body: Manifest | None = None,
    ) -> Manifest:
        import urllib3
        from kubernetes.client.exceptions import ApiException

        api, plural = KINDS[kind]
        path = f"{api}/namespaces/{self._namespace}/{plural}" + (f"/{name}" if name else "")
        headers = {"Accept": "application/json"} | ({"Content-Type": APPLY} if body is not None else {})
        what = f"{kind} {name}".strip()
        try:
            answer = self._client.call_api(
                path,
                method,
                query_params=query or [],
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _return_http_data_only=True,
                _request_timeout=(CONNECT_SECONDS, READ_SECONDS),
            )
            found = json.loads(answer.data)
        except ApiException as error:
            raise _refused(error.status, _message(error.body), what, self._namespace) from error
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise Unreachable(
                f"the API server {self._client.configuration.host} does not answer: {error}"
            ) from error
        if not isinstance(found, dict):
            raise Unreachable(f"{what}: the API server answered with {type(found).__name__}, not an object")
        return found


class _NotFound(ClusterError):
    """404 for the object itself."""


class _Conflict(ClusterError):
    """409: fields of another manager, or a change at the same moment."""


def connect(namespace: str, *, kubeconfig: Path | None = None, context: str | None = None) -> Cluster:
    """The cluster that a kubeconfig names; without one, the cluster that this process runs in.

    Raises:
        ClusterError: the file cannot be used, or this is no pod.
    """
    from kubernetes import client, config
    from kubernetes.config import ConfigException
    from yaml import YAMLError

    settings = client.Configuration()
    try:
        if kubeconfig is not None:
            config.load_kube_config(str(kubeconfig), context, client_configuration=settings)
        else:
            config.load_incluster_config(client_configuration=settings)
    except (ConfigException, YAMLError, OSError) as error:
        where = f"kubeconfig {kubeconfig}" if kubeconfig else "this is no pod, and no kubeconfig was given"
        raise ClusterError(f"no way to a cluster: {where}: {error}") from error
    return Cluster(client_of(settings), namespace)


def client_of(settings: Any) -> ApiClient:
    """A client that asks again while a cluster stumbles: each request of ours may be repeated."""
    import urllib3
    from kubernetes import client

    settings.retries = urllib3.Retry(
        total=RETRIES,
        backoff_factor=BACKOFF_SECONDS,
        status_forcelist=PASSING,
        allowed_methods=None,
        raise_on_status=False,
    )
    return client.ApiClient(settings)


def _refused(status: int | None, message: str, what: str, namespace: str) -> ClusterError:
    if status == 404 and "namespaces" not in message:
        return _NotFound(f"{what} is not there")
    if status == 404:
        return ClusterError(f"{what}: namespace {namespace!r} is not there: create it first")
    if status == 401:
        return ClusterError(
            f"{what}: the cluster does not know who asks (401): renew the kubeconfig's credentials"
        )
    if status == 403:
        return ClusterError(f"{what} in namespace {namespace!r} is not allowed: {message}")
    if status == 409:
        return _Conflict(message)
    if status in PASSING:
        return Unreachable(f"{what}: the API server answers {status}: {message}")
    return ClusterError(f"{what} is refused ({status}): {message}")


def _message(body: Any) -> str:
    """What an API server says of an error: a Status object's message."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body or "")
    try:
        said = json.loads(text)
    except ValueError:
        return text[:500].strip() or "without a reason"
    return str(said.get("message") or text)[:500] if isinstance(said, dict) else text[:500]
