"""The Stack Hub code location. Loads without scikit-learn and azure-ai-ml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from edge_ai_assets import keys
from edge_ai_assets.settings import Settings
from edge_ai_assets.stack_hub import (
    automation,
    forwarding_sensor,
    lease_sensor,
    rollout_job,
    rollout_sensor,
    waiting,
)
from edge_ai_assets.stack_hub.assets import deployment, returns, scores
from edge_ai_assets.stack_hub.far_ends import FarEnds
from edge_ai_assets.stack_hub.far_releases import FarReleases
from edge_ai_assets.usecase import Road


def build_defs(
    *, settings: Settings | None = None, resources: Mapping[str, object] | None = None
) -> dg.Definitions:
    """The location's definitions; `resources` override the ones made from `settings`."""
    settings = settings or Settings.load()
    home, usecase = settings.folders(), settings.load_usecase()
    if own := home.own_site:
        usecase = usecase.alone(own)
    far: Any = (resources or {}).get("far_ends", FarEnds(settings.stack_hub))
    deploy = dg.define_asset_job("deploy_sites", selection=[keys.SITE_RELEASE, keys.SITE_DEPLOYMENT])
    restart = dg.define_asset_job("restart_sites", selection=[keys.SITE_DEPLOYMENT])
    home_again = [keys.SITE_INSIGHTS, keys.SITE_EGRESS, keys.SITE_UPLOAD]
    score = dg.define_asset_job("score_sites", selection=[keys.SITE_SCORES, *home_again])
    insights = dg.define_asset_job("insights_of_sites", selection=home_again)
    upload = dg.define_asset_job("upload_sites", selection=[keys.SITE_UPLOAD])
    return dg.Definitions(
        assets=[
            deployment.release,
            deployment.deployment,
            scores.scores,
            scores.insights,
            returns.egress,
            returns.upload,
        ],
        jobs=[deploy, restart, score, insights, upload, rollout_job.rollout_control],
        sensors=[
            automation.sites_registered(usecase),
            rollout_sensor.release_available(deploy, restart, home, usecase),
            automation.something_waits(
                "bundle_arrived",
                deploy,
                home,
                usecase,
                waiting.bundles,
                "A medium with a bundle was carried to a site.",
                unless=[restart],
                apart=True,
            ),
            *(
                [
                    automation.something_waits(
                        "release_in_registry",
                        deploy,
                        home,
                        usecase,
                        FarReleases(far, usecase),
                        "The registry has another release than the site.",
                        unless=[restart],
                        apart=True,
                    )
                ]
                if own and settings.stack_hub.registry
                else []
            ),
            automation.something_waits(
                "service_down",
                restart,
                home,
                usecase,
                waiting.service,
                "A site's service is gone, or what it serves was withdrawn: it gets the release on its disk, "
                "link or no link.",
                unless=[deploy],
                apart=True,
            ),
            automation.something_waits(
                "readings_waiting",
                score,
                home,
                usecase,
                waiting.readings,
                "Files of readings wait at a site that serves scores.",
            ),
            automation.something_waits(
                "scores_waiting",
                insights,
                home,
                usecase,
                waiting.scores,
                "Scores or feedback, from whomever, wait to become insights.",
                unless=[score],
            ),
            forwarding_sensor.insights_queued(
                home, [site.name for site in usecase.sites if site.road is Road.QUEUE], far
            ),
            automation.packages_waiting(upload, home, usecase, keys.SITE_UPLOAD, far),
            lease_sensor.lease_watched(home, usecase, far),
        ],
        # A run here is short and starts fast: a process a step would cost more than the step.
        executor=dg.in_process_executor,
        resources={"home": home, "usecase": usecase, "far_ends": far, **(resources or {})},
    )


defs = build_defs()
