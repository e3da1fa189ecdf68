"""A site's scoring service on Kubernetes, as a runtime.

The cluster itself keeps what must be known: which pods serve, and in a ConfigMap of ours the Deployment that
was last good and the release that last failed. So whoever asks, from wherever, gets the same answer, and
going back needs neither Azure nor a file of ours.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict

from edge_ai_assets.runtimes import rollout
from edge_ai_assets.runtimes.cluster import Cluster, ClusterError, Unreachable
from edge_ai_assets.runtimes.interface import DeploymentFailed, Failure, Release, Running
from edge_ai_assets.runtimes.manifests import (
    GRACE_SECONDS,
    RELEASE,
    STEADY_SECONDS,
    VERSION,
    Manifest,
    lease,
    record,
    render,
)
from edge_ai_assets.runtimes.placement import Placement
from edge_ai_assets.scoring.folder import now_text

POLL_SECONDS = 1.0
SLACK_SECONDS = 15.0
"""Beyond a rollout's own deadline, after which Kubernetes should have called it failed."""
GOOD, FAILED = "good.json", "failed.json"


class KubernetesRuntime:
    """The service of one site in a cluster.

    Args:
        cluster: the namespace of `place`.
        wait, clock: for tests that do not want to wait.
    """

    def __init__(
        self,
        cluster: Cluster,
        place: Placement,
        *,
        wait: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster, self._place = cluster, place
        self._wait, self._clock = wait, clock

    def deploy(self, release: Release, *, timeout: float = 120.0) -> Running:
        """See Runtime. A release that is not ready in time, or keeps ending, gives way to the last good one.

        If the API server is gone, the cluster goes on by itself: the former pods serve until the new one is
        ready. Deploying again then finds out what became of it.
        """
        *others, deployment = render(self._place, release, timeout=timeout)
        try:
            good = self._recorded(GOOD)
            for manifest in others:
                self._cluster.apply(manifest)
            reason = self._rolled_out(deployment, timeout)
            if reason is None:
                self._record({GOOD: deployment})
                self._tidy(deployment)
                return Running(release.release_id, release.version, self._place.url)
        except ClusterError as error:
            raise self._failure(
                release, str(error), "what served goes on, unless this became ready"
            ) from error
        try:
            failure = Failure(release.release_id, reason, now_text())
            self._record({GOOD: good, FAILED: asdict(failure)})
            serves = self._back(good, deployment, timeout)
        except ClusterError as error:
            serves = f"whether the last good one is wanted again is not known: {error}"
        raise self._failure(release, reason, serves)

    def status(self) -> Running | None:
        """See Runtime. What the newest pod that is ready says, whatever is wanted."""
        try:
            ready = rollout.serving(self._pods())
            if not ready:
                return None
            failed = self._recorded(FAILED)
        except ClusterError as error:
            raise DeploymentFailed(f"site {self._place.site!r}: what serves is not known: {error}") from error
        marks = ready[0]["metadata"]
        return Running(
            marks["annotations"][RELEASE],
            int(marks["labels"][VERSION]),
            self._place.url,
            Failure(**failed) if failed else None,
        )

    def trust(self, note: bytes) -> None:
        """See Runtime. Pods have it a minute later, those of a release that is wanted too."""
        try:
            self._cluster.apply(lease(self._place, note))
        except ClusterError as error:
            raise DeploymentFailed(
                f"site {self._place.site!r}: its service does not learn how its trust stands: {error}"
            ) from error

    def stop(self) -> None:
        """See Runtime. The volume with the outbox stays, and so do the other objects."""
        until = self._clock() + GRACE_SECONDS + SLACK_SECONDS
        try:
            self._cluster.delete("Deployment", self._place.name)
            while self._pods():
                if self._clock() > until:
                    raise TimeoutError(f"site {self._place.site!r}: its pods did not end in time")
                self._wait(POLL_SECONDS)
        except ClusterError as error:
            raise DeploymentFailed(f"site {self._place.site!r} was not stopped: {error}") from error

    def _rolled_out(self, deployment: Manifest, timeout: float) -> str | None:
        """Apply a Deployment and wait for its pods; why it failed, None when it did not.

        Raises:
            ClusterError: what became of it cannot be found out.
        """
        generation = self._cluster.apply(deployment)["metadata"]["generation"]
        until = self._clock() + timeout + STEADY_SECONDS + SLACK_SECONDS
        while True:
            try:
                now = self._cluster.get("Deployment", self._place.name)
                if now is None or now["metadata"]["generation"] != generation:
                    raise ClusterError(f"somebody changed Deployment {self._place.name} meanwhile")
                if rollout.complete(now):
                    return None
                pods = self._pods()
                if reason := rollout.failed(now, pods):
                    return reason
                if self._clock() > until:
                    return f"it was not ready within {timeout:g} s: {rollout.why(now, pods)}"
            except Unreachable:
                if self._clock() > until:
                    raise
            self._wait(POLL_SECONDS)

    def _back(self, good: Manifest | None, deployment: Manifest, timeout: float) -> str:
        """Go back to the Deployment that was last good; what serves then, in words."""
        if good is None:
            return "no release serves"
        if good == deployment:
            return "it is the last good one, so there is none to go back to"
        before = good["metadata"]["annotations"][RELEASE]
        reason = self._rolled_out(good, timeout)
        if reason is not None:
            return f"going back to release {before} failed too: {reason}"
        return f"release {before} still serves"

    def _pods(self) -> list[Manifest]:
        return self._cluster.labelled("Pod", self._place.selector)

    def _recorded(self, name: str) -> Manifest | None:
        found = self._cluster.get("ConfigMap", record(self._place, {})["metadata"]["name"])
        text = (found or {}).get("data", {}).get(name)
        return json.loads(text) if text else None

    def _record(self, known: dict[str, Manifest | None]) -> None:
        data = {name: json.dumps(value) for name, value in known.items() if value is not None}
        self._cluster.apply(record(self._place, data))

    def _tidy(self, deployment: Manifest) -> None:
        """Remove options that neither the Deployment nor, as it is good, the record needs any more."""
        used = {volume["configMap"]["name"] for volume in _volumes(deployment) if "configMap" in volume}
        for found in self._cluster.labelled("ConfigMap", self._place.labels):
            name = found["metadata"]["name"]
            if name.startswith(f"{self._place.name}-options-") and name not in used:
                self._cluster.delete("ConfigMap", name)

    def _failure(self, release: Release, reason: str, serves: str) -> DeploymentFailed:
        return DeploymentFailed(
            f"site {self._place.site!r}: release {release.release_id} failed: {reason} ({serves})"
        )


def _volumes(deployment: Manifest) -> list[Manifest]:
    return list(deployment["spec"]["template"]["spec"]["volumes"])
