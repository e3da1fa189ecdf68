"""How complete the sites are, as the UI shows it: a table of watermarks and a check. What they are made of is
`arrivals`' work."""

from __future__ import annotations

import dagster as dg

from edge_ai_assets.metadata import records
from edge_ai_assets.returns.inbox.inbox import Received
from edge_ai_assets.returns.inbox.watermark import Watermark


def check(received: Received, marks: list[Watermark]) -> dg.AssetCheckResult:
    """The check `completeness` of global/inbox."""
    parted = [mark for mark in marks if not mark.whole]
    said = [
        f"{len(received.refused)} packages refused",
        f"{len(received.waiting)} sites wait for a missing one",
        f"{sum(mark.stale for mark in marks)} sites are stale",
        f"{len(received.failed)} could not be taken in",
    ]
    return dg.AssetCheckResult(
        check_name="completeness",
        passed=not (received.refused or received.waiting or received.failed or parted),
        severity=dg.AssetCheckSeverity.ERROR if received.failed else dg.AssetCheckSeverity.WARN,
        description="; ".join([", ".join(said), *(f"{mark.site}: {mark.sentence}" for mark in parted[:10])]),
        metadata={
            "watermarks": table(marks),
            "packages_refused": len(received.refused),
            "sites_with_a_gap": len(received.waiting),
            "sites_stale": sum(mark.stale for mark in marks),
            "refused": records(
                [{"package": name, "reason": reason} for name, reason in received.refused],
                ["package", "reason"],
            ),
            "gaps": records(
                [{"site": site, "missing_package": number} for site, number in received.waiting],
                ["site", "missing_package"],
            ),
            "failed": records(
                [{"site": site, "reason": reason} for site, reason in received.failed], ["site", "reason"]
            ),
        },
    )


def table(marks: list[Watermark]) -> dg.TableMetadataValue:
    """Every site's watermark, the sites that are not whole first."""
    return records(
        [
            {
                "site": mark.site,
                "state": mark.sentence,
                "complete_through": mark.head.complete,
                "packages": mark.head.number,
                "lineage_events": mark.head.lineage,
                "gaps": len(mark.gaps),
                "days_silent": None if mark.silent is None else round(mark.silent, 1),
            }
            for mark in sorted(marks, key=lambda mark: mark.whole)
        ],
        ["site", "state", "complete_through", "packages", "lineage_events", "gaps", "days_silent"],
    )
