"""What the Azure location knows of the site chain: specs only, so that its graph is whole when no site can
be reached.

The Stack Hub location gives the same keys a body; a test holds the two in agreement.
"""

from typing import Any

import dagster as dg

from edge_ai_assets import keys
from edge_ai_assets.partitions import SITES


def site_spec(key: dg.AssetKey, deps: list[dg.AssetKey], description: str, kinds: set[str]) -> dg.AssetSpec:
    """The spec of one asset of the site chain, partitioned by site."""
    return dg.AssetSpec(
        key,
        deps=deps,
        description=description,
        group_name="site",
        owners=[keys.SITE_OPERATIONS],
        kinds=kinds,
        partitions_def=SITES,
    )


def body(spec: dg.AssetSpec) -> dict[str, Any]:
    """Arguments of `@dg.asset` that give this spec a body."""
    return {
        "key": spec.key,
        "deps": spec.deps,
        "description": spec.description,
        "group_name": spec.group_name,
        "owners": spec.owners,
        "kinds": spec.kinds,
        "partitions_def": spec.partitions_def,
    }


SITE_RELEASE = site_spec(
    keys.SITE_RELEASE,
    [keys.IMAGE, keys.BUNDLE],
    "The newest release on the site's own disk: signature, digests and order checked, not yet running.",
    {"oci"},
)
SITE_DEPLOYMENT = site_spec(
    keys.SITE_DEPLOYMENT,
    [keys.SITE_RELEASE],
    "The release that serves scores on the site. A bad one never takes over: the former goes on serving.",
    {"onnx"},
)
SITE_SCORES = site_spec(
    keys.SITE_SCORES,
    [keys.SITE_DEPLOYMENT],
    "Scores of the readings that waited, each durable in the site's outbox before it was answered.",
    {"onnx", "sqlite"},
)
SITE_INSIGHTS = site_spec(
    keys.SITE_INSIGHTS,
    [keys.SITE_SCORES],
    "Anomalies and normal rows among all that was scored, end users' requests included.",
    {"sqlite"},
)
SITE_EGRESS = site_spec(
    keys.SITE_EGRESS,
    [keys.SITE_INSIGHTS],
    "What may leave, sealed into signed return packages under the egress policy. The rest is withheld.",
    {"parquet"},
)
SITE_UPLOAD = site_spec(
    keys.SITE_UPLOAD,
    [keys.SITE_EGRESS],
    "Return packages that left by the site's road, in order: over its link, resumed where a cut stopped "
    "them, through its queue, or put where a person takes them to carry.",
    {"azureblobstorage"},
)

SITE_CHAIN = [SITE_RELEASE, SITE_DEPLOYMENT, SITE_SCORES, SITE_INSIGHTS, SITE_EGRESS, SITE_UPLOAD]
