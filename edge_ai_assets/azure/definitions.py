"""The Azure code location."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from edge_ai_assets import interfaces, keys
from edge_ai_assets.azure import automation, lease, pipeline_runs, pods
from edge_ai_assets.azure.arriving import Arriving
from edge_ai_assets.azure.assets import history, insights, lake, landing, model, publishing, release
from edge_ai_assets.azure.far_registry import FarRegistry
from edge_ai_assets.azure.feature_engine import FeatureEngine
from edge_ai_assets.azure.landing_zone import LandingZone
from edge_ai_assets.azure.withdraw_job import withdraw_release
from edge_ai_assets.resources import configured
from edge_ai_assets.resources.mirror.home_mirror import HomeMirror
from edge_ai_assets.settings import Settings
from edge_ai_assets.usecase import check_egress

RELEASE = [keys.CANDIDATE, keys.CHAMPION, keys.IMAGE, keys.BUNDLE]


def build_defs(
    *, settings: Settings | None = None, resources: Mapping[str, object] | None = None
) -> dg.Definitions:
    """The location's definitions; `resources` override the ones made from `settings`."""
    settings = settings or Settings.load()
    home, usecase = settings.folders(), settings.load_usecase()
    check_egress(usecase)
    ingestion, power_bi = settings.azure.ingestion, settings.azure.publishing
    given: dict[str, Any] = {
        "home": home,
        "usecase": usecase,
        "landing_zone": LandingZone(home, settings.azure),
        "feature_engine": FeatureEngine(settings.azure),
        "training": configured.training(settings.azure, home),
        "far_registry": FarRegistry(settings.azure),
        "arriving": Arriving(home, settings.azure),
        "mirror": HomeMirror(home, settings.azure),
        **({"ingestion": ingestion} if ingestion else {}),
        **({"publishing": power_bi} if power_bi else {}),
        **(resources or {}),
    }
    ingest = dg.define_asset_job("ingest", selection=[keys.RAW_TELEMETRY, keys.TRAINING_SET])
    # In a cluster a run that trains is a pod that needs more, unless the workspace trains.
    training = None if settings.azure.training else pods.TRAINING
    first = dg.define_asset_job(
        "first_release", selection=[keys.RAW_TELEMETRY, keys.TRAINING_SET, *RELEASE], tags=training
    )
    retrain = dg.define_asset_job("retrain", selection=[keys.TRAINING_SET, *RELEASE], tags=training)
    bring_home = dg.define_asset_job(
        "bring_home",
        selection=[keys.INBOX, keys.HISTORY, keys.INSIGHTS, keys.FEEDBACK, keys.DRIFT, keys.REPORT],
    )
    return dg.Definitions(
        assets=[
            landing.landing if ingestion else landing.SPEC,
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
            *([publishing.semantic_model] if power_bi else []),
            *interfaces.SITE_CHAIN,
        ],
        jobs=[ingest, first, retrain, bring_home, withdraw_release],
        sensors=[
            automation.readings_landed(ingest, first, home, given["landing_zone"]),
            automation.packages_arrived(bring_home, home, given["arriving"]),
            automation.drift_seen(retrain, home, usecase),
            lease.lease_renewed(home, usecase, given["far_registry"]),
            *([pipeline_runs.pipeline_ran(ingestion)] if ingestion else []),
            dg.AutomationConditionSensorDefinition(
                "what_follows", target=dg.AssetSelection.all(), default_status=dg.DefaultSensorStatus.RUNNING
            ),
        ],
        schedules=[automation.retraining_due(retrain, usecase), automation.completeness_due(bring_home)],
        # A run here is short and starts fast: a process a step would cost more than the step.
        executor=dg.in_process_executor,
        resources=given,
    )


defs = build_defs()
