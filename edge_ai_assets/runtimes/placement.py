"""Where a site's scoring service is in a cluster, what it is called and what it may take there.

The objects that this becomes are `manifests`'.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MANAGER = "edge-ai-assets"
"""Who we are to a cluster: field manager, and the label of what is ours."""
PORT = 8080
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,53}[a-z0-9])?")
_REPOSITORY = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+")
_QUANTITY = re.compile(r"[1-9][0-9]*(m|[KMGT]i?)?")


@dataclass(frozen=True)
class Placement:
    """A site's place in a cluster, and what it may take there.

    Raises:
        ValueError: a name, repository or amount that Kubernetes would refuse; the message names it.
    """

    site: str
    repository: str
    """Where the site's nodes have its images from, without tag or digest: `registry.bergen.lan/edge/pump`.

    The same one on every road: a node that has an image under one name and finds it again under another pulls
    it anew, which without a link fails (KEP-2535).
    """
    namespace: str = "edge-ai"
    replicas: int = 1
    """Pods. All of them write the one outbox, so all run on the one node that its volume is attached to."""
    workers: int = 1
    """Processes of each pod."""
    outbox: str = "10Gi"
    """Size of the volume."""
    storage_class: str | None = None
    """The cluster's default when absent. A block device or a local disk: SQLite's write-ahead log needs
    shared memory and locks that NFS and Azure Files do not give."""
    memory: str = "1Gi"
    guard: str | None = None
    """Secret with tls.crt, tls.key and tokens.json. Without one the service takes requests from its namespace
    only, unencrypted: from an ingress or a mesh that sees to TLS and to who may ask."""
    pull_secret: str | None = None
    """Secret that the site's registry wants."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.site):
            raise ValueError(
                f"site {self.site!r} is no name for Kubernetes: at most 55 of a-z, 0-9 and '-', "
                "a letter or digit first and last"
            )
        if not _REPOSITORY.fullmatch(self.repository):
            raise ValueError(
                f"repository {self.repository!r} is refused: HOST/PATH in lower case, without tag or digest"
            )
        for name, amount in (("outbox", self.outbox), ("memory", self.memory)):
            if not _QUANTITY.fullmatch(amount):
                raise ValueError(f"{name} is {amount!r}, it must be a quantity such as 512Mi or 10Gi")
        for name, number, most in (("replicas", self.replicas, 8), ("workers", self.workers, 64)):
            if not 1 <= number <= most:
                raise ValueError(f"{name} is {number}, it must be from 1 to {most}")

    @property
    def name(self) -> str:
        """Of all its objects."""
        return f"scoring-{self.site}"

    @property
    def selector(self) -> dict[str, str]:
        """Labels of its pods that never change."""
        return {"app.kubernetes.io/name": "edge-ai-scoring", "app.kubernetes.io/instance": self.site}

    @property
    def labels(self) -> dict[str, str]:
        return self.selector | {"app.kubernetes.io/managed-by": MANAGER}

    @property
    def url(self) -> str:
        """Where programs in the cluster reach it."""
        return f"{'https' if self.guard else 'http'}://{self.name}.{self.namespace}.svc:{PORT}"

    def image(self, release_id: str) -> str:
        """By digest: what a tag means may change, also between two pods of one rollout."""
        return f"{self.repository}@{release_id}"
