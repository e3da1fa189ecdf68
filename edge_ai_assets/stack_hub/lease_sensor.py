"""The trust leases of the sites in Dagster: a check on site/release, and the sensor that renews and tells."""

from __future__ import annotations

import dagster as dg

from edge_ai_assets import keys
from edge_ai_assets.home import Home
from edge_ai_assets.metadata import records
from edge_ai_assets.stack_hub.far_ends import NOTHING_FAR, FarEnds
from edge_ai_assets.stack_hub.lease import Standing, State, looked_at
from edge_ai_assets.usecase import UseCase

CHECK = "trust_lease"
EVERY = 300
"""Seconds between two looks."""


def judged(found: list[Standing]) -> dg.AssetCheckResult:
    """What the check on site/release says of all sites."""
    bad = [each for each in found if not each.good]
    return dg.AssetCheckResult(
        asset_key=keys.SITE_RELEASE,
        check_name=CHECK,
        passed=not bad,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(each.sentence for each in bad) or f"the trust of {len(found)} sites is fresh",
        metadata={
            "stale": sum(each.state is State.STALE for each in found),
            "sites": records(
                [
                    {"site": each.site, "state": str(each.state), "until": f"{each.until or '-'}"}
                    for each in found
                ],
                ["site", "state", "until"],
            ),
        },
    )


def lease_watched(home: Home, usecase: UseCase, far: FarEnds = NOTHING_FAR) -> dg.SensorDefinition:
    """A sensor that keeps the leases of linked sites fresh, and says loudly which are over."""

    @dg.sensor(
        name="lease_watched",
        minimum_interval_seconds=EVERY,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Keeps the trust leases of linked sites fresh, and says which sites are stale.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Look at all sites; a check is recorded when what it says has changed, which the cursor holds."""
        found = looked_at(home, usecase, far)
        said = repr([(each.site, str(each.state), str(each.until)) for each in found])
        if said == (context.cursor or "[]"):
            return dg.SensorResult(skip_reason=dg.SkipReason("nothing has changed"))
        result = judged(found)
        seen = dg.AssetCheckEvaluation(
            asset_key=keys.SITE_RELEASE,
            check_name=CHECK,
            passed=result.passed,
            severity=result.severity,
            description=result.description,
            metadata=result.metadata or {},
        )
        return dg.SensorResult(asset_events=[seen], cursor=said)

    return sensor
