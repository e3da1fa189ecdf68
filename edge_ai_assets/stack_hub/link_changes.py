"""Changes of a site's link as observations in Dagster's log, each once, whatever becomes of a tick.

When a link counts as changed is `returns.road.connectivity`'s matter.
"""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from edge_ai_assets.home import SiteHome
from edge_ai_assets.returns.road.connectivity import Change
from edge_ai_assets.stack_hub import connecting

CHANGED_AT = "changed_at"
"""Metadata that tells one change of a link from another."""


def news(
    instance: dg.DagsterInstance, key: dg.AssetKey, site: SiteHome, changes: Sequence[Change]
) -> list[dg.AssetObservation]:
    """Observations of the changes that the log does not have; the site need not keep the others any more.

    Args:
        changes: what `connecting.look` gave.
    """
    if not changes:
        return []
    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[site.name])
    records = instance.fetch_observations(wanted, limit=connecting.UNTOLD).records
    observed = [record.asset_observation for record in records if record.asset_observation]
    logged = {each.metadata[CHANGED_AT].value for each in observed if CHANGED_AT in each.metadata}
    if told := [change for change in changes if _seconds(change) in logged]:
        connecting.forget(site, told)
    return [observation(key, site.name, change) for change in changes if change not in told]


def observation(key: dg.AssetKey, site: str, change: Change) -> dg.AssetObservation:
    """That a site's link changed."""
    return dg.AssetObservation(
        key,
        partition=site,
        metadata={
            "link": str(change.after),
            "link_before": str(change.before),
            "seconds_before": round(change.seconds, 1),
            "flaps": change.flaps,
            CHANGED_AT: dg.MetadataValue.timestamp(_seconds(change)),
        },
    )


def _seconds(change: Change) -> float:
    return change.at / 1e6
