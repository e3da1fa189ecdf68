"""The Azure code location."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from edge_ai_assets import interfaces, keys
from edge_ai_assets.azure import automation, lease
from edge_ai_assets.azure.assets import history, insights, lake, model, release
from edge_ai_assets.settings import Settings

RELEASE = [keys.CANDIDATE, keys.CHAMPION, keys.IMAGE, keys.BUNDLE]


def build_defs(
    *, settings: Settings | None = None, resources: Mapping[str, object] | None = None
) -> dg.Definitions:
    """The location's definitions; `resources` override the ones made from `settings`."""
    settings = settings or Settings.load()
    home, usecase = settings.folders(), settings.load_usecase()
    ingest = dg.define_asset_job("ingest", selection=[keys.RAW_TELEMETRY, keys.TRAINING_SET])
    first = dg.define_asset_job("first_release", selection=[keys.RAW_TELEMETRY, keys.TRAINING_SET, *RELEASE])
    retrain = dg.define_asset_job("retrain", selection=[keys.TRAINING_SET, *RELEASE])
    bring_home = dg.define_asset_job(
        "bring_home",
        selection=[keys.INBOX, keys.HISTORY, keys.INSIGHTS, keys.FEEDBACK, keys.DRIFT, keys.REPORT],
    )
    return dg.Definitions(
        assets=[
            lake.raw_telemetry,
            lake.training_set,
            model.candidate,
            model.champion,
            release.image,
            release.bundle,
            insights.inbox,
            history.history,
            insights.insights,
            insights.feedback,
            insights.drift,
            insights.report,
            *interfaces.SITE_CHAIN,
        ],
        jobs=[ingest, first, retrain, bring_home],
        sensors=[
            automation.readings_landed(ingest, first, home),
            automation.packages_arrived(bring_home, home),
            automation.drift_seen(retrain, home, usecase),
            lease.lease_renewed(home, usecase),
            dg.AutomationConditionSensorDefinition(
                "what_follows", target=dg.AssetSelection.all(), default_status=dg.DefaultSensorStatus.RUNNING
            ),
        ],
        schedules=[automation.retraining_due(retrain, usecase)],
        # A run here is short and starts fast: a process a step would cost more than the step.
        executor=dg.in_process_executor,
        resources={
            "home": home,
            "usecase": usecase,
            "pipes": dg.PipesSubprocessClient(),
            **(resources or {}),
        },
    )


defs = build_defs()
