"""The sensor that stands for the function's trigger where queue and function are the embedded ones."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg

from edge_ai_assets import keys
from edge_ai_assets.home import Home, SiteHome
from edge_ai_assets.partitions import SITES
from edge_ai_assets.runs import EVERY
from edge_ai_assets.stack_hub import forwarding
from edge_ai_assets.stack_hub.far_ends import NOTHING_FAR, FarEnds

LOOK = 20
"""Sites in one tick: each takes a bounded number of letters, some tens of milliseconds each."""


def insights_queued(home: Home, sites: Sequence[str], far: FarEnds = NOTHING_FAR) -> dg.SensorDefinition:
    """A sensor that forwards what waits at the sites in the connected form.

    Args:
        sites: those whose packages the function makes. Nothing else may pack there.
        far: the hub, if it is configured; its queues then are one site's.
    """

    @dg.sensor(
        name="insights_queued",
        minimum_interval_seconds=EVERY,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Forwards classified scores and feedback through queue and function, under the policy.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        """Forward at LOOK sites a tick, in turn; the cursor is the last one, and losing it only starts over.

        There is no run: what a tick began and did not end, because it was killed or the link is down, waits
        on the queue and comes again.
        """
        if len(sites) > 1 and far.profile.queue:
            raise dg.Failure(
                f"[queue] in stack_hub.toml serves one site, {len(sites)} have the road queue "
                f"({', '.join(sites[:5])}): give each its own home and its own storage account"
            )
        registered = set(context.instance.get_dynamic_partitions(str(SITES.name)))
        known = sorted(site for site in sites if site in registered and home.site(site).outbox.exists())
        after = [site for site in known if site > (context.cursor or "")]
        looked = (after + [site for site in known if site not in after])[:LOOK]
        events: list[dg.AssetMaterialization] = []
        failed: list[str] = []
        for site in looked:
            try:
                events += _events(home.site(site), home, far)
            except Exception as error:  # an error of one site must not stop the others
                failed.append(f"site {site}: {type(error).__name__}: {error}")
                context.log.error(failed[-1])
        if looked:
            context.update_cursor(looked[-1])
        if failed and not events:
            raise dg.Failure("; ".join(failed))
        if not events:
            return dg.SkipReason(f"nothing waits at {len(looked)} sites")
        return dg.SensorResult(asset_events=events)

    return sensor


def _events(site: SiteHome, home: Home, far: FarEnds) -> list[dg.AssetMaterialization]:
    done = forwarding.forward(site, home.uplink, far)
    sent, worked, settled = done.sent, done.worked, done.settled
    dead, failed = worked.dead + settled.dead, worked.failed + settled.failed
    if not (sent.letters or worked.receipts or settled.receipts or dead or done.acknowledged):
        return []
    metadata: dict[str, dg.MetadataValue | int | str | None] = {
        "letters": sent.letters,
        "rows": sent.rows,
        "feedback": sent.feedback,
        "packages": len(settled.packages),
        "acknowledged": done.acknowledged,
        "withheld": sum(settled.withheld.values()),
        "dead_letters": len(dead),
        "reasons": "; ".join([*dead, *failed]) or "none",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return [
        dg.AssetMaterialization(key, partition=site.name, metadata=metadata)
        for key in (keys.SITE_EGRESS, keys.SITE_UPLOAD)
    ]
