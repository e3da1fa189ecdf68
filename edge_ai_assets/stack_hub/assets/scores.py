"""From waiting readings to scores, and from scores to insights."""

import dagster as dg

from edge_ai_assets import interfaces
from edge_ai_assets.home import Home
from edge_ai_assets.stack_hub.assets.deployment import WHOLE_BATCH
from edge_ai_assets.stack_hub.fleet import Events, each_site


@dg.asset(**interfaces.body(interfaces.SITE_SCORES), backfill_policy=WHOLE_BATCH)
def scores(context: dg.AssetExecutionContext, home: dg.ResourceParam[Home]) -> Events:
    from edge_ai_assets.stack_hub import scoring

    def score(name: str) -> dict[str, object]:
        done = scoring.score_waiting(home.site(name), context.log)
        return {
            "dagster/row_count": done.outbox_rows,
            "scored_rows": done.scored,
            "rejected_rows": done.rejected,
            "baseline_rows": done.baseline,
            "anomalies": done.anomalies,
            "outside_trained_range": done.outside,
            "files": done.files,
            "unreadable_files": done.unreadable,
            "rows_per_second": round(done.scored / done.seconds, 1) if done.scored else 0.0,
            "release": done.release,
        }

    yield from each_site(context, score)
    yield dg.MaterializeResult()


@dg.asset(**interfaces.body(interfaces.SITE_INSIGHTS), backfill_policy=WHOLE_BATCH)
def insights(context: dg.AssetExecutionContext, home: dg.ResourceParam[Home]) -> Events:
    from edge_ai_assets.returns.outbox.outbox import Outbox
    from edge_ai_assets.stack_hub import disk
    from edge_ai_assets.stack_hub.scoring import NotServing, deployed_usecase

    def classify(name: str) -> dict[str, object]:
        site = home.site(name)
        try:
            returns = deployed_usecase(site).returns
        except NotServing:  # scores get their kind all the same
            returns = None
        with Outbox(site.outbox, create=False) as outbox:
            kinds = disk.derive(site, outbox, returns)
        total = kinds.total()
        return {**kinds, "rows": total, "anomaly_rate": kinds["anomaly"] / total if total else 0.0}

    yield from each_site(context, classify)
    yield dg.MaterializeResult()
