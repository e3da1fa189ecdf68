"""What is done with insights once they are published. Refreshing is `resources.powerbi`'s work."""

from typing import Any

import dagster as dg

from edge_ai_assets import keys
from edge_ai_assets.profiles import Publishing

HOURS = 3
"""Between two refreshes at least: eight a day are what every capacity of Power BI allows."""
DUE: Any = dg.AutomationCondition.cron_tick_passed(f"0 */{HOURS} * * *")
NOT_TOO_OFTEN = (
    dg.AutomationCondition.any_deps_updated().since_last_handled()
    & DUE.since_last_handled()
    & ~dg.AutomationCondition.any_deps_missing()
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
)
AGAIN = 60
"""Seconds before a step is tried again whose patience with an outage ended."""


@dg.asset(
    key=keys.SEMANTIC_MODEL,
    deps=[keys.INSIGHTS, keys.DRIFT],
    group_name="global",
    kinds={"powerbi"},
    owners=[keys.DATA_ENGINEERING],
    automation_condition=NOT_TOO_OFTEN,
)
def semantic_model(
    context: dg.AssetExecutionContext, publishing: dg.ResourceParam[Publishing]
) -> dg.MaterializeResult:
    """Power BI's semantic model, refreshed from the gold tables: in a run of its own, since it takes minutes
    and packages must not wait for it. There only where one is configured (azure.toml, [publishing])."""
    from edge_ai_assets.resources import powerbi
    from edge_ai_assets.resources.calling.patience import Refused, Unavailable

    try:
        done = powerbi.configured(publishing).refresh(context.log.info)
    except (powerbi.RefreshFailed, Refused) as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    except Unavailable as outage:
        # Not by a retry policy: that retries a run which was terminated, too.
        raise dg.RetryRequested(max_retries=2, seconds_to_wait=AGAIN) from outage
    return dg.MaterializeResult(
        metadata={
            "refresh": done.request_id,
            "status": done.status,
            "seconds": done.seconds,
            **{
                name: dg.MetadataValue.timestamp(at)
                for name, at in (("started", done.start_time), ("ended", done.end_time))
                if at
            },
        }
    )
